"""Slips of tills that only print: what could not be read with certainty, and what a person makes of it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from gateway import ids
from gateway.api.body import read_json
from gateway.api.build import build_invoice, parse_as, parse_model
from gateway.api.invoices import confirmed_repeat, printer_for, respond
from gateway.api.schemas import DismissIn, InvoiceIn
from gateway.api.server import Services, services, till_of
from gateway.clock import from_micros, iso, micros
from gateway.domain.signing import SigningState
from gateway.errors import (
    CaptureSettled,
    FieldError,
    InvoiceInvalid,
    LikelyRepeat,
    NotFound,
    QueryInvalid,
)
from gateway.fiscal.intake import Submission
from gateway.fiscal.repeats import CONFIRM_HEADER
from gateway.money import cents, from_cents, text
from gateway.store import captures, events, invoices
from gateway.store.captures import Captured
from gateway.store.invoices import InvoiceRow

STATES = ("WAITING", "SIGNED", "NOT_A_SALE", "UNREAD", "DISMISSED")
# Slips a person is settling just now: one at a time for each.
_IN_HAND: web.AppKey[set[int]] = web.AppKey("captures_in_hand", set)


def register(app: web.Application) -> None:
    app[_IN_HAND] = set()
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
    who = till_of(request)
    parts = services(request)
    captured = await _find(parts, request.match_info["id"])
    raw, value = await read_json(request)
    body = parse_model(InvoiceIn, value)
    invoice = build_invoice(body, parts.rates(), parts.defaults)
    till = parts.tills.known(captured.till_id)
    printer = printer_for(parts, body.printer, till.printer if till else None)
    confirmed, total = confirmed_repeat(request), cents(invoice.total)
    with _in_hand(request, captured):

        def take(conn: sqlite3.Connection) -> str:
            earlier = captures.sold_alike(conn, captured, body.tillReceiptNo, total)
            if earlier is not None and (
                earlier.invoice_id is None or earlier.invoice_id != confirmed
            ):
                raise _sold_before(earlier)
            if not captures.take(conn, captured.id, body.tillReceiptNo, total):
                raise _settled(captured)
            return _attempt(conn, captured)[0]

        key = await parts.db.write(take)
        answer = await parts.intake.submit(
            Submission(
                till_id=captured.till_id,
                idem_key=key,
                body_digest=ids.digest(value),
                request=raw,
                invoice=invoice,
                printer=printer,
                confirms=confirmed,
            )
        )
        if answer.status == 201:
            await _settle(parts, captured, "SIGNED", f"{who.id}: a person read it", key)
    return respond(answer)


async def post_dismiss(request: web.Request) -> web.Response:
    """It was no sale: `{"reason"}`."""
    till = till_of(request)
    capture_id = request.match_info["id"]
    _, value = await read_json(request)
    captured = await dismiss(request, capture_id, till.id, value)
    return web.json_response({"id": captured.id, "state": "DISMISSED"})


async def dismiss(request: web.Request, capture_id: str, who: str, value: Any) -> Captured:
    """`value` as of the API's body; also what the page's form is turned into."""
    parts = services(request)
    captured = await _find(parts, capture_id)
    said = parse_as(DismissIn, value, InvoiceInvalid, "Say why it is no sale.")
    with _in_hand(request, captured):
        await _settle(parts, captured, "DISMISSED", f"{who}: {said.reason}")
    return captured


async def _find(parts: Services, number: str) -> Captured:
    row: Captured | None = None
    if number.isascii() and number.isdigit() and len(number) < 16:
        row = await parts.db.read(lambda conn: captures.by_id(conn, int(number)))
    if row is None:
        raise NotFound("There is no captured slip with this number.")
    if row.state != "UNREAD":
        raise _settled(row)
    return row


@contextmanager
def _in_hand(request: web.Request, captured: Captured) -> Iterator[None]:
    """Nobody dismisses a slip while somebody sells it."""
    held = request.app[_IN_HAND]
    if captured.id in held:
        raise CaptureSettled("Somebody is settling this slip just now. Look again in a moment.")
    held.add(captured.id)
    try:
        yield
    finally:
        held.discard(captured.id)


def _attempt(conn: sqlite3.Connection, captured: Captured) -> tuple[str, InvoiceRow | None]:
    """The slip's key and what was sent under it. One the unit refused is used up: the corrected sale
    gets the next."""
    base = f"captured:{captured.id}:{hashlib.sha256(captured.raw).hexdigest()[:16]}"
    key, number = base, 1
    while (row := invoices.by_key(conn, captured.till_id, key)) is not None:
        if row.state is not SigningState.REJECTED:
            break
        number += 1
        key = f"{base}:{number}"
    return key, row


async def _settle(
    parts: Services, captured: Captured, state: str, reason: str, key: str | None = None
) -> None:
    """CaptureSettled when that was done already, or when what is dismissed may be signed."""
    at = micros(parts.clock.now())

    def settle(conn: sqlite3.Connection) -> None:
        row = invoices.by_key(conn, captured.till_id, key) if key else _attempt(conn, captured)[1]
        if state == "DISMISSED" and row is not None and row.state is not SigningState.RECEIVED:
            raise CaptureSettled(
                "This slip was sold, or is being sold: send the same sale again to be told.",
                extra={"invoiceId": row.id},
            )
        sold = row.id if row is not None and state == "SIGNED" else None
        if not captures.settle(conn, captured.id, state, reason=reason, invoice_id=sold, at=at):
            raise _settled(captured)
        data = {"capture": captured.id, "state": state, "reason": reason}
        events.record(conn, at=at, kind="capture.settled", subject=sold, data=data)

    await parts.db.write(settle)


def _settled(captured: Captured) -> CaptureSettled:
    return CaptureSettled("This slip is settled already.", extra={"state": captured.state})


def _sold_before(earlier: Captured) -> LikelyRepeat:
    if earlier.invoice_id is None:
        return LikelyRepeat(
            f"Slip {earlier.id} has the same number and total and is being signed. Look at it first."
        )
    total = text(from_cents(earlier.total_cents or 0))
    return LikelyRepeat(
        f"Slip {earlier.id} with the same number or text is sold already, for {total}. Dismiss this "
        "one, or confirm a new sale.",
        extra={
            "invoiceId": earlier.invoice_id,
            "soldAt": iso(from_micros(earlier.at)),
            "copy": f"/v1/invoices/{earlier.invoice_id}/copies",
            "confirmWith": {"header": CONFIRM_HEADER, "value": earlier.invoice_id},
        },
    )


def capture_json(row: Captured) -> dict[str, Any]:
    return {
        "id": row.id,
        "device": row.device,
        "till": row.till_id,
        "text": row.text,
        "state": row.state,
        "reason": row.reason,
        "tillReceiptNo": row.receipt_no,
        "invoiceId": row.invoice_id,
        "at": iso(from_micros(row.at)),
    }
