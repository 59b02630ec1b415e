"""Payments as rows, for what is summed or shown from them."""

from __future__ import annotations

from typing import Any

from gateway.domain.payment import Money, Tender
from gateway.store.payments import PaymentRow


def a_payment(number: int, **changes: Any) -> PaymentRow:
    """A push of 297 shillings by till-1, open, with everything else as yet untold."""
    values: dict[str, Any] = dict.fromkeys(PaymentRow.__slots__)
    values |= {
        "id": f"{number:026d}", "kind": "STK", "till_id": "till-1", "idem_key": f"key-{number}",
        "sale_ref": f"POS-{number:06d}", "amount_cents": 29_700, "phone": "254708374149",
        "money": Money.WAITING, "tender": Tender.OPEN, "checks": 0, "created_at": 0, "updated_at": 0,
        "version": 1,
    }  # fmt: skip
    return PaymentRow(**(values | changes))
