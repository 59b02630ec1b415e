"""A file in the unit's folder that says which store sells with that unit.

A gateway that starts on another store (its disk is not mounted, the directory in the settings was changed,
somebody deleted a damaged one) has none of the keys of the sales that the unit has signed. The unit's
folder is the one thing beside the store that such a gateway still finds.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from gateway.store import folders

log = logging.getLogger(__name__)

FILE = "pos-gateway.store"
# An id and a line for who finds the file. Characters.
LENGTH_MAX = 1000


def read(folder: Path) -> str | None:
    """The id of the store that sells with this unit; None where nothing says so."""
    try:
        with (folder / FILE).open(encoding="utf-8") as file:
            return file.readline(LENGTH_MAX).strip() or None
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("unit.marker_unread file=%s reason=%s", folder / FILE, error)
        return None


def write(folder: Path, store_id: str) -> None:
    """This store from now on. A folder that takes no file is logged: without one, nothing is noticed."""
    part = folder / f"{FILE}.part"
    try:
        with part.open("w", encoding="utf-8") as out:
            out.write(
                f"{store_id}\nThe POS gateway's store that sells with this unit. Leave it here.\n"
            )
            out.flush()
            os.fsync(out.fileno())
        part.replace(folder / FILE)
        folders.sync(folder)
    except OSError as error:
        log.error("unit.marker_unwritten file=%s reason=%s", folder / FILE, error)
