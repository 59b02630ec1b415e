"""What a start does beside opening the store: the note of a damage, the small checks, the witness. The work does not
grow with the store."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.store import causes, damage, meta, verify, witness, witness_start
from gateway.store.sqlite_errors import at_start, corrupt
from gateway.store.witness import StoreConnection, Witness

log = logging.getLogger(__name__)


def noted(directory: Path) -> bool:
    """Raise StoreCorrupt when a note says that the store was found damaged; return whether it was checked since."""
    try:
        reason = damage.read(directory)
    except OSError as error:
        raise causes.explain(error, directory) from error
    if reason is not None and not reason.startswith(damage.CHECKED):
        raise corrupt(reason)
    return reason is not None


def place(wanted: Path | None, directory: Path) -> Path:
    """Return where the witness lies: on another disk, in the unit's folder, or else beside the store."""
    if wanted is None or wanted == directory:
        return directory
    with suppress(OSError):
        if wanted.is_dir() and os.access(wanted, os.W_OK | os.X_OK):
            return wanted
    log.warning("store.witness_beside wanted=%s reason=it cannot be written", wanted)
    return directory


@dataclass(frozen=True, slots=True)
class Started:
    was_running: bool
    noticed: str | None
    beside: Witness | None


def at_first(conn: sqlite3.Connection, path: Path, place: Path, *, checked: bool) -> Started:
    """Check what the next sales depend on, and compare the store with its witness. The work does not grow with the
    store."""
    assert isinstance(conn, StoreConnection)
    try:
        problem = verify.at_start(conn)
        if problem is not None:
            raise corrupt(problem)
        beside = witness_start.attach(conn, place, checked=checked)
        was_running = bool(meta.get(conn, meta.RUNNING))
        return Started(was_running, meta.get(conn, meta.NOTICED), beside)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise at_start(error, path) from error


def witnessed(conn: sqlite3.Connection, beside: Witness | None) -> None:
    if isinstance(conn, StoreConnection) and beside is not None:
        with suppress(witness.WitnessFailed):
            conn.witness = beside.for_reader()


def close_witness(conn: sqlite3.Connection) -> None:
    beside = witness.of(conn)
    if beside is not None:
        beside.close()
