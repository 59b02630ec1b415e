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
