"""Slips through a printer in virtual time: its wire, its buffer, its paper, and what goes wrong with them."""
