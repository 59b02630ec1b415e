"""The invoice a till submits: lines, totals, buyer, payments; and the sums that follow from it.

Built by `api/schemas.py` (which turns bad input into field errors) and read by everybody else.
Prices are VAT-inclusive; an amount on a credit note is positive here and on the wire (etims.md 5.6)
and negative only on paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from gateway.domain.tax import LETTERS, LetterTotal, RateTable, tax_of
from gateway.money import ZERO, round_amount


class SalesType(StrEnum):
    """salesTyCd, code class 14. Copies are reprints of stored data, not a call to the unit."""

    NORMAL = "N"
    TRAINING = "T"
    PROFORMA = "P"


class ReceiptType(StrEnum):
    """rcptTyCd, code class 37."""

    SALE = "S"
    REFUND = "R"


@dataclass(frozen=True, slots=True)
class Buyer:
    pin: str | None = None
    name: str | None = None
    phone: str | None = None


@dataclass(frozen=True, slots=True)
class Cashier:
    """Who rang it up: regrId (20 characters) and regrNm (60), never empty on the wire."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Payment:
    """One tender: KRA's code of class 07 and the amount in shillings. `payment_id`: the M-Pesa payment
    of ours that stands behind it; the till named it, or the gateway asked for it."""

    code: str
    amount: Decimal
    reference: str | None = None
    payment_id: str | None = None


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One item. `supply` = quantity x unit price, `total` = supply - discount, all VAT-inclusive."""

    seq: int
    item_code: str
    item_class: str
    name: str
    quantity: Decimal
    unit_price: Decimal
    supply: Decimal
    discount_percent: Decimal
    discount: Decimal
    total: Decimal
    tax_letter: str
    tax_percent: Decimal
    tax: Decimal
    package_unit: str
    package_count: Decimal
    quantity_unit: str
    barcode: str | None = None

    @property
    def net(self) -> Decimal:
        return self.total - self.tax


@dataclass(frozen=True, slots=True)
class Invoice:
    """A valid invoice or credit note. Its sums are properties, so they cannot drift from its lines."""

    sales_type: SalesType
    receipt_type: ReceiptType
    till_receipt_no: str
    cashier: Cashier
    buyer: Buyer
    lines: tuple[InvoiceLine, ...]
    payments: tuple[Payment, ...]
    change: Decimal
    rates: tuple[tuple[str, Decimal], ...]
    remark: str | None = None
    original_invc_no: int = 0
    original_cu_invoice_no: str | None = None
    refund_reason: str | None = None

    @property
    def total(self) -> Decimal:
        return sum((line.total for line in self.lines), ZERO)

    @property
    def tax(self) -> Decimal:
        return sum((line.tax for line in self.lines), ZERO)

    @property
    def net(self) -> Decimal:
        return self.total - self.tax

    @property
    def supply(self) -> Decimal:
        return sum((line.supply for line in self.lines), ZERO)

    @property
    def discount(self) -> Decimal:
        return sum((line.discount for line in self.lines), ZERO)

    @property
    def label(self) -> str:
        """The receipt label of the original (TIS 4.3): NS, NC, TS, TC or PS."""
        return self.sales_type + ("S" if self.receipt_type is ReceiptType.SALE else "C")

    @property
    def letters(self) -> tuple[LetterTotal, ...]:
        """All five rows, A to E, also the unused ones: both the wire and the paper want them."""
        return letter_totals(self.lines, dict(self.rates))


def letter_totals(
    lines: Sequence[InvoiceLine], percents: dict[str, Decimal]
) -> tuple[LetterTotal, ...]:
    """Line sums per tax letter; line totals are rounded, the sums are exact (etims.md 5.6)."""
    rows = []
    for letter in LETTERS:
        mine = [line for line in lines if line.tax_letter == letter]
        gross = sum((line.total for line in mine), ZERO)
        tax = sum((line.tax for line in mine), ZERO)
        rows.append(LetterTotal(letter, percents.get(letter, ZERO), gross, gross - tax, tax))
    return tuple(rows)


def make_line(
    *,
    seq: int,
    item_code: str,
    item_class: str,
    name: str,
    quantity: Decimal,
    unit_price: Decimal,
    tax_letter: str,
    rates: RateTable,
    package_unit: str,
    quantity_unit: str,
    discount_percent: Decimal = ZERO,
    discount: Decimal | None = None,
    package_count: Decimal = Decimal(1),
    barcode: str | None = None,
) -> InvoiceLine:
    """One line with its arithmetic done. ValueError when the discount eats more than the line.

    A discount in shillings is folded into a net unit price by the wire encoder, because the unit
    takes whole percents only (etims.md 5.6); here it stays as the till gave it, for the paper.
    """
    supply = round_amount(quantity * unit_price)
    if discount is None:
        discount = round_amount(supply * discount_percent / 100)
    if discount > supply:
        raise ValueError("the discount is larger than the line")
    total = supply - discount
    percent = rates[tax_letter].percent
    return InvoiceLine(
        seq=seq,
        item_code=item_code,
        item_class=item_class,
        name=name,
        quantity=quantity,
        unit_price=unit_price,
        supply=supply,
        discount_percent=discount_percent,
        discount=discount,
        total=total,
        tax_letter=tax_letter,
        tax_percent=percent,
        tax=tax_of(total, percent),
        package_unit=package_unit,
        package_count=package_count,
        quantity_unit=quantity_unit,
        barcode=barcode,
    )
