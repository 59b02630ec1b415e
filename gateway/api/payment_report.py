"""`GET /v1/payments/report`: a day of M-Pesa as JSON for a program, as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

from aiohttp import web

from gateway.api.server import Services, services, till_of
from gateway.clock import EAT
from gateway.errors import FieldError, QueryInvalid
from gateway.payments import report

YEAR_MIN, YEAR_MAX = 2000, 2099
# What a spreadsheet takes for the start of a formula. A C2B reference is typed by whoever pays.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def register(app: web.Application) -> None:
    app.router.add_get("/v1/payments/report", get_report)


async def get_report(request: web.Request) -> web.Response:
    """`?day=2026-11-24` (Nairobi, default today), `?format=json` or `csv`. QueryInvalid."""
    till_of(request)
    parts = services(request)
    style = request.query.get("format", "json")
    if style not in ("json", "csv"):
        raise QueryInvalid(
            "format must be json or csv.",
            errors=[FieldError("/format", "NOT_ALLOWED", "Not a format.")],
        )
    day = wanted_day(parts, request.query.get("day"))
    if style == "json":
        return web.json_response(await make_report(parts, day))
    rows, uncovered = await parts.db.read(lambda conn: report.rows_of_day(conn, day))
    elsewhere = await parts.db.read(lambda conn: report.elsewhere(conn, day))
    return web.Response(
        body=as_csv(report.table(rows, uncovered, elsewhere)).encode(),
        headers={
            "Content-Type": "text/csv; charset=utf-8",
            "Content-Disposition": f'attachment; filename="mpesa-{day.name}.csv"',
        },
    )


def wanted_day(parts: Services, given: Any) -> report.Day:
    """`given` as 2026-11-24; None or empty: today in Nairobi. QueryInvalid for what is no day."""
    today = parts.clock.now().astimezone(EAT).date()
    if given in (None, ""):
        return report.day_of(today)
    try:
        day = date.fromisoformat(given)
        if not YEAR_MIN <= day.year <= YEAR_MAX:
            raise ValueError(given)
        return report.day_of(day)
    except (ValueError, TypeError):
        raise QueryInvalid(
            f"day must be a day such as {today.isoformat()}.",
            errors=[FieldError("/day", "NOT_A_DAY", "Not a day.")],
        ) from None


async def make_report(parts: Services, day: report.Day) -> dict[str, Any]:
    header, now = parts.days.header, parts.clock.now()
    return await parts.db.read(lambda conn: report.make(conn, header, day, now))


def as_csv(lines: Iterable[Sequence[str]]) -> str:
    """RFC 4180, and no cell that a spreadsheet would run."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerows([safe(cell) for cell in line] for line in lines)
    return out.getvalue()


def safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
