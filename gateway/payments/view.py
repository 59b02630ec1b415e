"""A payment as the till sees it: in its answers, its events and its webhook."""

from __future__ import annotations

from typing import Any

from gateway.clock import from_micros, iso
from gateway.money import from_cents, text
from gateway.mpesa.masking import mask_phone
from gateway.payments.wording import sentence
from gateway.store.payments import PaymentRow


def payment_json(row: PaymentRow, now_us: int | None = None) -> dict[str, Any]:
    """`state` is the money's, `tender` the sale's; `sentence` is to be read aloud. Phone masked."""
    since = row.sent_at or row.created_at
    waited_s = max(0.0, ((now_us or row.updated_at) - since) / 1e6)
    return {
        "paymentId": row.id,
        "kind": row.kind,
        "till": row.till_id,
        "saleRef": row.sale_ref,
        "amount": text(from_cents(row.amount_cents)),
        "phone": mask_phone(row.phone) if row.phone else row.payer,
        "state": row.money,
        "reason": row.reason,
        "tender": row.tender,
        "receipt": row.receipt,
        "paid": None if row.paid_by is None else text(from_cents(row.state.came_cents)),
        "paidBy": row.paid_by,
        "paidAt": None if row.paid_at is None else iso(from_micros(row.paid_at)),
        "invoiceId": row.invoice_id,
        "checkoutId": row.checkout_id,
        "waitedSeconds": int(waited_s),
        "sentence": sentence(row.state, waited_s).as_json(),
    }
