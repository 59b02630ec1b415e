"""Ports on loopback for fakes and tests, that nobody takes between the look and the use."""

from __future__ import annotations

import itertools
import os
import socket

# Below what the kernel gives to outgoing connections (Linux: from 32768): one of those could have
# taken a port that was only looked at.
_FIRST, _COUNT = 18_000, 14_000
# Processes begin apart, and one process does not give the same port twice in a row.
_tries = itertools.count(os.getpid() * 101)


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
