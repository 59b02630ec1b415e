"""Stores an operator's decision about a sale in doubt that no evidence settled.

The last source of evidence is KRA's portal, read by a person with a name. Nothing here is ever decided
without one. The rules that a decision has to pass are in `decision_rules.py`, `unit_rest.py` and
`contradiction.py`; each decision is an event with who, what and why, and the resolver resumes at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence

from gateway.clock import Clock, compact, iso, micros
from gateway.domain import invoice_json
from gateway.domain.outcome import SignedData
from gateway.domain.signing import SigningState
from gateway.errors import DecisionInvalid, FieldError, InvoiceUnknown, NotInDoubt
from gateway.fiscal import decision_rules as rules
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.commit import Committer
from gateway.fiscal.contradiction import EnteredReceipt
from gateway.fiscal.decision_rules import LastOnPortal, PartialReceipt, PortalReceipt, Stated
from gateway.fiscal.unit_rest import UnitRest
from gateway.money import text
from gateway.store import events, invoices, receipts, unit
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow

log = logging.getLogger(__name__)

# (the sale, the receipt that was entered; None for "not signed") -> why the unit contradicts it.
Contradicts = Callable[[InvoiceRow, EnteredReceipt | None], Awaitable[str | None]]
UNDECIDED = "Nothing was decided, and the sale stays in doubt."

__all__ = ["Decisions", "LastOnPortal", "PartialReceipt", "PortalReceipt", "Stated"]


class Decisions:
    """Used by the API and the page. A decision waits while the resolver asks its sources (`looking`), because
    they may settle the sale first. `take_up` makes the resolver look again."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        committer: Committer,
        looking: asyncio.Lock,
        take_up: Callable[[], Awaitable[None]],
        contradicts: Contradicts,
        rest: UnitRest,
        ahead: AheadWatch,
    ) -> None:
        self._db = db
        self._clock = clock
        self._committer = committer
        self._looking = looking
        self._take_up = take_up
        self._contradicts = contradicts
        self._rest = rest
        self._ahead = ahead

    def waits_for(self, row: InvoiceRow) -> list[FieldError]:
        """Return why "not signed" cannot be decided yet, for the page and the API to show beforehand."""
        held = rules.copyrow(self._ahead.hold)
        return [held] if held is not None else list(self._rest.of(row))

    async def compare(self, invoice_id: str, seen: PartialReceipt) -> list[FieldError]:
        """Return what is wrong with the readable fields of a receipt that has other mistakes."""

        def wrong(conn: sqlite3.Connection) -> list[FieldError]:
            return self._mistakes(conn, _in_doubt(conn, invoice_id), seen)

        return await self._db.read(wrong)

    async def signed(self, invoice_id: str, who: str, found: PortalReceipt) -> InvoiceRow:
        """Attach the receipt that the portal shows. DecisionInvalid when it cannot be this sale's or when the
        unit contradicts it, NotInDoubt when there is nothing to decide."""

        async def judge(row: InvoiceRow) -> list[FieldError]:
            return rules.contra(False, await self._contradicts(row, found))

        def decide(conn: sqlite3.Connection, wrong: list[FieldError]) -> InvoiceRow:
            row = _in_doubt(conn, invoice_id)
            seen = PartialReceipt(
                found.tot_rcpt_no,
                found.rcpt_sign,
                found.scu_time,
                found.total,
                found.sdc_id,
                found.despite_time,
            )
            wrong = self._mistakes(conn, row, seen) + wrong
            _refuse(wrong, "This receipt cannot be this sale's. Check what the portal shows.")
            said = _said(found)
            self._record(conn, row, who, "SIGNED", said)
            data = SignedData(
                rcpt_no=found.rcpt_no,
                tot_rcpt_no=found.tot_rcpt_no,
                intrl_data=found.intrl_data,
                rcpt_sign=found.rcpt_sign,
                scu_time=found.scu_time,
                sdc_id=found.sdc_id,
                mrc_no=None,
            )
            raw = json.dumps({"decidedBy": who, **said}).encode()
            invoice = invoice_json.from_json(row.document)
            self._committer.plan(row, invoice, data, raw, how="PERSON").apply(conn)
            return _row(conn, invoice_id)

        return await self._decide(invoice_id, judge, decide, who)

    async def not_signed(self, invoice_id: str, who: str, stated: Stated) -> InvoiceRow:
        """Release the sale: its till may send it again with the same key. DecisionInvalid with every reason why
        the operator's look at the portal does not prove that, NotInDoubt when there is nothing to decide."""
        waits = await self._ask_kra(invoice_id)

        async def judge(row: InvoiceRow) -> list[FieldError]:
            wrong = waits or self.waits_for(row)
            return wrong + rules.contra(row.duplicate_seen, await self._contradicts(row, None))

        def decide(conn: sqlite3.Connection, wrong: list[FieldError]) -> InvoiceRow:
            row = _in_doubt(conn, invoice_id)
            wrong = wrong + rules.portal_agrees(row, receipts.newest_on_portal(conn), stated.last)
            asked = (rules.search(stated, row), rules.confirmation(stated, row))
            wrong += [each for each in asked if each is not None]
            _refuse(wrong, "It is not proven that this sale was not signed.")
            self._record(conn, row, who, "NOT_SIGNED", _stated(stated))
            invoices.found_unsigned(conn, row, at=micros(self._clock.now()))
            return _row(conn, invoice_id)

        return await self._decide(invoice_id, judge, decide, who)

    async def other_sale_there(self, invoice_id: str, who: str, stated: Stated) -> InvoiceRow:
        """Record that another sale stands where this one was expected: sales are missing in this store. Signing
        is held, and this sale's key is never signed. DecisionInvalid when the receipt is one of our own."""
        reason = f"KRA's portal shows another sale, number {stated.last.number}, in the place of one in doubt"

        async def judge(row: InvoiceRow) -> list[FieldError]:
            return rules.contra(row.duplicate_seen, await self._contradicts(row, None))

        def decide(conn: sqlite3.Connection, used: list[FieldError]) -> InvoiceRow:
            row = _in_doubt(conn, invoice_id)
            own = receipts.newest_on_portal(conn)
            wrong = rules.another_sale(own, stated.last, contradicted=bool(used))
            wrong += [each for each in [rules.confirmation_of_other(stated)] if each is not None]
            _refuse(wrong, "No other sale stands in this sale's place.")
            self._record(conn, row, who, "OTHER_SALE_THERE", _stated(stated))
            self._ahead.mismatch(conn, row, reason)
            invoices.found_unsigned(conn, row, at=micros(self._clock.now()))
            return _row(conn, invoice_id)

        return await self._decide(
            invoice_id, judge, decide, who, lambda: self._ahead.mismatch_published(reason)
        )

    async def resume(self) -> None:
        """Make the resolver look at its sale again: the numbering decision may have settled it."""
        await self._take_up()

    async def _ask_kra(self, invoice_id: str) -> list[FieldError]:
        """Return why the operator must wait, after KRA was asked if only that was missing."""
        row = await self._db.read(lambda conn: _in_doubt(conn, invoice_id))
        return list(await self._rest.ask_kra(self.waits_for(row)))

    async def _decide(
        self,
        invoice_id: str,
        judge: Callable[[InvoiceRow], Awaitable[list[FieldError]]],
        decide: Callable[[sqlite3.Connection, list[FieldError]], InvoiceRow],
        who: str,
        publish: Callable[[], None] = lambda: None,
    ) -> InvoiceRow:
        """Judge on the loop and store in one transaction, both while the resolver asks nothing."""
        async with self._looking:
            row = await self._db.read(lambda conn: _in_doubt(conn, invoice_id))
            wrong = await judge(row)
            row = await self._db.write(lambda conn: decide(conn, wrong))
            publish()
        log.warning("doubt.decided invoice=%s state=%s who=%s", row.id, row.state, who)
        await self._take_up()
        return row

    def _record(
        self,
        conn: sqlite3.Connection,
        row: InvoiceRow,
        who: str,
        choice: str,
        said: dict[str, object],
    ) -> None:
        events.record(
            conn,
            at=micros(self._clock.now()),
            kind="doubt.decided",
            subject=row.id,
            till_id=row.till_id,
            data={"who": who, "choice": choice, **said},
        )

    def _mistakes(
        self, conn: sqlite3.Connection, row: InvoiceRow, seen: PartialReceipt
    ) -> list[FieldError]:
        known = unit.device(conn)["sdc_id"]
        sdc_id = str(seen.sdc_id or known)
        taken = None
        if seen.tot_rcpt_no is not None:
            taken = receipts.by_counter(conn, sdc_id, seen.tot_rcpt_no)
        signature = None
        if seen.rcpt_sign is not None:
            signature = receipts.by_signature(conn, seen.rcpt_sign)
        return rules.receipt_of_sale(
            row,
            seen,
            known_sdc_id=known,
            number_taken=taken is not None,
            signature_taken=signature is not None,
        )


