"""Payments by M-Pesa: what is done with what was heard. Knows the store; the wires come in as Protocols."""
