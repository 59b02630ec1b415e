"""Receipts as they must come out: bytes and pictures kept in `receipts/`, written by `write.py`."""
