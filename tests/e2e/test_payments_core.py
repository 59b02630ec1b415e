"""The heart of the payments against a Daraja that fails: over real HTTP, through restarts, at many times the
speed of a counter. What M-Pesa posts comes in at the direct site."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.payment import Act, Money, Reason, Source, Tender
from gateway.payment_line import PaymentLine
from gateway.payments.desk import Ask
from gateway.store import events, payments
from gateway.store.database import Database, open_database
from gateway.store.payments import PaymentRow
from gateway.supervisor import Supervisor
from hw_fakes.daraja import FakeDaraja
from hw_fakes.ports import free_port
from tests.support.clock import FastClock
from tests.support.mpesa import mpesa_settings
from tests.support.payments import an_ask

FACTOR = 100


@dataclass
class Counter:
    """A store, the payments' line in it, and the Daraja it talks to; `restart` is a kill and a new start."""

    directory: Path
    fake: FakeDaraja
    clock: FastClock
    port: int
    part: dict[str, Any]
    secrets: dict[str, Any]
    db: Database
    line: PaymentLine
    stack: AsyncExitStack

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
        await self.close()
        await self.open()

    async def ask(self, **changes: Any) -> PaymentRow:
        return await self.line.desk.ask(an_ask(**changes))

    async def row(self, payment_id: str) -> PaymentRow:
        return await self.line.desk.row(payment_id)

    async def until(self, condition: Callable[[], Awaitable[bool]], timeout: float = 20) -> None:
        async with asyncio.timeout(timeout):
            while not await condition():
                await asyncio.sleep(0.005)

    async def until_money(self, payment_id: str, *states: Money) -> PaymentRow:
        async def reached() -> bool:
            return (await self.row(payment_id)).money in states

        with contextlib.suppress(TimeoutError):
            await self.until(reached)
        row = await self.row(payment_id)
        words = await self.db.read(lambda conn: payments.words(conn, payment_id))
        assert row.money in states, [(w.source, w.word, w.code, w.money, w.note) for w in words]
        return row

    async def alarms(self) -> list[str]:
        found = await self.db.read(lambda conn: events.of_kind(conn, "payment.alarm"))
        return [event.data["alarm"] for event in found]

    async def until_alarm(self, *alarms: str) -> None:
        """Any of these."""

        async def heard() -> bool:
            return not set(alarms).isdisjoint(await self.alarms())

        with contextlib.suppress(TimeoutError):
            await self.until(heard)
        assert not set(alarms).isdisjoint(await self.alarms())


@asynccontextmanager
async def open_counter(
    directory: Path,
    factor: float = FACTOR,
    knobs: dict[str, Any] | None = None,
    secrets: dict[str, Any] | None = None,
    **part: Any,
) -> AsyncIterator[Counter]:
    clock = FastClock(factor)
    port = free_port()
    async with FakeDaraja(
        now=clock.now,
        time_scale=1 / factor,
        hosts={"relay.test": f"http://127.0.0.1:{port}"},
        **(knobs or {}),
    ) as fake:
        values = {"direct_host": "127.0.0.1", "direct_port": port, "pull": False, **part}
        counter = Counter(
            directory, fake, clock, port, values, secrets or {}, None, None, None,  # type: ignore[arg-type]
        )  # fmt: skip
        await counter.open()
        try:
            yield counter
        finally:
            await counter.close()


async def test_a_payment_is_paid_by_its_callback_and_is_known_by_its_receipt(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path) as counter:
        counter.fake.script("ok_fast")
        row = await counter.ask()
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
    async with open_counter(tmp_path, answer_timeout_s=0.3) as counter:
        counter.fake.script("push_timeout_prompted", done_s=60)
        row = await counter.ask()
        await counter.until_money(row.id, Money.SEND_UNKNOWN)
        paid = await counter.until_money(row.id, Money.PAID)
        assert paid.receipt == counter.fake.payments[0].receipt
        assert len(counter.fake.pushes) == 1


async def test_a_restart_at_any_moment_sends_nothing_twice_and_loses_no_payment(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path) as counter:
        # WAITING: the callback finds the new run.
        counter.fake.script("ok", done_s=100)
        waiting = await counter.ask()
        await counter.until_money(waiting.id, Money.WAITING)
        await counter.restart()
        paid = await counter.until_money(waiting.id, Money.PAID)
        assert paid.receipt is not None
        # SENDING: the answer never reaches the run that asked.
        counter.fake.script("restart_before_response", done_s=100, answer_after_s=60)
        sending = await counter.ask(phone="254720000001")
        await counter.until_money(sending.id, Money.SENDING)
        await counter.fake.wait_for(lambda: len(counter.fake.pushes) == 2)
        await counter.restart()
        assert (await counter.row(sending.id)).money in (Money.SEND_UNKNOWN, Money.PAID)
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
    # M-Pesa's limit as it is, but for what two clocks at this speed differ.
    async with open_counter(tmp_path, factor=40, knobs={"query_messages": 6}) as counter:
        for n in range(10):
            counter.fake.script("everything_silent_paid")
            row = await counter.ask(phone=f"2547200000{n:02d}", amount_cents=10_000 + n * 100)
        for asked in (2, 4, 6):
            await counter.fake.wait_for(
                lambda asked=asked: len(counter.fake.entries("query")) >= asked, 20
            )
            await counter.restart()
        await counter.until_money(row.id, Money.UNKNOWN)
        queries = counter.fake.entries("query")
        assert len(queries) >= 6
        assert {entry["outcome"] for entry in queries} == {"4999"}


