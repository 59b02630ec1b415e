"""The cash drawer on the printer's plug: with its sale, when asked for, never late, never twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.printing import spooler
from gateway.store import events
from hw_fakes.printer.peer import FakePrinter, Wire
from hw_fakes.vscu.unit import UnitControl
from tests.support.printers import (
    BLOCKED,
    PRINTED,
    UNCONFIRMED,
    begun,
    one,
    problem_is,
    settings_for,
    so,
    until,
)
from tests.support.shop import OpenShop, a_sale, open_shop

CARD = [{"method": "CARD", "amount": "297.00"}]


async def told(shop: OpenShop, kind: str, count: int = 1) -> list[dict[str, object]]:
    """The data of the first `count` events of a kind, waited for."""
    async with asyncio.timeout(30):
        while True:
            news = asyncio.ensure_future(shop.gateway.db.changed())
            found = await shop.gateway.db.read(lambda conn: events.of_kind(conn, kind))
            if len(found) >= count:
                news.cancel()
                return [event.data for event in found]
            await news


async def test_the_drawer_opens_with_cash_only_and_alone_is_an_event(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        ports = one(printer, drawer_pin=2)
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            till = shop.till()
            card = [{"method": "CARD", "amount": "297.00"}]
            await till.sell("card", a_sale(payments=card))
            await until(shop, PRINTED)
            assert printer.drawer_kicks == 0
            await till.sell("cash", a_sale())
            await until(shop, PRINTED, PRINTED)
            assert printer.drawer_kicks == 1
            printer.close_drawer()
            opened = await till.request("POST", "/v1/devices/counter/drawer")
            assert opened.status == 200
            await so(lambda: printer.drawer_kicks == 2)
            asked = await shop.gateway.db.read(lambda c: events.of_kind(c, "drawer.asked"))
            assert [event.till_id for event in asked] == ["till-1"]
            printer.open_cover()
            refused = await till.request("POST", "/v1/devices/counter/drawer")
            assert (refused.status, refused.json["code"]) == (503, "DEVICE_PROBLEM")
            assert (await till.request("POST", "/v1/devices/none/drawer")).status == 404


async def test_a_drawer_opened_by_hand_is_seen(unit: UnitControl, shop_dir: Path) -> None:
    async with FakePrinter() as printer:
        ports = one(printer, drawer_pin=2)
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            printer.drawer_open = True
            (opened,) = await told(shop, "drawer.opened")
            assert opened == {"printer": "counter", "withSale": False, "asked": False}


async def test_a_drawer_opened_by_hand_soon_after_a_card_sale_was_opened_without_one(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        ports = one(printer, drawer_pin=2)
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            await shop.till().sell("card", a_sale(payments=CARD))
            await until(shop, PRINTED)
            printer.pull_drawer()
            (by_hand,) = await told(shop, "drawer.opened")
            assert by_hand == {"printer": "counter", "withSale": False, "asked": False}
            printer.close_drawer()
            await told(shop, "drawer.closed")
            await shop.till().sell("cash", a_sale())
            _, sale = await told(shop, "drawer.opened", 2)
            assert sale == {"printer": "counter", "withSale": True, "asked": True}


async def test_a_copy_of_a_lost_slip_does_not_open_the_drawer_again(
    unit: UnitControl, shop_dir: Path
) -> None:
    # Its paper ends in the slip, so that it is switched off in the middle of it.
    async with FakePrinter(roll_mm=40) as printer:
        ports = one(printer, drawer_pin=2)
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            await shop.till().sell("cash", a_sale())
            await so(lambda: printer.drawer_kicks and printer.paper_out)
            printer.power_off()
            await until(shop, UNCONFIRMED)
            printer.load_paper()
            printer.power_on()
            said = {"cameOut": False}
            await shop.till().request("POST", "/v1/print-jobs/1/answer", json=said)
            await until(shop, ("ORIGINAL", "DROPPED"), ("COPY", "PRINTED"))
        assert printer.drawer_kicks == 1


async def test_a_drawer_asked_for_in_mid_slip_opens_after_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter(wire=Wire(baud=9600)) as printer:
        ports = one(printer, drawer_pin=5)
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            await shop.till().sell("card", a_sale(payments=CARD))
            await begun(printer)
            opened = await shop.till().request("POST", "/v1/devices/counter/drawer")
            assert opened.status == 200
            await so(lambda: printer.drawer_kicks)
            (slip,) = printer.paper.slips
            assert b"\x1bp" not in slip.raw
            await until(shop, PRINTED)
        assert printer.drawer_kicks == 1
        assert printer.problems == []


async def test_a_drawer_asked_for_while_a_slip_waits_for_paper_does_not_open_an_hour_later(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooler, "KICK_S", 0.5)
    async with FakePrinter(roll_mm=60) as printer:
        ports = one(printer, drawer_pin=2)
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            await shop.till().sell("card", a_sale(payments=CARD))
            await problem_is(shop, "paper out")
            refused = await shop.till().request("POST", "/v1/devices/counter/drawer")
            assert (refused.status, refused.json["code"]) == (503, "DEVICE_PROBLEM")
            assert "busy with a slip" in refused.json["detail"]
            printer.load_paper()
            await until(shop, PRINTED)
            await shop.till().sell("next", a_sale(payments=CARD))
            await until(shop, PRINTED, PRINTED)
        assert printer.drawer_kicks == 0


async def test_the_drawer_of_the_till_that_prints_for_another_one_stays_shut(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as two, FakePrinter() as three:
        two.remove_paper()
        ports = {
            "till 2": {"port": two.device_path, "failover": ["till 3"], "drawer_pin": 2},
            "till 3": {"port": three.device_path, "drawer_pin": 2},
        }
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            await shop.till().sell("cash", a_sale())
            await until(shop, PRINTED)
        assert len(three.paper.slips) == 1
        assert (two.drawer_kicks, three.drawer_kicks) == (0, 0)


async def test_a_drawer_does_not_open_for_a_slip_that_was_blocked(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The refused kick of before is not made up for either."""
    async with FakePrinter() as printer:
        printer.open_cover()
        ports = one(printer, drawer_pin=2)
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            await shop.till().sell("card", a_sale(payments=CARD))
            await until(shop, BLOCKED)
            refused = await shop.till().request("POST", "/v1/devices/counter/drawer")
            assert refused.status == 503
            printer.close_cover()
            await until(shop, PRINTED)
        assert printer.drawer_kicks == 0
