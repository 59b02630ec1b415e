"""The disk at its worst: full, failing at fsync, a damaged page, a second gateway on the same files."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway import daemon as process
from gateway.app import Gateway, open_gateway
from gateway.errors import StoreError
from gateway.settings import Settings
from gateway.store import causes, database, invoices, marker, sqlite_errors
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import UnitControl
from tests.conftest import need_tool
from tests.support.clock import FakeClock
from tests.support.daemon import Daemon
from tests.support.shop import Reply, TillClient, a_sale, make_settings, open_shop

MB = 1024 * 1024


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    file = disk / "somebody-elses-video"
    handle = os.open(file, os.O_CREAT | os.O_WRONLY)
    for size in (65536, 4096, 512):
        try:
            while True:
                os.write(handle, b"x" * size)
        except OSError:
            continue
    os.close(handle)
    return file


async def test_a_full_disk_stops_selling_last_and_ends_by_itself(
    unit: UnitControl, small_disk: Path
) -> None:
    settings = make_settings(
        small_disk, unit.url, store={"directory": small_disk / "store", "ballast_mb": 8},
        backup={"every_hours": 6, "directory": small_disk / "backups"}, api={"wait_s": 15},
    )  # fmt: skip
    async with open_shop(settings) as shop:
        till = shop.till()
        before = a_sale()
        assert (await till.sell("before", before)).status == 201
        video = fill(small_disk)
        # The ballast goes first: many more sales, while a backup cannot be made any more.
        sold = 0
        sale = a_sale()
        while (reply := await till.sell(f"full-{sold}", sale)).status == 201:
            sold += 1
            sale = a_sale()
            if sold == 20:
                status = (await till.request("GET", "/v1/status")).json
                assert status["store"]["diskFull"] is True
        assert sold > 100
        # Now it is really full: a clear answer, nothing signed, the pages go on. If it filled up
        # between the unit's signature and its commit, the till hears so, and the commit waits.
        assert reply.json["code"] in ("DISK_FULL", "STILL_SIGNING")
        assert reply.json["signed"] == ("no" if reply.json["code"] == "DISK_FULL" else "unknown")
        # What was signed before is told as ever.
        assert (await till.sell("before", before)).status == 201
        waits = int(reply.json["code"] == "STILL_SIGNING")
        assert (await till.request("GET", "/")).status == 200
        assert len(await unit.journal()) == sold + 1 + waits
        # Space returns, and nobody does anything else.
        video.unlink()
        while (await till.sell(f"full-{sold}", sale)).status != 201:
            pass
    journal = await unit.journal()
    assert len(journal) == sold + 2
    assert len({entry["trdInvcNo"] for entry in journal}) == sold + 2


async def test_a_start_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    unit: UnitControl, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ROOM_S", 0.1)
    port = free_port()
    settings = make_settings(
        small_disk, unit.url, store={"directory": small_disk / "store"}, api={"port": port}
    )
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
        video = fill(small_disk)
    # It stopped in order, full as the disk is. What that freed is taken, too.
    more = small_disk / "more"
    fill(small_disk).rename(more)
    running = asyncio.ensure_future(process.run(settings))
    async with aiohttp.ClientSession() as session:
        till = TillClient(session, f"http://127.0.0.1:{port}")
        reply = await _answer(till, running)
        assert (reply.status, reply.json["code"]) == (503, "DISK_FULL")
        assert reply.json["signed"] == "unknown"
        assert not running.done()
        async with session.get(till.url + "/") as page:
            text = await page.text()
        assert "Free 16 MB or more" in text and "restore" not in text
    for file in (video, more):
        file.unlink(missing_ok=True)
    # Not 0: systemd starts it again, with a JVM of its own.
    assert await asyncio.wait_for(running, 30) == 1
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("after", a_sale())).status == 201


async def test_a_disk_that_filled_up_while_nothing_ran_gets_the_ballasts_room(
    unit: UnitControl, small_disk: Path
) -> None:
    settings = make_settings(
        small_disk, unit.url, store={"directory": small_disk / "store", "ballast_mb": 8}
    )
    async with open_shop(settings):
        pass
    fill(small_disk)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("key", a_sale())).status == 201
        status = (await shop.till().request("GET", "/v1/status")).json
        assert status["store"]["diskFull"] is True


def test_files_of_another_user_are_not_told_as_damage(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    sqlite3.connect(path).close()
    path.touch()
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
    try:
        with pytest.raises(StoreError, match="must belong to the gateway's user") as caught:
            database._prepare_writer(conn, path, 100)
    finally:
        conn.close()
    assert caught.value.code == "STORE_UNAVAILABLE"


async def _answer(till: TillClient, running: asyncio.Future[int]) -> Reply:
    async with asyncio.timeout(30):
        while True:
            assert not running.done()
            try:
                return await till.sell("full", a_sale())
            except aiohttp.ClientError:
                await asyncio.sleep(0.01)


@pytest.mark.timeout(120)
async def test_a_failing_fsync_stops_signing_and_is_not_tried_again(tmp_path: Path) -> None:
    """The kernel's own EIO, injected into the real daemon: after it, no fsync is believed."""
    strace = need_tool("strace")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        daemon = Daemon(tmp_path)
        inject = "inject=fsync,fdatasync:error=EIO:when=60+"
        daemon.prefix = [strace, "-f", "-qq", "-o", "/dev/null",
                         "-e", "trace=fsync,fdatasync", "-e", inject]  # fmt: skip
        await daemon.start()
        told: dict[str, bytes] = {}
        key, sale = "", {}
        for number in range(200):
            key, sale = f"key-{number}", a_sale()
            try:
                reply = await daemon.till(session).sell(key, sale)
            except aiohttp.ClientError:
                break
            if reply.status != 201:
                # The write-ahead may be on the disk all the same, and be taken up after the restart.
                assert reply.status in (202, 503)
                assert reply.json["signed"] == "unknown"
                break
            told[key] = reply.body
        else:
            pytest.fail("no fsync failed")
        assert told
        # The process ends by itself: only a fresh look at the file may be trusted.
        assert await daemon.ended() != 0
        assert "store.failed" in daemon.log()
        # At once, and not when the next loop happens to write.
        assert re.search(r"gateway.stopping reason=(store|signer)", daemon.log())
        daemon.prefix = []
        daemon.config.write_text(
            daemon.config.read_text().replace("[store]", "read_back = true\n[store]")
        )
        await daemon.start()
        await daemon.unit.knobs(readBack=True)
        while (reply := await daemon.till(session).sell(key, sale)).status != 201:
            assert reply.status in (202, 503)
        journal = await daemon.unit.journal()
        assert len({entry["trdInvcNo"] for entry in journal}) == len(journal)
        assert len(journal) == len(told) + 1
        await daemon.stop()


