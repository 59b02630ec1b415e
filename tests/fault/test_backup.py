"""Backups made beside the running daemon, put back, and what a store that is old does then."""

from __future__ import annotations

import asyncio
import fcntl
import gzip
import io
import os
import shutil
import tarfile
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway import tools
from gateway.continuity.backups import Backups
from gateway.errors import StoreCorrupt, StoreError
from gateway.settings import Settings
from gateway.store import backup
from gateway.store import unit as unit_numbers
from gateway.store.database import open_database
from hw_fakes.vscu.unit import UnitControl
from tests.support import decisions, unit_database
from tests.support.backlog import fill
from tests.support.clock import FakeClock, settle
from tests.support.shop import a_sale, make_settings, open_shop
from tests.support.unit_database import COUNTER_QUERY

MB = 1024 * 1024
NOON = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)


def settings_of(shop_dir: Path, unit: UnitControl, **changes: Any) -> Settings:
    folder = shop_dir / "unit-files"
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "device.key").write_text("the only copy of the keys")
    (folder / "etims-vscu.jar").write_bytes(b"x" * 1000)
    return make_settings(shop_dir, unit.url, unit={"directory": folder, **changes})


async def test_a_backup_is_made_beside_the_daemon_and_put_back(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = settings_of(shop_dir, unit, read_back=True)
    await unit.knobs(readBack=True)
    first = a_sale()
    async with open_shop(settings) as shop:
        one = await shop.till().sell("one", first)
        made = tools.backup_now(settings, None)
        assert made.receipts == 1
        assert made.path.stat().st_mode & 0o077 == 0
        with tarfile.open(made.path) as tar:
            assert "unit/data/device.key" in tar.getnames()
            assert not any(name.endswith(".jar") for name in tar.getnames())
        with pytest.raises(StoreError, match="Another gateway"):
            tools.restore(settings, made.path, unit_keys=False)
        assert (await shop.till().sell("two", a_sale())).status == 201
    found = tools.restore(settings, made.path, unit_keys=False)
    assert Path(found["replaced"]).is_dir()
    async with open_shop(settings) as shop:
        # The unit has signed a sale since: held, by itself.
        held = await shop.till().sell("three", a_sale())
        assert (held.status, held.json["code"]) == (503, "UNIT_AHEAD")
        # What the backup holds is still told, byte for byte.
        assert (await shop.till().sell("one", first)).body == one.body
    assert len(await unit.journal()) == 2


async def test_a_restored_store_that_the_unit_agrees_with_sells_on(
    unit: UnitControl, shop_dir: Path
) -> None:
    file = shop_dir / "unit.sqlite"
    settings = settings_of(shop_dir, unit, database=file, database_counter_query=COUNTER_QUERY)
    unit_database.write(file, [])
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    unit_database.write(file, await unit.journal())
    made = tools.backup_now(settings, None)
    tools.restore(settings, made.path, unit_keys=False)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("two", a_sale())).status == 201


