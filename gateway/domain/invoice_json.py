"""An invoice as the JSON the store keeps, and back again, without losing a cent or a place.

The form is the gateway's own (amounts as strings), versioned by `v`, and read for as long as the
receipt must be kept; it is neither the till's request nor the unit's.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from gateway.domain.invoice import (
    Buyer,
    Cashier,
    Invoice,
    InvoiceLine,
    Payment,
    ReceiptType,
    SalesType,
)

_LINE_TEXT = ("item_code", "item_class", "name", "tax_letter", "package_unit", "quantity_unit")
_LINE_NUMBERS = (
    "quantity",
    "unit_price",
    "supply",
    "discount_percent",
    "discount",
    "total",
    "tax_percent",
    "tax",
    "package_count",
)


def to_json(invoice: Invoice) -> bytes:
    """Canonical bytes of an invoice (sorted keys, UTF-8)."""
    value = {
        "v": 1,
        "sales_type": invoice.sales_type,
        "receipt_type": invoice.receipt_type,
        "till_receipt_no": invoice.till_receipt_no,
        "cashier": [invoice.cashier.id, invoice.cashier.name],
        "buyer": [invoice.buyer.pin, invoice.buyer.name, invoice.buyer.phone],
        "lines": [_line_to_json(line) for line in invoice.lines],
        "payments": [_payment_to_json(payment) for payment in invoice.payments],
        "change": str(invoice.change),
        "rates": [[letter, str(percent)] for letter, percent in invoice.rates],
        "remark": invoice.remark,
        "original_invc_no": invoice.original_invc_no,
        "original_cu_invoice_no": invoice.original_cu_invoice_no,
        "refund_reason": invoice.refund_reason,
    }
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def from_json(data: bytes) -> Invoice:
    """The invoice that `to_json` wrote. ValueError for any other version."""
    value: dict[str, Any] = json.loads(data)
    if value.get("v") != 1:
        raise ValueError(f"unknown invoice document version {value.get('v')!r}")
    return Invoice(
        sales_type=SalesType(value["sales_type"]),
        receipt_type=ReceiptType(value["receipt_type"]),
        till_receipt_no=value["till_receipt_no"],
        cashier=Cashier(*value["cashier"]),
        buyer=Buyer(*value["buyer"]),
        lines=tuple(_line_from_json(line) for line in value["lines"]),
        payments=tuple(Payment(c, Decimal(a), *rest) for c, a, *rest in value["payments"]),
        change=Decimal(value["change"]),
        rates=tuple((letter, Decimal(percent)) for letter, percent in value["rates"]),
        remark=value["remark"],
        original_invc_no=value["original_invc_no"],
        original_cu_invoice_no=value["original_cu_invoice_no"],
        refund_reason=value["refund_reason"],
    )


def _payment_to_json(payment: Payment) -> list[str | None]:
    value: list[str | None] = [payment.code, str(payment.amount), payment.reference]
    # Only where there is one, so that all other documents stay as they were.
    return value if payment.payment_id is None else [*value, payment.payment_id]


def _line_to_json(line: InvoiceLine) -> dict[str, Any]:
    value: dict[str, Any] = {"seq": line.seq, "barcode": line.barcode}
    value.update({name: getattr(line, name) for name in _LINE_TEXT})
    value.update({name: str(getattr(line, name)) for name in _LINE_NUMBERS})
    return value


def _line_from_json(value: dict[str, Any]) -> InvoiceLine:
    fields: dict[str, Any] = {name: Decimal(value[name]) for name in _LINE_NUMBERS}
    fields.update({name: value[name] for name in _LINE_TEXT})
    return InvoiceLine(seq=value["seq"], barcode=value["barcode"], **fields)
