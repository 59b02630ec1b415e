"""The conformance test of a control unit's build: what may be assumed of it (docs/internals/evidence.md)."""
