"""X, Z and PLU reports: as JSON, and on paper."""

from __future__ import annotations

import sqlite3
from datetime import date, datetime, timedelta
from typing import Any

from aiohttp import web

from gateway import ids
from gateway.api.body import read_json
from gateway.api.build import parse_as, positive
from gateway.api.invoices import printer_for
from gateway.api.payment_report import make_report, wanted_day
from gateway.api.schemas import DepositIn
from gateway.api.server import Services, services, till_of
from gateway.clock import EAT, from_micros, iso, micros
from gateway.errors import FieldError, InvoiceInvalid, NotFound, QueryInvalid, RequestError
from gateway.money import parse_amount, text
from gateway.store import events, print_jobs, reports
from gateway.store.reports import ZReport

Z_LIST_MAX = 100
YEAR_MAX = 2099


def register(app: web.Application) -> None:
    app.router.add_get("/v1/reports/x", get_x)
    app.router.add_get("/v1/reports/z", get_z_list)
    app.router.add_post("/v1/reports/z", post_z)
    app.router.add_get("/v1/reports/z/{number}", get_z)
    app.router.add_get("/v1/reports/plu", get_plu)
    app.router.add_post("/v1/reports/print", post_print)
    app.router.add_post("/v1/reports/deposit", post_deposit)


async def get_x(request: web.Request) -> web.Response:
    """What the day has come to so far; changes nothing."""
    till_of(request)
    return web.json_response(await services(request).days.x_report())


async def get_z_list(request: web.Request) -> web.Response:
    """The newest closes, newest first."""
    till_of(request)
    rows = await services(request).db.read(lambda conn: reports.recent(conn, Z_LIST_MAX))
    return web.json_response({"closes": [as_json(row) for row in rows]})


async def get_z(request: web.Request) -> web.Response:
    till_of(request)
    return web.json_response(as_json(await find_z(services(request), request.match_info["number"])))


async def post_z(request: web.Request) -> web.Response:
    """Close the day in hand. DAY_CLOSED if it was closed already (once a day, TIS 16.1)."""
    till, parts = till_of(request), services(request)
    row = await parts.days.close(till.id)
    parts.wake()
    return web.json_response(as_json(row), status=201)


async def get_plu(request: web.Request) -> web.Response:
    """Per item, `?from=2026-11-24&to=2026-11-24` (days in Nairobi, both included; default today)."""
    till_of(request)
    parts = services(request)
    start, end = _interval(request, parts.clock.now().astimezone(EAT).date())
    return web.json_response(await parts.days.plu_report(start, end))


async def post_print(request: web.Request) -> web.Response:
    """`{"report": "X" | "Z" | "PLU" | "MPESA", "number", "day", "printer"}` on paper; Z: of its number,
    default the last; MPESA: of its day, default today."""
    till = till_of(request)
    parts = services(request)
    _, value = await read_json(request)
    wanted: dict[str, Any] = value if isinstance(value, dict) else {}
    printer = printer_for(parts, wanted.get("printer"), till.printer)
    if printer is None:
        raise InvoiceInvalid("This till has no printer, so no report can be printed.")
    match wanted.get("report"):
        case "X":
            body = await parts.days.x_report()
        case "Z":
            number = wanted.get("number")
            body = (await find_z(parts, "last" if number is None else str(number))).body
        case "PLU":
            start, end = _interval(request, parts.clock.now().astimezone(EAT).date())
            body = await parts.days.plu_report(start, end)
        case "MPESA":
            body = await make_report(parts, wanted_day(parts, wanted.get("day")))
        case _:
            detail = "report must be X, Z, PLU or MPESA."
            raise RequestError(detail, errors=[FieldError("/report", "NOT_ALLOWED", detail)])
    job = await print_report(parts, body, printer, till.id)
    return web.json_response({"printJob": job, "printer": printer}, status=202)


async def print_report(parts: Services, body: dict[str, Any], printer: str, who: str) -> int:
    """A report's JSON on paper; the print job. Also what the page's form is turned into."""
    at = micros(parts.clock.now())

    def put(conn: sqlite3.Connection) -> int:
        job = print_jobs.enqueue_report(conn, printer, ids.canonical(body), at=at)
        data = {"job": job, "report": body["type"], "number": body.get("number"), "who": who}
        events.record(conn, at=at, kind="print.report", data={**data, "printer": printer})
        return job

    job = await parts.db.write(put)
    parts.wake()
    return job


async def post_deposit(request: web.Request) -> web.Response:
    """The money in the drawer when the day begins; it stands on X and Z."""
    till = till_of(request)
    _, value = await read_json(request)
    amount = await note_deposit(services(request), value, till.id)
    return web.json_response({"openingDeposit": amount})


async def note_deposit(parts: Services, value: Any, who: str) -> str:
    """`value` as of the API's body; also what the page's form is turned into."""
    detail = "This has mistakes. Nothing was changed."
    body = parse_as(DepositIn, value, InvoiceInvalid, detail)
    amount = text(positive(parse_amount, body.amount, "amount", detail))
    await parts.days.deposit(amount, who)
    return amount


async def find_z(parts: Services, which: str) -> ZReport:
    """The close of this number, or the `last`. NotFound."""
    row: ZReport | None = None
    if which == "last":
        row = await parts.db.read(reports.last)
    elif which.isascii() and which.isdigit() and len(which) < 10:
        row = await parts.db.read(lambda conn: reports.by_number(conn, int(which)))
    if row is None:
        raise NotFound("There is no Z report with this number.")
    return row


def as_json(row: ZReport) -> dict[str, Any]:
    return {
        **row.body,
        "day": row.day,
        "how": row.how,
        "state": row.state,
        "unitSays": row.unit_says,
        "closedAt": iso(from_micros(row.made_at)),
    }


def _interval(request: web.Request, today: date) -> tuple[datetime, datetime]:
    days = []
    for name in ("from", "to"):
        given = request.query.get(name, today.isoformat())
        try:
            days.append(date.fromisoformat(given))
        except ValueError:
            raise QueryInvalid(
                f"{name} must be a day such as {today.isoformat()}.",
                errors=[FieldError(f"/{name}", "NOT_A_DAY", "Not a day.")],
            ) from None
    start, last = (datetime(day.year, day.month, day.day, tzinfo=EAT) for day in days)
    if last.year > YEAR_MAX:
        raise QueryInvalid("to must be a day of this century.")
    return start, last + timedelta(days=1)
