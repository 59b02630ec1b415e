"""Every row of fake_scenarios.json, end to end: a till over HTTP, the real daemon, the real relay, the fake
Daraja; and the daemon is killed and started again in the middle of each row.

`_ROWS` is the table: how a row must end (`gateway_must_end`). Rows share a shop where one kill can be in the
middle of all of them; that it was is read from the dead daemon's store, row by row. Where the kill falls
within a row is chance; SEED repeats one.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.mpesa.c2b_token import c2b_token
from hw_fakes.daraja import PASSKEY, SCENARIOS, phone_for
from hw_fakes.vscu.unit import UnitControl
from tests.support.mpesa_shop import (
    RELAY_HOST,
    SHORTCODE,
    MpesaShop,
    MpesaTill,
    Screen,
    open_mpesa_shop,
)
from tests.support.shop import Reply, a_sale

OPEN = ("NEW", "SENDING", "SEND_UNKNOWN", "WAITING", "UNKNOWN")
TOTAL = "297.00"


@dataclass(frozen=True)
class End:
    """How a row ends: money, reason, tender of the payment; what stood in its story; how many prompts."""

    money: str
    reason: str | None = None
    tender: str = "OPEN"
    alarm: str | None = None
    paid_by: tuple[str, ...] = ()
    receipt: bool | None = None
    through: tuple[str, ...] = ()
    pushes: int = 1


def paid(*paid_by: str, **more: Any) -> End:
    """Paid, and the sale signed with it."""
    return End("PAID", tender="COMPLETED_BY_MPESA", paid_by=paid_by, **{"receipt": True, **more})


def failed(reason: str, alarm: str | None = None) -> End:
    return End("NOT_PAID", reason, alarm=alarm)


_ROWS: dict[str, End] = {
    "ok": paid("CALLBACK", "C2B", "QUERY"),
    "ok_fast": paid("CALLBACK", "C2B", "QUERY"),
    "callback_before_push_response": paid("CALLBACK", "C2B"),
    "cancel": failed("CANCELLED"),
    "wrong_pin": failed("FAILED_PIN"),
    "funds": failed("FAILED_FUNDS"),
    "unreachable": failed("FAILED_UNREACHABLE"),
    "expired": failed("FAILED_EXPIRED"),
    "busy_async": failed("FAILED_BUSY"),
    "busy_sync": End("REFUSED", "NOT_SENT"),
    "rule_limited": failed("FAILED_RETRYABLE"),
    "product_mismatch": failed("FAILED_CONFIG", "SETUP"),
    "operator_missing": failed("FAILED_CONFIG", "SETUP"),
    "push_9999": failed("FAILED_RETRYABLE"),
    "lost_callback_paid": paid("QUERY", receipt=False),
    "lost_callback_paid_c2b": paid("C2B"),
    "lost_callback_unpaid": failed("CANCELLED"),
    "everything_silent_paid": paid("PULL", through=("UNKNOWN",)),
    "everything_silent_unpaid": End("NOT_PAID", "NOT_FOUND", through=("UNKNOWN",)),
    "late_success": End("PAID", tender="REFUND_DUE", alarm="LATE", receipt=True, through=("UNKNOWN",)),
    "late_success_after_failed_query": paid("CALLBACK", alarm="PAID_AFTER_FAILURE", through=("NOT_PAID",)),
    "contradiction_cb_ok_query_failed": paid("CALLBACK", "C2B"),
    "contradiction_cb_failed_query_ok": paid("C2B", "QUERY", alarm="PAID_AFTER_FAILURE"),
    "dup_callback": paid("CALLBACK", "C2B", "QUERY"),
    "dup_conflicting_callback": paid("CALLBACK", "C2B", "QUERY", alarm="PAID_AFTER_FAILURE"),
    "c2b_and_callback": paid("CALLBACK", "C2B", "QUERY"),
    "wrong_amount": End("PAID", tender="REVIEW", alarm="OTHER_AMOUNT", receipt=True),
    "spoofed_callback": End("UNKNOWN"),
    "malformed_callback": paid("QUERY", receipt=False, alarm="MALFORMED"),
    "types_variant": paid("CALLBACK", "C2B", "QUERY"),
    "too_early_query": paid("CALLBACK", "C2B", "QUERY"),
    "rate_limited_query": paid("QUERY", "PULL", receipt=None),
    "query_html_503": paid("CALLBACK", "C2B"),
    "token_expired": paid("CALLBACK", "C2B", "QUERY"),
    "token_replaced": paid("CALLBACK", "C2B", "QUERY"),
    "oauth_400_empty": End("REFUSED", "CONFIG", alarm="SETUP", pushes=0),
    "push_timeout_prompted": paid("CALLBACK", "C2B", through=("SEND_UNKNOWN",)),
    "push_timeout_not_prompted": End("NOT_PAID", "NOT_FOUND", through=("SEND_UNKNOWN", "UNKNOWN"), pushes=0),
    "push_500_busy": End("REFUSED", "NOT_SENT"),
    "push_ResponseCode_1": End("REFUSED"),
    "invalid_callback_url": End("REFUSED", "CONFIG", alarm="SETUP"),
    "double_tap": paid("CALLBACK", "C2B", "QUERY"),
    "restart_mid_flight": paid("CALLBACK", "C2B", "QUERY"),
    "restart_before_response": paid("CALLBACK", "C2B", through=("SEND_UNKNOWN",)),
    "customer_pays_till_directly": End("PAID", paid_by=("C2B",), receipt=True, pushes=0),
    "reversal_after_paid": End("REFUNDED", tender="REFUNDED", receipt=True),
}  # fmt: skip


def test_the_table_has_every_row() -> None:
    assert set(_ROWS) == set(SCENARIOS)
    assert len(_ROWS) == 46


@dataclass
class Case:
    """One row in a running shop."""

    name: str
    phone: str
    ref: str
    payment_id: str = ""
    killed_in: str = ""
    checkout: bool = False


@dataclass
class Stage:
    """A shop, its tills, and the rows that are played in it."""

    shop: MpesaShop
    till: MpesaTill
    screen: Screen
    chance: random.Random
    cases: dict[str, Case] = field(default_factory=dict)

    def case(self, name: str, lead: str = "25470800") -> Case:
        case = Case(name, phone_for(name, lead), f"R-{name[:30]}")
        self.cases[name] = case
        return case

    async def ask(self, case: Case) -> Reply:
        reply = await self.till.push(f"key-{case.name}", case.ref, TOTAL, case.phone)
        assert reply.status == 202, (case.name, reply.json)
        case.payment_id = reply.json["paymentId"]
        return reply

    async def sell_asking(self, case: Case) -> Reply:
        """The same as one sale with `tenders`."""
        case.checkout = True
        sale = a_sale(
            tillReceiptNo=case.ref,
            tenders=[{"method": "MPESA", "phone": case.phone, "amount": TOTAL}],
        )
        reply = await self.till.insist("POST", "/v1/invoices", key=f"key-{case.name}", json=sale)
        return reply

    def find_payment(self, case: Case) -> None:
        if not case.payment_id:
            rows = self.shop.rows("SELECT id FROM payment WHERE sale_ref = ?", case.ref)
            assert len(rows) == 1, (case.name, rows)
            case.payment_id = rows[0]["id"]

    async def kill(self, *cases: Case, states: tuple[str, ...] = OPEN) -> None:
        """The daemon is gone between two instructions; each of these rows was in its middle."""
        await self.shop.daemon.kill()
        for case in cases:
            self.find_payment(case)
            case.killed_in = self.shop.row(case.payment_id)["money"]
            assert case.killed_in in states, (case.name, case.killed_in)

    async def start(self) -> None:
        await asyncio.sleep(self.chance.uniform(0, 1.0))  # the box is off for up to twenty seconds
        await self.shop.daemon.start()

    async def sell_with(self, case: Case) -> None:
        """The money is there: the till posts the sale that it pays."""
        sale = a_sale(
            tillReceiptNo=case.ref,
            payments=[{"method": "MOBILE_MONEY", "amount": TOTAL, "paymentId": case.payment_id}],
        )
        reply = await self.till.insist("POST", "/v1/invoices", key=f"sale-{case.name}", json=sale)
        assert reply.status == 201, (case.name, reply.json)

    # --- the end --------------------------------------------------------------------------------------

    async def ends(self, case: Case) -> None:
        """The row is as the table says; then its sale is signed where money is there for it."""
        end = _ROWS[case.name]
        shop = self.shop
        assert case.killed_in, case.name

        def there() -> dict[str, Any] | None:
            row = shop.row(case.payment_id)
            receipt = end.receipt is not True or row["receipt"] is not None
            return row if row["money"] == end.money and receipt else None

        row = await shop.until(there, f"{case.name} {end} {shop.row(case.payment_id)['money']}")
        if end.tender == "COMPLETED_BY_MPESA" and not case.checkout:
            await self.sell_with(case)
        row = await shop.until(
            lambda: (r := shop.row(case.payment_id))["tender"] == end.tender and r,
            f"{case.name} {end.tender} {row['tender']}",
        )
        words = shop.rows(
            "SELECT * FROM payment_event WHERE payment_id = ? ORDER BY id", case.payment_id
        )
        story = [(word["source"], word["word"], word["money"]) for word in words]
        assert row["money"] == end.money, (case.name, story)
        if end.reason is not None:
            assert row["reason"] == end.reason, (case.name, row["reason"], story)
        if end.paid_by:
            assert row["paid_by"] in end.paid_by, (case.name, row["paid_by"], story)
        if end.receipt is not None:
            assert (row["receipt"] is not None) == end.receipt, (case.name, story)
        if end.alarm is not None:
            assert end.alarm in {word["alarm"] for word in words}, (case.name, story)
        for state in end.through:
            assert state in {word["money"] for word in words}, (case.name, state, story)
        changed = [word["money"] for word in words]
        if "PAID" in changed:
            rest = changed[changed.index("PAID") :]
            assert set(rest) <= {"PAID", "REFUNDED"}, (case.name, story)
        sent = [push for push in shop.fake.pushes if push.phone == case.phone]
        refused = [e for e in shop.fake.entries("push") if e.get("phone") == case.phone]
        assert len(sent) <= 1, (case.name, "the phone rang twice")
        assert len({e.get("callbackUrl") for e in refused}) <= 1, (case.name, refused)
        # The till was told the end, in words for the cashier.
        if end.pushes or sent:
            await self.screen.until(
                lambda: any(e.data["state"] == end.money for e in self.screen.of(case.payment_id)),
                f"{case.name} on the till",
            )
            last = self.screen.of(case.payment_id)[-1]
            assert last.data["sentence"]["en"] and last.data["sentence"]["sw"]

    async def books_agree(self) -> None:
        """M-Pesa's journal and the store: each shilling is one payment's, and no payment has another's."""
        shop = self.shop
        came = {p.receipt: p for p in shop.fake.payments if p.kind in ("STK", "C2B")}
        rows = shop.rows("SELECT * FROM payment WHERE merged_into IS NULL AND paid_by IS NOT NULL")
        by_receipt = {row["receipt"]: row for row in rows if row["receipt"]}
        assert len(by_receipt) == len([row for row in rows if row["receipt"]])
        assert set(by_receipt) <= set(came), "a receipt that M-Pesa does not have"
        for receipt, row in by_receipt.items():
            assert row["paid_cents"] == came[receipt].amount * 100
        unnamed = [row for row in rows if row["receipt"] is None]
        missing = [p for receipt, p in came.items() if receipt not in by_receipt]
        assert {row["phone"] for row in unnamed} == {p.phone for p in missing}
        journal = await shop.unit.journal()
        signed = [entry["trdInvcNo"] for entry in journal]
        assert len(signed) == len(set(signed)), "a sale was signed twice"
        owned = {row["sale_ref"] for row in rows if row["tender"] == "COMPLETED_BY_MPESA"}
        assert owned <= set(signed)
        assert not shop.rows("SELECT * FROM mpesa_message WHERE state = 'NEW'")
        bugs = shop.fake.entries("bug")
        assert not bugs, bugs


