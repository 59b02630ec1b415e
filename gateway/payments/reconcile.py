"""Reads M-Pesa's own list of payments (Pull Transactions) and puts it beside ours: the truth of last resort,
for 48 hours. What is on the list has come. What is not on it, in a time that was covered, has not, if the list
shows life: M-Pesa answers failed reads and short codes that were never registered with an empty list as well
(daraja.md 12).
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta

from gateway.clock import Clock, from_micros, micros, wake_or_sleep
from gateway.domain.payment import UNSETTLED, Evidence, Money, Source, Verdict
from gateway.domain.payment_wire import Daraja, PulledRow
from gateway.errors import StoreError
from gateway.payments import twins
from gateway.payments.decisions import report_reversal
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.matching import APART_US, REFERENCE_US, match, same_reference
from gateway.payments.schedule import Ages
from gateway.store import meta, payments, payments_shown, pulled, refunds, reports
from gateway.store.database import Database
from gateway.store.payments import PaymentRow
from gateway.store.payments_shown import OtherRow
from gateway.store.pulled import Reading

log = logging.getLogger(__name__)

# The list is read when a payment that it may tell of has this age, in seconds (daraja.md 4.4).
STEPS_S = (300, 900, 3600, 21_600, 86_400, 169_200)
# M-Pesa keeps 48 hours; the first minutes of them are on their way out.
KEPT = timedelta(hours=48) - timedelta(minutes=10)
# M-Pesa's clock and ours may be apart, and a payment may be older than its message. Microseconds.
BEFORE_US = 3_600_000_000
# A clock that was set while a push was out: its place on the list is not known. Seconds.
STEP_S = 60.0
# Not more often than this, whoever asks, and after a fault. Seconds.
BETWEEN_S = 60.0
LOOK_S = 300.0
PAGES_MAX = 500
# The last close of a day for which the list was read.
CLOSE_KEY = "mpesa.read_for_close"

# Puts a row of the list on the payment that it belongs to, or keeps it for an owner.
Announce = Callable[[sqlite3.Connection, PulledRow, int, bytes], Heard]


class Reconciler:
    """`run` for as long as the daemon lives. `margin_s`: an absence counts when the list was read so long
    after the prompt's life."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        ledger: Ledger,
        daraja: Daraja,
        announce: Announce,
        margin_s: float,
        prompt_life_s: float,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._daraja = daraja
        self._announce = announce
        self._absent_after_s = margin_s + prompt_life_s
        self._life_us = int(prompt_life_s * 1e6)
        self._ages = Ages(clock)
        self._wake = asyncio.Event()
        self._asked = False
        # When the list was read last, and when reading it was tried; by the clock that nobody sets.
        self._read_ns: int | None = None
        self._tried_ns: int | None = None
        # Why the list could not be read; None while it can.
        self.problem: str | None = None

    def soon(self) -> None:
        """Somebody wants to know; a minute apart at least."""
        self._asked = True
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            nap = await self.round()
            await wake_or_sleep(self._clock, self._wake, nap)

    async def round(self) -> float:
        """Read the list if it is due; seconds to the next look."""
        rows = await self._db.read(self._open)
        self._ages.keep({row.id for row in rows})
        ages = {row.id: self._ages.of(row) for row in rows}
        closed = await self._db.read(_unread_close)
        since_s = await self._since_read_s()
        due = [row for row in rows if _due(ages[row.id], since_s, self._absent_after_s)]
        tried_s = self._since_s(self._tried_ns)
        # The first reading of all is the beginning that every later one goes back to: money that nobody
        # asked for and whose confirmation was lost is found from then on.
        first = await self._db.read(pulled.last) is None and self._read_ns is None
        if not (due or closed is not None or self._asked or first):
            return self._nap(rows, ages)
        if tried_s < BETWEEN_S:
            return BETWEEN_S - tried_s
        self._asked = False
        self._tried_ns = self._clock.boottime_ns()
        try:
            whole = await self._read(rows)
        except StoreError:
            raise
        except Exception as error:  # a peer's answer never ends the loop
            log.exception("pull.fault")
            self.problem = f"M-Pesa's list could not be read: {type(error).__name__}"
            whole = False
        if whole and closed is not None:
            await self._db.write(lambda conn: meta.put(conn, CLOSE_KEY, str(closed)))
        return BETWEEN_S

    def _nap(self, rows: list[PaymentRow], ages: dict[str, float]) -> float:
        steps = (*STEPS_S, self._absent_after_s)
        left = [step - ages[row.id] for row in rows for step in steps if step > ages[row.id]]
        return min([LOOK_S, *left])

    def _since_s(self, at_ns: int | None) -> float:
        return float("inf") if at_ns is None else (self._clock.boottime_ns() - at_ns) / 1e9

    async def _since_read_s(self) -> float:
        """Seconds since the last whole reading; never, if the clock cannot say."""
        if self._read_ns is not None:
            return self._since_s(self._read_ns)
        last = await self._db.read(pulled.last)
        ago_s = -1.0 if last is None else (micros(self._clock.now()) - last.read_at) / 1e6
        if ago_s < 0:
            return float("inf")
        self._read_ns = self._clock.boottime_ns() - int(ago_s * 1e9)
        return ago_s

    def _open(self, conn: sqlite3.Connection) -> list[PaymentRow]:
        """What the list may still tell of: no end, or paid and the receipt to follow."""
        now = self._clock.now()
        # Also what a clock that was ahead has sent.
        rows = payments.without_receipt_or_end(
            conn, micros(now - KEPT), micros(now + timedelta(days=2))
        )
        return [row for row in rows if row.money in UNSETTLED or row.money is Money.PAID]

    # --- one reading ---------------------------------------------------------------------------------

    async def _read(self, rows: list[PaymentRow]) -> bool:
        """The whole list of the time that counts; False when it was not told to its end."""
        now = self._clock.now()
        oldest = min((row.sent_at or row.created_at for row in rows), default=micros(now))
        if await self._db.read(pulled.last) is not None:
            # A reading by a clock that was ahead covers nothing of the time that came after it.
            until = await self._db.read(lambda conn: pulled.covered_until(conn, micros(now)))
            # An empty list covers nothing: what it may have left out is asked for again.
            oldest = min(oldest, micros(now - KEPT) if until is None else until)
        # A shop that has just switched this on does not look for owners of two days of old payments.
        start = max(from_micros(oldest - BEFORE_US), now - KEPT)
        count, offset, seen = 0, 0, set[str]()
        for _ in range(PAGES_MAX):
            reply = await self._daraja.pull(start, now, offset)
            if reply.is_empty and offset:
                break
            fresh = [row for row in reply.rows if row.receipt not in seen]
            seen |= {row.receipt for row in fresh}
            for row in fresh:
                await self._take(row)
            if reply.problem is not None:
                self.problem = reply.problem
                log.warning("pull.failed reason=%s", reply.problem)
                return False
            if not fresh:
                break
            count += len(fresh)
            offset += len(reply.rows)
        else:
            self.problem = f"the list has more than {PAGES_MAX} pages"
            return False
        self._read_ns = self._clock.boottime_ns()
        reading = Reading(micros(start), micros(now), micros(self._clock.now()), count)
        known = await self._db.read(lambda conn: _known_in(conn, reading))
        missing = known - seen
        if missing:
            self.problem = (
                f"M-Pesa's list (Pull) lacks {len(missing)} of {len(known)} payments that M-Pesa has confirmed, so "
                "it does not show who has not paid. Is Pull registered for this short code?"
            )
            log.warning("pull.lacks missing=%d known=%d", len(missing), len(known))
            return False
        self.problem = None
        await self._db.write(lambda conn: pulled.record(conn, reading))
        log.info("pull.read rows=%d from=%s", count, start.isoformat(timespec="seconds"))
        if known:
            await self._absences(reading)
        return True

    async def _take(self, row: PulledRow) -> None:
        """Take one row in: skipped when it says nothing new, so that a list that is read often costs nothing."""
        if row.is_payment and await self._db.read(lambda conn: _known(conn, row)):
            return
        raw = json.dumps({**asdict(row), "at": str(row.at)}).encode()
        try:
            if row.is_payment:
                await self._ledger.write(lambda conn: self._take_in(conn, row, raw))
            else:
                await self._db.write(lambda conn: self._set_aside_in(conn, row, raw))
        except StoreError:
            raise
        except Exception as error:  # one row must not hold up the others
            # Its receipt found an owner in between, or the row is none that the store can hold.
            log.warning("pull.row_refused reason=%r", error)

    def _set_aside_in(self, conn: sqlite3.Connection, row: PulledRow, raw: bytes) -> None:
        """Keep a row that is no customer's payment: shown, never counted. A reversal is reported besides."""
        at = micros(self._clock.now())
        paid_at = at if row.at is None else micros(row.at)
        other = OtherRow(row.receipt, row.kind[:64], row.amount_cents, paid_at)
        fresh = payments_shown.keep_other_row(conn, other, at=at)
        if row.is_reversal and fresh:
            reference = row.reference.strip()
            names = (row.receipt, reference) if reference.isalnum() else (row.receipt,)
            report_reversal(conn, self._ledger, names, Source.PULL, raw, at)

    def _take_in(self, conn: sqlite3.Connection, row: PulledRow, raw: bytes) -> Heard:
        at = micros(self._clock.now())
        if payments.by_receipt(conn, row.receipt) is None and not self._fits_a_push(conn, row, at):
            typed = refunds.typed(conn, row.receipt)
            asked = None if typed is None else payments.by_id(conn, typed)
            if asked and asked.receipt is None and asked.amount_cents == row.amount_cents:
                note = "its code was typed at the till"
                word = Evidence(
                    Source.PULL, Verdict.PAID, receipt=row.receipt, amount_cents=row.amount_cents,
                    note=note,
                )  # fmt: skip
                return self._ledger.hear_in(conn, asked, word, raw)
        return self._announce(conn, row, at, raw)

    def _fits_a_push(self, conn: sqlite3.Connection, row: PulledRow, at: int) -> bool:
        """Return whether the row's own number or reference names a push: that goes before a typed code."""
        paid_us = micros(row.at) if row.at else at
        since, until = paid_us - REFERENCE_US, paid_us + APART_US + 1
        pushes = payments.without_receipt_or_end(conn, since, until)
        return match(row, pushes, from_micros(at)) is not None

    async def _absences(self, reading: Reading) -> None:
        """UNKNOWN payments that a covered time does not hold were not made."""
        for row in await self._db.read(self._open):
            if row.money is Money.UNKNOWN and self._covered(row, reading):
                await self._ledger.write(lambda conn, row=row: self._absent_in(conn, row))  # type: ignore[misc]

    def _covered(self, row: PaymentRow, reading: Reading) -> bool:
        sent = row.sent_at or row.created_at
        age = self._ages.of(row)
        wall_age = (micros(self._clock.now()) - sent) / 1e6
        return (
            age >= self._absent_after_s
            and abs(wall_age - age) < STEP_S
            and reading.from_us <= sent - BEFORE_US // 2
            and reading.until_us >= sent + self._life_us
        )

    def _absent_in(self, conn: sqlite3.Connection, row: PaymentRow) -> Heard:
        fresh = payments.by_id(conn, row.id)
        assert fresh is not None
        sent = fresh.sent_at or fresh.created_at
        until = sent + self._life_us + BEFORE_US // 2
        since = sent - BEFORE_US // 2
        others = payments_shown.other_rows(conn, since, until, 10_000)
        unclear = any(row.cents == fresh.amount_cents for row in others)
        named = payments_shown.announced_between(conn, since, until)
        # Also what another sale was signed with: this customer may have paid it.
        unclear = unclear or any(
            same_reference(row.account_ref, fresh.account_ref)
            or twins.could_be(fresh, row, payments_shown.shown(conn, row.id))
            for row in named
        )
        if unclear or payments.loose(conn, fresh.amount_cents, since, until):
            note = "money that may be this payment's came at the time: a person decides"
            word = Evidence(Source.PULL, Verdict.NO_INFO, note=note)
        else:
            word = Evidence(Source.PULL, Verdict.NOT_FOUND, note="not on M-Pesa's list of the time")
        return self._ledger.hear_in(conn, fresh, word)


