"""`/v1/payments` and `/v1/checkouts`: ask a customer for money, look at it, decide about it.

A till sees its own payments and those that nobody owns; what moves money or overrules M-Pesa takes a
technician's code.
"""

from __future__ import annotations

import base64
import sqlite3
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel

from gateway import ids
from gateway.api.body import read_json
from gateway.api.build import parse_as
from gateway.api.invoices import idempotency_key
from gateway.api.schemas import (
    AcceptIn,
    ClaimIn,
    CloseIn,
    CodeIn,
    MpesaIn,
    QrIn,
    ReasonIn,
    RefundIn,
    ReversalIn,
    SameIn,
)
from gateway.api.server import Services, services, till_of
from gateway.api.tenders import PHONE_SAYS, shillings, visible
from gateway.clock import EAT, from_micros, micros
from gateway.domain.mpesa_receipt import day_of
from gateway.domain.payment import Act, Tender
from gateway.domain.phone import normal_phone
from gateway.errors import (
    CheckoutUnknown,
    DeviceProblem,
    FieldError,
    InvoiceUnknown,
    PaymentInvalid,
    PaymentSettled,
    QueryInvalid,
)
from gateway.money import from_cents, text
from gateway.mpesa.client import REFERENCE_MAX, clean
from gateway.payments.checkout import OUTCOMES
from gateway.payments.checkout_view import checkout_json
from gateway.payments.desk import Ask
from gateway.payments.view import payment_json
from gateway.store import checkouts, payments
from gateway.store.checkouts import CheckoutRow, CheckoutState
from gateway.store.payments import PaymentRow

M = TypeVar("M", bound=BaseModel)
NOTHING_ASKED = "The payment request has mistakes. Nobody was asked for money."


def register(app: web.Application) -> None:
    router = app.router
    router.add_post("/v1/payments/mpesa", post_mpesa)
    router.add_post("/v1/payments/qr", post_qr)
    router.add_get("/v1/payments", get_payments)
    router.add_get("/v1/payments/lists", get_lists)
    router.add_get("/v1/payments/{id}", get_payment)
    router.add_post("/v1/payments/{id}/check", post_check)
    router.add_post("/v1/payments/{id}/code", post_code)
    router.add_post("/v1/payments/{id}/close", post_close)
    router.add_post("/v1/payments/{id}/claim", post_claim)
    router.add_post("/v1/payments/{id}/accept", post_accept)
    router.add_post("/v1/payments/{id}/not-paid", post_not_paid)
    router.add_post("/v1/payments/{id}/refund", post_refund)
    router.add_post("/v1/payments/{id}/same", post_same)
    router.add_post("/v1/payments/{id}/reversal", post_reversal)
    router.add_post("/v1/payments/unpaid-receipts/{id}/close", post_close_unpaid)
    router.add_get("/v1/checkouts/{id}", get_checkout)
    router.add_post("/v1/checkouts/{id}/close", post_close_checkout)
    router.add_post("/v1/checkouts/{id}/sign", post_sign_checkout)


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks. `till_id` None: a technician, who sees all."""

    name: str
    till_id: str | None


def who_asks(request: web.Request) -> Who:
    """A technician's code or a till's token. UnknownTill otherwise."""
    name = services(request).technicians.name_of(request)
    if name is not None:
        return Who(name, None)
    till = till_of(request)
    return Who(till.id, till.id)


async def _body(request: web.Request, model: type[M]) -> M:
    _, value = await read_json(request)
    return parse_as(model, value, PaymentInvalid, NOTHING_ASKED)


def _view(parts: Services, row: PaymentRow, status: int = 200, **more: Any) -> web.Response:
    view = payment_json(row, micros(parts.clock.now()))
    return web.json_response({**view, **more}, status=status)


# --- asking ---------------------------------------------------------------------------------------


async def post_mpesa(request: web.Request) -> web.Response:
    """One prompt on one phone, once per key. 202: the intent is durable; how it goes on comes as events."""
    parts, till = services(request), till_of(request)
    key = idempotency_key(request, required=True)
    assert key is not None
    _, value = await read_json(request)
    body = parse_as(MpesaIn, value, PaymentInvalid, NOTHING_ASKED)
    wrong: list[FieldError] = []
    amount = shillings(body.amount, parts.mpesa.amount_max, wrong, "amount")
    phone = normal_phone(body.phone)
    if phone is None:
        wrong.append(FieldError("/phone", "PHONE_INVALID", PHONE_SAYS))
    if wrong or amount is None or phone is None:
        raise PaymentInvalid(NOTHING_ASKED, errors=wrong)
    row = await parts.payments.ask(
        Ask(till.id, key, ids.digest(value), body.saleRef, amount, phone)
    )
    return _view(parts, row, 202)


async def post_qr(request: web.Request) -> web.Response:
    """M-Pesa's own QR for this amount; who scans it pays the till directly."""
    parts, till = services(request), till_of(request)
    body = await _body(request, QrIn)
    wrong: list[FieldError] = []
    amount = shillings(body.amount, parts.mpesa.amount_max, wrong, "amount")
    if amount is None:
        raise PaymentInvalid(NOTHING_ASKED, errors=wrong)
    parts.mpesa.need_on()
    made = await parts.mpesa.qr(amount, body.reference, body.size)
    if isinstance(made, str):
        raise DeviceProblem(f"M-Pesa made no QR code: {made}")
    # Durable before anybody can scan it: a payment that names it is this sale's.
    references = {body.reference, clean(body.reference, REFERENCE_MAX, "SALE")}
    sale_ref = body.saleRef or body.reference.strip()
    await parts.db.write(
        lambda conn: parts.payments.note_qr(conn, references, till.id, sale_ref, amount)
    )
    png = base64.b64encode(made).decode()
    return web.json_response(
        {"png": png, "amount": text(from_cents(amount)), "reference": body.reference}
    )


