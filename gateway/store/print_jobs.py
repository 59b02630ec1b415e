"""The durable print queue: one original per sale, copies counted, outcomes kept."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.store import events

_COLUMNS = "id, invoice_id, printer, meant_for, kind, copy_no, state, released, reason, attempts, created_at, body, proof"
_NEXT = f"""
    SELECT {_COLUMNS} FROM print_job
    WHERE printer = ? AND state IN ('QUEUED', 'BLOCKED') ORDER BY id LIMIT 1"""
_INSERT = """
    INSERT INTO print_job (invoice_id, printer, kind, copy_no, created_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?)"""
_MARK = """
    UPDATE print_job SET state = ?, reason = ?, attempts = attempts + ?, updated_at = ?, proof = ?
    WHERE id = ?"""
# A state of the interface: it has all left to a printer that cannot answer.
SENT = "SENT"


@dataclass(frozen=True, slots=True)
class PrintJob:
    id: int
    invoice_id: str | None
    printer: str
    meant_for: str | None
    kind: str
    copy_no: int
    state: str
    released: int
    reason: str | None
    attempts: int
    created_at: int
    body: bytes | None
    proof: str | None = None

    @property
    def shown(self) -> str:
        """The state as people and programs see it: "printed" is only what somebody or something has confirmed."""
        return SENT if self.state == "PRINTED" and self.proof == SENT else self.state


@dataclass(frozen=True, slots=True)
class PrinterQueue:
    """One printer's queue at a glance; `reason` is why its first job waits, if it is blocked."""

    waiting: int
    held: int
    unconfirmed: int
    reason: str | None


def enqueue_original(conn: sqlite3.Connection, invoice_id: str, printer: str, *, at: int) -> int:
    """Part of the sale's commit. IntegrityError for a second original (TIS 6.17)."""
    cursor = conn.execute(_INSERT, (invoice_id, printer, "ORIGINAL", 0, at, at))
    return int(cursor.lastrowid or 0)


def enqueue_copy(
    conn: sqlite3.Connection, invoice_id: str, printer: str, who: str, *, at: int
) -> int:
    """The next copy of a receipt; its number, and who asked for it, are kept."""
    last = conn.execute(
        "SELECT COALESCE(MAX(copy_no), 0) FROM print_job WHERE invoice_id = ?", (invoice_id,)
    ).fetchone()[0]
    cursor = conn.execute(_INSERT, (invoice_id, printer, "COPY", last + 1, at, at))
    job = int(cursor.lastrowid or 0)
    data = {"job": job, "copyNo": last + 1, "printer": printer, "who": who}
    events.record(conn, at=at, kind="print.copy", subject=invoice_id, data=data)
    return job


def enqueue_report(conn: sqlite3.Connection, printer: str, body: bytes, *, at: int) -> int:
    """An X, Z or PLU report; `body` is its JSON."""
    cursor = conn.execute(
        """INSERT INTO print_job (printer, kind, body, created_at, updated_at)
           VALUES (?, 'REPORT', ?, ?, ?)""",
        (printer, body, at, at),
    )
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
    proof: str | None = None,
) -> None:
    conn.execute(_MARK, (state, reason, int(attempt), at, proof, job_id))


