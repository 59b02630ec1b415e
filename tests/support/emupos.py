"""emupos, a receipt printer in software that is not ours: it reads our bytes, and answers as Epson's do.

It runs as a program of its own (`make emupos` installs it); we speak to it over TCP as to a printer,
and over its control API as the person who stands before it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hw_fakes.ports import free_port

HOME = Path(__file__).parents[2] / ".emupos" / "bin" / "emupos"
# ESC t's numbers in Epson's reference, as far as emupos has letters for them.
PROFILE = """
type: printer
name: {dots} dots wide
dpi: 203
width_dots: {dots}
font_a: {{ width: 12, height: 24 }}
font_b: {{ width: 9, height: 17 }}
code_pages: {{ 0: PC437, 2: PC850, 3: PC860, 4: PC863, 5: PC865, 16: WPC1252, 17: PC866, 18: PC852, 19: PC858 }}
default_code_page: 0
drawer_sensor_open_level: high
"""
WIDTHS = {58: 384, 80: 576}


def find_emupos() -> str:
    """The program's path. Missing: skipped at a desk, failed in CI."""
    path = str(HOME) if HOME.is_file() else shutil.which("emupos")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("emupos is not installed; .ci/run must run `make emupos`")
        pytest.skip("emupos is not installed: make emupos")
    return path


@dataclass(slots=True)
class Emupos:
    """`events` are everything it has said, in order."""

    api: str
    ports: dict[int, int]
    folder: Path
    session: aiohttp.ClientSession
    events: list[dict[str, Any]] = field(default_factory=list)
    _said: asyncio.Condition = field(default_factory=asyncio.Condition)

    def port(self, paper_mm: int) -> str:
        """As in the gateway's settings."""
        return f"socket://127.0.0.1:{self.ports[paper_mm]}"

    async def listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            async with self._said:
                self.events.append(message.json())
                self._said.notify_all()

    def receipts(self) -> list[str]:
        """The ids of what has been printed, in order."""
        return [
            event["data"]["receipt_id"]
            for event in self.events
            if event["type"] == "printer.job.completed"
        ]

    def not_understood(self) -> list[dict[str, Any]]:
        return [
            event for event in self.events
            if event["type"] in ("printer.command.unknown", "printer.codepage.unsupported")
        ]  # fmt: skip

    async def wait_for_receipts(self, count: int, within_s: float = 30) -> list[str]:
        async with asyncio.timeout(within_s), self._said:
            await self._said.wait_for(lambda: len(self.receipts()) >= count)
        return self.receipts()

    async def print(self, data: bytes, paper_mm: int) -> str:
        """Put bytes on its line as they are, and take the slip: its id."""
        before = len(self.receipts())
        _, writer = await asyncio.open_connection("127.0.0.1", self.ports[paper_mm])
        writer.write(data)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        return (await self.wait_for_receipts(before + 1))[before]

    def text(self, receipt: str) -> list[str]:
        return (self.folder / f"{receipt}.txt").read_text().rstrip("\n").split("\n")

    def picture(self, receipt: str) -> Path:
        return self.folder / f"{receipt}.png"

    async def fault(self, name: str, *, active: bool, paper_mm: int = 80) -> None:
        """paper-out, paper-near-end, cover-open or offline."""
        method = "PUT" if active else "DELETE"
        url = f"{self.api}/api/v1/devices/paper-{paper_mm}/faults/{name}"
        async with self.session.request(method, url) as answer:
            assert answer.status == 204


@asynccontextmanager
async def open_emupos(folder: Path) -> AsyncIterator[Emupos]:
    """The program with one printer of each paper width."""
    program = find_emupos()
    api_port, *ports = (free_port() for _ in range(1 + len(WIDTHS)))
    by_paper = dict(zip(WIDTHS, ports, strict=True))
    lines = ["schema: 1", f"api: {{ host: 127.0.0.1, port: {api_port} }}", "devices:"]
    for paper_mm, dots in WIDTHS.items():
        (folder / f"profile-{paper_mm}.yaml").write_text(PROFILE.format(dots=dots))
        lines += [
            f"  - id: paper-{paper_mm}",
            "    type: printer",
            f"    profile: ./profile-{paper_mm}.yaml",
            f"    connections: [{{ tcp: {{ port: {by_paper[paper_mm]} }} }}]",
            "    receipts_dir: ./receipts",
        ]
    (folder / "emupos.yaml").write_text("\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        program, "run", "--config", str(folder / "emupos.yaml"),
        cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    api = f"http://127.0.0.1:{api_port}"
    try:
        async with aiohttp.ClientSession() as session:
            events = await _connected(session, f"{api}/api/v1/events", process)
            emupos = Emupos(api, by_paper, folder / "receipts", session)
            listener = asyncio.ensure_future(emupos.listen(events))
            yield emupos
            await events.close()
            await listener
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _connected(
    session: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process
) -> aiohttp.ClientWebSocketResponse:
    async with asyncio.timeout(30):
        while True:
            assert process.returncode is None, "emupos ended"
            try:
                return await session.ws_connect(url)
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
