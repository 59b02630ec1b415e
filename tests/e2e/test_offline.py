"""The real daemon loses KRA for real: the unit's upstream stops, real seconds go by."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import sys
import time
from pathlib import Path

import aiohttp
import pytest

from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.kra import FakeKra
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, a_sale, make_settings, open_shop

# A ceiling of twelve seconds and a heartbeat of half a second: the whole story in real time.
CEILING = """[ceiling]
limit_hours = 0.00334
contact_interval_s = 0.5
warn_percent = [25, 50, 75]
"""


async def state(daemon: Daemon, session: aiohttp.ClientSession, wanted: str) -> None:
    """Waits for the state on the status; the tests' own timeout ends it."""
    while (await daemon.till(session).request("GET", "/v1/status")).json["state"] != wanted:
        await asyncio.sleep(0.02)


async def status_of(daemon: Daemon, *more: str) -> tuple[int, str]:
    tokens = ",".join(f"{till}={token}" for till, token in TOKENS.items())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "status", "--config", str(daemon.config), *more,
        env={"PATH": "/usr/bin", "GATEWAY_TILL_TOKENS": tokens},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@pytest.mark.timeout(240)
async def test_the_story_of_an_outage_in_real_time(tmp_path: Path) -> None:
    """KRA's server stops, a login page answers in its place, and KRA comes back: real sockets."""
    kra = FakeKra()
    await kra.start()
    printer = FakePrinter()
    printer.plug()
    daemon = Daemon(
        tmp_path,
        CEILING + f'[printers.counter]\nport = "{printer.device_path}"\nbaud = 115200\n',
    )
    properties = tmp_path / "unit" / "config" / "application.properties"
    properties.write_text(properties.read_text() + f"api.external.domain={kra.url}\n")
    async with daemon, aiohttp.ClientSession() as session:
        await daemon.unit.knobs(ceilingReading="off")
        till = daemon.till(session)
        await state(daemon, session, "ONLINE")
        assert (await till.sell("one", a_sale())).status == 201
        await kra.stop()
        await state(daemon, session, "OFFLINE")
        assert (await till.sell("two", a_sale())).status == 201
        await state(daemon, session, "WARNING")
        await state(daemon, session, "SUSPENDED")
        reply = await till.sell("three", a_sale(tillReceiptNo="three"))
        assert (reply.status, reply.json["code"]) == (503, "SUSPENDED")
        kra.captive = True
        await kra.start()
        asked = kra.asked
        while kra.asked < asked + 2:
            assert (await till.sell("three", a_sale(tillReceiptNo="three"))).status == 503
        code, text = await status_of(daemon)
        assert (code, text.split(":")[0]) == (1, "SUSPENDED")
        metrics = (await till.request("GET", "/metrics")).body.decode()
        assert 'pos_gateway_state{state="SUSPENDED"} 1' in metrics
        assert 'pos_gateway_print_jobs_waiting{printer="counter"}' in metrics
        # At each warning step that it came to in time, and at the end, a strip of paper.
        steps = steps_of(tmp_path)
        assert steps and set(steps) <= {25, 50, 75}
        slips = [slip.text() for slip in await printer.wait_for_slips(len(steps) + 1, 60)]
        stops = ["SELLING STOPS" in re.sub(r"\s+", " ", text) for text in slips]
        assert stops == [True] * len(steps) + [False]
        assert "SUSPENDED" in slips[-1]
        kra.captive = False
        await state(daemon, session, "ONLINE")
        again = await till.sell("three", a_sale(tillReceiptNo="three"))
        assert again.status == 201
        # A heartbeat that is late for once makes it OFFLINE for a moment.
        while '"state":"ONLINE"' not in (asked_again := await status_of(daemon, "--json"))[1]:
            pass
        assert asked_again[0] == 0
        assert await daemon.stop() == 0
        assert (await status_of(daemon))[0] == 3
    assert [entry["invcNo"] for entry in signed_by(tmp_path)] == [1, 2, 3]
    printer.close()
    await kra.stop()


def steps_of(directory: Path) -> list[int]:
    """The warning steps that the gateway has told of, in order."""
    conn = sqlite3.connect(f"file:{directory / 'store' / 'gateway.db'}?mode=ro", uri=True)
    try:
        found = conn.execute("SELECT data FROM event WHERE kind = 'ceiling.changed' ORDER BY id")
        changes = [json.loads(row[0]) for row in found]
    finally:
        conn.close()
    return [each["warnStep"] for each in changes if each["state"] == "WARNING"]


def signed_by(directory: Path) -> list[dict[str, int]]:
    """The unit's journal from its disk, now that the process is gone."""
    (file,) = (directory / "unit").rglob("journal.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_each_warning_step_and_the_end_have_a_strip_of_paper(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = FakeClock()
    offset = round(clock.now().timestamp() - time.time())
    await unit.knobs(clockOffsetSeconds=offset)
    async with FakePrinter() as printer:
        ports = {"counter": {"port": printer.device_path, "baud": 115200}}
        async with open_shop(make_settings(shop_dir, unit.url, printers=ports), clock) as shop:
            await clock.advance(seconds=1)
            await unit.knobs(upstream="offline", ceilingReading="off")
            for count, hours in enumerate((18.1, 3.6, 1.9, 0.5), start=1):
                clock.pass_time(hours=hours)
                shop.gateway.monitor.contact_soon()
                slips = await printer.wait_for_slips(count, 30)
    stops = ["SELLING STOPS" in " ".join(slip.text().split()) for slip in slips]
    assert stops == [True, True, True, False]
    assert "SUSPENDED" in slips[-1].text()


async def test_metrics_are_prometheus_text(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    async with aiohttp.ClientSession() as session:
        await daemon.start()
        answer = await daemon.till(session).request("GET", "/metrics")
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = set()
        for line in answer.body.decode().splitlines():
            if line.startswith("# TYPE "):
                families.add(line.split()[2])
            elif not line.startswith("#"):
                match = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"]*"\})? (NaN|-?[0-9.e+]+)', line)
                assert match, line
                assert match[1] in families
        assert len(families) > 12
        await daemon.stop()
