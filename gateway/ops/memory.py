"""The process's memory: one small C heap, and no long walks over what never changes."""

from __future__ import annotations

import ctypes
import gc

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


def settle() -> int:
    """Take what the start has made out of every later garbage collection; returns how many objects.

    JPype runs a full Python collection after each of Java's, here after every thirty to forty sales.
    Walking the modules, models and routes then stops the loop for 40 ms each time, for nothing:
    they live as long as the process does. To be called once, when everything stands.
    """
    gc.collect()
    gc.freeze()
    return gc.get_freeze_count()
