"""What a technician decides: `/v1/invoices/{id}/decision` and `/v1/unit/numbering`.

The same two decisions are forms on the pages; both end in `fiscal/decision.py` and `fiscal/ahead.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.api.body import read_json
from gateway.api.decision_fields import (
    NOT_NUMBERED,
    checked,
    invalid,
    read_receipt,
    read_statement,
)
from gateway.api.invoices import find
from gateway.api.schemas import NumberingIn
from gateway.api.server import Services, services
from gateway.clock import from_micros, iso, micros
from gateway.domain.signing import SigningState
from gateway.errors import DecisionInvalid, FieldError
from gateway.fiscal import ahead
from gateway.money import from_cents, text
from gateway.store import events, outbox, unclear_keys
from gateway.store.invoices import InvoiceRow

CHOICES = ["SIGNED", "NOT_SIGNED", "OTHER_SALE_THERE"]


def register(app: web.Application) -> None:
    app.router.add_get("/v1/invoices/{id}/decision", get_decision)
    app.router.add_post("/v1/invoices/{id}/decision", post_decision)
    app.router.add_get("/v1/unit/numbering", get_numbering)
    app.router.add_post("/v1/unit/numbering", post_numbering)
    app.router.add_post("/v1/unit/rates/seen", post_rates_seen)
    app.router.add_get("/v1/outbox/parked", get_parked)
    app.router.add_post("/v1/outbox/retry", post_retry)


async def get_decision(request: web.Request) -> web.Response:
    """Return the sale, what is known of it, the choices, and why "not signed" must wait."""
    parts = services(request)
    parts.technicians.authenticate(request)
    return web.json_response(await _case(parts, await find(request)))


async def post_decision(request: web.Request) -> web.Response:
    """Enter the receipt that KRA's portal shows, state that there is none, or that another sale is there."""
    parts = services(request)
    who = parts.technicians.authenticate(request)
    row = await find(request)
    _, value = await read_json(request)
    return web.json_response(await _case(parts, await decide(parts, row.id, who, value)))


async def decide(parts: Services, invoice_id: str, who: str, value: Any) -> InvoiceRow:
    """Store one decision. `value` is the API's body, or a page's form in the same names."""
    choice = value.get("choice") if isinstance(value, Mapping) else None
    if choice == "SIGNED":
        found, readable, wrong = read_receipt(value)
        if found is None:
            raise invalid(wrong + await parts.decisions.compare(invoice_id, readable))
        return await parts.decisions.signed(invoice_id, who, found)
    if choice == "NOT_SIGNED":
        return await parts.decisions.not_signed(invoice_id, who, read_statement(value))
    if choice == "OTHER_SALE_THERE":
        return await parts.decisions.other_sale_there(invoice_id, who, read_statement(value))
    says = f"The choice must be one of {', '.join(CHOICES)}."
    raise invalid([FieldError("/choice", "NOT_ALLOWED", says)])


def check_form(value: Mapping[str, Any]) -> list[FieldError]:
    """Return the mistakes of a decision that can be seen without the store, for a form whose code is wrong."""
    if value.get("choice") == "SIGNED":
        return read_receipt(value)[2]
    try:
        read_statement(value)
    except DecisionInvalid as error:
        return list(error.errors)
    return []


async def _case(parts: Services, row: InvoiceRow) -> dict[str, Any]:
    story = await parts.db.read(lambda conn: events.story(conn, row.id))
    open_ = row.state is SigningState.IN_DOUBT
    waits = parts.decisions.waits_for(row) if open_ else []
    return {
        "invoiceId": row.id,
        "state": row.state,
        "till": row.till_id,
        "tillReceiptNo": row.till_receipt_no,
        "invcNo": row.invc_no,
        "total": text(from_cents(row.total_cents)),
        "receivedAt": iso(from_micros(row.created_at)),
        "known": [
            {"at": iso(from_micros(event.at)), "kind": event.kind, **event.data}
            for event in story
            if event.kind.startswith(("invoice.in_doubt", "doubt."))
        ],
        "choices": CHOICES if open_ else [],
        # Why "not signed" is refused at present.
        "waits": [{"code": each.code, "message": each.message} for each in waits],
        "next": await next_step(parts, row),
    }


