"""The heart of the payments against a Daraja that fails: over real HTTP, through restarts, in a time that goes
by as fast as both sides get their turns. What M-Pesa posts comes in at the direct site."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.domain.payment import Act, Money, Reason, Source, Tender
from gateway.payment_line import PaymentLine
from gateway.payments.desk import Ask
from gateway.store import events, payments
from gateway.store.database import Database, open_database
from gateway.store.payments import PaymentRow, Word
from gateway.supervisor import Supervisor
from hw_fakes.daraja import FakeDaraja
from hw_fakes.daraja.clock import FakeClock as DarajasClock
from hw_fakes.ports import free_port
from tests.support.clock import FakeClock
from tests.support.mpesa import answered, mpesa_settings
from tests.support.payments import PHONE, an_ask

# One step of the time that both sides live in, in its seconds.
STEP_S = 0.25
# A person answers the prompt when the test says so, and no question to M-Pesa finds that out.
BY_PERSON: dict[str, Any] = {"by_person": True, "query": "pending"}


class SharedTime(DarajasClock):
    """M-Pesa lives in the gateway's time."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(now=clock.now)
        self._clock = clock

    def elapsed(self) -> float:
        return self._clock.boottime_ns() / 1e9

    def real(self) -> float:
        return self.elapsed()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(max(0.0, seconds))


@dataclass
class Counter:
    """A store, the payments' line in it, and the Daraja it talks to; `restart` is a kill and a new start."""

    directory: Path
    fake: FakeDaraja
    clock: FakeClock
    port: int
    part: dict[str, Any]
    secrets: dict[str, Any]
    db: Database
    line: PaymentLine
    stack: AsyncExitStack
    # Held while no time goes by.
    still: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def open(self) -> None:
        settings = mpesa_settings(
            self.directory, "http://127.0.0.1:1", self.fake, self.part, **self.secrets
        )
        self.stack = AsyncExitStack()
        self.db = await self.stack.enter_async_context(open_database(self.directory / "store"))
        self.line = PaymentLine(settings, self.clock, self.db, lambda: None)
        await self.line.open(self.stack)
        supervisor = Supervisor(self.clock)
        self.stack.push_async_callback(supervisor.drain)
        self.line.start_money(supervisor)

    async def close(self) -> None:
        await self.stack.aclose()

    async def restart(self) -> None:
        async with self.still:
            await self.close()
            await self.open()

    async def go_by(self) -> None:
        """Time goes by, never faster than sockets are read and the store has written: a machine that is
        slow has slow time, and no limit is passed because of it."""
        while True:
            async with self.still:
                await self.clock.advance(seconds=STEP_S)
                await self.db.write_soft(lambda conn: None)

    async def ask(self, **changes: Any) -> PaymentRow:
        return await self.line.desk.ask(an_ask(**changes))

    async def row(self, payment_id: str) -> PaymentRow:
        return await self.line.desk.row(payment_id)

    async def words(self, payment_id: str) -> list[Word]:
        return await self.db.read(lambda conn: payments.words(conn, payment_id))

    async def until(self, condition: Callable[[], Awaitable[bool]], timeout: float = 60) -> None:
        """No time goes by during a look, so that a state of some seconds is not overlooked."""
        async with asyncio.timeout(timeout):
            while True:
                async with self.still:
                    if await condition():
                        return
                await asyncio.sleep(0.005)

    async def until_money(self, payment_id: str, state: Money) -> PaymentRow:
        """The payment as it was when it had come to this."""
        row = await self.row(payment_id)

        async def reached() -> bool:
            nonlocal row
            row = await self.row(payment_id)
            return row.money is state

        with contextlib.suppress(TimeoutError):
            await self.until(reached)
        words = await self.words(payment_id)
        assert row.money is state, [(w.source, w.word, w.code, w.money, w.note) for w in words]
        return row

    async def alarms(self) -> list[str]:
        found = await self.db.read(lambda conn: events.of_kind(conn, "payment.alarm"))
        return [event.data["alarm"] for event in found]

    async def until_alarm(self, alarm: str) -> None:
        async def heard() -> bool:
            return alarm in await self.alarms()

        with contextlib.suppress(TimeoutError):
            await self.until(heard)
        assert await self.alarms() == [alarm]


