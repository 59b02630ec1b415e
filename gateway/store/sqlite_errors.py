"""What an error of SQLite means to a shop: a full disk, a damaged store, a lock of another program, or a cause in the
system."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from gateway.errors import DiskFull, StoreBusy, StoreCorrupt, StoreError
from gateway.store import causes

DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
LOCKED = ("SQLITE_BUSY", "SQLITE_LOCKED")
# A disk without room may answer these instead of SQLITE_FULL (a quota, no inodes, the WAL's index). What a failed
# fsync answers is not among them: after it nothing may be tried again.
_PERHAPS_FULL = (
    "SQLITE_IOERR_WRITE",
    "SQLITE_IOERR_SHM",
    "SQLITE_IOERR_TRUNCATE",
    "SQLITE_CANTOPEN",
)


def corrupt(reason: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"The store is damaged. Restore a backup; see the status page. ({reason})",
        extra={"signed": "unknown"},
    )


def name_of(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def is_damage(error: sqlite3.Error) -> bool:
    # Text that is not UTF-8 was never written by us.
    return name_of(error).startswith(DAMAGED) or str(error).startswith("Could not decode to UTF-8")


def is_full(error: sqlite3.Error, path: Path) -> bool:
    name = name_of(error)
    # The WAL's index cannot grow either, and says so in its own words.
    if name in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
        return True
    return name.startswith(_PERHAPS_FULL) and causes.is_full(path.parent)


def unread(error: sqlite3.Error) -> StoreError | None:
    """Return the error of a read that the system did not let through; None for an error of the query itself. What the
    store holds is not known then, and nothing of it has changed."""
    name = name_of(error)
    unknown = {"signed": "unknown"}
    if name.startswith(LOCKED):
        return StoreBusy(
            "Another program has locked the gateway's store. Close it (a sqlite3 shell?), then send the same sale again.",
            retry_after_s=5,
            extra=unknown,
        )
    if name.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_NOMEM", "SQLITE_FULL")):
        return StoreError(
            f"The store could not be read ({name}). Send the same sale again with the same key; if this stays, call the "
            "technician.",
            retry_after_s=10,
            extra=unknown,
        )
    return None


def at_start(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> StoreError:
    """Return the error for a start that failed. A full disk and a file of another user are not a damaged store: no
    backup helps there."""
    if isinstance(error, UnicodeDecodeError):
        return StoreCorrupt(f"{path.name} cannot be read as a database: {error}")
    name = name_of(error)
    if is_full(error, path):
        return DiskFull(causes.FULL)
    if name.startswith(LOCKED):
        return StoreBusy(f"Another program has locked {path}. Close it; the gateway tries again.")
    if name.startswith(
        ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_IOERR", "SQLITE_NOMEM")
    ) or not isinstance(error, sqlite3.DatabaseError):
        cause = causes.probe(path.parent)
        if cause is not None:
            return causes.explain(cause, path.parent)
        if name.startswith(("SQLITE_IOERR", "SQLITE_NOMEM")):
            return StoreError(f"{path} cannot be read: {error}. Look at the disk and at dmesg.")
        return StoreError(
            f"{path} cannot be opened for writing ({error}). Its files must belong to the gateway's user."
        )
    return StoreCorrupt(f"{path.name} cannot be read as a database: {error}")
