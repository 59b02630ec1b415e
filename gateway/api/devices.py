"""The counter over HTTP: print jobs with what a person decides about them, drawer, tap."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import Any

from aiohttp import web

from gateway.api.body import read_json
from gateway.api.server import Services, services, till_of
from gateway.clock import EAT, from_micros, iso, micros
from gateway.errors import (
    DeviceProblem,
    FieldError,
    JobSettled,
    NotFound,
    QueryInvalid,
    RequestError,
)
from gateway.store import events, print_jobs
from gateway.store.print_jobs import PrintJob

STATES = ("QUEUED", "SENDING", "BLOCKED", "HELD", "UNCONFIRMED", "SENT", "PRINTED", "DROPPED")
OPEN = ("QUEUED", "SENDING", "BLOCKED", "HELD", "UNCONFIRMED")
JOBS_MAX = 200


def register(app: web.Application) -> None:
    app.router.add_get("/v1/print-jobs", get_jobs)
    app.router.add_get("/v1/print-jobs/{id}", get_job)
    app.router.add_post("/v1/print-jobs/{id}/release", post_release)
    app.router.add_post("/v1/print-jobs/{id}/drop", post_drop)
    app.router.add_post("/v1/print-jobs/{id}/answer", post_answer)
    app.router.add_post("/v1/printers/{name}/answer", post_answer_all)
    app.router.add_get("/v1/devices", get_devices)
    app.router.add_post("/v1/devices/{name}/drawer", post_drawer)
    app.router.add_post("/v1/devices/{name}/display", post_display)
    app.router.add_get("/v1/devices/{name}/weight", get_weight)
    app.router.add_get("/v1/devices/{name}/tap", get_tap)


# --- print jobs -----------------------------------------------------------------------------------


async def get_jobs(request: web.Request) -> web.Response:
    """What waits, what is held, and what a person is asked about; `?state=` for one state."""
    till_of(request)
    state = request.query.get("state")
    if state is not None and state not in STATES:
        raise QueryInvalid(
            f"state must be one of {', '.join(STATES)}.",
            errors=[FieldError("/state", "NOT_ALLOWED", "Not a state.")],
        )
    wanted = OPEN if state is None else (state,)
    rows = await services(request).db.read(
        lambda conn: print_jobs.in_states(conn, wanted, JOBS_MAX)
    )
    return web.json_response({"jobs": [job_json(row) for row in rows]})


async def get_job(request: web.Request) -> web.Response:
    till_of(request)
    return web.json_response(job_json(await find_job(services(request), request.match_info["id"])))


async def post_release(request: web.Request) -> web.Response:
    """Let a held slip come out after all."""
    till = till_of(request)
    job = await settle_job(services(request), request.match_info["id"], "release", till.id)
    return web.json_response(job_json(job))


async def post_drop(request: web.Request) -> web.Response:
    """A slip that has not begun will not be printed."""
    till = till_of(request)
    job = await settle_job(services(request), request.match_info["id"], "drop", till.id)
    return web.json_response(job_json(job))


async def post_answer(request: web.Request) -> web.Response:
    """Whether an unconfirmed slip came out: `{"cameOut": true}`; if not, a copy is printed (TIS 6.17)."""
    till = till_of(request)
    _, value = await read_json(request)
    came_out = value.get("cameOut") if isinstance(value, dict) else None
    if not isinstance(came_out, bool):
        raise RequestError(
            "Say whether the slip came out.",
            errors=[FieldError("/cameOut", "WRONG_TYPE", "cameOut must be true or false.")],
        )
    what = "came-out" if came_out else "lost"
    job = await settle_job(services(request), request.match_info["id"], what, till.id)
    return web.json_response(job_json(job))


async def post_answer_all(request: web.Request) -> web.Response:
    """One answer for every unconfirmed slip of a printer up to a job's number: `{"cameOut": true, "last": 150}`."""
    till = till_of(request)
    parts, name = services(request), request.match_info["name"]
    if parts.counter.worker(name) is None:
        raise NotFound("There is no printer of this name.")
    _, value = await read_json(request)
    said = value if isinstance(value, dict) else {}
    came_out, last = said.get("cameOut"), said.get("last")
    errors = []
    if not isinstance(came_out, bool):
        errors.append(FieldError("/cameOut", "WRONG_TYPE", "cameOut must be true or false."))
    if not isinstance(last, int) or isinstance(last, bool) or not 0 < last < 2**63:
        says = "last must be the number of the newest job that was looked at."
        errors.append(FieldError("/last", "WRONG_TYPE", says))
    if errors:
        raise RequestError("Say whether the slips came out, and up to which.", errors=errors)
    assert isinstance(came_out, bool)
    assert isinstance(last, int)
    return web.json_response({"answered": await answer_all(parts, name, came_out, last, till.id)})


async def answer_all(parts: Services, printer: str, came_out: bool, last: int, who: str) -> int:
    """Settle every unconfirmed slip of a printer up to job `last`, in one transaction; return how many."""
    at = micros(parts.clock.now())
    what = "came-out" if came_out else "lost"

    def settle(conn: sqlite3.Connection) -> int:
        jobs = print_jobs.unconfirmed(conn, printer, last)
        for job in jobs:
            print_jobs.answer(conn, job.id, came_out, who, at=at)
            copy = None if came_out else _again(conn, job, who, at)
            data = {"job": job.id, "printer": printer, "said": what, "who": who, "copyJob": copy}
            events.record(conn, at=at, kind="print.decided", subject=job.invoice_id, data=data)
        return len(jobs)

    answered = await parts.db.write(settle)
    parts.wake()
    return answered


