"""Questions to M-Pesa: their times, their limit, what an answer is worth, and clocks that jump."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.domain.payment import Evidence, Money, Reason, Source, Verdict
from gateway.domain.payment_wire import Lost, QueryReply, QueryVerdict
from gateway.payments.checks import PAUSE_MAX_S
from gateway.payments.push import recover_pushes
from gateway.payments.schedule import STEPS_S
from gateway.store import payments
from tests.support.clock import FakeClock
from tests.support.daraja import CANCELLED, LIMITED, PAID, PENDING, UNREACHABLE, answer
from tests.support.payments import Bench, an_ask, open_bench

EVERY_S = 12


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as opened:
        opened.start(opened.pusher.run, opened.checks.run)
        yield opened


def asked_at(bench: Bench, since_ns: int) -> list[int]:
    return [round((at - since_ns) / 1e9) for at, _ in bench.wire.queried]


async def test_a_silent_push_is_asked_about_at_its_times_and_is_unknown_at_the_deadline(
    bench: Bench,
) -> None:
    start = bench.clock.boottime_ns()
    row = await bench.pushed()
    await bench.pass_s(118)
    assert (await bench.row(row.id)).money is Money.WAITING
    await bench.pass_s(4)
    assert (await bench.row(row.id)).money is Money.UNKNOWN
    await bench.pass_s(200)
    seen = asked_at(bench, start)
    assert len(seen) == 8
    assert all(0 <= at - step <= 2 for at, step in zip(seen, STEPS_S, strict=False)), seen
    after = await bench.row(row.id)
    assert (after.money, after.checks) == (Money.UNKNOWN, 8)


async def test_no_number_of_sales_asks_faster_than_the_limit_and_the_youngest_comes_first(
    bench: Bench,
) -> None:
    rows = [await bench.pushed(phone=f"2547200000{n:02d}") for n in range(20)]
    await bench.pass_s(115)
    times = [at for at, _ in bench.wire.queried]
    gaps = [(b - a) / 1e9 for a, b in itertools.pairwise(times)]
    assert len(times) >= 7 and min(gaps) >= EVERY_S - 0.001
    first = bench.wire.queried[0][1]
    assert first == (await bench.row(rows[-1].id)).checkout_request_id
    # The deadline waits for no question.
    await bench.pass_s(10)
    assert {(await bench.row(row.id)).money for row in rows} == {Money.UNKNOWN}


async def test_a_store_that_takes_its_time_brings_no_two_questions_closer_together(
    bench: Bench,
) -> None:
    for n in range(2):
        await bench.pushed(phone=f"2547200000{n:02d}")
    await bench.pass_s(15)
    goes_on = threading.Event()
    writing = asyncio.ensure_future(bench.db.write(lambda conn: goes_on.wait(60)))
    await bench.clock.advance(seconds=6)

    async def limit_is_taken() -> bool:
        return bench.checks.pause_s() > 0

    await bench.until(limit_is_taken)
    assert bench.wire.queried == []
    bench.clock.pass_time(seconds=5)
    goes_on.set()
    await writing
    await bench.quiet()
    await bench.pass_s(20)
    gaps = [(b - a) / 1e9 for (a, _), (b, _) in itertools.pairwise(bench.wire.queried)]
    assert gaps and min(gaps) >= EVERY_S


async def test_the_limit_outlives_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    times: list[int] = []
    for run in range(7):
        async with open_bench(tmp_path, clock) as bench:
            await recover_pushes(bench.db, bench.ledger)
            bench.start(bench.pusher.run, bench.checks.run)
            for n in range(3 if run == 0 else 0):
                await bench.pushed(phone=f"2547200000{n:02d}")
            for row in await bench.db.read(payments.watched):
                bench.checks.nudge([row.id])
            await bench.pass_s(5)
            times += [at for at, _ in bench.wire.queried]
    gaps = [(b - a) / 1e9 for a, b in itertools.pairwise(times)]
    assert len(times) >= 2 and min(gaps) >= EVERY_S - 0.001


@pytest.mark.parametrize("step_h", [-5, 5])
async def test_a_clock_that_is_set_moves_neither_looks_nor_deadline(
    bench: Bench, step_h: int
) -> None:
    start = bench.clock.boottime_ns()
    row = await bench.pushed()
    await bench.pass_s(25)
    bench.clock.step_wall(hours=step_h)
    await bench.pass_s(60)
    assert (await bench.row(row.id)).money is Money.WAITING
    assert len(asked_at(bench, start)) == 4
    await bench.pass_s(40)
    assert (await bench.row(row.id)).money is Money.UNKNOWN


async def test_a_clock_that_is_set_back_while_the_machine_is_off_stops_no_look(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with open_bench(tmp_path, clock) as bench:
        bench.start(bench.pusher.run, bench.checks.run)
        row = await bench.pushed()
        await bench.pass_s(40)
    clock.reboot(minutes=1)
    clock.step_wall(hours=-7)
    async with open_bench(tmp_path, clock) as bench:
        await recover_pushes(bench.db, bench.ledger)
        bench.start(bench.pusher.run, bench.checks.run)
        await bench.pass_s(30)
        assert len(bench.wire.queried) >= 1
        await bench.pass_s(90)
        assert (await bench.row(row.id)).money is Money.UNKNOWN


@pytest.mark.parametrize(
    ("reply", "money", "reason"),
    [
        (PAID, Money.PAID, None),
        (CANCELLED, Money.NOT_PAID, Reason.CANCELLED),
        (PENDING, Money.WAITING, None),
        (answer(QueryVerdict.NO_INFO, "7777"), Money.WAITING, None),
        (UNREACHABLE, Money.WAITING, None),
        (OSError("a fault of ours"), Money.WAITING, None),
    ],
)  # fmt: skip
async def test_what_one_answer_is_worth(
    bench: Bench, reply: QueryReply | Exception, money: Money, reason: Reason | None
) -> None:
    bench.wire.queries.append(reply)
    row = await bench.pushed()
    await bench.pass_s(22)
    after = await bench.row(row.id)
    assert (after.money, after.reason) == (money, reason)
    if money is Money.PAID:
        assert (after.receipt, after.paid_by) == (None, Source.QUERY)
        await bench.pass_s(100)
        assert len(bench.wire.queried) == 1
        assert (await bench.row(row.id)).next_check_at is None


async def test_a_soft_code_counts_when_it_is_heard_again_of_an_old_prompt(bench: Bench) -> None:
    bench.wire.query_always = UNREACHABLE
    row = await bench.pushed()
    await bench.pass_s(88)
    assert (await bench.row(row.id)).money is Money.WAITING
    await bench.pass_s(4)
    after = await bench.row(row.id)
    assert (after.money, after.reason) == (Money.NOT_PAID, Reason.FAILED_UNREACHABLE)


async def test_a_soft_code_is_forgotten_when_the_request_lives(bench: Bench) -> None:
    bench.wire.queries.extend([UNREACHABLE, PENDING, PENDING, PENDING, UNREACHABLE])
    row = await bench.pushed()
    await bench.pass_s(95)
    assert len(bench.wire.queried) == 5
    assert (await bench.row(row.id)).money is Money.WAITING


async def test_too_many_questions_makes_a_growing_pause_and_nothing_is_lost_by_it(
    bench: Bench,
) -> None:
    bench.wire.queries.extend([LIMITED, LIMITED, answer(QueryVerdict.LIMITED, retry_after_s=40)])
    row = await bench.pushed()
    start = bench.clock.boottime_ns()
    await bench.pass_s(20 + 24 + 48 + 5)
    assert bench.checks.problem is not None
    seen = asked_at(bench, start)
    assert len(seen) == 3 and seen[1] - seen[0] >= 24 and seen[2] - seen[1] >= 48
    await bench.pass_s(41)
    seen = asked_at(bench, start)
    assert seen[3] - seen[2] >= 40
    assert bench.checks.problem is None
    assert (await bench.row(row.id)).money is Money.UNKNOWN
    assert PAUSE_MAX_S >= 60


async def test_a_check_jumps_the_line_and_waits_for_its_answer_within_the_limit(
    bench: Bench,
) -> None:
    old = await bench.pushed()
    await bench.pass_s(13)
    await bench.pushed(phone="254720000001")
    bench.wire.queries.append(PAID)
    after = await bench.desk.check(old.id)
    assert after.money is Money.PAID
    # The limit is used up: what is known is said at once.
    before = len(bench.wire.queried)
    again = await bench.desk.check(old.id)
    assert (again.money, len(bench.wire.queried)) == (Money.PAID, before)


async def test_a_push_that_was_not_answered_is_never_asked_about(bench: Bench) -> None:
    bench.wire.pushes.append(Lost("time-out"))
    row = await bench.desk.ask(an_ask())
    await bench.until_money(row.id, Money.SEND_UNKNOWN)
    await bench.desk.check(row.id)
    await bench.pass_s(125)
    assert (await bench.row(row.id)).money is Money.UNKNOWN
    assert bench.wire.queried == []


async def test_a_refusal_is_asked_about_once_more_and_a_contradiction_is_an_alarm(
    bench: Bench,
) -> None:
    row = await bench.pushed()
    word = Evidence(Source.CALLBACK, Verdict.NOT_PAID, "1032", Reason.CANCELLED)
    await bench.ledger.hear(row.id, word)
    bench.wire.query_always = PAID
    await bench.pass_s(290)
    assert bench.wire.queried == []
    await bench.pass_s(15)
    assert (await bench.row(row.id)).money is Money.PAID
    assert [e.data["alarm"] for e in await bench.events("payment.alarm")] == ["PAID_AFTER_FAILURE"]


async def test_an_answer_that_crosses_the_callback_changes_nothing_and_is_an_alarm(
    bench: Bench,
) -> None:
    row = await bench.pushed()
    paid = Evidence(Source.CALLBACK, Verdict.PAID, "0", receipt="UKN0000001", amount_cents=45_000)

    async def late(request_id: str) -> QueryReply:
        await bench.ledger.hear(row.id, paid)
        return CANCELLED

    bench.wire.query = late  # type: ignore[method-assign]
    await bench.pass_s(22)
    assert (await bench.row(row.id)).money is Money.PAID
    assert [e.data["alarm"] for e in await bench.events("payment.alarm")] == ["FAILURE_AFTER_PAID"]


async def test_after_48_hours_an_unknown_payment_is_a_persons(bench: Bench) -> None:
    row = await bench.pushed()
    await bench.pass_s(125)
    await bench.clock.advance(hours=49)
    # A jump wakes the loop once, maybe before its end: so it is woken again, an hour at the most.
    for _ in range(60):
        await bench.quiet()
        if await bench.events("payment.alarm"):
            break
        await bench.clock.advance(seconds=60)
    assert len(await bench.events("payment.alarm")) == 1
    assert (await bench.row(row.id)).next_check_at is None
    closed = await bench.desk.not_paid(row.id, "wanjiru", "not on the statement")
    assert (closed.money, closed.reason) == (Money.NOT_PAID, Reason.PERSON)


async def test_the_link_is_back_and_what_nobody_answered_is_asked_again(bench: Bench) -> None:
    bench.wire.queries.append(answer(QueryVerdict.NO_INFO))
    row = await bench.pushed()
    await bench.pass_s(21)
    assert len(bench.wire.queried) == 1
    bench.wire.queries.append(PAID)
    bench.checks.link_is_back()
    await bench.pass_s(13)
    assert (await bench.row(row.id)).money is Money.PAID
