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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gateway import ids
from gateway.clock import EAT, Clock, from_micros, iso, micros
from gateway.errors import DecisionInvalid, FieldError, MaybeSigned, StoreError, UnitAhead
from gateway.fiscal.evidence import CountingUnit, ReadingUnit
from gateway.money import from_cents, text
from gateway.store import events, invoices, lost, marker, meta, receipts, unclear_keys, unit
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow
from gateway.store.marker import Mark
from gateway.store.unclear_keys import SaleName

log = logging.getLogger(__name__)

# How often the unit's folder is told how far this store has come, in seconds.
MARK_EVERY_S = 60.0
# So many unclear keys are shown.
SHOWN = 100


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing is signed, in words. `seen`: something was found that this store lacks, it is not only
    known to be a backup. `complete`: the unit is the old copy, no sale is missing here."""

    reason: str
    seen: bool = True
    complete: bool = False

    @property
    def signed(self) -> str:
        """What is true of a sale that is sent now and is not here."""
        return "no" if self.complete else "unknown"


@dataclass(frozen=True, slots=True)
class _Known:
    """What this store knows of the unit's numbering."""

    next_invc_no: int
    last_counter: int
    open_sale: bool
    restored: str | None
    unit_restored: bool
    lost: lost.Signed | None
    store_id: str | None
    took_over: str | None
    hold: Hold | None
    unclear: bool


