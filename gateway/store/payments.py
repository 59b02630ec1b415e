"""Payments: rows, the words said about them, and what waits. A change is one compare-and-swap, one word
kept with its raw bytes, and one event for the till, all in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.payment import Money, PaymentState, Reason, Source, Tender

_COLUMNS = (
    "id, kind, till_id, idem_key, body_digest, checkout_id, sale_ref, amount_cents, phone, account_ref, "
    "token_hash, money, reason, tender, merchant_request_id, checkout_request_id, receipt, paid_cents, "
    "paid_by, paid_at, payer, merged_into, invoice_id, sent_at, next_check_at, checks, soft_code, soft_at, "
    "created_at, updated_at, version, "
    "(SELECT o.sale_ref FROM payment o WHERE o.id = payment.merged_into), "
    "(SELECT o.till_id FROM payment o WHERE o.id = payment.merged_into)"
)
_SELECT = f"SELECT {_COLUMNS} FROM payment"
_CHANGEABLE = frozenset(
    {
        "sale_ref", "till_id", "merchant_request_id", "checkout_request_id", "paid_at", "payer", "merged_into",
        "invoice_id", "sent_at", "next_check_at", "checks", "soft_code", "soft_at",
    }
)  # fmt: skip
_PUSHES_BLOCK = "('NEW', 'SENDING', 'SEND_UNKNOWN', 'WAITING')"


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """One payment as stored; instants in UTC microseconds, amounts in cents."""

    id: str
    kind: str
    till_id: str | None
    idem_key: str | None
    body_digest: str | None
    checkout_id: str | None
    sale_ref: str | None
    amount_cents: int
    phone: str | None
    account_ref: str | None
    token_hash: str | None
    money: Money
    reason: Reason | None
    tender: Tender
    merchant_request_id: str | None
    checkout_request_id: str | None
    receipt: str | None
    paid_cents: int | None
    paid_by: Source | None
    paid_at: int | None
    payer: str | None
    merged_into: str | None
    invoice_id: str | None
    sent_at: int | None
    next_check_at: int | None
    checks: int
    soft_code: str | None
    soft_at: int | None
    created_at: int
    updated_at: int
    version: int
    # Of the payment that this one was merged into.
    merged_sale: str | None = None
    merged_till: str | None = None

    @property
    def state(self) -> PaymentState:
        """What the rules of `domain.payment` look at."""
        return PaymentState(
            self.money,
            self.tender,
            self.amount_cents,
            self.reason,
            self.paid_cents,
            self.receipt,
            self.paid_by,
            self._other_sale(),
        )

    def _other_sale(self) -> str | None:
        """Return the sale that this payment's money was used for, when that is another one."""
        other = (self.merged_till, self.merged_sale)
        if self.merged_sale is None or other == (self.till_id, self.sale_ref):
            return None
        return f"{self.merged_sale} at {self.merged_till}"


@dataclass(frozen=True, slots=True)
class NewPush:
    """An intent: what a till asked for, before anything is sent."""

    id: str
    till_id: str
    idem_key: str
    body_digest: str
    checkout_id: str | None
    sale_ref: str
    amount_cents: int
    phone: str
    account_ref: str
    token_hash: str
    at: int


@dataclass(frozen=True, slots=True)
class Word:
    """One row of what was said about a payment."""

    id: int
    at: int
    source: str
    word: str
    code: str | None
    money: str
    tender: str
    changed: bool
    alarm: str | None
    note: str
    raw: bytes | None


class Conflict(Exception):
    """Somebody else changed the row since it was read."""


def _row(values: tuple[Any, ...] | None) -> PaymentRow | None:
    if values is None:
        return None
    row = list(values)
    row[11] = Money(row[11])
    row[12] = Reason(row[12]) if row[12] else None
    row[13] = Tender(row[13])
    row[18] = Source(row[18]) if row[18] else None
    return PaymentRow(*row)


def _rows(cursor: sqlite3.Cursor) -> list[PaymentRow]:
    return [found for values in cursor if (found := _row(values)) is not None]


# --- making one -----------------------------------------------------------------------------------


