"""Makes the names in a folder as durable as what is in the files."""

from __future__ import annotations

import os
from pathlib import Path


def sync(folder: Path) -> None:
    """After a file was created, replaced or moved there. OSError."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
