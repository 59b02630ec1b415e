"""The fake barcode scanner on a serial line."""
