"""Receipts put into a store as the commit of a sale does it, without a unit: for tests of what is summed."""

from __future__ import annotations

import sqlite3

from gateway.clock import Clock, micros
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice
from gateway.domain.receipt import Receipt
from gateway.domain.signing import SigningEvent
from gateway.ids import new_id
from gateway.money import cents
from gateway.store import invoices, receipts
from gateway.store.invoices import NewInvoice

SENDING = invoices.Sending("in-process:test", "boot", 1)


class Book:
    """Numbers the receipts; the SCU's clock is the gateway's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._count = 0

    def begin(self, conn: sqlite3.Connection, invoice: Invoice) -> invoices.InvoiceRow:
        """A sale that the till asked for and nobody has signed."""
        self._count += 1
        at = micros(self._clock.now())
        new = NewInvoice(
            id=new_id(at), till_id="till-1", idem_key=f"k{self._count}", body_digest="0" * 64,
            label=invoice.label, original_id=None, till_receipt_no=f"P{self._count}",
            total_cents=cents(invoice.total), request=b"{}",
            document=invoice_json.to_json(invoice), printer=None, at=at,
        )  # fmt: skip
        return invoices.claim(conn, new).row

    def sign(self, conn: sqlite3.Connection, row: invoices.InvoiceRow) -> None:
        at = micros(self._clock.now())
        number = self._count
        invoices.write_ahead(conn, row, invc_no=number, unit_request=b"x", sending=SENDING, at=at)
        open_row = invoices.open_row(conn)
        assert open_row is not None
        receipts.append(
            conn,
            invoice_id=row.id,
            receipt=Receipt(
                label=row.label, invc_no=number, rcpt_no=number, tot_rcpt_no=number,
                sdc_id="KRACU0100000001", mrc_no=None, intrl_data="I", rcpt_sign=f"S{number}",
                scu_time=self._clock.now(),
            ),
            total_cents=row.total_cents, how="ANSWER", at=at,
        )  # fmt: skip
        invoices.settle_signed(
            conn, open_row, event=SigningEvent.ANSWERED, unit_answer=b"{}", answer_status=201,
            answer=b"{}", at=at,
        )  # fmt: skip

    def sell(self, conn: sqlite3.Connection, invoice: Invoice) -> str:
        row = self.begin(conn, invoice)
        self.sign(conn, row)
        return row.id
