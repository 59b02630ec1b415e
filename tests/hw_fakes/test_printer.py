"""The fake printer as its own program: paper as text and picture, knobs, and another port by the same name."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from PIL import Image

from hw_fakes.printer.control import knobs as knobs_of
from hw_fakes.printer.peer import FakePrinter
from tests.support.printers import so

SLIP = b"\x1b@HELLO FROM THE TILL\n\x1dV\x00"


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[tuple[str, str]]:
    """The running program: where the printer is, and the control's address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hw_fakes.printer", "--control", "0", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            where = (await process.stdout.readline()).decode().split()[-1]
            control = (await process.stdout.readline()).decode()
        found = re.search(r"(http://\S+)/state", control)
        assert found is not None
        yield where, found[1]
    finally:
        process.terminate()
        await process.wait()


async def slips(session: aiohttp.ClientSession, url: str, count: int) -> list[dict[str, object]]:
    async with asyncio.timeout(30):
        while True:
            async with session.get(f"{url}/journal") as answer:
                found = (await answer.json())["slips"]
            if len(found) >= count:
                return list(found)


async def test_it_shows_its_paper_and_obeys_its_knobs(tmp_path: Path) -> None:
    link = tmp_path / "printer"
    async with (
        program("--link", str(link), "--png", str(tmp_path / "png")) as (where, url),
        aiohttp.ClientSession() as session,
    ):
        assert where == str(link)
        async with session.post(f"{url}/knobs", json={"coverOpen": True}) as answer:
            assert (await answer.json())["offline"] is True
        port = os.open(link, os.O_RDWR | os.O_NOCTTY)
        os.write(port, SLIP + b"\x10\x04\x02")
        assert os.read(port, 1) == b"\x16"
        async with session.get(f"{url}/paper.png") as answer:
            assert answer.status == 404
        async with session.post(f"{url}/knobs", json={"coverOpen": False}) as answer:
            assert answer.status == 200
        (slip,) = await slips(session, url, 1)
        assert slip["text"] == "HELLO FROM THE TILL"
        async with session.get(f"{url}/paper.png") as answer:
            assert Image.open(io.BytesIO(await answer.read())).width > 500
        async with session.get(f"{url}/paper.txt") as answer:
            assert "HELLO" in await answer.text()
        assert (tmp_path / "png" / "slip-0001.png").is_file()
        for plugged in (False, True):
            async with session.post(f"{url}/knobs", json={"plugged": plugged}) as answer:
                assert (await answer.json())["knobs"]["plugged"] is plugged
        await so(link.exists)
        os.close(port)
        port = os.open(link, os.O_RDWR | os.O_NOCTTY)
        os.write(port, SLIP)
        assert len(await slips(session, url, 2)) == 2
        os.close(port)


async def test_on_tcp_it_is_a_network_printer() -> None:
    async with program("--tcp", "0") as (where, url), aiohttp.ClientSession() as session:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(where.rpartition(":")[2]))
        writer.write(SLIP + b"\x1dr\x01")
        assert await reader.readexactly(1) == b"\x00"
        assert len(await slips(session, url, 1)) == 1
        async with session.post(f"{url}/knobs", json={"powered": False}) as answer:
            assert answer.status == 200
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()


async def test_an_unknown_knob_is_refused_with_the_names_of_all() -> None:
    names = sorted(knobs_of(FakePrinter()))
    async with program() as (_, url), aiohttp.ClientSession() as session:
        async with session.post(f"{url}/knobs", json={"paperout": True}) as answer:
            assert answer.status == 400
            assert (await answer.json())["knobs"] == names
        async with session.get(f"{url}/state") as answer:
            assert sorted((await answer.json())["knobs"]) == names
        every = {"rollMm": 500, "nearEndMm": 50, "delayMs": 5, "baud": 9600, "asb": 15}
        async with session.post(f"{url}/knobs", json=every) as answer:
            knobs = (await answer.json())["knobs"]
            assert {name: knobs[name] for name in every} == every


async def test_a_cable_that_is_pulled_with_a_full_buffer_can_be_plugged_again() -> None:
    """On TCP it takes no more than its buffer holds; what is in there is printed once the cable is back."""
    printer = FakePrinter(tcp_port=0, buffer_bytes=32, speed_mm_s=20)
    async with printer, asyncio.timeout(30):
        host, _, port = printer.device_path.removeprefix("socket://").partition(":")
        _, first = await asyncio.open_connection(host, int(port))
        first.write(b"HELLO\n" * 20)
        # The first lines are being printed, and it is full.
        await so(lambda: printer.held_bytes == 32)
        printer.unplug()
        printer.plug()
        reader, second = await asyncio.open_connection(host, int(port))
        second.write(b"\x10\x04\x01")
        assert await reader.readexactly(1) == b"\x16"
        for writer in (first, second):
            writer.close()