# --- looking --------------------------------------------------------------------------------------


async def get_payments(request: web.Request) -> web.Response:
    """`?saleRef=`: of one sale of this till; `?open=1`: what is still open, and money nobody owns."""
    parts, till = services(request), till_of(request)
    sale_ref, open_only = request.query.get("saleRef"), request.query.get("open") == "1"
    if sale_ref is None and not open_only:
        raise QueryInvalid(
            "Say which payments: saleRef=..., or open=1.",
            errors=[FieldError("/saleRef", "MISSING", "saleRef or open=1 is required.")],
        )
    if sale_ref is not None:
        rows = await parts.db.read(lambda conn: payments.of_sale(conn, till.id, sale_ref))
    else:
        rows = await parts.db.read(lambda conn: payments.loose_of_till(conn, till.id))
    if open_only:
        rows = [row for row in rows if row.tender in (Tender.OPEN, Tender.REVIEW)]
    now = micros(parts.clock.now())
    return web.json_response({"payments": [payment_json(row, now) for row in rows]})


async def get_payment(request: web.Request) -> web.Response:
    parts = services(request)
    row = await visible(parts, request.match_info["id"], who_asks(request).till_id)
    return _view(parts, row)


async def get_lists(request: web.Request) -> web.Response:
    """Where money and receipts do not agree: each line closes by itself or waits for a person."""
    parts, who = services(request), who_asks(request)
    now = micros(parts.clock.now())

    def mine(till_id: str | None) -> bool:
        return who.till_id is None or till_id in (None, who.till_id)

    def collect(conn: sqlite3.Connection) -> dict[str, Any]:
        lists = parts.payments.lists(conn)
        found: dict[str, list[dict[str, Any]]] = {
            name: [line for line in lines if mine(line.get("till"))]
            for name, lines in lists.items()
        }
        if who.till_id is not None:
            found.pop("refunds", None)
        found["unsigned"] = [
            checkout_json(conn, row, now)
            for row in checkouts.all_open(conn)
            if row.state is CheckoutState.READY and mine(row.till_id)
        ]
        unpaid = [unpaid_json(one) for one in checkouts.unpaid(conn) if mine(one.till_id)]
        found["receiptWithoutMoney"] = [*unpaid, *found.get("receiptWithoutMoney", [])]
        return found

    return web.json_response(await parts.db.read(collect))


