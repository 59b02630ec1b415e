"""Notices that the control unit and this store disagree, and stops signing until that is settled.

It happens when an older copy of the store is put back (a backup, a virtual machine's snapshot): the
unit has signed sales this store has never seen, and would sign them again as new. Or an older copy
of the unit's folder: it would give receipt numbers a second time. So before the first sale after
each start the unit's own data are compared with ours, and a store that was restored on purpose waits
for a comparison or for a person.

A till that lost its answer together with the old disk sends its sale again. Its key is not in the
copy, its receipt may be in the unit. So every key that comes meanwhile is written down, and once a
person has said that sales are missing here, those keys are never signed: the paper, the portal or
a person says which of them have a receipt.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway import ids
from gateway.clock import Clock, from_micros, iso, micros
from gateway.errors import (
    DecisionInvalid,
    EmptyStore,
    FieldError,
    GatewayError,
    StoreError,
    UnitAhead,
)
from gateway.fiscal import ahead_rules as rules
from gateway.fiscal.ahead_rules import EMPTY_STORE, UNIT_AHEAD, Hold, Known, Seen, read_known
from gateway.fiscal.evidence import CountingUnit, ReadingUnit
from gateway.fiscal.not_signed import maybe_signed
from gateway.fiscal.unit_rest import UnitRest
from gateway.money import from_cents, text
from gateway.store import events, invoices, lost, marker, meta, receipts, unclear_keys, unit
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow
from gateway.store.marker import Mark
from gateway.store.unclear_keys import SaleName

log = logging.getLogger(__name__)

# How often the unit's folder is told how far this store has come, in seconds.
MARK_EVERY_S = 60.0
# The counter is compared again at most this often. Seconds.
COMPARE_PAUSE_S = 0.05
# So many unclear keys are shown.
SHOWN = 100


class AheadWatch:
    """`check` before the signer starts; `may_begin` before a sale gets its place in the line, or is paid
    for; `gate` right before the wire."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        rest: UnitRest,
        readers: Sequence[ReadingUnit] = (),
        counter: CountingUnit | None = None,
        unit_folder: Path | None = None,
        noticed: str | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._rest = rest
        self._readers = tuple(readers)
        self._counter = counter
        self._unit_folder = unit_folder
        # How it was noticed at the start that the newest transactions of this store are lost.
        self._noticed = noticed
        self._hold: Hold | None = None
        self._copy = False
        # An equal counter ends the hold once the unit is at rest.
        self._compare_later = False
        # When this process itself found a mismatch, by CLOCK_BOOTTIME.
        self._mismatch_ns: int | None = None
        # One look or decision at a time.
        self._deciding = asyncio.Lock()
        # Whether any key is unclear for ever; spares a sale the look.
        self._unclear = False
        # What came until then, by CLOCK_BOOTTIME, came while the store was held.
        self._unclear_until_ns = -1
        self._marked: Mark | None = None
        self._unmarkable = False

    @property
    def hold_state(self) -> str:
        """Return which kind of hold it is; only meaningful while there is one."""
        return UNIT_AHEAD if self._hold is None else self._hold.state

    @property
    def hold(self) -> str | None:
        """Why signing is held; None while it is not."""
        return None if self._hold is None else self._hold.reason

    @property
    def is_copy(self) -> bool:
        """Return whether this store is an unsettled copy: its open sale is never sent again and not released."""
        return self._copy

    def gate(self) -> None:
        """Raise UnitAhead while unit and store are known to disagree."""
        if self._hold is not None:
            kind = EmptyStore if self._hold.state == EMPTY_STORE else UnitAhead
            raise kind(
                f"Nothing is signed: {self._hold.reason}. Call the technician: see the page /unit.",
                retry_after_s=60,
                extra={"signed": self._hold.signed},
            )

    async def may_begin(self, sale: SaleName, came_ns: int) -> None:
        """Return if this sale, which has no receipt here, has none anywhere. UnitAhead while that is not known
        (the key is then noted), MaybeSigned for a quarantined key, StoreError."""
        # A quarantined key stays so, whatever else is held since.
        await self._refuse_quarantined(sale)
        held = self._hold is not None and not self._hold.complete
        if held or came_ns <= self._unclear_until_ns:
            at = micros(self._clock.now())

            def note(conn: sqlite3.Connection) -> None:
                # The operator may have decided while this waited for its turn; it came before.
                answered = meta.get(conn, meta.HOLD) is None
                settled = answered and unclear_keys.any_settled(conn)
                unclear_keys.note(conn, sale, at=at, settled=settled)

            try:
                await self._db.write(note)
            except StoreError as error:
                error.extra.setdefault("signed", "unknown")
                raise
            self.gate()
        await self._refuse_quarantined(sale)

    async def _refuse_quarantined(self, sale: SaleName) -> None:
        if self._unclear and await self._db.read(
            lambda conn: unclear_keys.is_settled(conn, sale.till_id, sale.idem_key)
        ):
            raise maybe_signed()

    def may_sign(self, conn: sqlite3.Connection, row: InvoiceRow) -> GatewayError | None:
        """Return the refusal of a sale that was quarantined while it waited in the line, in the transaction of
        its write-ahead."""
        return maybe_signed() if unclear_keys.may_be_signed(conn, row) else None

    async def unit_was_used(self, why: str) -> None:
        """Hold signing where this store has no sale of a unit that was used before: an operator enters the next
        number."""
        async with self._deciding:
            if self._hold is not None or not await self._db.read(_is_empty):
                return
            hold = Hold(
                f"{why}, and this store has no sale of it. If another store sold with it, check that its disk is "
                "mounted and store.directory is right; else enter the next invoice number",
                # The unit's own counter at zero settles it.
                seen=False,
                state=EMPTY_STORE,
            )
            self._hold, self._copy, self._compare_later = hold, True, True
            await self._db.write(lambda conn: self._record(conn, hold))
        log.critical("unit.ahead reason=%s", hold.reason)

    async def check(self) -> str | None:
        """Compare store and unit; return the reason to hold, or None. A hold survives restarts until it is
        settled."""
        async with self._deciding:
            known = await self._db.read(read_known)
            self._unclear = known.unclear
            mark = await self._mark()
            seen = await self._seen_in_unit(known)
            at_rest = self._rest.is_over()
            hold = rules.why_held(known, mark, seen, at_rest=at_rest, noticed=self._noticed)
            self._compare_later = (
                hold is not None and rules.agree(known, mark, seen, at_rest=at_rest) is None
            )
            if hold is None:
                await self._settle(known)
            elif hold != known.hold:
                await self._db.write(lambda conn: self._record(conn, hold))
                log.critical("unit.ahead reason=%s", hold.reason)
            self._hold = await self._db.read(rules.stored_hold)
            self._copy = self._hold is not None and rules.is_copy(known, mark)
        await self.mark_unit()
        return self.hold

    def mismatch(self, conn: sqlite3.Connection, row: InvoiceRow, reason: str) -> None:
        """Hold signing and quarantine the sale for good, in the caller's transaction: the unit has a sale that
        this store lacks. `mismatch_published` follows the commit."""
        at = micros(self._clock.now())
        names = unclear_keys.names_of(row)
        unclear_keys.quarantine(conn, names, at=at)
        known = rules.stored_hold(conn)
        if known is None or not known.is_proven:
            meta.put(conn, meta.HOLD, json.dumps(asdict(Hold(reason))))
        data = {"reason": reason, "invcNo": row.invc_no, "tillReceiptNo": row.till_receipt_no}
        events.record(
            conn, at=at, kind="unit.mismatch", subject=row.id, till_id=row.till_id, data=data
        )

    def counter_gap(self, conn: sqlite3.Connection, reason: str) -> None:
        """Store a signing hold alone, in the caller's transaction."""
        self._record(conn, Hold(reason))

    def mismatch_published(self, reason: str) -> None:
        """Put the hold that `mismatch` has stored into force."""
        if self._hold is None or not self._hold.is_proven:
            self._hold = Hold(reason)
        self._unclear = True
        self._copy = True
        self._compare_later = False
        self._mismatch_ns = self._clock.boottime_ns()
        log.critical("unit.mismatch reason=%s", reason)

    async def waits(self) -> Sequence[FieldError]:
        """Return why the numbering cannot be decided yet; nothing while signing is not held."""
        if self._hold is None:
            return ()
        open_row = await self._db.read(invoices.open_row)
        return self._rest.of_all(open_row, self._mismatch_ns)

    async def settle_by_person(
        self,
        next_invc_no: int,
        who: str,
        reason: str,
        *,
        silent: Sequence[str] = (),
        confirmed: Sequence[str] = (),
    ) -> None:
        """Go on with the next number as read on the portal. DecisionInvalid for a number that is used, while the
        unit may be at work or KRA was not reached since, and while a till of `silent` is not `confirmed`.

        Sales are missing here when numbers are skipped, or when it was seen that some are: then what was sent
        during the hold and what is claimed is never signed under its key. The open sale of a held store is
        quarantined in any case.
        """
        open_row = await self._db.read(invoices.open_row)
        waits = await self._rest.ask_kra(self._rest.of_all(open_row, self._mismatch_ns))
        async with self._deciding:
            mark = await self._mark()
            counted = None if self._counter is None else await self._counter.last_counter()

            def decide(conn: sqlite3.Connection) -> tuple[bool, int]:
                known = read_known(conn)
                wrong = [*waits, *_wrong_number(known, mark, next_invc_no)]
                left = rules.drain(known, next_invc_no, silent, confirmed)
                if wrong or left is not None:
                    raise DecisionInvalid(
                        "The numbering was not decided, and signing is held as before."
                        if known.hold is not None
                        else "The numbering was not decided.",
                        errors=[*wrong, *([left] if left is not None else [])],
                        extra={"signed": "unknown"},
                    )
                if isinstance(counted, int) and rules.accounts_for_all(known):
                    meta.put(conn, meta.COUNTER_ACCOUNTED, str(counted))
                return self._apply(conn, known, mark, next_invc_no, who, reason, confirmed)

            missing, unclear = await self._db.write(decide)
            log.warning(
                "unit.numbering_decided who=%s next=%s unclear=%s", who, next_invc_no, unclear
            )
            if missing:
                self._unclear_until_ns = self._clock.boottime_ns()
            self._unclear = await self._db.read(unclear_keys.any_settled)
            self._hold, self._copy, self._compare_later = None, False, False
            self._mismatch_ns = None
            self._noticed = None
        await self.mark_unit()

    def _apply(
        self,
        conn: sqlite3.Connection,
        known: Known,
        mark: Mark | None,
        next_invc_no: int,
        who: str,
        reason: str,
        confirmed: Sequence[str],
    ) -> tuple[bool, int]:
        """Store the numbering decision; return (sales are missing here, how many keys are quarantined)."""
        at = micros(self._clock.now())
        unit.use_up(conn, next_invc_no - 1, at=at)
        missing = rules.is_missing(known, next_invc_no)
        unclear = 0
        if known.hold is not None and known.open_row is not None:
            unclear += self._quarantine_open(conn, known.open_row, who, at)
        if missing:
            unclear += unclear_keys.settle(conn)
        else:
            unclear_keys.forget(conn)
        _clear(conn)
        # What the unit signed beside this store is accounted for now.
        meta.put(conn, meta.COUNTER_OPEN, str(next_invc_no))
        if mark is not None and mark.store_id != known.store_id:
            # So that a marker which cannot be replaced asks for no second decision.
            meta.put(conn, meta.TOOK_OVER, mark.store_id)
        data = {
            "who": who,
            "reason": reason,
            "nextInvcNo": next_invc_no,
            "was": known.next_invc_no,
            "unclearSales": unclear,
            "silentTills": list(confirmed),
        }
        events.record(conn, at=at, kind="unit.numbering_decided", data=data)
        return missing, unclear

    def _quarantine_open(self, conn: sqlite3.Connection, row: InvoiceRow, who: str, at: int) -> int:
        """Give the open sale of a held store up (rule `copyrow`): what became of it is not known."""
        names = unclear_keys.names_of(row)
        unclear_keys.quarantine(conn, names, at=at)
        invoices.found_unsigned(conn, row, at=at)
        events.record(
            conn,
            at=at,
            kind="doubt.quarantined",
            subject=row.id,
            till_id=row.till_id,
            data={"who": who, "invcNo": row.invc_no},
        )
        return len(names)

    async def mark_unit(self) -> None:
        """Write into the unit's folder that this store sells with it, and how far it has come; nothing while
        signing is held. Called at the start, now and then, and at the end."""
        if self._unit_folder is None or self._hold is not None or self._unmarkable:
            return
        new_id = ids.new_id(micros(self._clock.now()))
        known = await self._db.read(read_known)
        if known.store_id is None:
            await self._db.write(lambda conn: meta.put(conn, meta.STORE_ID, new_id))
        mark = Mark(known.store_id or new_id, known.next_invc_no - 1)
        if mark == self._marked:
            return
        if not await asyncio.to_thread(marker.put, self._unit_folder, mark):
            # Said in the log; at the next start it is tried again.
            self._unmarkable = True
            return
        self._marked = mark
        if known.took_over is not None:
            await self._db.write(lambda conn: meta.remove(conn, meta.TOOK_OVER))

    async def keep_marked(self) -> None:
        """Write the marker again and again, and compare again what could not be compared at the start. A copy of
        the store that is put in place by hand is known by the marker."""
        while True:
            pause = MARK_EVERY_S
            over_in_s = self._rest.over_in_s() if self._compare_later else None
            if over_in_s is not None:
                pause = min(pause, max(over_in_s, COMPARE_PAUSE_S))
            await self._clock.sleep(pause)
            if self._compare_later and self._rest.is_over():
                await self.check()
            await self.mark_unit()

    async def _mark(self) -> Mark | None:
        """What stands in the unit's folder; None where nothing does, and where it cannot be read."""
        if self._unit_folder is None:
            return None
        with contextlib.suppress(marker.Unreadable):
            return await asyncio.to_thread(marker.read, self._unit_folder)
        return None

    async def _seen_in_unit(self, known: Known) -> Seen:
        """Return what the unit shows. That it has nothing under our next number proves nothing: numbers may be
        left out."""
        # An open sale may or may not have moved the unit on by one; the resolver clears that up.
        slack = 1 if known.has_open_sale else 0
        equal = False
        if self._counter is not None:
            counted = await self._counter.last_counter()
            if isinstance(counted, int):
                if counted > known.last_counter + slack:
                    unknown = counted - known.last_counter
                    reason = (
                        f"the control unit has signed {unknown} receipts that this store does "
                        "not know"
                    )
                    return Seen(Hold(reason))
                if counted < known.last_counter:
                    reason = (
                        f"the control unit's counter is at {counted}, behind {known.last_counter}, "
                        "the last receipt here: its data were put back, or it is another unit"
                    )
                    return Seen(Hold(reason, complete=True))
                equal = counted == known.last_counter
        if known.has_open_sale:
            return Seen(equal=equal)
        for reader in self._readers:
            found = await reader.stored_sale(known.next_invc_no)
            if found is not None and not isinstance(found, str):
                reason = (
                    f"the control unit already holds a sale under invoice number "
                    f"{known.next_invc_no}, which this store has never used"
                )
                return Seen(Hold(reason))
        return Seen(equal=equal)

    async def _settle(self, known: Known) -> None:
        if known.hold is None and known.restored is None:
            return
        after = "restore" if known.hold is None else known.hold.reason

        def record(conn: sqlite3.Connection) -> None:
            if rules.stored_hold(conn) != known.hold:
                return  # a mismatch was found since
            _clear(conn)
            unclear_keys.forget(conn)
            at = micros(self._clock.now())
            events.record(conn, at=at, kind="unit.agrees", data={"after": after})

        await self._db.write(record)
        log.warning("unit.agrees after=%s", after)

    def _record(self, conn: sqlite3.Connection, hold: Hold) -> None:
        meta.put(conn, meta.HOLD, json.dumps(asdict(hold)))
        events.record(
            conn, at=micros(self._clock.now()), kind="unit.ahead", data={"reason": hold.reason}
        )


