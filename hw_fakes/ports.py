"""Ports on loopback for fakes and tests, that nobody takes between the look and the use."""

from __future__ import annotations

import itertools
import os
import socket

# Below what the kernel gives to outgoing connections (Linux: from 32768): one of those could have
# taken a port that was only looked at.
_FIRST, _COUNT = 18_000, 14_000
# One process does not give the same port twice in a row, and processes that were started one after the other
# (the workers of a test run) begin thousands apart: none comes by where another's daemon is just starting.
_tries = itertools.count(os.getpid() * 8_651)


def free_port() -> int:
    """A port nobody listens on just now, on loopback."""
    while True:
        port = _FIRST + next(_tries) % _COUNT
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