@asynccontextmanager
async def open_counter(
    directory: Path,
    knobs: dict[str, Any] | None = None,
    secrets: dict[str, Any] | None = None,
    **part: Any,
) -> AsyncIterator[Counter]:
    clock = FakeClock()
    port = free_port()
    async with FakeDaraja(
        clock=SharedTime(clock),
        hosts={"relay.test": f"http://127.0.0.1:{port}"},
        prompt_life_s=1_000_000,
        pull_registered=("174379",),
        **(knobs or {}),
    ) as fake:
        values = {"direct_host": "127.0.0.1", "direct_port": port, "pull": False, **part}
        counter = Counter(
            directory, fake, clock, port, values, secrets or {}, None, None, None,  # type: ignore[arg-type]
        )  # fmt: skip
        await counter.open()
        time = asyncio.ensure_future(counter.go_by())
        try:
            yield counter
        finally:
            time.cancel()
            await asyncio.wait({time})
            await counter.close()
        if not time.cancelled():
            time.result()


async def test_a_payment_is_paid_by_its_callback_and_is_known_by_its_receipt(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path) as counter:
        counter.fake.script("ok", **BY_PERSON)
        row = await counter.ask()
        await counter.until_money(row.id, Money.WAITING)
        await answered(counter.fake, PHONE)
        paid = await counter.until_money(row.id, Money.PAID)
        assert (paid.receipt, paid.paid_cents, paid.paid_by) == (
            counter.fake.payments[0].receipt, row.amount_cents, Source.CALLBACK,
        )  # fmt: skip
        assert len(counter.fake.pushes) == 1
        told = await counter.db.read(lambda conn: events.of_kind(conn, "payment.changed"))
        assert [event.data["state"] for event in told] == ["NEW", "SENDING", "WAITING", "PAID"]


async def test_an_answer_that_is_lost_is_no_second_push_and_the_callback_still_counts(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path) as counter:
        counter.fake.script("push_timeout_prompted", **BY_PERSON)
        row = await counter.ask()
        await counter.until_money(row.id, Money.SEND_UNKNOWN)
        await answered(counter.fake, PHONE)
        paid = await counter.until_money(row.id, Money.PAID)
        assert paid.receipt == counter.fake.payments[0].receipt
        assert len(counter.fake.pushes) == 1


async def test_a_restart_at_any_moment_sends_nothing_twice_and_loses_no_payment(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path) as counter:
        # WAITING: the callback finds the new run.
        counter.fake.script("ok", **BY_PERSON)
        waiting = await counter.ask()
        await counter.until_money(waiting.id, Money.WAITING)
        await counter.restart()
        await answered(counter.fake, PHONE)
        paid = await counter.until_money(waiting.id, Money.PAID)
        assert paid.receipt is not None
        # SENDING: the answer never reaches the run that asked.
        phone = "254720000001"
        counter.fake.script("restart_before_response", answer_after_s=1_000_000, **BY_PERSON)
        sending = await counter.ask(phone=phone)
        await counter.until_money(sending.id, Money.SENDING)
        await counter.fake.wait_for(lambda: len(counter.fake.pushes) == 2, 30)
        await counter.restart()
        assert (await counter.row(sending.id)).money is Money.SEND_UNKNOWN
        await answered(counter.fake, phone)
        await counter.until_money(sending.id, Money.PAID)
        # NEW: the intent is durable, nothing was sent.
        assert counter.line.pusher is not None
        counter.line.pusher.take = lambda payment_id, token: None  # type: ignore[method-assign]
        new = await counter.ask(phone="254720000002")
        await counter.restart()
        refused = await counter.row(new.id)
        assert (refused.money, refused.reason) == (Money.REFUSED, Reason.NOT_SENT)
        assert len(counter.fake.pushes) == 2


