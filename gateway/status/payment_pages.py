"""`/payments`: what is open with M-Pesa and where money and receipts do not meet; `/payments/{id}`: the story
of one payment and what a person can do about it."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from gateway.api.server import Services, services
from gateway.clock import EAT
from gateway.domain.payment import Act
from gateway.errors import (
    FieldError,
    GatewayError,
    PaymentInvalid,
    PaymentUnknown,
    RequestError,
    UnknownTechnician,
)
from gateway.status import payment_views as views
from gateway.status.html import form, page, person
from gateway.store import payment_days, payments

# What only a technician or a manager may say: money is given up or given back on his word.
DECISIONS = (
    "accept", "not-paid", "reversal", "by-hand", "went-back", "did-not", "details", "same", "two",
    "taken-back", "not-taken-back",
)  # fmt: skip


def register(app: web.Application) -> None:
    app.router.add_get("/payments", get_payments)
    app.router.add_get("/payments/fragment", get_fragment)
    app.router.add_get("/payments/unmatched", get_unmatched)
    app.router.add_post("/payments/unmatched", post_unmatched)
    app.router.add_get("/payments/{id}", get_payment)
    app.router.add_get("/payments/{id}/fragment", get_payment_fragment)
    app.router.add_post("/payments/{id}", post_payment)


# --- all of them ----------------------------------------------------------------------------------------


async def get_payments(request: web.Request) -> web.Response:
    """The whole page; open to the LAN, so with masked phones and without names."""
    return page("payments.html", **await _payments(services(request)))


async def get_fragment(request: web.Request) -> web.Response:
    """Its changing part."""
    return page("payments_fragment.html", **await _payments(services(request)))


async def _payments(parts: Services) -> dict[str, Any]:
    now = parts.clock.now()
    return {
        "s": await parts.status(),
        "now": f"{now.astimezone(EAT):%H:%M:%S}",
        **await parts.db.read(lambda conn: views.lists(conn, now)),
    }


async def get_unmatched(request: web.Request) -> web.Response:
    """How many messages belong to nothing. What stands in them is a customer's, so it takes a code."""
    return await _unmatched(services(request), open_=False)


async def post_unmatched(request: web.Request) -> web.Response:
    parts = services(request)
    code, _ = await form(request)
    try:
        parts.technicians.check(code)
    except RequestError as error:
        return await _unmatched(parts, open_=False, problem=error)
    return await _unmatched(parts, open_=True)


async def _unmatched(
    parts: Services, *, open_: bool, problem: RequestError | None = None
) -> web.Response:
    count = await parts.db.read(payment_days.unmatched_count)
    rows = await parts.db.read(lambda conn: payment_days.unmatched(conn, views.ROWS_MAX))
    return page(
        "payments_unmatched.html",
        problem=problem,
        count=count,
        messages=[views.message(*row) for row in rows] if open_ else None,
    )


# --- one payment ----------------------------------------------------------------------------------------


async def get_payment(request: web.Request) -> web.Response:
    """What it is, every word about it, and the forms of what can be done."""
    return await _payment(request)


async def get_payment_fragment(request: web.Request) -> web.Response:
    """Its changing part: no form, so that nothing a person types is lost."""
    return page("payment_fragment.html", **await _story(request, details=False))


async def post_payment(request: web.Request) -> web.Response:
    """One of the forms. A mistake comes back on the page, with what is wrong."""
    parts, payment_id = services(request), request.match_info["id"]
    code, value = await form(request)
    doing = value.get("do", "")
    try:
        who = parts.technicians.check(code) if doing in DECISIONS else person(parts, code)
        await _is_theirs(parts, payment_id, parts.tills.name_of(code), doing)
        if doing == "details":
            return await _payment(request, details=True)
        await _do(parts, payment_id, doing, value, who)
    except GatewayError as error:
        if isinstance(error, PaymentUnknown):
            raise
        return await _payment(request, error, doing)
    raise web.HTTPSeeOther(f"/payments/{payment_id}")


