"""The printer as a peer on a pty: buffer, cover, paper, drawer and the faults of its wire."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable

from hw_fakes.printer.interpreter import Interpreter
from hw_fakes.printer.paper import Paper, Slip

READ_BYTES = 4096


class FakePrinter:
    """Async context manager. Speaks ESC/POS to whoever opens `device_path`."""

    def __init__(self, *, on_slip: Callable[[Slip], None] | None = None) -> None:
        self.paper = Paper()
        self.cover_open = False
        self.paper_out = False
        self.silent = False
        self.drawer_open = False
        self.drawer_kicks = 0
        self.device_path = ""
        self._master = -1
        self._slave = -1
        self._held = bytearray()
        self._stalled = False
        self._changed = asyncio.Event()
        self._on_slip = on_slip
        self._interpreter = self._new_interpreter()

    def _new_interpreter(self) -> Interpreter:
        return Interpreter(
            self.paper, self._answer, status=self._status, kick=self._kick, finished=self._slip
        )

    async def __aenter__(self) -> FakePrinter:
        self.plug()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.unplug()

    @property
    def problems(self) -> list[str]:
        return self._interpreter.problems

    # --- the world around it ----------------------------------------------------------------------

    def plug(self) -> None:
        """On a fresh pty, whose path may be another than before."""
        self._master, self._slave = os.openpty()
        # The slave stays open here, or the master would see a hang-up whenever the till closes it.
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.device_path = os.ttyname(self._slave)
        asyncio.get_running_loop().add_reader(self._master, self._readable)

    def unplug(self) -> None:
        if self._master < 0:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def close(self) -> None:
        """As `unplug`, for contextlib.closing."""
        self.unplug()

    def power_cut(self) -> None:
        """What was printed stays; what was in the buffer is gone."""
        self._held.clear()
        self._interpreter = self._new_interpreter()

    def open_cover(self) -> None:
        self.cover_open = True

    def close_cover(self) -> None:
        self.cover_open = False
        self._work()

    def remove_paper(self) -> None:
        self.paper_out = True

    def load_paper(self) -> None:
        self.paper_out = False
        self._work()

    def stall(self) -> None:
        self._stalled = True

    def resume(self) -> None:
        self._stalled = False
        self._work()

    async def wait_for_slips(self, count: int, timeout: float) -> list[Slip]:
        """The first `count` slips, when they are out. TimeoutError otherwise."""
        async with asyncio.timeout(timeout):
            while len(self.paper.slips) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.paper.slips[:count]

    # --- the printer ------------------------------------------------------------------------------

    @property
    def offline(self) -> bool:
        return self.cover_open or self.paper_out or self._stalled

    def _readable(self) -> None:
        try:
            data = os.read(self._master, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.unplug()
            return
        self._held += self._real_time(data)
        self._work()

    def _real_time(self, data: bytes) -> bytes:
        """DLE EOT is answered at once, also when offline; the rest waits its turn."""
        if not self.offline:
            return data
        at = data.find(b"\x10\x04")
        while at >= 0 and at + 2 < len(data):
            self._answer(bytes([self._status(0x100 + data[at + 2])]))
            data = data[:at] + data[at + 3 :]
            at = data.find(b"\x10\x04")
        return data

    def _work(self) -> None:
        if self.offline or not self._held:
            return
        data, self._held = bytes(self._held), bytearray()
        self._interpreter.feed(data)

    def _status(self, which: int) -> int:
        if which == 0x104 or which < 0x100:  # paper sensor, real-time or by GS r
            base = 0x12 if which >= 0x100 else 0x00
            return (
                base
                | (0x60 if which >= 0x100 and self.paper_out else 0)
                | (0x0C if self.paper_out else 0)
            )
        if which == 0x102:
            return 0x12 | (0x04 if self.cover_open else 0) | (0x20 if self.paper_out else 0)
        if which == 0x101:
            return 0x12 | (0x08 if self.offline else 0) | (0 if self.drawer_open else 0x04)
        return 0x12

    def _answer(self, data: bytes) -> None:
        if not self.silent and self._master >= 0:
            os.write(self._master, data)

    def _kick(self) -> None:
        self.drawer_open = True
        self.drawer_kicks += 1

    def _slip(self) -> None:
        if self._on_slip is not None:
            self._on_slip(self.paper.slips[-1])
        self._changed.set()
