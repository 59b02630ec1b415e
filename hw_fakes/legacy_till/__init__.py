"""A till that only knows how to print, as a peer on a serial line: it speaks ESC/POS to its printer."""
