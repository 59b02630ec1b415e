"""Settles a sale whose outcome is not known, from evidence, in the order of etims.md 8.3.

It never renumbers, never signs the sale as if new, and never gives a lost receipt to the wrong
sale. What no evidence settles waits for a person. Called by the signer, which signs nothing else
meanwhile; each look is stored as an event, so the page can tell the story.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.domain import invoice_json
from gateway.domain.signing import SigningState
from gateway.errors import GatewayError, StoreError, UnitUnavailable
from gateway.fiscal.commit import Committer
from gateway.fiscal.evidence import (
    CannotTell,
    Count,
    Evidence,
    Finding,
    HoldsIt,
    HoldsItNot,
    OtherSale,
    RecordDuplicate,
)
from gateway.fiscal.identity import not_fresh
from gateway.fiscal.not_signed import maybe_signed
from gateway.fiscal.ports import MismatchSink
from gateway.store import events, invoices, unclear_keys
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow, Sending

log = logging.getLogger(__name__)

# The first looks follow quickly, because most lost answers are one dropped connection; then slower,
# because a unit that is down for an hour must not be hammered. Seconds.
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 15.0
# For the first minute not slower than this: a unit that comes back is to be heard at once. Seconds.
EARLY_PAUSE_S = 1.0
EARLY_ROUNDS = 60
# After this many rounds without an end everybody waiting is told, rather than left to time out.
ROUNDS_BEFORE_TELLING = 4
# How long a decision's page waits for the line to move on. Seconds.
TAKE_UP_S = 5.0


class Resolver:
    """One open sale at a time (an index in the store allows no second)."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        committer: Committer,
        evidence: Callable[[Count, RecordDuplicate], Sequence[Evidence]],
        mismatch: MismatchSink,
        unit_life: str | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._committer = committer
        self._evidence = tuple(evidence(self.count, self.record_duplicate))
        self._mismatch = mismatch
        self._unit_life = unit_life
        self._decided = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._told: dict[str, str] = {}
        # Held while the sources are asked: a person's word must not meet a resend on its way. Nobody
        # holds it longer than the unit's answers may take.
        self.looking = asyncio.Lock()
        # The sentence shown while a sale is open; None while none is.
        self.sentence: str | None = None

    async def settle(
        self, invoice_id: str, tell: Callable[[str], None]
    ) -> InvoiceRow | GatewayError:
        """Back when the sale is SIGNED (its row) or certainly not signed (the error to tell)."""
        pause = FIRST_PAUSE_S
        rounds = 0
        self._told.clear()
        self._idle.clear()
        try:
            while True:
                self._decided.clear()
                async with self.looking:
                    row = await self._row(invoice_id)
                    if row.state is not SigningState.IN_DOUBT:
                        return await self._ended(row)
                    try:
                        finding = await self._look(row)
                    except StoreError as error:
                        if self._db.broken is not None:
                            raise
                        finding = CannotTell(f"the store refuses: {error.code}")
                    ended = await self._act(row, finding)
                if ended is not None:
                    return ended
                rounds += 1
                person = isinstance(finding, CannotTell) and finding.needs_person
                if person or rounds >= ROUNDS_BEFORE_TELLING:
                    self.sentence = (
                        "A sale must be cleared up by a person: see the gateway's status page."
                        if person
                        else "The control unit has not said whether an earlier sale was signed."
                    )
                    tell(self.sentence)
                await wake_or_sleep(self._clock, self._decided, pause)
                pause = min(pause * 2, EARLY_PAUSE_S if rounds < EARLY_ROUNDS else LAST_PAUSE_S)
        finally:
            self.sentence = None
            self._idle.set()

    async def count(self, row: InvoiceRow, by: int) -> None:
        """A resend is about to leave (+1), or did not leave (-1). StoreError: it must not leave."""
        at = micros(self._clock.now())
        sending = Sending(self._unit_life, self._clock.boot_id(), self._clock.boottime_ns())

        def step(conn: sqlite3.Connection) -> None:
            if by > 0:
                invoices.count_attempt(conn, row, sending, at=at)
            else:
                invoices.uncount_attempt(conn, row, at=at)

        await self._db.write(step)

    async def record_duplicate(self, row: InvoiceRow) -> None:
        """Store that the unit called the resend a duplicate: no decision may say "not signed" then."""
        await self._db.write(lambda conn: invoices.record_duplicate(conn, row))

    async def take_up(self) -> None:
        """A person has decided: look again now. Back when the line moves on, or after a while when a
        source is still being asked."""
        self._decided.set()
        if not self._idle.is_set():
            ended = asyncio.ensure_future(self._idle.wait())
            await asyncio.wait({ended}, timeout=TAKE_UP_S)
            ended.cancel()

    async def _row(self, invoice_id: str) -> InvoiceRow:
        row = await self._db.read(lambda conn: invoices.by_id(conn, invoice_id))
        assert row is not None
        return row

    async def _ended(self, row: InvoiceRow) -> InvoiceRow | GatewayError:
        if row.state is SigningState.SIGNED:
            return row
        if await self._db.read(
            lambda conn: unclear_keys.is_settled(conn, row.till_id, row.idem_key)
        ):
            return maybe_signed()
        return UnitUnavailable(
            "The sale was not signed. Send it again with the same key.",
            retry_after_s=1,
            extra={"signed": "no", "invoiceId": row.id},
        )

    async def _look(self, row: InvoiceRow) -> Finding:
        """The first conclusive finding, or the last reason why there is none."""
        invoice = invoice_json.from_json(row.document)
        needs_person = False
        reasons = []
        for source in self._evidence:
            finding = await source.examine(row, invoice)
            await self._note(row, source.name, finding)
            if not isinstance(finding, CannotTell):
                return finding
            needs_person = needs_person or finding.needs_person
            reasons.append(f"{source.name}: {finding.reason}")
            if finding.ends_looking:
                break
        return CannotTell("; ".join(reasons) or "no evidence is to be had", needs_person)

    async def _act(self, row: InvoiceRow, finding: Finding) -> InvoiceRow | GatewayError | None:
        try:
            match finding:
                case HoldsIt():
                    refused = await self._attach(row, finding)
                    if refused is not None:
                        await self._note(row, "receipt", refused)
                        return None
                case HoldsItNot():
                    await self._db.write(lambda conn: self._release(conn, row, finding))
                case OtherSale(reason=reason):
                    await self._quarantine(row, reason)
                case CannotTell():
                    return None
        except StoreError as error:
            if self._db.broken is not None:
                raise
            log.error("doubt.commit_waits invoice=%s error=%s", row.id, error.detail)
            return None
        return await self._ended(await self._row(row.id))

    async def _attach(self, row: InvoiceRow, found: HoldsIt) -> CannotTell | None:
        """Commit the receipt; the reason when it cannot be this sale's (rule `fresh`)."""
        invoice = invoice_json.from_json(row.document)
        plan = self._committer.plan(row, invoice, found.data, found.raw, how="RECOVERED")

        def attach(conn: sqlite3.Connection) -> str | None:
            current = invoices.by_id(conn, row.id)
            if current is None or current.state is not SigningState.IN_DOUBT:
                return None  # a person was quicker
            why = not_fresh(conn, found.data)
            if why is None:
                plan.row = current
                plan.apply(conn)
            return why

        why = await self._db.write(attach)
        if why is not None:
            return CannotTell(f"{why}: it is not this sale's", needs_person=True)
        plan.publish()
        return None

    async def _quarantine(self, row: InvoiceRow, reason: str) -> None:
        """Another sale stands under this number: hold signing, and never sign this key (rule `other`)."""

        def quarantine(conn: sqlite3.Connection) -> bool:
            current = invoices.by_id(conn, row.id)
            if current is None or current.state is not SigningState.IN_DOUBT:
                return False
            invoices.found_unsigned(conn, current, at=micros(self._clock.now()))
            self._mismatch.mismatch(conn, current, reason)
            return True

        if await self._db.write(quarantine):
            self._mismatch.mismatch_published(reason)

    def _release(self, conn: sqlite3.Connection, row: InvoiceRow, found: HoldsItNot) -> None:
        current = invoices.by_id(conn, row.id)
        if current is None or current.state is not SigningState.IN_DOUBT:
            return
        at = micros(self._clock.now())
        invoices.found_unsigned(conn, current, at=at)
        events.record(
            conn,
            at=at,
            kind="invoice.found_unsigned",
            subject=row.id,
            till_id=row.till_id,
            data={"reason": found.reason},
        )

    async def _note(self, row: InvoiceRow, source: str, finding: Finding) -> None:
        data: dict[str, Any] = {"source": source, "finding": type(finding).__name__}
        data.update(finding.story())
        if self._told.get(source) == str(data):
            return  # the same look with the same result is one line of the story, not hundreds
        self._told[source] = str(data)
        log.warning("doubt.examined invoice=%s %s", row.id, data)
        at = micros(self._clock.now())
        await self._db.write_soft(
            lambda conn: events.record(
                conn, at=at, kind="doubt.examined", subject=row.id, data=data
            )
        )