def _is_empty(conn: sqlite3.Connection) -> bool:
    """Return whether no sale was ever signed or numbered here."""
    return receipts.last(conn) is None and invoices.open_row(conn) is None


def _wrong_number(known: Known, mark: Mark | None, next_invc_no: int) -> list[FieldError]:
    least = rules.least_next(known, mark)
    if next_invc_no >= least:
        return []
    return [FieldError("/nextInvcNo", "NUMBER_USED", f"It must be {least} or more.")]


def _clear(conn: sqlite3.Connection) -> None:
    for key in (meta.HOLD, meta.RESTORED, meta.UNIT_RESTORED):
        meta.remove(conn, key)
    lost.settle(conn)


def _shillings(amount_cents: int | None) -> str | None:
    return None if amount_cents is None else text(from_cents(amount_cents))


def as_json(watch: AheadWatch, conn: sqlite3.Connection) -> dict[str, Any]:
    """What the page and the API show of it."""
    known = read_known(conn)
    return {
        "hold": watch.hold,
        "nextInvcNo": known.next_invc_no,
        "lastTotRcptNo": known.last_counter,
        "unclearSalesInAll": unclear_keys.count(conn),
        "unclearSales": [
            {
                "tillId": unclear.sale.till_id,
                "key": unclear.sale.idem_key,
                "tillReceiptNo": unclear.sale.till_receipt_no,
                "total": _shillings(unclear.sale.total_cents),
                "at": iso(from_micros(unclear.at)),
            }
            for unclear in unclear_keys.newest(conn, SHOWN)
        ],
    }
