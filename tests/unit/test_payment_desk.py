"""Asking for money: one intent per key, one push per phone and sale, every push sent once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway import ids
from gateway.domain.payment import Evidence, Money, Reason, Source, Verdict
from gateway.domain.payment_wire import Lost, PushOrder, Refused
from gateway.domain.phone import normal_phone
from gateway.errors import (
    KeyReused,
    PaymentInvalid,
    PaymentOpen,
    PaymentsOff,
    PaymentTooSoon,
    Suspended,
)
from gateway.payments.desk import PaymentDesk
from gateway.payments.push import AT_ONCE, LEAVE_WITHIN_S, recover_pushes
from gateway.store import payments
from tests.support.daraja import accepted
from tests.support.payments import PHONE, Bench, an_ask, open_bench

OTHER = "254110345678"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0712345678", PHONE), ("+254 712 345 678", PHONE), ("254712345678", PHONE),
        ("0712-345-678", PHONE), ("0110345678", OTHER), ("(0110) 345678", OTHER),
        ("712345678", None), ("07123456789", None), ("071234567", None), ("0812345678", None),
        ("255712345678", None), ("", None), ("+0712345678", None), ("٠٧١٢٣٤٥٦٧٨", None),
        ("0712345678\n", PHONE), ("07123x5678", None),
    ],
)  # fmt: skip
def test_phone_numbers_become_one_form_or_none(text: str, number: str | None) -> None:
    assert normal_phone(text) == number


async def test_a_push_is_durable_before_it_is_on_the_wire_and_waits_after_it(bench: Bench) -> None:
    seen: list[Money] = []

    async def look(order: PushOrder) -> None:
        token = order.callback_url.rsplit("/", 1)[1]
        found = await bench.db.read(lambda c: payments.by_token(c, ids.token_hash(token)))
        assert found is not None
        seen.append(found.money)

    bench.wire.meanwhile = look
    bench.start()
    row = await bench.desk.ask(an_ask())
    assert row.money is Money.NEW
    after = await bench.until_money(row.id, Money.WAITING)
    assert seen == [Money.SENDING]
    assert after.checkout_request_id and after.merchant_request_id and after.sent_at
    order = bench.wire.pushed[0]
    assert order.callback_url.startswith("https://relay.test/shop-1/s/")
    assert len(order.account_ref) <= 12 and order.amount_cents == 45_000
    assert [w.word for w in await bench.words(row.id)] == ["SENDING", "ACCEPTED"]
    assert [r.money for r in bench.told] == [Money.NEW, Money.SENDING, Money.WAITING]


async def test_one_key_is_one_row_and_another_body_is_refused(bench: Bench) -> None:
    ask = an_ask()
    rows = await asyncio.gather(*(bench.desk.ask(ask) for _ in range(20)))
    assert len({row.id for row in rows}) == 1
    bench.start()
    await bench.until_money(rows[0].id, Money.WAITING)
    assert len(bench.wire.pushed) == 1
    with pytest.raises(KeyReused):
        await bench.desk.ask(an_ask(key=ask.key, amount_cents=9_900))


async def test_of_many_requests_to_one_phone_or_for_one_sale_one_leaves(bench: Bench) -> None:
    bench.start()
    for shared in ({"phone": PHONE}, {"phone": None, "sale_ref": "POS-ONE"}):
        asks = [
            an_ask(**{**shared, "phone": shared["phone"] or f"2547200000{n:02d}"})
            for n in range(12)
        ]
        results = await asyncio.gather(*(bench.desk.ask(a) for a in asks), return_exceptions=True)
        won = [r for r in results if not isinstance(r, BaseException)]
        lost = [r for r in results if isinstance(r, PaymentOpen)]
        assert (len(won), len(lost)) == (1, 11)
        assert {error.extra["paymentId"] for error in lost} == {won[0].id}
        await bench.until_money(won[0].id, Money.WAITING)


async def test_an_unknown_push_blocks_while_its_prompt_may_be_on_the_phone(bench: Bench) -> None:
    bench.start()
    row = await bench.pushed()
    await bench.ledger.hear(row.id, Evidence(Source.CLOCK, Verdict.DEADLINE))
    await bench.clock.advance(seconds=170)
    with pytest.raises(PaymentOpen):
        await bench.desk.ask(an_ask())
    await bench.clock.advance(seconds=20)
    assert (await bench.desk.ask(an_ask())).money is Money.NEW


async def test_a_phone_is_not_asked_twice_within_a_minute_nor_for_the_same_amount_within_two(
    bench: Bench,
) -> None:
    bench.start()
    row = await bench.pushed()
    word = Evidence(Source.CALLBACK, Verdict.NOT_PAID, "1032", Reason.CANCELLED)
    await bench.ledger.hear(row.id, word)
    await bench.clock.advance(seconds=20)
    with pytest.raises(PaymentTooSoon) as refused:
        await bench.desk.ask(an_ask(amount_cents=10_000))
    assert 40 <= (refused.value.retry_after_s or 0) <= 41
    await bench.clock.advance(seconds=41)
    with pytest.raises(PaymentTooSoon) as refused:
        await bench.desk.ask(an_ask())
    assert 59 <= (refused.value.retry_after_s or 0) <= 60
    assert (await bench.desk.ask(an_ask(amount_cents=10_000))).money is Money.NEW


async def test_a_clock_that_is_set_back_keeps_nobody_waiting_for_hours(bench: Bench) -> None:
    bench.start()
    row = await bench.pushed()
    word = Evidence(Source.CALLBACK, Verdict.NOT_PAID, "1032", Reason.CANCELLED)
    await bench.ledger.hear(row.id, word)
    bench.clock.step_wall(hours=-3)
    assert (await bench.desk.ask(an_ask())).money is Money.NEW


@pytest.mark.parametrize("amount", [0, 50, 45_050, 25_000_100, -100])
async def test_only_whole_shillings_within_the_limit_are_asked_for(
    bench: Bench, amount: int
) -> None:
    with pytest.raises(PaymentInvalid) as refused:
        await bench.desk.ask(an_ask(amount_cents=amount))
    assert refused.value.errors[0].pointer == "/amount"
    assert not await bench.db.read(lambda conn: payments.between(conn, 0, 2**62))


async def test_the_gate_stops_new_pushes_but_not_the_answer_of_an_old_one(tmp_path: Path) -> None:
    shut = False

    def gate() -> None:
        if shut:
            raise Suspended("no KRA for 24 hours")

    async with open_bench(tmp_path / "a", gate=gate) as bench:
        old = await bench.desk.ask(an_ask(key="old"))
        shut = True
        with pytest.raises(Suspended):
            await bench.desk.ask(an_ask(phone=OTHER))
        repeat = an_ask(key="old", sale_ref=old.sale_ref)
        assert (await bench.desk.ask(repeat)).id == old.id
    async with open_bench(tmp_path / "b", gate=gate, push_while_suspended=True) as bench:
        assert (await bench.desk.ask(an_ask())).money is Money.NEW


async def test_without_mpesa_nothing_is_asked_for(bench: Bench) -> None:
    off = PaymentDesk(
        db=bench.db, clock=bench.clock, ledger=bench.ledger, settings=bench.settings,
        gate=lambda: None, pusher=None, checks=None, refunds=bench.refunds, questions=bench.questions,
    )  # fmt: skip
    with pytest.raises(PaymentsOff):
        await off.ask(an_ask())


@pytest.mark.parametrize(
    ("reply", "money", "reason"),
    [
        (Refused(Reason.NOT_SENT, "500.001.1001", "locked", b"{}"), Money.REFUSED, Reason.NOT_SENT),
        (Refused(Reason.CONFIG, "404.001.01", "path", b"{}"), Money.REFUSED, Reason.CONFIG),
        (Lost("time-out"), Money.SEND_UNKNOWN, Reason.SEND_LOST),
        (RuntimeError("a fault of ours"), Money.SEND_UNKNOWN, Reason.SEND_LOST),
    ],
)  # fmt: skip
async def test_every_answer_of_a_push_ends_in_one_state_and_none_is_sent_again(
    bench: Bench, reply: Refused | Lost | Exception, money: Money, reason: Reason
) -> None:
    bench.wire.pushes.append(reply)
    bench.start()
    row = await bench.desk.ask(an_ask())
    after = await bench.until_money(row.id, money)
    assert after.reason is reason
    await bench.clock.advance(hours=1)
    assert len(bench.wire.pushed) == 1


@pytest.mark.parametrize("fault", [Lost("no answer"), RuntimeError("a fault of ours")])
async def test_without_a_token_nothing_was_sent(bench: Bench, fault: Lost | Exception) -> None:
    bench.wire.no_token = fault
    bench.start()
    row = await bench.desk.ask(an_ask())
    after = await bench.until_money(row.id, Money.REFUSED)
    assert (after.reason, after.sent_at, bench.wire.pushed) == (Reason.NOT_SENT, None, [])
    # It never left, so the next one need not wait.
    bench.wire.no_token = None
    again = await bench.desk.ask(an_ask())
    await bench.until_money(again.id, Money.WAITING)


async def test_a_push_that_hangs_holds_up_no_other_and_the_line_is_bounded(bench: Bench) -> None:
    phones = [f"2547300000{n:02d}" for n in range(AT_ONCE + 2)]
    for phone in phones[: AT_ONCE - 1]:
        bench.wire.hold(phone)
    bench.start()
    rows = [await bench.desk.ask(an_ask(phone=phone)) for phone in phones]
    for row in rows[AT_ONCE - 1 :]:
        await bench.until_money(row.id, Money.WAITING)
    for row in rows[: AT_ONCE - 1]:
        assert (await bench.row(row.id)).money is Money.SENDING
    for phone in phones[: AT_ONCE - 1]:
        bench.wire.hold(phone).set()
    for row in rows:
        await bench.until_money(row.id, Money.WAITING)
    assert len(bench.wire.pushed) == len(rows)


async def test_what_could_not_leave_in_time_is_not_sent_to_a_surprised_customer(
    bench: Bench,
) -> None:
    row = await bench.desk.ask(an_ask())
    await bench.clock.advance(seconds=LEAVE_WITHIN_S + 1)
    bench.start()
    after = await bench.until_money(row.id, Money.REFUSED)
    assert after.reason is Reason.NOT_SENT and bench.wire.pushed == []


async def test_a_word_that_comes_before_the_answer_of_the_push_is_kept(bench: Bench) -> None:
    async def pay(order: PushOrder) -> None:
        token = ids.token_hash(order.callback_url.rsplit("/", 1)[1])
        found = await bench.db.read(lambda conn: payments.by_token(conn, token))
        assert found is not None
        word = Evidence(
            Source.CALLBACK, Verdict.PAID, "0", receipt="UKN0000001", amount_cents=45_000
        )
        await bench.ledger.hear(found.id, word)

    bench.wire.meanwhile = pay
    reply = accepted()
    bench.wire.pushes.append(reply)
    bench.start()
    row = await bench.desk.ask(an_ask())

    async def answered() -> bool:
        return (await bench.row(row.id)).checkout_request_id == reply.checkout_request_id

    await bench.until(answered)
    after = await bench.row(row.id)
    assert (after.money, after.receipt) == (Money.PAID, "UKN0000001")


async def test_a_restart_refuses_what_was_new_and_does_not_know_what_was_sending(
    tmp_path: Path,
) -> None:
    async with open_bench(tmp_path) as bench:
        bench.wire.hold(PHONE)
        bench.start()
        sending = await bench.desk.ask(an_ask())
        await bench.until_money(sending.id, Money.SENDING)
        await bench.kill()
        new = await bench.desk.ask(an_ask(phone=OTHER))
    async with open_bench(tmp_path) as bench:
        await recover_pushes(bench.db, bench.ledger)
        bench.start()
        after = await bench.row(sending.id)
        assert (after.money, after.reason) == (Money.SEND_UNKNOWN, Reason.SEND_LOST)
        after = await bench.row(new.id)
        assert (after.money, after.reason) == (Money.REFUSED, Reason.NOT_SENT)
        await bench.pushed(phone="254799999999")
        assert len(bench.wire.pushed) == 1
