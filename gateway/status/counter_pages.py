"""`/counter`: printers, devices, slips that wait for a person; `/slips/{id}` and `/captured`: his answer."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from aiohttp import web

from gateway.api import captures as captures_api
from gateway.api.captures import capture_json
from gateway.api.devices import find_job, settle_job
from gateway.api.server import Services, services
from gateway.clock import EAT, from_micros
from gateway.counter.slip_advice import NONE_READ, next_step, reads_nothing
from gateway.errors import FieldError, RequestError
from gateway.money import from_cents
from gateway.status.html import form, page, person
from gateway.store import captures, print_jobs, receipts
from gateway.store.captures import Captured
from gateway.store.print_jobs import PrintJob

# A page of more is scrolled by nobody.
ROWS_MAX = 50
ANSWERS = ("came-out", "lost", "release", "drop")
GROUPS = {
    "UNCONFIRMED": ("UNCONFIRMED",),
    "HELD": ("HELD",),
    "WAITING": ("SENDING", "QUEUED", "BLOCKED"),
}


def register(app: web.Application) -> None:
    app.router.add_get("/counter", get_counter)
    app.router.add_get("/counter/fragment", get_fragment)
    app.router.add_get("/slips/{id}", get_slip)
    app.router.add_post("/slips/{id}", post_slip)
    app.router.add_get("/captured", get_captured)
    app.router.add_post("/captured", post_captured)
    app.router.add_post("/captured/{id}", post_dismiss)


# --- the counter --------------------------------------------------------------------------------------


async def get_counter(request: web.Request) -> web.Response:
    """The whole page; open to the LAN like the status, so without what stands on a slip."""
    return page("counter.html", **await _counter(services(request)))


async def get_fragment(request: web.Request) -> web.Response:
    """Its changing part."""
    return page("counter_fragment.html", **await _counter(services(request)))


async def _counter(parts: Services) -> dict[str, Any]:
    def read(conn: sqlite3.Connection) -> dict[str, Any]:
        jobs = {
            name: [describe(conn, job) for job in print_jobs.in_states(conn, states, ROWS_MAX)]
            for name, states in GROUPS.items()
        }
        return {"jobs": jobs, "captured": captures.count_unread(conn)}

    devices = parts.counter.as_json()
    return {
        "s": await parts.status(),
        "printers": {d["name"]: d for d in devices if d["kind"] == "printer"},
        "devices": [d for d in devices if d["kind"] != "printer"],
        **await parts.db.read(read),
    }


def describe(conn: sqlite3.Connection, job: PrintJob) -> dict[str, Any]:
    """A print job in a cashier's words."""
    return {
        "id": job.id,
        "kind": job.kind,
        "fiscal": job.invoice_id is not None,
        "what": _what(conn, job),
        "invoiceId": job.invoice_id,
        "printer": job.printer,
        "meantFor": job.meant_for,
        "state": job.shown,
        "reason": job.reason,
        "at": _when(job.created_at),
    }


def _when(at_us: int) -> str:
    return f"{from_micros(at_us).astimezone(EAT):%d/%m %H:%M}"


def _what(conn: sqlite3.Connection, job: PrintJob) -> str:
    body = job.body or b""
    if job.kind == "REPORT":
        report = json.loads(body)
        return f"{report['type']} report {report.get('number', '')}".rstrip()
    row = receipts.by_invoice(conn, job.invoice_id) if job.invoice_id else None
    if row is None:
        first, *_ = [*body.decode(errors="replace").splitlines(), "strip of text"]
        return first
    name = "Receipt" if job.kind == "ORIGINAL" else f"Copy no. {job.copy_no} of"
    return f"{name} {row.receipt.counter} · {from_cents(row.total_cents):,.2f}"


# --- one slip -------------------------------------------------------------------------------------------


async def get_slip(request: web.Request) -> web.Response:
    """What it is, why it waits, and the question to the person before the printer."""
    return await _slip(request)


async def post_slip(request: web.Request) -> web.Response:
    """His answer; it is an event with his name. A mistake comes back on the page."""
    parts, job_id = services(request), request.match_info["id"]
    await find_job(parts, job_id)
    code, value = await form(request)
    try:
        who = person(parts, code)
        said = value.get("said")
        if said not in ANSWERS:
            raise RequestError(
                "Say what is to be done with the slip.",
                errors=[FieldError("/said", "NOT_ALLOWED", "Not an answer.")],
            )
        job = await settle_job(parts, job_id, said, who)
    except RequestError as error:
        return await _slip(request, error)
    raise web.HTTPSeeOther(f"/slips/{job.id}")


async def _slip(request: web.Request, problem: RequestError | None = None) -> web.Response:
    parts = services(request)
    job = await find_job(parts, request.match_info["id"])
    shown = await parts.db.read(lambda conn: describe(conn, job))
    return page("slip.html", problem=problem, j=shown)


# --- captured slips -------------------------------------------------------------------------------------


async def get_captured(request: web.Request) -> web.Response:
    """How many there are. What stands on them is a buyer's, so it takes a code."""
    return await _captured(services(request), open_=False)


async def post_captured(request: web.Request) -> web.Response:
    parts = services(request)
    code, _ = await form(request)
    try:
        person(parts, code)
    except RequestError as error:
        return await _captured(parts, open_=False, problem=error)
    return await _captured(parts, open_=True)


async def post_dismiss(request: web.Request) -> web.Response:
    """It was no sale, because."""
    parts = services(request)
    code, value = await form(request)
    try:
        who = person(parts, code)
    except RequestError as error:
        return await _captured(parts, open_=False, problem=error)
    try:
        await captures_api.dismiss(request, request.match_info["id"], who, value)
    except RequestError as error:
        return await _captured(parts, open_=True, problem=error)
    return await _captured(parts, open_=True)


async def _captured(
    parts: Services, *, open_: bool, problem: RequestError | None = None
) -> web.Response:
    def read(conn: sqlite3.Connection) -> tuple[list[Captured], list[str]]:
        rows = captures.in_state(conn, "UNREAD")
        states = {
            device: captures.newest_states(conn, device, NONE_READ)
            for device in dict.fromkeys(row.device for row in rows)
        }
        said = [reads_nothing(device, found) for device, found in states.items()]
        return rows, [sentence for sentence in said if sentence]

    rows, templates = await parts.db.read(read)
    return page(
        "captured.html",
        problem=problem,
        count=len(rows),
        templates=templates,
        slips=[
            {**capture_json(row), "at": _when(row.at), "step": next_step(row.reason)}
            for row in rows[:ROWS_MAX]
        ]
        if open_
        else None,
    )
