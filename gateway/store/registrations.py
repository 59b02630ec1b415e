"""Items and stock moves that wait for the unit: claimed by key, sent in order, settled once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

_COLUMNS = (
    "seq, id, till_id, digest, kind, subject, body, state, reason, attempts, created_at, settled_at"
)
_CLAIM = """
    INSERT INTO registration (id, till_id, idem_key, digest, kind, subject, body, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (till_id, idem_key) DO NOTHING"""
_NEXT = f"SELECT {_COLUMNS} FROM registration WHERE state = 'WAITING' ORDER BY seq LIMIT 1"
_FIGURES = """
    SELECT (SELECT COUNT(*) FROM registration WHERE state = 'WAITING'),
           (SELECT COUNT(*) FROM registration WHERE state = 'REFUSED')"""


@dataclass(frozen=True, slots=True)
class Registration:
    """One row. `kind` names the unit's path, `subject` the item code or the stock move's number."""

    seq: int
    id: str
    till_id: str
    digest: str
    kind: str
    subject: str
    body: bytes
    state: str
    reason: str | None
    attempts: int
    created_at: int
    settled_at: int | None


def claim(
    conn: sqlite3.Connection,
    *,
    new_id: str,
    till_id: str,
    idem_key: str,
    digest: str,
    kind: str,
    at: int,
    make: Callable[[sqlite3.Connection], tuple[str, bytes]],
) -> Registration:
    """The row of this key: new, or the one that was there. `make` gives subject and wire bytes."""
    found = by_key(conn, till_id, idem_key)
    if found is not None:
        return found
    subject, body = make(conn)
    conn.execute(_CLAIM, (new_id, till_id, idem_key, digest, kind, subject, body, at))
    made = by_key(conn, till_id, idem_key)
    assert made is not None
    return made


def by_key(conn: sqlite3.Connection, till_id: str, idem_key: str) -> Registration | None:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM registration WHERE till_id = ? AND idem_key = ?",
        (till_id, idem_key),
    ).fetchone()
    return None if row is None else Registration(*row)


def by_id(conn: sqlite3.Connection, row_id: str) -> Registration | None:
    row = conn.execute(f"SELECT {_COLUMNS} FROM registration WHERE id = ?", (row_id,)).fetchone()
    return None if row is None else Registration(*row)


def following(conn: sqlite3.Connection) -> Registration | None:
    """The oldest that waits."""
    row = conn.execute(_NEXT).fetchone()
    return None if row is None else Registration(*row)


def waiting(conn: sqlite3.Connection, kind: str) -> list[Registration]:
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM registration WHERE state = 'WAITING' AND kind = ? ORDER BY seq",
        (kind,),
    )
    return [Registration(*row) for row in rows]


def count_attempt(conn: sqlite3.Connection, seq: int, reason: str) -> None:
    conn.execute(
        "UPDATE registration SET attempts = attempts + 1, reason = ? WHERE seq = ?", (reason, seq)
    )


def settle(conn: sqlite3.Connection, seq: int, state: str, reason: str | None, *, at: int) -> None:
    """DONE or REFUSED, once and for all."""
    conn.execute(
        "UPDATE registration SET state = ?, reason = ?, settled_at = ? WHERE seq = ? AND state = 'WAITING'",
        (state, reason, at, seq),
    )


def figures(conn: sqlite3.Connection) -> tuple[int, int]:
    """(waiting, refused)."""
    waiting_count, refused = conn.execute(_FIGURES).fetchone()
    return waiting_count, refused


def next_stock_number(conn: sqlite3.Connection, start: int) -> int:
    """The next `sarNo`, rising by one per branch; `start` until the first is used."""
    row = conn.execute(
        "SELECT MAX(CAST(subject AS INTEGER)) FROM registration WHERE kind = 'saveStockItems'"
    ).fetchone()
    return start if row[0] is None else max(start, row[0] + 1)