def unpaid_json(one: checkouts.UnpaidTender) -> dict[str, Any]:
    return {
        "invoiceId": one.invoice_id,
        "position": one.position,
        "till": one.till_id,
        "tillReceiptNo": one.sale_ref,
        "amount": text(from_cents(one.amount_cents)),
        "reference": one.reference,
        "at": from_micros(one.at).astimezone(EAT).isoformat(timespec="seconds"),
    }


async def post_check(request: web.Request) -> web.Response:
    """Ask M-Pesa now, as far as its limits let."""
    parts = services(request)
    row = await visible(parts, request.match_info["id"], who_asks(request).till_id)
    return _view(parts, await parts.payments.check(row.id))


# --- deciding -------------------------------------------------------------------------------------


async def post_code(request: web.Request) -> web.Response:
    """The code on the customer's SMS. A cashier's word alone is no evidence: it counts when the money
    under it is known, or M-Pesa says so; a technician's counts."""
    parts, who = services(request), who_asks(request)
    row = await visible(parts, request.match_info["id"], who.till_id)
    body = await _body(request, CodeIn)
    receipt = body.receipt.strip().upper().replace(" ", "")
    row = await parts.payments.code(row.id, receipt, who.name, vouched=who.till_id is None)
    warnings = []
    today = parts.clock.now().astimezone(EAT).date()
    day = day_of(receipt)
    if day != today:
        when = f"of {day:%d/%m/%Y}" if day else "of no day that can be read"
        warnings.append(f"This code is {when}. Look at the date on the customer's SMS.")
    return _view(parts, row, warnings=warnings)


async def post_close(request: web.Request) -> web.Response:
    """The sale goes on without this payment. Late money is then given back."""
    parts, who = services(request), who_asks(request)
    row = await visible(parts, request.match_info["id"], who.till_id)
    body = await _body(request, CloseIn)
    await parts.payments.act(row.id, OUTCOMES[body.outcome], who.name, body.reason or "")
    return _view(parts, await visible(parts, row.id, None))


async def post_claim(request: web.Request) -> web.Response:
    """Money that a customer sent by himself is for this sale of this till."""
    parts, till = services(request), till_of(request)
    row = await visible(parts, request.match_info["id"], till.id)
    body = await _body(request, ClaimIn)
    await parts.payments.claim(row.id, till.id, body.saleRef, till.id)
    return _view(parts, await visible(parts, row.id, None))


async def _technician(request: web.Request) -> tuple[Services, str, PaymentRow]:
    parts = services(request)
    name = parts.technicians.authenticate(request)
    return parts, name, await visible(parts, request.match_info["id"], None)


async def post_accept(request: web.Request) -> web.Response:
    """Another amount came, and a person takes it for this sale: the difference was settled in cash."""
    parts, name, row = await _technician(request)
    body = await _body(request, AcceptIn)
    reason = f"the difference in cash; {body.reason}"
    await parts.payments.act(row.id, Act.AMOUNT_ACCEPTED, name, reason)
    return _view(parts, await visible(parts, row.id, None))


async def post_not_paid(request: web.Request) -> web.Response:
    """A person has looked: there is no money. M-Pesa's own word still goes before it."""
    parts, name, row = await _technician(request)
    body = await _body(request, ReasonIn)
    await parts.payments.not_paid(row.id, name, body.reason)
    return _view(parts, await visible(parts, row.id, None))


