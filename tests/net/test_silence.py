"""The far side falls silent in the middle of something: no refusal, no reset, the packets are gone. Selling goes
on meanwhile, nothing happens twice when they come through again, and the status says what is wrong."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway.clock import SystemClock
from gateway.domain.outcome import Signed
from gateway.vscu.client import UnitClient
from hw_fakes.vscu.unit import BRANCH, PIN
from tests.support import netns
from tests.support.netshop import NetShop, net_shop
from tests.support.relay import until
from tests.support.shop import a_sale

CEILING = "[ceiling]\nlimit_hours = 0.004\ncontact_interval_s = 0.5\nwarn_percent = [50]\n"


async def sell(shop: NetShop, *keys: str) -> None:
    for key in keys:
        reply = await shop.till().sell(key, a_sale())
        assert reply.status == 201, reply.json


async def test_the_cloud_falls_silent(tmp_path: Path) -> None:
    """First the requests are lost, then only the answers: what it had already is a duplicate to it."""
    async with net_shop(tmp_path, paid=False) as shop:
        await sell(shop, "one")
        await shop.until(lambda status: status["cloud"]["waiting"] == 0)
        shop.net.quiet(netns.CLOUD, back=False)
        await sell(shop, "two", "three")
        assert len(shop.cloud.records) == 1
        status = await shop.until(lambda status: status["cloud"]["problem"] is not None)
        assert status["cloud"]["problem"] == "the cloud did not answer in time"
        assert (status["cloud"]["waiting"], status["state"]) == (2, "ONLINE")
        shop.net.heard(netns.CLOUD)
        await shop.cloud.wait_for(3, 30)
        await shop.until(lambda status: status["cloud"]["ok"])

        # On the connection that is open: the record arrives, and nobody hears of it.
        shop.net.quiet(netns.CLOUD, there=False)
        await sell(shop, "four")
        await shop.cloud.wait_for(4, 30)
        await shop.until(lambda status: status["cloud"]["problem"] is not None)
        await sell(shop, "five")
        assert len(shop.cloud.records) == 4
        shop.net.heard(netns.CLOUD)
        await shop.cloud.wait_for(5, 30)
        await shop.until(lambda status: status["cloud"]["waiting"] == 0)
        stored = [each["invoiceId"] for each in shop.cloud.records]
        assert len(set(stored)) == 5
        assert shop.cloud.deliveries[stored[3]] > 1


async def test_mpesa_falls_silent(tmp_path: Path) -> None:
    """At the token, at the push, at the push's answer, at the query: one prompt each where there was one, and
    the money is found when the line is back."""
    # KRA is heard all the time: each time what M-Pesa was asked in vain is asked again.
    options = {"mpesa": "answer_timeout_s = 10\n", "extra": "[ceiling]\ncontact_interval_s = 0.5\n"}
    async with net_shop(tmp_path, module="tests.support.hasty", **options) as shop:
        fake, till = shop.daraja, shop.till()

        async def ask(name: str) -> str:
            reply = await till.push(name, name, "10.00", "254711000001")
            assert reply.status == 202, reply.json
            return str(reply.json["paymentId"])

        async def sold_before(ending: Coroutine[Any, Any, Any], key: str) -> Any:
            """A sale is signed while that is still waited for; then its end."""
            waited = asyncio.ensure_future(ending)
            await sell(shop, key)
            assert not waited.done()
            return await waited

        shop.net.quiet(netns.DARAJA, back=False)
        ended = await sold_before(shop.ends(await ask("token"), "REFUSED"), "token")
        assert (ended["reason"], ended["paid"]) == ("NOT_SENT", None)
        why = "no connection to M-Pesa (sandbox): nothing answers there"
        assert why in " ".join((await shop.status())["mpesa"]["problems"])
        shop.net.heard(netns.DARAJA)
        await shop.ends(await ask("well"), "PAID")
        assert not (await shop.status())["mpesa"]["problems"]

        # With a token in hand: no connection, so nothing can have rung.
        shop.net.quiet(netns.DARAJA, back=False)
        ended = await sold_before(shop.ends(await ask("push"), "REFUSED"), "push")
        assert ended["reason"] == "NOT_SENT"
        shop.net.heard(netns.DARAJA)
        assert len(fake.pushes) == 1

        # It arrives, and its answer does not; nor does what the relay has of it.
        shop.net.quiet(netns.RELAY, back=False)
        await shop.until(lambda status: "the relay does not answer" in status["mpesa"]["problems"])
        shop.doors["daraja"].answering.clear()
        payment = await ask("answer")
        await fake.wait_for(lambda: len(fake.pushes) == 2)
        shop.net.quiet(netns.DARAJA, back=False)
        await sold_before(shop.ends(payment, "SEND_UNKNOWN"), "answer")
        problems = (await shop.status())["mpesa"]["problems"]
        assert "M-Pesa (sandbox) did not answer in time" in problems
        shop.doors["daraja"].answering.set()
        shop.net.heard(netns.DARAJA)
        shop.net.heard(netns.RELAY)
        await shop.ends(payment, "PAID")
        assert len(fake.pushes) == 2

        # No callback ever, and silence instead of the query's answer.
        fake.script("lost_callback_paid")
        shop.doors["daraja"].answering.clear()
        payment = await ask("query")
        await fake.wait_for(lambda: len(fake.pushes) == 3)
        # The push's answer still comes, and nobody can ask after it.
        shop.net.quiet(netns.DARAJA, back=False)
        shop.doors["daraja"].answering.set()
        await until(lambda: shop.daemon.log().count("push.answered") == 4)
        checked = till.request("POST", f"/v1/payments/{payment}/check")
        assert (await sold_before(checked, "query")).json["state"] == "WAITING"
        # M-Pesa's limit may have kept that question from leaving; the next one meets the silence.
        await shop.until(lambda status: why in status["mpesa"]["problems"])
        shop.net.heard(netns.DARAJA)
        await shop.ends(payment, "PAID")
        assert len(fake.pushes) == 3
        assert sum(each.amount for each in fake.payments) == 30


async def test_kra_falls_silent(tmp_path: Path) -> None:
    """The unit waits for KRA in vain, longer than it is given for a sign of life: it is not sick, it signs until
    the ceiling, whose clock counts meanwhile, and again when KRA is heard."""
    async with net_shop(
        tmp_path, paid=False, extra=CEILING, unit="probe_timeout_s = 0.2\n"
    ) as shop:
        await shop.daemon.unit.knobs(ceilingReading="off")
        await shop.until(lambda status: status["state"] == "ONLINE")
        before = len(shop.daemon.log())
        shop.net.quiet(netns.KRA)
        await sell(shop, "one")
        status = await shop.until(lambda status: status["state"] in ("OFFLINE", "WARNING"))
        assert status["sentence"].startswith("Selling without KRA")
        _counts_right(status)
        await shop.until(lambda status: status["state"] == "SUSPENDED")
        refused = await shop.till().sell("two", a_sale(tillReceiptNo="two"))
        assert (refused.status, refused.json["code"]) == (503, "SUSPENDED")
        shop.net.heard(netns.KRA)
        await shop.until(lambda status: status["state"] == "ONLINE")
        await sell(shop, "three")
        assert [entry["invcNo"] for entry in await shop.daemon.unit.journal()] == [1, 2]
        log = shop.daemon.log()
        # A contact that is late on a busy machine is a moment OFFLINE, too: before all this, or after it.
        told = re.findall(r"ceiling.changed state=(\w+)", log[before:])
        at = told.index("SUSPENDED")
        assert told[at - 2 : at + 1] == ["OFFLINE", "WARNING", "SUSPENDED"]
        assert "ONLINE" in told[at:]
        assert "unit.changed healthy=False" not in log[log.index("gateway.ready") :]


async def test_a_stop_waits_for_nobody_who_is_silent(tmp_path: Path) -> None:
    """KRA, the cloud, the relay and M-Pesa, all in the middle of something; and each would be given a minute."""
    patient = {"cloud": "timeout_s = 60", "mpesa": "answer_timeout_s = 60"}
    async with net_shop(tmp_path, extra=CEILING, **patient) as shop:
        await shop.until(lambda status: status["state"] == "ONLINE")
        for address in (netns.KRA, netns.CLOUD, netns.RELAY, netns.DARAJA):
            shop.net.quiet(address)
        await sell(shop, "one")
        await shop.until(lambda status: status["state"] != "ONLINE")
        payment = (await shop.till().push("push", "S-1", "10.00", "254711000001")).json
        assert (await shop.till().payment(payment["paymentId"]))["state"] == "NEW"
        assert not shop.cloud.records
        assert await shop.daemon.stop() == 0
        assert "loop.hangs" not in shop.daemon.log()
        for address in (netns.KRA, netns.CLOUD, netns.RELAY, netns.DARAJA):
            shop.net.heard(address)
        await shop.daemon.start()
        # It was asked of nobody, and no restart asks for it.
        await shop.ends(payment["paymentId"], "REFUSED")
        await shop.cloud.wait_for(1, 30)
        assert (await shop.status())["gateway"]["lastStop"] is None
        assert not shop.daraja.pushes


def _counts_right(status: dict[str, Any]) -> None:
    """What has gone by since KRA was heard and what is left make the limit, to the second of each."""
    ceiling = status["ceiling"]
    apart = datetime.fromisoformat(status["now"]) - datetime.fromisoformat(ceiling["lastContact"])
    assert abs(apart.total_seconds() + ceiling["secondsLeft"] - ceiling["limitSeconds"]) <= 2


async def test_questions_that_hang_leave_a_sale_its_connection() -> None:
    """Twenty tills ask KRA about a customer and hear nothing; a sale does not stand in their line."""
    hung, done = 0, asyncio.Event()

    async def unit(request: web.Request) -> web.Response:
        nonlocal hung
        if not request.path.endswith("saveSales"):
            hung += 1
            await done.wait()
        data = {
            "rcptNo": 1, "totRcptNo": 1, "intrlData": "I", "rcptSign": "S",
            "vsdcRcptPbctDate": "20261125101500",
        }  # fmt: skip
        return web.json_response({"resultCd": "000", "resultMsg": "", "data": data})

    app = web.Application()
    app.router.add_post("/{path:.*}", unit)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with UnitClient(
            base_url=url, pin=PIN, branch_id=BRANCH, clock=SystemClock()
        ) as client:
            asking = [asyncio.ensure_future(client.call("selectCustomer")) for _ in range(20)]
            await until(lambda: hung >= 4)
            assert isinstance(await client.send_sale(b"{}"), Signed)
            assert not any(task.done() for task in asking)
            done.set()
            await asyncio.gather(*asking)
    finally:
        await runner.cleanup()
