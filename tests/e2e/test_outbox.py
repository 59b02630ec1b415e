"""The outbox's protocol, its cap, its memory and its TLS."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import fastjsonschema
import pytest

from gateway.clock import SystemClock
from gateway.continuity.outbox import OutboxSender
from gateway.continuity.pace import Flow
from gateway.store import outbox
from gateway.store.database import Database, open_database
from gateway.sync.client import Acknowledged, CloudClient, NotTaken
from hw_fakes.cloud.server import FakeCloud
from hw_fakes.vscu.unit import UnitControl
from tests.support.authority import make_authority, served_with
from tests.support.backlog import fill
from tests.support.clock import FakeClock
from tests.support.shop import a_sale, make_settings, open_shop

OPENAPI = json.loads(resources.files("gateway.sync").joinpath("openapi.json").read_text())
MEGABYTE = 1024 * 1024


def schema(name: str) -> Any:
    """One of the document's schemas, with the others beside it for its references."""
    return fastjsonschema.compile(
        {"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]}
    )


async def until(db: Database, is_so: Callable[[outbox.OutboxFigures], bool]) -> None:
    """Waits, by the store's own news; the tests' own timeout ends it."""
    while True:
        news = asyncio.ensure_future(db.changed())
        if is_so(await db.read(outbox.figures)):
            news.cancel()
            return
        await news


async def drained(db: Database) -> None:
    await until(db, lambda figures: figures.waiting == 0)


def a_sender(db: Database, cloud: CloudClient, clock: Any, **changes: Any) -> OutboxSender:
    settings = {
        "batch_records": 100,
        "batch_bytes": 1_000_000,
        "interval_s": 5.0,
        "backoff_max_s": 300.0,
        **changes,
    }
    return OutboxSender(db=db, clock=clock, cloud=cloud, **settings)


async def test_client_and_fake_speak_what_is_written_down(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeCloud() as cloud:
        settings = make_settings(
            shop_dir, unit.url, cloud={"url": cloud.url}, cloud_token=cloud.token
        )
        batch, results = schema("Batch"), schema("Results")
        async with open_shop(settings) as shop:
            cloud.knobs(rejectNext=1)
            for number in range(3):
                await shop.till().sell(f"key-{number}", a_sale())
                await cloud.wait_for(number, 20)
                while cloud.last is None:
                    await shop.gateway.db.changed()
                sent, answered = cloud.last
                batch(sent)
                results(answered)
                cloud.last = None
        with pytest.raises(fastjsonschema.JsonSchemaException):
            batch({**sent, "records": [{**sent["records"][0], "sha256": "none"}]})
        [path] = OPENAPI["paths"]
        async with aiohttp.ClientSession() as session:
            url = cloud.url + path.format(gateway="g")
            async with session.post(url, json=sent) as reply:
                assert str(reply.status) in OPENAPI["paths"][path]["post"]["responses"]


async def test_fifty_thousand_waiting_fit_into_twenty_megabytes(tmp_path: Path) -> None:
    """All of them, through the real client, to a fake cloud in its own process."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hw_fakes.cloud", "--port", "0", "--token", "t"),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[-1]
        async with open_database(tmp_path / "store") as db:
            await fill(db, 50_000)
            client = CloudClient(url=url, gateway_id="g", token="t", timeout_s=30)
            async with client as cloud:
                sender = a_sender(db, cloud, FakeClock(), batch_records=1000)
                tracemalloc.start()
                task = asyncio.ensure_future(sender.run())
                await drained(db)
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
                task.cancel()
        assert peak < 20 * MEGABYTE
    finally:
        process.terminate()
        await process.wait()


async def sent_by_a_hasty_sender(db: Database, fake: FakeCloud) -> Any:
    """Nothing waits any more; the outbox's figures then."""
    client = CloudClient(url=fake.url, gateway_id="g", token=fake.token, timeout_s=30)
    async with client as cloud:
        sender = a_sender(db, cloud, SystemClock(), interval_s=0.05, backoff_max_s=0.05)
        task = asyncio.ensure_future(sender.run())
        await drained(db)
        task.cancel()
    return await db.read(outbox.figures)


async def test_a_long_run_of_bad_records_does_not_keep_the_good_ones_behind_it(
    tmp_path: Path,
) -> None:
    bad = [f"invoice-{number}" for number in range(13)]
    async with FakeCloud() as fake, open_database(tmp_path / "store") as db:
        await fill(db, 30)
        fake.knobs(badRequestFor=bad)
        figures = await sent_by_a_hasty_sender(db, fake)
        assert (figures.stored, figures.parked) == (17, 13)
        assert not set(bad) & {record["invoiceId"] for record in fake.records}


async def test_what_was_refused_just_before_the_cloud_was_mended_is_not_parked(
    tmp_path: Path,
) -> None:
    async with FakeCloud() as fake, open_database(tmp_path / "store") as db:
        await fill(db, 8)
        # All of the first batch, then three of those that are tried one by one.
        fake.knobs(rejectNext=8 + 3)
        figures = await sent_by_a_hasty_sender(db, fake)
    assert (figures.stored, figures.parked) == (8, 0)


async def test_a_cap_is_kept(tmp_path: Path) -> None:
    """64 kbit/s: so many bytes take so many seconds, whatever the link could do."""
    clock = FakeClock()
    async with FakeCloud() as fake, open_database(tmp_path / "store") as db:
        await fill(db, 300)
        client = CloudClient(url=fake.url, gateway_id="g", token=fake.token, timeout_s=30)
        async with client as cloud:
            sender = a_sender(db, cloud, clock, max_kbps=0.8)
            task = asyncio.ensure_future(sender.run())
            start_ns = clock.boottime_ns()
            while (await db.read(outbox.figures)).waiting:
                await clock.advance(seconds=0.1)
            took_s = (clock.boottime_ns() - start_ns) / 1e9
            task.cancel()
            # The last batch's own time need not be over.
            assert took_s * 100 > client.sent_bytes * 0.7
            assert len(fake.records) == 300


def test_the_rate_is_of_the_last_minute() -> None:
    flow = Flow()
    second = 1_000_000_000
    assert flow.per_minute(0) is None
    for at in range(600):
        flow.moved(at * second, 5)
    assert 295 <= (flow.per_minute(599 * second) or 0) <= 310
    assert flow.per_minute(700 * second) is None


async def test_only_the_pinned_authority_is_believed(tmp_path: Path) -> None:
    authority, certificate, key = make_authority(tmp_path)
    async with (
        FakeCloud(tls=served_with(certificate, key)) as fake,
        open_database(tmp_path / "store") as db,
    ):
        await fill(db, 1)
        batch = await db.read(lambda conn: outbox.next_batch(conn, 1, 10_000))
        for ca_file, kind in ((authority, Acknowledged), (None, NotTaken)):
            client = CloudClient(
                url=fake.url, gateway_id="g", token=fake.token, timeout_s=10, ca_file=ca_file
            )
            async with client as cloud:
                result = await cloud.send("batch", batch)
            assert isinstance(result, kind), result
        assert len(fake.records) == 1


async def test_a_technician_sends_what_was_refused_once_more(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakeCloud() as cloud:
        settings = make_settings(
            shop_dir, unit.url, cloud={"url": cloud.url}, cloud_token=cloud.token
        )
        async with open_shop(settings) as shop:
            cloud.knobs(rejectNext=1)
            sold = await shop.till().sell("key", a_sale())
            await until(shop.gateway.db, lambda figures: figures.parked == 1)
            assert (await shop.till().request("POST", "/v1/outbox/retry")).status == 401
            wanjiru = shop.technician()
            parked = await wanjiru.request("GET", "/v1/outbox/parked")
            assert [item["invoiceId"] for item in parked.json["parked"]] == [sold.json["invoiceId"]]
            again = await wanjiru.request("POST", "/v1/outbox/retry")
            assert again.json == {"records": 1}
            await cloud.wait_for(1, 20)