class AheadWatch:
    """`check` before the signer starts; `may_begin` before a sale gets its place in the line, or is paid
    for; `gate` right before the wire."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        readers: Sequence[ReadingUnit] = (),
        counter: CountingUnit | None = None,
        unit_folder: Path | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._readers = tuple(readers)
        self._counter = counter
        self._unit_folder = unit_folder
        self._hold: Hold | None = None
        # Whether any key is unclear for ever; spares a sale the look.
        self._unclear = False
        # What came until then, by CLOCK_BOOTTIME, came while the store was held.
        self._unclear_until_ns = -1
        self._marked: Mark | None = None
        self._unmarkable = False

    @property
    def hold(self) -> str | None:
        """Why signing is held; None while it is not."""
        return None if self._hold is None else self._hold.reason

    def gate(self) -> None:
        """Back if unit and store are not known to disagree. UnitAhead otherwise."""
        if self._hold is not None:
            raise UnitAhead(
                f"Nothing is signed: {self._hold.reason}. Call the technician: see the page /unit.",
                retry_after_s=60,
                extra={"signed": self._hold.signed},
            )

    async def may_begin(self, sale: SaleName, came_ns: int) -> None:
        """Back if this sale, which has no receipt here, has none anywhere. UnitAhead while nobody can tell
        (the key is then written down), MaybeSigned when nobody ever will, StoreError."""
        # What was said of a quarantined key stays said, whatever else is held since.
        await self._refuse_quarantined(sale)
        held = self._hold is not None and not self._hold.complete
        if held or came_ns <= self._unclear_until_ns:
            at = micros(self._clock.now())

            def note(conn: sqlite3.Connection) -> None:
                # The person may have answered while this waited for its turn; it came before.
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
            raise MaybeSigned(
                "This sale may have a receipt from before the gateway's data were put back. Look for it "
                "on paper or on KRA's portal. If there is none, ring the sale up as a new one.",
                extra={"signed": "unknown"},
            )

    def mismatch(self, conn: sqlite3.Connection, row: InvoiceRow, reason: str) -> None:
        """Store a signing hold and quarantine the sale's key, inside the caller's transaction."""
        for name in ids.lasting_names(row.idem_key):
            sale = SaleName(row.till_id, name, row.till_receipt_no, row.total_cents)
            unclear_keys.note(conn, sale, at=micros(self._clock.now()), settled=True)
        self._record(conn, Hold(reason))

    def counter_gap(self, conn: sqlite3.Connection, reason: str) -> None:
        """Store a signing hold alone, inside the caller's transaction."""
        self._record(conn, Hold(reason))

    def mismatch_published(self, reason: str) -> None:
        """Put the stored hold in force, after the commit."""
        self._hold = Hold(reason)
        self._unclear = True

    async def check(self) -> str | None:
        """Compare once; the reason to hold, or None. A hold survives restarts until it is settled."""
        known = await self._db.read(_known)
        self._unclear = known.unclear
        mark = await self._mark()
        seen, agreed = await self._seen_in_unit(known)
        hold = _why_held(known, mark, seen, agreed=agreed)
        if hold is None:
            await self._settle(known)
            await self.mark_unit()
        elif hold != known.hold:
            await self._db.write(lambda conn: self._record(conn, hold))
            log.critical("unit.ahead reason=%s", hold.reason)
        self._hold = hold
        return self.hold

    async def settle_by_person(self, next_invc_no: int, who: str, reason: str) -> None:
        """The next number as read from the unit or the portal. DecisionInvalid for a lower one. Sales
        are missing here when it is higher than ours, or when it was seen that some are: then what was sent
        meanwhile stays unclear."""
        mark = await self._mark()

        def decide(conn: sqlite3.Connection) -> tuple[bool, int]:
            known = _known(conn)
            expected, least = known.next_invc_no, max(known.next_invc_no, _used(known, mark) + 1)
            if next_invc_no < least:
                raise DecisionInvalid(
                    "Invoice numbers only rise.",
                    errors=[
                        FieldError("/nextInvcNo", "NUMBER_USED", f"It must be {least} or more.")
                    ],
                )
            at = micros(self._clock.now())
            unit.use_up(conn, next_invc_no - 1, at=at)
            hold = known.hold
            old = hold is not None and not hold.complete
            missing = hold is not None and old and (hold.seen or next_invc_no > expected)
            unclear = 0
            if missing:
                unclear = unclear_keys.settle(conn)
            else:
                unclear_keys.forget(conn)
            _clear(conn)
            # What the unit signed beside this store is accounted for now.
            meta.put(conn, meta.COUNTER_OPEN, str(next_invc_no))
            if mark is not None and mark.store_id != known.store_id:
                # So that a marker which cannot be replaced asks nobody a second time.
                meta.put(conn, meta.TOOK_OVER, mark.store_id)
            data = {
                "who": who,
                "reason": reason,
                "nextInvcNo": next_invc_no,
                "was": expected,
                "unclearSales": unclear,
            }
            events.record(conn, at=at, kind="unit.numbering_decided", data=data)
            return missing, unclear

        missing, unclear = await self._db.write(decide)
        log.warning("unit.numbering_decided who=%s next=%s unclear=%s", who, next_invc_no, unclear)
        if missing:
            self._unclear, self._unclear_until_ns = True, self._clock.boottime_ns()
        self._hold = None
        await self.mark_unit()

    async def mark_unit(self) -> None:
        """Write into the unit's folder that this store sells with it, and how far it has come; nothing while
        signing is held. Called at the start, now and then, and at the end."""
        if self._unit_folder is None or self._hold is not None or self._unmarkable:
            return
        new_id = ids.new_id(micros(self._clock.now()))
        known = await self._db.read(_known)
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
        """The loop of it. A copy of the store that is put back by hand is known by it."""
        while True:
            await self._clock.sleep(MARK_EVERY_S)
            await self.mark_unit()

    async def _mark(self) -> Mark | None:
        """What stands in the unit's folder; None where nothing does, and where it cannot be read."""
        if self._unit_folder is None:
            return None
        with contextlib.suppress(marker.Unreadable):
            return await asyncio.to_thread(marker.read, self._unit_folder)
        return None

    async def _seen_in_unit(self, known: _Known) -> tuple[Hold | None, bool]:
        """(what the unit has that this store lacks, whether the unit's counter stands at our last receipt).

        That the unit does not hold a sale under our next number proves nothing: numbers may be left out.
        """
        # An open sale may or may not have moved the unit on by one; the resolver clears that up.
        slack = 1 if known.open_sale else 0
        agreed = False
        if self._counter is not None:
            counted = await self._counter.last_counter()
            if isinstance(counted, int):
                if counted > known.last_counter + slack:
                    unknown = counted - known.last_counter
                    reason = (
                        f"the control unit has signed {unknown} receipts that this store does "
                        "not know"
                    )
                    return Hold(reason), False
                if counted < known.last_counter:
                    reason = (
                        f"the control unit's counter is at {counted}, behind {known.last_counter}, "
                        "the last receipt here: its data were put back, or it is another unit"
                    )
                    return Hold(reason, complete=True), False
                agreed = counted == known.last_counter
        if known.open_sale:
            return None, agreed
        for reader in self._readers:
            found = await reader.stored_sale(known.next_invc_no)
            if found is not None and not isinstance(found, str):
                reason = (
                    f"the control unit already holds a sale under invoice number "
                    f"{known.next_invc_no}, which this store has never used"
                )
                return Hold(reason), False
        return None, agreed

    async def _settle(self, known: _Known) -> None:
        if known.hold is None and known.restored is None:
            return
        after = "restore" if known.hold is None else known.hold.reason

        def record(conn: sqlite3.Connection) -> None:
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


