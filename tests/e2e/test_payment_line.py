"""The payments in a whole gateway: settings, the unit, the direct site, the status, and a till that listens."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gateway.domain.payment import Money, Tender
from hw_fakes.daraja import FakeDaraja
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import UnitControl
from tests.support.mpesa import answered, mpesa_settings
from tests.support.payments import PHONE, an_ask
from tests.support.shop import OpenShop, open_shop


async def until_money(shop: OpenShop, payment_id: str, money: Money) -> None:
    async with asyncio.timeout(60):
        while (await shop.gateway.payments.desk.row(payment_id)).money is not money:
            await asyncio.sleep(0.01)


async def test_a_shop_takes_mpesa_and_its_till_hears_of_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    port = free_port()
    hosts = {"relay.test": f"http://127.0.0.1:{port}"}
    direct = {"direct_host": "127.0.0.1", "direct_port": port}
    async with FakeDaraja(time_scale=0.01, hosts=hosts, prompt_life_s=1_000_000) as fake:
        settings = mpesa_settings(shop_dir, unit.url, fake, direct)
        async with open_shop(settings) as shop:
            status = (await shop.till().request("GET", "/v1/status")).json["mpesa"]
            assert (status["state"], status["environment"]) == ("ready", "sandbox")
            # The customer waits until the gateway has heard that the request was taken.
            fake.script("ok", by_person=True, query="pending")
            row = await shop.gateway.payments.desk.ask(an_ask(till_id="till-1"))
            await until_money(shop, row.id, Money.WAITING)
            await answered(fake, PHONE)
            await until_money(shop, row.id, Money.PAID)
            heard = await _states(shop, row.id)
            assert heard == ["NEW", "SENDING", "WAITING", "PAID"]
            # The order of money: nothing is owned yet, so the status counts it.
            status = (await shop.till().request("GET", "/v1/status")).json["mpesa"]
            assert status["moneyWithoutReceipt"] == 1
            after = await shop.gateway.payments.desk.row(row.id)
            assert after.tender is Tender.OPEN and after.receipt is not None


async def test_a_till_that_comes_back_has_its_open_payments_looked_at_at_once(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeDaraja(time_scale=0.01) as fake:
        async with open_shop(mpesa_settings(shop_dir, unit.url, fake)) as shop:
            fake.script("lost_callback_paid", done_s=1)
            row = await shop.gateway.payments.desk.ask(an_ask(till_id="till-1"))
            await until_money(shop, row.id, Money.WAITING)
            await fake.wait_for(lambda: bool(fake.payments), 30)
            # Long before the first look of the schedule.
            await shop.gateway.payments.desk.look_at_open("till-1")
            assert await _states(shop, row.id) == ["NEW", "SENDING", "WAITING", "PAID"]


async def _states(shop: OpenShop, payment_id: str) -> list[str]:
    """What the till hears of one payment on its stream, up to PAID."""
    heard: list[str] = []
    url = f"{shop.gateway.url}/v1/events"
    headers = {**shop.till().headers, "Last-Event-ID": "0"}
    async with asyncio.timeout(60), shop.session.get(url, headers=headers) as stream:
        async for line in stream.content:
            if not line.startswith(b"data:"):
                continue
            data = json.loads(line[5:])
            if data.get("paymentId") == payment_id:
                heard.append(data["state"])
            if heard and heard[-1] == "PAID":
                return heard
    return heard
