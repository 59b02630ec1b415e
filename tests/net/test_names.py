"""Names that cannot be looked up: no name server, one that says nothing, one that says no."""

from __future__ import annotations

from pathlib import Path

from tests.support import netns
from tests.support.names import FakeNames
from tests.support.netshop import net_shop
from tests.support.shop import a_sale

# A look-up that nobody answers takes the C library 5 times 30 seconds: longer than any test.
SWALLOWED = f"nameserver {netns.NAMES}\noptions timeout:30 attempts:5\n"


async def test_look_ups_that_hang_starve_nothing_and_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    hooks = "[mpesa.webhooks]\n" + "".join(
        f'till-{n} = "http://till-{n}.test/hook"\n' for n in range(1, 9)
    )
    async with net_shop(tmp_path, by_name=True, resolv=SWALLOWED, extra=hooks) as shop:
        async with FakeNames(shop.net.world, netns.NAMES) as names:
            names.silent = True
            till = shop.till()
            print(await till.sell("one", a_sale()))
            import asyncio

            await asyncio.sleep(3)
            print(names.asked)
            print((await shop.status())["cloud"], (await shop.status())["mpesa"])
            print("stop", await shop.daemon.stop())
            print(shop.daemon.log()[-1500:])
