"""Compares the store with its witness at the start, and makes the witness the store's own.

Three things may come out. The witness is behind or missing: it is filled from the store. It is ahead of the store, or
it belongs to another one: the newest transactions of this store are lost, or this is not the store that sold here
last. Then the keys that only the witness knows are kept aside by their digests, and the witness stays as it is until
an operator has decided: the right store may still be put in place.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import StoreCorrupt
from gateway.store import invoices, lost, lost_keys, marker, meta, witness
from gateway.store.witness import Claimed, State, StoreConnection, Witness, WitnessFailed

log = logging.getLogger(__name__)

# Keys that are recorded and compared before the first sale; older ones follow in the background. Rows.
NEWEST = 500


def attach(conn: StoreConnection, place: Path, *, checked: bool = False) -> Witness | None:
    """Open the witness in `place` for the writer's connection, compare, and return it; None, logged, where it cannot
    be opened. StoreCorrupt when the store lacks a key that the witness knows; where the whole store was `checked`
    and found whole, such a key is lost."""
    path = place / witness.FILE_NAME
    try:
        beside = witness.open_file(path)
        try:
            _compare(conn, beside, checked=checked)
        except WitnessFailed:
            beside.close()
            raise
    except WitnessFailed as error:
        # It is only a witness: the store is whole as far as anything shows, and makes a new one.
        log.error("store.witness_damaged file=%s reason=%s", path, error)
        return _renewed(conn, path)
    conn.witness = beside
    return beside


def _renewed(conn: StoreConnection, path: Path) -> Witness | None:
    try:
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)
        beside = witness.open_file(path)
        adopt(conn, beside)
    except (OSError, WitnessFailed) as error:
        log.error("store.witness_failed file=%s reason=%s", path, error)
        return None
    conn.witness = beside
    return beside


def _compare(conn: StoreConnection, beside: Witness, *, checked: bool) -> None:
    store_id = meta.get(conn, meta.WITNESS_ID)
    state = beside.state()
    commits, next_invc_no = _counted(conn)
    if state is None or _is_taken(conn, state):
        adopt(conn, beside)
    elif state.store_id != store_id:
        _another(conn, beside, state)
    elif state.commits > commits or state.next_invc_no > next_invc_no:
        _ahead(conn, beside, state, commits)
    elif checked or meta.get(conn, meta.NOTICED) is not None:
        _lacking(conn, beside, state)
    else:
        _whole(conn, beside)
        _catch_up(conn, beside, state)


def _is_taken(conn: sqlite3.Connection, state: State) -> bool:
    """Return whether an operator has decided about this state of the witness, or about a later one that a power cut took
    back before it was synced."""
    store_id, _, commits = (meta.get(conn, meta.WITNESS_TAKEN) or "").partition(":")
    return store_id == state.store_id and state.commits <= int(commits)


def adopt(conn: StoreConnection, beside: Witness) -> None:
    """Make the witness this store's, with its newest keys; the background check adds the others."""
    store_id = beside.new_store_id or meta.get(conn, meta.WITNESS_ID)
    if store_id is None:
        store_id = witness.new_id()
        with _transaction(conn):
            meta.put(conn, meta.WITNESS_ID, store_id)
    _sync(conn)
    newest = [witness.claimed(*row) for row in invoices.newest_keys(conn, NEWEST)]
    oldest = min((row.seq for row in newest), default=1)
    commits, next_invc_no = _counted(conn)
    beside.take(State(store_id, commits, next_invc_no, 0, oldest - 1), newest)
    beside.is_foreign = False
    beside.new_store_id = None
    log.info("store.witness_filled file=%s rows=%d older=%d", beside.path, len(newest), oldest - 1)


def _sync(conn: sqlite3.Connection) -> None:
    """Make everything in the store durable: the witness records only what a power cut cannot take back."""
    with _transaction(conn):
        conn.execute("UPDATE unit SET updated_at = updated_at WHERE id = 1")


def _counted(conn: sqlite3.Connection) -> tuple[int, int]:
    row = conn.execute("SELECT commits, next_invc_no FROM unit WHERE id = 1").fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def _catch_up(conn: StoreConnection, beside: Witness, state: State) -> None:
    """Add what was claimed between the witness's last row and the end of the process."""
    _sync(conn)
    last = beside.last_seq()
    newest = [witness.claimed(*row) for row in invoices.newest_keys(conn, NEWEST) if row[0] > last]
    oldest = min((row.seq for row in newest), default=last + 1)
    filled_to, fill_until = state.filled_to, state.fill_until
    if oldest > last + 1:
        filled_to = last if filled_to >= fill_until else filled_to
        fill_until = oldest - 1
    commits, next_invc_no = _counted(conn)
    beside.take(State(state.store_id, commits, next_invc_no, filled_to, fill_until), None)
    beside.fill(newest, 0)