async def test_that_the_unit_does_not_hold_the_next_number_is_no_agreement(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Numbers may be left out: a sale under a later one can be missing here all the same."""
    settings = make_settings(shop_dir, unit.url, unit={"read_back": True})
    await unit.knobs(readBack=True)
    lost = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
        made = tools.backup_now(settings, shop_dir / "stick")
        # Number 2 is given up, as after a doubt that was no sale; 3 is signed.
        await shop.gateway.db.write(lambda conn: unit_numbers.use_up(conn, 2, at=0))
        assert (await shop.till().sell("lost", lost)).json["invcNo"] == 3
    shutil.rmtree(settings.store.directory)
    tools.restore(settings, made.path, unit_keys=False)
    async with open_shop(settings) as shop:
        held = await shop.till().sell("lost", lost)
        assert (held.json["code"], held.json["signed"]) == ("UNIT_AHEAD", "unknown")


async def test_without_a_witness_a_restored_store_waits_for_a_person(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = settings_of(shop_dir, unit)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    tools.restore(settings, tools.backup_now(settings, None).path, unit_keys=False)
    sale = a_sale()
    async with open_shop(settings) as shop:
        held = await shop.till().sell("two", sale)
        assert held.json["code"] == "UNIT_AHEAD"
        reply = await decisions.number(shop, 2, reason="nothing was sold since the backup")
        assert reply.status == 200
        assert (await shop.till().sell("two", sale)).status == 201


async def test_the_units_counters_are_never_put_back_silently(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = settings_of(shop_dir, unit)
    async with open_shop(settings):
        pass
    made = tools.backup_now(settings, None)
    with pytest.raises(StoreError, match="is not empty"):
        tools.restore(settings, made.path, unit_keys=True)
    folder = settings.unit.directory
    assert folder is not None
    folder.rename(shop_dir / "moved-away")
    tools.restore(settings, made.path, unit_keys=True)
    assert (folder / "data" / "device.key").read_text() == "the only copy of the keys"


def _same_content(body: bytes, whole: bytes) -> bool:
    """Whether it unpacks to the same bytes: in a run of zeros one reference is as good as another."""
    try:
        return gzip.decompress(body) == gzip.decompress(whole)
    except (OSError, EOFError, zlib.error):
        return False


async def test_a_damaged_backup_changes_nothing(unit: UnitControl, shop_dir: Path) -> None:
    settings = settings_of(shop_dir, unit)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    made = tools.backup_now(settings, None)
    whole = made.path.read_bytes()
    before = (settings.store.directory / "gateway.db").read_bytes()
    # gzip keeps no checksum of its header, which ends with the file's name.
    first = whole.index(b"\0", 10) + 1
    for place in (*range(first, first + 50), *range(first, len(whole), len(whole) // 100)):
        body = bytearray(whole)
        body[place] ^= 0xFF
        if _same_content(bytes(body), whole):
            continue
        made.path.write_bytes(body)
        with pytest.raises(StoreCorrupt):
            tools.restore(settings, made.path, unit_keys=False)
    for length in (0, 9, 100, len(whole) // 2, len(whole) - 1):
        made.path.write_bytes(whole[:length])
        with pytest.raises(StoreCorrupt):
            tools.restore(settings, made.path, unit_keys=False)
    with pytest.raises(StoreCorrupt):
        tools.restore(settings, shop_dir / "none.tar.gz", unit_keys=False)
    assert (settings.store.directory / "gateway.db").read_bytes() == before


async def test_what_is_no_file_of_a_backup_is_never_unpacked(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = settings_of(shop_dir, unit)
    async with open_shop(settings):
        pass
    made = tools.backup_now(settings, None)
    for number, name in enumerate(("../outside", str(shop_dir / "outside"), "link")):
        bad = shop_dir / f"bad-{number}.tar.gz"
        with tarfile.open(made.path) as good, tarfile.open(bad, "w:gz") as tar:
            for each in good:
                tar.addfile(each, good.extractfile(each))
            member = tarfile.TarInfo(name)
            if name == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(member, io.BytesIO())
        with pytest.raises(StoreCorrupt, match="no file of a backup"):
            tools.restore(settings, bad, unit_keys=False)
    assert not (shop_dir / "outside").exists()


async def test_what_root_makes_by_hand_belongs_to_the_gateways_user(
    unit: UnitControl, shop_dir: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    settings = settings_of(shop_dir, unit)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    store, user = settings.store.directory, 64999
    folder = settings.unit.directory
    assert folder is not None
    for path in (store, *store.rglob("*")):
        os.chown(path, user, user)
    made = tools.backup_now(settings, None)
    folder.rename(shop_dir / "moved-away")
    tools.restore(settings, made.path, unit_keys=True)
    for place in (store, folder):
        found = [place, *place.rglob("*")]
        assert len(found) > 2
        assert {path.stat().st_uid for path in found} == {user}


async def test_the_schedule_rotates_and_says_when_it_fails(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = settings_of(shop_dir, unit)
    async with open_shop(settings) as shop:
        target = shop_dir / "stick"
        clock = FakeClock(NOON)
        work = Backups(
            db=shop.gateway.db,
            clock=clock,
            store=settings.store.directory,
            unit=None,
            target=target,
            every_s=3600,
            keep=3,
        )
        for _ in range(5):
            assert await work.once()
            clock.pass_time(hours=1)
        files = backup.found(target)
        assert len(files) == 3
        assert files[-1].name == work.last
        assert f"{NOON + timedelta(hours=4):%Y%m%dT%H}" in files[-1].name
        for file in files:
            file.unlink()
        target.rmdir()
        target.write_text("a file where the stick was")
        assert not await work.once()
        assert work.problem is not None
        await settle()


async def test_a_backup_of_a_large_store_takes_little_memory(tmp_path: Path) -> None:
    """Years of sales do not fit into a mini-PC's memory; the copy is made piece by piece."""
    async with open_database(tmp_path / "store") as db:
        await fill(db, 40_000)
        tracemalloc.start()
        made = await asyncio.to_thread(
            backup.make, tmp_path / "store", None, tmp_path / "backups", datetime.now(UTC)
        )
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert backup.found(tmp_path / "backups") == [made.path]
    # Compressed, and the whole of it all the same.
    assert 1_000_000 < made.size < (tmp_path / "store/gateway.db").stat().st_size / 3
    assert peak < 5_000_000


async def test_backups_leave_room_for_selling(small_disk: Path) -> None:
    """The oldest go first, never the newest; what a killed backup left goes, too."""
    store, target = small_disk / "store", small_disk / "backups"
    async with open_database(store) as db:
        await fill(db, 500)
        target.mkdir()
        names = [f"pos-gateway-2026112{day}T060000Z.tar.gz" for day in range(4)]
        for name in names:
            (target / name).write_bytes(b"x" * 2 * MB)
        (target / ".making-killed").mkdir()
        (target / ".making-killed" / "gateway.db").write_bytes(b"x" * 2 * MB)
        (target / "pos-gateway-20261123T000000Z.tar.gz.part").write_bytes(b"x" * 2 * MB)
        size = sum(file.stat().st_size for file in store.glob("gateway.db*"))
        backup.clear_away(target)
        free = shutil.disk_usage(small_disk).free
        # Three MB are missing: two of the four go.
        gone = backup.make_room(store, target, reserve=free + 3 * MB - 2 * size)
        assert [path.name for path in gone] == names[:2]
        assert backup.make_room(store, target, reserve=0) == []
        with pytest.raises(StoreError, match="There is no room for a backup"):
            backup.make_room(store, target, reserve=30 * MB)
        assert [path.name for path in backup.found(target)] == names[3:]
        # On the store's own disk there is always some kept, and here that is more than it has.
        with pytest.raises(StoreError, match=r"512|51\d|52\d"):
            backup.make(store, None, target, NOON)
        assert sorted(path.name for path in target.iterdir()) == names[3:]


async def test_a_backup_leaves_another_that_is_being_made_alone(tmp_path: Path) -> None:
    """A technician makes one by hand while the daemon makes its own."""
    store, target = tmp_path / "store", tmp_path / "backups"
    async with open_database(store):
        target.mkdir()
        (target / ".making-now").mkdir()
        (target / ".making-now" / "gateway.db").write_bytes(b"half of it")
        other = os.open(target, os.O_RDONLY)
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match="Another backup is being made"):
            backup.make(store, None, target, NOON)
        assert (target / ".making-now" / "gateway.db").read_bytes() == b"half of it"
        # Killed: its lock is gone, and what it left goes, too.
        os.close(other)
        made = backup.make(store, None, target, NOON)
        assert list(target.iterdir()) == [made.path]