def insert_push(conn: sqlite3.Connection, new: NewPush) -> None:
    """The intent. IntegrityError when the key, the phone or the sale has an open push already."""
    conn.execute(
        """INSERT INTO payment (id, kind, till_id, idem_key, body_digest, checkout_id, sale_ref, amount_cents,
               phone, account_ref, token_hash, money, created_at, updated_at)
           VALUES (?, 'STK', ?, ?, ?, ?, ?, ?, ?, ?, ?, 'NEW', ?, ?)""",
        (
            new.id, new.till_id, new.idem_key, new.body_digest, new.checkout_id, new.sale_ref,
            new.amount_cents, new.phone, new.account_ref, new.token_hash, new.at, new.at,
        ),
    )  # fmt: skip


def insert_found(
    conn: sqlite3.Connection,
    *,
    payment_id: str,
    receipt: str,
    amount_cents: int,
    source: Source,
    account_ref: str | None,
    payer: str | None,
    paid_at: int | None,
    at: int,
) -> None:
    """Money that came without a push of ours. IntegrityError when the receipt is known."""
    conn.execute(
        """INSERT INTO payment (id, kind, amount_cents, account_ref, money, receipt, paid_cents, paid_by,
               paid_at, payer, created_at, updated_at)
           VALUES (?, 'C2B', ?, ?, 'PAID', ?, ?, ?, ?, ?, ?, ?)""",
        (payment_id, amount_cents, account_ref, receipt, amount_cents, source, paid_at, payer, at, at),
    )  # fmt: skip


# --- changing one ---------------------------------------------------------------------------------


def change(
    conn: sqlite3.Connection,
    row: PaymentRow,
    state: PaymentState | None = None,
    *,
    at: int,
    **fields: Any,
) -> PaymentRow:
    """Compare-and-swap by the row's version. Conflict when it was changed since; the row as it is now."""
    unknown = set(fields) - _CHANGEABLE
    assert not unknown, unknown
    values: dict[str, Any] = dict(fields)
    if state is not None:
        values |= {
            "money": state.money,
            "tender": state.tender,
            "reason": state.reason,
            "receipt": state.receipt,
            "paid_cents": state.paid_cents,
            "paid_by": state.paid_by,
        }
    sets = "".join(f"{name} = ?, " for name in values)
    cursor = conn.execute(
        f"UPDATE payment SET {sets}updated_at = ?, version = version + 1 WHERE id = ? AND version = ?",
        (*values.values(), at, row.id, row.version),
    )
    if cursor.rowcount != 1:
        raise Conflict(row.id)
    found = by_id(conn, row.id)
    assert found is not None
    return found