def _why_held(known: _Known, mark: Mark | None, seen: Hold | None, *, agreed: bool) -> Hold | None:
    """What all that is known comes to. Nothing that was once seen to be missing is unseen by a later look,
    and an old unit makes this store complete only where nothing says that it is old itself."""
    if known.hold is not None and known.hold.seen and not known.hold.complete:
        return known.hold
    other = _other_store(known, mark)
    if seen is not None:
        old_too = known.restored is not None or other is not None or known.lost is not None
        return replace(seen, complete=False) if old_too else seen
    # A unit that was put back as well knows no more than this store does.
    if agreed and not known.unit_restored and known.lost is None:
        return None
    if known.hold is None and known.restored is not None:
        return _restored(known)
    return known.hold or other


def _other_store(known: _Known, mark: Mark | None) -> Hold | None:
    if mark is None or mark.store_id == known.took_over:
        return None
    if mark.store_id != known.store_id:
        return Hold(
            "the unit's folder says that another store sold with this unit until now, and this one does "
            "not have its sales: look whether its disk is there and store.directory is right"
        )
    used = known.next_invc_no - 1 + (1 if known.open_sale else 0)
    if mark.last_invc_no > used:
        return Hold(
            f"the unit's folder says that this store had come to invoice number {mark.last_invc_no}, and "
            f"now it knows of {used}: it is an older copy"
        )
    return None


def _used(known: _Known, mark: Mark | None) -> int:
    """The last number that is known to be used, by this store or by the one before it."""
    lost_to = None if known.lost is None else known.lost.last_invc_no
    marked = mark is not None and mark.store_id != known.took_over
    return max(lost_to or 0, mark.last_invc_no if mark is not None and marked else 0)


def _stored_hold(conn: sqlite3.Connection) -> Hold | None:
    stored = meta.get(conn, meta.HOLD)
    return None if stored is None else Hold(**json.loads(stored))


def _known(conn: sqlite3.Connection) -> _Known:
    return _Known(
        next_invc_no=unit.next_invc_no(conn),
        last_counter=receipts.last_counter(conn),
        open_sale=invoices.open_row(conn) is not None,
        restored=meta.get(conn, meta.RESTORED),
        unit_restored=meta.get(conn, meta.UNIT_RESTORED) is not None,
        lost=lost.signed(conn),
        store_id=meta.get(conn, meta.STORE_ID),
        took_over=meta.get(conn, meta.TOOK_OVER),
        hold=_stored_hold(conn),
        unclear=unclear_keys.any_settled(conn),
    )


def _restored(known: _Known) -> Hold:
    at = f"{from_micros(int(known.restored or 0)).astimezone(EAT):%d/%m/%Y %H:%M}"
    if known.lost is not None:
        more, last = known.lost.receipts, known.lost.last_invc_no
        return Hold(
            f"this store is a backup of {at}, and the store that it replaced had {more} "
            f"receipt{'' if more == 1 else 's'} more"
            + (f", up to invoice number {last}" if last is not None else "")
        )
    if known.unit_restored:
        reason = (
            f"this store and the unit's folder are backups, the store of {at}, and only KRA's portal "
            "shows what was signed since"
        )
    else:
        reason = (
            f"this store is a backup of {at}, and nobody could ask the unit what it signed since"
        )
    return Hold(reason, seen=False)


def _clear(conn: sqlite3.Connection) -> None:
    for key in (meta.HOLD, meta.RESTORED, meta.UNIT_RESTORED):
        meta.remove(conn, key)
    lost.settle(conn)


def _shillings(amount_cents: int | None) -> str | None:
    return None if amount_cents is None else text(from_cents(amount_cents))


def as_json(watch: AheadWatch, conn: sqlite3.Connection) -> dict[str, Any]:
    """What the page and the API show of it."""
    known = _known(conn)
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