def recover(conn: sqlite3.Connection, *, at: int, printer: str | None = None) -> list[PrintJob]:
    """Jobs (of one printer, or all) that were on the wire when the process or their worker ended:
    whether they came out is open, so they are never sent again as originals by themselves."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM print_job WHERE state = 'SENDING' AND ? IN (printer, '')",
        (printer or "",),
    ).fetchall()
    jobs = [PrintJob(*row) for row in rows]
    reason = "the gateway ended while it was printing"
    for job in jobs:
        mark(conn, job.id, "UNCONFIRMED", at=at, reason=reason)
        data = {"printer": job.printer, "job": job.id, "kind": job.kind, "reason": reason}
        events.record(conn, at=at, kind="print.unconfirmed", subject=job.invoice_id, data=data)
    return jobs


def by_id(conn: sqlite3.Connection, job_id: int) -> PrintJob | None:
    row = conn.execute(f"SELECT {_COLUMNS} FROM print_job WHERE id = ?", (job_id,)).fetchone()
    return PrintJob(*row) if row else None


def in_states(conn: sqlite3.Connection, states: Sequence[str], limit: int) -> list[PrintJob]:
    """Return the oldest jobs in these states, as they are shown."""
    marks = ",".join("?" * len(states))
    rows = conn.execute(
        f"""SELECT {_COLUMNS} FROM print_job
            WHERE state IN ({marks}) AND (state <> 'PRINTED' OR proof IS NOT '{SENT}')
               OR {SENT in states:d} AND proof = '{SENT}' AND state = 'PRINTED'
            ORDER BY id LIMIT ?""",
        (*states, limit),
    )
    return [PrintJob(*row) for row in rows]


def hand_over(conn: sqlite3.Connection, job: PrintJob, to: str, *, at: int) -> bool:
    """Give a job that has not begun to another printer; False if it has begun meanwhile."""
    cursor = conn.execute(
        """UPDATE print_job SET printer = ?, meant_for = ?, state = 'QUEUED', updated_at = ?
           WHERE id = ? AND state IN ('QUEUED', 'BLOCKED')""",
        (to, job.meant_for or job.printer, at, job.id),
    )
    return cursor.rowcount == 1


def release(conn: sqlite3.Connection, job_id: int, *, at: int) -> bool:
    """A held job may come out after all."""
    cursor = conn.execute(
        "UPDATE print_job SET state = 'QUEUED', released = 1, updated_at = ? WHERE id = ? AND state = 'HELD'",
        (at, job_id),
    )
    return cursor.rowcount == 1


def drop(conn: sqlite3.Connection, job_id: int, reason: str, *, at: int) -> bool:
    """A job that has not begun will not be printed."""
    cursor = conn.execute(
        """UPDATE print_job SET state = 'DROPPED', reason = ?, updated_at = ?
           WHERE id = ? AND state IN ('QUEUED', 'BLOCKED', 'HELD')""",
        (reason, at, job_id),
    )
    return cursor.rowcount == 1


def answer(conn: sqlite3.Connection, job_id: int, came_out: bool, who: str, *, at: int) -> bool:
    """A person has looked whether an unconfirmed slip came out. False if nobody was asked."""
    cursor = conn.execute(
        """UPDATE print_job SET state = ?, reason = ?, updated_at = ?, proof = ?
           WHERE id = ? AND state = 'UNCONFIRMED'""",
        (
            "PRINTED" if came_out else "DROPPED",
            f"{who} has looked",
            at,
            "PERSON" if came_out else None,
            job_id,
        ),
    )
    return cursor.rowcount == 1


def unconfirmed(conn: sqlite3.Connection, printer: str, last: int) -> list[PrintJob]:
    """Return the jobs of one printer that a person is asked about, up to number `last`, oldest first."""
    rows = conn.execute(
        f"""SELECT {_COLUMNS} FROM print_job
            WHERE printer = ? AND state = 'UNCONFIRMED' AND id <= ? ORDER BY id""",
        (printer, last),
    )
    return [PrintJob(*row) for row in rows]


def doubt_sent(
    conn: sqlite3.Connection, printer: str, reason: str, *, since: int, at: int
) -> list[PrintJob]:
    """Ask a person about what was sent to a printer from `since` on that may have been switched off then."""
    rows = conn.execute(
        f"""SELECT {_COLUMNS} FROM print_job
            WHERE printer = ? AND proof = '{SENT}' AND state = 'PRINTED' AND updated_at >= ? ORDER BY id""",
        (printer, since),
    ).fetchall()
    jobs = [PrintJob(*row) for row in rows]
    for job in jobs:
        mark(conn, job.id, "UNCONFIRMED", at=at, reason=reason)
        data = {"printer": job.printer, "job": job.id, "kind": job.kind, "reason": reason}
        events.record(conn, at=at, kind="print.unconfirmed", subject=job.invoice_id, data=data)
    return jobs


def queues(conn: sqlite3.Connection) -> dict[str, PrinterQueue]:
    """By printer's name; printers without a row in the queue are not in it."""
    rows = conn.execute(
        """SELECT printer, SUM(state IN ('QUEUED', 'SENDING', 'BLOCKED')), SUM(state = 'HELD'),
                  SUM(state = 'UNCONFIRMED'), MAX(CASE WHEN state = 'BLOCKED' THEN reason END)
           FROM print_job WHERE state IN ('QUEUED', 'SENDING', 'BLOCKED', 'HELD', 'UNCONFIRMED')
           GROUP BY printer"""
    ).fetchall()
    return {row[0]: PrinterQueue(*row[1:]) for row in rows}
