"""From what a till sent to a valid Invoice, or to every mistake in it at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.api.schemas import CreditNoteIn, InvoiceIn, LineIn, PaymentIn, field_errors, pointer
from gateway.domain.invoice import (
    Buyer,
    Cashier,
    Invoice,
    InvoiceLine,
    Payment,
    ReceiptType,
    SalesType,
    make_line,
)
from gateway.domain.tax import LETTERS, RateTable
from gateway.errors import (
    CreditNoteInvalid,
    FieldError,
    GatewayError,
    InvoiceInvalid,
    RegistrationInvalid,
)
from gateway.money import ZERO, parse_amount, parse_quantity, text

M = TypeVar("M", bound=BaseModel)
NOTHING_SIGNED = "The till sent an invoice with mistakes. Nothing was signed."
CASH = "01"
# Code class 07 as KRA's own lists have it (etims.md 5.3).
PAYMENT_CODES = {
    "CASH": CASH,
    "CREDIT": "02",
    "CASH_CREDIT": "03",
    "BANK_CHECK": "04",
    "CARD": "05",
    "MOBILE_MONEY": "06",
    "OTHER": "07",
}
_TYPES = {
    "NORMAL": SalesType.NORMAL,
    "TRAINING": SalesType.TRAINING,
    "PROFORMA": SalesType.PROFORMA,
}


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a till need not say: from settings and the till's own row."""

    cashier: Cashier
    item_class: str
    package_unit: str
    quantity_unit: str
    max_lines: int


def parse_model(model: type[M], value: Any) -> M:
    """The body as a model. InvoiceInvalid with every mistake's place."""
    return parse_as(model, value, InvoiceInvalid, NOTHING_SIGNED)


def parse_as(model: type[M], value: Any, kind: type[GatewayError], detail: str) -> M:
    """The body as a model. `kind` with every mistake's place."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise kind(detail, errors=field_errors(error)) from None


def positive(parse: Callable[[str], Decimal], raw: str, name: str, detail: str) -> Decimal:
    """One number of a body. RegistrationInvalid with its place."""
    found = _Findings()
    value = found.number(parse, raw, name)
    found.refuse(RegistrationInvalid, detail)
    assert value is not None
    return value


def build_stock_lines(
    lines: Sequence[LineIn], rates: RateTable, defaults: Defaults
) -> tuple[InvoiceLine, ...]:
    """The lines of a stock move, priced as an invoice's. RegistrationInvalid otherwise."""
    found = _Findings()
    if len(lines) > defaults.max_lines:
        found.add("TOO_MANY", f"lines takes at most {defaults.max_lines}.", "lines")
    made = [_line(found, line, at, rates, defaults) for at, line in enumerate(lines[:9999])]
    found.refuse(RegistrationInvalid, "This has mistakes. Nothing was sent to KRA.")
    return tuple(line for line in made if line is not None)