async def test_many_silent_sales_ask_within_mpesas_limit_also_across_restarts(
    tmp_path: Path,
) -> None:
    # M-Pesa's limit as it is, but for the steps that a question is on its way.
    async with open_counter(tmp_path, knobs={"query_messages": 6}) as counter:
        for n in range(10):
            counter.fake.script("everything_silent_paid")
            row = await counter.ask(phone=f"2547200000{n:02d}", amount_cents=10_000 + n * 100)
        for asked in (2, 4, 6):
            await counter.fake.wait_for(
                lambda asked=asked: len(counter.fake.entries("query")) >= asked, 60
            )
            await counter.restart()
        await counter.until_money(row.id, Money.UNKNOWN)
        queries = counter.fake.entries("query")
        assert len(queries) >= 6
        assert {entry["outcome"] for entry in queries} == {"4999"}


async def test_silence_ends_in_unknown_and_late_money_still_counts(tmp_path: Path) -> None:
    async with open_counter(tmp_path) as counter:
        counter.fake.script("late_success", by_person=True, callbacks=[{}])
        row = await counter.ask()
        await counter.until_money(row.id, Money.UNKNOWN)
        await counter.line.desk.act(row.id, Act.GIVEN_UP, "till-1", "paid in cash")
        await answered(counter.fake, PHONE)
        paid = await counter.until_money(row.id, Money.PAID)
        assert paid.tender is Tender.REFUND_DUE
        assert await counter.alarms() == ["LATE"]


async def test_money_after_a_refusal_is_paid_and_an_alarm(tmp_path: Path) -> None:
    async with open_counter(tmp_path) as counter:
        # M-Pesa answers no question before its refusal was heard.
        counter.fake.turn(faults={"query": "503"})
        counter.fake.script("contradiction_cb_failed_query_ok", done_s=1)
        row = await counter.ask()
        refused = await counter.until_money(row.id, Money.NOT_PAID)
        assert refused.reason is Reason.CANCELLED
        counter.fake.turn(faults={})
        paid = await counter.until_money(row.id, Money.PAID)
        assert paid.paid_by is Source.QUERY
        assert await counter.alarms() == ["PAID_AFTER_FAILURE"]


async def test_a_refusal_after_money_stays_paid_and_is_an_alarm(tmp_path: Path) -> None:
    async with open_counter(tmp_path) as counter:
        late = [{"code": "1032", "after_s": 600}]
        counter.fake.script("contradiction_cb_failed_query_ok", done_s=1, callbacks=late)
        row = await counter.ask()
        await counter.until_money(row.id, Money.PAID)
        await counter.until_alarm("FAILURE_AFTER_PAID")
        after = await counter.row(row.id)
        assert (after.money, after.paid_by) == (Money.PAID, Source.QUERY)


async def test_two_callbacks_that_contradict_are_paid_and_an_alarm(tmp_path: Path) -> None:
    async with open_counter(tmp_path) as counter:
        both = [{"code": "1032"}, {"code": "0", "after_s": 600}]
        counter.fake.script("dup_conflicting_callback", query="pending", callbacks=both)
        row = await counter.ask()
        await counter.until_money(row.id, Money.NOT_PAID)
        paid = await counter.until_money(row.id, Money.PAID)
        assert (paid.receipt, paid.paid_by) == (
            counter.fake.payments[0].receipt, Source.CALLBACK,
        )  # fmt: skip
        assert await counter.alarms() == ["PAID_AFTER_FAILURE"]


async def test_late_money_after_a_phone_that_was_not_reached_is_paid_and_an_alarm(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path) as counter:
        counter.fake.script(
            "late_success_after_failed_query", by_person=True, query_from_s=15, callbacks=[{}]
        )
        row = await counter.ask()
        refused = await counter.until_money(row.id, Money.NOT_PAID)
        assert refused.reason is Reason.FAILED_UNREACHABLE
        await answered(counter.fake, PHONE)
        await counter.until_money(row.id, Money.PAID)
        assert await counter.alarms() == ["PAID_AFTER_FAILURE"]


