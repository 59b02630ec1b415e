"""What a store that a backup takes the place of can still tell it: whose sales it knew, and what was signed.

It may be damaged: that is why a backup is put back. Whatever can be read of it is taken, index by index.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.ids import lasting_names
from gateway.store import meta, unclear_keys, witness
from gateway.store.unclear_keys import SaleName

_META_KEY = "store.lost"
# Read from the index of the keys alone, which may be whole where the sales are not; else from the sales.
_SALES = (
    "SELECT till_id, idem_key, 0 FROM invoice",
    "SELECT till_id, idem_key, 0 FROM invoice NOT INDEXED ORDER BY seq DESC",
)
# Money may have been asked for; one that was closed is not signed any more.
_CHECKOUTS = ("SELECT till_id, idem_key, 0 FROM checkout WHERE state IN ('COLLECTING', 'READY')",)
_UNCLEAR = ("SELECT till_id, idem_key, settled FROM unclear_key",)
_RECEIPTS = (
    "SELECT invoice_id FROM receipt",
    "SELECT invoice_id FROM receipt NOT INDEXED ORDER BY seq DESC",
)
# The unit was given it, and nobody here knows what became of it.
_OPEN = ("SELECT id FROM invoice WHERE state IN ('SIGNING', 'IN_DOUBT')",)
_NUMBERS = (
    "SELECT MAX(invc_no) FROM invoice",
    "SELECT MAX(invc_no) FROM receipt",
    "SELECT MAX(next_invc_no) - 1 FROM unit",
)
# Older versions had no such tables.
_LATER = ("no such table: checkout", "no such table: unclear_key")


@dataclass(frozen=True, slots=True)
class Signed:
    """Sales that the copy lacks and that are or may be signed: how many, and the last invoice number that
    the lost store used; None when it is damaged: a number read there may be any."""

    receipts: int
    last_invc_no: int | None


@dataclass(frozen=True, slots=True)
class Carried:
    """`sales`: how many the copy lacks; `receipts`: how many that are or may be signed. `whole`: nothing of
    the lost store was unreadable."""

    sales: int = 0
    receipts: int = 0
    whole: bool = True


def carry(copy: sqlite3.Connection, lost: Path, *, at: int) -> Carried:
    """Notes in `copy`, inside the caller's transaction, the key of every sale that only `lost` knows, what
    was signed, and why `lost` itself was held. `lost` is only read. `at` in UTC microseconds."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{lost}?mode=ro", uri=True)) as old:
            return _carry(copy, old, at)
    except sqlite3.Error:
        return Carried(whole=False)


def signed(conn: sqlite3.Connection) -> Signed | None:
    """What the store before this copy had signed that is missing here, as far as that is known."""
    stored = meta.get(conn, _META_KEY)
    return None if stored is None else Signed(**json.loads(stored))


def settle(conn: sqlite3.Connection) -> None:
    """Clear the salvage notes: it is known what is missing here."""
    meta.remove(conn, _META_KEY)
    meta.remove(conn, meta.NOTICED)
    witness.settled(conn)


def notice(
    conn: sqlite3.Connection, reason: str | None, *, receipts: int, last_invc_no: int
) -> None:
    """Record at the start that the newest transactions are lost, as the witness shows. Idempotent. `reason`: None
    where it is known already that this store is a copy."""
    if reason is not None:
        meta.put(conn, meta.NOTICED, reason)
    known = signed(conn)
    if known is not None:
        receipts = max(receipts, known.receipts)
        last_invc_no = max(last_invc_no, known.last_invc_no or 0)
    if receipts:
        meta.put(conn, _META_KEY, json.dumps(asdict(Signed(receipts, last_invc_no))))


def _carry(copy: sqlite3.Connection, old: sqlite3.Connection, at: int) -> Carried:
    sales, whole = 0, True
    for queries in (_SALES, _CHECKOUTS, _UNCLEAR):
        rows, all_read = _read(old, *queries)
        whole = whole and all_read
        tables = ("invoice", "checkout") if queries is _CHECKOUTS else ("invoice",)
        missing = [row for row in rows if not _has(copy, tables, str(row[0]), str(row[1]))]
        sales += len(missing) if queries is _SALES else 0
        for till_id, idem_key, settled in missing:
            name, came = _name(old, str(till_id), str(idem_key), at)
            unclear_keys.note(copy, name, at=came, settled=bool(settled))
    receipts, all_read = _read(old, *_RECEIPTS)
    begun, begun_read = _read(old, *_OPEN)
    count = sum(not _has_receipt(copy, str(row[0])) for row in receipts)
    count += sum(not _was_begun(copy, str(row[0])) for row in begun)
    _hand_on(copy, old, Signed(count, _last_number(old)))
    return Carried(sales, count, whole and all_read and begun_read)


