"""The durable print queue: one original per sale, copies counted, outcomes kept."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_COLUMNS = "id, invoice_id, printer, kind, copy_no, state, reason, attempts, created_at, body"
_NEXT = f"""
    SELECT {_COLUMNS} FROM print_job
    WHERE printer = ? AND state IN ('QUEUED', 'BLOCKED') ORDER BY id LIMIT 1"""
_INSERT = """
    INSERT INTO print_job (invoice_id, printer, kind, copy_no, created_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?)"""
_MARK = """
    UPDATE print_job SET state = ?, reason = ?, attempts = attempts + ?, updated_at = ?
    WHERE id = ?"""


@dataclass(frozen=True, slots=True)
class PrintJob:
    id: int
    invoice_id: str | None
    printer: str
    kind: str
    copy_no: int
    state: str
    reason: str | None
    attempts: int
    created_at: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class PrinterQueue:
    """One printer's queue at a glance; `reason` is why its first job waits, if it is blocked."""

    waiting: int
    blocked: int
    unconfirmed: int
    reason: str | None


def enqueue_original(conn: sqlite3.Connection, invoice_id: str, printer: str, *, at: int) -> int:
    """Part of the sale's commit. IntegrityError for a second original (TIS 6.17)."""
    cursor = conn.execute(_INSERT, (invoice_id, printer, "ORIGINAL", 0, at, at))
    return int(cursor.lastrowid or 0)


def enqueue_copy(conn: sqlite3.Connection, invoice_id: str, printer: str, *, at: int) -> int:
    """The next copy of a receipt; its number is kept."""
    last = conn.execute(
        "SELECT COALESCE(MAX(copy_no), 0) FROM print_job WHERE invoice_id = ?", (invoice_id,)
    ).fetchone()[0]
    cursor = conn.execute(_INSERT, (invoice_id, printer, "COPY", last + 1, at, at))
    return int(cursor.lastrowid or 0)


def enqueue_note(conn: sqlite3.Connection, printer: str, text: str, *, at: int) -> int:
    """A strip of text that is no receipt."""
    cursor = conn.execute(
        """INSERT INTO print_job (printer, kind, body, created_at, updated_at)
           VALUES (?, 'NOTE', ?, ?, ?)""",
        (printer, text.encode(), at, at),
    )
    return int(cursor.lastrowid or 0)


def next_for(conn: sqlite3.Connection, printer: str) -> PrintJob | None:
    row = conn.execute(_NEXT, (printer,)).fetchone()
    return PrintJob(*row) if row else None


def mark(
    conn: sqlite3.Connection,
    job_id: int,
    state: str,
    *,
    at: int,
    reason: str | None = None,
    attempt: bool = False,
) -> None:
    conn.execute(_MARK, (state, reason, int(attempt), at, job_id))


def recover(conn: sqlite3.Connection, *, at: int) -> list[PrintJob]:
    """Jobs that were on the wire when the process ended: whether they came out is open, so they are
    never sent again as originals by themselves."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM print_job WHERE state = 'SENDING'").fetchall()
    jobs = [PrintJob(*row) for row in rows]
    for job in jobs:
        mark(conn, job.id, "UNCONFIRMED", at=at, reason="the gateway ended while it was printing")
    return jobs


def queues(conn: sqlite3.Connection) -> dict[str, PrinterQueue]:
    """By printer's name; printers without a row in the queue are not in it."""
    rows = conn.execute(
        """SELECT printer, SUM(state IN ('QUEUED', 'SENDING', 'BLOCKED')), SUM(state = 'BLOCKED'),
                  MAX(CASE WHEN state = 'BLOCKED' THEN reason END)
           FROM print_job WHERE state IN ('QUEUED', 'SENDING', 'BLOCKED') GROUP BY printer"""
    ).fetchall()
    return {row[0]: PrinterQueue(row[1], row[2], 0, row[3]) for row in rows}
