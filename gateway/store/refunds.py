"""Money on its way back, and what M-Pesa was asked about a receipt: rows that survive a crash between the
order, the wire and the result."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_COLUMNS = (
    "id, payment_id, amount_cents, how, state, who, reason, token_hash, conversation_id, receipt, code, "
    "says, created_at, updated_at"
)
_SELECT = f"SELECT {_COLUMNS} FROM refund"


class RefundState(StrEnum):
    """ASKED: durable, nothing sent. SENDING: may be on the wire. SENT: taken, its result comes later.
    UNKNOWN: nobody can say whether it was done; never sent again by itself."""

    ASKED = "ASKED"
    SENDING = "SENDING"
    SENT = "SENT"
    DONE = "DONE"
    REFUSED = "REFUSED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Refund:
    """One order to give money back; amounts in cents, instants in UTC microseconds."""

    id: str
    payment_id: str
    amount_cents: int
    how: str
    state: RefundState
    who: str
    reason: str
    token_hash: str | None
    conversation_id: str | None
    receipt: str | None
    code: str | None
    says: str | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked about one receipt; `refund_id` None: a receipt that somebody has typed."""

    token_hash: str
    payment_id: str
    refund_id: str | None
    receipt: str
    who: str
    asked_at: int
    answered_at: int | None


def insert(
    conn: sqlite3.Connection,
    *,
    refund_id: str,
    payment_id: str,
    amount_cents: int,
    how: str,
    state: RefundState,
    who: str,
    reason: str,
    token_hash: str | None,
    at: int,
) -> None:
    """IntegrityError when the payment's money is on its way back, or back, already."""
    conn.execute(
        """INSERT INTO refund (id, payment_id, amount_cents, how, state, who, reason, token_hash,
               created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (refund_id, payment_id, amount_cents, how, state, who, reason, token_hash, at, at),
    )


def move(
    conn: sqlite3.Connection,
    refund: Refund,
    state: RefundState,
    *,
    at: int,
    code: str | None = None,
    says: str | None = None,
    receipt: str | None = None,
    conversation_id: str | None = None,
    raw: bytes | None = None,
) -> Refund:
    """The refund in its new state; what is None stays as it was."""
    conn.execute(
        """UPDATE refund SET state = ?, updated_at = ?, code = COALESCE(?, code), says = COALESCE(?, says),
               receipt = COALESCE(?, receipt), conversation_id = COALESCE(?, conversation_id),
               raw = COALESCE(?, raw) WHERE id = ?""",
        (state, at, code, says, receipt, conversation_id, raw, refund.id),
    )
    found = by_id(conn, refund.id)
    assert found is not None
    return found


def by_id(conn: sqlite3.Connection, refund_id: str) -> Refund | None:
    return _refund(conn.execute(f"{_SELECT} WHERE id = ?", (refund_id,)).fetchone())


def by_token(conn: sqlite3.Connection, token_hash: str) -> Refund | None:
    return _refund(conn.execute(f"{_SELECT} WHERE token_hash = ?", (token_hash,)).fetchone())


def has_conversation(conn: sqlite3.Connection, conversation_id: str) -> bool:
    """Return whether an order has this id of M-Pesa's already."""
    sql = "SELECT 1 FROM refund WHERE conversation_id = ?"
    return conn.execute(sql, (conversation_id,)).fetchone() is not None


def is_ours(conn: sqlite3.Connection, payment_id: str) -> bool:
    """Return whether the gateway has ordered this payment's reversal, so that M-Pesa may report it."""
    sql = "SELECT 1 FROM refund WHERE payment_id = ? AND how = 'REVERSAL' AND state <> 'REFUSED'"
    return conn.execute(sql, (payment_id,)).fetchone() is not None


def of_payment(conn: sqlite3.Connection, payment_id: str) -> list[Refund]:
    """All orders for one payment, oldest first."""
    rows = conn.execute(f"{_SELECT} WHERE payment_id = ? ORDER BY id", (payment_id,))
    return [refund for row in rows if (refund := _refund(row)) is not None]


def unsettled(conn: sqlite3.Connection) -> list[Refund]:
    """Ordered, on the way, or in doubt; oldest first."""
    rows = conn.execute(
        f"{_SELECT} WHERE state IN ('ASKED', 'SENDING', 'SENT', 'UNKNOWN') ORDER BY id"
    )
    return [refund for row in rows if (refund := _refund(row)) is not None]


def ask(
    conn: sqlite3.Connection,
    token_hash: str,
    payment_id: str,
    refund_id: str | None,
    receipt: str,
    who: str,
    *,
    at: int,
) -> None:
    """Durable before the question leaves: its answer is known by the token."""
    conn.execute(
        """INSERT INTO mpesa_question (token_hash, payment_id, refund_id, receipt, who, asked_at)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (token_hash, payment_id, refund_id, receipt, who, at),
    )


def question(conn: sqlite3.Connection, token_hash: str) -> Question | None:
    row = conn.execute(
        """SELECT token_hash, payment_id, refund_id, receipt, who, asked_at, answered_at
           FROM mpesa_question WHERE token_hash = ?""",
        (token_hash,),
    ).fetchone()
    return None if row is None else Question(*row)


def answered(conn: sqlite3.Connection, token_hash: str, *, at: int) -> None:
    conn.execute("UPDATE mpesa_question SET answered_at = ? WHERE token_hash = ?", (at, token_hash))


def asked_since(conn: sqlite3.Connection, payment_id: str, since: int) -> bool:
    """Return whether M-Pesa was asked about this payment at `since` or later."""
    sql = "SELECT 1 FROM mpesa_question WHERE payment_id = ? AND asked_at >= ? LIMIT 1"
    return conn.execute(sql, (payment_id, since)).fetchone() is not None


def typed(conn: sqlite3.Connection, receipt: str) -> str | None:
    """The payment for which this receipt was typed last, from the customer's SMS."""
    row = conn.execute(
        """SELECT payment_id FROM mpesa_question WHERE receipt = ? AND refund_id IS NULL
           ORDER BY asked_at DESC LIMIT 1""",
        (receipt,),
    ).fetchone()
    return None if row is None else str(row[0])


def _refund(values: tuple[Any, ...] | None) -> Refund | None:
    if values is None:
        return None
    row = list(values)
    row[4] = RefundState(row[4])
    return Refund(*row)
