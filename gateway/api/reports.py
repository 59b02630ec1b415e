"""X, Z and PLU reports: as JSON, and on paper."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

from aiohttp import web

from gateway import ids
from gateway.api.body import read_json
from gateway.api.build import parse_as, positive
from gateway.api.invoices import printer_for
from gateway.api.schemas import DepositIn
from gateway.api.server import services, till_of
from gateway.clock import EAT, from_micros, iso, micros
from gateway.errors import FieldError, InvoiceInvalid, NotFound, QueryInvalid, RequestError
from gateway.money import parse_amount, text
from gateway.store import print_jobs, reports
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
    return web.json_response(as_json(await _z(request, request.match_info["number"])))


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
    """`{"report": "X" | "Z" | "PLU", "number", "printer"}` on paper; Z: of its number, default the last."""
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
            body = (await _z(request, "last" if number is None else str(number))).body
        case "PLU":
            start, end = _interval(request, parts.clock.now().astimezone(EAT).date())
            body = await parts.days.plu_report(start, end)
        case _:
            raise RequestError(
                "report must be X, Z or PLU.",
                errors=[FieldError("/report", "NOT_ALLOWED", "report must be X, Z or PLU.")],
            )
    at = micros(parts.clock.now())
    job = await parts.db.write(
        lambda conn: print_jobs.enqueue_report(conn, printer, ids.canonical(body), at=at)
    )
    parts.wake()
    return web.json_response({"printJob": job, "printer": printer}, status=202)


async def post_deposit(request: web.Request) -> web.Response:
    """The money in the drawer when the day begins; it stands on X and Z."""
    till = till_of(request)
    parts = services(request)
    _, value = await read_json(request)
    detail = "This has mistakes. Nothing was changed."
    body = parse_as(DepositIn, value, InvoiceInvalid, detail)
    amount = positive(parse_amount, body.amount, "amount", detail)
    await parts.days.deposit(text(amount), till.id)
    return web.json_response({"openingDeposit": text(amount)})


async def _z(request: web.Request, which: str) -> ZReport:
    row: ZReport | None = None
    if which == "last":
        row = await services(request).db.read(reports.last)
    elif which.isascii() and which.isdigit() and len(which) < 10:
        row = await services(request).db.read(lambda conn: reports.by_number(conn, int(which)))
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
