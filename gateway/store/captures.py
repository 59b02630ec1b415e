"""Captured slips: kept as they came, so that none is lost between till and unit."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_COLUMNS = "id, device, till_id, raw, text, state, reason, invoice_id, at"


@dataclass(frozen=True, slots=True)
class Captured:
    id: int
    device: str
    till_id: str
    raw: bytes
    text: str
    state: str
    reason: str | None
    invoice_id: str | None
    at: int


def add(
    conn: sqlite3.Connection, *, device: str, till_id: str, raw: bytes, text: str, state: str,
    reason: str | None, at: int,
) -> int:  # fmt: skip
    cursor = conn.execute(
        """INSERT INTO captured_slip (device, till_id, raw, text, state, reason, at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
        (device, till_id, raw, text, state, reason, at, at),
    )
    return int(cursor.lastrowid or 0)


def by_id(conn: sqlite3.Connection, capture_id: int) -> Captured | None:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM captured_slip WHERE id = ?", (capture_id,)
    ).fetchone()
    return Captured(*row) if row else None


def in_state(conn: sqlite3.Connection, state: str, device: str | None = None) -> list[Captured]:
    """Oldest first, at most 200."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM captured_slip WHERE state = ? AND (? IS NULL OR device = ?)"
        " ORDER BY id LIMIT 200",
        (state, device, device),
    )
    return [Captured(*row) for row in rows]


def settle(
    conn: sqlite3.Connection, capture_id: int, state: str, *, reason: str | None = None,
    invoice_id: str | None = None, at: int,
) -> bool:  # fmt: skip
    """False when it was settled already."""
    cursor = conn.execute(
        """UPDATE captured_slip SET state = ?, reason = ?, invoice_id = ?, updated_at = ?
           WHERE id = ? AND state IN ('WAITING', 'UNREAD')""",
        (state, reason, invoice_id, at, capture_id),
    )
    return cursor.rowcount == 1


def count_unread(conn: sqlite3.Connection) -> int:
    row = conn.execute("SELECT COUNT(*) FROM captured_slip WHERE state = 'UNREAD'").fetchone()
    return int(row[0])
