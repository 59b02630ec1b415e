"""The shop's days: X at any time, Z once a day and never forgotten, PLU (TIS 15.1, 16.1, 18.1).

A Z ends where the next begins, in the store's own order, so every receipt is in exactly one. A day
that nobody closed is closed at midnight, or at the next start if the machine was off.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from gateway.clock import EAT, Clock, from_micros, iso, micros
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice
from gateway.domain.report import DayTotals, plu_as_json, plu_rows
from gateway.errors import DayClosed
from gateway.money import ZERO, from_cents, text
from gateway.store import events, meta, reports
from gateway.store.database import Database
from gateway.store.reports import ZReport

log = logging.getLogger(__name__)

# The close of a day is written this long after midnight, so that a sale in hand is in it. Seconds.
AFTER_MIDNIGHT_S = 5.0
# A day is never longer than this ahead of the wall clock's next look. Seconds.
LOOK_S = 600.0
DEPOSIT_KEY = "day.deposit"

# Tells the unit of a close; what it answered, or None where that is switched off.
TellUnit = Callable[[str], Awaitable[str | None]]
# Puts a close on paper, in the transaction that finishes it.
Print = Callable[[sqlite3.Connection, ZReport], None]


class Days:
    """`run` for as long as the daemon lives; the rest is asked by the API."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        header: dict[str, Any],
        tell_unit: TellUnit,
        paper: Print,
        by_itself: bool,
    ) -> None:
        self._db = db
        self._clock = clock
        self._header = header
        self._tell_unit = tell_unit
        self._paper = paper
        self._by_itself = by_itself
        # The number that the day in hand will have; it goes to the unit with every sale (rptNo).
        self.number = 1

    # --- asked by the API ---------------------------------------------------------------------------

    async def x_report(self) -> dict[str, Any]:
        """Totals since the last close; changes nothing (TIS 15.1)."""
        now = micros(self._clock.now())

        def make(conn: sqlite3.Connection) -> dict[str, Any]:
            began = self._began(conn, now)
            return self._body(conn, "X", self._next(conn), began, now + 1)

        return await self._db.read(make)

    async def plu_report(self, start: datetime, end: datetime) -> dict[str, Any]:
        """Per item in [start, end) (TIS 18.1)."""

        def make(conn: sqlite3.Connection) -> dict[str, Any]:
            rows = plu_rows(_invoices(conn, micros(start), micros(end)))
            return {
                **self._header,
                "type": "PLU",
                "from": iso(start),
                "to": iso(end),
                "items": plu_as_json(rows, reports.stock_levels(conn)),
                "total": text(sum((row.amount for row in rows), ZERO)),
            }

        return await self._db.read(make)

    async def close(self, who: str) -> ZReport:
        """The Z of the day in hand, by a person. DayClosed if it has one (once a day, TIS 16.1)."""
        now = self._clock.now()
        return await self._close(_day(now), micros(now), "PERSON", who)

    async def deposit(self, amount: str, who: str) -> None:
        """The money in the drawer when the day begins."""
        at = micros(self._clock.now())

        def put(conn: sqlite3.Connection) -> None:
            meta.put(conn, DEPOSIT_KEY, amount)
            events.record(conn, at=at, kind="day.deposit", data={"amount": amount, "who": who})

        await self._db.write(put)

    # --- by itself ------------------------------------------------------------------------------------

    async def catch_up(self) -> list[ZReport]:
        """Finish half-done closes and make the missed ones; what was made. Called at start, too."""
        for half in await self._db.read(reports.closing):
            log.warning("day.finished number=%d day=%s", half.number, half.day)
            await self._finish(half)
        self.number = await self._db.read(self._next)
        made: list[ZReport] = []
        while self._by_itself:
            missed = await self._db.read(self._missed)
            if missed is None:
                break
            midnight = datetime.fromisoformat(missed).replace(tzinfo=EAT) + timedelta(days=1)
            late = micros(self._clock.now()) - micros(midnight) > 3_600_000_000
            made.append(
                await self._close(missed, micros(midnight), "LATE" if late else "MIDNIGHT", None)
            )
        return made

    async def run(self) -> None:
        while True:
            await self.catch_up()
            now = self._clock.now().astimezone(EAT)
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
            # The wall clock may be set meanwhile, so never one long nap.
            left_s = (midnight - now).total_seconds() + AFTER_MIDNIGHT_S
            await self._clock.sleep(min(left_s, LOOK_S))

    def _missed(self, conn: sqlite3.Connection) -> str | None:
        """The oldest day before today that has receipts and no close."""
        began = self._began(conn, 0)
        first = reports.first_signed_at(conn, began)
        if first is None:
            return None
        day = _day(from_micros(first))
        if reports.by_day(conn, day) is not None:
            # Sold after that day's close: they belong to the next day's.
            return self._next_day_missed(conn, day)
        return day if day < _day(self._clock.now()) else None

    def _next_day_missed(self, conn: sqlite3.Connection, day: str) -> str | None:
        end = datetime.fromisoformat(day).replace(tzinfo=EAT) + timedelta(days=1)
        following = _day(end)
        return following if following < _day(self._clock.now()) else None

    # --- making one -----------------------------------------------------------------------------------

    async def _close(self, day: str, end: int, how: str, who: str | None) -> ZReport:
        at = micros(self._clock.now())

        def make(conn: sqlite3.Connection) -> ZReport:
            earlier = reports.by_day(conn, day)
            if earlier is not None:
                raise DayClosed(
                    f"This day was closed already, as Z report {earlier.number}. "
                    "Print it again instead; what is sold now belongs to the next one.",
                    extra={"number": earlier.number},
                )
            number = self._next(conn)
            began = self._began(conn, end)
            # A clock that was set back must not make a close that ends before it begins.
            ended = max(end, began)
            body = self._body(conn, "Z", number, began, ended)
            reports.append(
                conn,
                number=number,
                day=day,
                began_at=began,
                ended_at=ended,
                body=body,
                how=how,
                at=at,
            )
            meta.put(conn, DEPOSIT_KEY, text(ZERO))
            events.record(
                conn,
                at=at,
                kind="day.closed",
                data={"number": number, "day": day, "how": how, "who": who},
            )
            made = reports.by_number(conn, number)
            assert made is not None
            return made

        made = await self._db.write(make)
        self.number = made.number + 1
        log.info("day.closed number=%d day=%s how=%s", made.number, made.day, made.how)
        return await self._finish(made)

    async def _finish(self, report: ZReport) -> ZReport:
        """Tell the unit if it is to be told, put it on paper, mark it done."""
        says = await self._tell_unit(report.day)

        def done(conn: sqlite3.Connection) -> ZReport:
            reports.finish(conn, report.number, says)
            self._paper(conn, report)
            found = reports.by_number(conn, report.number)
            assert found is not None
            return found

        return await self._db.write(done)

    def _next(self, conn: sqlite3.Connection) -> int:
        newest = reports.last(conn)
        return 1 if newest is None else newest.number + 1

    def _began(self, conn: sqlite3.Connection, otherwise: int) -> int:
        """Where the day in hand begins: at the last close, or with the first receipt."""
        newest = reports.last(conn)
        if newest is not None:
            return newest.ended_at
        first = reports.first_signed_at(conn, 0)
        return first if first is not None else otherwise

    def _body(
        self, conn: sqlite3.Connection, kind: str, number: int, start: int, end: int
    ) -> dict[str, Any]:
        totals = DayTotals(incomplete=reports.incomplete_between(conn, start, end))
        for label, invoice in _invoices(conn, start, end):
            totals.add(label, invoice)
        for amount in reports.copies_between(conn, start, end):
            totals.copies.add(from_cents(amount))
        return {
            **self._header,
            "type": kind,
            "number": number,
            "madeAt": iso(self._clock.now()),
            "from": iso(from_micros(start)),
            "to": iso(from_micros(end)),
            "openingDeposit": meta.get(conn, DEPOSIT_KEY) or text(ZERO),
            **totals.as_json(),
        }


def _day(at: datetime) -> str:
    return f"{at.astimezone(EAT):%Y-%m-%d}"


def _invoices(conn: sqlite3.Connection, start: int, end: int) -> Iterator[tuple[str, Invoice]]:
    for label, document in reports.signed_between(conn, start, end):
        yield label, invoice_json.from_json(document)