async def test_silence_ends_in_unknown_and_late_money_still_counts(tmp_path: Path) -> None:
    async with open_counter(tmp_path) as counter:
        counter.fake.script("late_success", callbacks=[{"at_s": 250}])
        row = await counter.ask()
        await counter.until_money(row.id, Money.UNKNOWN)
        await counter.line.desk.act(row.id, Act.GIVEN_UP, "till-1", "paid in cash")
        paid = await counter.until_money(row.id, Money.PAID)
        assert paid.tender is Tender.REFUND_DUE
        assert await counter.alarms() == ["LATE"]


@pytest.mark.parametrize(
    ("scenario", "alarms"),
    [
        # Which of the two is heard first is the network's affair.
        ("contradiction_cb_failed_query_ok", ("PAID_AFTER_FAILURE", "FAILURE_AFTER_PAID")),
        ("dup_conflicting_callback", ("PAID_AFTER_FAILURE",)),
        ("late_success_after_failed_query", ("PAID_AFTER_FAILURE",)),
        ("wrong_amount", ("OTHER_AMOUNT",)),
    ],
)
async def test_contradictions_are_paid_and_an_alarm(
    tmp_path: Path, scenario: str, alarms: tuple[str, ...]
) -> None:
    async with open_counter(tmp_path, c2b=True) as counter:
        changes: dict[str, Any] = {"query_from_s": 15} if "failed_query" in scenario else {}
        if scenario == "late_success_after_failed_query":
            changes["callbacks"] = [{"code": "0", "at_s": 110}]
        counter.fake.script(scenario, **changes)
        row = await counter.ask()
        await counter.until_money(row.id, Money.PAID)
        # The message that tells the amount, or contradicts, may come after the one that said "paid".
        await counter.until_alarm(*alarms)
        if scenario == "wrong_amount":
            assert (await counter.row(row.id)).tender is Tender.REVIEW
            accepted = await counter.line.desk.act(row.id, Act.AMOUNT_ACCEPTED, "wanjiru", "seen")
            assert accepted.tender is Tender.OPEN


async def test_a_payment_without_callback_is_paid_by_query_and_its_receipt_follows_by_pull(
    tmp_path: Path,
) -> None:
    async with open_counter(tmp_path, pull=True) as counter:
        counter.fake.script("lost_callback_paid", done_s=15)
        row = await counter.ask()
        paid = await counter.until_money(row.id, Money.PAID)
        assert (paid.paid_by, paid.receipt) == (Source.QUERY, None)

        async def has_receipt() -> bool:
            return (await counter.row(row.id)).receipt is not None

        await counter.until(has_receipt)
        assert (await counter.row(row.id)).receipt == counter.fake.payments[0].receipt
        everything = await counter.db.read(lambda conn: payments.between(conn, 0, 2**62))
        assert [found.id for found in everything] == [row.id]


async def test_silence_is_settled_by_mpesas_list_both_ways(tmp_path: Path) -> None:
    async with open_counter(tmp_path, pull=True, pull_margin_minutes=1) as counter:
        counter.fake.script("everything_silent_paid", phone="254720000001")
        counter.fake.script("everything_silent_unpaid", phone="254720000002")
        paid = await counter.ask(phone="254720000001", amount_cents=45_000)
        unpaid = await counter.ask(phone="254720000002", amount_cents=46_000)
        await counter.until_money(unpaid.id, Money.UNKNOWN)
        found = await counter.until_money(paid.id, Money.PAID)
        assert (found.paid_by, found.receipt) == (Source.PULL, counter.fake.payments[0].receipt)
        absent = await counter.until_money(unpaid.id, Money.NOT_PAID)
        assert absent.reason is Reason.NOT_FOUND


async def test_a_reversal_gives_the_money_back_once(tmp_path: Path) -> None:
    secrets = {"mpesa_security_credential": "c2VjcmV0"}
    async with open_counter(tmp_path, secrets=secrets, initiator="apiop37") as counter:
        counter.fake.script("ok_fast")
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
