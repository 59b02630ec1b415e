"""The gateway starts on another store than the one that sold with its unit: nothing is signed twice.

A disk that is not mounted, a directory that was changed in the settings, a damaged store that somebody
deleted: the gateway finds an empty place, and would sell from number 1 on without any key that it knew.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from gateway.settings import Settings
from gateway.store import marker
from hw_fakes.vscu.unit import UnitControl
from tests.fault.test_old_copy import code, say_next
from tests.support import unit_database
from tests.support.shop import a_sale, make_settings, open_shop
from tests.support.unit_database import COUNTER_QUERY


@pytest.fixture
def folder(shop_dir: Path) -> Path:
    place = shop_dir / "unit"
    place.mkdir()
    return place


def on(shop_dir: Path, name: str, unit: UnitControl, folder: Path, **more: Any) -> Settings:
    """The same shop with its store in `name`."""
    return make_settings(shop_dir / name, unit.url, unit={"directory": folder, **more})


async def test_an_empty_store_is_held_and_the_right_one_goes_on(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    right, empty = (on(shop_dir, name, unit, folder) for name in ("right", "empty"))
    sale = a_sale()
    async with open_shop(right) as shop:
        told = await shop.till().sell("one", sale)
        assert told.status == 201
    for _ in range(2):  # a restart changes nothing
        async with open_shop(empty) as shop:
            assert code(await shop.till().sell("one", sale)) == (503, "UNIT_AHEAD", "unknown")
            status = (await shop.till().request("GET", "/v1/status")).json
            assert "another store sold with this unit" in status["signer"]["hold"]
            assert b"store.directory" in (await shop.till().request("GET", "/unit")).body
    # The disk is back.
    async with open_shop(right) as shop:
        assert (await shop.till().sell("one", sale)).body == told.body
        assert (await shop.till().sell("two", a_sale())).json["invcNo"] == 2
    assert len(await unit.journal()) == 2


async def test_what_came_to_the_empty_store_is_not_signed_after_the_answer(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    right, empty = (on(shop_dir, name, unit, folder) for name in ("right", "empty"))
    sale, later = a_sale(), a_sale()
    async with open_shop(right) as shop:
        assert (await shop.till().sell("one", sale)).status == 201
    async with open_shop(empty) as shop:
        assert code(await shop.till().sell("one", sale))[1] == "UNIT_AHEAD"
        await say_next(shop, 2)
        assert code(await shop.till().sell("one", sale)) == (409, "MAYBE_SIGNED", "unknown")
        assert (await shop.till().sell("later", later)).json["invcNo"] == 2
    async with open_shop(empty) as shop:
        assert (await shop.till().sell("next", a_sale())).json["invcNo"] == 3
    # From now on the first one is the other store: it lacks what the second has signed.
    async with open_shop(right) as shop:
        assert code(await shop.till().sell("later", later))[1] == "UNIT_AHEAD"
        await say_next(shop, 4)
        assert code(await shop.till().sell("later", later))[1] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 3


@pytest.mark.parametrize("signed", [0, 1])
async def test_a_unit_that_can_be_asked_settles_it(
    unit: UnitControl, shop_dir: Path, folder: Path, signed: int
) -> None:
    """An installation that was begun anew before anything was sold goes on by itself."""
    database = {"database": folder / "unit.sqlite", "database_counter_query": COUNTER_QUERY}
    first, second = (on(shop_dir, name, unit, folder, **database) for name in ("first", "second"))
    unit_database.write(folder / "unit.sqlite", [])
    async with open_shop(first) as shop:
        for number in range(signed):
            assert (await shop.till().sell(f"sale-{number}", a_sale())).status == 201
    unit_database.write(folder / "unit.sqlite", await unit.journal())
    async with open_shop(second) as shop:
        reply = await shop.till().sell("new", a_sale())
        if signed:
            assert code(reply) == (503, "UNIT_AHEAD", "unknown")
        else:
            assert reply.status == 201


async def test_a_marker_that_cannot_be_read_or_written_is_told_and_stops_nobody(
    unit: UnitControl, shop_dir: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / marker.FILE).mkdir()
    settings = on(shop_dir, "store", unit, folder)
    with caplog.at_level(logging.ERROR):
        async with open_shop(settings) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
    told = " ".join(record.getMessage() for record in caplog.records)
    assert "unit.marker_unread" in told
    assert "unit.marker_unwritten" in told


@pytest.mark.parametrize("found", [b"", b"\n", b"\xff\xfe", b"x" * 5000])
async def test_whatever_stands_in_the_marker_the_gateway_starts(
    unit: UnitControl, shop_dir: Path, folder: Path, found: bytes
) -> None:
    (folder / marker.FILE).write_bytes(found)
    async with open_shop(on(shop_dir, "store", unit, folder)) as shop:
        reply = await shop.till().sell("one", a_sale())
        if found.startswith(b"x"):
            assert code(reply)[1] == "UNIT_AHEAD"
        else:
            assert reply.status == 201
            assert marker.read(folder) is not None
