"""The one signer: takes claimed sales in order, one at a time, through the unit and into the store.

Guarantees one sale, one receipt: number and bytes are durable before the first byte leaves; an
answer is durable before a till hears of it; an outcome that is not known stops the line until the
resolver or a person has settled it. Under load the commit of one sale and the write-ahead of the
next share one transaction, so a sale costs one fsync. Run by the supervisor as one task; fed by
`fiscal/intake.py`.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence

from gateway.clock import Clock, from_micros, micros
from gateway.domain import invoice_json
from gateway.domain.outcome import Duplicate, NotSent, Refused, SaleOutcome, Signed, Unknown
from gateway.domain.signing import FINAL_STATES, OPEN_STATES, SigningState
from gateway.errors import (
    AlreadyCredited,
    GatewayError,
    OutcomeUnknown,
    ShuttingDown,
    StoreError,
    UnitRefused,
    UnitUnavailable,
)
from gateway.fiscal.commit import Committer
from gateway.fiscal.evidence import FACTS
from gateway.fiscal.identity import not_fresh, not_now
from gateway.fiscal.job import Answer, Begun, Job, Settlement
from gateway.fiscal.not_signed import maybe_signed, not_signed
from gateway.fiscal.ports import (
    AfterCommit,
    Gate,
    MaySign,
    MismatchSink,
    RenderProblem,
    SaleEncoder,
    SalesUnit,
)
from gateway.fiscal.resolver import Resolver
from gateway.fiscal.rules import Circumstances, Verdict, verdict
from gateway.store import events, invoices, unit
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow, Sending

log = logging.getLogger(__name__)

# A store that refuses (disk full) is asked again this often while a signed answer waits in memory
# for its commit: seconds, because someone may be freeing space right now.
COMMIT_RETRY_S = 1.0


def restarting(invoice_id: str) -> ShuttingDown:
    """Return the refusal of a sale that was not begun before the gateway's stop."""
    return ShuttingDown(
        "The gateway is restarting; this sale is not signed. Try again.",
        retry_after_s=5,
        extra={"signed": "no", "invoiceId": invoice_id},
    )


