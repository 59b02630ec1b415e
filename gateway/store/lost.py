"""What a store that a backup takes the place of can still tell it: whose sales it knew, and what was signed.

It may be damaged: that is why a backup is put back. Whatever can be read of it is taken, index by index.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path

from gateway.ids import lasting_names
from gateway.store import meta, unclear_keys
from gateway.store.unclear_keys import SaleName

_META_KEY = "store.lost"
# Read from the index of the keys alone, which may be whole where the sales are not; else from the sales.
_SALES = (
    "SELECT till_id, idem_key, 0 FROM invoice",
    "SELECT till_id, idem_key, 0 FROM invoice NOT INDEXED ORDER BY seq DESC",
)
_CHECKOUTS = ("SELECT till_id, idem_key, 0 FROM checkout",)
_UNCLEAR = ("SELECT till_id, idem_key, settled FROM unclear_key",)
_RECEIPTS = (
    "SELECT invoice_id FROM receipt",
    "SELECT invoice_id FROM receipt NOT INDEXED ORDER BY seq DESC",
)
_NUMBERS = (
    "SELECT MAX(invc_no) FROM invoice",
    "SELECT MAX(invc_no) FROM receipt",
    "SELECT next_invc_no - 1 FROM unit",
)


@dataclass(frozen=True, slots=True)
class Signed:
    """Signed sales that the copy lacks: how many, and the last invoice number that the lost store used;
    None when it is damaged: a number read there may be any."""

    receipts: int
    last_invc_no: int | None


@dataclass(frozen=True, slots=True)
class Carried:
    """`sales` and `receipts`: how many the copy lacks. `whole`: nothing of the lost store was unreadable."""

    sales: int = 0
    receipts: int = 0
    whole: bool = True


def carry(copy: sqlite3.Connection, lost: Path, *, at: int) -> Carried:
    """Notes in `copy`, inside the caller's transaction, the key of every sale that only `lost` knows, and
    what was signed. `lost` is only read. `at` in UTC microseconds."""
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
    """A person has said which number is next."""
    meta.remove(conn, _META_KEY)


def _carry(copy: sqlite3.Connection, old: sqlite3.Connection, at: int) -> Carried:
    sales, whole = 0, True
    for queries in (_SALES, _CHECKOUTS, _UNCLEAR):
        rows, all_read = _read(old, *queries)
        whole = whole and all_read
        missing = [row for row in rows if not _has_sale(copy, str(row[0]), str(row[1]))]
        sales += len(missing) if queries is _SALES else 0
        for till_id, idem_key, settled in missing:
            name = _name(old, str(till_id), str(idem_key))
            unclear_keys.note(copy, name, at=at, settled=bool(settled))
    rows, all_read = _read(old, *_RECEIPTS)
    receipts = sum(not _has_receipt(copy, str(invoice_id)) for (invoice_id,) in rows)
    if receipts:
        found = Signed(receipts, _last_number(old))
        meta.put(copy, _META_KEY, json.dumps(asdict(found)))
    return Carried(sales, receipts, whole and all_read)


def _read(old: sqlite3.Connection, *queries: str) -> tuple[set[tuple[object, ...]], bool]:
    """The rows of the first query that works to its end, and True; otherwise of all, up to where each
    broke off, and False."""
    found: set[tuple[object, ...]] = set()
    for query in queries:
        try:
            for row in old.execute(query):
                found.add(row)
        except sqlite3.Error as error:
            # An older version has not all of these tables.
            if "no such table" in str(error):
                return found, True
        else:
            return found, True
    return found, False


def _name(old: sqlite3.Connection, till_id: str, idem_key: str) -> SaleName:
    """With what a person looks for, where the damage leaves it."""
    key = lasting_names(idem_key)[-1]
    query = "SELECT till_receipt_no, total_cents FROM {} WHERE till_id = ? AND idem_key = ?"
    for table in ("invoice", "unclear_key"):
        try:
            row = old.execute(query.format(table), (till_id, idem_key)).fetchone()
        except sqlite3.Error:
            continue
        if row is not None and isinstance(row[0], str) and isinstance(row[1], int):
            return SaleName(till_id, key, row[0], row[1])
    return SaleName(till_id, key)


def _last_number(old: sqlite3.Connection) -> int | None:
    try:
        if old.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            return None
        return max(int(old.execute(query).fetchone()[0] or 0) for query in _NUMBERS)
    except sqlite3.Error:
        return None


def _has_sale(conn: sqlite3.Connection, till_id: str, idem_key: str) -> bool:
    query = "SELECT 1 FROM invoice WHERE till_id = ? AND idem_key = ?"
    return conn.execute(query, (till_id, idem_key)).fetchone() is not None


def _has_receipt(conn: sqlite3.Connection, invoice_id: str) -> bool:
    query = "SELECT 1 FROM receipt WHERE invoice_id = ?"
    return conn.execute(query, (invoice_id,)).fetchone() is not None
