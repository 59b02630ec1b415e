"""The control unit: hosting KRA's JAR and speaking its protocol. Knows the wire, no policy."""