async def next_step(parts: Services, row: InvoiceRow) -> str | None:
    """Return what the shop does next about a sale after a decision; None where nothing was decided."""
    if row.state is SigningState.SIGNED:
        return "The sale is signed. The till receives its receipt when it sends the sale again with the same key."
    if row.state is not SigningState.RECEIVED:
        return None

    def look(conn: sqlite3.Connection) -> tuple[bool, bool]:
        quarantined = unclear_keys.is_settled(conn, row.till_id, row.idem_key)
        story = events.story(conn, row.id)
        return quarantined, any(event.kind == "doubt.decided" for event in story)

    quarantined, decided = await parts.db.read(look)
    if quarantined and parts.ahead.hold is not None:
        return (
            "Sales are missing in this gateway's store, and all tills stand still. Decide the numbering on the page "
            "/unit. This sale is never signed under its key: look for its receipt, and ring it up as a new sale "
            "only if there is none."
        )
    if quarantined:
        return (
            "This sale may have a receipt. It is never signed under its key: look for the receipt on paper or on "
            "the portal, and ring it up as a new sale only if there is none."
        )
    if not decided:
        return None
    return (
        f"Till {row.till_id} must send receipt {row.till_receipt_no} again with the same key; it is signed then. "
        "Nothing is signed before that. All tills sell on."
    )


async def get_numbering(request: web.Request) -> web.Response:
    """Return where this store stands, and why signing is held, if it is."""
    parts = services(request)
    parts.technicians.authenticate(request)
    return web.json_response(await numbering(parts))


async def numbering(parts: Services) -> dict[str, Any]:
    """Return what the page and the API show of the numbering."""
    found = await parts.db.read(lambda conn: ahead.as_json(parts.ahead, conn))
    waits = await parts.ahead.waits()
    return {
        **found,
        "silentTills": parts.tills.silent(),
        "waits": [{"code": each.code, "message": each.message} for each in waits],
    }


async def post_numbering(request: web.Request) -> web.Response:
    """The number the next sale shall have, after a look into the unit or the portal."""
    parts = services(request)
    who = parts.technicians.authenticate(request)
    _, value = await read_json(request)
    await settle_numbering(parts, who, value)
    return web.json_response(await numbering(parts))


async def post_rates_seen(request: web.Request) -> web.Response:
    """Confirm that the changes of tax rates were seen; they leave the status."""
    parts = services(request)
    who = parts.technicians.authenticate(request)
    return web.json_response({"changes": await parts.rates_seen(who)})


async def get_parked(request: web.Request) -> web.Response:
    """What the cloud refused, oldest first, each with its reason; at most 500."""
    parts = services(request)
    parts.technicians.authenticate(request)
    rows = await parts.db.read(outbox.parked)
    return web.json_response(
        {"parked": [{"seq": r[0], "invoiceId": r[1], "kind": r[2], "reason": r[3]} for r in rows]}
    )


async def post_retry(request: web.Request) -> web.Response:
    """Send what the cloud refused once more, after the cause is mended there."""
    parts = services(request)
    who = parts.technicians.authenticate(request)
    at = micros(parts.clock.now())

    def retry(conn: sqlite3.Connection) -> int:
        count = outbox.retry_parked(conn)
        events.record(conn, at=at, kind="outbox.retried", data={"who": who, "records": count})
        return count

    count = await parts.db.write(retry)
    parts.wake()
    return web.json_response({"records": count}, status=202)


async def settle_numbering(parts: Services, who: str, value: Any) -> None:
    """Store the numbering decision. `value` is the API's body, or a page's form in the same names."""
    said, wrong = checked(NumberingIn, value)
    if said is None:
        raise invalid(wrong, NOT_NUMBERED)
    await parts.ahead.settle_by_person(
        said.nextInvcNo,
        who,
        said.reason,
        silent=parts.tills.silent(),
        confirmed=said.silentTills,
    )
    await parts.decisions.resume()