class Signer:
    """Owns the line of sales waiting for the unit. `run` is its only loop."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        unit: SalesUnit,
        encode: SaleEncoder,
        gate: Gate,
        committer: Committer,
        resolver: Resolver,
        render_problem: RenderProblem,
        after_commit: Sequence[AfterCommit] = (),
        heard: Callable[[SaleOutcome], None] = lambda outcome: None,
        may_sign: MaySign = lambda conn, row, invoice: None,
        mismatch: MismatchSink,
        queue_max: int = 500,
        unit_life: str | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._unit = unit
        self._encode = encode
        self.gate = gate
        self._committer = committer
        self._resolver = resolver
        self._render_problem = render_problem
        self._after_commit = tuple(after_commit)
        self._heard = heard
        self._may_sign = may_sign
        self._queue_max = queue_max
        self._mismatch = mismatch
        self._unit_life = unit_life
        self._line: OrderedDict[str, Job] = OrderedDict()
        self._jobs: dict[str, Job] = {}
        self._arrived = asyncio.Event()
        # Why no new sale can be signed, in a sentence for a cashier; None while all is well.
        self.blocked: str | None = None
        # Since when one sale is in hand, by CLOCK_BOOTTIME; None while the line is empty. In doubt or
        # on a full disk that may be long; else the watchdog asks how long.
        self.busy_since_ns: int | None = None
        self._stopping = False
        # A sale is being cleared up; a stop need not wait for its end, the store knows it is open.
        self.in_doubt = False

    # --- the line, used by intake on the same loop ------------------------------------------------

    def job(self, invoice_id: str) -> Job | None:
        return self._jobs.get(invoice_id)

    def enqueue(self, invoice_id: str) -> Job | None:
        """Return a place in the line for a RECEIVED invoice; None when the line is full. Raise ShuttingDown
        after `stop`."""
        if self._stopping:
            raise restarting(invoice_id)
        if len(self._line) >= self._queue_max:
            return None
        job = self._new_job(invoice_id)
        self._line[invoice_id] = job
        self._arrived.set()
        return job

    def withdraw(self, job: Job) -> bool:
        """Take a job out of the line; False when its bytes may already be on their way."""
        if job.begun or self._line.pop(job.invoice_id, None) is None:
            return False
        self._jobs.pop(job.invoice_id, None)
        return True

    @property
    def waiting(self) -> int:
        return len(self._line)

    def _new_job(self, invoice_id: str) -> Job:
        job = Job(invoice_id, asyncio.get_running_loop().create_future())
        self._jobs[invoice_id] = job
        return job

    def _end(self, job: Job, result: Answer | GatewayError) -> None:
        self._jobs.pop(job.invoice_id, None)
        job.finish(result)

    def stop(self) -> None:
        """No further sale is begun; `run` ends when the one in hand is settled."""
        self._stopping = True
        for job in list(self._line.values()):
            if self.withdraw(job):
                job.finish(restarting(job.invoice_id))
        self._arrived.set()

    # --- the loop -----------------------------------------------------------------------------------

    async def recover(self) -> InvoiceRow | None:
        """The sale that was in hand when the process ended, as IN_DOUBT; None if there was none.

        Called once before `run`, and before the first till is listened to: whoever asks for this
        sale finds it in hand. Nothing is sent here.
        """

        def doubt(conn: sqlite3.Connection) -> InvoiceRow | None:
            row = invoices.open_row(conn)
            if row is not None and row.state is SigningState.SIGNING:
                at = self._now()
                invoices.fall_into_doubt(conn, row, unit_answer=None, at=at)
                self._story(
                    conn, row, "invoice.in_doubt", {"reason": "the gateway ended meanwhile"}
                )
                row = invoices.open_row(conn)
            return row

        row = await self._db.write(doubt)
        if row is not None:
            self._new_job(row.id).begun = True
        return row

    async def run(self) -> None:
        """Sign until `stop`. Whatever ends it, the store shows what is open."""
        row = await self._db.read(invoices.open_row)
        if row is not None:
            await self._clear_doubt(row, self._jobs[row.id])
        settlement: Settlement | None = None
        while True:
            job = await self._next_job(wait=settlement is None)
            if job is None:
                if settlement is not None:
                    await self._commit(settlement)
                    settlement = None
                elif self._stopping:
                    return
                continue
            begun = await self._begin_after(settlement, job)
            settlement = None
            if begun is not None:
                settlement = await self._sign(begun, job)

    async def _next_job(self, *, wait: bool) -> Job | None:
        self.busy_since_ns = None
        while not self._line:
            if not wait or self._stopping:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self.busy_since_ns = self._clock.boottime_ns()
        _, job = self._line.popitem(last=False)
        job.begun = True
        return job

    async def _begin_after(self, settlement: Settlement | None, job: Job) -> Begun | None:
        """Commit the sale before and write this one ahead, in one transaction where both can be."""
        try:
            self.gate()
        except GatewayError as refusal:
            self._end(job, refusal)
            if settlement is not None:
                await self._commit(settlement)
            return None

        def both(conn: sqlite3.Connection) -> Begun | Answer | GatewayError:
            if settlement is not None:
                settlement.apply(conn)
            return self._write_ahead(conn, job)

        try:
            result = await self._db.write(both)
        except (StoreError, sqlite3.Error, ValueError) as error:
            # The new sale must not cost the signed one its commit: each on its own from here.
            log.error("sale.write_ahead_failed invoice=%s error=%s", job.invoice_id, error)
            if settlement is not None:
                await self._commit(settlement)
            self._end(job, self._not_written(error, job))
            return None
        if settlement is not None:
            self._publish(settlement)
        if isinstance(result, Begun):
            return result
        self._end(job, result)
        return None

    def _not_written(self, error: Exception, job: Job) -> GatewayError:
        if self._db.broken is not None:
            # A failed fsync does not say what the disk holds: the next start may find the sale written
            # ahead, and take it up.
            return OutcomeUnknown(
                "The disk failed while writing. Call the technician. Do not ring this sale up again: "
                "send it with the same key.",
                retry_after_s=10,
                extra={"signed": "unknown", "invoiceId": job.invoice_id},
            )
        told = (
            error if isinstance(error, GatewayError) else StoreError("The store refused this sale.")
        )
        told.extra.setdefault("signed", "no")
        return told

    def _write_ahead(self, conn: sqlite3.Connection, job: Job) -> Begun | Answer | GatewayError:
        row = invoices.by_id(conn, job.invoice_id)
        assert row is not None
        if row.state in FINAL_STATES:
            assert row.answer is not None and row.answer_status is not None
            return Answer(row.answer_status, row.answer, replayed=True)
        if row.state in OPEN_STATES:
            raise AssertionError(f"{row.id} is open outside the signer")
        if row.original_id is not None:
            other = invoices.credit_note_of(conn, row.original_id)
            if other is not None:
                return AlreadyCredited(
                    "This sale already has a credit note. A sale can be cancelled once.",
                    extra={"creditNoteId": other.id},
                )
        invoice = invoice_json.from_json(row.document)
        refusal = self._may_sign(conn, row, invoice)
        if refusal is not None:
            refusal.extra.setdefault("invoiceId", row.id)
            return refusal
        number = unit.next_invc_no(conn)
        # Never a time before the predecessor's, whatever the clock was set to meanwhile.
        stamp = unit.rising_stamp(conn, self._now())
        body = self._encode(invoice, invc_no=number, at=from_micros(stamp), invoice_id=row.id)
        at = self._now()
        sending = Sending(self._unit_life, self._clock.boot_id(), self._clock.boottime_ns())
        invoices.write_ahead(conn, row, invc_no=number, unit_request=body, sending=sending, at=at)
        self._story(conn, row, "invoice.signing", {"invcNo": number})
        fresh = invoices.by_id(conn, row.id)
        assert fresh is not None
        return Begun(fresh, invoice, body)

    async def _sign(self, begun: Begun, job: Job) -> Settlement | None:
        """Put the bytes on the wire and plan what their answer means. None: settled already."""
        try:
            # The fsync may have taken its time; the ceiling is asked again right before the wire.
            self.gate()
        except GatewayError as refusal:
            return self._not_taken(begun, job, refusal, "stopped before the wire")
        outcome = await self._fitting(begun, await self._unit.send_sale(begun.body))
        self._heard(outcome)
        settlement = self._plan(begun, job, outcome)
        if settlement is not None:
            return settlement
        await self._fall_into_doubt(begun, outcome)
        await self._clear_doubt(begun.row, job)
        return None

    async def _fitting(self, begun: Begun, outcome: SaleOutcome) -> SaleOutcome:
        """Return the outcome; Unknown in place of a receipt that cannot be this sale's (rule `fresh`)."""
        if not isinstance(outcome, Signed):
            return outcome
        why = not_now(begun.row, outcome.data) or await self._db.read(
            lambda conn: not_fresh(conn, outcome.data)
        )
        return outcome if why is None else Unknown(why, "000", outcome.raw)

    def _plan(self, begun: Begun, job: Job, outcome: SaleOutcome) -> Settlement | None:
        """Return how the sale ends, by what the answer to its first sending proves (fiscal/rules.py)."""
        proves = verdict(FACTS[type(outcome)], Circumstances(first=True))
        match proves, outcome:
            case Verdict.SIGNED, Signed(data=data, raw=raw):
                plan = self._committer.plan(begun.row, begun.invoice, data, raw, how="ANSWER")

                def signed() -> None:
                    plan.publish()
                    self._end(job, Answer(plan.status, plan.body))

                return Settlement(plan.apply, signed)
            case Verdict.REJECTED, Refused(cause=None):
                return self._rejected(begun, job, outcome)
            case ((Verdict.REJECTED | Verdict.NOT_SIGNED), (Refused() | NotSent())):
                refusal, reason = not_signed(outcome)
                return self._not_taken(begun, job, refusal, reason)
            case Verdict.MISMATCH, Duplicate():
                return self._mismatched(begun, job, outcome)
            case _:
                return None

    def _rejected(self, begun: Begun, job: Job, refused: Refused) -> Settlement:
        row = begun.row
        error = UnitRefused(
            f"The control unit refused this invoice: {refused.message or refused.code}. "
            "Correct it and send it as a new sale.",
            extra={"unitCode": refused.code, "unitMessage": refused.message, "signed": "no"},
        )
        status, body = self._render_problem(error, row.id)

        def apply(conn: sqlite3.Connection) -> None:
            at = self._now()
            invoices.settle_rejected(
                conn, row, unit_answer=refused.raw, answer_status=status, answer=body, at=at
            )
            self._story(
                conn, row, "invoice.rejected", {"code": refused.code, "message": refused.message}
            )

        log.warning("invoice.rejected invoice=%s code=%s", row.id, refused.code)
        return Settlement(apply, lambda: self._end(job, Answer(status, body)))

    def _mismatched(self, begun: Begun, job: Job, duplicate: Duplicate) -> Settlement:
        """A fresh number is used in the unit: this store lacks sales (rule `dupfirst`).

        The sale itself was not signed by this sending, but an earlier one that this store lost may have
        been. So its key is quarantined, and signing is held.
        """
        row = begun.row
        reason = (
            f"the control unit already has a sale under invoice number {row.invc_no}, which this store "
            f"has never used ({duplicate.message or duplicate.code})"
        )

        def apply(conn: sqlite3.Connection) -> None:
            invoices.found_unsigned(conn, row, at=self._now())
            self._mismatch.mismatch(conn, row, reason)

        def publish() -> None:
            self._mismatch.mismatch_published(reason)
            self._end(job, maybe_signed())

        log.critical("invoice.number_used invoice=%s invcNo=%s", row.id, row.invc_no)
        return Settlement(apply, publish)

    def _not_taken(self, begun: Begun, job: Job, refusal: GatewayError, reason: str) -> Settlement:
        def apply(conn: sqlite3.Connection) -> None:
            invoices.found_unsigned(conn, begun.row, at=self._now())
            self._story(conn, begun.row, "invoice.not_sent", {"reason": reason})

        log.warning("invoice.not_sent invoice=%s reason=%s", begun.row.id, reason)
        return Settlement(apply, lambda: self._end(job, refusal))

    # --- doubt -----------------------------------------------------------------------------------

    async def _fall_into_doubt(self, begun: Begun, outcome: SaleOutcome) -> None:
        raw = getattr(outcome, "raw", None)
        code = getattr(outcome, "code", None)
        reason = getattr(outcome, "reason", None) or getattr(outcome, "message", "")
        row = begun.row

        def apply(conn: sqlite3.Connection) -> None:
            link = getattr(outcome, "link", False)
            invoices.fall_into_doubt(conn, row, unit_answer=raw, link_trouble=link, at=self._now())
            self._story(conn, row, "invoice.in_doubt", {"reason": reason, "code": code})

        log.error("invoice.in_doubt invoice=%s code=%s reason=%s", row.id, code, reason)
        await self._commit(Settlement(apply))

    async def _clear_doubt(self, row: InvoiceRow, job: Job) -> None:
        """Stay here until evidence or a person has settled the open sale."""
        self.blocked = "An earlier sale is being cleared up with the control unit."
        self.in_doubt = True
        try:
            result = await self._resolver.settle(row.id, self._tell_waiters(job))
        finally:
            self.blocked = None
            self.in_doubt = False
        for hook in self._after_commit:
            hook()
        if isinstance(result, GatewayError):
            self._end(job, result)
        else:
            self._end(job, Answer(result.answer_status or 500, result.answer or b""))

    def _tell_waiters(self, job: Job) -> Callable[[str], None]:
        """What the resolver calls when it may take longer: everybody in the line is told now."""

        def tell(sentence: str) -> None:
            self.blocked = sentence
            for other in list(self._line.values()):
                if self.withdraw(other):
                    other.finish(
                        UnitUnavailable(
                            f"{sentence} This sale is not signed.",
                            retry_after_s=10,
                            extra={"signed": "no"},
                        )
                    )
            # The job keeps its place: whoever asks with this key until the end gets the same word.
            job.finish(
                OutcomeUnknown(
                    f"{sentence} Do not ring this sale up again: send it with the same key.",
                    retry_after_s=10,
                    extra={"signed": "unknown", "invoiceId": job.invoice_id},
                )
            )

        return tell

    # --- the store ---------------------------------------------------------------------------------

    async def _commit(self, settlement: Settlement) -> None:
        """Write a settlement; a full disk is waited out, because the unit has already signed."""
        while True:
            try:
                await self._db.write(settlement.apply)
                break
            except StoreError as error:
                if self._db.broken is not None:
                    self.blocked = error.detail
                    raise
                if self.blocked is None:
                    log.critical("sale.commit_waits error=%s", error.detail)
                self.blocked = error.detail
                await self._clock.sleep(COMMIT_RETRY_S)
        self.blocked = None
        self._publish(settlement)

    def _publish(self, settlement: Settlement) -> None:
        settlement.publish()
        for hook in self._after_commit:
            hook()

    def _story(
        self, conn: sqlite3.Connection, row: InvoiceRow, kind: str, data: dict[str, object]
    ) -> None:
        events.record(
            conn, at=self._now(), kind=kind, subject=row.id, till_id=row.till_id, data=data
        )

    def _now(self) -> int:
        return micros(self._clock.now())
