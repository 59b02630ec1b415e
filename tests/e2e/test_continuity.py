"""The cloud's outbox and the 24-hour ceiling, through the whole gateway."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.continuity.monitor import CeilingMonitor
from gateway.domain.ceiling import HOUR_US, Limits
from gateway.errors import StoreError
from gateway.store import continuity, outbox
from gateway.store.database import FILE_NAME, open_database
from gateway.vscu.client import ContactResult
from hw_fakes.cloud.server import FakeCloud
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.printers import so
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop

FAST = {"interval_s": 0.05, "backoff_max_s": 0.05}


async def until(shop: OpenShop, waiting: int, parked: int = 0) -> None:
    """Waits until the outbox has so many left."""
    async with asyncio.timeout(30):
        while True:
            news = asyncio.ensure_future(shop.gateway.db.changed())
            found = await shop.gateway.db.read(outbox.figures)
            if (found.waiting, found.parked) == (waiting, parked):
                news.cancel()
                return
            await news


async def test_everything_signed_reaches_the_cloud_once_and_in_order_whatever_the_cloud_does(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeCloud() as cloud:
        settings = make_settings(
            shop_dir, unit.url, cloud={"url": cloud.url, **FAST}, cloud_token=cloud.token
        )
        sold = []
        async with open_shop(settings) as shop:
            for knobs in [
                {},
                {"status5xx": 2},
                {"dropAfterCommit": 2},
                {"reorderAcks": True},
                {"latencyMs": 40},
                {"captive": True},
                {"captive": False, "down": True},
                {"down": False},
            ]:
                cloud.knobs(**knobs)
                for _ in range(5):
                    reply = await shop.till().sell(f"key-{len(sold)}", a_sale())
                    assert reply.status == 201
                    sold.append(reply.json["invoiceId"])
            await until(shop, 0)
        assert [record["invoiceId"] for record in cloud.records] == sold
        assert [record["seq"] for record in cloud.records] == list(range(1, len(sold) + 1))
        assert [r["payload"]["receipt"]["rcptNo"] for r in cloud.records] == list(
            range(1, len(sold) + 1)
        )


async def test_a_refused_record_is_parked_and_the_rest_flows(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeCloud() as cloud:
        cloud.knobs(rejectNext=1)
        settings = make_settings(
            shop_dir, unit.url, cloud={"url": cloud.url, **FAST}, cloud_token=cloud.token
        )
        async with open_shop(settings) as shop:
            for number in range(4):
                await shop.till().sell(f"key-{number}", a_sale())
            await until(shop, 0, parked=1)
            status = await shop.till().request("GET", "/v1/status")
        assert len(cloud.records) == 3
        assert status.json["cloud"]["parked"] == 1


async def test_one_record_that_spoils_every_batch_is_found_and_parked(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeCloud() as cloud:
        cloud.knobs(down=True)
        settings = make_settings(
            shop_dir, unit.url, cloud={"url": cloud.url, **FAST}, cloud_token=cloud.token
        )
        async with open_shop(settings) as shop:
            replies = [await shop.till().sell(f"key-{n}", a_sale()) for n in range(9)]
            cloud.knobs(badRequestFor=[replies[4].json["invoiceId"]], down=False)
            await until(shop, 0, parked=1)
        assert len(cloud.records) == 8


@pytest.mark.parametrize(
    ("fault", "mended"),
    [
        ({"badRequest": True}, {"badRequest": False}),
        ({"rejectNext": 1_000_000}, {"rejectNext": 0}),
    ],
)
async def test_a_cloud_that_refuses_everything_parks_nothing(
    unit: UnitControl, shop_dir: Path, fault: dict[str, Any], mended: dict[str, Any]
) -> None:
    """And when it is mended, the one record that is really bad is parked, the rest flows."""
    async with FakeCloud() as cloud:
        cloud.knobs(**fault)
        settings = make_settings(
            shop_dir, unit.url, cloud={"url": cloud.url, **FAST}, cloud_token=cloud.token
        )
        async with open_shop(settings) as shop:
            # One by one, as a quiet shop sells: each stands alone when it is refused.
            replies = [await shop.till().sell(f"key-{n}", a_sale()) for n in range(8)]
            await until(shop, 8)
            problem = ""
            async with asyncio.timeout(30):
                while "refuses every record" not in problem:
                    status = await shop.till().request("GET", "/v1/status")
                    problem = status.json["cloud"]["problem"] or ""
            shown = status.json["cloud"]
            assert (shown["state"], shown["waiting"], shown["parked"]) == ("away", 8, 0)
            cloud.knobs(rejectInvoices=[replies[0].json["invoiceId"]], **mended)
            await until(shop, 0, parked=1)
            status = await shop.till().request("GET", "/v1/status")
            assert status.json["cloud"]["ok"] is True
        assert [record["invoiceId"] for record in cloud.records] == [
            reply.json["invoiceId"] for reply in replies[1:]
        ]


async def test_a_restart_sends_what_was_left(unit: UnitControl, shop_dir: Path) -> None:
    async with FakeCloud() as cloud:
        cloud.knobs(dropAfterCommit=1_000_000)
        settings = make_settings(
            shop_dir, unit.url, cloud={"url": cloud.url, **FAST}, cloud_token=cloud.token
        )
        async with open_shop(settings) as shop:
            await shop.till().sell("key", a_sale())
            await cloud.wait_for(1, 30)
        cloud.knobs(dropAfterCommit=0)
        async with open_shop(settings) as shop:
            await until(shop, 0)
        assert len(cloud.records) == 1
        assert cloud.deliveries[cloud.records[0]["invoiceId"]] >= 2


async def test_at_hour_24_signing_halts_everything_else_goes_on_and_contact_ends_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = FakeClock()
    settings = make_settings(shop_dir, unit.url)
    await unit.knobs(clockOffsetSeconds=_offset(clock))
    async with open_shop(settings, clock) as shop:
        await clock.advance(seconds=1)
        till = shop.till()
        signed = await till.sell("before", a_sale(tillReceiptNo="before"))
        assert signed.status == 201, signed.json
        await unit.knobs(upstream="offline", ceilingReading="off")
        await clock.advance(hours=23, minutes=59, seconds=57)
        await unit.knobs(clockOffsetSeconds=_offset(clock))
        last = await till.sell("last", a_sale())
        assert last.status == 201, last.json
        assert last.json["ceiling"]["state"] == "WARNING"
        clock.pass_time(seconds=5)
        halted = await till.sell("halted", a_sale())
        assert (halted.status, halted.json["code"]) == (503, "SUSPENDED")
        assert halted.json["signed"] == "no"
        assert int(halted.headers["Retry-After"]) > 0
        path = f"/v1/invoices/{signed.json['invoiceId']}"
        body = {"tillReceiptNo": "CN-1", "reason": "06"}
        note = await till.request("POST", f"{path}/credit-notes", key="note", json=body)
        assert (note.status, note.json["code"]) == (503, "SUSPENDED")
        assert int(note.headers["Retry-After"]) > 0
        for read in (path, "/v1/reports/x", "/v1/codes", "/metrics"):
            assert (await till.request("GET", read)).status == 200
        replay = await till.sell("before", a_sale(tillReceiptNo="before"))
        assert replay.body == signed.body
        status = await till.request("GET", "/v1/status")
        assert status.json["state"] == "SUSPENDED"
        page = await till.request("GET", "/")
        assert "SUSPENDED" in page.body.decode()
        await unit.knobs(upstream="online")
        # The clock stands still meanwhile: it would run away from KRA's.
        shop.gateway.monitor.contact_soon()
        await so(lambda: not shop.gateway.monitor.view().blocks)
        resumed = await till.sell("halted", a_sale(tillReceiptNo="x"))
        assert resumed.json["code"] == "IDEMPOTENCY_KEY_REUSED"
        assert (await till.sell("fresh", a_sale())).status == 201
    # Neither the sale nor the credit note of the halt was signed behind the till's back.
    assert [e["trdInvcNo"] for e in await unit.journal()][0] == "before"
    assert len(await unit.journal()) == 3


async def test_a_clock_in_its_own_past_signs_nothing_until_it_is_right(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=_offset(clock))
    async with open_shop(make_settings(shop_dir, unit.url), clock) as shop:
        await clock.advance(seconds=1)
        assert (await shop.till().sell("one", a_sale())).status == 201
        clock.step_wall(days=-400)
        reply = await shop.till().sell("two", a_sale())
        assert (reply.status, reply.json["code"]) == (503, "CLOCK_FAULT")
        clock.step_wall(days=400)
        assert (await shop.till().sell("three", a_sale())).status == 201
    assert len(await unit.journal()) == 2


def _offset(clock: FakeClock) -> int:
    """The unit's clock set to the test's."""
    import time

    return round(clock.now().timestamp() - time.time())


async def test_a_commit_that_failed_first_still_starts_the_stopwatch(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The disk is full at the commit of the first sale after a contact: reading B must not forget."""
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    async with open_shop(make_settings(shop_dir, unit.url), clock) as shop:
        db, monitor = shop.gateway.db, shop.gateway.monitor

        def fails(conn: sqlite3.Connection) -> None:
            monitor.record_signed(conn)
            raise StoreError("no room")

        with pytest.raises(StoreError):
            await db.write(fails)
        clock.pass_time(seconds=1)
        await db.write(monitor.record_signed)
        stored = await db.read(continuity.load)
    assert stored is not None
    assert stored.unsent_age_us == 1_000_000


