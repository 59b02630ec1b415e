"""The shop's days: X at any time, Z once a day and never forgotten, PLU (TIS 15.1, 16.1, 18.1).

A receipt's day is the one printed on it, the SCU's. A close takes every receipt that no earlier one
took, so each is in exactly one, whatever was done to the clock. A day that nobody closed is closed
after midnight, or at the next start if the machine was off; a day without a receipt gets no close by
itself. The close, its paper and its event are one transaction; telling the unit comes after it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from gateway.clock import EAT, Clock, compact, from_micros, iso, micros, wake_or_sleep
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice
from gateway.domain.report import DayTotals, plu_as_json, plu_rows
from gateway.errors import DayClosed
from gateway.money import ZERO, from_cents, text
from gateway.store import events, invoices, meta, reports
from gateway.store.database import Database
from gateway.store.reports import Bounds, ZReport

log = logging.getLogger(__name__)

# The close of a day is written this long after midnight, so that a sale in hand is in it. Seconds.
AFTER_MIDNIGHT_S = 5.0
# A sale whose outcome is open holds the close up for so long, then the close goes on without it; and a
# sale younger than this is in hand, not incomplete. Seconds.
IN_HAND_S = 120.0
# The wall clock may be set meanwhile, so a look at least this often. Seconds.
LOOK_S = 600.0
# A unit that gives no final answer is told again at each look, for so long. Microseconds.
TELL_US = 7 * 24 * 3_600_000_000
# A close that is made later than this after its midnight is a missed one. Microseconds.
LATE_US = 3_600_000_000
DEPOSIT_KEY = "day.deposit"
NOTHING = Bounds()

# Tells the unit of a close: (whether that was final, what it said or why it did not).
TellUnit = Callable[[ZReport], Awaitable[tuple[bool, str]]]
# Puts a close on paper, in its own transaction.
Print = Callable[[sqlite3.Connection, ZReport], None]


class Days:
    """`run` for as long as the daemon lives; the rest is asked by the API and the pages."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        header: dict[str, Any],
        tell_unit: TellUnit | None,
        paper: Print,
        by_itself: bool,
        clock_fault: Callable[[], bool] = lambda: False,
    ) -> None:
        self._db = db
        self._clock = clock
        self.header = header
        self._tell_unit = tell_unit
        self._paper = paper
        self.by_itself = by_itself
        self._clock_fault = clock_fault
        self._wake = asyncio.Event()
        # The next close: its number, and the day it will be of once there is a receipt for it.
        self._number = 1
        self._day: str | None = None

    def notify(self) -> None:
        """KRA was heard: what the unit could not be told may be told now."""
        self._wake.set()

    def report_no(self) -> int:
        """`rptNo` of a sale that is sent now: the number of the close that it will be in."""
        today = _day(self._clock.now())
        if self._day is None:
            self._day = today
        return self._number + int(today > self._day)

    # --- asked by the API ---------------------------------------------------------------------------

    async def x_report(self) -> dict[str, Any]:
        """Totals since the last close; changes nothing (TIS 15.1)."""
        now = self._clock.now()

        def make(conn: sqlite3.Connection) -> dict[str, Any]:
            newest = reports.last(conn)
            number = newest.number + 1 if newest else 1
            after = newest.bounds if newest else NOTHING
            upto = reports.bounds_at(conn, after, None, self._in_hand_since())
            began = min(self._began(conn, newest, micros(now)), micros(now))
            return self._body(conn, ("X", number), after, upto, (began, micros(now)))

        return await self._db.read(make)

    async def plu_report(self, start: datetime, end: datetime) -> dict[str, Any]:
        """Per item in [start, end), by the dates on the receipts (TIS 18.1)."""

        def make(conn: sqlite3.Connection) -> dict[str, Any]:
            stored = reports.signed_between(conn, compact(start), compact(end))
            rows = plu_rows(_invoices(stored))
            return {
                **self.header,
                "type": "PLU",
                "from": iso(start),
                "to": iso(end),
                "items": plu_as_json(rows, reports.stock_levels(conn)),
                "total": text(sum((row.amount for row in rows), ZERO)),
            }

        return await self._db.read(make)

    async def close(self, who: str) -> ZReport:
        """The Z of the day in hand, by a person: of an earlier day if that is still open, otherwise of
        today. DayClosed if today has one (once a day, TIS 16.1)."""
        made = await self._close("PERSON", who)
        assert made is not None
        return made

    async def deposit(self, amount: str, who: str) -> None:
        """The money in the drawer when the day begins."""
        at = micros(self._clock.now())

        def put(conn: sqlite3.Connection) -> None:
            meta.put(conn, DEPOSIT_KEY, amount)
            events.record(conn, at=at, kind="day.deposit", data={"amount": amount, "who": who})

        await self._db.write(put)

    # --- by itself ------------------------------------------------------------------------------------

    async def catch_up(self) -> list[ZReport]:
        """Make the closes that were missed, oldest first; what was made. Called at start, too."""
        number, day = await self._db.read(self._in_hand)
        if number != self._number or day is not None:
            # Otherwise a sale that is still being signed may have told the day.
            self._number, self._day = number, day
        made: list[ZReport] = []
        # A clock that is days ahead would close days that are not over.
        while self.by_itself and not self._clock_fault() and not await self._db.read(self._waits):
            report = await self._close("MIDNIGHT", None)
            if report is None:
                break
            made.append(report)
        return made

    async def run(self) -> None:
        while True:
            self._wake.clear()
            await self.catch_up()
            await self._tell()
            await wake_or_sleep(self._clock, self._wake, await self._db.read(self._nap))

    def _nap(self, conn: sqlite3.Connection) -> float:
        """Seconds to the next look: after midnight, or soon if a sale holds up a close."""
        if self.by_itself and self._waits(conn):
            return AFTER_MIDNIGHT_S
        now = self._clock.now().astimezone(EAT)
        left = (_midnight_after(_day(now)) - now).total_seconds()
        return min(left + AFTER_MIDNIGHT_S, LOOK_S)

    def _waits(self, conn: sqlite3.Connection) -> bool:
        """Whether a close is due and must still wait: midnight was just now, or a sale is open
        that may bear yesterday's date."""
        due = self._due(conn)
        if due is None:
            return False
        past_s = (self._clock.now() - _midnight_after(due)).total_seconds()
        if past_s < AFTER_MIDNIGHT_S:
            return True
        return past_s < IN_HAND_S and invoices.open_row(conn) is not None

    def _in_hand(self, conn: sqlite3.Connection) -> tuple[int, str | None]:
        """(number of the next close, the day it will be of); the day None while it has no receipt and
        can be of today."""
        newest = reports.last(conn)
        number = newest.number + 1 if newest else 1
        day = reports.first_day(conn, newest.bounds if newest else NOTHING)
        if day is None and newest is not None and newest.day == _day(self._clock.now()):
            day = newest.day
        # Sold after that day's close: they belong to the next day's.
        while day is not None and reports.by_day(conn, day) is not None:
            day = _day(_midnight_after(day))
        return number, day

    def _due(self, conn: sqlite3.Connection) -> str | None:
        """The day that is over, has receipts and no close."""
        _, day = self._in_hand(conn)
        return day if day is not None and day < _day(self._clock.now()) else None

    async def _tell(self) -> None:
        """Tell the unit of the closes it does not know, oldest first."""
        for report in await self._db.read(reports.closing):
            if not await self._told(report):
                return

    async def _told(self, report: ZReport) -> bool:
        final, says = True, "not told: switched off"
        if self._tell_unit is not None:
            final, says = await self._tell_unit(report)
        done = final or micros(self._clock.now()) - report.made_at > TELL_US
        level = logging.INFO if done else logging.WARNING
        log.log(level, "day.told number=%d done=%s says=%s", report.number, done, says)
        await self._db.write(lambda c: reports.note_unit(c, report.number, says, done=done))
        return done

    # --- making one -----------------------------------------------------------------------------------

    async def _close(self, how: str, who: str | None) -> ZReport | None:
        """The one transaction of a close; None when nothing is due (by itself)."""

        def make(conn: sqlite3.Connection) -> ZReport | None:
            now = self._clock.now()
            due = self._due(conn)
            if due is None and how != "PERSON":
                return None
            day = due or _day(now)
            earlier = reports.by_day(conn, day)
            if earlier is not None:
                raise DayClosed(
                    f"This day was closed already, as Z report {earlier.number}. "
                    "Print it again instead; what is sold now belongs to the next one.",
                    extra={"number": earlier.number},
                )
            return self._make(conn, day, _midnight_after(day) if due else None, how, who)

        made = await self._db.write(make)
        if made is not None:
            self._number, self._day = await self._db.read(self._in_hand)
            log.info("day.closed number=%d day=%s how=%s", made.number, made.day, made.how)
            self._wake.set()
        return made

    def _make(
        self,
        conn: sqlite3.Connection,
        day: str,
        midnight: datetime | None,
        how: str,
        who: str | None,
    ) -> ZReport:
        at = micros(self._clock.now())
        newest = reports.last(conn)
        number = newest.number + 1 if newest else 1
        after = newest.bounds if newest else NOTHING
        until = None if midnight is None else (compact(midnight), micros(midnight))
        upto = reports.bounds_at(conn, after, until, self._in_hand_since())
        ends = at if midnight is None else micros(midnight)
        if how == "MIDNIGHT" and at - ends > LATE_US:
            how = "LATE"
        began = self._began(conn, newest, ends)
        # A clock that was set back must not make a close that ends before it begins.
        ends = max(ends, began)
        body = self._body(conn, ("Z", number), after, upto, (began, ends))
        report = ZReport(
            number=number,
            day=day,
            began_at=began,
            ended_at=ends,
            bounds=upto,
            body={**body, "day": day},
            how=how,
            state="DONE" if self._tell_unit is None else "CLOSING",
            unit_says=None,
            made_at=at,
        )
        reports.append(conn, report)
        self._paper(conn, report)
        meta.put(conn, DEPOSIT_KEY, text(ZERO))
        data = {"number": number, "day": day, "how": how, "who": who}
        events.record(conn, at=at, kind="day.closed", data=data)
        return report

    def _in_hand_since(self) -> int:
        return micros(self._clock.now()) - int(IN_HAND_S * 1e6)

    def _began(self, conn: sqlite3.Connection, newest: ZReport | None, otherwise: int) -> int:
        """Where the day in hand begins: at the last close, or with the first receipt of all."""
        if newest is not None:
            return newest.ended_at
        first = reports.first_signed_at(conn)
        return otherwise if first is None else min(first, otherwise)

    def _body(
        self,
        conn: sqlite3.Connection,
        what: tuple[str, int],
        after: Bounds,
        upto: Bounds,
        interval: tuple[int, int],
    ) -> dict[str, Any]:
        totals = DayTotals(incomplete=reports.incomplete(conn, after, upto))
        for label, invoice in _invoices(reports.signed(conn, after, upto)):
            totals.add(label, invoice)
        for amount in reports.copies(conn, after, upto):
            totals.copies.add(from_cents(amount))
        return {
            **self.header,
            "type": what[0],
            "number": what[1],
            "madeAt": iso(self._clock.now()),
            "from": iso(from_micros(interval[0])),
            "to": iso(from_micros(interval[1])),
            "openingDeposit": meta.get(conn, DEPOSIT_KEY) or text(ZERO),
            **totals.as_json(),
        }


def _day(at: datetime) -> str:
    return f"{at.astimezone(EAT):%Y-%m-%d}"


def _midnight_after(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=EAT) + timedelta(days=1)


def _invoices(stored: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Invoice]]:
    for label, document in stored:
        yield label, invoice_json.from_json(document)
