"""The fakes of display, scale and scanner on their own: run as a person runs them, over HTTP and a pty."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from hw_fakes.control import ControlServer
from hw_fakes.display.glass import Glass
from hw_fakes.line import Wire
from hw_fakes.scale.peer import FakeScale
from hw_fakes.scanner.peer import FakeScanner


@asynccontextmanager
async def alone(name: str, link: Path, *more: str) -> AsyncIterator[str]:
    """`python -m hw_fakes.NAME` as a process; the address of its control."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"hw_fakes.{name}", "--link", str(link), "--control", "0", *more,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, "it ended"
                if match := re.search(r"control is on (http://127\.0\.0\.1:\d+)", line):
                    break
        yield match[1]
    finally:
        process.terminate()
        await process.communicate()


async def post(url: str, body: Any) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/_fake/knobs", data=body) as answer,
    ):
        return answer.status, await answer.json()


async def get(url: str, path: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as answer:
        return answer.status, await answer.read()


class Terminal:
    """The other end of the pty, as any program would open it."""

    def __init__(self, path: str | Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        termios.tcflush(self.fd, termios.TCIOFLUSH)

    async def read(self, count: int) -> bytes:
        """So many bytes, or more if they came together."""
        data = b""
        async with asyncio.timeout(20):
            while len(data) < count:
                try:
                    data += os.read(self.fd, 4096)
                except BlockingIOError:
                    await asyncio.sleep(0.005)
        return data

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    def close(self) -> None:
        os.close(self.fd)


@pytest.fixture
async def scale_alone(tmp_path: Path) -> AsyncIterator[tuple[str, Path]]:
    link = tmp_path / "scale"
    async with alone("scale", link, "--settle", "0") as url:
        yield url, link


async def test_a_scale_that_runs_alone(scale_alone: tuple[str, Path]) -> None:
    url, link = scale_alone
    status, state = await post(url, '{"loadKg": "1.235"}')
    assert (status, state["netKg"]) == (200, "1.235")
    terminal = Terminal(link)
    terminal.write(b"W")
    assert await terminal.read(8) == b"\x0201.235\r"
    terminal.write(b"T")
    # Tared: net, at its centre of zero, outside what may be zeroed.
    assert await terminal.read(4) == b"\x02?\x78\r"
    terminal.write(b"W")
    assert await terminal.read(9) == b"\x0200.000N\r"
    terminal.close()
    status, journal = await get(url, "/_fake/journal?since=1")
    assert (status, journal.count(b'"asked"')) == (200, 3)
    assert (await get(url, "/_fake/journal?since=x"))[0] == 400
    assert (await get(url, "/_fake/picture"))[0] == 404
    # The cable: gone with its name, back on another port.
    before = (await post(url, '{"plugged": false}'))[1]
    assert not link.is_symlink()
    after = (await post(url, '{"plugged": true}'))[1]
    assert before["pty"] != after["pty"] == str(link.readlink())


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ('{"colour": "red"}', "unknown knob colour"),
        ('{"restless": true, "colour": "red"}', "unknown knob colour"),
        ('{"restless": "yes"}', "restless cannot be"),
        ('{"loadKg": 1.5}', "loadKg cannot be"),
        ('{"loadKg": "heavy"}', "loadKg must be"),
        ('{"loadKg": "NaN"}', "loadKg must be"),
        ('{"unit": "stone"}', "unit must be"),
        ('{"oneByte": 1}', "oneByte cannot be"),
        ("[]", "must be an object"),
        ("{", "not JSON"),
    ],
)
async def test_a_knob_that_is_none(body: str, part: str) -> None:
    async with FakeScale() as scale, ControlServer(scale) as server:
        status, answer = await post(server.url, body)
        assert (status, part in answer["error"]) == (400, True)
        assert scale.restless is False


async def test_a_display_that_runs_alone(tmp_path: Path) -> None:
    link, png = tmp_path / "pole", tmp_path / "pole.png"
    async with alone("display", link, "--png", str(png)) as url:
        terminal = Terminal(link)
        terminal.write(b"\x1bQAKARIBU\r\x1bQB450.00\r")
        async with asyncio.timeout(20):
            while b"450.00" not in (await get(url, "/_fake/state"))[1]:
                pass
        status, picture = await get(url, "/_fake/picture")
        assert status == 200
        assert picture == png.read_bytes()
        assert Image.open(io.BytesIO(picture)).width == 20 * 24 + 40
        terminal.close()


