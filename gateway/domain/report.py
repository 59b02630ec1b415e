"""X, Z and PLU reports: the 20 fields of TIS 15.1 and 16.1, and TIS 18.1, summed from what was signed.

Pure. Amounts are Decimals in shillings; a credit note's amounts are positive here, as on the wire.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.domain.invoice import Invoice
from gateway.domain.tax import LETTERS
from gateway.money import ZERO, text


@dataclass(slots=True)
class Tally:
    """How many, and how much."""

    number: int = 0
    amount: Decimal = ZERO

    def add(self, amount: Decimal) -> None:
        self.number += 1
        self.amount += amount

    def as_json(self) -> dict[str, Any]:
        return {"number": self.number, "amount": text(self.amount)}


def _letters() -> dict[str, Decimal]:
    return dict.fromkeys(LETTERS, ZERO)


@dataclass(slots=True)
class DayTotals:
    """What one day's receipts come to. Credit notes are taken off taxes, tenders and items."""

    sales: Tally = field(default_factory=Tally)
    credit_notes: Tally = field(default_factory=Tally)
    copies: Tally = field(default_factory=Tally)
    training: Tally = field(default_factory=Tally)
    proforma: Tally = field(default_factory=Tally)
    taxable: dict[str, Decimal] = field(default_factory=_letters)
    tax: dict[str, Decimal] = field(default_factory=_letters)
    items: Decimal = ZERO
    tenders: dict[str, Decimal] = field(default_factory=dict)
    discounts: Decimal = ZERO
    incomplete: int = 0

    def add(self, label: str, invoice: Invoice) -> None:
        """One signed receipt."""
        match label:
            case "TS" | "TC":
                self.training.add(invoice.total)
                return
            case "PS":
                self.proforma.add(invoice.total)
                return
            case "NC":
                self.credit_notes.add(invoice.total)
                sign = -1
            case _:
                self.sales.add(invoice.total)
                sign = 1
        for row in invoice.letters:
            self.taxable[row.letter] += sign * row.net
            self.tax[row.letter] += sign * row.tax
        change = invoice.change
        for payment in invoice.payments:
            # The change came out of the cash.
            given_back = min(change, payment.amount) if payment.code == "01" else ZERO
            change -= given_back
            amount = payment.amount - given_back
            self.tenders[payment.code] = self.tenders.get(payment.code, ZERO) + sign * amount
        self.items += sign * sum((line.quantity for line in invoice.lines), ZERO)
        self.discounts += sign * invoice.discount

    def as_json(self) -> dict[str, Any]:
        return {
            "sales": self.sales.as_json(),
            "creditNotes": self.credit_notes.as_json(),
            "taxable": {letter: text(amount) for letter, amount in self.taxable.items()},
            "tax": {letter: text(amount) for letter, amount in self.tax.items()},
            "itemsSold": f"{self.items.normalize():f}",
            "copies": self.copies.as_json(),
            "training": self.training.as_json(),
            "proforma": self.proforma.as_json(),
            "payments": {code: text(amount) for code, amount in sorted(self.tenders.items())},
            "discounts": text(self.discounts),
            # Nothing else reduces a price here; the field is TIS's own.
            "otherReductions": text(ZERO),
            "incompleteSales": self.incomplete,
        }


@dataclass(slots=True)
class PluRow:
    """One item's day: what was sold of it at one price and rate."""

    code: str
    name: str
    unit_price: Decimal
    letter: str
    quantity: Decimal = ZERO
    amount: Decimal = ZERO


def plu_rows(receipts: Iterable[tuple[str, Invoice]]) -> list[PluRow]:
    """Per item, price and rate, in the order of the codes; credit notes taken off (TIS 18.1)."""
    rows: dict[tuple[str, Decimal, str], PluRow] = {}
    for label, invoice in receipts:
        if label not in ("NS", "NC"):
            continue
        sign = -1 if label == "NC" else 1
        for line in invoice.lines:
            key = (line.item_code, line.unit_price, line.tax_letter)
            row = rows.setdefault(
                key, PluRow(line.item_code, line.name, line.unit_price, line.tax_letter)
            )
            row.quantity += sign * line.quantity
            row.amount += sign * line.total
    return [rows[key] for key in sorted(rows)]


def plu_as_json(rows: Iterable[PluRow], stock: Mapping[str, str]) -> list[dict[str, Any]]:
    """`remaining` is what the shop last told KRA of its stock; None where it told nothing."""
    return [
        {
            "itemCode": row.code,
            "name": row.name,
            "unitPrice": text(row.unit_price),
            "taxCode": row.letter,
            "quantity": f"{row.quantity.normalize():f}",
            "amount": text(row.amount),
            "remaining": stock.get(row.code),
        }
        for row in rows
    ]
