"""Makes files and the names in a folder durable."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Of a folder: after a file was created, replaced or moved there. Of a file: its content. OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