async def test_another_amount_is_paid_and_an_alarm_and_a_person_decides(tmp_path: Path) -> None:
    async with open_counter(tmp_path) as counter:
        counter.fake.script("wrong_amount")
        row = await counter.ask()
        await counter.until_money(row.id, Money.PAID)
        # The message that tells the amount may come after the one that said "paid".
        await counter.until_alarm("OTHER_AMOUNT")
        assert (await counter.row(row.id)).tender is Tender.REVIEW
        accepted = await counter.line.desk.act(row.id, Act.AMOUNT_ACCEPTED, "wanjiru", "seen")
        assert accepted.tender is Tender.OPEN


async def test_a_payment_without_callback_is_paid_by_query_and_its_receipt_follows_by_pull(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path, pull=True) as counter:
        # M-Pesa's list cannot be had before the question was answered.
        counter.fake.turn(faults={"pull": "503"})
        counter.fake.script("lost_callback_paid", done_s=15)
        row = await counter.ask()
        paid = await counter.until_money(row.id, Money.PAID)
        assert (paid.paid_by, paid.receipt) == (Source.QUERY, None)
        counter.fake.turn(faults={})

        async def has_receipt() -> bool:
            return (await counter.row(row.id)).receipt is not None

        await counter.until(has_receipt)
        assert (await counter.row(row.id)).receipt == counter.fake.payments[0].receipt
        everything = await counter.db.read(lambda conn: payments.between(conn, 0, 2**62))
        assert [found.id for found in everything] == [row.id]


async def test_silence_is_settled_by_mpesas_list_both_ways(tmp_path: Path) -> None:
    async with open_counter(tmp_path, pull=True, pull_margin_minutes=1) as counter:
        counter.fake.turn(faults={"pull": "503"})
        counter.fake.script("everything_silent_paid", phone="254720000001")
        counter.fake.script("everything_silent_unpaid", phone="254720000002")
        paid = await counter.ask(phone="254720000001", amount_cents=45_000)
        unpaid = await counter.ask(phone="254720000002", amount_cents=46_000)
        for row in (paid, unpaid):
            await counter.until_money(row.id, Money.UNKNOWN)
        counter.fake.turn(faults={})
        found = await counter.until_money(paid.id, Money.PAID)
        assert (found.paid_by, found.receipt) == (Source.PULL, counter.fake.payments[0].receipt)
        absent = await counter.until_money(unpaid.id, Money.NOT_PAID)
        assert absent.reason is Reason.NOT_FOUND


async def test_a_reversal_gives_the_money_back_once(tmp_path: Path) -> None:
    secrets = {"mpesa_security_credential": "c2VjcmV0"}
    async with open_counter(tmp_path, secrets=secrets, initiator="apiop37") as counter:
        # By its callback, which tells the receipt that a reversal names.
        counter.fake.script("ok_fast", query="pending")
        row = await counter.ask()
        await counter.until_money(row.id, Money.PAID)
        await counter.line.desk.refund(row.id, "wanjiru", "returned goods", by_hand=False)
        back = await counter.until_money(row.id, Money.REFUNDED)
        assert back.tender is Tender.REFUNDED
        asked = [e for e in counter.fake.entries("reversal") if e["outcome"] == "accepted"]
        assert len(asked) == 1


async def test_the_same_key_is_the_same_payment_after_a_restart(tmp_path: Path) -> None:
    async with open_counter(tmp_path) as counter:
        ask: Ask = an_ask()
        counter.fake.script("ok_fast")
        first = await counter.line.desk.ask(ask)
        await counter.until_money(first.id, Money.PAID)
        await counter.restart()
        again = await counter.line.desk.ask(ask)
        assert (again.id, again.money) == (first.id, Money.PAID)
        assert len(counter.fake.pushes) == 1
