"""The fake receipt printer: an ESC/POS interpreter with paper, on a pty."""
