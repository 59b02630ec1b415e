"""Receipts on paper: what is on them (layout), and the durable queue that gets them out (spooler)."""
