"""What a print job puts on paper, out of what is stored."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from gateway.clock import from_micros
from gateway.devices.printer import PrinterSetup
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice
from gateway.printing.document import Document
from gateway.printing.layout import Shop, Slip, receipt_document
from gateway.printing.notes import note_document, with_banner
from gateway.printing.report_layout import report_document
from gateway.printing.words import WORDS
from gateway.store import invoices, receipts, unit
from gateway.store.print_jobs import PrintJob

# Columns of font A on the two paper widths.
COLUMNS = {58: 32, 80: 48}
CASH = "01"
# A drawer opens with its sale, or not at all. Microseconds.
DRAWER_MAX_US = 60_000_000


def composer(
    seller: Shop, setup: PrinterSetup
) -> Callable[[sqlite3.Connection, PrintJob, int], Document]:
    """What a job of this printer's queue puts on paper; the last argument is now, in microseconds."""

    def compose(conn: sqlite3.Connection, job: PrintJob, now: int) -> Document:
        # Not the drawer of the till that prints it for another one.
        own = job.meant_for in (None, job.printer)
        drawer = own and setup.drawer_pin is not None and now - job.created_at < DRAWER_MAX_US
        document = _document(conn, job, seller, setup, drawer)
        if job.meant_for is not None and job.meant_for != job.printer:
            banner = WORDS[seller.language].meant_for.format(job.meant_for.upper())
            return with_banner(banner, document, setup.columns)
        return document

    return compose


def _document(
    conn: sqlite3.Connection, job: PrintJob, seller: Shop, setup: PrinterSetup, drawer: bool
) -> Document:
    if job.kind == "REPORT":
        return report_document(json.loads(job.body or b"{}"), setup.columns, seller.language)
    if job.invoice_id is None:
        return note_document((job.body or b"").decode(), setup.columns)
    original = job.kind == "ORIGINAL"
    return compose(
        conn, job.invoice_id, job.copy_no, seller, setup.columns, setup.paper_mm,
        drawer=drawer and original,
    )  # fmt: skip


def compose(
    conn: sqlite3.Connection,
    invoice_id: str,
    copy_no: int,
    seller: Shop,
    columns: int,
    paper_mm: int,
    *,
    drawer: bool = False,
) -> Document:
    """The slip of a signed sale. `drawer`: open it if cash was paid."""
    row = invoices.by_id(conn, invoice_id)
    receipt = receipts.by_invoice(conn, invoice_id)
    assert row is not None
    assert receipt is not None
    invoice = invoice_json.from_json(row.document)
    slip = Slip(
        invoice=invoice,
        receipt=receipt.receipt,
        sold_at=from_micros(row.created_at),
        rates=unit.load_rates(conn),
        copy_no=copy_no,
        drawer=drawer and is_cash(invoice),
    )
    return receipt_document(slip, seller, columns=columns, paper_mm=paper_mm)


def is_cash(invoice: Invoice) -> bool:
    return any(payment.code == CASH for payment in invoice.payments)
