"""A note beside the store that it was found damaged, so that the next start explains it instead of signing again.

The store itself is not written any more once it is known to be damaged.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from gateway.store import folders

log = logging.getLogger(__name__)

FILE_NAME = "store.damaged"
# Characters that are read of it.
LENGTH_MAX = 2000
# First line once the whole store was checked and found whole: the next start compares it with its witness.
CHECKED = "checked: whole"


def note(directory: Path, reason: str) -> None:
    """Write the reason. A disk that takes no file any more is logged; the next check finds the damage again."""
    path = directory / FILE_NAME
    try:
        handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            os.write(handle, reason[:LENGTH_MAX].encode(errors="replace"))
            os.fsync(handle)
        finally:
            os.close(handle)
        folders.sync(directory)
    except OSError as error:
        log.error("store.damage_unwritten file=%s reason=%s", path, error)


def read(directory: Path) -> str | None:
    """Return the reason that was written; None when there is none. OSError."""
    try:
        with (directory / FILE_NAME).open(encoding="utf-8", errors="replace") as file:
            return file.read(LENGTH_MAX) or "unknown"
    except FileNotFoundError:
        return None


def clear(directory: Path) -> None:
    """Delete the note. OSError."""
    (directory / FILE_NAME).unlink(missing_ok=True)
    folders.sync(directory)