async def post_refund(request: web.Request) -> web.Response:
    """The money goes back: through M-Pesa, or it went by hand already."""
    parts, name, row = await _technician(request)
    body = await _body(request, RefundIn)
    await parts.payments.refund(row.id, name, body.reason, body.byHand)
    return _view(parts, await visible(parts, row.id, None), 202)


async def post_same(request: web.Request) -> web.Response:
    """A person has looked: two payments are one money, or two."""
    parts, name, row = await _technician(request)
    body = await _body(request, SameIn)
    decided = await parts.payments.same_money(
        row.id, body.otherPaymentId, name, body.reason, same=body.same
    )
    return _view(parts, decided)


async def post_reversal(request: web.Request) -> web.Response:
    """M-Pesa reports that the customer's payment was taken back; a person has looked at its statement."""
    parts, name, row = await _technician(request)
    body = await _body(request, ReversalIn)
    decided = await parts.payments.reversal(row.id, name, body.reason, went_back=body.wentBack)
    return _view(parts, decided)


async def post_close_unpaid(request: web.Request) -> web.Response:
    """A person has found out about MOBILE_MONEY on a receipt that no payment is known for. {id}: the
    invoice's; all such tenders of it."""
    parts = services(request)
    name = parts.technicians.authenticate(request)
    body = await _body(request, ReasonIn)
    invoice_id = request.match_info["id"]
    closed = await close_unpaid(parts, invoice_id, name, body.reason)
    return web.json_response({"invoiceId": invoice_id, "closed": closed})


async def close_unpaid(parts: Services, invoice_id: str, name: str, reason: str) -> int:
    """How many tenders were closed; also what the page's form is turned into. InvoiceUnknown."""
    at = micros(parts.clock.now())

    def close(conn: Any) -> int:
        found = checkouts.unpaid_of(conn, invoice_id)
        if not found:
            raise InvoiceUnknown("No receipt with this id has waited for M-Pesa money.")
        return sum(
            checkouts.close_unpaid(conn, one, who=name, reason=reason, at=at) for one in found
        )

    return await parts.db.write(close)


# --- checkouts ------------------------------------------------------------------------------------


async def _checkout(request: web.Request, who: Who) -> CheckoutRow:
    checkout_id = request.match_info["id"]
    row = None
    if ids.is_id(checkout_id):
        row = await services(request).db.read(lambda conn: checkouts.by_id(conn, checkout_id))
    if row is None or who.till_id not in (None, row.till_id):
        raise CheckoutUnknown("There is no checkout with this id.")
    return row


async def _checkout_view(request: web.Request, who: Who, status: int = 200) -> web.Response:
    parts = services(request)
    row = await _checkout(request, who)
    now = micros(parts.clock.now())
    view = await parts.db.read(lambda conn: checkout_json(conn, row, now))
    return web.json_response(view, status=status)


async def get_checkout(request: web.Request) -> web.Response:
    return await _checkout_view(request, who_asks(request))


async def post_close_checkout(request: web.Request) -> web.Response:
    """The sale is paid otherwise, or the customer left. 409 once it is being signed."""
    parts, who = services(request), who_asks(request)
    row = await _checkout(request, who)
    body = await _body(request, CloseIn)
    await parts.mpesa.checkouts.close(
        row.id, OUTCOMES[body.outcome], who.name, body.reason or "", person=who.till_id is None
    )
    return await _checkout_view(request, who)


async def post_sign_checkout(request: web.Request) -> web.Response:
    """ "Money came, no receipt": sign it now."""
    parts, who = services(request), who_asks(request)
    row = await _checkout(request, who)
    if row.state is not CheckoutState.READY:
        raise PaymentSettled(
            "This sale is not waiting for its signature.", extra={"checkoutId": row.id}
        )
    await parts.mpesa.checkouts.sign_now(row.id)
    return await _checkout_view(request, who, 202)
