"""The real daemon loses KRA for real: the unit's upstream stops, real seconds go by."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import aiohttp

from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.kra import FakeKra
from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, a_sale

# A ceiling of 4.5 seconds and a heartbeat of half a second: the whole story in real time.
CEILING = "[ceiling]\nlimit_hours = 0.00125\ncontact_interval_s = 0.5\n"


async def state(daemon: Daemon, session: aiohttp.ClientSession, wanted: str) -> None:
    """Waits for the state on the status; the tests' own timeout ends it."""
    while (await daemon.till(session).request("GET", "/v1/status")).json["state"] != wanted:
        pass


async def status_of(daemon: Daemon, *more: str) -> tuple[int, str]:
    tokens = ",".join(f"{till}={token}" for till, token in TOKENS.items())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "status", "--config", str(daemon.config), *more,
        env={"PATH": "/usr/bin", "GATEWAY_TILL_TOKENS": tokens},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


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
    async with aiohttp.ClientSession() as session:
        await daemon.start()
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
        # At each warning step, and at the end, a strip of paper.
        slips = [slip.text() for slip in await printer.wait_for_slips(4, 20)]
        assert sum("SELLING STOPS" in re.sub(r"\s+", " ", text) for text in slips) == 3
        assert any("SUSPENDED" in text for text in slips)
        kra.captive = False
        await state(daemon, session, "ONLINE")
        again = await till.sell("three", a_sale(tillReceiptNo="three"))
        assert again.status == 201
        code, text = await status_of(daemon, "--json")
        assert code == 0
        assert '"state":"ONLINE"' in text
        assert await daemon.stop() == 0
        assert (await status_of(daemon))[0] == 3
    assert [entry["invcNo"] for entry in signed_by(tmp_path)] == [1, 2, 3]
    printer.close()
    await kra.stop()


def signed_by(directory: Path) -> list[dict[str, int]]:
    """The unit's journal from its disk, now that the process is gone."""
    (file,) = (directory / "unit").rglob("journal.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


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
