"""The printer as a peer on a pty: paper roll, cover, cutter, buffer, drawer, and the faults of its wire."""

from __future__ import annotations

import asyncio
import os
import random
import tty
from collections.abc import Callable
from dataclasses import dataclass

from hw_fakes.printer.interpreter import Interpreter
from hw_fakes.printer.paper import Feed, Item, Line, Paper, Picture, QrMark, Slip

READ_BYTES = 4096
DOTS_PER_MM = 8
LINE_DOTS = 30
XON, XOFF = b"\x11", b"\x13"


@dataclass(slots=True)
class Wire:
    """Faults of the line. `baud` paces what the printer takes; None: as fast as it comes."""

    baud: int | None = None
    one_byte: bool = False
    lose_every: int = 0
    noise: float = 0.0
    delay_s: float = 0.0


class FakePrinter:
    """Async context manager. Speaks ESC/POS to whoever opens `device_path`."""

    def __init__(
        self,
        *,
        on_slip: Callable[[Slip], None] | None = None,
        roll_mm: float = 1e9,
        buffer_bytes: int = 1 << 20,
        xonxoff: bool = False,
        wire: Wire | None = None,
        seed: int = 1,
    ) -> None:
        self.paper = Paper()
        self.roll_mm = roll_mm
        self.used_mm = 0.0
        self.near_end_mm = 100.0
        self.cover_open = False
        self.cutter_jammed = False
        self.silent = False
        self.powered = True
        self.drawer_open = False
        self.drawer_kicks = 0
        self.lost_bytes = 0
        self.device_path = ""
        self.wire = wire or Wire()
        self._buffer_bytes = buffer_bytes
        self._xonxoff = xonxoff
        self._held_off = False
        self._random = random.Random(seed)
        self._count = 0
        self._master = -1
        self._slave = -1
        self._real = bytearray()
        self._held = bytearray()
        self._measured = 0
        self._stalled = False
        self._paced: asyncio.TimerHandle | None = None
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
        if self._paced is not None:
            self._paced.cancel()
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
        self._real.clear()
        self._interpreter = self._new_interpreter()
        self.paper.open = Slip()
        self._measured = 0

    def power_off(self) -> None:
        """Until `power_on` it hears nothing and says nothing."""
        self.power_cut()
        self.powered = False

    def power_on(self) -> None:
        self.powered = True

    def open_cover(self) -> None:
        self.cover_open = True

    def close_cover(self) -> None:
        self.cover_open = False
        self._work()

    @property
    def paper_out(self) -> bool:
        return self.used_mm >= self.roll_mm

    def remove_paper(self) -> None:
        self.roll_mm = 0.0

    def load_paper(self, roll_mm: float = 1e9) -> None:
        self.roll_mm = roll_mm
        self.used_mm = 0.0
        self._work()

    def jam_cutter(self) -> None:
        self.cutter_jammed = True

    def close_drawer(self) -> None:
        self.drawer_open = False

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
        return self.cover_open or self.paper_out or self.cutter_jammed or self._stalled

    def _readable(self) -> None:
        # At a baud rate a tenth of a second's worth of bytes at a time; the pty holds the rest back.
        baud = self.wire.baud
        limit = READ_BYTES if baud is None else max(1, baud // 10 // 50)
        if self.wire.one_byte:
            limit = 1
        if self._xonxoff and self._held_off and len(self._held) > self._buffer_bytes - 64:
            # What was under way when XOFF was said stays in the adapter until there is room.
            asyncio.get_running_loop().remove_reader(self._master)
            return
        if self._xonxoff:
            limit = min(limit, 32)
        try:
            data = os.read(self._master, limit)
        except BlockingIOError:
            return
        except OSError:
            self.unplug()
            return
        if baud is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._master)
            self._paced = loop.call_later(len(data) * 10 / baud, self._listen_again)
        if self.powered:
            self._take(self._lossy(data))

    def _listen_again(self) -> None:
        self._paced = None
        if self._master >= 0:
            asyncio.get_running_loop().add_reader(self._master, self._readable)

    def _lossy(self, data: bytes) -> bytes:
        if not self.wire.lose_every:
            return data
        kept = bytearray()
        for byte in data:
            self._count += 1
            if self._count % self.wire.lose_every:
                kept.append(byte)
        return bytes(kept)

    def _take(self, data: bytes) -> None:
        self._held += self._real_time(data)
        over = len(self._held) - self._buffer_bytes
        if over > 0:
            self.lost_bytes += over
            del self._held[self._buffer_bytes :]
        self._work()
        self._flow()

    def _flow(self) -> None:
        if not self._xonxoff or self._master < 0:
            return
        if not self._held_off and len(self._held) > self._buffer_bytes // 2:
            self._held_off = True
            os.write(self._master, XOFF)
        elif self._held_off and len(self._held) < self._buffer_bytes // 4:
            self._held_off = False
            os.write(self._master, XON)
            if self._paced is None:
                self._listen_again()

    def _real_time(self, data: bytes) -> bytes:
        """DLE EOT n is answered as it arrives, whatever else is in the buffer."""
        self._real += data
        passed = bytearray()
        while self._real:
            at = self._real.find(b"\x10")
            if at < 0:
                passed += self._real
                self._real.clear()
                break
            passed += self._real[:at]
            del self._real[:at]
            if len(self._real) >= 2 and self._real[1] != 0x04:
                passed += self._real[:1]
                del self._real[:1]
            elif len(self._real) < 3:
                break
            else:
                self._answer(bytes([self._status(0x100 + self._real[2])]))
                del self._real[:3]
        return bytes(passed)

    def _work(self) -> None:
        while self._held and not self.offline:
            byte = bytes(self._held[:1])
            del self._held[:1]
            self._interpreter.feed(byte)
            self._roll()
        self._flow()

    def _roll(self) -> None:
        """Paper goes by as it is printed; at the roll's end the printer stops in the middle of a slip."""
        items = self.paper.open.items
        while self._measured < len(items):
            self.used_mm += _height_mm(items[self._measured])
            self._measured += 1
        if not items:
            self._measured = 0

    def _status(self, which: int) -> int:
        near = self.roll_mm - self.used_mm < self.near_end_mm
        if which < 0x100:  # GS r 1
            return (0x03 if near else 0) | (0x0C if self.paper_out else 0)
        if which == 0x104:
            return 0x12 | (0x0C if near else 0) | (0x60 if self.paper_out else 0)
        if which == 0x103:
            return 0x12 | (0x08 if self.cutter_jammed else 0)
        if which == 0x102:
            cover = 0x04 if self.cover_open else 0
            return 0x12 | cover | (0x20 if self.paper_out else 0)
        if which == 0x101:
            return 0x12 | (0x08 if self.offline else 0) | (0 if self.drawer_open else 0x04)
        return 0x12

    def _answer(self, data: bytes) -> None:
        if self.silent or not self.powered or self._master < 0:
            return
        if self._random.random() < self.wire.noise:
            data = bytes([0xF0 | self._random.randrange(16)]) + data
        if self.wire.delay_s:
            asyncio.get_running_loop().call_later(self.wire.delay_s, self._put, data)
        else:
            self._put(data)

    def _put(self, data: bytes) -> None:
        if self._master >= 0:
            os.write(self._master, data)

    def _kick(self) -> None:
        self.drawer_open = True
        self.drawer_kicks += 1

    def _slip(self) -> None:
        if self._on_slip is not None:
            self._on_slip(self.paper.slips[-1])
        self._changed.set()


def _height_mm(item: Item) -> float:
    match item:
        case Line():
            return max((run.height for run in item.runs), default=1) * LINE_DOTS / DOTS_PER_MM
        case Feed(dots=dots):
            return dots / DOTS_PER_MM
        case QrMark(module_dots=dots):
            return 45 * dots / DOTS_PER_MM
        case Picture(rows=rows):
            return len(rows) / DOTS_PER_MM
