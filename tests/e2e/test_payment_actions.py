"""What people do on a payment's page: each button by whom it is for, and what it changes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from gateway.domain.payment import Money, Tender
from gateway.payments.desk import Ask
from gateway.store import payments
from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import UnitControl
from tests.e2e.test_payment_pages import UNKNOWN, Story, everything, fits, paid, the_row
from tests.e2e.test_payment_report import ON
from tests.support.browser import PHONE
from tests.support.mpesa import answered
from tests.support.shop import (
    TECHNICIANS,
    TOKENS,
    OpenShop,
    Reply,
    a_sale,
    make_settings,
    open_shop,
)

MANAGER = TECHNICIANS["wanjiru"]
TILL = TOKENS["till-1"]


async def press(shop: OpenShop, payment_id: str, button: str, code: str, **more: str) -> Reply:
    data = {"do": button, "code": code, **more}
    return await shop.till().request(
        "POST", f"/payments/{payment_id}", data=data, allow_redirects=False
    )


async def test_each_button_does_its_own_thing(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        told = Story(shop)
        found = await everything(told)

        async def now(name: str) -> tuple[Money, Tender]:
            row = await the_row(shop, found[name])
            return row.money, row.tender

        assert (await press(shop, found["waiting"], "other", TILL)).status == 303
        assert await now("waiting") == (Money.WAITING, Tender.COMPLETED_OTHERWISE)
        assert (await press(shop, found["cancelled"], "abandoned", TILL)).status == 303
        assert await now("cancelled") == (Money.NOT_PAID, Tender.ABANDONED)
        reason = {"reason": "not in the statement"}
        assert (await press(shop, found["unknown"], "not-paid", MANAGER, **reason)).status == 303
        assert await now("unknown") == (Money.NOT_PAID, Tender.OPEN)
        assert (await press(shop, found["other amount"], "accept", MANAGER, **reason)).status == 303
        assert await now("other amount") == (Money.PAID, Tender.OPEN)
        assert (await press(shop, found["late"], "by-hand", MANAGER, **reason)).status == 303
        assert (await now("late"))[1] is Tender.REFUNDED
        claim = {"till": "till-2", "saleRef": "POS-77"}
        assert (await press(shop, found["nobody's"], "claim", TILL, **claim)).status == 303
        claimed = await the_row(shop, found["nobody's"])
        assert (claimed.till_id, claimed.sale_ref) == ("till-2", "POS-77")
        # Late money for what was given up is on its way back, and the page says who did what.
        await told.ledger.hear(found["cancelled"], paid("UKP1AB2CD8"))
        assert await now("cancelled") == (Money.PAID, Tender.REFUND_DUE)
        details = await press(shop, found["late"], "details", MANAGER)
        assert b"wanjiru: not in the statement" in details.body
        open_page = await shop.till().request("GET", f"/payments/{found['late']}")
        assert b"wanjiru" not in open_page.body


@pytest.mark.parametrize(
    "button", ["accept", "not-paid", "reversal", "by-hand", "went-back", "details"]
)
async def test_what_moves_money_takes_a_technicians_code(
    unit: UnitControl, shop_dir: Path, button: str
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        payment_id = await Story(shop).push(paid("UKP1AB2CD3", 40_000))
        before = await the_row(shop, payment_id)
        for code in (TILL, "nobody's", ""):
            reply = await press(shop, payment_id, button, code, reason="because I say so")
            assert reply.status == 401
            assert b"technician" in reply.body
        assert await the_row(shop, payment_id) == before


async def test_a_mistake_comes_back_on_the_page(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        told = Story(shop)
        review, unknown = await told.push(paid("UKP1AB2CD3", 40_000)), await told.push(UNKNOWN)
        nobodys = await told.direct("UKP1AB2CD6", 1000)
        cases: list[tuple[str, str, str, dict[str, str], int, bytes]] = [
            (review, "accept", MANAGER, {}, 422, b"Say why"),
            (review, "not-paid", MANAGER, {"reason": "looked it up"}, 409, b"Look at it again"),
            (review, "dance", MANAGER, {}, 422, b"Say what is to be done"),
            (nobodys, "claim", TILL, {"till": "till-99", "saleRef": "1"}, 422, b"no till"),
            # Another till's payment.
            (unknown, "other", TOKENS["till-2"], {}, 401, b"This payment is till-1"),
        ]
        for payment_id, button, code, more, status, says in cases:
            before = await the_row(shop, payment_id)
            reply = await press(shop, payment_id, button, code, **more)
            assert (reply.status, says in reply.body) == (status, True), (button, reply.body[-800:])
            assert await the_row(shop, payment_id) == before


def with_daraja(shop_dir: Path, unit: UnitControl, daraja: FakeDaraja, port: int) -> Any:
    return make_settings(
        shop_dir,
        unit.url,
        mpesa={
            "environment": "sandbox", "base_url": daraja.url, "shortcode": "174379",
            "callback_url": "https://shop.test", "direct_host": "127.0.0.1", "direct_port": port,
            "query_every_s": 0.2, "same_phone_s": 0,
        },
        mpesa_consumer_key=KEY, mpesa_consumer_secret=SECRET, mpesa_passkey=PASSKEY,
    )  # fmt: skip


async def test_a_customer_pays_while_the_page_is_open(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    port = free_port()
    hosts = {"shop.test": f"http://127.0.0.1:{port}"}
    async with FakeDaraja(time_scale=0.05, hosts=hosts) as daraja:
        # Nobody's prompt dies of age here, and it is the callback that tells, however slow the page is.
        daraja.script("phone", query="pending")
        daraja.turn(prompt_life_s=100_000)
        async with open_shop(with_daraja(shop_dir, unit, daraja, port)) as shop:
            ask = Ask("till-1", "key", "0" * 64, "POS-1", 45_000, "254708374149")
            row = await shop.gateway.payments.desk.ask(ask)
            page = await browser.new_page(viewport=PHONE)
            await page.goto(f"{shop.gateway.url}/payments/{row.id}")
            await page.wait_for_selector("h1:has-text('WAITING')")
            # What the cashier types is not lost when the page follows an event.
            code = page.locator("form:has(button[value=check]) input[name=code]")
            await code.fill(TILL)
            await answered(daraja, "254708374149")
            await page.wait_for_selector("h1:has-text('PAID')")
            assert await code.input_value() == TILL
            assert "M-Pesa's message" in await page.inner_text("main")
            await fits(page)
            stored = await shop.gateway.db.read(lambda conn: payments.by_id(conn, row.id))
            assert stored is not None
            assert stored.receipt is not None
            assert stored.receipt in await page.inner_text("main")
            await page.goto(shop.gateway.url + "/")
            assert "1 paid without a receipt" in await page.inner_text("main")
            await page.close()


async def test_the_status_page_says_why_mpesa_does_not_work(
    unit: UnitControl, shop_dir: Path
) -> None:
    port = free_port()
    async with FakeDaraja(time_scale=0.05, secret="of-another-app") as daraja:
        async with open_shop(with_daraja(shop_dir, unit, daraja, port)) as shop:
            ask = Ask("till-1", "key", "0" * 64, "POS-1", 45_000, "254708374149")
            row = await shop.gateway.payments.desk.ask(ask)
            async with asyncio.timeout(30):
                while (await the_row(shop, row.id)).money is not Money.REFUSED:
                    await asyncio.sleep(0.02)
            status = (await shop.till().request("GET", "/v1/status")).json["mpesa"]
            assert status["state"] == "problem"
            assert "set-up" in status["problems"][0]
            metrics = (await shop.till().request("GET", "/metrics")).body
            assert b'pos_gateway_mpesa_state{state="problem"} 1' in metrics
            page = (await shop.till().request("GET", "/")).body
            assert b"set-up" in page


async def test_a_receipt_without_money_is_settled_by_a_technician(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url, **ON)) as shop:
        till = shop.till()
        phone = {
            "payments": [{"method": "MOBILE_MONEY", "amount": "297.00", "reference": "UKP1AB2CD3"}]
        }
        sold = await till.sell("one", a_sale(**phone))
        path = f"/invoices/{sold.json['invoiceId']}"
        assert b"no money known" in (await till.request("GET", path)).body
        said = {"reason": "in the statement of the old till"}
        refused = await till.request("POST", f"{path}/unpaid", data={**said, "code": TILL})
        assert refused.status == 401
        again = await till.request("POST", f"{path}/unpaid", data={"code": MANAGER})
        assert (again.status, b"Say why" in again.body) == (422, True)
        done = await till.request("POST", f"{path}/unpaid", data={**said, "code": MANAGER})
        assert b"settled by wanjiru: in the statement" in done.body
        status = (await till.request("GET", "/v1/status")).json["mpesa"]
        assert status["receiptsWithoutMoney"] == 0
