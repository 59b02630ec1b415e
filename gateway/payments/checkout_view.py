"""A checkout with its parts: how far each is, and what the till is told of the whole."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from gateway import ids
from gateway.clock import from_micros, iso
from gateway.domain.payment import UNSETTLED, Money, PaymentState, Tender
from gateway.errors import PaymentFailed, PaymentWaiting
from gateway.money import from_cents, text
from gateway.mpesa.masking import mask_phone
from gateway.payments.view import payment_json
from gateway.payments.wording import sentence
from gateway.store import checkouts, payments
from gateway.store.checkouts import CheckoutRow, CheckoutState, PartRow
from gateway.store.payments import PaymentRow


class PartState(StrEnum):
    UNASKED = "UNASKED"
    WAITING = "WAITING"  # for M-Pesa, or for a person who accepts another amount
    PAID = "PAID"  # free to be used
    FAILED = "FAILED"  # no money as far as known, or it has another owner


@dataclass(frozen=True, slots=True)
class Part:
    row: PartRow
    payment: PaymentRow | None

    @property
    def state(self) -> PartState:
        payment = self.payment
        if payment is None:
            return PartState.UNASKED
        if payment.tender is Tender.REVIEW:
            return PartState.WAITING
        if payment.tender is not Tender.OPEN:
            return PartState.FAILED
        if payment.money is Money.PAID:
            return PartState.PAID
        return PartState.WAITING if payment.money in UNSETTLED else PartState.FAILED


def part_key(checkout_id: str, position: int) -> str:
    """The key of a part's own push. A till's keys have no spaces, so none of them can be this one."""
    return f"checkout {checkout_id} {position}"


def part_digest(part: PartRow) -> str:
    return ids.digest([part.checkout_id, part.position, part.amount_cents, part.phone])


def parts_of(conn: sqlite3.Connection, row: CheckoutRow) -> list[Part]:
    """In the till's order, each with the payment that stands for it by now."""
    return [Part(part, _payment(conn, row, part)) for part in checkouts.parts(conn, row.id)]


def _payment(conn: sqlite3.Connection, row: CheckoutRow, part: PartRow) -> PaymentRow | None:
    if part.payment_id is not None:
        return real(conn, part.payment_id)
    asked = payments.by_key(conn, row.till_id, part_key(row.id, part.position))
    return None if asked is None else real(conn, asked.id)


def real(conn: sqlite3.Connection, payment_id: str) -> PaymentRow | None:
    """The payment, or the one whose twin it turned out to be."""
    row = payments.by_id(conn, payment_id)
    while row is not None and row.merged_into is not None:
        row = payments.by_id(conn, row.merged_into)
    return row


def checkout_json(conn: sqlite3.Connection, row: CheckoutRow, now_us: int) -> dict[str, Any]:
    """The checkout as a till sees it. `reuse`: what a new sale may name in its tenders, when this one is
    not signed and its money is there."""
    found = parts_of(conn, row)
    closed = row.state is CheckoutState.CLOSED
    return {
        "checkoutId": row.id,
        "till": row.till_id,
        "tillReceiptNo": row.sale_ref,
        "state": row.state,
        "reason": row.reason,
        "total": text(from_cents(row.total_cents)),
        "invoiceId": row.invoice_id,
        "createdAt": iso(from_micros(row.created_at)),
        "signsByItselfUntil": None if row.sign_until is None else iso(from_micros(row.sign_until)),
        "payments": [payment_json(p.payment, now_us) for p in found if p.payment is not None],
        "toAsk": [
            {"amount": text(from_cents(p.row.amount_cents)), "phone": mask_phone(p.row.phone)}
            for p in found
            if p.payment is None
        ],
        "reuse": [
            {
                "method": "MPESA",
                "paymentId": p.payment.id,
                "amount": text(from_cents(min(p.row.amount_cents, p.payment.state.came_cents))),
            }
            for p in found
            if closed and p.payment is not None and p.state is PartState.PAID
        ],
    }


def waiting(conn: sqlite3.Connection, row: CheckoutRow, now: int) -> PaymentWaiting:
    """What a till is told while money or signature are awaited."""
    found = parts_of(conn, row)
    open_part = next((part for part in found if part.state is not PartState.PAID), None)
    detail = "Paid. The receipt is being signed; ask again with the same key."
    if open_part is not None and open_part.payment is not None:
        detail = sentence(open_part.payment.state, _waited_s(open_part.payment, now)).en
    elif open_part is not None:
        detail = "The next customer is asked in a moment; ask again with the same key."
    signed = "unknown" if row.state is CheckoutState.READY else "no"
    extra = {"signed": signed, **checkout_json(conn, row, now)}
    return PaymentWaiting(detail, retry_after_s=2, extra=extra)


def failed(conn: sqlite3.Connection, row: CheckoutRow, now: int) -> PaymentFailed:
    """What it is told of a checkout that is CLOSED."""
    view = checkout_json(conn, row, now)
    detail = "This sale was closed."
    bad = next((p for p in parts_of(conn, row) if p.state is PartState.FAILED), None)
    if row.reason == "UNIT_REFUSED":
        detail = "The control unit refused this sale. Correct it and send it with a new key."
    elif bad is not None and bad.payment is not None:
        detail = sentence(_seen_from(bad.payment, row)).en
    if view["reuse"]:
        detail += " What has been paid can be used in the new sale: see reuse."
    return PaymentFailed(f"{detail} Nothing was signed.", extra={"signed": "no", **view})


def _seen_from(payment: PaymentRow, row: CheckoutRow) -> PaymentState:
    """Return the payment's state as this sale sees it: money that another sale was signed with is merged."""
    mine = (payment.till_id, payment.sale_ref) == (row.till_id, row.sale_ref)
    if payment.tender is not Tender.COMPLETED_BY_MPESA or mine:
        return payment.state
    other = f"{payment.sale_ref} at {payment.till_id}"
    return replace(payment.state, tender=Tender.MERGED, used_for=other)


def _waited_s(row: PaymentRow, now: int) -> float:
    return max(0.0, (now - (row.sent_at or row.created_at)) / 1e6)
