"""Names that cannot be looked up: no name server, one that swallows questions, one that says no."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

from tests.support import netns
from tests.support.names import NXDOMAIN, SERVFAIL, FakeNames
from tests.support.netshop import NAMES, net_shop
from tests.support.relay import until
from tests.support.shop import TOKENS, a_sale

# A look-up that nobody answers takes the C library 5 times 30 seconds: longer than any test.
SWALLOWED = f"nameserver {netns.NAMES}\noptions timeout:30 attempts:5\n"
FOUND = f"nameserver {netns.NAMES}\n"
NO_SERVER = "its name cannot be looked up (no name server answers)"
NO_NAME = "there is no such name"


async def test_look_ups_that_hang_starve_nothing_and_hold_up_no_stop(tmp_path: Path) -> None:
    """Eleven names at once, more than the loop has threads of its own: a backup, which needs one, is made
    all the same, and a stop waits for none of them."""
    tills = list(TOKENS)
    hooks = {till: f"http://{till}.test/hook" for till in tills}
    lines = "".join(f'{till} = "{url}"\n' for till, url in hooks.items())
    # An operator's own word, for look-ups that last.
    env = {"RES_OPTIONS": "timeout:30 attempts:5"}
    extra = f"[mpesa.webhooks]\n{lines}[backup]\nevery_hours = 0.0003\n"
    async with (
        net_shop(tmp_path, by_name=True, resolv=SWALLOWED, extra=extra, env=env) as shop,
        FakeNames(shop.net.world, netns.NAMES) as names,
    ):
        names.silent = True
        assert (await shop.till().sell("one", a_sale())).status == 201
        asked = [
            shop.till(till).push(till, f"sale of {till}", "10.00", f"25471100000{at}")
            for at, till in enumerate(tills)
        ]
        assert {reply.status for reply in await asyncio.gather(*asked)} == {202}
        # Each push ends as not sent, and each till's webhook is to be told so.
        wanted = {*NAMES, *(f"{till}.test" for till in tills)} - {"kra.test"}
        await until(lambda: wanted <= set(names.asked))
        made = (await shop.status())["backup"]["last"]
        assert (await shop.till().sell("two", a_sale())).status == 201
        await shop.until(lambda status: status["backup"]["last"] not in (None, made))
        why = f"no connection to the cloud: {NO_SERVER}"
        await shop.until(lambda status: status["cloud"]["problem"] == why)
        assert await shop.daemon.stop() == 0
        assert "loop.hangs" not in shop.daemon.log()
        # Nobody asked a second time while the first look-up was still on its way.
        assert max(names.asked.values()) <= 2, names.asked


async def test_what_is_wrong_with_the_names_is_said_and_ends_by_itself(tmp_path: Path) -> None:
    """Nobody at the name server's address, then NXDOMAIN, then SERVFAIL, then the names."""
    # The name server is in this process: a look-up waits for it as long as it takes to get to it.
    patient = {"cloud": "timeout_s = 30", "mpesa": "answer_timeout_s = 30"}
    async with net_shop(
        tmp_path, by_name=True, resolv=FOUND, module="tests.support.hasty",
        env={"RES_OPTIONS": "timeout:10 attempts:2"}, **patient,
    ) as shop:  # fmt: skip
        till = shop.till()
        paid, numbers = shop.ends, itertools.count(1)

        async def said(why: str, number: int) -> None:
            assert (await till.sell(f"sale-{number}", a_sale())).status == 201
            status = await shop.until(
                lambda status: (
                    status["cloud"]["problem"] == f"no connection to the cloud: {why}"
                    and f"no connection to the relay: {why}" in status["mpesa"]["problems"]
                )
            )
            assert status["cloud"]["waiting"] == number
            # A question that was on its way before is answered as before.
            await until(lambda: refused_because(f"no connection to M-Pesa (sandbox): {why}"))

        async def refused_because(why: str) -> bool:
            push = await till.push(f"push-{next(numbers)}", "S-1", "10.00", "254711000001")
            assert (await paid(push.json["paymentId"], "REFUSED"))["reason"] == "NOT_SENT"
            return why in " ".join((await shop.status())["mpesa"]["problems"])

        await said(NO_SERVER, 1)
        async with FakeNames(shop.net.world, netns.NAMES, NAMES) as names:
            names.code = NXDOMAIN
            await said(NO_NAME, 2)
            names.code = SERVFAIL
            await said(NO_SERVER, 3)
            assert not shop.daraja.pushes
            names.code = 0
            await shop.cloud.wait_for(3, 30)
            push = await till.push("push", "S-1", "10.00", "254711000001")
            await shop.daraja.settled()
            await paid(push.json["paymentId"], "PAID")
            status = await shop.until(
                lambda status: status["cloud"]["ok"] and not status["mpesa"]["problems"]
            )
            assert status["cloud"]["waiting"] == 0
        assert set(shop.cloud.deliveries.values()) == {1}
        assert len(shop.daraja.pushes) == 1


async def test_a_unit_that_looks_kra_up_in_vain_signs(tmp_path: Path) -> None:
    """KRA's JAR asks the C library for a name and waits before it signs: some seconds, whatever the machine's
    own resolver would take."""
    # Java would know the name for half a minute more.
    options = {"unit": 'jvm_options = ["-Dsun.net.inetaddr.ttl=0"]\n', "kra_by_name": True}
    async with (
        net_shop(tmp_path, paid=False, resolv=SWALLOWED, start=False, **options) as shop,
        FakeNames(shop.net.world, netns.NAMES, NAMES) as names,
        shop.daemon,
    ):
        assert (await shop.till().sell("one", a_sale())).status == 201
        names.silent = True
        asked = names.asked["kra.test"]
        # On the connection that is open it needs no name.
        await shop.doors["kra"].lead("127.0.0.1", 9)
        assert (await shop.till().sell("two", a_sale())).status == 201
        assert names.asked["kra.test"] > asked
        assert len(await shop.daemon.unit.journal()) == 2