async def test_a_scanner_that_runs_alone(tmp_path: Path) -> None:
    link = tmp_path / "scanner"
    async with alone("scanner", link, "--suffix", "crlf", "--prefix", "]E0") as url:
        terminal = Terminal(link)
        assert (await post(url, '{"scan": "6161100100015"}'))[0] == 200
        assert await terminal.read(18) == b"]E06161100100015\r\n"
        assert (await post(url, '{"sendHex": "02ff"}'))[0] == 200
        assert await terminal.read(2) == b"\x02\xff"
        assert (await post(url, '{"sendHex": "zz"}'))[0] == 400
        terminal.close()


@pytest.mark.parametrize(
    ("wire", "heard"),
    [
        (Wire(), b"0123456789\r"),
        (Wire(one_byte=True), b"0123456789\r"),
        (Wire(baud=1200), b"0123456789\r"),
        (Wire(delay_s=0.05), b"0123456789\r"),
        (Wire(lose_every=5), b"01235678\r"),
        (Wire(noise=1.0), bytes(byte | 0x80 for byte in b"0123456789\r")),
        (Wire(stall_after=4), b"0123"),
    ],
    ids=["clean", "bytes", "slow", "late", "loss", "noise", "stall"],
)
async def test_the_faults_of_a_wire(wire: Wire, heard: bytes) -> None:
    async with FakeScanner(wire=wire) as scanner:
        terminal = Terminal(scanner.device_path)
        scanner.scan("0123456789")
        data = await terminal.read(len(heard))
        assert data == heard
        if wire.stall_after is not None:
            scanner.scan("X")
            scanner.line.resume()
            assert await terminal.read(9) == b"456789\rX\r"
        terminal.close()


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"HELLO", ["HELLO", ""]),
        (b"A" * 20 + b"B" * 21, ["B" + "A" * 19, "B" * 20]),
        (b"OLD\x0cNEW", ["NEW", ""]),
        (b"\x1f$\x03\x02HI\x0bX", ["X", "  HI"]),
        (b"ONE\nTWO\rTHREE", ["ONE", "THREEO"]),
        (b"\x1fX\x04\x1fE\x00A\x08B", ["B", ""]),
        (b"UP\nDOWN\x18", ["UP", ""]),
    ],
)
def test_a_glass_in_escpos(data: bytes, lines: list[str]) -> None:
    glass = Glass("escpos")
    glass.feed(data)
    assert [line.rstrip() for line in glass.lines] == lines
    assert glass.problems == []


@pytest.mark.parametrize(
    ("data", "lines", "problems"),
    [
        (b"\x1bQAUPPER\r\x1bQBLOWER\r", ["UPPER", "LOWER"], 0),
        (b"\x1bQA" + b"X" * 30 + b"\r", ["X" * 20, ""], 0),
        (b"\x1bQAUPPER\rafterwards", ["UPPER", ""], 10),
        (b"\x1bQAUPPER\r\x0cplain", ["plain", ""], 0),
        (b"\x1bl\x05\x02HI\x1b[HX", ["X", "    HI"], 0),
        (b"\x1b*\x04\x1b_\x00\x11", ["", ""], 1),
    ],
)
def test_a_glass_in_cd5220(data: bytes, lines: list[str], problems: int) -> None:
    """In string mode nothing is obeyed but ESC Q, CLR and CAN, as the manuals say."""
    glass = Glass("cd5220")
    glass.feed(data)
    assert [line.rstrip() for line in glass.lines] == lines
    assert len(glass.problems) == problems


async def test_a_load_settles_before_it_is_a_weight() -> None:
    async with FakeScale("and", settle_s=3600) as scale:
        scale.put("1.000")
        assert scale.a_line().startswith(b"US,GS,+")
        assert scale.a_line() != scale.a_line()
        scale.settle_s = 0
        assert scale.a_line() == b"ST,GS,+0001.000kg\r\n"
        # Nothing is zeroed with a load on it, and nothing below its divisions is felt.
        scale.press_zero()
        assert scale.a_line() == b"ST,GS,+0001.000kg\r\n"
        scale.put("1.0024")
        assert scale.a_line() == b"ST,GS,+0001.000kg\r\n"
