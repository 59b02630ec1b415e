"""What a sale with an open prompt, or money of its own, lets happen beside it: another request too soon, tills
that send no key, tills that only print, tills that come back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.payments import checkout
from hw_fakes.daraja import FakeDaraja
from hw_fakes.legacy_till import slips
from hw_fakes.legacy_till.peer import FakeLegacyTill
from hw_fakes.legacy_till.slips import TillSale
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.support.capture import PATIENT_S, PATTERNS, until_ready, until_slips
from tests.support.clock import FakeClock
from tests.support.paid_shop import (
    PEOPLE,
    PaidShop,
    a_paid_sale,
    a_phone,
    mpesa_settings,
    mpesa_tender,
    paid_shop,
    problem,
    tell_the_unit,
)
from tests.support.shop import TOKENS, a_sale, open_shop

SHORT = {"wait_s": 0.5}


async def pushed(shop: PaidShop, sale_ref: str, phone: str, amount: str = "297") -> str:
    body = {"saleRef": sale_ref, "amount": amount, "phone": phone}
    reply = await shop.till().request("POST", "/v1/payments/mpesa", key="push", json=body)
    assert reply.status == 202, reply.json
    await shop.asked(phone)
    return str(reply.json["paymentId"])


# --- too soon -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "wait_s"), [("120.00", 60), ("297.00", 120)])
async def test_a_phone_that_was_just_asked_is_asked_by_the_sale_when_its_till_says_so(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch, before: str, wait_s: int
) -> None:
    """M-Pesa wants 60 s between two requests, and two minutes for the same amount."""
    # So that a look at all open sales comes again and again.
    monkeypatch.setattr(checkout, "SWEEP_S", 5.0)
    mpesa, phone, clock = {"same_phone_s": 60}, a_phone(), FakeClock()
    await tell_the_unit(unit, clock)
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT, mpesa=mpesa, clock=clock) as shop:
        earlier = a_paid_sale(mpesa_tender(phone, before), {"method": "CASH", "amount": "297.00"})
        await shop.waiting("key-1", earlier, "till-2")
        await shop.answer(phone, "cancel")
        await shop.until_checkout("key-1", "CLOSED", "till-2")
        sale = a_paid_sale(mpesa_tender(phone))
        early = await shop.sell("key-1", sale)
        assert problem(early) == (429, "PAYMENT_TOO_SOON")
        assert early.json["signed"] == "no" and "Ask again in" in early.json["detail"]
        assert wait_s - 2 <= int(early.headers["Retry-After"]) <= wait_s + 1
        row = await shop.checkout("key-1")
        assert (row.state, row.id) == ("COLLECTING", early.json["checkoutId"])
        # The time is over, and the cashier may have taken cash: nothing rings by itself.
        await clock.advance(seconds=wait_s + 5)
        assert len(shop.fake.pushes) == 1
        # The same key asks, once.
        await shop.waiting("key-1", sale)
        await shop.answer(phone)
        await shop.until_checkout("key-1", "SIGNED")
        assert (await shop.sell("key-1", sale)).status == 201
        assert len(shop.fake.pushes) == 2
    assert len(await unit.journal()) == 1


async def test_a_second_part_that_is_too_soon_keeps_the_first_ones_money_usable(
    unit: UnitControl, shop_dir: Path
) -> None:
    one, two, mpesa = a_phone(), a_phone(), {"same_phone_s": 60}
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT, mpesa=mpesa) as shop:
        earlier = a_paid_sale(mpesa_tender(two))
        await shop.waiting("key-1", earlier, "till-2")
        await shop.answer(two, "cancel")
        await shop.until_checkout("key-1", "CLOSED", "till-2")
        sale = a_paid_sale(mpesa_tender(one, "150.00"), mpesa_tender(two, "147.00"))
        first = await shop.waiting("key-1", sale)
        await shop.answer(one)
        await shop.until_payment(first.json["payments"][0]["paymentId"], money="PAID")
        early = await shop.sell("key-1", sale)
        assert problem(early) == (429, "PAYMENT_TOO_SOON"), early.json
        # The second customer pays cash instead.
        path = f"/v1/checkouts/{early.json['checkoutId']}/close"
        body = {"outcome": "PAID_OTHERWISE"}
        closed = await shop.till().request("POST", path, json=body)
        assert closed.status == 200, closed.json
        (reuse,) = closed.json["reuse"]
        tenders = [reuse, {"method": "CASH", "amount": "147.00"}]
        signed = await shop.sell(
            "key-2", a_sale(tillReceiptNo=sale["tillReceiptNo"], tenders=tenders)
        )
        assert signed.status == 201, signed.json
    assert len(await unit.journal()) == 1


# --- tills without keys ---------------------------------------------------------------------------


async def test_a_keyless_sale_is_guarded_as_a_keyed_one(unit: UnitControl, shop_dir: Path) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE) as shop:
        phone, sale = a_phone(), a_sale()
        name = await pushed(shop, sale["tillReceiptNo"], phone)
        rings = await shop.till().sell(None, sale)
        assert problem(rings) == (409, "PAYMENT_OPEN")
        assert (rings.json["signed"], rings.json["payment"]["paymentId"]) == ("no", name)
        await shop.answer(phone)
        await shop.until_payment(name, money="PAID")
        # The money is there, and the sale says cash: somebody would forget it.
        unused = await shop.till().sell(None, sale)
        assert problem(unused) == (409, "PAYMENT_OPEN")
        header = {"Settle-Otherwise": name}
        settled = await shop.till().request("POST", "/v1/invoices", json=sale, headers=header)
        assert problem(settled) == (409, "PAYMENT_SETTLED")
        assert await unit.journal() == []
        paid = {**sale, "payments": [{"method": "MOBILE_MONEY", "amount": "297.00"}]}
        signed = await shop.till().sell(None, paid)
        assert signed.status == 201, signed.json
        row = await shop.payment(name)
        assert (row.tender, row.invoice_id) == ("COMPLETED_BY_MPESA", signed.json["invoiceId"])
    assert len(await unit.journal()) == 1


async def test_a_keyless_sale_that_is_settled_otherwise_is_signed_and_late_money_goes_back(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE) as shop:
        phone, sale = a_phone(), a_sale()
        name = await pushed(shop, sale["tillReceiptNo"], phone)
        assert problem(await shop.till().sell(None, sale)) == (409, "PAYMENT_OPEN")
        header = {"Settle-Otherwise": name}
        cash = await shop.till().request("POST", "/v1/invoices", json=sale, headers=header)
        assert cash.status == 201, cash.json
        assert problem(await shop.till().sell(None, sale)) == (409, "LIKELY_REPEAT")
        await shop.answer(phone)
        late = await shop.until_payment(name, money="PAID")
        assert late.tender == "REFUND_DUE"
    assert len(await unit.journal()) == 1


# --- tills that only print ------------------------------------------------------------------------


async def test_a_captured_slip_is_guarded_as_a_sale_with_a_key(
    unit: UnitControl, shop_dir: Path
) -> None:
    sale = TillSale()
    async with (
        FakeLegacyTill(wait_s=PATIENT_S) as till,
        FakePrinter() as printer,
        FakeDaraja(time_scale=0.01, **PEOPLE) as fake,
    ):
        settings = mpesa_settings(
            shop_dir, unit.url, fake,
            tills=[{"id": name, "printer": "counter"} for name in TOKENS],
            printers={
                "counter": {"port": printer.device_path, "baud": 115200, "columns": 42}
            },
            printing={"stale_minutes": 0},
            captures={
                "old": {"port": till.device_path, "till": "till-1", "silence_s": 0, **PATTERNS}
            },
        )  # fmt: skip
        async with open_shop(settings) as opened:
            await until_ready(till)
            shop, phone = PaidShop(opened, fake), a_phone()
            name = await pushed(shop, sale.number, phone)
            await till.print_slip(slips.plain(sale))
            (row,) = await until_slips(opened, "UNREAD")
            assert (row.reason or "").startswith("PAYMENT_OPEN")
            assert await unit.journal() == []
            # The money is there, and the slip says cash.
            await shop.answer(phone)
            await shop.until_payment(name, money="PAID")
            await till.print_slip(slips.plain(sale))
            rows = await until_slips(opened, "DISMISSED", "UNREAD")
            assert (rows[1].reason or "").startswith("PAYMENT_OPEN")
            assert await unit.journal() == []
            # Closed by the till, printed once more: signed, and the money goes back.
            path = f"/v1/payments/{name}/close"
            body = {"outcome": "PAID_OTHERWISE"}
            closed = await shop.till().request("POST", path, json=body)
            assert (closed.status, closed.json["tender"]) == (200, "REFUND_DUE"), closed.json
            await till.print_slip(slips.plain(sale))
            await until_slips(opened, "DISMISSED", "DISMISSED", "SIGNED")
    assert len(await unit.journal()) == 1


# --- tills that come back -------------------------------------------------------------------------


def queries(fake: FakeDaraja) -> list[dict[str, Any]]:
    return [entry for entry in fake.journal if entry["what"] == "query"]


async def test_a_till_that_comes_back_makes_the_gateway_ask_at_once_within_the_limit(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = FakeClock()
    await tell_the_unit(unit, clock)
    mpesa = {"query_every_s": 12}
    knobs = {**PEOPLE, "query_limited": False}
    async with paid_shop(unit, shop_dir, clock=clock, knobs=knobs, api=SHORT, mpesa=mpesa) as shop:
        await clock.advance(seconds=20)
        phone = a_phone()
        reply = await shop.waiting("key-1", a_paid_sale(mpesa_tender(phone)))
        await shop.until_payment(reply.json["payments"][0]["paymentId"], money="WAITING")
        assert queries(shop.fake) == []

        async def comes_back(till: str) -> None:
            client = shop.till(till)
            url, headers = f"{client.url}/v1/events", client.headers
            async with shop.shop.session.get(url, headers=headers) as stream:
                assert (await stream.content.readline()).startswith(b"retry")

        # Another till's return is no news of this one's.
        await comes_back("till-2")
        await comes_back("till-1")
        # The clock stands still: it is not the schedule that asks.
        await shop.fake.wait_for(lambda: len(queries(shop.fake)) == 1, 30)
        # A till whose line flaps asks no faster than the limit.
        for _ in range(5):
            await comes_back("till-1")
        asked_at = clock.boottime_ns()
        await clock.advance(seconds=11)
        assert len(queries(shop.fake)) == 1
        async with asyncio.timeout(30):
            while len(queries(shop.fake)) < 2:
                # The answer and the next round take real time, in which the clock goes on here.
                await clock.advance(seconds=1)
                await shop.shop.gateway.db.write(lambda conn: None)
        assert clock.boottime_ns() - asked_at >= 12e9