def _whole(conn: StoreConnection, beside: Witness) -> None:
    """Raise StoreCorrupt unless the store has the newest keys of the witness, in their rows and by their index."""
    for row in beside.newest(NEWEST):
        found = invoices.by_seq(conn, row.seq)
        if found is None or witness.claimed(row.seq, found.till_id, found.idem_key) != row:
            raise StoreCorrupt(f"The store has lost row {row.seq}, which its witness knows.")
        invoices.by_key(conn, found.till_id, found.idem_key)


def _ahead(conn: StoreConnection, beside: Witness, state: State, commits: int) -> None:
    row = conn.execute("SELECT COALESCE(MAX(seq), 0) FROM invoice NOT INDEXED").fetchone()
    missing = list(_all(beside, int(row[0])))
    _, next_invc_no = _counted(conn)
    reason = (
        f"{beside.path} shows that this store had come to invoice number {state.next_invc_no - 1}, and now it knows "
        f"of {next_invc_no - 1} ({state.commits} transactions then, {commits} now): it is an older copy, or its disk "
        "lost what was written last"
    )
    _foreign(conn, beside, state, missing, reason)


def _lacking(conn: StoreConnection, beside: Witness, state: State) -> None:
    """The store is whole in itself: what only the witness knows is lost, without a trace of it in the store."""
    missing, noticed = _missing(conn, beside), meta.get(conn, meta.NOTICED)
    if noticed is not None:
        _foreign(conn, beside, state, missing, noticed)
        return
    if not missing:
        adopt(conn, beside)
        return
    reason = (
        f"{len(missing)} sale{'' if len(missing) == 1 else 's'} that {beside.path} knows "
        f"{'is' if len(missing) == 1 else 'are'} lost from this store, which is whole otherwise"
    )
    _foreign(conn, beside, state, missing, reason)


def _missing(conn: StoreConnection, beside: Witness) -> list[Claimed]:
    known = {witness.claimed(*row).digest for row in _rows(conn)}
    return [row for row in _all(beside, 0) if row.digest not in known]


def _another(conn: StoreConnection, beside: Witness, state: State) -> None:
    missing = _missing(conn, beside)
    reason = None
    if not _is_marked(beside.path.parent):
        reason = (
            f"{beside.path} belongs to another store, which sold here until now, and this one does not have its sales: "
            "look whether its disk is there and store.directory is right"
        )
    _foreign(conn, beside, state, missing, reason)


def _is_marked(place: Path) -> bool:
    """Return whether the marker in the unit's folder shows the other store already (`fiscal/ahead.py`)."""
    try:
        return marker.read(place) is not None
    except marker.Unreadable:
        return False


def _foreign(
    conn: StoreConnection, beside: Witness, state: State, missing: list[Claimed], reason: str | None
) -> None:
    beside.is_foreign = True
    _, next_invc_no = _counted(conn)
    if meta.get(conn, meta.RESTORED) is not None:
        # It is known already that this is a copy, and what it lacks is settled as for every copy.
        reason = None
    with _transaction(conn):
        for row in missing:
            lost_keys.add(conn, (row.digest, *(() if row.lasting is None else (row.lasting,))))
        lost.notice(
            conn,
            reason,
            receipts=max(0, state.next_invc_no - max(1, next_invc_no)),
            last_invc_no=state.next_invc_no - 1,
        )
    log.critical("store.witness_ahead keys=%d reason=%s", len(missing), reason or "restored")


def _all(beside: Witness, seq: int) -> Iterator[Claimed]:
    while rows := beside.after(seq, 1000):
        yield from rows
        seq = rows[-1].seq


def _rows(conn: sqlite3.Connection) -> Iterator[tuple[int, str, str]]:
    seq = 0
    while rows := invoices.keys_after(conn, seq, 1000):
        yield from rows
        seq = rows[-1][0]


@contextlib.contextmanager
def _transaction(conn: sqlite3.Connection) -> Iterator[None]:
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    finally:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
