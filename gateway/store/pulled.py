"""What M-Pesa's own list (Pull Transactions) was read for: only a time that was covered proves an absence."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reading:
    """One whole reading of the list, in UTC microseconds."""

    from_us: int
    until_us: int
    read_at: int
    rows: int


def record(conn: sqlite3.Connection, reading: Reading) -> None:
    """A reading that came to its end without a fault."""
    conn.execute(
        "INSERT INTO pulled (from_us, until_us, read_at, rows) VALUES (?, ?, ?, ?)",
        (reading.from_us, reading.until_us, reading.read_at, reading.rows),
    )


def last(conn: sqlite3.Connection) -> Reading | None:
    row = conn.execute(
        "SELECT from_us, until_us, read_at, rows FROM pulled ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else Reading(*row)


def covered_until(conn: sqlite3.Connection, now_us: int) -> int | None:
    """Return the end of the newest time that was read, of readings with rows whose clock was not ahead of now."""
    found = conn.execute(
        "SELECT MAX(until_us) FROM pulled WHERE rows > 0 AND until_us <= ? AND read_at <= ?",
        (now_us, now_us),
    ).fetchone()[0]
    return None if found is None else int(found)
