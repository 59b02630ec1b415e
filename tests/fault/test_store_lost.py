"""The newest transactions of the store are lost, synced as they were: found as a hold, and no key is doubled."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway import tools
from gateway.errors import StoreError
from gateway.store.database import FILE_NAME, open_database, run_on
from gateway.store.witness import FILE_NAME as WITNESS
from hw_fakes.vscu.unit import UnitControl
from tests.support import decisions
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop

WAL = f"{FILE_NAME}-wal"


@dataclass(slots=True)
class Before:
    """A shop's store at three moments: after 3 sales, after 6, after 9; each copied as it lay on the disk."""

    sales: dict[str, Any]
    told: dict[str, bytes]
    moments: list[Path]
    cut: int = 0


async def three_moments(unit: UnitControl, directory: Path) -> Before:
    """The process is killed after the last one: nothing is written at its end."""
    settings = make_settings(directory, unit.url)
    before = Before({}, {}, [])
    async with open_shop(settings) as shop:
        for moment in range(3):
            for number in range(3):
                key = f"key-{moment}-{number}"
                before.sales[key] = a_sale()
                reply = await shop.till().sell(key, before.sales[key])
                assert reply.status == 201
                before.told[key] = reply.body
                if key == "key-2-0":
                    before.cut = (settings.store.directory / WAL).stat().st_size
            if moment == 1:
                # The log begins anew: what was in it is in the database file now.
                await shop.gateway.db.write_soft(lambda conn: None)
                await checkpoint(shop)
            place = directory / f"moment-{moment}"
            place.mkdir()
            for file in settings.store.directory.glob("*.db*"):
                if not file.name.endswith("-shm"):
                    shutil.copyfile(file, place / file.name)
            before.moments.append(place)
    shutil.rmtree(settings.store.directory)
    shutil.copytree(before.moments[2], settings.store.directory)
    return before


async def checkpoint(shop: OpenShop) -> None:
    writer = shop.gateway.db._writer
    await run_on(writer, lambda conn: conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())


def lost_log(store: Path, before: Before) -> None:
    (store / WAL).unlink()


def cut_log(store: Path, before: Before) -> None:
    """To where it ended after the first sale of the last moment."""
    (store / WAL).write_bytes((store / WAL).read_bytes()[: before.cut])


def log_of_another_time(store: Path, before: Before) -> None:
    shutil.copyfile(before.moments[0] / WAL, store / WAL)


def older_database_newer_log(store: Path, before: Before) -> None:
    shutil.copyfile(before.moments[0] / FILE_NAME, store / FILE_NAME)


def older_database_without_its_log(store: Path, before: Before) -> None:
    shutil.copyfile(before.moments[0] / FILE_NAME, store / FILE_NAME)
    (store / WAL).unlink()


def older_copy_of_both(store: Path, before: Before) -> None:
    for name in (FILE_NAME, WAL):
        shutil.copyfile(before.moments[0] / name, store / name)


def lost_name(store: Path, before: Before) -> None:
    """The directory's entry of the database was never written; its log's was."""
    (store / FILE_NAME).unlink()


def lost_names(store: Path, before: Before) -> None:
    (store / FILE_NAME).unlink()
    (store / WAL).unlink()


LOSSES = [
    lost_log, cut_log, log_of_another_time, older_database_newer_log, older_database_without_its_log,
    older_copy_of_both, lost_name, lost_names,
]  # fmt: skip


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_loss_is_noticed_and_no_key_is_doubled(
    unit: UnitControl, shop_dir: Path, lose: Callable[[Path, Before], None]
) -> None:
    before = await three_moments(unit, shop_dir)
    settings = make_settings(shop_dir, unit.url)
    store = settings.store.directory
    lose(store, before)
    try:
        async with open_shop(settings) as shop:
            status = (await shop.till().request("GET", "/v1/status")).json
            assert status["state"] == "UNIT_AHEAD", status["sentence"]
            assert WITNESS in status["signer"]["hold"]
            kept = await ask_again(shop, before, "UNIT_AHEAD")
            decided = await decisions.number(shop, 10)
            assert decided.status == 200, decided.json
            assert await ask_again(shop, before, "MAYBE_SIGNED") == kept
            new = await shop.till().sell("new", a_sale())
            assert (new.status, new.json["invcNo"]) == (201, 10)
    except StoreError as error:
        # Found as damage: the page says so, and nothing is signed.
        assert error.code == "STORE_CORRUPT", error
        assert lose in (log_of_another_time, older_database_newer_log)
        assert len(await unit.journal()) == 9
        return
    assert len(await unit.journal()) == 10
    # After the decision the witness is this store's: the next start finds nothing, and still knows every key.
    async with open_shop(settings) as shop:
        assert (await shop.till().request("GET", "/v1/status")).json["state"] == "ONLINE"
        assert await ask_again(shop, before, "MAYBE_SIGNED") == kept
        assert (await shop.till().sell("newer", a_sale())).status == 201
    assert len(await unit.journal()) == 11


async def ask_again(shop: OpenShop, before: Before, code: str) -> set[str]:
    """Every till sends its sale again: the bytes that it was told, or nothing that lets it ring the sale up again."""
    kept = set()
    for key, sale in before.sales.items():
        reply = await shop.till().sell(key, sale)
        if reply.status == 201:
            assert reply.body == before.told[key]
            kept.add(key)
        else:
            assert (reply.json["code"], reply.json["signed"]) == (code, "unknown")
    return kept