def say(
    conn: sqlite3.Connection,
    row: PaymentRow,
    *,
    at: int,
    source: str,
    word: str,
    changed: bool,
    code: str | None = None,
    alarm: str | None = None,
    note: str = "",
    raw: bytes | None = None,
) -> int:
    """Keep one word about `row`, which is the row after it."""
    cursor = conn.execute(
        """INSERT INTO payment_event (payment_id, at, source, word, code, money, tender, changed, alarm,
               note, raw) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            row.id, at, source, word, code, row.money, row.tender, int(changed), alarm, note, raw,
        ),
    )  # fmt: skip
    return int(cursor.lastrowid or 0)


# --- finding them ---------------------------------------------------------------------------------


def by_id(conn: sqlite3.Connection, payment_id: str) -> PaymentRow | None:
    return _row(conn.execute(f"{_SELECT} WHERE id = ?", (payment_id,)).fetchone())


def by_key(conn: sqlite3.Connection, till_id: str, idem_key: str) -> PaymentRow | None:
    return _row(
        conn.execute(
            f"{_SELECT} WHERE till_id = ? AND idem_key = ?", (till_id, idem_key)
        ).fetchone()
    )


def by_token(conn: sqlite3.Connection, token_hash: str) -> PaymentRow | None:
    return _row(conn.execute(f"{_SELECT} WHERE token_hash = ?", (token_hash,)).fetchone())


def by_request(conn: sqlite3.Connection, checkout_request_id: str) -> PaymentRow | None:
    return _row(
        conn.execute(f"{_SELECT} WHERE checkout_request_id = ?", (checkout_request_id,)).fetchone()
    )


def by_receipt(conn: sqlite3.Connection, receipt: str) -> PaymentRow | None:
    """The payment that owns this M-Pesa receipt; not a twin that was merged into it."""
    return _row(
        conn.execute(f"{_SELECT} WHERE receipt = ? AND merged_into IS NULL", (receipt,)).fetchone()
    )


def where(conn: sqlite3.Connection, clause: str, values: Sequence[object] = ()) -> list[PaymentRow]:
    """Payments by a WHERE clause of another module of the store."""
    return _rows(conn.execute(f"{_SELECT} WHERE {clause}", tuple(values)))


def of_sale(conn: sqlite3.Connection, till_id: str, sale_ref: str) -> list[PaymentRow]:
    return _rows(
        conn.execute(
            f"{_SELECT} WHERE till_id = ? AND sale_ref = ? ORDER BY seq", (till_id, sale_ref)
        )
    )


def of_checkout(conn: sqlite3.Connection, checkout_id: str) -> list[PaymentRow]:
    return _rows(conn.execute(f"{_SELECT} WHERE checkout_id = ? ORDER BY seq", (checkout_id,)))


def of_invoice(conn: sqlite3.Connection, invoice_id: str) -> list[PaymentRow]:
    return _rows(conn.execute(f"{_SELECT} WHERE invoice_id = ? ORDER BY seq", (invoice_id,)))


def in_money(
    conn: sqlite3.Connection, states: Sequence[Money], limit: int = 1000
) -> list[PaymentRow]:
    """The oldest pushes in these states of the money."""
    marks = ",".join("?" * len(states))
    return _rows(
        conn.execute(
            f"{_SELECT} WHERE kind = 'STK' AND money IN ({marks}) ORDER BY seq LIMIT ?",
            (*states, limit),
        )
    )


def unsettled(conn: sqlite3.Connection) -> list[PaymentRow]:
    """All pushes whose end nobody has told, oldest first."""
    return _rows(
        conn.execute(
            f"""{_SELECT} WHERE money IN ('NEW', 'SENDING', 'SEND_UNKNOWN', 'WAITING', 'UNKNOWN')
                ORDER BY seq"""
        )
    )


def blocking(
    conn: sqlite3.Connection, phone: str, till_id: str, sale_ref: str, since: int
) -> PaymentRow | None:
    """A push that stands in the way of another to this phone or for this sale: open, or UNKNOWN and
    younger than `since` (its prompt may still be on the phone)."""
    return _row(
        conn.execute(
            f"""{_SELECT} WHERE kind = 'STK' AND (phone = ? OR (till_id = ? AND sale_ref = ?))
                AND (money IN {_PUSHES_BLOCK} OR (money = 'UNKNOWN' AND COALESCE(sent_at, created_at) > ?))
                ORDER BY seq DESC LIMIT 1""",
            (phone, till_id, sale_ref, since),
        ).fetchone()
    )


def last_push_to(conn: sqlite3.Connection, phone: str) -> PaymentRow | None:
    """The newest push that left for this phone."""
    return _row(
        conn.execute(
            f"{_SELECT} WHERE kind = 'STK' AND phone = ? AND sent_at IS NOT NULL ORDER BY seq DESC LIMIT 1",
            (phone,),
        ).fetchone()
    )


def watched(conn: sqlite3.Connection, limit: int = 1000) -> list[PaymentRow]:
    """Everything that is still to be looked at, the youngest first: its customer stands at the till."""
    return _rows(
        conn.execute(
            f"{_SELECT} WHERE next_check_at IS NOT NULL ORDER BY seq DESC LIMIT ?", (limit,)
        )
    )


def without_receipt_or_end(conn: sqlite3.Connection, since: int, until: int) -> list[PaymentRow]:
    """Pushes sent in [since, until) that M-Pesa's own list may say something about: open ones, ones said
    to be unpaid, and paid ones whose receipt is to follow."""
    return _rows(
        conn.execute(
            f"""{_SELECT} WHERE kind = 'STK' AND sent_at >= ? AND sent_at < ?
                AND money NOT IN ('NEW', 'REFUNDED') AND receipt IS NULL AND merged_into IS NULL ORDER BY seq""",
            (since, until),
        )
    )


def open_of_till(conn: sqlite3.Connection, till_id: str) -> list[PaymentRow]:
    """What a till has asked for and nobody knows the end of, the youngest first."""
    return _rows(
        conn.execute(
            f"{_SELECT} WHERE next_check_at IS NOT NULL AND till_id = ? ORDER BY seq DESC LIMIT 50",
            (till_id,),
        )
    )


def unknown(conn: sqlite3.Connection, limit: int = 200) -> list[PaymentRow]:
    """Pushes whose end nobody has told in time, and no sale was settled without, newest first."""
    return _rows(
        conn.execute(
            f"{_SELECT} WHERE money = 'UNKNOWN' AND tender = 'OPEN' ORDER BY seq DESC LIMIT ?",
            (limit,),
        )
    )


def doubtful_receipts(conn: sqlite3.Connection, limit: int = 200) -> list[PaymentRow]:
    """Sales that were signed with money that went back, that is of another amount, or that M-Pesa said
    afterwards was never paid; newest first."""
    return _rows(
        conn.execute(
            f"""{_SELECT} WHERE invoice_id IS NOT NULL AND (money = 'REFUNDED' OR (
                tender = 'COMPLETED_BY_MPESA' AND receipt IS NULL AND id IN (
                    SELECT payment_id FROM payment_event WHERE alarm IS NOT NULL)))
                ORDER BY seq DESC LIMIT ?""",
            (limit,),
        )
    )


def loose(conn: sqlite3.Connection, amount_cents: int, since: int, until: int) -> bool:
    """Whether money of this amount came in [since, until) that nobody has claimed."""
    found = conn.execute(
        """SELECT 1 FROM payment WHERE kind = 'C2B' AND money = 'PAID' AND tender IN ('OPEN', 'REVIEW')
               AND amount_cents = ? AND paid_at >= ? AND paid_at < ? LIMIT 1""",
        (amount_cents, since, until),
    )
    return found.fetchone() is not None


def unowned(conn: sqlite3.Connection, limit: int = 200) -> list[PaymentRow]:
    """Money that came and has no receipt of ours, newest first: open, in review, or to be given back."""
    return _rows(
        conn.execute(
            f"""{_SELECT} WHERE money = 'PAID' AND tender IN ('OPEN', 'REVIEW', 'REFUND_DUE')
                ORDER BY seq DESC LIMIT ?""",
            (limit,),
        )
    )


def loose_of_till(conn: sqlite3.Connection, till_id: str, limit: int = 200) -> list[PaymentRow]:
    """What no sale of this till has yet: asked for and not ended, or come; and money nobody owns."""
    return _rows(
        conn.execute(
            f"""{_SELECT} WHERE tender IN ('OPEN', 'REVIEW') AND (till_id = ? OR till_id IS NULL)
                AND money NOT IN ('REFUSED', 'NOT_PAID', 'REFUNDED') ORDER BY seq DESC LIMIT ?""",
            (till_id, limit),
        )
    )


def between(conn: sqlite3.Connection, start: int, end: int) -> list[PaymentRow]:
    """All payments asked for or come in [start, end), in order."""
    return _rows(
        conn.execute(
            f"{_SELECT} WHERE created_at >= ? AND created_at < ? ORDER BY seq", (start, end)
        )
    )


def words(conn: sqlite3.Connection, payment_id: str) -> list[Word]:
    """The story of one payment, in order."""
    rows = conn.execute(
        """SELECT id, at, source, word, code, money, tender, changed, alarm, note, raw
           FROM payment_event WHERE payment_id = ? ORDER BY id""",
        (payment_id,),
    )
    return [_word(row) for row in rows]


def _word(row: tuple[Any, ...]) -> Word:
    number, at, source, word, code, money, tender, changed, alarm, note, raw = row
    return Word(
        number, at, source, word, code, money, tender, bool(changed), alarm, note, raw
    )  # fmt: skip


def counts(conn: sqlite3.Connection) -> Mapping[str, int]:
    """How many payments are in each state of the money that is not an end."""
    return dict(
        conn.execute(
            """SELECT money, COUNT(*) FROM payment
               WHERE money IN ('NEW', 'SENDING', 'SEND_UNKNOWN', 'WAITING', 'UNKNOWN') GROUP BY money"""
        ).fetchall()
    )