Play = Callable[[Stage], Awaitable[None]]


async def play(
    directory: Path,
    unit: UnitControl,
    act: Play,
    *,
    settings: str = "",
    speed: float = 20,
    **knobs: Any,
) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    print(f"SEED={seed}")
    async with open_mpesa_shop(directory, unit, speed=speed, settings=settings, **knobs) as shop:
        till = shop.till()
        (merchant,) = (m for m in shop.fake.merchants if m.shortcode == SHORTCODE)
        address = f"https://{RELAY_HOST}/shop-1/{{}}/{c2b_token(PASSKEY, SHORTCODE)}"
        merchant.registered = {
            "ResponseType": "Completed", "ConfirmationURL": address.format("c"), "ValidationURL": address.format("v"),
        }  # fmt: skip
        async with till.screen() as screen:
            stage = Stage(shop, till, screen, random.Random(seed))
            await act(stage)
            await stage.books_agree()


def pushed(stage: Stage, case: Case) -> bool:
    """M-Pesa has this push: the phone rings, or will."""
    return any(push.phone == case.phone for push in stage.shop.fake.pushes)


C2B = "c2b = true\nquery_every_s = 1\n"
PULL = C2B + "pull = true\npull_margin_minutes = 1\n"

# Their ends are told some seconds after the push: one kill is in the middle of all.
TOLD = (
    "cancel", "wrong_pin", "funds", "unreachable", "expired", "busy_async", "rule_limited",
    "product_mismatch", "operator_missing", "push_9999", "lost_callback_paid", "lost_callback_paid_c2b",
    "lost_callback_unpaid", "contradiction_cb_ok_query_failed", "contradiction_cb_failed_query_ok",
    "dup_callback", "dup_conflicting_callback", "wrong_amount", "malformed_callback", "types_variant",
    "too_early_query", "query_html_503",
)  # fmt: skip
SELLING = ("ok", "c2b_and_callback", "restart_mid_flight")


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