async def _is_theirs(parts: Services, payment_id: str, till: str | None, doing: str) -> None:
    """PaymentUnknown for what is not there; UnknownTechnician for a till at another till's payment."""
    row = await parts.db.read(lambda conn: payments.by_id(conn, payment_id))
    if row is None:
        raise PaymentUnknown("There is no payment with this id.")
    # A look at M-Pesa is nobody's secret; anything else is the till's own or a technician's.
    if till is not None and doing != "check" and row.till_id not in (None, till):
        raise UnknownTechnician(
            f"This payment is {row.till_id}'s. Use its token or a technician's code."
        )


async def _do(
    parts: Services, payment_id: str, doing: str, value: dict[str, Any], who: str
) -> None:
    desk = parts.payments
    reason = str(value.get("reason", ""))
    match doing:
        case "check":
            await desk.check(payment_id)
        case "code":
            receipt = str(value.get("receipt", "")).replace(" ", "").upper()
            # A cashier's word alone is no evidence; a technician's is.
            vouched = parts.tills.known(who) is None
            await desk.code(payment_id, receipt, who, vouched=vouched)
        case "sign":
            await parts.mpesa.checkouts.sign_now(str(value.get("checkout", "")))
        case "other":
            await desk.act(payment_id, Act.SALE_WITHOUT_IT, who, "paid otherwise")
        case "abandoned":
            await desk.act(payment_id, Act.GIVEN_UP, who, "the sale was given up")
        case "claim":
            till = str(value.get("till", ""))
            if parts.tills.known(till) is None:
                raise _invalid("/till", "There is no till with this name.")
            await desk.claim(payment_id, till, str(value.get("saleRef", "")), who)
        case "accept":
            # The button says it.
            reason = f"the difference in cash; {needed(reason)}"
            await desk.act(payment_id, Act.AMOUNT_ACCEPTED, who, reason)
        case "not-paid":
            await desk.not_paid(payment_id, who, needed(reason))
        case "reversal" | "by-hand":
            await desk.refund(payment_id, who, needed(reason), by_hand=doing == "by-hand")
        case "went-back" | "did-not":
            done = doing == "went-back"
            await desk.settle_refund(str(value.get("refund", "")), done, who, needed(reason))
        case "same" | "two":
            other = str(value.get("other", ""))
            await desk.same_money(payment_id, other, who, needed(reason), same=doing == "same")
        case "taken-back" | "not-taken-back":
            gone = doing == "taken-back"
            await desk.reversal(payment_id, who, needed(reason), went_back=gone)
        case _:
            raise _invalid("/do", "Say what is to be done.")


def needed(reason: str) -> str:
    """A person's reason; PaymentInvalid for none."""
    if len(reason) < 5:
        raise _invalid("/reason", "Say why, in a few words; it stays in the story.")
    return reason


def _invalid(pointer: str, says: str) -> PaymentInvalid:
    return PaymentInvalid(says, errors=[FieldError(pointer, "INVALID", says)])


async def _payment(
    request: web.Request,
    problem: GatewayError | None = None,
    doing: str = "",
    *,
    details: bool = False,
) -> web.Response:
    return page(
        "payment.html",
        problem=problem,
        doing=doing,
        **await _story(request, details=details),
    )


async def _story(request: web.Request, *, details: bool) -> dict[str, Any]:
    """PaymentUnknown for what is not there."""
    parts, payment_id = services(request), request.match_info["id"]
    now = parts.clock.now()

    def read(conn: Any) -> dict[str, Any] | None:
        row = payments.by_id(conn, payment_id)
        return None if row is None else views.story(conn, row, now, details=details)

    found = await parts.db.read(read)
    if found is None:
        raise PaymentUnknown("There is no payment with this id.")
    return {"now": f"{now.astimezone(EAT):%H:%M:%S}", **found}
