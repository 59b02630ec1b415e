"""Keys of sales that may have been signed by the store that this old copy has replaced."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UnclearKey:
    """`at` in UTC microseconds: when the sale was first sent to this copy of the store."""

    till_id: str
    idem_key: str
    at: int


def note(
    conn: sqlite3.Connection, till_id: str, idem_key: str, *, at: int, settled: bool = False
) -> None:
    """Sent while signing is held; again changes nothing."""
    conn.execute(
        "INSERT INTO unclear_key (till_id, idem_key, at, settled) VALUES (?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (till_id, idem_key, at, settled),
    )


def settle(conn: sqlite3.Connection) -> int:
    """Sales are missing here: what was sent meanwhile, and what was claimed and not signed before the copy
    was made, may be among them, for ever. Returns how many keys that are."""
    conn.execute(
        """INSERT INTO unclear_key (till_id, idem_key, at)
           SELECT till_id, idem_key, created_at FROM invoice WHERE state = 'RECEIVED'
           ON CONFLICT DO NOTHING"""
    )
    return conn.execute("UPDATE unclear_key SET settled = 1 WHERE settled = 0").rowcount


def forget(conn: sqlite3.Connection) -> None:
    """No sale is missing here: what was sent meanwhile is new."""
    conn.execute("DELETE FROM unclear_key WHERE settled = 0")


def is_settled(conn: sqlite3.Connection, till_id: str, idem_key: str) -> bool:
    row = conn.execute(
        "SELECT settled FROM unclear_key WHERE till_id = ? AND idem_key = ?", (till_id, idem_key)
    ).fetchone()
    return row is not None and row[0] == 1


def any_settled(conn: sqlite3.Connection) -> bool:
    return (
        conn.execute("SELECT 1 FROM unclear_key WHERE settled = 1 LIMIT 1").fetchone() is not None
    )


def newest(conn: sqlite3.Connection, limit: int) -> list[UnclearKey]:
    rows = conn.execute(
        "SELECT till_id, idem_key, at FROM unclear_key ORDER BY at DESC LIMIT ?", (limit,)
    ).fetchall()
    return [UnclearKey(*row) for row in rows]
