"""`/` and the story of one invoice: what a technician opens on a phone."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from aiohttp import web

from gateway.api.decisions import check_form, decide, next_step, numbering, settle_numbering
from gateway.api.events import stream
from gateway.api.invoices import find
from gateway.api.payments import close_unpaid
from gateway.api.server import services
from gateway.clock import from_micros, iso
from gateway.domain import invoice_json
from gateway.domain.signing import SigningState
from gateway.errors import FieldError, RequestError, UnknownTechnician
from gateway.fiscal import rates
from gateway.fiscal.decision_rules import shown_time
from gateway.money import from_cents, text
from gateway.status import (
    counter_pages,
    html,
    learn_pages,
    payment_pages,
    payment_views,
    printer_pages,
    report_pages,
)
from gateway.status.html import HEADERS, form, page
from gateway.store import events, receipts, unit

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def register(app: web.Application) -> None:
    app.router.add_get("/", get_page)
    app.router.add_get("/live", get_live)
    app.router.add_get("/alive", get_alive)
    app.router.add_get("/fragment", get_fragment)
    app.router.add_get("/invoices/{id}", get_story)
    app.router.add_post("/invoices/{id}/decision", post_story)
    app.router.add_post("/invoices/{id}/unpaid", post_unpaid)
    app.router.add_get("/unit", get_unit)
    app.router.add_post("/unit", post_unit)
    app.router.add_post("/unit/rates", post_rates)
    app.router.add_get("/static/{name}", get_static)
    html.register(app)
    # Before /captured/{id}.
    learn_pages.register(app)
    counter_pages.register(app)
    printer_pages.register(app)
    report_pages.register(app)
    payment_pages.register(app)


async def get_page(request: web.Request) -> web.Response:
    """The whole page, useful without a line of JavaScript."""
    status = await services(request).status()
    return page("status.html", s=status)


async def get_fragment(request: web.Request) -> web.Response:
    """The page's changing part; the page asks for it when an event says that something happened."""
    status = await services(request).status()
    return page("fragment.html", s=status)


async def get_alive(request: web.Request) -> web.Response:
    """Answer a page that has no changing part, so that it notices when the gateway is gone."""
    return web.Response(text="", headers=HEADERS)


async def get_live(request: web.Request) -> web.StreamResponse:
    """Events for the page; open to the LAN, so their kinds only."""
    return await stream(request, services(request), till_id=None, last=None, kinds_only=True)


async def get_story(request: web.Request) -> web.Response:
    """All that happened to one invoice, in order; with the forms when a person must decide."""
    return await _story(request)


async def post_story(request: web.Request) -> web.Response:
    """Take a decision's form. A mistake comes back on the page, with what is wrong and what was typed; a
    decision that is only not confirmed yet is shown again with its consequence."""
    row = await find(request)
    code, value = await form(
        request, numbers=("rcptNo", "totRcptNo", "lastInvcNo"), flags=("searched", "confirmed")
    )
    parts = services(request)
    try:
        who = parts.technicians.check(code)
        await decide(parts, row.id, who, value)
    except UnknownTechnician as error:
        error.errors = tuple(check_form(value))
        return await _story(request, error, value)
    except RequestError as error:
        return await _story(request, error, value)
    raise web.HTTPSeeOther(f"/invoices/{row.id}")


async def post_unpaid(request: web.Request) -> web.Response:
    """A person has found out about mobile money that no payment is known for."""
    row = await find(request)
    code, value = await form(request)
    try:
        who = services(request).technicians.check(code)
        reason = payment_pages.needed(str(value.get("reason", "")))
        await close_unpaid(services(request), row.id, who, reason)
    except RequestError as error:
        return await _story(request, error)
    raise web.HTTPSeeOther(f"/invoices/{row.id}")


def _to_confirm(problem: RequestError | None) -> str | None:
    """Return the statement that alone is missing, None where there is another mistake."""
    if problem is None or [each.code for each in problem.errors] != ["CONFIRMATION_MISSING"]:
        return None
    return None if isinstance(problem, UnknownTechnician) else problem.errors[0].message


def _to_mend(problem: RequestError | None) -> list[FieldError]:
    """Return the mistakes to show beside the form. The confirmation is asked for when there are no others."""
    errors = () if problem is None else problem.errors
    return [each for each in errors if each.code != "CONFIRMATION_MISSING"]


async def _story(
    request: web.Request,
    problem: RequestError | None = None,
    given: Mapping[str, Any] | None = None,
) -> web.Response:
    parts = services(request)
    row = await find(request)
    told = await parts.db.read(lambda conn: events.story(conn, row.id))
    receipt = await parts.db.read(lambda conn: receipts.by_invoice(conn, row.id))
    sdc_id = await parts.db.read(lambda conn: unit.device(conn)["sdc_id"])
    paid = await parts.db.read(
        lambda conn: payment_views.of_invoice(conn, row.id, parts.clock.now())
    )
    return page(
        "story.html",
        problem=problem,
        errors=_to_mend(problem),
        given={"choice": "", **(given or {})},
        confirm=_to_confirm(problem),
        waits=parts.decisions.waits_for(row) if row.state is SigningState.IN_DOUBT else (),
        lines=invoice_json.from_json(row.document).lines,
        next_step=await next_step(parts, row),
        row=row,
        receipt=receipt,
        sdc_id=sdc_id,
        sold=shown_time(row.created_at),
        total=text(from_cents(row.total_cents)),
        events=[
            {"at": iso(from_micros(event.at)), "kind": event.kind, "data": event.data}
            for event in told
        ],
        **paid,
    )


async def get_unit(request: web.Request) -> web.Response:
    """Where the numbering stands; with the form when signing is held."""
    return await _unit(request)


async def post_unit(request: web.Request) -> web.Response:
    """Take the numbering's form. A mistake comes back on the page, with what was typed."""
    code, value = await form(request, numbers=("nextInvcNo",), lists=("silentTills",))
    try:
        await settle_numbering(services(request), services(request).technicians.check(code), value)
    except RequestError as error:
        return await _unit(request, error, value)
    raise web.HTTPSeeOther("/unit")


async def post_rates(request: web.Request) -> web.Response:
    """The technician has seen that tax rates changed."""
    code, _ = await form(request)
    try:
        await services(request).rates_seen(services(request).technicians.check(code))
    except RequestError as error:
        return await _unit(request, error)
    raise web.HTTPSeeOther("/unit")


async def _unit(
    request: web.Request,
    problem: RequestError | None = None,
    given: Mapping[str, Any] | None = None,
) -> web.Response:
    parts = services(request)
    shown = {"nextInvcNo": "", "reason": "", "silentTills": [], **(given or {})}
    return page(
        "unit.html",
        problem=problem,
        errors=() if problem is None else problem.errors,
        given=shown,
        unit=await numbering(parts),
        rate_changes=await parts.db.read(rates.changes_as_json),
    )


async def get_static(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    kind = _TYPES.get(name.rpartition(".")[2])
    entry = resources.files("gateway.status").joinpath("static", name)
    if kind is None or "/" in name or not entry.is_file():
        raise web.HTTPNotFound
    headers = {**HEADERS, "Cache-Control": "max-age=300"}
    return web.Response(body=entry.read_bytes(), content_type=kind, headers=headers)
