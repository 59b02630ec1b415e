"""The POS gateway: one sale, one fiscal receipt, whatever fails."""

__version__ = "0.1.0"
