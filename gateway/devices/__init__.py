"""Serial devices of the counter: ports, codecs and drivers. Knows wires, no policy, no store."""
