"""`/v1/invoices`: submit a sale, read it back, take it back."""

from __future__ import annotations

import json

from aiohttp import web

from gateway import ids
from gateway.api import tenders
from gateway.api.body import read_json
from gateway.api.build import build_credit_note, build_invoice, parse_model
from gateway.api.schemas import CreditNoteIn, InvoiceIn, normal_text
from gateway.api.server import Services, services, till_of
from gateway.clock import from_micros, iso
from gateway.domain import invoice_json
from gateway.domain.signing import FINAL_STATES, OPEN_STATES, SigningState
from gateway.errors import (
    CreditNoteInvalid,
    FieldError,
    InvoiceInvalid,
    InvoiceUnknown,
    KeyInvalid,
    KeyMissing,
    OutcomeUnknown,
    RequestError,
)
from gateway.fiscal.intake import Submission
from gateway.fiscal.job import Answer
from gateway.fiscal.repeats import CONFIRM_HEADER
from gateway.money import from_cents, text
from gateway.store import invoices, receipts
from gateway.store.checkouts import CheckoutState
from gateway.store.invoices import InvoiceRow

# A till may write this for "sign it, print nothing".
NO_PRINTER = "none"


def register(app: web.Application) -> None:
    app.router.add_post("/v1/invoices", post_invoice)
    app.router.add_get("/v1/invoices/{id}", get_invoice)
    app.router.add_post("/v1/invoices/{id}/credit-notes", post_credit_note)
    app.router.add_post("/v1/invoices/{id}/copies", post_copy)


async def post_invoice(request: web.Request) -> web.Response:
    """One sale in, its fiscal receipt out; the same key again gives the same bytes again."""
    parts, till = services(request), till_of(request)
    key = idempotency_key(request, required=not parts.intake.takes_keyless)
    raw, value = await read_json(request)
    digest = ids.digest(value)
    begun = None
    if key is not None and isinstance(value, dict) and "tenders" in value:
        begun = await parts.mpesa.checkouts.begun(till.id, key)
    if begun is not None:
        return signed(
            await parts.mpesa.checkouts.again(begun, digest),
            replayed=begun.state is CheckoutState.SIGNED,
        )
    try:
        body = parse_model(InvoiceIn, value)
        # With tenders it is built where its money is looked at.
        plain = body.tenders is None
        invoice = build_invoice(body, parts.rates(), parts.defaults) if plain else None
        printer = printer_for(parts, body.printer, till.printer)
    except RequestError:
        # Rates and printers change; what a till was told about this key does not.
        if key is None:
            number = normal_text(value.get("tillReceiptNo")) if isinstance(value, dict) else None
            confirms = confirmed_repeat(request)
            earlier = await parts.intake.again_keyless(till.id, number, digest, confirms)
        else:
            earlier = await parts.intake.again(till.id, key, digest)
        if earlier is None:
            raise
        return respond(earlier)
    if invoice is None:
        if key is None:
            raise KeyMissing("A sale with tenders needs an Idempotency-Key.")
        confirms = confirmed_repeat(request)
        asked = (raw, digest, printer, confirms)
        return signed(await tenders.sell(parts, till.id, key, body, asked))
    await tenders.settle_otherwise(request, parts, till.id)
    sale = Submission(
        till_id=till.id,
        idem_key=key or digest,
        body_digest=digest,
        request=raw,
        invoice=invoice,
        printer=printer,
        confirms=None if key is None else confirmed_repeat(request),
    )
    if key is None:
        return respond(await parts.intake.submit_keyless(sale, confirmed_repeat(request)))
    return respond(await parts.intake.submit(sale))


async def post_credit_note(request: web.Request) -> web.Response:
    """The whole of a signed sale taken back, once (TIS 6.16)."""
    parts, till = services(request), till_of(request)
    key = idempotency_key(request, required=True)
    assert key is not None
    original = await find(request)
    raw, value = await read_json(request)
    digest = ids.digest([original.id, value])
    try:
        body = parse_model(CreditNoteIn, value)
        printer = printer_for(parts, body.printer, till.printer)
        receipt = await parts.db.read(lambda conn: receipts.by_invoice(conn, original.id))
        _signed_sale(original, "there is nothing to take back", "Nothing is taken back")
        assert receipt is not None
        invoice = build_credit_note(
            body,
            invoice_json.from_json(original.document),
            original_invc_no=receipt.invc_no,
            original_cu_invoice_no=receipt.receipt.cu_invoice_no,
            defaults=parts.defaults,
        )
    except RequestError:
        earlier = await parts.intake.again(till.id, key, digest)
        if earlier is None:
            raise
        return respond(earlier)
    answer = await parts.intake.submit(
        Submission(
            till_id=till.id,
            idem_key=key,
            body_digest=digest,
            request=raw,
            invoice=invoice,
            printer=printer,
            original_id=original.id,
        )
    )
    return respond(answer)


