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

CASH = "01"  # class 07


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
class Side:
    """What one label comes to: the sales (NS) or the credit notes (NC) of a day."""

    receipts: Tally = field(default_factory=Tally)
    taxable: dict[str, Decimal] = field(default_factory=_letters)
    tax: dict[str, Decimal] = field(default_factory=_letters)
    items: Decimal = ZERO
    payments: dict[str, Decimal] = field(default_factory=dict)
    discounts: Decimal = ZERO

    def add(self, invoice: Invoice) -> None:
        self.receipts.add(invoice.total)
        for row in invoice.letters:
            self.taxable[row.letter] += row.net
            self.tax[row.letter] += row.tax
        for payment in invoice.payments:
            self.payments[payment.code] = self.payments.get(payment.code, ZERO) + payment.amount
        if invoice.change:
            # It came out of the drawer, also where all of the money came by M-Pesa.
            self.payments[CASH] = self.payments.get(CASH, ZERO) - invoice.change
        self.items += sum((line.quantity for line in invoice.lines), ZERO)
        self.discounts += invoice.discount


@dataclass(slots=True)
class DayTotals:
    """What one day's receipts come to. Sales and credit notes are told apart in every figure and never
    taken off each other (TIS 16.1.10, 16.1.11, 16.1.17)."""

    sales: Side = field(default_factory=Side)
    credit_notes: Side = field(default_factory=Side)
    copies: Tally = field(default_factory=Tally)
    training: Tally = field(default_factory=Tally)
    proforma: Tally = field(default_factory=Tally)
    incomplete: int = 0

    def add(self, label: str, invoice: Invoice) -> None:
        """One signed receipt."""
        match label:
            case "NS":
                self.sales.add(invoice)
            case "NC":
                self.credit_notes.add(invoice)
            case "TS" | "TC":
                self.training.add(invoice.total)
            case "PS":
                self.proforma.add(invoice.total)
            case _:
                raise ValueError(f"no receipt has the label {label}")

    def as_json(self) -> dict[str, Any]:
        """TIS 16.1.6 to 16.1.20; the first five fields are the caller's."""
        sales, notes = self.sales, self.credit_notes
        return {
            "sales": sales.receipts.as_json(),
            "creditNotes": notes.receipts.as_json(),
            "taxable": _texts(sales.taxable),
            "tax": _texts(sales.tax),
            "creditNoteTaxable": _texts(notes.taxable),
            "creditNoteTax": _texts(notes.tax),
            "itemsSold": plain(sales.items),
            "itemsReturned": plain(notes.items),
            "copies": self.copies.as_json(),
            "training": self.training.as_json(),
            "proforma": self.proforma.as_json(),
            "payments": _texts(dict(sorted(sales.payments.items()))),
            "creditNotePayments": _texts(dict(sorted(notes.payments.items()))),
            "discounts": text(sales.discounts),
            # Only discounts and credit notes reduce a day here, and both have fields of their own.
            "otherReductions": text(ZERO),
            "incompleteSales": self.incomplete,
        }


def _texts(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {name: text(amount) for name, amount in amounts.items()}


def plain(quantity: Decimal) -> str:
    """'3' or '1.25', without an exponent."""
    return f"{quantity.normalize():f}"


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
            "quantity": plain(row.quantity),
            "amount": text(row.amount),
            "remaining": stock.get(row.code),
        }
        for row in rows
    ]
