"""Money that M-Pesa announces under a receipt: it becomes the word on the payment that owns it, or a payment
of its own that waits for an owner. For C2B confirmations, Pull rows, and a second receipt of one push."""

from __future__ import annotations

import re
import sqlite3
from datetime import datetime
from typing import Any

from gateway.clock import from_micros, micros
from gateway.domain.payment import Evidence, Money, Source, Verdict
from gateway.domain.payment_wire import C2bNotice, PulledRow
from gateway.ids import new_id
from gateway.mpesa.fields import HASHED
from gateway.mpesa.masking import mask_phone
from gateway.payments import twins
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.matching import APART_US, REFERENCE_US, match, tight
from gateway.payments.view import payment_json
from gateway.store import events, payments, payments_shown
from gateway.store.payments import PaymentRow
from gateway.store.payments_shown import Shown

_MASKED = re.compile(r"254[17]\*{5}[0-9]{3}")


def announced_in(
    conn: sqlite3.Connection,
    ledger: Ledger,
    notice: C2bNotice | PulledRow,
    source: Source,
    at: int,
    raw: bytes | None = None,
) -> Heard:
    """The receipt's owner hears it again; else the one push that it fits; else it is new money. Part of the
    caller's transaction, who tells `ledger.told` after the commit. `at`: now, UTC microseconds."""
    moment = notice.paid_at if isinstance(notice, C2bNotice) else notice.at
    row = payments.by_receipt(conn, notice.receipt)
    if row is None or row.kind == "C2B":
        owner = _push_of(conn, notice, moment, at)
        if row is None and owner is None:
            return _new_money(conn, ledger, notice, source, moment, at, raw)
        if row is not None:
            # A second announcement may show more of the payer than the first one did.
            shown = Shown(notice.phone, notice.kind, micros(moment) if moment else None)
            payments_shown.note(conn, row.id, shown)
            if owner is not None and not _may_merge(conn, owner, row):
                owner = None
        row = owner or row
    assert row is not None
    word = Evidence(
        source,
        Verdict.PAID,
        receipt=notice.receipt,
        amount_cents=notice.amount_cents,
        payer=payer(notice.phone),
    )
    return ledger.hear_in(conn, row, word, raw, **when_paid(row.money, moment))


def _push_of(
    conn: sqlite3.Connection, notice: C2bNotice | PulledRow, moment: datetime | None, at: int
) -> PaymentRow | None:
    """Return the one push without a receipt that this money fits."""
    paid_us = micros(moment) if moment else at
    pushes = payments.without_receipt_or_end(conn, paid_us - REFERENCE_US, paid_us + APART_US + 1)
    return match(notice, pushes, from_micros(at))


def _may_merge(conn: sqlite3.Connection, push: PaymentRow, known: PaymentRow) -> bool:
    """Return whether a payment that was recorded before may still turn out to be this push's money. One that a
    sale has used says nothing about a push that is not paid."""
    if payments_shown.are_apart(conn, push.id, known.id):
        return False
    return push.money is Money.PAID or not twins.is_used(known)


def _new_money(
    conn: sqlite3.Connection,
    ledger: Ledger,
    notice: C2bNotice | PulledRow,
    source: Source,
    moment: datetime | None,
    at: int,
    raw: bytes | None,
) -> Heard:
    """Record a payment that fits no push; one that names a QR code of ours is its sale's."""
    heard = found_in(
        conn,
        receipt=notice.receipt,
        amount_cents=notice.amount_cents,
        source=source,
        reference=notice.reference,
        phone=notice.phone,
        paid_at=moment,
        at=at,
        raw=raw,
        kind=notice.kind,
    )
    since = (micros(moment) if moment else at) - REFERENCE_US
    sales = payments_shown.qr_sales(
        conn, tight(notice.reference), notice.amount_cents, since, at + 1
    )
    if len(sales) != 1 or twins.in_the_way(conn, heard.row) is not None:
        return heard
    (till_id, sale_ref), *_ = sales
    return ledger.claim_in(conn, heard.row, till_id, sale_ref, "QR code")


def found_in(
    conn: sqlite3.Connection,
    *,
    receipt: str,
    amount_cents: int,
    source: Source,
    reference: str | None,
    phone: str | None,
    paid_at: datetime | None,
    at: int,
    raw: bytes | None,
    kind: str = "",
) -> Heard:
    """A payment without a push of ours, offered to every till (`payment.unmatched`). IntegrityError when the
    receipt has an owner."""
    payment_id = new_id(at)
    payments.insert_found(
        conn,
        payment_id=payment_id,
        receipt=receipt,
        amount_cents=amount_cents,
        source=source,
        account_ref=reference or None,
        payer=payer(phone),
        paid_at=micros(paid_at) if paid_at else at,
        at=at,
    )
    told_us = micros(paid_at) if paid_at else None
    payments_shown.note(conn, payment_id, Shown(phone, kind, told_us))
    row = payments.by_id(conn, payment_id)
    assert row is not None
    payments.say(conn, row, at=at, source=source, word=Verdict.PAID, changed=True, raw=raw)
    events.record(conn, at=at, kind="payment.unmatched", subject=row.id, data=payment_json(row))
    return Heard(row, True, None)


def when_paid(money: Money, moment: datetime | None) -> dict[str, Any]:
    """M-Pesa's own time of the payment, for a row that becomes PAID by it."""
    if moment is None or money in (Money.PAID, Money.REFUNDED):
        return {}
    return {"paid_at": micros(moment)}


def payer(phone: str | None) -> str | None:
    """The payer's number, masked as ours are; what M-Pesa has masked in that way already stays. A hash is
    no number: None."""
    if phone is None or HASHED.fullmatch(phone):
        return None
    tight = phone.replace(" ", "")
    return tight if _MASKED.fullmatch(tight) else mask_phone(tight)
