"""The daemon as a process ends in the middle of a slip: killed, stopped, stopped while paper is out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from hw_fakes.printer.peer import FakePrinter, Wire
from tests.support.daemon import Daemon
from tests.support.printers import begun, originals, so
from tests.support.shop import TillClient, a_sale


@asynccontextmanager
async def shop(directory: Path, printer: FakePrinter) -> AsyncIterator[tuple[Daemon, TillClient]]:
    extra = f'[printers.counter]\nport = "{printer.device_path}"\nbaud = 9600\n'
    daemon = Daemon(directory, extra)
    await daemon.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield daemon, daemon.till(session)
    finally:
        await daemon.stop()


async def job(till: TillClient, number: int) -> dict[str, Any]:
    found = (await till.request("GET", f"/v1/print-jobs/{number}")).json
    assert isinstance(found, dict)
    return found


async def until_job(till: TillClient, number: int, state: str) -> None:
    async with asyncio.timeout(60):
        while (await job(till, number))["state"] != state:
            await asyncio.sleep(0.02)


async def test_killed_in_mid_slip_it_asks_and_prints_no_second_original(tmp_path: Path) -> None:
    async with FakePrinter(wire=Wire(baud=9600)) as printer:
        async with shop(tmp_path, printer) as (daemon, till):
            sale = a_sale(printer="counter")
            # Nothing is printed before the till has its answer, however long that takes.
            printer.open_cover()
            told = await till.sell("one", sale)
            assert told.status == 201
            printer.close_cover()
            await begun(printer)
            await daemon.kill()
            await daemon.start()
            assert (await job(till, 1))["state"] == "UNCONFIRMED"
            assert (await till.sell("one", sale)).body == told.body
            assert (await till.sell("two", a_sale(printer="counter"))).status == 201
            await until_job(till, 2, "PRINTED")
            answer = await till.request("POST", "/v1/print-jobs/1/answer", json={"cameOut": False})
            await until_job(till, answer.json["id"], "PRINTED")
        numbers = originals([*printer.paper.slips, *printer.paper.scraps])
        assert len(set(numbers)) == len(numbers)
        assert "COPY" in printer.paper.slips[-1].text()


async def test_stopped_in_mid_slip_it_lets_the_slip_come_out(tmp_path: Path) -> None:
    async with FakePrinter(wire=Wire(baud=9600)) as printer:
        async with shop(tmp_path, printer) as (daemon, till):
            printer.open_cover()
            for key in ("one", "two"):
                assert (await till.sell(key, a_sale(printer="counter"))).status == 201
            printer.close_cover()
            await begun(printer)
            assert await daemon.stop() == 0
            assert len(printer.paper.slips) == 1
            await daemon.start()
            assert (await job(till, 1))["state"] == "PRINTED"
            await until_job(till, 2, "PRINTED")
        assert len(set(originals(printer.paper.slips))) == len(printer.paper.slips) == 2


async def test_stopped_while_paper_is_out_it_ends_and_asks(tmp_path: Path) -> None:
    async with FakePrinter(roll_mm=60) as printer:
        async with shop(tmp_path, printer) as (daemon, till):
            assert (await till.sell("one", a_sale(printer="counter"))).status == 201
            await so(lambda: printer.paper_out)
            assert await daemon.stop() == 0
            await daemon.start()
            assert (await job(till, 1))["state"] == "UNCONFIRMED"
            printer.load_paper()
            assert (await till.sell("two", a_sale(printer="counter"))).status == 201
            await until_job(till, 2, "PRINTED")
        # The first one ended where the paper did: its rest was not sent.
        numbers = originals(printer.paper.slips)
        assert len(set(numbers)) == len(numbers)
        assert numbers[-1].endswith("/2")
