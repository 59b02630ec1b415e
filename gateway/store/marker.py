"""A file in the unit's folder that says which store sells with that unit, and how far it has come.

A gateway that starts on another store (its disk is not mounted, the directory in the settings was changed,
somebody deleted a damaged one), or on an older copy that somebody put there by hand, lacks the keys of
sales that the unit has signed. The unit's folder is the one thing beside the store that it still finds.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gateway.store import folders

log = logging.getLogger(__name__)

FILE = "pos-gateway.store"
_FORM = re.compile(r"([0-9A-Z]{26}) ([0-9]{1,19})\n")
# Of who finds the file. Characters.
_LENGTH_MAX = 1000
_WORDS = "The POS gateway's store that sells with this unit, and its last invoice number. Leave it here.\n"


@dataclass(frozen=True, slots=True)
class Mark:
    """The store, and the last invoice number that it was known to have used."""

    store_id: str
    last_invc_no: int


class Unreadable(Exception):
    """Something is there that says nothing. It is left as it is: it may be all the evidence there is."""


def read(folder: Path) -> Mark | None:
    """None where nothing stands. Unreadable, logged."""
    path = folder / FILE
    try:
        with path.open(encoding="ascii") as file:
            found = file.read(_LENGTH_MAX)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.error("unit.marker_unread file=%s reason=%s", path, error)
        raise Unreadable from error
    match = _FORM.match(found)
    if match is None and found:
        log.error("unit.marker_unread file=%s reason=its words are not the gateway's", path)
        raise Unreadable
    # Empty: a power cut took what was written first.
    return None if match is None else Mark(match[1], int(match[2]))


def put(folder: Path, mark: Mark) -> bool:
    """This from now on. False, logged, where that cannot be written, or something stands there that cannot
    be read: then nothing is noticed."""
    part = folder / f"{FILE}.part"
    try:
        if read(folder) == mark:
            return True
        with part.open("w", encoding="ascii") as out:
            out.write(f"{mark.store_id} {mark.last_invc_no}\n{_WORDS}")
            out.flush()
            os.fsync(out.fileno())
        part.replace(folder / FILE)
        folders.sync(folder)
    except (OSError, Unreadable) as error:
        log.error("unit.marker_unwritten file=%s reason=%s", folder / FILE, error)
        return False
    return True
