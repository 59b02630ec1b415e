"""Domain objects for tests: a valid invoice of two lines, 297.00 in all, and a fixed noon."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.clock import EAT
from gateway.domain.invoice import (
    Buyer,
    Cashier,
    Invoice,
    Payment,
    ReceiptType,
    SalesType,
    make_line,
)
from gateway.domain.tax import DEFAULT_RATES, LETTERS


def at_noon() -> datetime:
    return datetime(2026, 7, 7, 12, 0, 0, tzinfo=EAT)


def an_invoice(**changes: Any) -> Invoice:
    def line(seq: int, name: str, quantity: str, price: str, letter: str) -> Any:
        return make_line(
            seq=seq, item_code=f"KE2NTXU000000{seq}", item_class="50202300", name=name,
            quantity=Decimal(quantity), unit_price=Decimal(price), tax_letter=letter,
            rates=DEFAULT_RATES, package_unit="NT", quantity_unit="U",
        )  # fmt: skip

    values: dict[str, Any] = {
        "sales_type": SalesType.NORMAL,
        "receipt_type": ReceiptType.SALE,
        "till_receipt_no": "POS-000001",
        "cashier": Cashier("cashier1", "Cashier One"),
        "buyer": Buyer(),
        "lines": (
            line(1, "Bottled soda 500ml", "2", "116.00", "B"),
            line(2, "Ordinary bread 400g", "1", "65.00", "A"),
        ),
        "payments": (Payment("01", Decimal("297.00")),),
        "change": Decimal("0.00"),
        "rates": tuple((letter, DEFAULT_RATES[letter].percent) for letter in LETTERS),
    }
    values.update(changes)
    return Invoice(**values)
