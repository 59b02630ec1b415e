"""What a person decides about a sale that no evidence settled, and about a unit that is ahead.

The last source of evidence: KRA's portal, read by somebody with a name. Nothing here is ever decided
by itself; each decision is an event with who, what and why, and the resolver takes it up at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from gateway.clock import EAT, Clock, compact, from_micros, iso, micros
from gateway.domain import invoice_json
from gateway.domain.outcome import SignedData
from gateway.domain.signing import SigningState
from gateway.errors import DecisionInvalid, FieldError, InvoiceUnknown, NotInDoubt
from gateway.fiscal.commit import Committer
from gateway.fiscal.identity import TIME_APART_S
from gateway.money import cents, from_cents, text
from gateway.store import events, invoices, receipts, unit
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PortalReceipt:
    """What a person read on KRA's portal. `total` in shillings; `scu_time` aware. `despite_time`: why
    this is the sale although the times are far apart (the gateway's clock was wrong that day)."""

    rcpt_no: int
    tot_rcpt_no: int
    rcpt_sign: str
    intrl_data: str
    scu_time: datetime
    total: Decimal
    sdc_id: str | None = None
    despite_time: str | None = None


class Decisions:
    """Used by the API and the page. A decision waits while the resolver is asking (`looking`): what
    comes of that may be the end already. `take_up` lets it look again."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        committer: Committer,
        looking: asyncio.Lock,
        take_up: Callable[[], Awaitable[None]],
        at_work_s: float = 0,
    ) -> None:
        self._db = db
        self._clock = clock
        self._committer = committer
        self._looking = looking
        self._take_up = take_up
        self._at_work_s = at_work_s

    async def signed(self, invoice_id: str, who: str, found: PortalReceipt) -> InvoiceRow:
        """The sale has this receipt. DecisionInvalid when the receipt cannot be this sale's,
        NotInDoubt when there is nothing to decide."""

        def decide(conn: sqlite3.Connection) -> InvoiceRow:
            row = _in_doubt(conn, invoice_id)
            wrong = self._mistakes(conn, row, found)
            if wrong:
                raise DecisionInvalid(
                    "This receipt cannot be this sale's. Check what the portal shows.", errors=wrong
                )
            said = {
                "rcptNo": found.rcpt_no,
                "totRcptNo": found.tot_rcpt_no,
                "rcptSign": found.rcpt_sign,
                "intrlData": found.intrl_data,
                "scuTime": compact(found.scu_time),
                "total": text(found.total),
                "sdcId": found.sdc_id,
                "despiteTime": found.despite_time,
            }
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

        return await self._decide(decide, who)

    async def not_signed(self, invoice_id: str, who: str, reason: str) -> InvoiceRow:
        """The unit does not hold the sale: it may be sent again with the same key. DecisionInvalid
        while the unit may still be at work on what it was sent."""

        def decide(conn: sqlite3.Connection) -> InvoiceRow:
            row = _in_doubt(conn, invoice_id)
            self._is_at_rest(row)
            self._record(conn, row, who, "NOT_SIGNED", {"reason": reason})
            invoices.found_unsigned(conn, row, at=micros(self._clock.now()))
            return _row(conn, invoice_id)

        return await self._decide(decide, who)

    async def _decide(
        self, decide: Callable[[sqlite3.Connection], InvoiceRow], who: str
    ) -> InvoiceRow:
        async with self._looking:
            row = await self._db.write(decide)
        log.warning("doubt.decided invoice=%s state=%s who=%s", row.id, row.state, who)
        await self._take_up()
        return row

    def _is_at_rest(self, row: InvoiceRow) -> None:
        sent = from_micros(row.updated_at)
        # A sending "to come" is a clock that was set back since; nobody can wait for that.
        if timedelta(0) <= self._clock.now() - sent < timedelta(seconds=self._at_work_s):
            until = sent + timedelta(seconds=self._at_work_s)
            says = (
                "The control unit may still be signing this sale. Look at the portal again, and decide "
                f"after {until.astimezone(EAT):%H:%M:%S}."
            )
            raise DecisionInvalid(says, errors=[FieldError("/choice", "TOO_SOON", says)])

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
        self, conn: sqlite3.Connection, row: InvoiceRow, found: PortalReceipt
    ) -> list[FieldError]:
        wrong = []
        if cents(found.total) != row.total_cents:
            total = text(from_cents(row.total_cents))
            wrong.append(FieldError("/total", "TOTAL_DIFFERS", f"This sale's total is {total}."))
        apart_s = abs((found.scu_time - from_micros(row.updated_at)).total_seconds())
        earlier_s = (from_micros(row.created_at) - found.scu_time).total_seconds()
        if min(apart_s, abs(earlier_s)) > TIME_APART_S and found.despite_time is None:
            sold = iso(from_micros(row.created_at))
            sentence = (
                f"This sale was made at {sold}. If the clock was wrong then, say so in despiteTime."
            )
            wrong.append(FieldError("/scuTime", "TIME_DIFFERS", sentence))
        known = unit.device(conn)["sdc_id"]
        sdc_id = found.sdc_id or known
        if sdc_id is None:
            # It stands on the receipt and in its QR for ever; the first of a shop has nobody else to tell it.
            sentence = (
                "Copy the SCU ID from the portal, too: the control unit has not told its own yet."
            )
            wrong.append(FieldError("/sdcId", "MISSING", sentence))
        elif known is not None and sdc_id != known:
            wrong.append(FieldError("/sdcId", "OTHER_UNIT", f"This shop's unit is {known}."))
        if receipts.by_counter(conn, str(sdc_id), found.tot_rcpt_no) is not None:
            wrong.append(
                FieldError("/totRcptNo", "NUMBER_TAKEN", "Another sale has this receipt number.")
            )
        if receipts.by_signature(conn, found.rcpt_sign) is not None:
            wrong.append(
                FieldError("/rcptSign", "SIGNATURE_TAKEN", "Another sale has this signature.")
            )
        return wrong


def _row(conn: sqlite3.Connection, invoice_id: str) -> InvoiceRow:
    row = invoices.by_id(conn, invoice_id)
    if row is None:
        raise InvoiceUnknown("There is no invoice with this id.")
    return row


def _in_doubt(conn: sqlite3.Connection, invoice_id: str) -> InvoiceRow:
    row = _row(conn, invoice_id)
    if row.state is not SigningState.IN_DOUBT:
        raise NotInDoubt(f"This sale is {row.state}; there is nothing to decide.")
    return row
