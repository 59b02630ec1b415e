"""The gateway starts on another store than the one that sold with its unit: nothing is signed twice.

A disk that is not mounted, a directory that was changed in the settings, a damaged store that somebody
deleted: the gateway finds an empty place, and would sell from number 1 on without any key that it knew.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import tools
from gateway.fiscal.ahead import MARK_EVERY_S
from gateway.settings import Settings
from gateway.store import marker
from gateway.store.database import FILE_NAME
from gateway.store.marker import Mark
from hw_fakes.vscu.unit import UnitControl
from tests.fault.test_old_copy import code, go_back_one_sale, say_next
from tests.support import decisions, unit_database
from tests.support.clock import FakeClock
from tests.support.printers import so
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


async def test_an_answer_at_our_own_next_number_forgets_nothing(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    """The new store begins where the settings say that the unit had come to."""
    right = on(shop_dir, "right", unit, folder)
    empty = on(shop_dir, "empty", unit, folder, first_invoice_no=2)
    sale = a_sale()
    async with open_shop(right) as shop:
        assert (await shop.till().sell("one", sale)).status == 201
    async with open_shop(empty) as shop:
        assert code(await shop.till().sell("one", sale))[1] == "UNIT_AHEAD"
        await say_next(shop, 2)
        assert code(await shop.till().sell("one", sale))[1] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 1


async def test_a_copy_that_is_put_back_by_hand_is_known(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    settings = on(shop_dir, "store", unit, folder)
    store, copy = settings.store.directory, shop_dir / "copy"
    lost = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
    shutil.copytree(store, copy)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("lost", lost)).status == 201
    shutil.rmtree(store)
    copy.rename(store)
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("lost", lost)) == (503, "UNIT_AHEAD", "unknown")
        status = (await shop.till().request("GET", "/v1/status")).json
        assert "come to invoice number 2, and now it knows of 1" in status["signer"]["hold"]
        reply = await decisions.number(shop, 2)
        assert (reply.status, reply.json["errors"][0]["message"]) == (422, "It must be 3 or more.")
        await say_next(shop, 3)
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("next", a_sale())).json["invcNo"] == 3
    assert len(await unit.journal()) == 3


async def test_the_marker_follows_while_the_gateway_sells(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    """A crash may come at any time; what is behind it then is a minute's sales."""
    clock = FakeClock(datetime.now(UTC))
    async with open_shop(on(shop_dir, "store", unit, folder), clock) as shop:
        before = marker.read(folder)
        assert before is not None
        assert before.last_invc_no == 0
        assert (await shop.till().sell("one", a_sale())).status == 201
        await clock.advance(seconds=MARK_EVERY_S)
        await so(lambda: marker.read(folder) == Mark(before.store_id, 1))


async def test_a_restore_that_is_taken_back_by_hand_is_noticed(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    settings = on(shop_dir, "store", unit, folder)
    later = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    made = tools.backup_now(settings, shop_dir / "stick")
    found = tools.restore(settings, made.path, unit_keys=False)
    async with open_shop(settings) as shop:
        await say_next(shop, 2)
        assert (await shop.till().sell("later", later)).json["invcNo"] == 2
    (Path(found["replaced"]) / FILE_NAME).replace(settings.store.directory / FILE_NAME)
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("later", later)) == (503, "UNIT_AHEAD", "unknown")
    assert len(await unit.journal()) == 2


async def test_what_was_seen_to_be_missing_is_not_unseen_by_an_older_unit(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    """Somebody puts the unit's folder back by hand, to make it agree, or to before the store's last sale."""
    database = {"database": folder / "unit.sqlite", "database_counter_query": COUNTER_QUERY}
    settings = on(shop_dir, "store", unit, folder, **database)
    unit_database.write(folder / "unit.sqlite", [])
    lost = a_sale()
    await go_back_one_sale(settings, lost, "lost")
    journal = await unit.journal()
    for unit_has in (journal, journal[:1], []):
        unit_database.write(folder / "unit.sqlite", unit_has)
        async with open_shop(settings) as shop:
            assert code(await shop.till().sell("lost", lost)) == (503, "UNIT_AHEAD", "unknown")
    async with open_shop(settings) as shop:
        await say_next(shop, 3)
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 2


async def test_an_old_unit_beside_another_store_proves_nothing_unsigned(
    unit: UnitControl, shop_dir: Path, folder: Path
) -> None:
    """Its counter is behind the store that is here, and another store sold with it."""
    database = {"database": folder / "unit.sqlite", "database_counter_query": COUNTER_QUERY}
    first, second = (on(shop_dir, name, unit, folder, **database) for name in ("first", "second"))
    unit_database.write(folder / "unit.sqlite", [])
    sale = a_sale()
    async with open_shop(second) as shop:
        assert (await shop.till().sell("mine", a_sale())).status == 201
    (folder / marker.FILE).unlink()
    unit_database.write(folder / "unit.sqlite", [])
    async with open_shop(first) as shop:
        await say_next(shop, 2)
        assert (await shop.till().sell("theirs", sale)).status == 201
    unit_database.write(folder / "unit.sqlite", [])
    async with open_shop(second) as shop:
        assert code(await shop.till().sell("theirs", sale)) == (503, "UNIT_AHEAD", "unknown")


async def test_an_answer_counts_where_the_marker_cannot_be_replaced(
    unit: UnitControl, shop_dir: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right, empty = (on(shop_dir, name, unit, folder) for name in ("right", "empty"))
    async with open_shop(right) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    (folder / f"{marker.FILE}.part").mkdir()
    async with open_shop(empty) as shop:
        await say_next(shop, 2)
        assert (await shop.till().sell("two", a_sale())).json["invcNo"] == 2
    assert "unit.marker_unwritten" in caplog.text
    async with open_shop(empty) as shop:
        assert (await shop.till().sell("three", a_sale())).json["invcNo"] == 3
    # Once it can be, the other store is the other one again.
    (folder / f"{marker.FILE}.part").rmdir()
    async with open_shop(empty) as shop:
        assert (await shop.till().sell("four", a_sale())).json["invcNo"] == 4
    async with open_shop(right) as shop:
        assert code(await shop.till().sell("five", a_sale()))[1] == "UNIT_AHEAD"


@pytest.mark.parametrize("found", [b"", b"\n", b"\xff\xfe", b"x" * 5000, None])
async def test_whatever_stands_in_the_marker_the_gateway_sells(
    unit: UnitControl,
    shop_dir: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    found: bytes | None,
) -> None:
    """It is left as it is, and told: it may be all the evidence there is."""
    place = folder / marker.FILE
    if found is None:
        place.mkdir()
    else:
        place.write_bytes(found)
    async with open_shop(on(shop_dir, "store", unit, folder)) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    if found == b"":
        mark = marker.read(folder)
        assert mark is not None
        assert mark.last_invc_no == 1
    else:
        assert "unit.marker_unread" in caplog.text
        assert found is None or place.read_bytes() == found


async def test_a_folder_that_nobody_may_look_into_stops_nobody(
    unit: UnitControl, shop_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its name is too long to be looked at: what a folder of another user is to the gateway's."""
    async with open_shop(on(shop_dir, "store", unit, shop_dir / ("x" * 300))) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    assert "unit.marker_unwritten" in caplog.text
