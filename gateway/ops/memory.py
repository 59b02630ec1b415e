"""Keeps the process small: one C heap shared by all threads instead of one for each."""

from __future__ import annotations

import ctypes

# mallopt(3): M_ARENA_MAX. glibc gives every thread an arena of its own, up to eight a core, and the
# JVM's and the store's threads would each keep one half empty.
_M_ARENA_MAX = -8
ARENAS = 2


def few_arenas() -> bool:
    """False where the C library has no such setting (musl); then nothing changes."""
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS))
    except (OSError, AttributeError):
        return False
