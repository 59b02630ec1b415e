"""A till without a network, as a peer on a pty: the framed protocol, and what can go wrong on its wire."""
