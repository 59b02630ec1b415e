"""Public Daraja SDKs against the fake Daraja."""
