"""The till at its end of the cable: asks for the printer's status, and prints only when it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from hw_fakes.line import OnALine, PtyLine

# Each question and how many bytes a printer answers: status in real time, GS r, ESC v, GS a, GS I.
QUESTIONS = {
    b"\x10\x04\x01": 1, b"\x10\x04\x02": 1, b"\x10\x04\x04": 1, b"\x1dr\x01": 1, b"\x1bv": 1,
    b"\x1da\x04": 4, b"\x1dI\x01": 1,
}  # fmt: skip


class NoPrinter(Exception):
    """The printer gives no answer, or says that it cannot print; the till shows "PRINTER ERROR"."""


class FakeLegacyTill(OnALine):
    """Async context manager: on a pty of its own (`device_path`, named by `link` if given, is what the
    gateway opens), or on a serial device that is there (`port`)."""

    def __init__(
        self, *, link: Path | None = None, port: Path | None = None, wait_s: float = 2.0
    ) -> None:
        self.wait_s = wait_s
        self.line = PtyLine(self._hear, link=link, device=port)
        self._heard = bytearray()
        self._more = asyncio.Event()

    def _hear(self, data: bytes) -> None:
        self._heard += data
        self._more.set()

    async def ready(self) -> None:
        """Ask all a till may ask. NoPrinter unless every answer says that all is well."""
        for question, count in QUESTIONS.items():
            answer = await self.ask(question, count)
            if question[0] == 0x10 and (answer[0] & 0x93 != 0x12 or answer[0] & 0x68):
                raise NoPrinter(f"{question.hex()} is answered {answer.hex()}")
            if question == b"\x1dr\x01" and answer[0] & 0x0C:
                raise NoPrinter("no paper")

    async def find(self, tries: int = 100, each_s: float = 0.5) -> None:
        """Until a printer answers. What was asked before has been answered by then: a late answer would be
        taken for the next question's. NoPrinter after so many tries."""
        self._heard.clear()
        name = b""
        for number in range(tries):
            # GS ( H: its answer names the question, and answers come in order.
            name = f"{number:04d}".encode()
            await self.write(b"\x1d(H\x06\x00\x30\x30" + name)
            if await self._hears(lambda: bool(self._heard), each_s):
                break
        if not await self._hears(lambda: self._heard.endswith(name + b"\x00"), self.wait_s):
            raise NoPrinter("nothing answers")

    async def ask(self, question: bytes, count: int) -> bytes:
        self._heard.clear()
        await self.write(question)
        if not await self._hears(lambda: len(self._heard) >= count, self.wait_s):
            raise NoPrinter(f"no answer to {question.hex()}")
        return bytes(self._heard)

    async def _hears(self, enough: Callable[[], bool], within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while not enough():
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return False
        return True

    async def print_slip(self, data: bytes, *, piece: int = 64) -> None:
        """As real tills do: nothing without an answer before, and one question after it."""
        await self.ready()
        for at in range(0, len(data), piece):
            await self.write(data[at : at + piece])
        await self.ask(b"\x10\x04\x01", 1)

    async def write(self, data: bytes) -> None:
        if not await self.line.write(data):
            raise NoPrinter("unplugged")