def _hand_on(copy: sqlite3.Connection, old: sqlite3.Connection, found: Signed) -> None:
    """What was signed, together with what `old`, a copy itself perhaps, was waiting for a person about."""
    waiting = {key: value for key, value in _facts(old).items() if _unsettled(key, value)}
    before = waiting.pop(_META_KEY, None)
    if before is not None:
        earlier = Signed(**json.loads(before))
        numbers = [n for n in (earlier.last_invc_no, found.last_invc_no) if n is not None]
        found = Signed(earlier.receipts + found.receipts, max(numbers, default=None))
    if found.receipts:
        meta.put(copy, _META_KEY, json.dumps(asdict(found)))
    for key, value in waiting.items():
        meta.put(copy, key, value)


def _facts(old: sqlite3.Connection) -> dict[str, str]:
    wanted = (_META_KEY, meta.HOLD, meta.UNIT_RESTORED)
    try:
        rows = old.execute("SELECT key, value FROM meta").fetchall()
    except sqlite3.Error:
        return {}
    return {key: value for key, value in rows if key in wanted}


def _unsettled(key: str, value: str) -> bool:
    if key == meta.UNIT_RESTORED:
        return True
    try:
        said: dict[str, Any] = json.loads(value)
    except ValueError:
        return False
    # An old unit beside a whole store is not this copy's case.
    return key == _META_KEY or not said.get("complete", False)


def _read(old: sqlite3.Connection, *queries: str) -> tuple[set[tuple[object, ...]], bool]:
    """The rows of the first query that works to its end, and True; otherwise of all, up to where each
    broke off, and False."""
    found: set[tuple[object, ...]] = set()
    for query in queries:
        try:
            for row in old.execute(query):
                found.add(row)
        except sqlite3.Error as error:
            if str(error) in _LATER:
                return found, True
        else:
            return found, True
    return found, False


def _name(old: sqlite3.Connection, till_id: str, idem_key: str, at: int) -> tuple[SaleName, int]:
    """With what a person looks for and when it came, where the damage leaves that."""
    key = lasting_names(idem_key)[-1]
    for table, came in (("invoice", "created_at"), ("unclear_key", "at")):
        query = f"SELECT till_receipt_no, total_cents, {came} FROM {table} WHERE till_id = ? AND idem_key = ?"
        try:
            row = old.execute(query, (till_id, idem_key)).fetchone()
        except sqlite3.Error:
            continue
        if row is not None and [type(value) for value in row] == [str, int, int]:
            return SaleName(till_id, key, row[0], row[1]), row[2]
    return SaleName(till_id, key), at


def _last_number(old: sqlite3.Connection) -> int | None:
    try:
        if old.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
            return None
        return max(int(old.execute(query).fetchone()[0] or 0) for query in _NUMBERS)
    except (sqlite3.Error, TypeError, ValueError):
        return None


def _has(conn: sqlite3.Connection, tables: tuple[str, ...], till_id: str, idem_key: str) -> bool:
    query = "SELECT 1 FROM {} WHERE till_id = ? AND idem_key = ?"
    return any(
        conn.execute(query.format(table), (till_id, idem_key)).fetchone() is not None
        for table in tables
    )


def _has_receipt(conn: sqlite3.Connection, invoice_id: str) -> bool:
    query = "SELECT 1 FROM receipt WHERE invoice_id = ?"
    return conn.execute(query, (invoice_id,)).fetchone() is not None


def _was_begun(conn: sqlite3.Connection, invoice_id: str) -> bool:
    query = "SELECT 1 FROM invoice WHERE id = ? AND state <> 'RECEIVED'"
    return conn.execute(query, (invoice_id,)).fetchone() is not None
