"""What the reports are summed from, and the closes themselves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_COLUMNS = "number, day, began_at, ended_at, body, how, state, unit_says, made_at"


@dataclass(frozen=True, slots=True)
class ZReport:
    """One close. Instants in UTC microseconds; `day` is Nairobi's (2026-11-24)."""

    number: int
    day: str
    began_at: int
    ended_at: int
    body: dict[str, Any]
    how: str
    state: str
    unit_says: str | None
    made_at: int


def _row(row: tuple[Any, ...] | None) -> ZReport | None:
    if row is None:
        return None
    number, day, began_at, ended_at, body, how, state, unit_says, made_at = row
    return ZReport(
        number, day, began_at, ended_at, json.loads(body), how, state, unit_says, made_at
    )


def last(conn: sqlite3.Connection) -> ZReport | None:
    return _row(
        conn.execute(f"SELECT {_COLUMNS} FROM z_report ORDER BY number DESC LIMIT 1").fetchone()
    )


def by_number(conn: sqlite3.Connection, number: int) -> ZReport | None:
    return _row(
        conn.execute(f"SELECT {_COLUMNS} FROM z_report WHERE number = ?", (number,)).fetchone()
    )


def by_day(conn: sqlite3.Connection, day: str) -> ZReport | None:
    return _row(conn.execute(f"SELECT {_COLUMNS} FROM z_report WHERE day = ?", (day,)).fetchone())


def recent(conn: sqlite3.Connection, limit: int) -> list[ZReport]:
    rows = conn.execute(f"SELECT {_COLUMNS} FROM z_report ORDER BY number DESC LIMIT ?", (limit,))
    return [found for row in rows if (found := _row(row)) is not None]


def closing(conn: sqlite3.Connection) -> list[ZReport]:
    """Closes that were begun and not finished."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM z_report WHERE state = 'CLOSING' ORDER BY number")
    return [found for row in rows if (found := _row(row)) is not None]


def append(
    conn: sqlite3.Connection,
    *,
    number: int,
    day: str,
    began_at: int,
    ended_at: int,
    body: dict[str, Any],
    how: str,
    at: int,
) -> None:
    """IntegrityError for a second close of one day (TIS 16.1)."""
    conn.execute(
        """INSERT INTO z_report (number, day, began_at, ended_at, body, how, made_at)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (number, day, began_at, ended_at, json.dumps(body, ensure_ascii=False), how, at),
    )


def finish(conn: sqlite3.Connection, number: int, unit_says: str | None) -> None:
    conn.execute(
        "UPDATE z_report SET state = 'DONE', unit_says = ? WHERE number = ?", (unit_says, number)
    )


def signed_between(conn: sqlite3.Connection, start: int, end: int) -> Iterator[tuple[str, bytes]]:
    """(label, stored document) of each receipt signed in [start, end), in order."""
    yield from conn.execute(
        """SELECT r.label, i.document FROM receipt r JOIN invoice i ON i.id = r.invoice_id
           WHERE r.signed_at >= ? AND r.signed_at < ? ORDER BY r.seq""",
        (start, end),
    )


def first_signed_at(conn: sqlite3.Connection, since: int) -> int | None:
    """When the first receipt since then was signed."""
    row = conn.execute(
        "SELECT MIN(signed_at) FROM receipt WHERE signed_at >= ?", (since,)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def copies_between(conn: sqlite3.Connection, start: int, end: int) -> list[int]:
    """The total of each copy that was asked for in [start, end), in cents."""
    rows = conn.execute(
        """SELECT r.total_cents FROM print_job p JOIN receipt r ON r.invoice_id = p.invoice_id
           WHERE p.kind = 'COPY' AND p.created_at >= ? AND p.created_at < ?""",
        (start, end),
    )
    return [int(row[0]) for row in rows]


def incomplete_between(conn: sqlite3.Connection, start: int, end: int) -> int:
    """Sales that were begun in [start, end) and not signed."""
    row = conn.execute(
        "SELECT COUNT(*) FROM invoice WHERE created_at >= ? AND created_at < ? AND state <> 'SIGNED'",
        (start, end),
    ).fetchone()
    return int(row[0])


def stock_levels(conn: sqlite3.Connection) -> dict[str, str]:
    """What the shop last told KRA of each item's stock."""
    rows = conn.execute(
        """SELECT subject, body FROM registration WHERE kind = 'saveStockMaster'
           AND seq IN (SELECT MAX(seq) FROM registration WHERE kind = 'saveStockMaster' GROUP BY subject)"""
    )
    return {subject: str(json.loads(body)["rsdQty"]) for subject, body in rows}
