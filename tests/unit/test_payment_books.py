"""Refunds, typed codes, claims, and M-Pesa's own list beside ours."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import ids
from gateway.clock import compact, micros
from gateway.domain.payment import Act, Evidence, Money, Reason, Source, Tender, Verdict
from gateway.domain.payment_wire import ApiResult, Lost, PulledRow, Refused
from gateway.errors import PaymentInvalid, PaymentSettled, PaymentUnknown
from gateway.payments.announced import announced_in
from gateway.payments.ledger import Heard
from gateway.payments.reconcile import Reconciler
from gateway.payments.refunds import RESULT_WITHIN_S
from gateway.store import payments, pulled, refunds
from gateway.store.payments import PaymentRow
from gateway.store.refunds import Refund, RefundState
from tests.support.payments import Bench, open_bench

RECEIPT = "UKN0000001"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with open_bench(tmp_path) as opened:
        opened.start(opened.pusher.run, opened.refunds.run)
        yield opened


async def a_paid(bench: Bench, receipt: str | None = RECEIPT, **changes: Any) -> PaymentRow:
    row = await bench.pushed(**changes)
    word = Evidence(
        Source.CALLBACK, Verdict.PAID, "0", receipt=receipt,
        amount_cents=row.amount_cents if receipt else None,
    )  # fmt: skip
    return (await bench.ledger.hear(row.id, word)).row


async def refund_of(bench: Bench, payment_id: str) -> Refund:
    return (await bench.db.read(lambda conn: refunds.of_payment(conn, payment_id)))[-1]


async def until_refund(bench: Bench, payment_id: str, state: RefundState) -> Refund:
    async def reached() -> bool:
        return (await refund_of(bench, payment_id)).state is state

    await bench.until(reached)
    return await refund_of(bench, payment_id)


def result(code: str = "0", **parameters: str) -> ApiResult:
    return ApiResult("AG_x", "o-x", code, "says M-Pesa", "UKN0000009", parameters)


def hash_of(url: str) -> str:
    return ids.token_hash(url.rsplit("/", 1)[1])


# --- refunds ---------------------------------------------------------------------------------------------


async def test_a_reversal_is_durable_before_it_leaves_and_ends_by_its_result(bench: Bench) -> None:
    row = await a_paid(bench)
    after = await bench.desk.refund(row.id, "wanjiru", "returned goods", by_hand=False)
    assert after.tender is Tender.REFUND_DUE
    await until_refund(bench, row.id, RefundState.SENT)
    receipt, amount, result_url, timeout_url = bench.wire.reversed[0]
    assert (receipt, amount) == (RECEIPT, row.amount_cents)
    assert result_url.startswith("https://relay.test/shop-1/r/")
    assert timeout_url.startswith("https://relay.test/shop-1/t/")
    assert await bench.refunds.on_result(hash_of(result_url), result(), b"{}")
    after = await bench.row(row.id)
    assert (after.money, after.tender) == (Money.REFUNDED, Tender.REFUNDED)
    done = await refund_of(bench, row.id)
    assert (done.state, done.receipt) == (RefundState.DONE, "UKN0000009")
    # The result again changes nothing.
    assert await bench.refunds.on_result(hash_of(result_url), result("1"), b"{}")
    assert (await refund_of(bench, row.id)).state is RefundState.DONE
    assert not await bench.refunds.on_result("0" * 64, result(), b"{}")


@pytest.mark.parametrize(
    ("code", "state", "money"),
    [
        ("R000001", RefundState.DONE, Money.REFUNDED),
        ("R000002", RefundState.REFUSED, Money.PAID),
        ("1", RefundState.REFUSED, Money.PAID),
        ("21", RefundState.REFUSED, Money.PAID),
    ],
)
async def test_what_mpesa_says_to_a_reversal(
    bench: Bench, code: str, state: RefundState, money: Money
) -> None:
    row = await a_paid(bench)
    await bench.desk.refund(row.id, "wanjiru", "returned", by_hand=False)
    await until_refund(bench, row.id, RefundState.SENT)
    await bench.refunds.on_result(hash_of(bench.wire.reversed[0][2]), result(code), b"{}")
    assert (await refund_of(bench, row.id)).state is state
    after = await bench.row(row.id)
    assert after.money is money
    if state is RefundState.REFUSED:
        assert after.tender is Tender.REFUND_DUE
        assert [e.data["alarm"] for e in await bench.events("payment.alarm")] == ["REFUND_OPEN"]
        # A person may order it again, or give the money back by hand.
        after = await bench.desk.refund(row.id, "wanjiru", "cash", by_hand=True)
        assert (after.money, after.tender) == (Money.PAID, Tender.REFUNDED)


async def test_money_is_never_ordered_back_twice(bench: Bench) -> None:
    row = await a_paid(bench)
    await bench.desk.refund(row.id, "wanjiru", "returned", by_hand=False)
    for by_hand in (False, True):
        with pytest.raises(PaymentSettled):
            await bench.desk.refund(row.id, "wanjiru", "again", by_hand=by_hand)
    await until_refund(bench, row.id, RefundState.SENT)
    await bench.refunds.on_result(hash_of(bench.wire.reversed[0][2]), result(), b"{}")
    with pytest.raises(PaymentSettled):
        await bench.desk.refund(row.id, "wanjiru", "again", by_hand=True)
    assert len(bench.wire.reversed) == 1


async def test_a_lost_answer_is_unknown_and_is_never_sent_again(bench: Bench) -> None:
    bench.wire.reversals.append(Lost("time-out"))
    row = await a_paid(bench)
    await bench.desk.refund(row.id, "wanjiru", "returned", by_hand=False)
    refund = await until_refund(bench, row.id, RefundState.UNKNOWN)
    await bench.clock.advance(hours=1)
    assert len(bench.wire.reversed) == 1
    # M-Pesa's status says nothing clear: it stays a person's.
    await bench.desk.check(row.id)
    await bench.quiet()
    url = bench.wire.asked_status[0][1]
    said = result(TransactionStatus="Completed", ReceiptNo=RECEIPT, Amount="450")
    assert await bench.questions.on_result(hash_of(url), said, b"{}")
    assert (await refund_of(bench, row.id)).state is RefundState.UNKNOWN
    said = await bench.desk.settle_refund(refund.id, True, "wanjiru", "on the statement")
    assert said["state"] is RefundState.DONE
    assert (await bench.row(row.id)).money is Money.REFUNDED


async def test_a_result_that_never_comes_and_a_queue_that_timed_out_are_unknown(
    bench: Bench,
) -> None:
    rows = [await a_paid(bench), await a_paid(bench, "UKN0000002", phone="254720000001")]
    for row in rows:
        await bench.desk.refund(row.id, "wanjiru", "returned", by_hand=False)
        await until_refund(bench, row.id, RefundState.SENT)
    await bench.refunds.on_result(hash_of(bench.wire.reversed[1][3]), None, b"")
    assert (await refund_of(bench, rows[1].id)).state is RefundState.UNKNOWN
    await bench.clock.advance(seconds=RESULT_WITHIN_S)

    async def given_up() -> bool:
        await bench.clock.advance(seconds=60)
        return (await refund_of(bench, rows[0].id)).state is RefundState.UNKNOWN

    await bench.until(given_up)
    # A late result still counts.
    await bench.refunds.on_result(hash_of(bench.wire.reversed[0][2]), result(), b"{}")
    assert (await bench.row(rows[0].id)).money is Money.REFUNDED


async def test_a_restart_refuses_what_was_ordered_and_does_not_know_what_was_sending(
    tmp_path: Path,
) -> None:
    async with open_bench(tmp_path) as bench:
        bench.start()
        rows = [await a_paid(bench), await a_paid(bench, "UKN0000002", phone="254720000001")]
        for row in rows:
            await bench.desk.refund(row.id, "wanjiru", "returned", by_hand=False)
        second = await refund_of(bench, rows[1].id)
        at = micros(bench.clock.now())
        await bench.db.write(lambda c: refunds.move(c, second, RefundState.SENDING, at=at))
    async with open_bench(tmp_path) as bench:
        await bench.refunds.recover()
        bench.start(bench.refunds.run)
        await bench.quiet()
        states = [(await refund_of(bench, row.id)).state for row in rows]
        assert states == [RefundState.REFUSED, RefundState.UNKNOWN]
        # Whoever ordered it hears of both.
        alarms = await bench.events("payment.alarm")
        told = {e.subject: (e.data["alarm"], e.data["refund"]["state"]) for e in alarms}
        assert [told[row.id] for row in rows] == [
            ("REFUND_OPEN", "REFUSED"), ("REFUND_OPEN", "UNKNOWN"),
        ]  # fmt: skip
        assert bench.wire.reversed == []


async def test_what_cannot_be_reversed_is_said(bench: Bench) -> None:
    waiting = await bench.pushed()
    with pytest.raises(PaymentSettled):
        await bench.desk.refund(waiting.id, "wanjiru", "x", by_hand=False)
    no_receipt = await a_paid(bench, None, phone="254720000001")
    with pytest.raises(PaymentInvalid, match="receipt number"):
        await bench.desk.refund(no_receipt.id, "wanjiru", "x", by_hand=False)
    with pytest.raises(PaymentUnknown):
        await bench.desk.refund("0" * 26, "wanjiru", "x", by_hand=True)
    # The order that was refused left nothing behind.
    assert (await bench.row(no_receipt.id)).tender is Tender.OPEN
    bench.wire.reversals.append(Refused(Reason.CONFIG, "400", "bad initiator", b"{}"))
    paid = await a_paid(bench, "UKN0000003", phone="254720000002")
    await bench.desk.refund(paid.id, "wanjiru", "x", by_hand=False)
    assert (await until_refund(bench, paid.id, RefundState.REFUSED)).code == "400"


async def test_without_a_token_the_reversal_was_not_sent(bench: Bench) -> None:
    row = await a_paid(bench)
    bench.wire.no_token = Lost("no connection")
    await bench.desk.refund(row.id, "wanjiru", "x", by_hand=False)
    await until_refund(bench, row.id, RefundState.REFUSED)
    assert bench.wire.reversed == []


# --- typed codes and claims -------------------------------------------------------------------------------


async def found(bench: Bench, receipt: str = RECEIPT, cents: int = 45_000) -> PaymentRow:
    """Money that came by itself."""
    row = PulledRow(receipt, cents, None, "", "c2b-buy-goods-debit", bench.clock.now())

    def write(conn: sqlite3.Connection) -> Heard:
        at = micros(bench.clock.now())
        return announced_in(conn, bench.ledger, row, Source.C2B, at, b"{}")

    return (await bench.ledger.write(write)).row


async def test_a_typed_code_takes_the_money_that_came_under_it_and_no_other(bench: Bench) -> None:
    loose = await found(bench)
    row = await bench.pushed(phone="254720000001")
    paid = await bench.desk.code(row.id, " ukn 0000001 ", "till-1")
    assert (paid.money, paid.receipt, paid.tender) == (Money.PAID, RECEIPT, Tender.OPEN)
    assert (await bench.row(loose.id)).merged_into == row.id
    other = await bench.pushed(phone="254720000002")
    with pytest.raises(PaymentSettled):
        await bench.desk.code(other.id, RECEIPT, "till-2")
    await found(bench, "UKN0000002", 9_900)
    with pytest.raises(PaymentInvalid, match="another amount"):
        await bench.desk.code(other.id, "UKN0000002", "till-2")
    with pytest.raises(PaymentInvalid, match="ten letters"):
        await bench.desk.code(other.id, "UKN00001", "till-2")


@pytest.mark.parametrize(
    ("changes", "money"),
    [
        ({}, Money.PAID),
        ({"TransactionStatus": "Declined"}, Money.WAITING),
        ({"ReceiptNo": "UKN0000002"}, Money.WAITING),
        ({"CreditPartyName": "999999 - Another"}, Money.WAITING),
        ({"CreditPartyName": "174379 - Ours"}, Money.PAID),
        ({"FinalisedTime": "old"}, Money.WAITING),
        ({"Amount": ""}, Money.WAITING),
    ],
)  # fmt: skip
async def test_a_typed_code_proves_nothing_until_mpesa_says_so(
    bench: Bench, changes: dict[str, str], money: Money
) -> None:
    row = await bench.pushed()
    typed = await bench.desk.code(row.id, RECEIPT, "till-1")
    assert typed.money is Money.WAITING
    await bench.quiet()
    receipt, url = bench.wire.asked_status[0]
    assert receipt == RECEIPT
    now = bench.clock.now()
    told = {
        "TransactionStatus": "Completed", "ReceiptNo": RECEIPT, "Amount": "450.00",
        "FinalisedTime": compact(now), **changes,
    }  # fmt: skip
    if told["FinalisedTime"] == "old":
        told["FinalisedTime"] = compact(now - timedelta(hours=3))
    assert await bench.questions.on_result(hash_of(url), result(**told), b"{}")
    assert (await bench.row(row.id)).money is money


async def test_a_person_with_a_code_may_answer_for_a_receipt(bench: Bench) -> None:
    row = await bench.pushed()
    paid = await bench.desk.code(row.id, RECEIPT, "wanjiru", vouched=True)
    assert (paid.money, paid.paid_by, paid.receipt) == (Money.PAID, Source.PERSON, RECEIPT)


async def test_money_that_came_by_itself_is_one_sales(bench: Bench) -> None:
    loose = await found(bench)
    claimed = await bench.desk.claim(loose.id, "till-1", "POS-77", "achieng")
    assert (claimed.till_id, claimed.sale_ref, claimed.tender) == ("till-1", "POS-77", Tender.OPEN)
    again = await bench.desk.claim(loose.id, "till-1", "POS-77", "achieng")
    assert again.version == claimed.version
    with pytest.raises(PaymentSettled):
        await bench.desk.claim(loose.id, "till-2", "POS-78", "otieno")
    with pytest.raises(PaymentSettled):
        await bench.desk.claim((await a_paid(bench, "UKN0000002")).id, "till-2", "P", "x")


async def test_the_lists_hold_what_does_not_agree(bench: Bench) -> None:
    loose = await found(bench, "UKN0000005")
    unknown = await bench.pushed()
    await bench.ledger.hear(unknown.id, Evidence(Source.CLOCK, Verdict.DEADLINE))
    due = await a_paid(bench, phone="254720000001")
    await bench.desk.act(due.id, Act.REFUND_ORDERED, "wanjiru", "late")
    lists = await bench.db.read(bench.desk.lists)
    named = {name: [view.get("paymentId") for view in views] for name, views in lists.items()}
    assert named == {
        "moneyWithoutReceipt": [loose.id], "review": [], "refundDue": [due.id],
        "receiptWithoutMoney": [], "unknown": [unknown.id], "refunds": [], "mayBeSame": [], "reversals": [],
    }  # fmt: skip
    json.dumps(lists)


# --- M-Pesa's own list --------------------------------------------------------------------------------------


def reconciler(bench: Bench, margin_s: float = 1800) -> Reconciler:
    return Reconciler(
        db=bench.db, clock=bench.clock, ledger=bench.ledger, daraja=bench.wire,
        announce=lambda conn, row, at, raw: announced_in(
            conn, bench.ledger, row, Source.PULL, at, raw
        ),
        margin_s=margin_s, prompt_life_s=180,
    )  # fmt: skip


async def an_unknown(bench: Bench, **changes: Any) -> PaymentRow:
    row = await bench.pushed(**changes)
    return (await bench.ledger.hear(row.id, Evidence(Source.CLOCK, Verdict.DEADLINE))).row


def on_the_list(row: PaymentRow, at: datetime, receipt: str = RECEIPT) -> PulledRow:
    return PulledRow(
        receipt, row.amount_cents, row.phone, row.account_ref or "", "c2b-pay-bill-debit", at
    )


async def on_a_living_list(bench: Bench) -> PaymentRow:
    """A payment that M-Pesa has confirmed, and that its list holds."""
    known = await a_paid(bench, "UKN0000042", phone="254720000042", amount_cents=12_300)
    bench.wire.rows.append(on_the_list(known, bench.clock.now(), "UKN0000042"))
    return known


async def test_what_is_on_the_list_has_come_and_what_is_not_in_a_covered_time_has_not(
    bench: Bench,
) -> None:
    books = reconciler(bench)
    paid = await an_unknown(bench)
    absent = await an_unknown(bench, phone="254720000001", amount_cents=46_000)
    young = 1_700
    bench.wire.rows.append(on_the_list(paid, bench.clock.now()))
    await bench.clock.advance(seconds=301)
    await books.round()
    assert (await bench.row(paid.id)).receipt == RECEIPT
    assert (await bench.row(absent.id)).money is Money.UNKNOWN
    await bench.clock.advance(seconds=young - 301)
    await books.round()
    assert (await bench.row(absent.id)).money is Money.UNKNOWN
    await bench.clock.advance(seconds=300)
    await books.round()
    after = await bench.row(absent.id)
    assert (after.money, after.reason) == (Money.NOT_PAID, Reason.NOT_FOUND)


async def test_a_list_that_is_not_told_to_its_end_proves_no_absence(bench: Bench) -> None:
    books = reconciler(bench)
    row = await an_unknown(bench)
    await on_a_living_list(bench)
    bench.wire.pull_problem = "429"
    await bench.clock.advance(seconds=3_000)
    await books.round()
    assert books.problem == "429"
    assert (await bench.row(row.id)).money is Money.UNKNOWN
    assert await bench.db.read(pulled.last) is None
    bench.wire.pull_problem = None
    await bench.clock.advance(seconds=61)
    await books.round()
    assert books.problem is None
    assert (await bench.row(row.id)).money is Money.NOT_PAID


async def test_money_that_nobody_can_place_keeps_the_payment_open_for_a_person(
    bench: Bench,
) -> None:
    books = reconciler(bench)
    row = await an_unknown(bench)
    stray = PulledRow(
        "UKN0000008", row.amount_cents, None, "", "c2b-buy-goods-debit", bench.clock.now()
    )
    bench.wire.rows.append(stray)
    await bench.clock.advance(seconds=3_000)
    await books.round()
    assert (await bench.row(row.id)).money is Money.UNKNOWN
    loose = await bench.db.read(payments.unowned)
    assert [found.receipt for found in loose] == ["UKN0000008"]


async def test_a_clock_that_was_set_while_the_push_was_out_proves_no_absence(bench: Bench) -> None:
    books = reconciler(bench)
    row = await an_unknown(bench)
    await books.round()
    bench.clock.step_wall(hours=2)
    await bench.clock.advance(seconds=3_000)
    await books.round()
    assert len(bench.wire.pulled) >= 1
    assert (await bench.row(row.id)).money is Money.UNKNOWN


async def test_the_list_is_read_at_its_steps_page_by_page_and_says_nothing_twice(
    bench: Bench,
) -> None:
    books = reconciler(bench)
    row = await a_paid(bench, None)
    bench.wire.rows += [
        PulledRow(f"UKN00001{n:02d}", 10_000, None, "x", "c2b-pay-bill-debit", bench.clock.now())
        for n in range(5)
    ]
    bench.wire.rows.append(on_the_list(row, bench.clock.now()))
    reads = 0
    for _ in range(100):
        before = len(bench.wire.pulled)
        await books.round()
        reads += len(bench.wire.pulled) > before
        await bench.clock.advance(seconds=100)
    # 5 min only: after it the receipt is known, and nothing else waits.
    assert reads == 1
    assert [offset for _, _, offset in bench.wire.pulled] == [0, 2, 4, 6]
    assert (await bench.row(row.id)).receipt == RECEIPT
    words = len(await bench.words(row.id))
    books.soon()
    await books.round()
    assert len(await bench.words(row.id)) == words
    assert len(await bench.db.read(payments.unowned)) == 6


async def test_a_typed_code_that_is_on_the_list_is_that_payments(bench: Bench) -> None:
    books = reconciler(bench)
    row = await an_unknown(bench)
    await bench.desk.code(row.id, "UKN0000007", "till-1")
    bench.wire.rows.append(
        PulledRow(
            "UKN0000007",
            row.amount_cents,
            "254799999999",
            "",
            "c2b-buy-goods-debit",
            bench.clock.now(),
        )
    )
    books.soon()
    await books.round()
    after = await bench.row(row.id)
    assert (after.money, after.receipt) == (Money.PAID, "UKN0000007")


async def test_reversals_on_the_list_are_no_payments(bench: Bench) -> None:
    books = reconciler(bench)
    bench.wire.rows.append(
        PulledRow("UKN0000006", 10_000, None, "", "Pay Bill Reversal", bench.clock.now())
    )
    books.soon()
    await books.round()
    assert await bench.db.read(payments.unowned) == []