class _Findings:
    """Collects mistakes, so that a till's programmer sees all of them in one answer."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def add(self, code: str, message: str, *path: str | int) -> None:
        self.errors.append(FieldError(pointer(*path), code, message))

    def number(self, parse: Callable[[str], Decimal], raw: str, *path: str | int) -> Decimal | None:
        try:
            return parse(raw)
        except ValueError as error:
            self.add("AMOUNT_INVALID", f"{path[-1]} {error}.", *path)
            return None

    def refuse(
        self, kind: type[GatewayError] = InvoiceInvalid, detail: str = NOTHING_SIGNED
    ) -> None:
        if self.errors:
            raise kind(detail, errors=self.errors)


def build_invoice(
    body: InvoiceIn,
    rates: RateTable,
    defaults: Defaults,
    *,
    wrong: Sequence[FieldError] = (),
    where: str = "payments",
) -> Invoice:
    """A sale ready to be claimed. InvoiceInvalid with every field's pointer otherwise. `wrong`: what was
    found before; `where`: the field in which the payments came."""
    found = _Findings()
    found.errors.extend(wrong)
    if body.tenders is not None:
        found.add("NOT_ALLOWED", "tenders are taken by POST /v1/invoices only.", "tenders")
    if len(body.lines) > defaults.max_lines:
        found.add("TOO_MANY", f"lines takes at most {defaults.max_lines}.", "lines")
    lines = [_line(found, line, at, rates, defaults) for at, line in enumerate(body.lines[:9999])]
    total = found.number(parse_amount, body.total, "total")
    good = [line for line in lines if line is not None]
    payments: tuple[Payment, ...] = ()
    change = ZERO
    if len(good) == len(lines) and total is not None:
        summed = sum((line.total for line in good), ZERO)
        if total != summed:
            found.add(
                "TOTAL_DRIFTS", f"total is {text(total)}, the lines make {text(summed)}.", "total"
            )
        _check_tax(found, body, good)
        payments, change = _payments(found, body.payments, summed, where)
        _named_payments(found, body)
    found.refuse()
    return Invoice(
        sales_type=_TYPES[body.type],
        receipt_type=ReceiptType.SALE,
        till_receipt_no=body.tillReceiptNo,
        cashier=_cashier(body, defaults),
        buyer=Buyer(body.buyer.pin, body.buyer.name, body.buyer.phone) if body.buyer else Buyer(),
        lines=tuple(good),
        payments=payments,
        change=change,
        rates=tuple((letter, rates[letter].percent) for letter in LETTERS),
        remark=body.remark,
    )


def build_credit_note(
    body: CreditNoteIn,
    original: Invoice,
    *,
    original_invc_no: int,
    original_cu_invoice_no: str,
    defaults: Defaults,
) -> Invoice:
    """The whole of `original` taken back, at the rates it was sold at. CreditNoteInvalid otherwise."""
    if original.receipt_type is not ReceiptType.SALE:
        raise CreditNoteInvalid("A credit note cannot be credited; make a new sale instead.")
    if original.sales_type is SalesType.PROFORMA:
        raise CreditNoteInvalid("A proforma is not a sale and cannot be credited.")
    found = _Findings()
    if body.payments is None:
        payments, change = _without_change(original), ZERO
    else:
        payments, change = _payments(found, body.payments, original.total)
        for at, item in enumerate(body.payments):
            if item.paymentId is not None:
                says = "M-Pesa money is given back by POST /v1/payments/{id}/refund."
                found.add("NOT_ALLOWED", says, "payments", at, "paymentId")
        if change:
            found.add("PAYMENTS_DRIFT", "payments must make the sale's total.", "payments")
    found.refuse()
    return Invoice(
        sales_type=original.sales_type,
        receipt_type=ReceiptType.REFUND,
        till_receipt_no=body.tillReceiptNo,
        cashier=_cashier(body, defaults),
        buyer=original.buyer,
        lines=original.lines,
        payments=payments,
        change=change,
        rates=original.rates,
        remark=body.remark,
        original_invc_no=original_invc_no,
        original_cu_invoice_no=original_cu_invoice_no,
        refund_reason=body.reason,
    )


def _without_change(original: Invoice) -> tuple[Payment, ...]:
    """What the buyer really paid, tender by tender: the change came out of the cash, or is the rest of
    an M-Pesa payment that was too much."""
    change = original.change
    left = [payment.amount for payment in original.payments]
    for cash in (True, False):
        for at, payment in enumerate(original.payments):
            if (payment.code == CASH) is cash:
                given_back = min(change, left[at])
                change -= given_back
                left[at] -= given_back
    kept = [
        Payment(payment.code, amount, payment.reference)
        for payment, amount in zip(original.payments, left, strict=True)
        if amount
    ]
    return tuple(kept) or original.payments[:1]


def _cashier(body: InvoiceIn | CreditNoteIn, defaults: Defaults) -> Cashier:
    if body.cashier is None:
        return defaults.cashier
    return Cashier(body.cashier.id, body.cashier.name or body.cashier.id)


def _line(
    found: _Findings, line: LineIn, at: int, rates: RateTable, defaults: Defaults
) -> InvoiceLine | None:
    before = len(found.errors)
    quantity = found.number(parse_quantity, line.quantity, "lines", at, "quantity")
    price = found.number(parse_amount, line.unitPrice, "lines", at, "unitPrice")
    packages = Decimal(1)
    if line.packageCount is not None:
        packages = (
            found.number(parse_quantity, line.packageCount, "lines", at, "packageCount") or packages
        )
    discount = None
    if line.discountAmount is not None:
        discount = found.number(parse_amount, line.discountAmount, "lines", at, "discountAmount")
        if line.discountPercent:
            found.add(
                "DISCOUNT_TWICE",
                "Give discountPercent or discountAmount, not both.",
                *("lines", at, "discountAmount"),
            )
    if line.taxCode not in rates or line.taxCode not in LETTERS:
        found.add(
            "TAX_CODE_UNKNOWN",
            f"taxCode must be one of {', '.join(LETTERS)}; see GET /v1/status for today's rates.",
            *("lines", at, "taxCode"),
        )
    if len(found.errors) > before or quantity is None or price is None:
        return None
    try:
        made = make_line(
            seq=at + 1,
            item_code=line.itemCode,
            item_class=line.itemClass or defaults.item_class,
            name=line.name,
            quantity=quantity,
            unit_price=price,
            tax_letter=line.taxCode,
            rates=rates,
            package_unit=line.packageUnit or defaults.package_unit,
            package_count=packages,
            quantity_unit=line.quantityUnit or defaults.quantity_unit,
            discount_percent=Decimal(line.discountPercent or 0),
            discount=discount,
            barcode=line.barcode,
        )
    except ValueError as error:
        found.add("DISCOUNT_TOO_LARGE", f"On this line {error}.", "lines", at, "discountAmount")
        return None
    if line.total is not None:
        total = found.number(parse_amount, line.total, "lines", at, "total")
        if total is not None and total != made.total:
            found.add(
                "LINE_TOTAL_DRIFTS",
                f"total is {text(total)}, quantity x unitPrice less discount is {text(made.total)}.",
                *("lines", at, "total"),
            )
            return None
    return made


def _check_tax(found: _Findings, body: InvoiceIn, lines: list[InvoiceLine]) -> None:
    if body.totalTax is None:
        return
    tax = found.number(parse_amount, body.totalTax, "totalTax")
    summed = sum((line.tax for line in lines), ZERO)
    if tax is not None and tax != summed:
        found.add(
            "TAX_DRIFTS",
            f"totalTax is {text(tax)}, the lines make {text(summed)} (rounded per line, half up).",
            "totalTax",
        )


def _named_payments(found: _Findings, body: InvoiceIn) -> None:
    for at, item in enumerate(body.payments or ()):
        if item.paymentId is None:
            continue
        if item.method != "MOBILE_MONEY" or body.type != "NORMAL":
            says = "paymentId goes with MOBILE_MONEY of a NORMAL sale."
            found.add("NOT_ALLOWED", says, "payments", at, "paymentId")


def _payments(
    found: _Findings, given: list[PaymentIn] | None, total: Decimal, where: str = "payments"
) -> tuple[tuple[Payment, ...], Decimal]:
    if not given:
        return (Payment(CASH, total),), ZERO
    payments = []
    for at, item in enumerate(given):
        amount = found.number(parse_amount, item.amount, where, at, "amount")
        payments.append(
            Payment(PAYMENT_CODES[item.method], amount or ZERO, item.reference, item.paymentId)
        )
    paid = sum((payment.amount for payment in payments), ZERO)
    change = paid - total
    if change < 0:
        found.add("PAYMENTS_SHORT", f"payments make {text(paid)} of {text(total)}.", where)
    elif change > sum((p.amount for p in payments if p.code == CASH), ZERO):
        found.add(
            "PAYMENTS_DRIFT",
            f"payments make {text(paid)} for {text(total)}, and change is only given on cash.",
            where,
        )
    return tuple(payments), max(change, ZERO)
