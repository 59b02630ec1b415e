"""Asks M-Pesa about payments that it has not told of: one line for the whole gateway, so that no number of
tills goes over M-Pesa's limit (daraja.md 4.3), and the youngest first, because its customer waits.

A question is a look, never a decision: `domain.payment` says what an answer is worth.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.domain.payment import Evidence, Money, Source, Verdict
from gateway.domain.payment_wire import Daraja, QueryReply, QueryVerdict
from gateway.errors import StoreError
from gateway.payments import schedule
from gateway.payments.ledger import Heard, Ledger
from gateway.store import meta, payments
from gateway.store.database import Database
from gateway.store.payments import PaymentRow

log = logging.getLogger(__name__)

# When the last question left, so that a restart is no way around M-Pesa's limit.
ASKED_KEY = "mpesa.asked_at"
# A question leaves at most so long after the time in its note (seconds): a store that is slower writes it
# anew, and gives up being exact after so many times.
NOTE_S = 1.0
NOTES_MAX = 3
# Two questions may come closer together at M-Pesa than they left here. Seconds.
SLACK_S = 0.3
# After "too many questions" the pause grows to this. Seconds.
PAUSE_MAX_S = 300.0
# A code that is often a mistake of the moment counts when it is heard again after this, of a prompt that is
# older than that (daraja.md 4.1). Seconds.
SOFT_APART_S = 30.0
SOFT_PROMPT_S = 90.0
# A look at least this often, whatever the sums say. Seconds.
IDLE_S = 60.0
# A cashier who presses "check" waits this long for the answer; after it the answer comes as an event. Seconds.
PATIENCE_S = 5.0
_WAITS = (Money.WAITING, Money.SEND_UNKNOWN)


class Checks:
    """`run` for as long as the daemon lives."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        ledger: Ledger,
        daraja: Daraja,
        every_s: float,
        deadline_s: float,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._daraja = daraja
        self._every_s = every_s + SLACK_S
        self._deadline_s = deadline_s
        self._jitter = jitter
        self._wake = asyncio.Event()
        self._free_ns: int | None = None
        self._refusals = 0
        self._ages = schedule.Ages(clock)
        # To be asked about before all others, in this order, and who waits for the answer.
        self._urgent: dict[str, asyncio.Future[None]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        # Whose last question nobody answered: asked again when the link is back.
        self._unheard: set[str] = set()
        # Why M-Pesa answers no questions just now; None while it does.
        self.problem: str | None = None

    # --- told by others ---------------------------------------------------------------------------

    def sent(self, row: PaymentRow) -> None:
        """A push has left."""
        self._ages.sent(row)
        self._wake.set()

    def nudge(self, payment_ids: Iterable[str]) -> None:
        """Look at these soon: a till has come back and wants to know."""
        for payment_id in payment_ids:
            self._ahead(payment_id)

    def link_is_back(self) -> None:
        """The network answered elsewhere."""
        self.nudge(self._unheard)

    async def check(self, payment_id: str) -> None:
        """Look before all others. Returns after the answer, or at once when M-Pesa's limit does not let
        the question leave in the time a cashier waits; what is known is in the store either way."""
        row = await self._row(payment_id)
        if row is None or not schedule.askable(row):
            return
        done = self._ahead(payment_id)
        if self._wait_s() <= PATIENCE_S:
            await asyncio.wait({done}, timeout=PATIENCE_S)

    @property
    def in_hand(self) -> int:
        """Questions on the wire."""
        return len(self._asking)

    def pause_s(self) -> float:
        """Seconds until the next question may leave."""
        return self._wait_s()

    def _ahead(self, payment_id: str) -> asyncio.Future[None]:
        future = self._urgent.get(payment_id)
        if future is None:
            future = asyncio.get_running_loop().create_future()
            self._urgent[payment_id] = future
            self._wake.set()
        return future

    # --- the loop ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        try:
            await self._take_up_the_limit()
            while True:
                self._wake.clear()
                nap = await self._round()
                await wake_or_sleep(self._clock, self._wake, nap)
        finally:
            for task in self._asking.values():
                task.cancel()
            await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _take_up_the_limit(self) -> None:
        """The last question may have left just before the end; what the wall clock cannot say counts as now."""
        if self._free_ns is not None:
            return
        asked = await self._db.read(lambda conn: meta.get(conn, ASKED_KEY))
        wait_s = 0.0
        if asked is not None:
            ago_s = (micros(self._clock.now()) - int(asked)) / 1e6
            # The question left a little later than its note was written.
            full_s = self._every_s + NOTE_S
            wait_s = full_s - ago_s if ago_s >= 0 else full_s
        self._free_ns = self._clock.boottime_ns() + int(max(0.0, wait_s) * 1e9)

    def _wait_s(self) -> float:
        if self._free_ns is None:
            return self._every_s
        return max(0.0, (self._free_ns - self._clock.boottime_ns()) / 1e9)

    async def _round(self) -> float:
        """Deadlines, then one question if the limit allows; seconds to the next round."""
        rows = await self._db.read(payments.watched)
        self._forget(rows)
        nap = IDLE_S
        ready: list[PaymentRow] = []
        for row in rows:
            age = self._ages.of(row)
            if row.money in _WAITS:
                if age >= self._deadline_s:
                    heard = await self._ledger.hear(
                        row.id, Evidence(Source.CLOCK, Verdict.DEADLINE)
                    )
                    row = heard.row
                else:
                    nap = min(nap, self._deadline_s - age)
            left_s = self._due_age_s(row) - age
            if left_s > 0:
                nap = min(nap, left_s)
            elif row.id not in self._asking:
                if schedule.askable(row) and age < schedule.LAST_S:
                    ready.append(row)
                else:
                    await self._pass_by(row, age)
        first = await self._first(ready)
        if first is not None:
            if self._wait_s() > 0:
                return min(nap, self._wait_s())
            await self._ask(first)
            # Another may be waiting; the limit says when.
            return min(nap, self._every_s)
        return nap

    def _due_age_s(self, row: PaymentRow) -> float:
        """At which age its next look is."""
        steps = schedule.STEPS_S
        if row.money is Money.NOT_PAID:
            return float(schedule.AFTER_REFUSAL_S)
        return steps[row.checks] if row.checks < len(steps) else float("inf")

    def _forget(self, rows: list[PaymentRow]) -> None:
        known = {row.id for row in rows} | self._asking.keys()
        self._ages.keep(known)
        self._unheard &= known

    async def _first(self, ready: list[PaymentRow]) -> PaymentRow | None:
        """Whom a person asks for; then who stands at the till, the youngest first; then the books."""
        for payment_id in list(self._urgent):
            if payment_id in self._asking:
                continue
            row = await self._row(payment_id)
            if row is not None and schedule.askable(row):
                return row
            self._answered(payment_id)
        at_the_till = [row for row in ready if row.money in _WAITS]
        return next(iter(at_the_till or ready), None)

    async def _row(self, payment_id: str) -> PaymentRow | None:
        return await self._db.read(lambda conn: payments.by_id(conn, payment_id))

    async def _pass_by(self, row: PaymentRow, age: float) -> None:
        """A look without a question: settled meanwhile, not to be named yet, or at the end of all looks."""
        if row.money is Money.UNKNOWN and age >= schedule.LAST_S:
            note = "M-Pesa's list goes no further back"
            word = Evidence(Source.CLOCK, Verdict.NO_MORE, note=note)
            await self._ledger.hear(row.id, word, next_check_at=None)
            return

        def move(conn: sqlite3.Connection) -> None:
            fresh = payments.by_id(conn, row.id)
            assert fresh is not None
            payments.change(conn, fresh, at=micros(self._clock.now()), **self._next(fresh, age))

        await self._db.write(move)

    def _next(self, row: PaymentRow, age: float) -> dict[str, Any]:
        step = schedule.next_step(row, age)
        if step is None:
            return {"next_check_at": None}
        in_us = max(0, int((schedule.STEPS_S[step] - age) * 1e6))
        return {"checks": step, "next_check_at": micros(self._clock.now()) + in_us}

    # --- one question -----------------------------------------------------------------------------------

    async def _ask(self, row: PaymentRow) -> None:
        """The limit is taken, durably, before the question leaves; the answer is waited for beside the loop."""
        for _ in range(NOTES_MAX):
            self._take_the_limit()
            began_ns, asked = self._clock.boottime_ns(), str(micros(self._clock.now()))
            await self._note(asked)
            if self._clock.boottime_ns() - began_ns <= NOTE_S * 1e9:
                break
        task = asyncio.ensure_future(self._look(row))
        self._asking[row.id] = task
        task.add_done_callback(lambda done: self._ended(row.id, done))

    async def _note(self, asked: str) -> None:
        await self._db.write_soft(lambda conn: meta.put(conn, ASKED_KEY, asked))

    def _take_the_limit(self) -> None:
        self._free_ns = self._clock.boottime_ns() + int(self._every_s * 1e9)

    def _ended(self, payment_id: str, task: asyncio.Task[None]) -> None:
        self._asking.pop(payment_id, None)
        self._answered(payment_id)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("check.failed id=%s", payment_id, exc_info=error)

    def _answered(self, payment_id: str) -> None:
        future = self._urgent.pop(payment_id, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def _look(self, row: PaymentRow) -> None:
        assert row.checkout_request_id is not None
        # The store may have taken its time: the limit counts from when the question leaves.
        self._take_the_limit()
        try:
            reply = await self._daraja.query(row.checkout_request_id)
        except Exception as error:  # a fault of ours: no information, and the line goes on
            log.exception("check.fault id=%s", row.id)
            reply = QueryReply(QueryVerdict.NO_INFO, None, None, type(error).__name__, b"")
        self._limit(reply)
        if reply.verdict is QueryVerdict.NO_INFO and reply.code is None:
            self._unheard.add(row.id)
        else:
            self._unheard.discard(row.id)
        try:
            await self._ledger.write(lambda conn: self._heard(conn, row.id, reply))
        except StoreError as error:
            # It is asked again at its next step; nothing was decided.
            log.error("check.not_kept id=%s reason=%s", row.id, error)

    def _heard(self, conn: sqlite3.Connection, payment_id: str, reply: QueryReply) -> Heard:
        row = payments.by_id(conn, payment_id)
        assert row is not None
        at = micros(self._clock.now())
        age = self._ages.of(row)
        word, soft = weigh(row, reply, at, age)
        heard = self._ledger.hear_in(conn, row, word, reply.raw, **soft)
        if reply.verdict is QueryVerdict.LIMITED:
            # It was not looked at: it stays due.
            return heard
        new = payments.change(conn, heard.row, at=at, **self._next(heard.row, age))
        return Heard(new, heard.changed, heard.alarm)

    def _limit(self, reply: QueryReply) -> None:
        if reply.verdict is not QueryVerdict.LIMITED:
            self._refusals = 0
            self.problem = None
            return
        self._refusals += 1
        grown = min(PAUSE_MAX_S, self._every_s * 2**self._refusals)
        pause = max(reply.retry_after_s or grown * (0.5 + self._jitter() / 2), self._every_s)
        self._free_ns = self._clock.boottime_ns() + int(pause * 1e9)
        self.problem = f"M-Pesa takes no questions for {pause:.0f} s"
        log.warning("check.limited pause_s=%.0f", pause)


def weigh(
    row: PaymentRow, reply: QueryReply, at: int, age: float
) -> tuple[Evidence, dict[str, Any]]:
    """What an answer is worth, and what to remember of it: a soft code counts when it is heard again."""
    verdict = {QueryVerdict.PAID: Verdict.PAID, QueryVerdict.NOT_PAID: Verdict.NOT_PAID}.get(
        reply.verdict, Verdict.NO_INFO
    )
    soft: dict[str, Any] = {}
    if reply.verdict is QueryVerdict.SOFT:
        if row.soft_at is None or row.soft_code != reply.code or at < row.soft_at:
            soft = {"soft_code": reply.code, "soft_at": at}
        elif (at - row.soft_at) / 1e6 >= SOFT_APART_S and age >= SOFT_PROMPT_S:
            verdict = Verdict.NOT_PAID
    elif reply.verdict is QueryVerdict.PENDING and row.soft_at is not None:
        # The request is alive after all.
        soft = {"soft_code": None, "soft_at": None}
    word = Evidence(Source.QUERY, verdict, reply.code, reply.reason, note=reply.message)
    return word, soft