async def get_invoice(request: web.Request) -> web.Response:
    """The stored answer, byte for byte, once there is one; before that, the state."""
    till_of(request)
    row = await find(request)
    if row.state in FINAL_STATES:
        assert row.answer is not None and row.answer_status is not None
        if row.state is SigningState.SIGNED:
            return web.Response(body=row.answer, content_type="application/json")
    value = {
        "invoiceId": row.id,
        "state": row.state,
        "till": row.till_id,
        "tillReceiptNo": row.till_receipt_no,
        "total": text(from_cents(row.total_cents)),
        "receivedAt": iso(from_micros(row.created_at)),
        "problem": json.loads(row.answer) if row.answer else None,
    }
    return web.json_response(value)


async def post_copy(request: web.Request) -> web.Response:
    """Print a copy (CS, CC) of a signed receipt; never a second original (TIS 6.17)."""
    parts, till = services(request), till_of(request)
    row = await find(request)
    _signed_sale(row, "there is no receipt to copy", "Nothing is printed")
    printer = row.printer or till.printer
    if printer is None:
        raise InvoiceInvalid("This till has no printer, so no copy can be printed.")
    job = await parts.copy(row.id, printer, till.id)
    return web.json_response({"invoiceId": row.id, "printJob": job, "printer": printer}, status=202)


async def find(request: web.Request) -> InvoiceRow:
    """The invoice named in the path. InvoiceUnknown for anything else."""
    invoice_id = request.match_info["id"]
    row = None
    if ids.is_id(invoice_id):
        row = await services(request).db.read(lambda conn: invoices.by_id(conn, invoice_id))
    if row is None:
        raise InvoiceUnknown("There is no invoice with this id.")
    return row


def _signed_sale(row: InvoiceRow, so: str, yet: str) -> None:
    """Back if the sale has its receipt. CreditNoteInvalid if it was not signed; OutcomeUnknown, to be
    tried again, while nobody knows whether it was."""
    if row.state in OPEN_STATES:
        raise OutcomeUnknown(
            f"It is not known yet whether this sale was signed. {yet} yet; try again in a moment.",
            retry_after_s=5,
            extra={"signed": "unknown", "invoiceId": row.id},
        )
    if row.state is not SigningState.SIGNED:
        raise CreditNoteInvalid(f"This sale was not signed, so {so}.")


def confirmed_repeat(request: web.Request) -> str | None:
    """The invoice id of the earlier sale that this one is said not to repeat."""
    earlier = request.headers.get(CONFIRM_HEADER)
    if earlier is not None and not ids.is_id(earlier):
        raise KeyInvalid(
            f"{CONFIRM_HEADER} must be the invoiceId of the earlier sale.",
            errors=[FieldError(f"/{CONFIRM_HEADER}", "KEY_INVALID", "Not an invoice id.")],
        )
    return earlier


def idempotency_key(request: web.Request, *, required: bool) -> str | None:
    """The till's key. KeyMissing, or KeyInvalid for one that is too long or not plain ASCII."""
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys and not required:
        return None
    if not keys:
        raise KeyMissing(
            "The till sent no Idempotency-Key. It must send one key per sale and the same key "
            "again when it tries the same sale again."
        )
    if len(keys) > 1 or not ids.is_key(keys[0]):
        raise KeyInvalid(
            f"Idempotency-Key must be one key of 1 to {ids.KEY_LENGTH_MAX} plain characters.",
            errors=[FieldError("/Idempotency-Key", "KEY_INVALID", "Not a usable key.")],
        )
    return keys[0]


def printer_for(parts: Services, asked: str | None, usual: str | None) -> str | None:
    if asked is None:
        return usual
    if asked == NO_PRINTER:
        return None
    if asked not in parts.printers:
        known = ", ".join(sorted(parts.printers)) or "none is set up"
        raise InvoiceInvalid(
            "There is no such printer. Nothing was signed.",
            errors=[FieldError("/printer", "PRINTER_UNKNOWN", f"Known printers: {known}.")],
        )
    return asked


def signed(row: InvoiceRow, *, replayed: bool = False) -> web.Response:
    """The stored answer of a sale that has its end."""
    assert row.answer is not None and row.answer_status is not None
    return respond(Answer(row.answer_status, row.answer, replayed=replayed))


def respond(answer: Answer) -> web.Response:
    """Status and body as stored; a header says whether this is a replay."""
    kind = "application/json" if answer.status < 400 else "application/problem+json"
    headers = {"Idempotent-Replayed": "true"} if answer.replayed else {}
    return web.Response(status=answer.status, body=answer.body, content_type=kind, headers=headers)
