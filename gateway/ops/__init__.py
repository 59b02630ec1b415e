"""The daemon's relations to its machine: log and systemd."""
