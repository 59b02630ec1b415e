"""A file that only takes up room: released when the disk is full, so that signing is the last to stop.

While it is gone, what can wait (copies, backups) waits, and the status says that the disk is full; it
is laid again when there is room for twice its size.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

FILE_NAME = "ballast"


class Ballast:
    """`size` in bytes; 0 for none. Every call is quick and never raises for a full disk."""

    def __init__(self, directory: Path, size: int) -> None:
        self._path = directory / FILE_NAME
        self._size = size
        self.released = False

    def lay(self) -> bool:
        """Put it there if it is not; False when there is no room for it."""
        if self._size == 0 or (self._path.exists() and self._path.stat().st_size == self._size):
            self.released = False
            return True
        if shutil.disk_usage(self._path.parent).free < 2 * self._size:
            self.released = True
            return False
        try:
            handle = os.open(self._path, os.O_CREAT | os.O_WRONLY, 0o600)
            try:
                # Real blocks, not a sparse promise.
                os.posix_fallocate(handle, 0, self._size)
            finally:
                os.close(handle)
        except OSError:
            self._path.unlink(missing_ok=True)
            self.released = True
            return False
        if self.released:
            log.warning("store.ballast_laid bytes=%d", self._size)
        self.released = False
        return True

    def release(self) -> bool:
        """Give its room to the store; False when it was given already."""
        if not self._path.exists():
            self.released = self._size > 0
            return False
        self._path.unlink(missing_ok=True)
        self.released = True
        log.critical("store.ballast_released bytes=%d", self._size)
        return True


def has_room(directory: Path, size: int) -> bool:
    """Whether `size` more bytes fit, tried with a file: what is free is not always ours (a quota)."""
    try:
        with tempfile.TemporaryFile(dir=directory) as probe:
            os.posix_fallocate(probe.fileno(), 0, size)
    except OSError:
        return False
    return True
