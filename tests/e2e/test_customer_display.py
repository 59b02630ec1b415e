"""The customer display on a real pty: what the customer reads, on bad wires, after a replug, and when
selling must stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.display.peer import FakeDisplay
from hw_fakes.line import Wire
from hw_fakes.vscu.unit import UnitControl
from tests.sim.test_week import Week
from tests.support.counter import device_is
from tests.support.shop import a_sale, make_settings, open_shop

LINES = {"lines": ["COFFEE 250g", "450.00"]}
TOTAL = ("TOTAL         297.00", "CHANGE          3.00")
PAID = [{"method": "CASH", "amount": "300.00"}]
PROTOCOLS = ["cd5220", "escpos"]


def pole(display: FakeDisplay, protocol: str = "cd5220", **more: Any) -> dict[str, Any]:
    part = {"port": display.device_path, "protocol": protocol, "till": "till-1", **more}
    return {"displays": {"pole": part}}


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_display_shows_greeting_item_total_and_change(
    unit: UnitControl, shop_dir: Path, protocol: Any
) -> None:
    async with FakeDisplay(protocol) as display:
        async with open_shop(make_settings(shop_dir, unit.url, **pole(display, protocol))) as shop:
            await display.shows("KARIBU", "")
            till = shop.till()
            said = await till.request("POST", "/v1/devices/pole/display", json=LINES)
            assert said.json["lines"] == LINES["lines"]
            await display.shows("COFFEE 250g", "450.00")
            assert (await till.sell("one", a_sale(payments=PAID))).status == 201
            await display.shows(*TOTAL)
            # The sale of another till is not this customer's.
            await till.request("POST", "/v1/devices/pole/display", json={"lines": ["NEXT", ""]})
            await display.shows("NEXT", "")
            assert (await shop.till("till-2").sell("two", a_sale())).status == 201
            assert (await shop.till().request("GET", "/v1/status")).status == 200
            assert display.lines == ["NEXT", ""]
            wrong = await till.request("POST", "/v1/devices/pole/display", json={"lines": ["a\tb"]})
            assert (wrong.status, wrong.json["errors"][0]["pointer"]) == (400, "/lines")
            none = await till.request("POST", "/v1/devices/none/display", json=LINES)
            assert none.status == 404
        assert display.glass.problems == []
        assert display.picture().startswith(b"\x89PNG")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_display_put_back_on_another_port_shows_the_right_thing(
    unit: UnitControl, shop_dir: Path, tmp_path: Path, protocol: Any
) -> None:
    async with FakeDisplay(protocol, link=tmp_path / "by-id") as display:
        async with open_shop(make_settings(shop_dir, unit.url, **pole(display, protocol))) as shop:
            await display.shows("KARIBU", "")
            before = display.line.pty
            display.unplug()
            await device_is(shop, "pole", "plugged in")
            assert display.lines == ["", ""]
            till = shop.till()
            assert (await till.sell("one", a_sale(payments=PAID))).status == 201
            display.plug()
            assert display.line.pty != before
            await display.shows(*TOTAL)
            await device_is(shop, "pole", None)
            if protocol == "cd5220":
                # Without power for a moment, the cable in place: what it forgot is written again.
                display.power_off()
                display.power_on()
                await display.shows(*TOTAL)


@pytest.mark.parametrize("wire", [Wire(one_byte=True), Wire(baud=9600), Wire(lose_every=37)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_bad_wire_to_the_display_heals_by_itself(
    unit: UnitControl, shop_dir: Path, protocol: Any, wire: Wire
) -> None:
    async with FakeDisplay(protocol, wire=wire) as display:
        async with open_shop(make_settings(shop_dir, unit.url, **pole(display, protocol))) as shop:
            await device_is(shop, "pole", None)
            await shop.till().request("POST", "/v1/devices/pole/display", json=LINES)
            if wire.lose_every:
                await display.wait_until(lambda: "COFFEE" in "".join(display.lines))
                wire.lose_every = 0
            await display.shows("COFFEE 250g", "450.00")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_ceiling_on_the_display(unit: UnitControl, shop_dir: Path, protocol: Any) -> None:
    """Warned, stopped, and back, on an injected clock; a ceiling of three minutes."""
    ceiling = {"limit_hours": 0.05, "contact_interval_s": 10}
    week = Week(unit, shop_dir)
    async with FakeDisplay(protocol) as display:
        week.settings = make_settings(
            shop_dir, unit.url, ceiling=ceiling, **pole(display, protocol)
        )
        await week.start()
        await ticking(week, display, lambda: display.lines == ["KARIBU", ""])
        assert (await week.sell()).status == 201
        await display.shows("TOTAL         297.00", "CHANGE          0.00")
        await week.upstream("offline")
        await ticking(week, display, lambda: "LEFT" in display.lines[1])
        assert display.lines[0] == "KARIBU"
        assert display.lines[1] in ("KRA OFF  0H 00M LEFT", "KRA OFF  0H 01M LEFT")
        await ticking(week, display, lambda: display.lines[0] == "SUSPENDED")
        assert display.lines == ["SUSPENDED", "NO SALES: NO KRA"]
        # A stop goes before whatever a till wants shown.
        said = await week.shop.till().request("POST", "/v1/devices/pole/display", json=LINES)
        assert said.json["lines"] == ["SUSPENDED", "NO SALES: NO KRA"]
        assert await week.told() == "SUSPENDED"
        await week.upstream("online")
        await ticking(week, display, lambda: display.lines[0] != "SUSPENDED")
        assert (await week.sell()).status == 201
        await display.shows("TOTAL         297.00", "CHANGE          0.00")
        await ticking(week, display, lambda: display.lines == ["KARIBU", ""])
        week.clock.step_wall(days=365)
        await ticking(week, display, lambda: display.lines[0] == "SUSPENDED")
        assert display.lines[1] == "NO SALES: CLOCK"
        await week.end()


async def ticking(week: Week, display: FakeDisplay, true: Callable[[], bool]) -> None:
    """The clock goes on second by second until the glass is so."""
    for _ in range(400):
        if true():
            return
        await week.advance(seconds=1)
    raise TimeoutError(f"it shows {display.lines}")
