"""`make bench`: the gateway's figures beside the bare unit's, in one run on this machine.

The daemon is the real one, with the fake unit's JVM in its process; tills speak HTTP from this
process, on the same cores, so absolute figures are the machine's and the differences are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import operator
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from gateway.store.database import open_database
from hw_fakes.cloud.server import FakeCloud
from hw_fakes.printer.peer import FakePrinter
from tests.bench import counter
from tests.bench.figures import bar, milliseconds, quantile
from tests.bench.payments import payments
from tests.support.backlog import fill
from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, TillClient, a_sale

STRAIGHT = 400
THROUGH = 400
PER_LOAD = 640
WAITING = 50_000
# What the whole is held to, with the fake unit in the process (see README): milliseconds, seconds, MB.
ADDED_MS, READY_S, RSS_MB = 5.0, 2.0, 150.0


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


async def straight(
    session: aiohttp.ClientSession, url: str, body: dict[str, object]
) -> list[float]:
    """The same sale posted to the unit itself, under numbers the gateway will not use."""
    took = []
    for number in range(STRAIGHT):
        body["invcNo"] = 1_000_000 + number
        start = time.perf_counter()
        async with session.post(f"{url}/trnsSales/saveSales", json=body) as answer:
            value = await answer.json(content_type=None)
        took.append(time.perf_counter() - start)
        assert value["resultCd"] == "000", value
    return took


async def sell(till: TillClient, prefix: str, count: int) -> list[float]:
    took = []
    for number in range(count):
        sale = a_sale()
        start = time.perf_counter()
        reply = await till.sell(f"{prefix}-{number}", sale)
        took.append(time.perf_counter() - start)
        assert reply.status == 201, reply.json
    return took


async def commits(till: TillClient) -> int:
    return int((await till.request("GET", "/v1/status")).json["store"]["durableCommits"])


async def load(daemon: Daemon, session: aiohttp.ClientSession, tills: int) -> list[float]:
    names = list(TOKENS)
    probe = daemon.till(session)
    before = await commits(probe)
    stop = asyncio.Event()
    status: list[float] = []

    async def watch() -> None:
        while not stop.is_set():
            start = time.perf_counter()
            await probe.request("GET", "/v1/status")
            status.append(time.perf_counter() - start)
            await asyncio.sleep(0.05)

    watcher = asyncio.ensure_future(watch())
    each = PER_LOAD // tills
    start = time.perf_counter()
    took = await asyncio.gather(
        *(
            sell(daemon.till(session, names[n % len(names)]), f"load-{tills}-{n}", each)
            for n in range(tills)
        )
    )
    elapsed = time.perf_counter() - start
    stop.set()
    await watcher
    used = await commits(probe) - before
    sales = each * tills
    print(
        f"{tills:3d} tills: {sales / elapsed:6.0f} sales/s   sale {milliseconds(functools.reduce(operator.iadd, took, []))}"
        f"   fsyncs/sale {used / sales:4.2f}   status p95 {quantile(status, 0.95) * 1e3:5.2f} ms"
    )
    return status


async def swallowed(folder: Path, session: aiohttp.ClientSession) -> None:
    """Six answers about one sale are swallowed; one sale, posted twice with one key."""
    daemon = Daemon(folder)
    text = daemon.config.read_text().replace("[store]", "read_back = true\n[store]")
    daemon.config.write_text(text)
    await daemon.start()
    await daemon.unit.knobs(readBack=True, swallowAnswers=6)
    sale = a_sale()
    silent = asyncio.ensure_future(_until_it_answers(daemon))

    async def until_told() -> bytes:
        while (reply := await daemon.till(session).sell("lost", sale)).status != 201:
            pass
        return reply.body

    first, second = await asyncio.gather(until_told(), until_told())
    told = time.perf_counter()
    after = told - await silent
    receipts = len(await daemon.unit.journal())
    same = "identical" if first == second else "DIFFERENT"
    print(
        f"six answers lost:     {receipts} receipt, two {same} answers, {after:.2f} s after the "
        "unit answers again"
    )
    await daemon.stop()


async def backlog(folder: Path, session: aiohttp.ClientSession) -> None:
    """50,000 records wait for the cloud while a till sells; the same till when they are gone."""
    async with FakeCloud() as cloud:
        daemon = Daemon(
            folder,
            f'[cloud]\nurl = "{cloud.url}"\n[reference]\nevery_hours = 0\n',
            {"GATEWAY_CLOUD_TOKEN": cloud.token},
        )
        cloud.knobs(down=True)
        await daemon.start()
        await sell(daemon.till(session), "warm", 50)
        await sell(daemon.till(session), "before", THROUGH)
        before = rss_mb(daemon.pid)
        await daemon.stop()
        async with open_database(folder / "store") as db:
            await fill(db, WAITING)
        await daemon.start()
        till = daemon.till(session)
        away = await sell(till, "away", THROUGH)
        cloud.knobs(down=False)
        busy, rss = [], rss_mb(daemon.pid)
        # Below a hundred it is the running sales that wait, not the backlog.
        while (await till.request("GET", "/v1/status")).json["cloud"]["waiting"] > 100:
            busy += await sell(till, f"busy-{len(busy)}", 20)
            rss = max(rss, rss_mb(daemon.pid))
        quiet = await sell(till, "quiet", THROUGH)
        print(
            f"{WAITING} waiting for the cloud: cloud away {milliseconds(away)}; draining "
            f"{milliseconds(busy)}; gone {milliseconds(quiet)}; ratio p50 "
            f"{quantile(busy, 0.5) / quantile(quiet, 0.5):.2f}; RSS {rss - before:+.0f} MB"
        )
        await daemon.stop()


async def _until_it_answers(daemon: Daemon) -> float:
    while (await daemon.unit.state())["knobs"]["swallowAnswers"] > 0:
        await asyncio.sleep(0.005)
    return time.perf_counter()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(FakePrinter()) as printer:
        printer.plug()
        extra = f'[printers.counter]\nport = "{printer.device_path}"\nbaud = 115200\n'
        daemon = Daemon(Path(folder), extra)
        starts = []
        for _ in range(3):
            start = time.perf_counter()
            await daemon.start()
            starts.append(time.perf_counter() - start)
            if len(starts) < 3:
                await daemon.stop()
        print(f"start to ready: {min(starts):.2f} s to {max(starts):.2f} s (3 starts)")
        print(f"RSS when ready: {rss_mb(daemon.pid):.0f} MB (gateway, JVM and unit in one process)")
        case = Path(__file__).parents[1] / "data/sale-cases.json"
        body = json.loads(case.read_text())["cases"]["sale-simple"]["request"]
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            await sell(daemon.till(session), "warm", 100)
            # One slip, so that the printing code is loaded when the memory is read.
            await daemon.till(session).sell("print", a_sale(printer="counter"))
            await printer.wait_for_slips(1, 20)
            alone = await straight(session, daemon.unit.url, body)
            before = await commits(daemon.till(session))
            through = await sell(daemon.till(session), "through", THROUGH)
            used = await commits(daemon.till(session)) - before
            print(f"straight to the unit: {milliseconds(alone)}")
            print(
                f"through the gateway:  {milliseconds(through)}   fsyncs/sale {used / THROUGH:.2f}"
            )
            added = quantile(through, 0.5) - quantile(alone, 0.5)
            print(f"the gateway adds:     {added * 1e3:.2f} ms p50")
            status = {tills: await load(daemon, session, tills) for tills in (1, 8, 32)}
        rss = rss_mb(daemon.pid)
        print(f"RSS after the load:   {rss:.0f} MB (with the printing code loaded)")
        kept = [
            bar("added to a sale, p50", added * 1e3, ADDED_MS, "ms"),
            bar("start to ready, slowest", max(starts), READY_S, "s"),
            bar("memory after the load", rss, RSS_MB, "MB"),
            bar(
                "status p95 while 8 tills sell",
                quantile(status[8], 0.95) * 1e3,
                counter.STATUS_P95_MS,
                "ms",
            ),
        ]
        lost = Path(folder) / "lost"
        lost.mkdir()
        async with aiohttp.ClientSession() as session:
            await swallowed(lost, session)
        paid = Path(folder) / "paid"
        paid.mkdir()
        await payments(paid)
        full = Path(folder) / "backlog"
        full.mkdir()
        async with aiohttp.ClientSession() as session:
            await backlog(full, session)
        if await daemon.stop() != 0:
            sys.exit(daemon.log()[-2000:])
        paper = Path(folder) / "counter"
        paper.mkdir()
        kept.append(await counter.main(paper))
        if not all(kept):
            sys.exit(1)


if __name__ == "__main__":
    asyncio.run(main())