async def test_a_key_that_first_comes_after_the_decision_is_known_to_the_witness(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Its till was switched off while signing was held."""
    before = await three_moments(unit, shop_dir)
    settings = make_settings(shop_dir, unit.url)
    lost_log(settings.store.directory, before)
    async with open_shop(settings) as shop:
        assert (await decisions.number(shop, 10)).status == 200
        reply = await shop.till().sell("key-2-2", before.sales["key-2-2"])
        assert (reply.status, reply.json["code"]) == (409, "MAYBE_SIGNED")
    assert len(await unit.journal()) == 9


async def test_the_right_store_put_in_place_ends_the_hold(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The hold is a question: the witness stays as it is until it is answered."""
    before = await three_moments(unit, shop_dir)
    settings = make_settings(shop_dir, unit.url)
    store = settings.store.directory
    lost_log(store, before)
    async with open_shop(settings) as shop:
        reply = await shop.till().sell("key-2-2", before.sales["key-2-2"])
        assert reply.json["code"] == "UNIT_AHEAD"
    for name in (FILE_NAME, WAL):
        shutil.copyfile(before.moments[2] / name, store / name)
    async with open_shop(settings) as shop:
        assert (await shop.till().request("GET", "/v1/status")).json["state"] == "ONLINE"
        assert len(await ask_again(shop, before, "")) == 9
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 10


async def test_a_lost_witness_is_made_again_and_stops_nothing(
    unit: UnitControl, shop_dir: Path
) -> None:
    before = await three_moments(unit, shop_dir)
    settings = make_settings(shop_dir, unit.url)
    store = settings.store.directory
    for damaged in (b"", b"garbage" * 1000):
        for file in store.glob(f"{WITNESS}*"):
            file.unlink()
        if damaged:
            (store / WITNESS).write_bytes(damaged)
        async with open_shop(settings) as shop:
            assert len(await ask_again(shop, before, "")) == 9
            assert (await shop.till().sell(f"new-{len(damaged)}", a_sale())).status == 201


async def test_an_older_witness_catches_up(unit: UnitControl, shop_dir: Path) -> None:
    """A power cut took what was written last to it: nothing of it is ever synced for a sale."""
    before = await three_moments(unit, shop_dir)
    settings = make_settings(shop_dir, unit.url)
    store = settings.store.directory
    for file in before.moments[0].glob(f"{WITNESS}*"):
        shutil.copyfile(file, store / file.name)
    async with open_shop(settings) as shop:
        assert len(await ask_again(shop, before, "")) == 9
    shutil.copyfile(before.moments[1] / FILE_NAME, store / FILE_NAME)
    async with open_database(store) as db:
        assert db.noticed is not None


async def test_the_witness_lies_where_the_settings_say(unit: UnitControl, shop_dir: Path) -> None:
    """On another disk it outlives the store's."""
    other = shop_dir / "stick"
    other.mkdir()
    part = {"directory": shop_dir / "store", "witness_directory": other}
    settings = make_settings(shop_dir, unit.url, store=part)
    sale = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("key", sale)).status == 201
    assert (other / WITNESS).exists()
    assert not (settings.store.directory / WITNESS).exists()
    shutil.rmtree(settings.store.directory)
    async with open_shop(settings) as shop:
        reply = await shop.till().sell("key", sale)
        assert (reply.json["code"], reply.json["signed"]) == ("UNIT_AHEAD", "unknown")
    # Without that disk selling goes on, with a witness beside the store.
    shutil.rmtree(settings.store.directory)
    shutil.rmtree(other)
    async with open_shop(settings):
        assert (settings.store.directory / WITNESS).exists()


@pytest.mark.parametrize("key", ["till1-000002", None], ids=["key", "no key"])
async def test_after_a_restore_the_witness_knows_the_keys_of_a_store_that_is_gone(
    unit: UnitControl, shop_dir: Path, key: str | None
) -> None:
    """A new disk, the last backup, and a till that was off until the operator had decided."""
    other, sticks = shop_dir / "unit", shop_dir / "stick"
    other.mkdir()
    part = {"directory": shop_dir / "store", "witness_directory": other}
    settings = make_settings(shop_dir, unit.url, store=part)
    sale = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
        made = tools.backup_now(settings, sticks)
        assert (await shop.till().sell(key, sale)).status == 201
    shutil.rmtree(settings.store.directory)
    tools.restore(settings, made.path, unit_keys=False)
    async with open_shop(settings) as shop:
        decided = await decisions.number(shop, 2)
        # The last number that was used is known, too.
        assert (decided.status, decided.json["errors"][0]["code"]) == (422, "NUMBER_USED")
        decided = await decisions.number(shop, 3)
        assert decided.status == 200
        for _ in range(2):
            reply = await shop.till().sell(key, sale)
            assert (reply.status, reply.json["code"]) == (409, "MAYBE_SIGNED")
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 3
    assert len(await unit.journal()) == 3
    with pytest.raises(sqlite3.IntegrityError, match="stays so"):
        async with open_database(settings.store.directory, witness_directory=other) as db:
            await db.write(lambda conn: conn.execute("DELETE FROM lost_key"))
