"""Payments that may be the same money: a paid push whose receipt is not known, and a payment that M-Pesa
announced without saying whose it is (no payer, or a hash of an unknown form; no reference of ours).

Each may be a payment of its own. Until M-Pesa (a callback, a C2B message, a row of Pull with the whole number) or a
person has distinguished them, only one of the two is used: the push while the announced payment is unused, the
announced payment never. See docs/internals/payments.md, "May be the same money".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from gateway.domain.payment import Money, Tender
from gateway.errors import PaymentMayBeSame
from gateway.money import from_cents, text
from gateway.payments.matching import (
    APART_US,
    ECHO_US,
    REFERENCE_US,
    is_pay_bill,
    other_phone,
    same_reference,
)
from gateway.payments.view import payment_json
from gateway.store import payments_shown
from gateway.store.payments import PaymentRow
from gateway.store.payments_shown import Shown

_CAME = (Money.PAID, Money.REFUNDED)


def may_be_same(push: PaymentRow, other: PaymentRow, shown: Shown | None) -> bool:
    """Return whether the push was paid and nothing that is known tells its money from that of `other`. Pure."""
    return push.money in _CAME and could_be(push, other, shown)


def could_be(push: PaymentRow, other: PaymentRow, shown: Shown | None) -> bool:
    """Return whether `other` could be the money of a push without a receipt, paid or not. Pure."""
    if push.kind != "STK" or other.kind != "C2B" or push.receipt is not None:
        return False
    if {push.merged_into, other.merged_into} != {None}:
        return False
    if push.state.came_cents != other.state.came_cents or push.phone is None:
        return False
    kind = "" if shown is None else shown.kind
    ours = same_reference(other.account_ref, push.account_ref)
    if other.account_ref and not ours and is_pay_bill(kind):
        return False
    if other_phone(push.phone, other.payer if shown is None else shown.payer):
        return False
    at = other.paid_at if shown is None else shown.paid_at
    # Without M-Pesa's own time the message may have been on its way for long.
    longest = ECHO_US if at is not None and not ours else REFERENCE_US
    since = (other.created_at if at is None else at) - (push.sent_at or push.created_at)
    return -APART_US <= since <= longest


def of(conn: sqlite3.Connection, row: PaymentRow) -> list[PaymentRow]:
    """Return the payments that may be the same money as `row`, oldest first."""
    if row.kind == "C2B":
        if row.merged_into is not None:
            return []
        at = row.paid_at or row.created_at
        latest = max(at, row.created_at) + APART_US + 1
        pushes = payments_shown.receipts_to_follow(
            conn, row.state.came_cents, at - REFERENCE_US, latest
        )
        shown = payments_shown.shown(conn, row.id)
        return [
            push
            for push in pushes
            if may_be_same(push, row, shown) and not payments_shown.are_apart(conn, push.id, row.id)
        ]
    if row.receipt is not None or row.merged_into is not None or row.money not in _CAME:
        return []
    since = (row.sent_at or row.created_at) - APART_US
    until = since + REFERENCE_US + 2 * APART_US + 1
    return [
        other
        for other in payments_shown.announced(conn, row.state.came_cents, since, until)
        if may_be_same(row, other, payments_shown.shown(conn, other.id))
        and not payments_shown.are_apart(conn, row.id, other.id)
    ]


def is_used(row: PaymentRow) -> bool:
    """Return whether an announced payment was claimed, signed with, or given back."""
    return row.sale_ref is not None or row.tender not in (Tender.OPEN, Tender.REVIEW)


def in_the_way(conn: sqlite3.Connection, row: PaymentRow) -> PaymentRow | None:
    """Return the payment that must be told from `row` before `row` may be used; None when it may."""
    others = of(conn, row)
    if row.kind == "STK":
        others = [other for other in others if is_used(other)]
    return others[0] if others else None


def refusal(row: PaymentRow, other: PaymentRow, *, signing: bool = True) -> PaymentMayBeSame:
    """Return the error that names both payments, for a claim or a use of `row`."""
    amount = text(from_cents(other.state.came_cents))
    name = f"M-Pesa {other.receipt}" if other.receipt else f"request {other.id}"
    sale = f" for sale {other.sale_ref} at {other.till_id}" if other.sale_ref else ""
    tail = " Nothing was signed." if signing else ""
    return PaymentMayBeSame(
        f"This may be the same money as {name} ({amount}{sale}). A manager must look: one payment or two?"
        f"{tail}",
        extra={
            "signed": "no",
            "paymentId": row.id,
            "otherPaymentId": other.id,
            "payment": payment_json(row),
            "otherPayment": payment_json(other),
        },
    )


def refuse_if_unclear(conn: sqlite3.Connection, row: PaymentRow) -> None:
    """Raise PaymentMayBeSame when `row` cannot be claimed, given back or used yet."""
    other = in_the_way(conn, row)
    if other is not None:
        raise refusal(row, other, signing=False)


# --- counting -----------------------------------------------------------------------------------


def pairs(conn: sqlite3.Connection, rows: Iterable[PaymentRow]) -> dict[str, list[PaymentRow]]:
    """Return for each announced payment of `rows` the pushes that it may be, where there are any."""
    found = {row.id: of(conn, row) for row in rows if row.kind == "C2B"}
    return {c2b_id: pushes for c2b_id, pushes in found.items() if pushes}


def counted_elsewhere(
    rows: Iterable[PaymentRow], likely: Mapping[str, list[PaymentRow]]
) -> frozenset[str]:
    """Return the payments of which a sum must leave out one each: as many pairs as can be made at once, so that
    no shilling that may be the same is counted twice. Of a pair the one that no sale was signed with is out."""
    by_id = {row.id: row for row in rows}
    partner: dict[str, str] = {}

    def place(c2b_id: str, tried: set[str]) -> bool:
        for push in likely[c2b_id]:
            if push.id in tried:
                continue
            tried.add(push.id)
            if push.id not in partner or place(partner[push.id], tried):
                partner[push.id] = c2b_id
                return True
        return False

    for c2b_id in sorted(likely):
        place(c2b_id, set())
    pushes = {push.id: push for found in likely.values() for push in found}
    out = set()
    for push_id, c2b_id in partner.items():
        c2b = by_id.get(c2b_id)
        keep_c2b = (
            c2b is not None
            and is_used(c2b)
            and pushes[push_id].tender is not Tender.COMPLETED_BY_MPESA
        )
        out.add(push_id if keep_c2b else c2b_id)
    return frozenset(out)
