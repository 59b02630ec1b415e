"""Notices that the control unit and this store disagree, and stops signing until that is settled.

It happens when an older copy of the store is put back (a backup, a virtual machine's snapshot): the
unit has signed sales this store has never seen, and would sign them again as new. Or an older copy
of the unit's folder: it would give receipt numbers a second time. So before the first sale after
each start the unit's own data are compared with ours, and a store that was restored on purpose waits
for a comparison or for a person.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock, from_micros, iso, micros
from gateway.errors import DecisionInvalid, FieldError, UnitAhead
from gateway.fiscal.evidence import CountingUnit, ReadingUnit
from gateway.store import events, invoices, meta, receipts, unit
from gateway.store.backup import RESTORED_KEY
from gateway.store.database import Database

log = logging.getLogger(__name__)

_HOLD_KEY = "unit.ahead"


@dataclass(frozen=True, slots=True)
class _Known:
    """What this store knows of the unit's numbering."""

    next_invc_no: int
    last_counter: int
    open_sale: bool
    restored: str | None
    hold: str | None


class AheadWatch:
    """`check` before the signer starts; `gate` right before the wire."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        readers: Sequence[ReadingUnit] = (),
        counter: CountingUnit | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._readers = tuple(readers)
        self._counter = counter
        self.hold: str | None = None

    def gate(self) -> None:
        """Back if the unit is not known to be ahead. UnitAhead otherwise."""
        if self.hold is not None:
            raise UnitAhead(
                f"Nothing is signed: {self.hold}. Call the technician: see the page /unit.",
                retry_after_s=60,
                extra={"signed": "no"},
            )

    async def check(self) -> str | None:
        """Compare once; the reason to hold, or None. A hold survives restarts until it is settled."""
        known = await self._db.read(_known)
        reason, agreed = await self._compare(known)
        if agreed:
            await self._settle(known)
            return None
        if reason is None:
            # Nobody could tell. A store that is known to be an old copy waits all the same.
            reason = known.hold or (_restored_reason(known) if known.restored else None)
        if reason is not None and reason != known.hold:
            await self._db.write(lambda conn: self._record(conn, reason))
            log.critical("unit.ahead reason=%s", reason)
        self.hold = reason
        return reason

    async def settle_by_person(self, next_invc_no: int, who: str, reason: str) -> None:
        """The next number as read from the unit or the portal. DecisionInvalid for a lower one."""

        def decide(conn: sqlite3.Connection) -> None:
            expected = unit.next_invc_no(conn)
            if next_invc_no < expected:
                raise DecisionInvalid(
                    "Invoice numbers only rise.",
                    errors=[
                        FieldError("/nextInvcNo", "NUMBER_USED", f"It must be {expected} or more.")
                    ],
                )
            at = micros(self._clock.now())
            unit.use_up(conn, next_invc_no - 1, at=at)
            _clear(conn)
            data = {"who": who, "reason": reason, "nextInvcNo": next_invc_no, "was": expected}
            events.record(conn, at=at, kind="unit.numbering_decided", data=data)

        await self._db.write(decide)
        log.warning("unit.numbering_decided who=%s next=%s", who, next_invc_no)
        self.hold = None

    async def _compare(self, known: _Known) -> tuple[str | None, bool]:
        """(why to hold, whether they agree); (None, False) when nobody can tell."""
        # An open sale may or may not have moved the unit on by one; the resolver clears that up.
        slack = 1 if known.open_sale else 0
        agreed = False
        if self._counter is not None:
            counted = await self._counter.last_counter()
            if isinstance(counted, int):
                if counted > known.last_counter + slack:
                    unknown = counted - known.last_counter
                    return (
                        f"the control unit has signed {unknown} receipts that this store does "
                        "not know",
                        False,
                    )
                if counted < known.last_counter:
                    return (
                        f"the control unit's counter is at {counted}, behind {known.last_counter}, "
                        "the last receipt here: its data were put back, or it is another unit",
                        False,
                    )
                agreed = True
        if known.open_sale:
            return None, agreed
        for reader in self._readers:
            found = await reader.stored_sale(known.next_invc_no)
            if found is None:
                agreed = True
            elif not isinstance(found, str):
                return (
                    f"the control unit already holds a sale under invoice number "
                    f"{known.next_invc_no}, which this store has never used",
                    False,
                )
        return None, agreed

    async def _settle(self, known: _Known) -> None:
        self.hold = None
        if known.hold is None and known.restored is None:
            return

        def record(conn: sqlite3.Connection) -> None:
            _clear(conn)
            at = micros(self._clock.now())
            events.record(conn, at=at, kind="unit.agrees", data={"after": known.hold or "restore"})

        await self._db.write(record)
        log.warning("unit.agrees after=%s", known.hold or "restore")

    def _record(self, conn: sqlite3.Connection, reason: str) -> None:
        meta.put(conn, _HOLD_KEY, json.dumps(reason))
        events.record(
            conn, at=micros(self._clock.now()), kind="unit.ahead", data={"reason": reason}
        )


def _known(conn: sqlite3.Connection) -> _Known:
    hold = meta.get(conn, _HOLD_KEY)
    return _Known(
        next_invc_no=unit.next_invc_no(conn),
        last_counter=receipts.last_counter(conn),
        open_sale=invoices.open_row(conn) is not None,
        restored=meta.get(conn, RESTORED_KEY),
        hold=json.loads(hold) if hold else None,
    )


def _restored_reason(known: _Known) -> str:
    at = iso(from_micros(int(known.restored or 0)))
    return f"this store is a backup of {at}, and nobody could ask the unit what it signed since"


def _clear(conn: sqlite3.Connection) -> None:
    for key in (_HOLD_KEY, RESTORED_KEY):
        meta.remove(conn, key)


def as_json(watch: AheadWatch, conn: sqlite3.Connection) -> dict[str, Any]:
    """What the page and the API show of it."""
    known = _known(conn)
    return {
        "hold": watch.hold,
        "nextInvcNo": known.next_invc_no,
        "lastTotRcptNo": known.last_counter,
    }