def _due(age: float, since_s: float, absent_after_s: float) -> bool:
    """Whether a step lies between the last reading and now."""
    return any(age - since_s < step <= age for step in (*STEPS_S, absent_after_s))


def _known(conn: sqlite3.Connection, row: PulledRow) -> bool:
    """Return whether the row says nothing new: neither of its receipt nor of who has paid."""
    owner = payments.by_receipt(conn, row.receipt)
    if owner is None or owner.paid_cents != row.amount_cents:
        return False
    if owner.kind == "STK" or row.phone is None:
        return True
    shown = payments_shown.shown(conn, owner.id)
    return shown is not None and shown.payer == row.phone and not twins.of(conn, owner)


def _known_in(conn: sqlite3.Connection, reading: Reading) -> set[str]:
    """Return the receipts that M-Pesa has confirmed for the time of a reading: a list that lacks one of them,
    or when there is none, proves no absence. At the edges the two clocks may differ."""
    since, until = reading.from_us + APART_US, reading.until_us - APART_US
    return payments_shown.confirmed_receipts(conn, since, until)


def _unread_close(conn: sqlite3.Connection) -> int | None:
    """The number of the last close of a day, if the list was not read for it."""
    newest = reports.last(conn)
    if newest is None or meta.get(conn, CLOSE_KEY) == str(newest.number):
        return None
    return newest.number
