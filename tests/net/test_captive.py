"""A hotel's login page in everybody's place: each answers 200 with HTML, and nothing counts as delivered or paid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.support.netshop import net_shop
from tests.support.shop import a_sale

PAGE = "<html><title>Welcome</title><form>Log in to use the Wi-Fi</form></html>"
# Everybody answers here, if not the right one: nothing is to be given up because it is slow.
PATIENT = {"cloud": "timeout_s = 30", "mpesa": "answer_timeout_s = 30"}


@asynccontextmanager
async def portal() -> AsyncIterator[tuple[str, int]]:
    """(address, port) of a server that gives its page to whatever is asked."""
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0]
    finally:
        await runner.cleanup()


async def test_a_login_page_is_nobody(tmp_path: Path) -> None:
    async with (
        net_shop(tmp_path, module="tests.support.hasty", **PATIENT) as shop,
        portal() as page,
    ):
        till = shop.till()
        really = {name: shop.doors[name].target for name in ("cloud", "daraja", "relay")}
        await shop.doors["daraja"].lead(*page)
        token = await till.push("token", "S-0", "10.00", "254711000001")
        assert (await shop.ends(token.json["paymentId"], "REFUSED"))["reason"] == "NOT_SENT"
        why = "M-Pesa (sandbox) answered without an access token that can be used"
        assert why in " ".join((await shop.status())["mpesa"]["problems"])
        await shop.doors["daraja"].lead(*really["daraja"])
        paid = await till.push("well", "S-0", "10.00", "254711000001")
        await shop.ends(paid.json["paymentId"], "PAID")
        for name in really:
            await shop.doors[name].lead(*page)
        assert (await till.sell("one", a_sale())).status == 201
        # The page cannot show the cloud's certificate.
        why = (
            "no connection to the cloud: its certificate is not believed, or something else answers "
            "in its place"
        )
        status = await shop.until(
            lambda status: (
                status["cloud"]["problem"] == why
                and "what answered is not the relay" in status["mpesa"]["problems"]
            )
        )
        assert (status["cloud"]["waiting"], status["state"]) == (1, "ONLINE")
        payment = (await till.push("page", "S-1", "10.00", "254711000002")).json["paymentId"]
        ended = await shop.ends(payment, "SEND_UNKNOWN")
        assert ended["paid"] is None
        checked = await till.request("POST", f"/v1/payments/{payment}/check")
        assert checked.json["state"] == "SEND_UNKNOWN"
        assert len(shop.daraja.pushes) == 1
        for name, target in really.items():
            await shop.doors[name].lead(*target)
        await shop.cloud.wait_for(1, 30)
        status = await shop.until(
            lambda status: status["cloud"]["ok"] and not status["mpesa"]["problems"]
        )
        assert set(shop.cloud.deliveries.values()) == {1}
        # What nobody can know is still not said to be paid, and was not sent again by itself.
        assert (await till.payment(payment))["state"] == "SEND_UNKNOWN"
        assert len(shop.daraja.pushes) == 1
