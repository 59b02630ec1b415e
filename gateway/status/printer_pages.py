"""`/printers/{name}`: what a printer was found to be, and what a person says of it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

from aiohttp import web

from gateway.api.devices import answer_all
from gateway.api.server import Services, services
from gateway.clock import micros
from gateway.errors import FieldError, NotFound, RequestError
from gateway.printing.document import QrHow
from gateway.printing.notes import TEST_PRINT
from gateway.printing.printer_words import kind_of
from gateway.printing.spooler import PrinterWorker
from gateway.status.html import form, page, person
from gateway.store import print_jobs

ANSWERS = ("all-came-out", "none-came-out")
# The answers about the test print, and the QR that is printed from then on.
QRS: dict[str, QrHow] = {"qr-native": "native", "qr-picture": "picture", "qr-auto": "auto"}
SAYS = (*ANSWERS, *QRS, "test", "mute", "another")


def register(app: web.Application) -> None:
    app.router.add_get("/printers/{name}", get_printer)
    app.router.add_post("/printers/{name}", post_printer)


async def get_printer(request: web.Request) -> web.Response:
    """What it answers, what each of its slips can be known to be, and what can be corrected."""
    return await _printer(request)


async def post_printer(request: web.Request) -> web.Response:
    """Do what a person with a code says. A mistake comes back on the page."""
    parts, worker = services(request), _worker(request)
    code, value = await form(request, ("last",))
    try:
        who = person(parts, code)
        await _do(parts, worker, who, value)
    except RequestError as error:
        return await _printer(request, error)
    raise web.HTTPSeeOther(f"/printers/{worker.name}")


async def _do(parts: Services, worker: PrinterWorker, who: str, value: dict[str, Any]) -> None:
    said = value.get("said")
    if said in ANSWERS:
        last = value.get("last")
        if not isinstance(last, int):
            raise _refused(
                "/last", "The number of the last slip that you were asked about is missing."
            )
        await answer_all(parts, worker.name, said == "all-came-out", last, who)
    elif said == "test":
        at = micros(parts.clock.now())
        await parts.db.write(
            lambda conn: print_jobs.enqueue_note(conn, worker.name, TEST_PRINT, at=at)
        )
        parts.wake()
    elif said == "another":
        await worker.another_printer(who)
    elif said == "mute":
        await worker.correct(replace(worker.printer.corrected, mute=True), who)
    elif said in QRS:
        await worker.correct(replace(worker.printer.corrected, qr=QRS[said]), who)
    else:
        raise _refused("/said", f"It must be one of {', '.join(SAYS)}.")


def _refused(pointer: str, message: str) -> RequestError:
    return RequestError("Nothing was done.", errors=[FieldError(pointer, "NOT_ALLOWED", message)])


def _worker(request: web.Request) -> PrinterWorker:
    worker = services(request).counter.worker(request.match_info["name"])
    if worker is None:
        raise NotFound("There is no printer of this name.")
    return worker


async def _printer(request: web.Request, problem: RequestError | None = None) -> web.Response:
    parts, worker = services(request), _worker(request)

    def read(conn: sqlite3.Connection) -> list[int]:
        return [job.id for job in print_jobs.unconfirmed(conn, worker.name, 2**62)]

    asked = await parts.db.read(read)
    found = worker.printer.found or worker.printer.known
    return page(
        "printer.html",
        problem=problem,
        name=worker.name,
        port=worker.port,
        reason=worker.problem,
        kind=kind_of(worker.confirm, found),
        found=found,
        qr=worker.printer.corrected.qr,
        mute=worker.printer.corrected.mute,
        asked=len(asked),
        last=asked[-1] if asked else 0,
    )
