"""A backup is put back, and tills send again what they sold since: never signed a second time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway import tools
from gateway.settings import Settings
from gateway.store import unclear_keys
from gateway.store.database import open_database
from hw_fakes.daraja import FakeDaraja
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import UnitControl
from tests.support import unit_database
from tests.support.clock import FakeClock
from tests.support.paid_shop import a_paid_sale, a_phone, mpesa_settings, mpesa_tender
from tests.support.shop import OpenShop, Reply, a_sale, make_settings, open_shop
from tests.support.unit_database import COUNTER_QUERY


def code(reply: Reply) -> tuple[int, str, str]:
    return reply.status, reply.json["code"], reply.json["signed"]


async def say_next(shop: OpenShop, number: int) -> dict[str, Any]:
    said = {"nextInvcNo": number, "reason": "as KRA's portal shows it"}
    reply = await shop.technician().request("POST", "/v1/unit/numbering", json=said)
    assert reply.status == 200, reply.json
    answer: dict[str, Any] = reply.json
    return answer


async def go_back_one_sale(settings: Settings, lost: dict[str, Any], *keys: str | None) -> Path:
    """Sells one sale, makes a backup, sells `lost` under each key, and puts the backup back."""
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
        made = tools.backup_now(settings, None)
        for key in keys:
            assert (await shop.till().sell(key, lost)).status == 201
    tools.restore(settings, made.path, unit_keys=False)
    return made.path


@pytest.mark.parametrize("key", ["till1-000002", None], ids=["key", "no key"])
async def test_a_sale_that_only_the_lost_disk_knew_is_not_signed_again(
    unit: UnitControl, shop_dir: Path, key: str | None
) -> None:
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    await go_back_one_sale(settings, lost, key)
    for _ in range(2):  # nobody has answered yet; a restart changes nothing
        async with open_shop(settings) as shop:
            held = await shop.till().sell(key, lost)
            assert code(held) == (503, "UNIT_AHEAD", "unknown")
    async with open_shop(settings) as shop:
        settled = await say_next(shop, 3)
        assert [sale["tillId"] for sale in settled["unclearSales"]] == ["till-1"]
        refused = await shop.till().sell(key, lost)
        assert code(refused) == (409, "MAYBE_SIGNED", "unknown")
        page = (await shop.till().request("GET", "/unit")).body.decode()
        assert "Sales that may have a receipt already" in page
        assert (key or "keyless:") in page
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell(key, lost))[1] == "MAYBE_SIGNED"
        # What was never sent under the old copy is a sale like any other, also at another till.
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 3
        assert (await shop.till("till-2").sell("till1-000002", a_sale())).status == 201
        with pytest.raises(Exception, match="stays so"):
            await shop.gateway.db.write(lambda conn: conn.execute("DELETE FROM unclear_key"))
    assert [entry["invcNo"] for entry in await unit.journal()] == [1, 2, 3, 4]


async def test_when_nothing_is_missing_what_came_meanwhile_is_sold(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    await go_back_one_sale(settings, a_sale())
    sale = a_sale()
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("now", sale))[1] == "UNIT_AHEAD"
        assert (await say_next(shop, 2))["unclearSales"] == []
        assert (await shop.till().sell("now", sale)).status == 201
    assert len(await unit.journal()) == 2


async def test_what_was_seen_in_the_unit_outweighs_the_number_a_person_says(
    unit: UnitControl, shop_dir: Path
) -> None:
    database = {"database": shop_dir / "unit.sqlite", "database_counter_query": COUNTER_QUERY}
    settings = make_settings(shop_dir, unit.url, unit=database)
    unit_database.write(shop_dir / "unit.sqlite", [])
    lost = a_sale()
    await go_back_one_sale(settings, lost, "lost")
    unit_database.write(shop_dir / "unit.sqlite", await unit.journal())
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("lost", lost)) == (503, "UNIT_AHEAD", "unknown")
        await say_next(shop, 2)
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 2


async def test_a_claim_that_the_backup_holds_unsigned_is_unclear_too(
    unit: UnitControl, shop_dir: Path
) -> None:
    quick = {"start_timeout_s": 0.1, "probe_timeout_s": 0.1}
    nowhere = make_settings(shop_dir, f"http://127.0.0.1:{free_port()}", unit=quick)
    settings = make_settings(shop_dir, unit.url)
    sale = a_sale()
    async with open_shop(nowhere) as shop:
        assert code(await shop.till().sell("claimed", sale))[2] == "no"
        made = tools.backup_now(nowhere, None)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("claimed", sale)).status == 201
    tools.restore(settings, made.path, unit_keys=False)
    async with open_shop(settings) as shop:
        await say_next(shop, 2)
        assert code(await shop.till().sell("claimed", sale)) == (409, "MAYBE_SIGNED", "unknown")
    assert len(await unit.journal()) == 1


async def test_nobody_is_asked_for_money_again(unit: UnitControl, shop_dir: Path) -> None:
    async with FakeDaraja(time_scale=0.01) as fake:
        settings = mpesa_settings(shop_dir, unit.url, fake)
        lost = a_paid_sale(mpesa_tender(a_phone()))
        await go_back_one_sale(settings, lost, "lost")
        (push,) = fake.pushes
        async with open_shop(settings) as shop:
            assert code(await shop.till().sell("lost", lost)) == (503, "UNIT_AHEAD", "unknown")
            await say_next(shop, 3)
            assert code(await shop.till().sell("lost", lost)) == (409, "MAYBE_SIGNED", "unknown")
        assert fake.pushes == [push]
    assert len(await unit.journal()) == 2


async def test_a_key_that_comes_while_the_person_answers_came_before(shop_dir: Path) -> None:
    async with open_database(shop_dir / "store") as db:

        def answered(conn):  # type: ignore[no-untyped-def]
            unclear_keys.note(conn, "till-1", "early", at=1)
            unclear_keys.settle(conn)
            unclear_keys.note(conn, "till-1", "late", at=2, settled=True)
            unclear_keys.forget(conn)
            return [unclear_keys.is_settled(conn, "till-1", key) for key in ("early", "late", "x")]

        assert await db.write(answered) == [True, True, False]


@pytest.mark.parametrize("key", ["till1-000002", None], ids=["key", "no key"])
async def test_nothing_else_that_stops_selling_makes_it_not_signed(
    unit: UnitControl, shop_dir: Path, key: str | None
) -> None:
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    await go_back_one_sale(settings, lost, key)
    clock = FakeClock(datetime.now(UTC))
    async with open_shop(settings, clock) as shop:
        assert code(await shop.till().sell(key, lost)) == (503, "UNIT_AHEAD", "unknown")
        await say_next(shop, 3)
        await clock.advance(seconds=1)
        clock.step_wall(days=-400)
        assert (await shop.till().sell("new", a_sale())).json["code"] == "CLOCK_FAULT"
        assert code(await shop.till().sell(key, lost)) == (409, "MAYBE_SIGNED", "unknown")
    assert len(await unit.journal()) == 2
