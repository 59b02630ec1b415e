"""Where a till's sale enters: claim by INSERT, wait for the signer, replay what was answered.

A request never signs. It claims its key, takes a place in the line and waits; the till hanging up
cancels only the waiting. Called by `api/` and by every other way in (serial till, capture).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from gateway import ids
from gateway.clock import Clock, micros
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice
from gateway.domain.signing import FINAL_STATES, OPEN_STATES, SigningState
from gateway.errors import (
    FieldError,
    GatewayError,
    KeyInvalid,
    KeyReused,
    StillWaiting,
    StoreError,
    TooManyWaiting,
    UnitUnavailable,
)
from gateway.fiscal.job import Answer, Job
from gateway.fiscal.ports import Gate, MayBegin
from gateway.fiscal.repeats import (
    CONFIRM_HEADER,
    FOREVER_US,
    Repeats,
    fingerprint,
    likely_repeat,
    refusal,
)
from gateway.fiscal.signer import Signer
from gateway.money import cents
from gateway.store import checkouts, events, fingerprints, invoices
from gateway.store.database import Database
from gateway.store.invoices import Claim, InvoiceRow, NewInvoice
from gateway.store.unclear_keys import SaleName, names_of

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Submission:
    """One validated sale from one till. `request` is its body as it came, kept as evidence."""

    till_id: str
    idem_key: str
    body_digest: str
    request: bytes
    invoice: Invoice
    printer: str | None
    original_id: str | None = None
    # The earlier sale that this one is said not to repeat.
    confirms: str | None = None


def _same_sale(row: InvoiceRow, body_digest: str) -> None:
    if row.body_digest != body_digest:
        raise KeyReused(
            "This key was already used for a different sale. Send the sale with a new key.",
            extra={"invoiceId": row.id},
        )


def _not_paid_for_apart(conn: sqlite3.Connection, new: NewInvoice) -> None:
    """A sale that waits for its M-Pesa money has this key, too."""
    other = checkouts.by_key(conn, new.till_id, new.idem_key)
    if other is not None and other.body_digest != new.body_digest:
        raise KeyReused(
            "This key was already used for a different sale. Send the sale with a new key.",
            extra={"checkoutId": other.id},
        )


class _Open(Exception):
    """An earlier sending of this sale has no outcome yet; the transaction of the claim is taken back."""

    def __init__(self, row: InvoiceRow) -> None:
        super().__init__(row.id)
        self.row = row


def _another_key() -> StillWaiting:
    return StillWaiting(
        "A sale with this receipt number and the same content is being signed under another key. Ask again in a "
        "moment; do not ring it up again.",
        retry_after_s=2,
        extra={"signed": "unknown"},
    )


def _unless_repeat(earlier: InvoiceRow | None) -> None:
    if earlier is None:
        return
    if earlier.state in OPEN_STATES:
        raise _Open(earlier)
    raise refusal(earlier)


class Intake:
    """The only caller of `claim`."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        signer: Signer,
        wait_s: float,
        gate: Gate,
        may_begin: MayBegin,
        repeats: Repeats,
        keyless_window_s: float = 86_400,
    ) -> None:
        self._db = db
        self._clock = clock
        self._signer = signer
        self._wait_s = wait_s
        self._gate = gate
        self._may_begin = may_begin
        self.repeats = repeats
        # Keys of the requests that are at work now, by till and fingerprint.
        self._working: dict[tuple[str, str], list[str]] = {}
        self._keyless_window_us = int(keyless_window_s * 1_000_000)

    @property
    def takes_keyless(self) -> bool:
        return self._keyless_window_us > 0

    async def submit(self, sale: Submission) -> Answer:
        """The committed answer, new or replayed.

        KeyReused for another body under the same key; StillWaiting (202) when the outcome is not
        known in time; otherwise the reason why it is not signed.
        """
        if sale.confirms is not None:
            await self._confirmed(sale, sale.confirms)
        came_ns = self._clock.boottime_ns()
        with self._at_work(sale, sale.idem_key) as others:
            if others:
                raise _another_key()
            while True:
                answer = await self._submit(sale, came_ns)
                if not isinstance(answer, InvoiceRow):
                    return answer
                # Another key has this receipt number and body, and is open: its end decides about this one.
                await self._outcome(answer, came_ns)

    @contextmanager
    def _at_work(self, sale: Submission, key: str) -> Iterator[bool]:
        """Note a request of this till receipt; yield whether one with another key is at work now."""
        if not self.repeats.applies(sale):
            yield False
            return
        name = (sale.till_id, fingerprint(sale.invoice.till_receipt_no, sale.body_digest))
        keys = self._working.setdefault(name, [])
        others = any(other != key for other in keys)
        keys.append(key)
        try:
            yield others
        finally:
            keys.remove(key)
            if not keys:
                self._working.pop(name, None)

    async def _submit(self, sale: Submission, came_ns: int) -> Answer | InvoiceRow:
        """Claim and wait; the sale that must end first, where there is one. LikelyRepeat for one that has."""
        new = self._row_of(sale)
        # A clock that is wrong makes every earlier sale look old: the cashier is asked. Whether it is wrong is only known
        # for certain once nothing keeps the gate closed.
        window_us = None if self._refusal() is None else FOREVER_US
        mark = fingerprint(new.till_receipt_no, new.body_digest)

        def record(conn):  # type: ignore[no-untyped-def]
            before = fingerprints.holder(conn, new.till_id, mark)
            claimed = invoices.claim(conn, new)
            if claimed.won or claimed.row.state is SigningState.RECEIVED:
                earlier = self.repeats.claim(conn, claimed.row, sale.confirms, window_us=window_us)
                _unless_repeat(earlier)
            if claimed.won:
                _not_paid_for_apart(conn, new)
                events.record(
                    conn,
                    at=new.at,
                    kind="invoice.received",
                    subject=new.id,
                    till_id=new.till_id,
                    data={"label": new.label, "tillReceiptNo": new.till_receipt_no},
                )
            return claimed, before

        claimed: Claim
        before: InvoiceRow | None
        try:
            claimed, before = await self._claimed(record)
        except StoreError:
            # Nothing can be claimed; what was told before is still told.
            earlier = await self.again(sale.till_id, sale.idem_key, sale.body_digest)
            if earlier is not None:
                return earlier
            if sale.confirms is None and self.repeats.applies(new):
                await self._unless_signed(new, window_us or self.repeats.window_us)
            await self._unless_quarantined(new, came_ns)
            raise
        except _Open as open_:
            return open_.row
        if not claimed.won:
            _same_sale(claimed.row, sale.body_digest)
        in_line = before is not None and before.id != claimed.row.id and self.repeats.applies(new)
        if in_line and before is not None and self._signer.job(before.id) is not None:
            # Its till has gone, its place in the line has not.
            return before
        return await self._outcome(claimed.row, came_ns)

    async def _unless_signed(self, new: NewInvoice, window_us: int) -> None:
        """Raise LikelyRepeat, or that its outcome is not known, for a sale that came before under another key and
        cannot be claimed now."""
        mark = fingerprint(new.till_receipt_no, new.body_digest)
        since = new.at - window_us

        def find(conn):  # type: ignore[no-untyped-def]
            return invoices.by_fingerprint(conn, new.till_id, mark, since=since)

        row: InvoiceRow | None = await self._db.read(find)
        if row is None:
            return
        # Its till has gone, its place in the signer's line has not.
        in_line = row.state is SigningState.RECEIVED and self._signer.job(row.id) is not None
        if row.state in OPEN_STATES or in_line:
            await self._outcome(row, self._clock.boottime_ns())
            row = await self._db.read(find)
        if row is not None and row.state is SigningState.SIGNED:
            raise likely_repeat(row)

    async def _confirmed(self, sale: Submission, confirms: str) -> None:
        """Raise KeyInvalid where `confirms` names no earlier sending of this sale."""
        earlier = await self._stored(confirms)
        if earlier is None or (earlier.till_id, earlier.body_digest) != (
            sale.till_id,
            sale.body_digest,
        ):
            # Any id would do as a key otherwise, and a till that makes one up sells twice.
            raise KeyInvalid(
                f"{CONFIRM_HEADER} must be the invoiceId of the earlier sale that this one repeats.",
                errors=[FieldError(f"/{CONFIRM_HEADER}", "KEY_INVALID", "Not that sale.")],
            )

    async def again(self, till_id: str, idem_key: str, body_digest: str) -> Answer | None:
        """The answer of a sale that was begun before, for a body that could not be claimed now; None
        when the key is new or nothing was signed under it. KeyReused for another body."""
        row = await self._db.read(lambda conn: invoices.by_key(conn, till_id, idem_key))
        if row is None:
            return None
        _same_sale(row, body_digest)
        return await self._begun(row)

    async def again_keyless(
        self, till_id: str, till_receipt_no: object, body_digest: str, confirms: str | None
    ) -> Answer | None:
        """As `again`, for a till that sends no key: LikelyRepeat when it is signed. The number may be
        anything, as the body has it."""
        if confirms is not None:
            return await self.again(till_id, ids.confirmed_key(body_digest, confirms), body_digest)
        mark = fingerprint(till_receipt_no, body_digest)
        return await self._marked(till_id, mark, self._keyless_window_us)

    async def _marked(self, till_id: str, mark: str, window_us: int) -> Answer | None:
        """Return what became of the sale that has this fingerprint; LikelyRepeat when it is signed."""
        since = micros(self._clock.now()) - window_us
        row = await self._db.read(
            lambda conn: invoices.by_fingerprint(conn, till_id, mark, since=since)
        )
        if row is not None and row.state is SigningState.SIGNED:
            raise likely_repeat(row)
        return None if row is None else await self._begun(row)

    async def _begun(self, row: InvoiceRow) -> Answer | None:
        """What became of it; None when nothing was signed and nobody is about to."""
        if row.state is SigningState.RECEIVED and self._signer.job(row.id) is None:
            return None
        return await self._outcome(row, self._clock.boottime_ns())

    async def submit_keyless(self, sale: Submission, confirms: str | None = None) -> Answer:
        """A sale without a key: till, its receipt number and the body make one, within a window.

        Sent again before it was settled, it is the same sale. Once it is signed, LikelyRepeat, until
        the till names the earlier invoice in `confirms` and so says that this is another sale.
        """
        if confirms is not None:
            await self._confirmed(sale, confirms)
            key = ids.confirmed_key(sale.body_digest, confirms)
            return await self.submit(replace(sale, idem_key=key))
        with self._at_work(sale, ""):
            return await self._submit_keyless(sale)

    async def _submit_keyless(self, sale: Submission) -> Answer:
        came_ns = self._clock.boottime_ns()
        mark = fingerprint(sale.invoice.till_receipt_no, sale.body_digest)
        new = self._row_of(sale)
        new = replace(new, idem_key=ids.keyless_key(mark, new.at))
        refusal = self._refusal()
        # A clock that is wrong makes every earlier sale look old: the cashier is asked.
        window_us = self._keyless_window_us if refusal is None else FOREVER_US

        def record(conn):  # type: ignore[no-untyped-def]
            earlier = invoices.claim_keyless(conn, new, mark, window_us=window_us)
            if earlier is None:
                if refusal is not None:
                    raise refusal
                invoices.claim(conn, new)
                events.record(
                    conn,
                    at=new.at,
                    kind="invoice.received",
                    subject=new.id,
                    till_id=new.till_id,
                    data={"label": new.label, "tillReceiptNo": new.till_receipt_no, "key": "none"},
                )
            return invoices.by_id(conn, earlier or new.id), earlier is not None

        try:
            row, repeated = await self._claimed(record)
        except GatewayError as error:
            if error is refusal:
                # Not claimed, and yet remembered: it may be signed already, whatever keeps it from it now.
                await self._may_begin(names_of(new)[-1], came_ns)
            if isinstance(error, StoreError):
                # Nothing can be claimed; the sale may be open, or signed, from an earlier sending.
                answer = await self._marked(sale.till_id, mark, window_us)
                if answer is not None:
                    return answer
                await self._unless_quarantined(new, came_ns)
            raise
        if repeated and row.state is SigningState.SIGNED:
            raise likely_repeat(row)
        return await self._outcome(row, came_ns)

    async def _unless_quarantined(self, new: NewInvoice, came_ns: int) -> None:
        """Raise MaybeSigned or UnitAhead for a sale that could not be claimed and that a lost part of the store
        may have signed: "not signed" would be false."""
        if self._db.broken is None:
            for name in names_of(new):
                await self._may_begin(name, came_ns)

    def _row_of(self, sale: Submission) -> NewInvoice:
        at = micros(self._clock.now())
        return NewInvoice(
            id=ids.new_id(at),
            till_id=sale.till_id,
            idem_key=sale.idem_key,
            body_digest=sale.body_digest,
            label=sale.invoice.label,
            original_id=sale.original_id,
            till_receipt_no=sale.invoice.till_receipt_no,
            total_cents=cents(sale.invoice.total),
            request=sale.request,
            document=invoice_json.to_json(sale.invoice),
            printer=sale.printer,
            at=at,
        )

    async def _outcome(self, row: InvoiceRow, came_ns: int) -> Answer:
        while True:
            if row.state in FINAL_STATES:
                assert row.answer is not None and row.answer_status is not None
                return Answer(row.answer_status, row.answer, replayed=True)
            job = self._signer.job(row.id)
            if job is not None:
                return await self._wait(row, job)
            if row.state is SigningState.RECEIVED:
                for name in names_of(row):
                    await self._may_begin(name, came_ns)
            fresh = await self._stored(row.id)
            assert fresh is not None
            job = self._signer.job(row.id)
            if job is None and fresh.state is SigningState.RECEIVED:
                return await self._wait(row, self._place_in_line(row))
            if job is None and fresh.state == row.state:
                # Open in the store but in nobody's hands: the signer has ended (store failure).
                raise StillWaiting(
                    "The sale is in hand; ask again with the same key.", retry_after_s=5
                )
            row = fresh

    async def _claimed(self, record: Callable[[sqlite3.Connection], T]) -> T:
        """Soft: nobody has been told anything yet, and the write-ahead's fsync covers it. StoreError
        says whether the sale is signed, as far as that is known."""
        try:
            return await self._db.write_soft(record)
        except StoreError as error:
            # After a failed fsync the disk may hold the write-ahead of this very sale.
            error.extra.setdefault("signed", "no" if self._db.broken is None else "unknown")
            raise

    def _refusal(self) -> GatewayError | None:
        try:
            self._gate()
        except GatewayError as error:
            return error
        return None

    async def _stored(self, invoice_id: str) -> InvoiceRow | None:
        return await self._db.read(lambda conn: invoices.by_id(conn, invoice_id))

    async def could_sign(self, sale: SaleName, *, gated: bool = True) -> None:
        """Raises why a sale that came now could not be signed: asked before anybody pays for it. Without
        `gated` a stop of selling is no reason."""
        await self._may_begin(sale, self._clock.boottime_ns())
        if gated:
            self._gate()
        if self._signer.blocked is not None:
            raise UnitUnavailable(
                f"{self._signer.blocked} Nobody was asked for money.",
                retry_after_s=10,
                extra={"signed": "no"},
            )

    def _place_in_line(self, row: InvoiceRow) -> Job:
        # A suspended shop is told so, also while an earlier sale is open.
        self._gate()
        if self._signer.blocked is not None:
            raise UnitUnavailable(
                f"{self._signer.blocked} This sale is not signed.",
                retry_after_s=10,
                extra={"signed": "no", "invoiceId": row.id},
            )
        job = self._signer.enqueue(row.id)
        if job is None:
            raise TooManyWaiting(
                "Too many sales are waiting. This sale is not signed; try again in a moment.",
                retry_after_s=5,
                extra={"signed": "no", "invoiceId": row.id},
            )
        return job

    async def _wait(self, row: InvoiceRow, job: Job) -> Answer:
        job.waiters += 1
        try:
            await asyncio.wait({job.done}, timeout=self._wait_s)
        finally:
            job.waiters -= 1
        if job.done.done():
            result = job.done.result()
            if isinstance(result, GatewayError):
                # One error for everybody who waits, hour after hour: without this each raise would
                # hang its frames on it.
                raise result.with_traceback(None)
            return result
        if job.waiters == 0 and self._signer.withdraw(job):
            raise UnitUnavailable(
                "The control unit is busy, so this sale is not signed. Try again.",
                retry_after_s=2,
                extra={"signed": "no", "invoiceId": row.id},
            )
        # Nothing is written for this: a claim that a power cut takes back is made anew by the retry.
        raise StillWaiting(
            "The sale is still being signed. Ask again with the same key; do not ring it up again.",
            retry_after_s=2,
            extra={"signed": "unknown", "invoiceId": row.id},
        )
