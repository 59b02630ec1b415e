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
import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway import ids
from gateway.clock import EAT, Clock, from_micros, iso, micros
from gateway.errors import DecisionInvalid, FieldError, MaybeSigned, StoreError, UnitAhead
from gateway.fiscal.evidence import CountingUnit, ReadingUnit
from gateway.money import from_cents, text
from gateway.store import events, invoices, lost, marker, meta, receipts, unclear_keys, unit
from gateway.store.backup import RESTORED_KEY, UNIT_RESTORED_KEY
from gateway.store.database import Database
from gateway.store.unclear_keys import SaleName

log = logging.getLogger(__name__)

_HOLD_KEY = "unit.ahead"
# Which store this is, for the marker in the unit's folder.
_ID_KEY = "store.id"
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
        held = self._hold is not None and not self._hold.complete
        if held or came_ns <= self._unclear_until_ns:
            at = micros(self._clock.now())

            def note(conn: sqlite3.Connection) -> None:
                # The person may have answered while this waited for its turn; it came before.
                answered = meta.get(conn, _HOLD_KEY) is None
                settled = answered and unclear_keys.any_settled(conn)
                unclear_keys.note(conn, sale, at=at, settled=settled)

            try:
                await self._db.write(note)
            except StoreError as error:
                error.extra.setdefault("signed", "unknown")
                raise
            self.gate()
        if self._unclear and await self._db.read(
            lambda conn: unclear_keys.is_settled(conn, sale.till_id, sale.idem_key)
        ):
            raise MaybeSigned(
                "This sale may have a receipt from before the gateway's data were put back. Look for it "
                "on paper or on KRA's portal. If there is none, ring the sale up as a new one.",
                extra={"signed": "unknown"},
            )

    async def check(self) -> str | None:
        """Compare once; the reason to hold, or None. A hold survives restarts until it is settled."""
        known = await self._db.read(_known)
        self._unclear = known.unclear
        hold, agreed = await self._compare(known)
        # A unit that was put back as well knows no more than this store does.
        if agreed and not known.unit_restored and known.lost is None:
            await self._settle(known)
            await self._mark_unit()
            return None
        if hold is None:
            # Nobody could tell. A store that is known to be an old copy waits all the same.
            hold = known.hold or (_restored(known) if known.restored else None)
        if hold is None and await self._sold_with_another(known):
            hold = _OTHER_STORE
        if hold is None:
            await self._mark_unit()
        elif hold != known.hold:
            await self._db.write(lambda conn: self._record(conn, hold))
            log.critical("unit.ahead reason=%s", hold.reason)
        self._hold = hold
        return self.hold

    async def _sold_with_another(self, known: _Known) -> bool:
        """Whether the unit's folder names another store."""
        if self._unit_folder is None:
            return False
        marked = await asyncio.to_thread(marker.read, self._unit_folder)
        return marked is not None and marked != known.store_id

    async def _mark_unit(self) -> None:
        if self._unit_folder is None or not self._unit_folder.is_dir():
            return
        new_id = ids.new_id(micros(self._clock.now()))

        def named(conn: sqlite3.Connection) -> str:
            store_id = meta.get(conn, _ID_KEY)
            if store_id is None:
                meta.put(conn, _ID_KEY, new_id)
            return store_id or new_id

        store_id = await self._db.write(named)
        if await asyncio.to_thread(marker.read, self._unit_folder) != store_id:
            await asyncio.to_thread(marker.write, self._unit_folder, store_id)

    async def settle_by_person(self, next_invc_no: int, who: str, reason: str) -> None:
        """The next number as read from the unit or the portal. DecisionInvalid for a lower one. Sales
        are missing here when it is higher than ours, or when the unit was seen to have some: then what
        was sent meanwhile stays unclear."""

        def decide(conn: sqlite3.Connection) -> tuple[bool, int]:
            expected = unit.next_invc_no(conn)
            missed = lost.signed(conn)
            used = 0 if missed is None or missed.last_invc_no is None else missed.last_invc_no
            least = max(expected, used + 1)
            if next_invc_no < least:
                raise DecisionInvalid(
                    "Invoice numbers only rise.",
                    errors=[
                        FieldError("/nextInvcNo", "NUMBER_USED", f"It must be {least} or more.")
                    ],
                )
            at = micros(self._clock.now())
            unit.use_up(conn, next_invc_no - 1, at=at)
            hold = _stored_hold(conn)
            old = hold is not None and not hold.complete
            missing = hold is not None and old and (hold.seen or next_invc_no > expected)
            unclear = 0
            if missing:
                unclear = unclear_keys.settle(conn)
            else:
                unclear_keys.forget(conn)
            _clear(conn)
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
        await self._mark_unit()

    async def _compare(self, known: _Known) -> tuple[Hold | None, bool]:
        """(why to hold, whether they agree); (None, False) when nobody can tell."""
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
                    # A store that was put back, too, may lack sales as the unit does.
                    return Hold(reason, complete=known.restored is None), False
                agreed = True
        if known.open_sale:
            return None, agreed
        for reader in self._readers:
            found = await reader.stored_sale(known.next_invc_no)
            if found is None:
                agreed = True
            elif not isinstance(found, str):
                reason = (
                    f"the control unit already holds a sale under invoice number "
                    f"{known.next_invc_no}, which this store has never used"
                )
                return Hold(reason), False
        return None, agreed

    async def _settle(self, known: _Known) -> None:
        self._hold = None
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
        meta.put(conn, _HOLD_KEY, json.dumps(asdict(hold)))
        events.record(
            conn, at=micros(self._clock.now()), kind="unit.ahead", data={"reason": hold.reason}
        )


_OTHER_STORE = Hold(
    "the unit's folder says that another store sold with this unit until now, and this one does not have "
    "its sales: look whether its disk is there and store.directory is right",
    seen=False,
)


def _stored_hold(conn: sqlite3.Connection) -> Hold | None:
    stored = meta.get(conn, _HOLD_KEY)
    return None if stored is None else Hold(**json.loads(stored))


def _known(conn: sqlite3.Connection) -> _Known:
    return _Known(
        next_invc_no=unit.next_invc_no(conn),
        last_counter=receipts.last_counter(conn),
        open_sale=invoices.open_row(conn) is not None,
        restored=meta.get(conn, RESTORED_KEY),
        unit_restored=meta.get(conn, UNIT_RESTORED_KEY) is not None,
        lost=lost.signed(conn),
        store_id=meta.get(conn, _ID_KEY),
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
    for key in (_HOLD_KEY, RESTORED_KEY, UNIT_RESTORED_KEY):
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
