"""A sale whose money is asked for by the gateway: `tenders` in `POST /v1/invoices`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from aiohttp import web

from gateway import ids
from gateway.api.build import Defaults, build_invoice
from gateway.api.schemas import InvoiceIn, PaymentIn, TenderIn, pointer
from gateway.api.server import Services
from gateway.domain.invoice import Invoice
from gateway.domain.payment import Act, Money, Tender
from gateway.domain.phone import normal_phone
from gateway.domain.tax import RateTable
from gateway.errors import FieldError, KeyInvalid, PaymentSettled, PaymentUnknown
from gateway.money import ZERO, cents, from_cents, parse_amount, text
from gateway.payments.checkout_moves import PaidSale
from gateway.payments.checkout_view import real
from gateway.payments.view import payment_json
from gateway.store import payments
from gateway.store.checkouts import NewPart
from gateway.store.invoices import InvoiceRow
from gateway.store.payments import PaymentRow

MPESA = "MPESA"
# "The customer pays otherwise, whatever becomes of this M-Pesa request."
SETTLE_HEADER = "Settle-Otherwise"


@dataclass(frozen=True, slots=True)
class Built:
    """A valid sale with what of it comes by M-Pesa."""

    invoice: Invoice
    parts: tuple[NewPart, ...]


async def sell(
    parts: Services,
    till_id: str,
    key: str,
    body: InvoiceIn,
    sale: tuple[bytes, str, str | None, str | None],
) -> InvoiceRow:
    """Ask for the money and sign. `sale`: the body as it came, its digest, the printer,
    and the earlier sale that this one is said not to repeat. PaymentWaiting,
    PaymentFailed, or what is wrong with it; then nobody was asked for money."""
    raw, digest, printer, confirms = sale
    amounts = await _amounts(parts, till_id, body)
    built = build(body, parts.rates(), parts.defaults, amounts, parts.mpesa.amount_max)
    if any(part.phone is not None for part in built.parts):
        parts.mpesa.need_on()
    return await parts.mpesa.checkouts.sell(
        PaidSale(till_id, key, digest, raw, built.invoice, printer, built.parts, confirms)
    )


async def _amounts(parts: Services, till_id: str, body: InvoiceIn) -> Mapping[str, int]:
    """What a sale can count on of each payment named that this till may see: what was asked for, or what
    came where that is less; cents."""
    named = [tender.paymentId for tender in body.tenders or () if tender.paymentId]
    if not named:
        return {}
    rows = await parts.db.read(
        lambda conn: [(payments.by_id(conn, name), real(conn, name)) for name in named]
    )
    # A request of this till whose money another till's sale has used is refused with its reason later.
    return {
        name: min(row.amount_cents, row.state.came_cents)
        for name, (asked, row) in zip(named, rows, strict=True)
        if row is not None and asked is not None
        if {asked.till_id, row.till_id} & {None, till_id}
    }


def build(
    body: InvoiceIn,
    rates: RateTable,
    defaults: Defaults,
    amounts: Mapping[str, int],
    amount_max: int,
) -> Built:
    """InvoiceInvalid with every field's pointer otherwise."""
    assert body.tenders is not None
    wrong: list[FieldError] = []
    if body.payments is not None:
        wrong.append(
            _wrong("Give payments or tenders, not both.", "TENDERS_AND_PAYMENTS", "payments")
        )
    if body.type != "NORMAL":
        wrong.append(_wrong("Money is asked for a NORMAL sale only.", "NOT_ALLOWED", "type"))
    if not any(tender.method == MPESA for tender in body.tenders):
        wrong.append(
            _wrong("Without an MPESA tender, send payments.", "NO_MPESA_TENDER", "tenders")
        )
    given, found = [], []
    for at, tender in enumerate(body.tenders):
        amount, part = _tender(tender, at, amounts, amount_max, wrong)
        given.append(
            PaymentIn(
                method="MOBILE_MONEY" if tender.method == "MPESA" else tender.method,
                amount=amount,
                reference=tender.reference,
            )
        )
        if part is not None:
            found.append((at, part))
    phones = [part.phone for _, part in found if part.phone is not None]
    if len(set(phones)) != len(phones):
        wrong.append(_wrong("Two parts ask the same phone.", "PHONE_TWICE", "tenders"))
    plain = body.model_copy(update={"payments": None if wrong else given, "tenders": None})
    invoice = build_invoice(plain, rates, defaults, wrong=wrong, where="tenders")
    tenders = list(invoice.payments)
    for number, (at, _) in enumerate(found):
        # The payment itself is named when the sale is signed.
        tenders[at] = replace(tenders[at], payment_id=f"part {number}")
    return Built(replace(invoice, payments=tuple(tenders)), tuple(part for _, part in found))


