"""Turns a signed answer into the one transaction that makes it a receipt, for ever.

Receipt row with its hash-chain link, the invoice's final state, the till's answer, the outbox
record, the print job and the ceiling's stopwatch are committed together or not at all.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.clock import Clock, compact, from_compact, micros
from gateway.domain.invoice import Invoice
from gateway.domain.outcome import SignedData
from gateway.domain.receipt import Receipt
from gateway.domain.signing import SigningEvent
from gateway.fiscal.answer import qr_of, signed_body
from gateway.fiscal.ports import AnswerExtras, CommitHook, MismatchSink, SignedSale
from gateway.store import events, invoices, meta, receipts, unit
from gateway.store.invoices import InvoiceRow

log = logging.getLogger(__name__)

STATUS_CREATED = 201
# Printed and stored when neither the answer nor the init told the unit's id (etims.md 12, item 9).
SDC_ID_UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose receipts these are: what the QR needs."""

    pin: str
    branch_id: str
    portal: str


@dataclass(slots=True)
class CommitPlan:
    """A commit that has not happened yet; `body` is the till's answer once `apply` has run."""

    apply_to: Committer
    row: InvoiceRow
    invoice: Invoice
    data: SignedData
    raw: bytes
    how: str
    status: int = STATUS_CREATED
    body: bytes = field(default=b"")
    # Why signing must stop after this receipt; set by `apply`.
    gap: str | None = None

    def apply(self, conn: sqlite3.Connection) -> None:
        self.body = self.apply_to.commit(conn, self)

    def publish(self) -> None:
        """Put into force what the commit found, after it."""
        if self.gap is not None:
            self.apply_to.publish_gap(self.gap)


class Committer:
    """Knows everything that belongs to the commit of a signed sale."""

    def __init__(
        self,
        *,
        clock: Clock,
        identity: Identity,
        hooks: Sequence[CommitHook] = (),
        extras: AnswerExtras = dict,
        mismatch: MismatchSink | None = None,
    ) -> None:
        self._clock = clock
        self._identity = identity
        self._hooks = tuple(hooks)
        self._extras = extras
        # Set once the watch exists that it reports to.
        self.mismatch = mismatch

    def plan(
        self, row: InvoiceRow, invoice: Invoice, data: SignedData, raw: bytes, *, how: str
    ) -> CommitPlan:
        """`how` the receipt became known: ANSWER, RECOVERED (evidence) or PERSON."""
        return CommitPlan(self, row, invoice, data, raw, how)

    def commit(self, conn: sqlite3.Connection, plan: CommitPlan) -> bytes:
        """Everything of one signed sale, inside the caller's transaction; the till's body."""
        row, data = plan.row, plan.data
        assert row.invc_no is not None
        at = micros(self._clock.now())
        device = unit.device(conn)
        receipt = Receipt(
            label=row.label,
            invc_no=row.invc_no,
            rcpt_no=data.rcpt_no,
            tot_rcpt_no=data.tot_rcpt_no,
            sdc_id=data.sdc_id or device["sdc_id"] or SDC_ID_UNKNOWN,
            mrc_no=data.mrc_no or device["mrc_no"],
            intrl_data=data.intrl_data,
            rcpt_sign=data.rcpt_sign,
            scu_time=data.scu_time,
        )
        plan.gap = self._note_oddities(conn, row, receipt, at)
        chain_hash = receipts.append(
            conn,
            invoice_id=row.id,
            receipt=receipt,
            total_cents=row.total_cents,
            how=plan.how,
            at=at,
        )
        who = self._identity
        recovered = plan.how != "ANSWER"
        body = signed_body(
            invoice_id=row.id,
            till_id=row.till_id,
            invoice=plan.invoice,
            receipt=receipt,
            qr=qr_of(receipt, pin=who.pin, branch_id=who.branch_id, base=who.portal),
            chain_hash=chain_hash,
            printer=row.printer,
            recovered=recovered,
            extras=self._extras(),
        )
        invoices.settle_signed(
            conn,
            row,
            event=SigningEvent.FOUND_SIGNED if recovered else SigningEvent.ANSWERED,
            unit_answer=plan.raw,
            answer_status=plan.status,
            answer=body,
            at=at,
        )
        unit.use_up(conn, row.invc_no, at=at)
        unit.remember_device(conn, sdc_id=data.sdc_id, mrc_no=data.mrc_no, at=at)
        events.record(
            conn,
            at=at,
            kind="receipt.signed",
            subject=row.id,
            till_id=row.till_id,
            data={
                "cuInvoiceNo": receipt.cu_invoice_no,
                "counter": receipt.counter,
                "invcNo": receipt.invc_no,
                "recovered": recovered,
            },
        )
        sale = SignedSale(row, plan.invoice, receipt, chain_hash, at, plan.how)
        for hook in self._hooks:
            hook(conn, sale)
        return body

    def _note_oddities(
        self, conn: sqlite3.Connection, row: InvoiceRow, receipt: Receipt, at: int
    ) -> str | None:
        """Record a gap in the unit's counter and a step back of its clock; the receipt itself is good.

        Returns why signing must stop after it: receipts that this store does not know stand between the
        last one and this one, so sales are missing here or something else signs with this unit (A2).
        """
        before = receipts.last(conn)
        if before is None or before.sdc_id != receipt.sdc_id:
            return None
        gap = None
        if receipt.tot_rcpt_no != before.tot_rcpt_no + 1:
            self._odd(
                conn,
                row,
                at,
                "unit.counter_gap",
                {"after": before.tot_rcpt_no, "got": receipt.tot_rcpt_no},
            )
            gap = self._counter_gap(conn, before.tot_rcpt_no, receipt.tot_rcpt_no)
        if receipt.scu_time < from_compact(before.scu_time):
            self._odd(
                conn,
                row,
                at,
                "unit.time_went_back",
                {"after": before.scu_time, "got": compact(receipt.scu_time)},
            )
        accounted = meta.get(conn, meta.COUNTER_OPEN)
        if accounted is not None and receipt.invc_no >= int(accounted):
            meta.remove(conn, meta.COUNTER_OPEN)
        return gap

    def _counter_gap(self, conn: sqlite3.Connection, before: int, got: int) -> str | None:
        """Store the hold, unless a person has just accounted for the unit's receipts."""
        if self.mismatch is None or meta.get(conn, meta.COUNTER_OPEN) is not None:
            return None
        between = got - before - 1
        reason = (
            f"the control unit gave {between} receipt{'' if between == 1 else 's'} between {before} and "
            f"{got} that this store does not know: something else signs with this unit, or sales are "
            "missing here"
        )
        self.mismatch.counter_gap(conn, reason)
        return reason

    def publish_gap(self, reason: str) -> None:
        """Put the hold of a counter gap in force."""
        if self.mismatch is not None:
            self.mismatch.mismatch_published(reason)

    def _odd(
        self, conn: sqlite3.Connection, row: InvoiceRow, at: int, kind: str, data: dict[str, object]
    ) -> None:
        log.error("%s invoice=%s %s", kind, row.id, data)
        events.record(conn, at=at, kind=kind, subject=row.id, data=data)