def _refuse(wrong: Sequence[FieldError], detail: str) -> None:
    if wrong:
        raise DecisionInvalid(f"{detail} {UNDECIDED}", errors=wrong, extra={"signed": "unknown"})


def _said(found: PortalReceipt) -> dict[str, object]:
    return {
        "rcptNo": found.rcpt_no,
        "totRcptNo": found.tot_rcpt_no,
        "rcptSign": found.rcpt_sign,
        "intrlData": found.intrl_data,
        "scuTime": compact(found.scu_time),
        "total": text(found.total),
        "sdcId": found.sdc_id,
        "despiteTime": found.despite_time,
    }


def _stated(stated: Stated) -> dict[str, object]:
    last = stated.last
    return {
        "reason": stated.reason,
        "lastInvcNo": last.number,
        "lastTotal": None if last.total is None else text(last.total),
        "lastTime": None if last.time is None else iso(last.time),
    }


def _row(conn: sqlite3.Connection, invoice_id: str) -> InvoiceRow:
    row = invoices.by_id(conn, invoice_id)
    if row is None:
        raise InvoiceUnknown("There is no invoice with this id.")
    return row


def _in_doubt(conn: sqlite3.Connection, invoice_id: str) -> InvoiceRow:
    row = _row(conn, invoice_id)
    if row.state is not SigningState.IN_DOUBT:
        signed = {SigningState.SIGNED: "yes", SigningState.REJECTED: "no"}.get(row.state, "unknown")
        raise NotInDoubt(
            f"This sale is {row.state.replace('_', ' ')}; there is nothing to decide.",
            extra={"signed": signed},
        )
    return row