def _tender(
    tender: TenderIn,
    at: int,
    amounts: Mapping[str, int],
    amount_max: int,
    wrong: list[FieldError],
) -> tuple[str, NewPart | None]:
    """The amount as text, and the part of a checkout; ("0", None) once something is wrong."""
    if tender.method != MPESA:
        for name in ("phone", "paymentId"):
            if getattr(tender, name) is not None:
                wrong.append(_wrong(f"{name} goes with MPESA.", "NOT_ALLOWED", "tenders", at, name))
        if tender.amount is None:
            wrong.append(_wrong("amount is required.", "MISSING", "tenders", at, "amount"))
        return tender.amount or "0", None
    if tender.reference is not None:
        wrong.append(
            _wrong("The reference comes from M-Pesa.", "NOT_ALLOWED", "tenders", at, "reference")
        )
    if (tender.phone is None) == (tender.paymentId is None):
        says = "MPESA takes phone and amount, or the paymentId of what is paid already."
        wrong.append(_wrong(says, "MISSING", "tenders", at, "phone"))
        return tender.amount or "0", None
    if tender.paymentId is not None:
        return _named(tender, at, amounts, wrong)
    assert tender.phone is not None
    phone = normal_phone(tender.phone)
    if phone is None:
        wrong.append(_wrong(PHONE_SAYS, "PHONE_INVALID", "tenders", at, "phone"))
    amount = shillings(tender.amount, amount_max, wrong, "tenders", at, "amount")
    if phone is None or amount is None:
        return tender.amount or "0", None
    return tender.amount or "0", NewPart(amount, phone=phone)


PHONE_SAYS = "phone must be a Safaricom number: 07.., 01.. or 2547.., 2541..."


def _named(
    tender: TenderIn, at: int, amounts: Mapping[str, int], wrong: list[FieldError]
) -> tuple[str, NewPart | None]:
    assert tender.paymentId is not None
    asked = amounts.get(tender.paymentId)
    if asked is None:
        says = "There is no such payment of this till."
        wrong.append(_wrong(says, "PAYMENT_UNKNOWN", "tenders", at, "paymentId"))
        return tender.amount or "0", None
    if tender.amount is None:
        return text(from_cents(asked)), NewPart(asked, payment_id=tender.paymentId)
    try:
        amount = cents(parse_amount(tender.amount))
    except ValueError as error:
        wrong.append(_wrong(f"amount {error}.", "AMOUNT_INVALID", "tenders", at, "amount"))
        return "0", None
    if amount <= 0:
        wrong.append(
            _wrong("amount must be more than 0.", "AMOUNT_INVALID", "tenders", at, "amount")
        )
        return "0", None
    return tender.amount, NewPart(amount, payment_id=tender.paymentId)


def shillings(
    raw: str | None, amount_max: int, wrong: list[FieldError], *path: str | int
) -> int | None:
    """An amount that M-Pesa can be asked for, in cents; None with the reason in `wrong`."""
    if raw is None:
        wrong.append(_wrong("amount is required.", "MISSING", *path))
        return None
    try:
        value = parse_amount(raw)
    except ValueError as error:
        wrong.append(_wrong(f"amount {error}.", "AMOUNT_INVALID", *path))
        return None
    if value != value.to_integral_value():
        says = "amount must be whole shillings: M-Pesa takes no cents."
        wrong.append(_wrong(says, "WHOLE_SHILLINGS", *path))
        return None
    if not ZERO < value <= amount_max:
        says = f"amount must be from 1 to {amount_max} shillings."
        wrong.append(_wrong(says, "OUT_OF_RANGE", *path))
        return None
    return cents(value)


def _wrong(says: str, code: str, *path: str | int) -> FieldError:
    return FieldError(pointer(*path), code, says)


async def visible(parts: Services, payment_id: str, till_id: str | None) -> PaymentRow:
    """The payment, for a till that it belongs to or that nobody's it is, or for a technician (None).
    PaymentUnknown for everything else, which says the same of another till's and of none."""
    row = None
    if ids.is_id(payment_id):
        row = await parts.db.read(lambda conn: payments.by_id(conn, payment_id))
    if row is None or (till_id is not None and row.till_id not in (None, till_id)):
        raise PaymentUnknown("There is no payment with this id.")
    return row


async def settle_otherwise(request: web.Request, parts: Services, till_id: str) -> None:
    """The header of a plain sale: this M-Pesa request is not waited for any more, and the story says so.
    PaymentSettled when its money has just come."""
    named = request.headers.get(SETTLE_HEADER)
    if named is None:
        return
    if not ids.is_id(named):
        raise KeyInvalid(
            f"{SETTLE_HEADER} must be the paymentId of the M-Pesa request.",
            errors=[FieldError(f"/{SETTLE_HEADER}", "KEY_INVALID", "Not a payment's id.")],
        )
    row = await visible(parts, named, till_id)
    if row.money is Money.PAID and row.tender in (Tender.OPEN, Tender.REVIEW):
        raise PaymentSettled(
            "M-Pesa has just confirmed this payment. Give the other money back and use it, or close it "
            "as paid otherwise, and it is given back. Nothing was signed.",
            extra={"signed": "no", "payment": payment_json(row)},
        )
    if row.tender is Tender.OPEN:
        await parts.payments.act(row.id, Act.SALE_WITHOUT_IT, till_id, "settled otherwise")