async def test_a_warning_strip_comes_out_at_once(unit: UnitControl, shop_dir: Path) -> None:
    """The clock stands still from the change on: only the word after its commit wakes the spool."""
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=_offset(clock))
    async with FakePrinter() as printer:
        ports = {"counter": {"port": printer.device_path, "baud": 115200}}
        async with open_shop(make_settings(shop_dir, unit.url, printers=ports), clock) as shop:
            await clock.advance(seconds=1)
            await unit.knobs(upstream="offline", ceilingReading="off")
            clock.pass_time(hours=20)
            shop.gateway.monitor.contact_soon()
            (slip,) = await printer.wait_for_slips(1, 30)
    assert "SELLING STOPS" in " ".join(slip.text().split())


async def test_who_waits_for_a_change_of_the_ceiling_is_told_on_the_loop_after_the_commit(
    tmp_path: Path,
) -> None:
    loop_thread = threading.get_ident()
    told: list[tuple[int, str, int]] = []

    class Deaf:
        async def contact(self) -> ContactResult:
            return ContactResult(False, None, "nobody there")

    async with open_database(tmp_path / "store") as db:

        def tell(what: str) -> None:
            # A connection of its own sees what is committed, and nothing else.
            with closing(sqlite3.connect(tmp_path / "store" / FILE_NAME)) as conn:
                (count,) = conn.execute("SELECT COUNT(*) FROM event").fetchone()
            told.append((threading.get_ident(), what, count))

        monitor = CeilingMonitor(
            db=db,
            clock=FakeClock(),
            link=Deaf(),
            limits=Limits(limit_us=HOUR_US, online_us=60_000_000),
            contact_interval_s=60,
            on_change=lambda conn, view: tell("in the commit"),
            on_changed=lambda: tell("after it"),
        )
        task = asyncio.ensure_future(monitor.run())
        await monitor.first_answer(60)
        task.cancel()
    (first, *_), (second, *_) = told
    assert [(what, count) for _, what, count in told] == [("in the commit", 0), ("after it", 1)]
    assert first != loop_thread
    assert second == loop_thread
