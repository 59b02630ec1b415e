"""What the reports are summed from, and the closes themselves."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_COLUMNS = (
    "number, day, began_at, ended_at, last_receipt, last_invoice, last_job, body, how, state,"
    " unit_says, made_at"
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a report reaches, in the store's own order: the last receipt, invoice and print job."""

    receipt: int = 0
    invoice: int = 0
    job: int = 0


@dataclass(frozen=True, slots=True)
class ZReport:
    """One close. Instants in UTC microseconds; `day` is Nairobi's (2026-11-24)."""

    number: int
    day: str
    began_at: int
    ended_at: int
    bounds: Bounds
    body: dict[str, Any]
    how: str
    state: str
    unit_says: str | None
    made_at: int


def _row(row: tuple[Any, ...] | None) -> ZReport | None:
    if row is None:
        return None
    number, day, began_at, ended_at, receipt, invoice, job, body, how, state, says, made_at = row
    bounds = Bounds(receipt, invoice, job)
    return ZReport(
        number, day, began_at, ended_at, bounds, json.loads(body), how, state, says, made_at
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
    """Closes of which the unit has not been told, oldest first."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM z_report WHERE state = 'CLOSING' ORDER BY number")
    return [found for row in rows if (found := _row(row)) is not None]


def append(conn: sqlite3.Connection, report: ZReport) -> None:
    """IntegrityError for a second close of one day (TIS 16.1)."""
    bounds = report.bounds
    conn.execute(
        f"INSERT INTO z_report ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            report.number,
            report.day,
            report.began_at,
            report.ended_at,
            bounds.receipt,
            bounds.invoice,
            bounds.job,
            json.dumps(report.body, ensure_ascii=False),
            report.how,
            report.state,
            report.unit_says,
            report.made_at,
        ),
    )


def note_unit(conn: sqlite3.Connection, number: int, says: str, *, done: bool) -> None:
    """What the unit answered, or why it was not told; `done`: it is not asked again."""
    conn.execute(
        "UPDATE z_report SET state = ?, unit_says = ? WHERE number = ? AND state = 'CLOSING'",
        ("DONE" if done else "CLOSING", says, number),
    )


# --- how far a report reaches -----------------------------------------------------------------------


def bounds_at(
    conn: sqlite3.Connection, after: Bounds, midnight: tuple[str, int] | None, in_hand_since: int
) -> Bounds:
    """Up to the first receipt dated `midnight` or later (14 digits, and the same in microseconds), or
    up to now. Sales begun since `in_hand_since` that may still be signed are left to the next report."""
    first_of_next: tuple[int | None, ...] = (None, None, None)
    if midnight is not None:
        first_of_next = (
            _one(
                conn,
                "SELECT MIN(seq) FROM receipt WHERE seq > ? AND scu_time >= ?",
                after.receipt,
                midnight[0],
            ),
            _one(
                conn,
                "SELECT MIN(seq) FROM invoice WHERE seq > ? AND created_at >= ?",
                after.invoice,
                midnight[1],
            ),
            _one(
                conn,
                "SELECT MIN(id) FROM print_job WHERE id > ? AND created_at >= ?",
                after.job,
                midnight[1],
            ),
        )
    in_hand = _one(
        conn,
        """SELECT MIN(seq) FROM invoice WHERE state IN ('RECEIVED', 'SIGNING', 'IN_DOUBT')
           AND seq > ? AND created_at >= ?""",
        after.invoice,
        in_hand_since,
    )
    receipt, invoice, job = first_of_next
    ends = [number for number in (invoice, in_hand) if number is not None]
    return Bounds(
        _end(conn, "SELECT MAX(seq) FROM receipt", receipt),
        _end(conn, "SELECT MAX(seq) FROM invoice", min(ends, default=None)),
        _end(conn, "SELECT MAX(id) FROM print_job", job),
    )


def _one(conn: sqlite3.Connection, query: str, *values: object) -> int | None:
    row = conn.execute(query, values).fetchone()
    return None if row[0] is None else int(row[0])


def _end(conn: sqlite3.Connection, newest: str, first_of_next: int | None) -> int:
    return (_one(conn, newest) or 0) if first_of_next is None else first_of_next - 1


def first_day(conn: sqlite3.Connection, after: Bounds) -> str | None:
    """The SCU's day (2026-11-24) of the first receipt that no close has."""
    row = conn.execute(
        "SELECT scu_time FROM receipt WHERE seq > ? ORDER BY seq LIMIT 1", (after.receipt,)
    ).fetchone()
    return None if row is None else f"{row[0][:4]}-{row[0][4:6]}-{row[0][6:8]}"


def first_signed_at(conn: sqlite3.Connection) -> int | None:
    """When the first receipt of all was signed."""
    return _one(conn, "SELECT MIN(signed_at) FROM receipt")


# --- what it sums -------------------------------------------------------------------------------------


def signed(conn: sqlite3.Connection, after: Bounds, upto: Bounds) -> Iterator[tuple[str, bytes]]:
    """(label, stored document) of each receipt of the report, in order."""
    yield from conn.execute(
        """SELECT r.label, i.document FROM receipt r JOIN invoice i ON i.id = r.invoice_id
           WHERE r.seq > ? AND r.seq <= ? ORDER BY r.seq""",
        (after.receipt, upto.receipt),
    )


def signed_between(conn: sqlite3.Connection, start: str, end: str) -> Iterator[tuple[str, bytes]]:
    """The same of the receipts dated in [start, end), 14 digits each, by the SCU's clock."""
    yield from conn.execute(
        """SELECT r.label, i.document FROM receipt r JOIN invoice i ON i.id = r.invoice_id
           WHERE r.scu_time >= ? AND r.scu_time < ? ORDER BY r.seq""",
        (start, end),
    )


def copies(conn: sqlite3.Connection, after: Bounds, upto: Bounds) -> list[int]:
    """The total of each copy (CS, CC) that was asked for and not dropped, in cents."""
    rows = conn.execute(
        """SELECT r.total_cents FROM print_job p JOIN receipt r ON r.invoice_id = p.invoice_id
           WHERE p.id > ? AND p.id <= ? AND p.kind = 'COPY' AND p.state <> 'DROPPED'
           AND r.label IN ('NS', 'NC')""",
        (after.job, upto.job),
    )
    return [int(row[0]) for row in rows]


def incomplete(conn: sqlite3.Connection, after: Bounds, upto: Bounds) -> int:
    """Sales that were begun and not signed."""
    row = conn.execute(
        "SELECT COUNT(*) FROM invoice WHERE seq > ? AND seq <= ? AND state <> 'SIGNED'",
        (after.invoice, upto.invoice),
    ).fetchone()
    return int(row[0])


def stock_levels(conn: sqlite3.Connection) -> dict[str, str]:
    """What the shop last told KRA of each item's stock."""
    rows = conn.execute(
        """SELECT subject, body FROM registration WHERE kind = 'saveStockMaster'
           AND seq IN (SELECT MAX(seq) FROM registration WHERE kind = 'saveStockMaster' GROUP BY subject)"""
    )
    return {subject: str(json.loads(body)["rsdQty"]) for subject, body in rows}
