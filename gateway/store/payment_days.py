"""What the day's report of M-Pesa is read from: payments, what went back, receipts that name M-Pesa."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from gateway.store.payments import PaymentRow, where

_REFUND_WORDS = ("REFUNDED", "REFUNDED_BY_HAND")


@dataclass(frozen=True, slots=True)
class Uncovered:
    """Mobile money on a signed receipt (`counter`: 77/81 NS) that no payment here stands behind."""

    invoice_id: str
    till_id: str
    sale_ref: str
    counter: str
    cents: int


def of_day(conn: sqlite3.Connection, start: int, end: int) -> list[PaymentRow]:
    """Payments asked for in [start, end), and those whose money came then; in order. Microseconds."""
    return where(
        conn,
        """(created_at >= ? AND created_at < ?) OR (paid_at >= ? AND paid_at < ?)
           ORDER BY seq""",
        (start, end, start, end),
    )


def refunded(conn: sqlite3.Connection, start: int, end: int) -> list[PaymentRow]:
    """Payments whose money went back in [start, end), each once, however it was done."""
    return where(
        conn,
        """id IN (SELECT payment_id FROM payment_event WHERE at >= ? AND at < ? AND changed = 1
                  AND word IN (?, ?)) ORDER BY seq""",
        (start, end, *_REFUND_WORDS),
    )


def uncovered(conn: sqlite3.Connection, start: int, end: int) -> list[Uncovered]:
    """What was signed in [start, end) as mobile money and has neither a payment behind it nor a person's
    word about it."""
    rows = conn.execute(
        """SELECT u.invoice_id, u.till_id, u.sale_ref, r.rcpt_no || '/' || r.tot_rcpt_no || ' ' || r.label,
                  u.amount_cents
           FROM unpaid_tender u JOIN receipt r ON r.invoice_id = u.invoice_id
           WHERE u.state = 'OPEN' AND u.at >= ? AND u.at < ? ORDER BY u.at, u.position""",
        (start, end),
    )
    return [Uncovered(*row) for row in rows]


# --- counts for the status, and what a person must see ------------------------------------------------


def unowned_counts(conn: sqlite3.Connection) -> dict[str, int]:
    """By tender: money that came and is no signed sale's."""
    return dict(
        conn.execute(
            """SELECT tender, COUNT(*) FROM payment
               WHERE money = 'PAID' AND tender IN ('OPEN', 'REVIEW', 'REFUND_DUE') GROUP BY tender"""
        ).fetchall()
    )


def unknown_count(conn: sqlite3.Connection) -> int:
    """Payments whose end nobody has told in time, and that no sale was settled without."""
    row = conn.execute(
        "SELECT COUNT(*) FROM payment WHERE money = 'UNKNOWN' AND tender = 'OPEN'"
    ).fetchone()
    return int(row[0])


def unpaid_count(conn: sqlite3.Connection) -> int:
    row = conn.execute("SELECT COUNT(*) FROM unpaid_tender WHERE state = 'OPEN'").fetchone()
    return int(row[0])


def unmatched_count(conn: sqlite3.Connection) -> int:
    """Messages of M-Pesa that belong to no payment."""
    row = conn.execute("SELECT COUNT(*) FROM mpesa_message WHERE state = 'UNMATCHED'").fetchone()
    return int(row[0])


def unmatched(conn: sqlite3.Connection, limit: int) -> list[tuple[int, str, str, bytes]]:
    """(received at, kind, why it belongs to nothing, the body as it came), newest first."""
    return conn.execute(
        """SELECT received_at, kind, COALESCE(reason, ''), raw FROM mpesa_message
           WHERE state = 'UNMATCHED' ORDER BY id DESC LIMIT ?""",
        (limit,),
    ).fetchall()


def alarms(conn: sqlite3.Connection, since: int, limit: int) -> list[tuple[PaymentRow, str, int]]:
    """(payment, its newest alarm, when) since then, newest first; each payment once."""
    rows = conn.execute(
        """SELECT payment_id, alarm, at, MAX(id) FROM payment_event
           WHERE alarm IS NOT NULL AND at >= ? GROUP BY payment_id ORDER BY 4 DESC LIMIT ?""",
        (since, limit),
    ).fetchall()
    return [
        (where(conn, "id = ?", (payment_id,))[0], alarm, at) for payment_id, alarm, at, _ in rows
    ]
