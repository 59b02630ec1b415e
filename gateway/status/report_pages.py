"""`/reports`: the day so far, closes and items on a phone; the button that closes the day."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from aiohttp import web

from gateway.api.payment_report import make_report, wanted_day
from gateway.api.reports import find_z, note_deposit, print_report
from gateway.api.server import Services, services
from gateway.clock import EAT, from_micros
from gateway.errors import GatewayError, QueryInvalid, RequestError
from gateway.printing.layout import PAYMENT_NAMES
from gateway.printing.report_layout import (
    MPESA_APART,
    MPESA_NOT_PAID,
    MPESA_OF_PAID,
    MPESA_REASONS,
    MPESA_SOURCES,
)
from gateway.status.html import form, page, person
from gateway.store import reports

CLOSES_MAX = 62
HOW = {"PERSON": "by hand", "MIDNIGHT": "by itself", "LATE": "late, by itself"}
Group = list[tuple[str, str]]


def register(app: web.Application) -> None:
    app.router.add_get("/reports", get_reports)
    app.router.add_post("/reports", post_reports)


async def get_reports(request: web.Request) -> web.Response:
    """Which days are closed; open to the LAN, so without a figure."""
    closed = request.query.get("closed", "")
    return await _reports(
        services(request),
        closed=closed if closed.isdecimal() else None,
        deposited="deposit" in request.query,
    )


async def post_reports(request: web.Request) -> web.Response:
    """One of the buttons, with a person's code."""
    parts = services(request)
    code, value = await form(request)
    doing = value.get("do", "")
    try:
        who = person(parts, code)
        match doing:
            case "close":
                made = await parts.days.close(who)
                parts.wake()
                raise web.HTTPSeeOther(f"/reports?closed={made.number}")
            case "deposit":
                await note_deposit(parts, {"amount": value.get("amount", "")}, who)
                raise web.HTTPSeeOther("/reports?deposit")
            case _:
                body = await _wanted(parts, doing, value)
        paper = await _on_paper(parts, value, body, who)
    except GatewayError as error:
        return await _reports(parts, problem=error, doing=doing)
    return await _reports(parts, report={**shown(body), "paper": paper})


