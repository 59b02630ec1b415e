"""The signed receipts as a file that an owner or inspector can check without us."""