async def test_rows_that_take_minutes(unit: UnitControl, tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        fake, shop = stage.shop.fake, stage.shop
        names = (
            "everything_silent_paid", "everything_silent_unpaid", "late_success",
            "late_success_after_failed_query", "push_timeout_prompted", "push_timeout_not_prompted",
            "spoofed_callback", "rate_limited_query",
        )  # fmt: skip
        for name in names:
            case = stage.case(name)
            if name == "push_timeout_prompted":
                fake.script(name, phone=case.phone, done_s=60)
            if name == "late_success_after_failed_query":
                # A soft code counts when it was heard twice: the callback comes after that.
                fake.script(name, phone=case.phone, callbacks=[{"atS": 200}])
            if name == "rate_limited_query":
                fake.script(name, phone=case.phone, done_s=45)
            await stage.ask(case)
        cases = list(stage.cases.values())
        await fake.wait_for(
            lambda: len({e.get("phone") for e in fake.entries("push")}) == len(cases), 20
        )
        await asyncio.sleep(stage.chance.uniform(0, 1.5))
        await stage.kill(*cases)
        await stage.start()
        # The cashier of late_success takes cash when nobody has said anything.
        late = stage.cases["late_success"]
        await shop.until_money(late.payment_id, "UNKNOWN", "PAID")
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
        tmp_path, unit, act, settings=PULL + "answer_timeout_s = 1.5\n", speed=20, pull_lag_s=0
    )


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
