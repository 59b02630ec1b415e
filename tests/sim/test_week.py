"""A week at the ceiling: the whole gateway on an injected clock, the real fake JAR, real HTTP.

Each test is a row of the table in docs/internals/offline-ceiling.md. The unit's own clock follows
through its knob; its own ceiling is off, so that ours is what is seen, unless a test is about its.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.ceiling import CeilingState
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.printers import so
from tests.support.shop import OpenShop, Reply, a_sale, make_settings, open_shop

READINGS = {
    "A": {"oldest_unsent_reading": False},
    "B": {"last_contact_reading": False},
    "both": {},
}
HEARTBEAT_S = 300


class Week:
    """One shop, one clock, one unit; `sell` sells once and says what the till was told."""

    def __init__(self, unit: UnitControl, directory: Path, **ceiling: Any) -> None:
        self.unit = unit
        self.clock = FakeClock()
        # A till's patience is real time here, everything else is the clock's.
        self.settings = make_settings(directory, unit.url, ceiling=ceiling, api={"wait_s": 30})
        self.shop: OpenShop
        self._open: Any = None
        # So that the unit's clock is right when the gateway's loops wake and ask.
        self.clock.follower = self.tell_the_unit

    async def start(self) -> None:
        await self.tell_the_unit()
        self._open = open_shop(self.settings, self.clock)
        self.shop = await self._open.__aenter__()
        await self.clock.advance(seconds=1)

    async def end(self) -> None:
        await self._open.__aexit__(None, None, None)

    async def tell_the_unit(self) -> None:
        """KRA and the unit live by true time: what the clock would show had nobody set it."""
        offset = round(self.clock.true.timestamp() - time.time())
        await self.unit.knobs(clockOffsetSeconds=offset)

    async def upstream(self, state: str) -> None:
        await self.unit.knobs(upstream=state, ceilingReading="off")

    async def sell(self) -> Reply:
        await self.tell_the_unit()
        return await self.shop.till().sell(f"key-{time.perf_counter_ns()}", a_sale())

    async def sell_into_doubt(self) -> Reply:
        """A sale whose end nobody knows; back when its till has been told so."""
        selling = asyncio.ensure_future(self.sell())
        await so(lambda: self.shop.gateway.signer.in_doubt)
        while not selling.done():
            await self.clock.advance(seconds=1)
        return await selling

    async def told(self) -> str:
        """201, or the code of the refusal."""
        reply = await self.sell()
        if reply.status == 201:
            return "signed"
        assert reply.json["signed"] == "no"
        return str(reply.json["code"])

    async def advance(self, **delta: float) -> None:
        await self.clock.advance(**delta)
        await self.tell_the_unit()

    async def contact(self) -> None:
        """The link is back; nobody does anything but wait, for one heartbeat at most. By its end KRA was
        asked, and answers in real time."""
        await self.tell_the_unit()
        monitor, waited = self.shop.gateway.monitor, 0
        while monitor.view().blocks and waited < HEARTBEAT_S:
            await self.clock.advance(seconds=10)
            await self.tell_the_unit()
            waited += 10
        await so(lambda: not monitor.view().blocks)


@pytest.fixture(params=READINGS)
async def week(
    request: pytest.FixtureRequest, unit: UnitControl, shop_dir: Path
) -> AsyncIterator[Week]:
    made = Week(unit, shop_dir, **READINGS[request.param])
    await made.start()
    yield made
    await made.end()


@pytest.fixture
async def day(unit: UnitControl, shop_dir: Path) -> AsyncIterator[Week]:
    made = Week(unit, shop_dir)
    await made.start()
    yield made
    await made.end()


async def cut(week: Week) -> None:
    """One sale, and from that very moment no KRA: both readings count from here."""
    await week.shop.gateway.clock.advance(seconds=HEARTBEAT_S)  # type: ignore[attr-defined]
    await week.tell_the_unit()
    week.shop.gateway.monitor.contact_soon()
    await week.clock.advance(seconds=0)
    while week.shop.gateway.monitor.checkpoint.contact_age_us:
        await week.clock.advance(seconds=0)
        week.shop.gateway.monitor.view()
    await week.upstream("offline")
    assert await week.told() == "signed"


async def test_an_hour_without_kra(week: Week) -> None:
    await cut(week)
    await week.advance(hours=1)
    reply = await week.sell()
    assert reply.status == 201
    assert reply.json["ceiling"]["state"] == "OFFLINE"
    assert reply.json["ceiling"]["stopsAt"] is not None
    await week.upstream("online")
    await week.advance(seconds=HEARTBEAT_S)
    await so(lambda: week.shop.gateway.monitor.view().state is CeilingState.ONLINE)
    assert (await week.sell()).json["ceiling"]["state"] == "ONLINE"


async def test_the_last_second_is_sold_in_and_not_one_more(week: Week) -> None:
    """23:59:59 sells, 24:00:00 does not."""
    await cut(week)
    await week.advance(hours=23, minutes=59, seconds=59)
    last = await week.sell()
    assert last.status == 201
    assert last.json["ceiling"]["state"] == "WARNING"
    assert last.json["ceiling"]["secondsLeft"] == 1
    week.clock.pass_time(seconds=1)
    assert await week.told() == "SUSPENDED"
    await week.upstream("online")
    await week.contact()
    assert await week.told() == "signed"


@pytest.mark.parametrize("seconds", [24 * 3600, 24 * 3600 + 1])
async def test_a_day(week: Week, seconds: int) -> None:
    await cut(week)
    await stays_shut(week, seconds)


async def test_three_days(day: Week) -> None:
    await cut(day)
    await stays_shut(day, 3 * 24 * 3600)


async def stays_shut(week: Week, seconds: int) -> None:
    await week.advance(seconds=seconds)
    for _ in range(3):
        assert await week.told() == "SUSPENDED"
    status = await week.shop.till().request("GET", "/v1/status")
    assert status.json["state"] == "SUSPENDED"
    await week.upstream("online")
    await week.contact()
    assert await week.told() == "signed"


async def test_a_quiet_night_with_internet_suspends_nobody(day: Week) -> None:
    for _ in range(30):
        await day.advance(hours=1)
    assert await day.told() == "signed"


async def test_a_captive_portal_is_no_contact(day: Week) -> None:
    await cut(day)
    await day.upstream("captive")
    await day.advance(hours=24)
    assert await day.told() == "SUSPENDED"


@pytest.mark.parametrize("off_hours", [1, 25])
async def test_a_reboot_gives_nothing_back(week: Week, off_hours: int) -> None:
    await cut(week)
    await week.advance(hours=20)
    await week.end()
    week.clock.reboot(hours=off_hours)
    await week.start()
    assert await week.told() == ("signed" if off_hours == 1 else "SUSPENDED")
    if off_hours == 1:
        await week.advance(hours=3, minutes=5)
        assert await week.told() == "SUSPENDED"


async def test_a_suspended_machine_counts_on(week: Week) -> None:
    await cut(week)
    week.clock.pass_time(hours=24)
    assert await week.told() == "SUSPENDED"


async def test_back_to_1970_over_a_reboot(week: Week) -> None:
    """A mini-PC whose battery is empty: the clock says 1970, nothing is signed, KRA ends it."""
    await cut(week)
    await week.end()
    right = week.clock.now()
    week.clock.reboot(minutes=1)
    week.clock.step_wall(seconds=-right.timestamp())
    await week.start()
    assert await week.told() == "CLOCK_FAULT"
    status = await week.shop.till().request("GET", "/v1/status")
    assert status.json["ceiling"]["clocks"]["gateway"].startswith("1970")
    assert status.json["ceiling"]["clocks"]["latestSeen"].startswith("2026")
    page = await week.shop.till().request("GET", "/")
    assert "1970" in page.body.decode()
    week.clock.step_wall(seconds=right.timestamp())
    assert await week.told() == "signed"


async def test_1970_does_not_hide_a_night_without_power(week: Week) -> None:
    """Off for 25 hours, up with a flat battery, started anew, set right by hand: the hours count."""
    await cut(week)
    await week.end()
    right = week.clock.now()
    week.clock.reboot(hours=25)
    week.clock.step_wall(seconds=-right.timestamp())
    for _ in range(2):
        await week.start()
        assert await week.told() == "CLOCK_FAULT"
        await week.end()
    await week.start()
    week.clock.step_wall(seconds=right.timestamp())
    assert await week.told() == "SUSPENDED"
    await week.upstream("online")
    await week.contact()
    assert await week.told() == "signed"


async def test_a_year_ahead(week: Week) -> None:
    """Set forward by hand while the shop sells: not one receipt carries that date."""
    await cut(week)
    week.clock.step_wall(days=365)
    assert await week.told() == "CLOCK_FAULT"
    week.clock.step_wall(days=-365)
    await week.upstream("online")
    week.shop.gateway.monitor.contact_soon()
    await week.contact()
    assert await week.told() == "signed"
    stamps = [entry["cfmDt"] for entry in await week.unit.journal()]
    assert stamps == sorted(stamps)
    assert all(stamp.startswith("2026") for stamp in stamps)


async def test_an_ntp_step_in_mid_sale(day: Week) -> None:
    """Steps within the tolerance: sold on, and no receipt is stamped before its predecessor."""
    for step in (0, -1, 1, -1.5, 30, -0.5):
        day.clock.step_wall(seconds=step)
        assert await day.told() == "signed"
    stamps = [entry["cfmDt"] for entry in await day.unit.journal()]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("answer", ["894", "838"])
async def test_the_units_own_ceiling_ends_in_the_same_suspended(day: Week, answer: str) -> None:
    """The unit counts otherwise than we do and refuses first."""
    await cut(day)
    await day.advance(hours=10)
    await day.unit.knobs(ceilingReading="both", ceilingHours=9, ceilingAnswer=answer)
    first = await day.sell_into_doubt()
    # What the unit's words leave open is said so; everybody after it hears SUSPENDED.
    assert (first.status, first.json["code"]) == (503, "OUTCOME_UNKNOWN")
    assert first.json["signed"] == "unknown"
    assert await day.told() == "SUSPENDED"
    status = await day.shop.till().request("GET", "/v1/status")
    assert status.json["state"] == "SUSPENDED"
    count = len(await day.unit.journal())
    # KRA comes back: the sale in doubt is settled by itself, and the shop sells on.
    await day.upstream("online")
    while (reply := await day.sell()).status != 201:
        await day.clock.advance(seconds=5)
    journal = await day.unit.journal()
    assert len({entry["trdInvcNo"] for entry in journal}) == len(journal)
    assert len(journal) == count + 2
    assert reply.json["ceiling"]["state"] == "ONLINE"


@pytest.mark.parametrize("answer", ["refused", "503"])
async def test_a_unit_that_hangs_up_at_its_ceiling(day: Week, answer: str) -> None:
    await cut(day)
    await day.advance(hours=23)
    await day.unit.knobs(ceilingReading="both", ceilingHours=22, ceilingAnswer=answer)
    assert (await day.sell_into_doubt()).json["code"] == "OUTCOME_UNKNOWN"
    await day.upstream("online")
    while (await day.sell()).status != 201:
        await day.clock.advance(seconds=5)
    journal = await day.unit.journal()
    assert len({entry["trdInvcNo"] for entry in journal}) == len(journal)


async def test_the_fuel_gauge(day: Week) -> None:
    """Hours, receipts at today's rate, and when it stops; in every answer."""
    await cut(day)
    for _ in range(10):
        assert await day.told() == "signed"
        await day.advance(minutes=6)
    ceiling = (await day.sell()).json["ceiling"]
    # Eleven receipts in an hour, 23 hours left.
    assert ceiling["receiptsLeft"] in range(11 * 22, 12 * 24)
    status = await day.shop.till().request("GET", "/v1/status")
    assert "selling stops at" in status.json["ceiling"]["forecast"]
    page = await day.shop.till().request("GET", "/")
    assert "more receipts" in page.body.decode()