async def find_job(parts: Services, job_id: str) -> PrintJob:
    job: PrintJob | None = None
    if job_id.isascii() and job_id.isdigit() and len(job_id) < 16:
        job = await parts.db.read(lambda conn: print_jobs.by_id(conn, int(job_id)))
    if job is None:
        raise NotFound("There is no print job with this number.")
    return job


async def settle_job(parts: Services, job_id: str, what: str, who: str) -> PrintJob:
    """One person's word on one job; also what the page's buttons are turned into. JobSettled when it
    is not in the state for it (any more)."""
    job = await find_job(parts, job_id)
    at = micros(parts.clock.now())

    def settle(conn: sqlite3.Connection) -> int | None:
        """The job of the second print, where there is one: of a receipt a copy, of a report the report."""
        copy = None
        match what:
            case "release":
                done = print_jobs.release(conn, job.id, at=at)
            case "drop":
                done = print_jobs.drop(conn, job.id, f"dropped by {who}", at=at)
            case _:
                done = print_jobs.answer(conn, job.id, what == "came-out", who, at=at)
                if done and what == "lost":
                    copy = _again(conn, job, who, at)
        if not done:
            raise JobSettled(
                "This slip is not waiting for that any more. Look at the list again.",
                extra={"state": job.state},
            )
        data = {"job": job.id, "printer": job.printer, "said": what, "who": who, "copyJob": copy}
        events.record(conn, at=at, kind="print.decided", subject=job.invoice_id, data=data)
        return copy

    copy = await parts.db.write(settle)
    parts.wake()
    return await find_job(parts, str(copy or job.id))


def _again(conn: sqlite3.Connection, job: PrintJob, who: str, at: int) -> int | None:
    """A strip of text (NOTE) is not printed again: it would no longer be true."""
    if job.invoice_id is not None:
        return print_jobs.enqueue_copy(conn, job.invoice_id, job.printer, who, at=at)
    if job.kind == "REPORT":
        return print_jobs.enqueue_report(conn, job.printer, job.body or b"{}", at=at)
    return None


def job_json(job: PrintJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "invoiceId": job.invoice_id,
        "printer": job.printer,
        "meantFor": job.meant_for,
        "copyNo": job.copy_no,
        "state": job.shown,
        "reason": job.reason,
        "attempts": job.attempts,
        "createdAt": iso(from_micros(job.created_at)),
    }


# --- devices --------------------------------------------------------------------------------------


async def get_devices(request: web.Request) -> web.Response:
    """Everything on the counter: kind, port, and why it does not work, if it does not. For a till or
    a technician."""
    parts = services(request)
    if parts.technicians.name_of(request) is None:
        till_of(request)
    return web.json_response({"devices": parts.counter.as_json()})


async def post_drawer(request: web.Request) -> web.Response:
    """Open the cash drawer without a sale; it is an event, with who asked."""
    till = till_of(request)
    parts, name = services(request), request.match_info["name"]
    worker = parts.counter.worker(name)
    if worker is None:
        raise NotFound("There is no printer of this name.")
    at = micros(parts.clock.now())
    await parts.db.write(
        lambda conn: events.record(
            conn, at=at, kind="drawer.asked", till_id=till.id, data={"printer": name}
        )
    )
    problem = await worker.kick()
    if problem is not None:
        raise DeviceProblem(f"The drawer cannot be opened: {problem}.", extra={"device": name})
    return web.json_response({"device": name, "opened": True})


async def post_display(request: web.Request) -> web.Response:
    """`{"lines": ["COFFEE 250g", "450.00"]}` to the customer, until something more important comes."""
    till_of(request)
    display = services(request).counter.displays.get(request.match_info["name"])
    if display is None:
        raise NotFound("There is no display of this name.")
    _, value = await read_json(request)
    lines = value.get("lines") if isinstance(value, dict) else None
    if (
        not isinstance(lines, list)
        or len(lines) > 2
        or not all(isinstance(line, str) and line.isprintable() for line in lines)
    ):
        raise RequestError(
            "lines must be one or two texts.",
            errors=[
                FieldError("/lines", "WRONG_TYPE", "One or two texts without control characters.")
            ],
        )
    display.show_till(lines)
    return web.json_response({"lines": display.lines})


async def get_weight(request: web.Request) -> web.Response:
    """What lies on the scale: weight in kg as text, and whether it is at rest."""
    till_of(request)
    scale = services(request).counter.scales.get(request.match_info["name"])
    if scale is None:
        raise NotFound("There is no scale of this name.")
    reading = await scale.read()
    if reading.problem is not None:
        raise DeviceProblem(f"The scale cannot be read: {reading.problem}.", retry_after_s=1)
    # Every digit the scale gave, and never fewer than grams.
    weight = f"{reading.weight + Decimal('0.000'):f}"
    return web.json_response({"weight": weight, "unit": "kg", "stable": reading.stable})


async def get_tap(request: web.Request) -> web.Response:
    """The newest bytes on a device's line, in hex; for a technician. `?after=` for newer ones only."""
    parts = services(request)
    parts.technicians.authenticate(request)
    tap = parts.counter.taps.get(request.match_info["name"])
    if tap is None:
        raise NotFound("There is no device of this name.")
    after = request.query.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 16):
        raise QueryInvalid("after must be a number.")
    pieces = [
        {
            "n": piece.number,
            "at": piece.at.astimezone(EAT).isoformat(timespec="milliseconds") if piece.at else None,
            "direction": piece.direction,
            "hex": piece.data.hex(" "),
        }
        for piece in tap.after(int(after))
    ]
    # Less than `after` when the gateway has started anew and counts from one again.
    return web.json_response({"traffic": pieces, "last": tap.count})