async def test_a_damaged_store_is_never_signed_with(tmp_path: Path) -> None:
    """Garbage in the middle of the file: every till and every phone is told what to do."""
    async with aiohttp.ClientSession() as session:
        daemon = Daemon(tmp_path)
        await daemon.start()
        for number in range(30):
            assert (await daemon.till(session).sell(f"k{number}", a_sale())).status == 201
        await daemon.stop()
        file = tmp_path / "store" / "gateway.db"
        body = bytearray(file.read_bytes())
        for page in range(4, len(body) // 4096):
            body[page * 4096 : page * 4096 + 64] = os.urandom(64)
        file.write_bytes(body)
        await daemon.start()
        reply = await daemon.till(session).sell("after", a_sale())
        assert (reply.status, reply.json["code"]) == (503, "STORE_CORRUPT")
        # Nothing is signed now; what was signed before cannot be read.
        assert reply.json["signed"] == "unknown"
        async with session.get(daemon.url + "/") as page:
            text = await page.text()
            assert page.status == 503
        assert "Nothing is signed" in text
        assert "pos-gateway restore" in text
        # Told to stop, and stopped in order: systemd shows no failure.
        assert await daemon.stop() == 0


async def test_a_second_gateway_on_the_same_files_is_refused(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings):
        with pytest.raises(StoreError, match="Another gateway"):
            async with open_gateway(settings):
                pass


async def test_after_an_unclean_stop_the_page_says_what_was_in_hand(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        daemon = Daemon(tmp_path)
        daemon.config.write_text(
            daemon.config.read_text().replace("[store]", "read_back = true\n[store]")
        )
        await daemon.start()
        await daemon.unit.knobs(readBack=True, latencyMs=60_000)
        asked = [
            asyncio.ensure_future(daemon.till(session, f"till-{n}").sell(f"k{n}", a_sale()))
            for n in (1, 2, 3)
        ]
        events = session.get(daemon.url + "/live")
        async with events as stream:
            # Until the first sale is at the unit and the others are claimed.
            seen = 0
            await daemon.till(session).request("GET", "/v1/status")
            while seen < 3:
                status = (await daemon.till(session).request("GET", "/v1/status")).json
                seen = status["signer"]["waiting"] + (status["signer"]["openInvoice"] is not None)
            stream.close()
        await daemon.kill()
        await asyncio.gather(*asked, return_exceptions=True)
        await daemon.start()
        stop = (await daemon.till(session).request("GET", "/v1/status")).json["gateway"]["lastStop"]
        assert stop["inHand"] == 3
        assert stop["notSigned"] + stop["inDoubt"] + stop["completed"] == 3
        assert "3 sales in hand" in stop["text"]
        async with session.get(daemon.url + "/") as page:
            assert "3 sales in hand" in await page.text()
        assert "3 sales in hand" in daemon.log()
        assert await daemon.stop() == 0
        await daemon.start()
        status = (await daemon.till(session).request("GET", "/v1/status")).json
        assert status["gateway"]["lastStop"] is None
        await daemon.stop()


async def test_the_watchdog_hears_of_a_writer_that_hangs(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that neither writes nor fails: the loop lives and nothing is signed."""
    clock, goes_on = FakeClock(), threading.Event()
    await unit.knobs(
        clockOffsetSeconds=round(clock.now().timestamp() - time.time()), latencyMs=3000
    )
    async with open_shop(make_settings(shop_dir, unit.url), clock) as shop:
        selling = asyncio.ensure_future(shop.till().sell("key", a_sale()))
        while await shop.gateway.db.read(invoices.open_row) is None:
            assert await process.signing_problem(shop.gateway) is None
        writing = asyncio.ensure_future(shop.gateway.db.write(lambda conn: goes_on.wait(60)))
        with monkeypatch.context() as patch:
            patch.setattr(process, "STORE_MAX_S", 0.2)
            assert "the store has not answered" in str(await process.signing_problem(shop.gateway))
        clock.pass_time(seconds=100)
        assert "in hand for 10" in str(await process.signing_problem(shop.gateway))
        goes_on.set()
        await writing
        assert (await selling).status == 201
        assert await process.signing_problem(shop.gateway) is None


# --- other errors of the system -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, "DISK_FULL", "full"),
        (errno.EDQUOT, "DISK_FULL", "full"),
        (errno.EROFS, "STORE_READ_ONLY", "dmesg"),
        (errno.EMFILE, "STORE_UNAVAILABLE", "file descriptor"),
        (errno.ENFILE, "STORE_UNAVAILABLE", "file descriptor"),
        (errno.EACCES, "STORE_UNAVAILABLE", "gateway's user"),
        (errno.EPERM, "STORE_UNAVAILABLE", "gateway's user"),
        (errno.ENOENT, "STORE_UNAVAILABLE", "mounted"),
        (errno.ENOTDIR, "STORE_UNAVAILABLE", "mounted"),
        (errno.EIO, "STORE_UNAVAILABLE", "disk"),
    ],
)
def test_an_error_of_the_system_is_named_by_its_own_cause(
    number: int, code: str, words: str
) -> None:
    error = causes.explain(OSError(number, os.strerror(number)), Path("/data/store"))
    assert (error.code, error.status) == (code, 503)
    assert words in error.detail
    if number != errno.EACCES and number != errno.EPERM:
        assert "user" not in error.detail


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


async def test_a_read_only_disk_is_explained_and_the_gateway_goes_on_when_it_is_mended(
    unit: UnitControl, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "ROOM_S", 0.1)
    port = free_port()
    settings = make_settings(
        small_disk, unit.url, store={"directory": small_disk / "store"}, api={"port": port}
    )
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
    remount(small_disk, "ro")
    try:
        running = asyncio.ensure_future(process.run(settings))
        async with aiohttp.ClientSession() as session:
            till = TillClient(session, f"http://127.0.0.1:{port}")
            reply = await _answer(till, running)
            assert (reply.status, reply.json["code"]) == (503, "STORE_READ_ONLY")
            assert reply.json["signed"] == "unknown"
            async with session.get(till.url + "/") as page:
                text = await page.text()
            assert "read-only" in text
            assert "dmesg" in text
            assert "pos-gateway restore" not in text
    finally:
        remount(small_disk, "rw")
    # Not 0: systemd starts it again.
    assert await asyncio.wait_for(running, 30) == 1
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("after", a_sale())).status == 201


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "START_FAILED", "Too many open files"),
        (ValueError("no such date"), "START_FAILED", "no such date"),
        (StoreError("The unit's lock is held."), "STORE_UNAVAILABLE", "lock"),
        (sqlite3.OperationalError("no such table: meta"), "START_FAILED", "no such table"),
    ],
)
async def test_every_failed_start_is_explained_and_tried_again(
    unit: UnitControl,
    shop_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    code: str,
    words: str,
) -> None:
    """Without a page the tills get "connection refused", and nobody knows why."""

    @asynccontextmanager
    async def fails(settings: Settings) -> AsyncIterator[Gateway]:
        raise error
        yield

    monkeypatch.setattr(process, "ROOM_S", 0.1)
    monkeypatch.setattr(process, "RETRY_S", 1.0)
    monkeypatch.setattr(process, "open_gateway", fails)
    port = free_port()
    running = asyncio.ensure_future(
        process.run(make_settings(shop_dir, unit.url, api={"port": port}))
    )
    async with aiohttp.ClientSession() as session:
        till = TillClient(session, f"http://127.0.0.1:{port}")
        reply = await _answer(till, running)
        assert (reply.status, reply.json["code"], reply.json["signed"]) == (503, code, "unknown")
        assert words in reply.json["detail"]
    assert await asyncio.wait_for(running, 30) == 1


async def test_a_store_that_cannot_be_made_is_explained(unit: UnitControl, shop_dir: Path) -> None:
    (shop_dir / "file").write_text("not a directory")
    settings = make_settings(shop_dir, unit.url, store={"directory": shop_dir / "file" / "store"})
    with pytest.raises(StoreError, match="mounted"):
        async with open_gateway(settings):
            pass


async def test_no_loop_dies_of_a_lock_and_selling_goes_on_after_it(
    unit: UnitControl, shop_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A technician's sqlite3 with BEGIN IMMEDIATE."""
    settings = make_settings(
        shop_dir,
        unit.url,
        store={"directory": shop_dir / "store", "busy_timeout_ms": 50},
        reference={"every_hours": 1},
    )
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
        other = sqlite3.connect(settings.store.directory / "gateway.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        sale = a_sale()
        reply = await shop.till().sell("locked", sale)
        assert (reply.status, reply.json["code"], reply.json["signed"]) == (503, "STORE_BUSY", "no")
        # Loops that write: KRA's lists and the ceiling, each asked for now.
        shop.gateway.lists.link_is_back()
        shop.gateway.monitor.contact_soon()
        async with asyncio.timeout(30):
            while sum("store.waits" in record.message for record in caplog.records) < 4:
                await asyncio.sleep(0.01)
        assert await process.signing_problem(shop.gateway) is None
        status = (await shop.till().request("GET", "/v1/status")).json
        assert status["store"]["locked"] is True
        assert "The store is locked" in (await shop.till().request("GET", "/")).body.decode()
        other.execute("ROLLBACK")
        other.close()
        assert (await shop.till().sell("locked", sale)).status == 201
        assert not [record for record in caplog.records if "loop.died" in record.message]
        assert (await shop.till().request("GET", "/v1/status")).json["store"]["locked"] is False


async def test_the_page_at_the_till_shows_that_nothing_can_be_sold(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Whoever keeps /counter open there sees no other page."""
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        page = (await shop.till().request("GET", "/counter")).body.decode()
        assert "SUSPENDED" not in page
        shop.gateway.monitor.unit_says_over = True
        for path in ("/counter", "/counter/fragment"):
            page = (await shop.till().request("GET", path)).body.decode()
            assert "SUSPENDED" in page
            assert "Bring the internet back" in page


@pytest.mark.parametrize("number", [1, 2**31 - 1, 2**31, 2**53 - 1, 2**53, 2**63 - 1])
def test_the_marker_reads_every_number_that_it_writes(tmp_path: Path, number: int) -> None:
    mark = marker.Mark("0" * 26, number)
    assert marker.put(tmp_path, mark)
    assert marker.read(tmp_path) == mark
    assert marker.put(tmp_path, marker.Mark("0" * 26, 5))


def test_every_form_of_full_is_full_and_a_failed_fsync_is_not(small_disk: Path) -> None:
    """A quota and a disk without inodes have other names at SQLite than a full disk."""
    path = small_disk / "gateway.db"

    def says(name: str) -> bool:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorname = name
        return sqlite_errors.is_full(error, path)

    perhaps = (
        "SQLITE_IOERR_WRITE",
        "SQLITE_IOERR_SHMMAP",
        "SQLITE_IOERR_TRUNCATE",
        "SQLITE_CANTOPEN",
    )
    certainly = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")
    never = ("SQLITE_IOERR_FSYNC", "SQLITE_IOERR_READ", "SQLITE_CORRUPT", "SQLITE_BUSY")
    assert [name for name in (*perhaps, *certainly, *never) if says(name)] == [*certainly]
    fill(small_disk)
    assert [name for name in (*perhaps, *certainly, *never) if says(name)] == [*perhaps, *certainly]
