"""A till's webhook: in order, signed, at least once, over a till that is away and a gateway that restarts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from gateway.payments.webhooks import signature
from hw_fakes.daraja import FakeDaraja
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.paid_shop import (
    PaidShop,
    a_paid_sale,
    a_phone,
    mpesa_settings,
    mpesa_tender,
    tell_the_unit,
)
from tests.support.shop import TOKENS, open_shop


class Listener:
    """A till's own little server; `status` is what it says to every event."""

    def __init__(self) -> None:
        self.status = 200
        self.tries = 0
        self.taken: list[dict[str, object]] = []
        self.forged = 0
        self.url = ""
        self._news = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        expected = signature(TOKENS["till-1"], request.headers["X-Time"], body)
        self.forged += expected != request.headers["X-Signature"]
        self.tries += 1
        if self.status == 200:
            self.taken.append(json.loads(body))
        self._news.set()
        return web.Response(status=self.status)

    async def until(self, kind: str, state: str) -> None:
        async with asyncio.timeout(30):
            while not any(
                one["kind"] == kind and one["data"]["state"] == state  # type: ignore[index]
                for one in self.taken
            ):
                self._news.clear()
                await self._news.wait()

    async def until_tried(self) -> None:
        async with asyncio.timeout(30):
            while self.tries == 0:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    app = web.Application()
    app.router.add_post("/hook", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield made
    finally:
        await runner.cleanup()


async def test_every_change_comes_signed_in_order_and_none_is_lost_in_a_restart(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with listener() as till, FakeDaraja(time_scale=0.01) as fake:
        settings = mpesa_settings(
            shop_dir, unit.url, fake, mpesa={"webhooks": {"till-1": till.url}}
        )
        till.status = 503
        async with open_shop(settings) as opened:
            shop = PaidShop(opened, fake)
            # A till that is away holds up no sale.
            reply = await shop.till().sell("k1", a_paid_sale(mpesa_tender(a_phone())))
            assert reply.status == 201, reply.json
            other = await shop.till("till-2").sell("k1", a_paid_sale(mpesa_tender(a_phone())))
            assert other.status == 201, other.json
            await till.until_tried()
        assert till.taken == []
        till.status = 200
        async with open_shop(settings):
            await till.until("checkout.changed", "SIGNED")
    assert till.forged == 0
    numbers = [one["id"] for one in till.taken]
    assert numbers == sorted(set(numbers))  # type: ignore[type-var]
    told = [(one["kind"], one["data"]["state"]) for one in till.taken]  # type: ignore[index]
    assert [state for kind, state in told if kind == "checkout.changed"] == [
        "COLLECTING",
        "READY",
        "SIGNED",
    ]
    assert [state for kind, state in told if kind == "payment.changed"] == [
        "NEW",
        "SENDING",
        "WAITING",
        "PAID",
        "PAID",  # COMPLETED_BY_MPESA
    ]
    assert {one["data"]["till"] for one in till.taken} == {"till-1"}  # type: ignore[index]


async def test_news_that_a_till_never_took_is_on_the_page(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with listener() as till, FakeDaraja(time_scale=0.01) as fake:
        till.status = 503
        mpesa = {"webhooks": {"till-1": till.url}}
        settings = mpesa_settings(shop_dir, unit.url, fake, mpesa=mpesa)
        clock = FakeClock()
        await tell_the_unit(unit, clock)
        async with open_shop(settings, clock) as opened:
            shop = PaidShop(opened, fake)
            reply = await shop.till().sell("k1", a_paid_sale(mpesa_tender(a_phone())))
            assert reply.status == 201, reply.json
            await till.until_tried()
            page = (await shop.till().request("GET", "/payments")).body.decode()
            assert "was not told" not in page
            clock.pass_time(hours=24)

            async def given_up() -> bool:
                await clock.advance(seconds=60)
                return bool(await shop.events("webhook.given_up"))

            await shop.until(given_up)
            page = (await shop.till().request("GET", "/payments")).body.decode()
            assert "till-1 was not told" in page
