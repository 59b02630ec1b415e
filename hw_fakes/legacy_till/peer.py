"""The till at its end of the cable: asks for the printer's status, and prints only when it is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tty
from pathlib import Path

READ_BYTES = 256
# Each question and how many bytes a printer answers: status in real time, GS r, ESC v, GS a, GS I.
QUESTIONS = {
    b"\x10\x04\x01": 1, b"\x10\x04\x02": 1, b"\x10\x04\x04": 1, b"\x1dr\x01": 1, b"\x1bv": 1,
    b"\x1da\x04": 4, b"\x1dI\x01": 1,
}  # fmt: skip


class NoPrinter(Exception):
    """The printer gives no answer, or says that it cannot print; the till shows "PRINTER ERROR"."""


class FakeLegacyTill:
    """Async context manager: on a pty of its own (`device_path` is what the gateway opens), or on a
    serial device that is there (`port`)."""

    def __init__(self, *, port: Path | None = None, wait_s: float = 2.0) -> None:
        self.device_path = ""
        self.wait_s = wait_s
        self._port = port
        self._fd = -1
        self._slave = -1
        self._heard = bytearray()
        self._more = asyncio.Event()

    async def __aenter__(self) -> FakeLegacyTill:
        self.plug()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.unplug()

    def plug(self) -> None:
        if self._port is not None:
            self._fd = os.open(self._port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(self._fd)
            self.device_path = str(self._port)
        else:
            self._fd, self._slave = os.openpty()
            # The slave stays open here, or the master would see a hang-up whenever the gateway closes it.
            tty.setraw(self._slave)
            os.set_blocking(self._fd, False)
            self.device_path = os.ttyname(self._slave)
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def unplug(self) -> None:
        if self._fd < 0:
            return
        asyncio.get_running_loop().remove_reader(self._fd)
        for fd in (self._fd, self._slave):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fd = self._slave = -1

    def _readable(self) -> None:
        try:
            self._heard += os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.unplug()
        self._more.set()

    async def ready(self) -> None:
        """Ask all a till may ask. NoPrinter unless every answer says that all is well."""
        for question, count in QUESTIONS.items():
            answer = await self.ask(question, count)
            if question[0] == 0x10 and (answer[0] & 0x93 != 0x12 or answer[0] & 0x68):
                raise NoPrinter(f"{question.hex()} is answered {answer.hex()}")
            if question == b"\x1dr\x01" and answer[0] & 0x0C:
                raise NoPrinter("no paper")

    async def ask(self, question: bytes, count: int) -> bytes:
        self._heard.clear()
        await self.write(question)
        try:
            async with asyncio.timeout(self.wait_s):
                while len(self._heard) < count:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            raise NoPrinter(f"no answer to {question.hex()}") from None
        return bytes(self._heard)

    async def print_slip(self, data: bytes, *, piece: int = 64) -> None:
        """As real tills do: nothing without an answer before, and one question after it."""
        await self.ready()
        for at in range(0, len(data), piece):
            await self.write(data[at : at + piece])
        await self.ask(b"\x10\x04\x01", 1)

    async def write(self, data: bytes) -> None:
        while data:
            if self._fd < 0:
                raise NoPrinter("unplugged")
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                await asyncio.sleep(0.005)
