"""Every row of fake_scenarios.json, end to end: a till over HTTP, the real daemon, the real relay, the fake
Daraja; and the daemon is killed and started again in the middle of each row.

`ROWS` in tests/support/mpesa_rows.py says how a row must end. Rows share a shop where one kill can be in the
middle of all of them; that it was is read from the dead daemon's store, row by row. Where the kill falls
within a row is chance; SEED repeats one.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hw_fakes.daraja import SCENARIOS
from hw_fakes.vscu.unit import UnitControl
from tests.support.mpesa_rows import C2B, OPEN, PULL, ROWS, TOTAL, Stage, play, pushed
from tests.support.mpesa_shop import SHORTCODE
from tests.support.shop import a_sale

# Their ends are told some seconds after the push: one kill is in the middle of all.
TOLD = (
    "cancel", "wrong_pin", "funds", "unreachable", "expired", "busy_async", "rule_limited",
    "product_mismatch", "operator_missing", "push_9999", "lost_callback_paid", "lost_callback_paid_c2b",
    "lost_callback_unpaid", "contradiction_cb_ok_query_failed", "contradiction_cb_failed_query_ok",
    "dup_callback", "dup_conflicting_callback", "wrong_amount", "malformed_callback", "types_variant",
    "too_early_query", "query_html_503",
)  # fmt: skip
SELLING = ("ok", "c2b_and_callback", "restart_mid_flight")


def test_the_table_has_every_row() -> None:
    assert set(ROWS) == set(SCENARIOS)
    assert len(ROWS) == 46


async def test_rows_whose_end_is_told(unit: UnitControl, tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        fake, shop = stage.shop.fake, stage.shop
        for name in TOLD:
            # Not before all phones ring: the row says what is said, not when.
            case = stage.case(name)
            fake.script(name, phone=case.phone, done_s=stage.chance.uniform(60, 80))
            await stage.ask(case)
        twice = stage.case("double_tap")
        fake.script("double_tap", phone=twice.phone, done_s=60)
        taps = await asyncio.gather(*(stage.ask(twice) for _ in range(2)))
        assert taps[0].json["paymentId"] == taps[1].json["paymentId"]
        sales = []
        for name in SELLING:
            case = stage.case(name)
            fake.script(name, phone=case.phone, done_s=stage.chance.uniform(60, 80))
            sales.append(asyncio.ensure_future(stage.sell_asking(case)))
        cases = list(stage.cases.values())
        await fake.wait_for(lambda: all(pushed(stage, case) for case in cases), 20)
        await asyncio.sleep(stage.chance.uniform(0, 0.3))
        await stage.kill(*cases)
        # What M-Pesa says meanwhile is kept by the relay.
        await fake.wait_for(lambda: bool(fake.entries("callback")), 20)
        await stage.start()
        for reply in await asyncio.gather(*sales):
            assert reply.status == 201, reply.json
        for case in cases:
            await stage.ends(case)
        # Said once to the till, however often M-Pesa said it.
        paid = [
            e
            for e in stage.screen.of(stage.cases["dup_callback"].payment_id)
            if e.data["state"] == "PAID" and e.data["tender"] == "OPEN"
        ]
        assert len(paid) == 1
        # The shop's lists show what a person must look at, and the alarm on contradiction was stored.
        lists = (await shop.technician().request("GET", "/v1/payments/lists")).json
        assert [line["paymentId"] for line in lists["review"]] == [
            stage.cases["wrong_amount"].payment_id
        ]
        review = stage.cases["wrong_amount"]
        sale = a_sale(
            tillReceiptNo=review.ref,
            payments=[{"method": "MOBILE_MONEY", "amount": TOTAL, "paymentId": review.payment_id}],
        )
        refused = await stage.till.sell("sale-of-another-amount", sale)
        assert refused.status == 422, refused.json

    await play(tmp_path, unit, act, settings=C2B, speed=10)


@pytest.mark.parametrize(
    "name",
    [
        "ok_fast",
        "callback_before_push_response",
        "token_expired",
        "token_replaced",
        "restart_before_response",
    ],
)
async def test_rows_that_are_killed_as_soon_as_mpesa_has_the_push(
    name: str, unit: UnitControl, tmp_path: Path
) -> None:
    async def act(stage: Stage) -> None:
        fake = stage.shop.fake
        case = stage.case(name)
        await stage.ask(case)
        await fake.wait_for(lambda: pushed(stage, case), 20)
        # restart_before_response: its answer would take ten seconds more.
        states = ("SENDING",) if name == "restart_before_response" else OPEN
        await stage.kill(case, states=states)
        await fake.wait_for(lambda: bool(fake.entries("callback")), 20)
        await stage.start()
        await stage.ends(case)
        given = [e for e in fake.entries("token") if e["outcome"] == "given"]
        lives = 2
        assert len(given) <= lives + (name in ("token_expired", "token_replaced"))

    await play(tmp_path, unit, act, settings=C2B)


@pytest.mark.timeout(240)
async def test_rows_that_take_minutes(unit: UnitControl, tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        fake, shop = stage.shop.fake, stage.shop
        names = (
            "everything_silent_paid", "everything_silent_unpaid", "late_success",
            "late_success_after_failed_query", "push_timeout_prompted", "push_timeout_not_prompted",
            "spoofed_callback", "rate_limited_query",
        )  # fmt: skip
        # Their customers pay when the row wants it, however long the daemon's restart took.
        people = (
            "everything_silent_paid", "late_success", "late_success_after_failed_query",
            "push_timeout_prompted", "rate_limited_query",
        )  # fmt: skip

        def pays(name: str) -> None:
            phone = stage.cases[name].phone
            fake.answer(phone, "pin", fake.wallet(phone).pin)

        for name in names:
            case = stage.case(name)
            if name in people:
                fake.script(name, phone=case.phone, by_person=True)
            await stage.ask(case)
        cases = list(stage.cases.values())
        await fake.wait_for(
            lambda: len({e.get("phone") for e in fake.entries("push")}) == len(cases), 20
        )
        await asyncio.sleep(stage.chance.uniform(0, 1.5))
        await stage.kill(*cases)
        await stage.start()
        pays("push_timeout_prompted")
        pays("rate_limited_query")
        await shop.until_money(stage.cases["everything_silent_paid"].payment_id, "UNKNOWN")
        pays("everything_silent_paid")
        # The cashier of late_success takes cash when nobody has said anything.
        late = stage.cases["late_success"]
        await shop.until_money(late.payment_id, "UNKNOWN")
        told = await stage.till.payment(late.payment_id)
        assert "Status unknown" in told["sentence"]["en"]
        assert "failed" not in told["sentence"]["en"].lower()
        closed = await stage.till.insist(
            "POST", f"/v1/payments/{late.payment_id}/close", json={"outcome": "PAID_OTHERWISE"}
        )
        assert closed.status == 200, closed.json
        cash = await stage.till.insist(
            "POST", "/v1/invoices", key="cash-late", json=a_sale(tillReceiptNo=late.ref)
        )
        assert cash.status == 201, cash.json
        failed = stage.cases["late_success_after_failed_query"]
        await shop.until_money(failed.payment_id, "NOT_PAID")
        pays("late_success")
        pays("late_success_after_failed_query")
        spoofed = stage.cases["spoofed_callback"]
        await shop.until(
            lambda: shop.rows("SELECT * FROM mpesa_message WHERE state = 'UNMATCHED'"),
            "the forged message kept",
        )
        for case in cases:
            if case is not spoofed:
                await stage.ends(case)
        # Never paid: nobody but a stranger said so.
        stories = shop.rows("SELECT * FROM payment_event WHERE payment_id = ?", spoofed.payment_id)
        assert not [word for word in stories if word["money"] == "PAID"]
        assert shop.rows(
            "SELECT * FROM event WHERE kind = 'payment.alarm' AND data LIKE '%FORGED%'"
        ) or [w for w in stories if w["alarm"]]
        assert not [p for p in fake.payments if p.phone == spoofed.phone]
        # No storm of questions about the limited one.
        limited = stage.cases["rate_limited_query"]
        (push,) = (p for p in fake.pushes if p.phone == limited.phone)
        assert push.queries <= 12
        # The refund list has the late one.
        lists = (await shop.technician().request("GET", "/v1/payments/lists")).json
        assert late.payment_id in [line["paymentId"] for line in lists["refundDue"]]

    await play(
        tmp_path, unit, act, settings=PULL + "answer_timeout_s = 1.5\n", speed=20,
        pull_lag_s=0, prompt_life_s=1_000_000,
    )  # fmt: skip


async def test_rows_that_mpesa_refuses_at_once(unit: UnitControl, tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        fake, shop = stage.shop.fake, stage.shop
        for name in (
            "busy_sync",
            "push_500_busy",
            "push_ResponseCode_1",
            "invalid_callback_url",
            "oauth_400_empty",
        ):
            case = stage.case(name)
            await stage.ask(case)
            await shop.until_money(case.payment_id, "REFUSED")
            # In its middle: it is refused, and the till does not know yet.
            await stage.kill(case, states=("REFUSED",))
            await stage.start()
            again = await stage.till.insist(
                "POST",
                "/v1/payments/mpesa",
                again=(503,),
                key=f"key-{name}",
                json={"saleRef": case.ref, "amount": TOTAL, "phone": case.phone},
            )
            assert again.json["paymentId"] == case.payment_id
            await stage.ends(case)
        # Whose request surely was not sent may be asked again under a new key.
        busy = stage.cases["busy_sync"]
        fake.script("ok", phone=busy.phone)
        told = await stage.till.insist(
            "POST",
            "/v1/payments/mpesa",
            again=(503,),
            key="again",
            json={"saleRef": busy.ref, "amount": TOTAL, "phone": busy.phone},
        )
        assert told.status in (202, 429), told.json
        config = stage.cases["oauth_400_empty"]
        (word,) = shop.rows(
            "SELECT * FROM payment_event WHERE payment_id = ? AND money = 'REFUSED'",
            config.payment_id,
        )
        assert "sandbox" in word["note"]

    await play(tmp_path, unit, act, settings=C2B)


async def test_a_customer_who_pays_the_till_directly(unit: UnitControl, tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        fake, shop = stage.shop.fake, stage.shop
        case = stage.case("customer_pays_till_directly")
        await shop.daemon.kill()
        case.killed_in = "away"
        receipt = await fake.pay(case.phone, SHORTCODE, 297)
        assert not isinstance(receipt, str), receipt
        await fake.wait_for(lambda: bool(fake.entries("callback")), 20)
        await stage.start()
        rows = await shop.until(lambda: shop.rows("SELECT * FROM payment"), "the money is there")
        case.payment_id = rows[0]["id"]
        await stage.screen.until(
            lambda: any(e.kind == "payment.unmatched" for e in stage.screen.events), "offered"
        )
        offered = (await stage.till.request("GET", "/v1/payments?open=1")).json["payments"]
        assert [view["paymentId"] for view in offered] == [case.payment_id]
        await stage.ends(case)
        claimed = await stage.till.request(
            "POST", f"/v1/payments/{case.payment_id}/claim", json={"saleRef": case.ref}
        )
        assert claimed.status == 200, claimed.json
        await stage.kill(case, states=("PAID",))
        await stage.start()
        await stage.sell_with(case)
        assert shop.row(case.payment_id)["tender"] == "COMPLETED_BY_MPESA"

    await play(tmp_path, unit, act, settings=C2B)


async def test_money_goes_back_after_it_was_paid(unit: UnitControl, tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        fake, shop = stage.shop.fake, stage.shop
        case = stage.case("reversal_after_paid")
        await stage.ask(case)
        await shop.until_money(case.payment_id, "PAID")
        await shop.until(lambda: shop.row(case.payment_id)["receipt"], "the receipt")
        person = shop.technician()
        path = f"/v1/payments/{case.payment_id}/refund"
        ordered = await person.request("POST", path, json={"reason": "goods came back"})
        assert ordered.status == 202, ordered.json
        await fake.wait_for(lambda: bool(fake.entries("reversal")), 20)
        await stage.kill(case, states=("PAID",))
        await fake.wait_for(
            lambda: any(e["kind"] == "result" for e in fake.entries("callback")), 20
        )
        await stage.start()
        await stage.ends(case)
        again = await shop.technician().request("POST", path, json={"reason": "once more"})
        assert again.status == 409, again.json
        assert len([p for p in fake.payments if p.kind == "REVERSAL"]) == 1

    await play(tmp_path, unit, act, settings=C2B + 'initiator = "testapi"\n', result_after_s=40)
