"""Slips of tills that only print: what could not be read with certainty, and what a person makes of it."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any

from aiohttp import web

from gateway import ids
from gateway.api.body import read_json
from gateway.api.build import build_invoice, parse_as, parse_model
from gateway.api.invoices import printer_for, respond
from gateway.api.schemas import DismissIn, InvoiceIn
from gateway.api.server import Services, services, till_of
from gateway.clock import from_micros, iso, micros
from gateway.errors import CaptureSettled, FieldError, InvoiceInvalid, NotFound, QueryInvalid
from gateway.fiscal.intake import Submission
from gateway.store import captures, events, invoices
from gateway.store.captures import Captured

STATES = ("WAITING", "SIGNED", "NOT_A_SALE", "UNREAD", "DISMISSED")


def register(app: web.Application) -> None:
    app.router.add_get("/v1/captures", get_captures)
    app.router.add_post("/v1/captures/{id}/resolve", post_resolve)
    app.router.add_post("/v1/captures/{id}/dismiss", post_dismiss)


async def get_captures(request: web.Request) -> web.Response:
    """UNREAD ones, oldest first; `?state=` for others."""
    till_of(request)
    state = request.query.get("state", "UNREAD")
    if state not in STATES:
        raise QueryInvalid(
            f"state must be one of {', '.join(STATES)}.",
            errors=[FieldError("/state", "NOT_ALLOWED", "Not a state.")],
        )
    rows = await services(request).db.read(lambda conn: captures.in_state(conn, state))
    return web.json_response({"captures": [capture_json(row) for row in rows]})


async def post_resolve(request: web.Request) -> web.Response:
    """Sell what a person read on the slip; once, under the slip's own key."""
    till_of(request)
    parts = services(request)
    captured = await _find(parts, request.match_info["id"])
    raw, value = await read_json(request)
    body = parse_model(InvoiceIn, value)
    till = parts.tills.known(captured.till_id)
    answer = await parts.intake.submit(
        Submission(
            till_id=captured.till_id,
            idem_key=f"captured:{captured.id}:{hashlib.sha256(captured.raw).hexdigest()[:16]}",
            body_digest=ids.digest(value),
            request=raw,
            invoice=build_invoice(body, parts.rates(), parts.defaults),
            printer=printer_for(parts, body.printer, till.printer if till else None),
        )
    )
    await _settle(parts, captured, "SIGNED", "a person read it")
    return respond(answer)


async def post_dismiss(request: web.Request) -> web.Response:
    """It was no sale: `{"reason"}`."""
    till = till_of(request)
    capture_id = request.match_info["id"]
    _, value = await read_json(request)
    captured = await dismiss(services(request), capture_id, till.id, value)
    return web.json_response({"id": captured.id, "state": "DISMISSED"})


async def dismiss(parts: Services, capture_id: str, who: str, value: Any) -> Captured:
    """`value` as of the API's body; also what the page's form is turned into."""
    captured = await _find(parts, capture_id)
    said = parse_as(DismissIn, value, InvoiceInvalid, "Say why it is no sale.")
    await _settle(parts, captured, "DISMISSED", f"{who}: {said.reason}")
    return captured


async def _find(parts: Services, text: str) -> Captured:
    row: Captured | None = None
    if text.isascii() and text.isdigit() and len(text) < 16:
        row = await parts.db.read(lambda conn: captures.by_id(conn, int(text)))
    if row is None:
        raise NotFound("There is no captured slip with this number.")
    if row.state != "UNREAD":
        raise CaptureSettled("This slip is settled already.", extra={"state": row.state})
    return row


async def _settle(parts: Services, captured: Captured, state: str, reason: str) -> None:
    at = micros(parts.clock.now())

    def settle(conn: sqlite3.Connection) -> None:
        sold = None
        if state == "SIGNED":
            key = f"captured:{captured.id}:{hashlib.sha256(captured.raw).hexdigest()[:16]}"
            found = invoices.by_key(conn, captured.till_id, key)
            sold = found.id if found else None
        captures.settle(conn, captured.id, state, reason=reason, invoice_id=sold, at=at)
        data = {"capture": captured.id, "state": state, "reason": reason}
        events.record(conn, at=at, kind="capture.settled", subject=sold, data=data)

    await parts.db.write(settle)


def capture_json(row: Captured) -> dict[str, Any]:
    return {
        "id": row.id,
        "device": row.device,
        "till": row.till_id,
        "text": row.text,
        "state": row.state,
        "reason": row.reason,
        "invoiceId": row.invoice_id,
        "at": iso(from_micros(row.at)),
    }