async def _wanted(parts: Services, what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    match what:
        case "x":
            return await parts.days.x_report()
        case "z":
            return (await find_z(parts, value.get("number", "last"))).body
        case "mpesa":
            return await make_report(parts, wanted_day(parts, value.get("day")))
        case "plu":
            try:
                day = date.fromisoformat(value.get("day", ""))
                start = datetime(day.year, day.month, day.day, tzinfo=EAT)
                return await parts.days.plu_report(start, start + timedelta(days=1))
            except (ValueError, OverflowError):
                raise QueryInvalid("Give the day as 2026-11-24.") from None
        case _:
            raise RequestError("Say which report.")


async def _on_paper(parts: Services, value: Mapping[str, Any], body: Any, who: str) -> str | None:
    printer = value.get("printer")
    if printer is None or printer not in parts.printers:
        return None
    await print_report(parts, body, printer, who)
    return str(printer)


async def _reports(
    parts: Services,
    *,
    problem: GatewayError | None = None,
    doing: str = "",
    closed: str | None = None,
    deposited: bool = False,
    report: dict[str, Any] | None = None,
) -> web.Response:
    today = f"{parts.clock.now().astimezone(EAT):%Y-%m-%d}"

    def read(conn: sqlite3.Connection) -> list[dict[str, Any]]:
        return [
            {
                "number": z.number,
                "day": z.day,
                "how": HOW[z.how],
                "at": f"{from_micros(z.made_at).astimezone(EAT):%d/%m %H:%M}",
                "unit": f"KRA's unit: {z.unit_says or 'not told yet'}"
                if z.unit_says or z.state == "CLOSING"
                else None,
            }
            for z in reports.recent(conn, CLOSES_MAX)
        ]

    closes = await parts.db.read(read)
    done = any(z["day"] == today for z in closes)
    return page(
        "reports.html",
        problem=problem,
        doing=doing,
        closed=closed,
        deposited=deposited,
        report=report,
        closes=closes,
        today=today,
        hand="Today is closed." if done else "Today is not closed yet.",
        printers=sorted(parts.printers),
        by_itself=parts.days.by_itself,
        mpesa=(await parts.status())["mpesa"]["on"],
    )


# --- a report as rows -----------------------------------------------------------------------------------


def shown(body: Mapping[str, Any]) -> dict[str, Any]:
    """A report's JSON as a title and groups of (name, value)."""
    kind = body["type"]
    if kind == "MPESA":
        return {"title": f"M-Pesa, {body['day']}", "groups": payment_groups(body)}
    if kind == "PLU":
        title = f"PLU {_moment(body['from'])[:10]}"
        return {"title": title, "groups": [_heading(body), *_items(body)]}
    day = f", {body['day']}" if "day" in body else ""
    return {"title": f"{kind} report {body['number']}{day}", "groups": _sums(body)}


def _heading(body: Mapping[str, Any]) -> Group:
    rows = [("Trade name", body["tradeName"]), ("PIN", body["pin"])]
    if "madeAt" in body:
        rows.append(("Made", _moment(body["madeAt"])))
    return [*rows, ("From", _moment(body["from"])), ("To", _moment(body["to"]))]


def _sums(body: Mapping[str, Any]) -> list[Group]:
    def tally(name: str, key: str, sign: str = "") -> tuple[str, str]:
        found = body[key]
        minus = sign if found["number"] else ""
        return f"{name}: {found['number']}", f"{minus}{_amount(found['amount'])}"

    def each(name: str, key: str, sign: str = "") -> Group:
        names = PAYMENT_NAMES if "ayments" in key else {}
        return [
            (f"{name} {names.get(code, code)}".strip(), f"{sign}{_amount(amount)}")
            for code, amount in body[key].items()
            if amount != "0.00"
        ]

    return [
        _heading(body),
        [tally("Sales (NS)", "sales"), tally("Credit notes (NC)", "creditNotes", "-")],
        [
            *each("Taxable", "taxable"),
            *each("Tax", "tax"),
            *each("Credit notes, taxable", "creditNoteTaxable", "-"),
            *each("Credit notes, tax", "creditNoteTax", "-"),
        ],
        [*each("", "payments"), *each("Credit notes,", "creditNotePayments", "-")],
        [
            ("Opening deposit", _amount(body["openingDeposit"])),
            ("Items sold", body["itemsSold"]),
            ("Items returned", body["itemsReturned"]),
            tally("Copies", "copies"),
            tally("Training", "training"),
            tally("Proforma", "proforma"),
            ("All discounts", _amount(body["discounts"])),
            ("Other reductions", _amount(body["otherReductions"])),
            ("Incomplete sales", str(body["incompleteSales"])),
        ],
    ]


def payment_groups(body: Mapping[str, Any]) -> list[Group]:
    """The day of M-Pesa: the shop's figures, then what came and was kept at each till."""
    figures = body["shop"]

    def tally(name: str, found: Mapping[str, Any]) -> tuple[str, str]:
        said = name.strip().capitalize().replace("m-pesa", "M-Pesa").replace("c2b", "C2B")
        return f"{said}: {found['number']}", _amount(found["amount"])

    def each(names: Iterable[tuple[str, str]]) -> Group:
        return [tally(name, figures[key]) for name, key in names if figures[key]["number"]]

    groups: list[Group] = [
        _heading(body),
        [tally("Asked", figures["asked"]), tally("Paid", figures["paid"])]
        + [
            tally(f"by {MPESA_SOURCES.get(source, source)}", found)
            for source, found in figures["paidBy"].items()
        ]
        + each(MPESA_OF_PAID),
        each(MPESA_NOT_PAID)
        + [
            tally(MPESA_REASONS.get(reason, reason), found)
            for reason, found in figures["notPaidBy"].items()
        ],
        [*each((("Given back", "refunded"),)), ("Kept", _amount(figures["kept"]))],
        each(MPESA_APART),
    ]
    if len(body["tills"]) > 1:
        groups.append(
            [
                (f"{t['till'] or 'claimed by no till'}: {t['paid']['number']}", _amount(t["kept"]))
                for t in body["tills"]
            ]
        )
    return [group for group in groups if group]


def _items(body: Mapping[str, Any]) -> list[Group]:
    rows = [
        (
            f"{item['name']} ({item['itemCode']}) {item['quantity']} x "
            f"{_amount(item['unitPrice'])} {item['taxCode']}"
            + (f", {item['remaining']} left" if item["remaining"] is not None else ""),
            _amount(item["amount"]),
        )
        for item in body["items"]
    ]
    return [rows, [("Total", _amount(body["total"]))]]


def _amount(text: str) -> str:
    return f"{Decimal(text):,.2f}"


def _moment(text: str) -> str:
    return f"{datetime.fromisoformat(text).astimezone(EAT):%d/%m/%Y %H:%M:%S}"
