"""What a technician decides: `/v1/invoices/{id}/decision` and `/v1/unit/numbering`.

The same two decisions are forms on the pages; both end in `fiscal/decision.py` and `fiscal/ahead.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from gateway.api.body import read_json
from gateway.api.build import parse_model
from gateway.api.invoices import find
from gateway.api.schemas import NotSignedIn, NumberingIn, SignedIn
from gateway.api.server import Services, services
from gateway.clock import EAT, from_micros, iso, micros
from gateway.domain.signing import SigningState
from gateway.errors import DecisionInvalid, FieldError
from gateway.fiscal import ahead
from gateway.fiscal.decision import PortalReceipt
from gateway.money import from_cents, parse_amount, text
from gateway.store import events, outbox
from gateway.store.invoices import InvoiceRow


def register(app: web.Application) -> None:
    app.router.add_get("/v1/invoices/{id}/decision", get_decision)
    app.router.add_post("/v1/invoices/{id}/decision", post_decision)
    app.router.add_get("/v1/unit/numbering", get_numbering)
    app.router.add_post("/v1/unit/numbering", post_numbering)
    app.router.add_post("/v1/unit/rates/seen", post_rates_seen)
    app.router.add_get("/v1/outbox/parked", get_parked)
    app.router.add_post("/v1/outbox/retry", post_retry)


async def get_decision(request: web.Request) -> web.Response:
    """The sale, what is known of it, and the choices."""
    parts = services(request)
    parts.technicians.authenticate(request)
    return web.json_response(await _case(parts, await find(request)))


async def post_decision(request: web.Request) -> web.Response:
    """Enter the receipt KRA's portal shows, or declare that there is none."""
    parts = services(request)
    who = parts.technicians.authenticate(request)
    row = await find(request)
    _, value = await read_json(request)
    return web.json_response(await _case(parts, await decide(parts, row.id, who, value)))


async def decide(parts: Services, invoice_id: str, who: str, value: Any) -> InvoiceRow:
    """`value` as of the API's body; also what the page's form is turned into."""
    choice = value.get("choice") if isinstance(value, Mapping) else None
    if choice == "NOT_SIGNED":
        said = parse_model(NotSignedIn, value)
        return await parts.decisions.not_signed(invoice_id, who, said.reason)
    if choice != "SIGNED":
        raise DecisionInvalid(
            "Say whether the sale was signed.",
            errors=[FieldError("/choice", "NOT_ALLOWED", "choice must be SIGNED or NOT_SIGNED.")],
        )
    seen = parse_model(SignedIn, value)
    return await parts.decisions.signed(invoice_id, who, _receipt(seen))


def _receipt(seen: SignedIn) -> PortalReceipt:
    wrong = []
    when = None
    try:
        when = datetime.fromisoformat(seen.scuTime)
        # Without an offset it is what the portal shows: Nairobi time.
        when = when.replace(tzinfo=EAT) if when.tzinfo is None else when.astimezone(EAT)
        if not 2000 <= when.year < 2200:
            raise ValueError("not of this age")
    except (ValueError, OverflowError):
        when = None
        wrong.append(
            FieldError("/scuTime", "NOT_A_TIME", "scuTime must look like 2026-11-23T10:42:00.")
        )
    total = None
    try:
        total = parse_amount(seen.total)
    except ValueError as error:
        wrong.append(FieldError("/total", "AMOUNT_INVALID", f"total {error}."))
    if when is None or total is None:
        raise DecisionInvalid("The receipt has mistakes.", errors=wrong)
    return PortalReceipt(
        rcpt_no=seen.rcptNo,
        tot_rcpt_no=seen.totRcptNo,
        rcpt_sign=seen.rcptSign.replace("-", "").upper(),
        intrl_data=(seen.intrlData or "").replace("-", "").upper(),
        scu_time=when,
        total=total,
        sdc_id=seen.sdcId,
        despite_time=seen.despiteTime,
    )


async def _case(parts: Services, row: InvoiceRow) -> dict[str, Any]:
    told = await parts.db.read(lambda conn: events.story(conn, row.id))
    open_ = row.state is SigningState.IN_DOUBT
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
            for event in told
            if event.kind.startswith(("invoice.in_doubt", "doubt."))
        ],
        "choices": ["SIGNED", "NOT_SIGNED"] if open_ else [],
    }


async def get_numbering(request: web.Request) -> web.Response:
    """Where this store stands, and why signing is held, if it is."""
    parts = services(request)
    parts.technicians.authenticate(request)
    return web.json_response(await parts.db.read(lambda conn: ahead.as_json(parts.ahead, conn)))


async def post_numbering(request: web.Request) -> web.Response:
    """The number the next sale shall have, after a look into the unit or the portal."""
    parts = services(request)
    who = parts.technicians.authenticate(request)
    _, value = await read_json(request)
    await settle_numbering(parts, who, value)
    return web.json_response(await parts.db.read(lambda conn: ahead.as_json(parts.ahead, conn)))


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
    said = parse_model(NumberingIn, value)
    await parts.ahead.settle_by_person(said.nextInvcNo, who, said.reason)
