"""The printer as a peer on a pty or TCP: paper roll, cover, cutter, buffer, head, drawer, power."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from hw_fakes.printer.interpreter import Interpreter
from hw_fakes.printer.line import PrinterLine, Wire
from hw_fakes.printer.paper import Feed, Item, Line, Paper, Picture, QrMark, Slip

__all__ = ["FakePrinter", "Wire"]

DOTS_PER_MM = 8
LINE_DOTS = 30
ENDLESS_MM = 1e9
XON, XOFF = b"\x11", b"\x13"


class FakePrinter:
    """Async context manager. Speaks ESC/POS to whoever opens `device_path`.

    `link` is the name that stays over a replug, as udev makes it.
    `asb`: what its switches say about automatic status back, in the bits of GS a. `speed_mm_s`: how
    fast its head goes; None: at once. `chinese`: it starts in Chinese mode. `native_qr`: it knows the QR command.
    `rows_max`: it reads no more rows of a picture (255: only the low byte). `tcp_port`: on this loopback port (0: any) instead of a pty.
    """

    def __init__(
        self,
        *,
        on_slip: Callable[[Slip], None] | None = None,
        link: Path | None = None,
        roll_mm: float = ENDLESS_MM,
        buffer_bytes: int = 1 << 20,
        xonxoff: bool = False,
        wire: Wire | None = None,
        seed: int = 1,
        asb: int = 0,
        speed_mm_s: float | None = None,
        tcp_port: int | None = None,
        chinese: bool = False,
        native_qr: bool = True,
        rows_max: int | None = None,
    ) -> None:
        self._kind = {"chinese": chinese, "native_qr": native_qr, "rows_max": rows_max}
        self.paper = Paper()
        self.roll_mm = roll_mm
        self.used_mm = 0.0
        self.near_end_mm = 100.0
        self.cover_open = False
        self.cutter_jammed = False
        self.error = False
        self.held_offline = False
        # It works, but does not say a word; or not to GS r and GS ( H, as cheap ones do.
        self.silent = False
        self.confirms = True
        # What it says to GS I 67; None: nothing, as most cheap ones.
        self.model: str | None = "TM-T82II"
        # Which DLE EOT it answers, and how: "pairs", "twice" (a second copy 30 ms later), "late" (the answer to the
        # question before), "zero" (00 always), "echo" (all input back), "nonsense" (letters).
        self.questions = {1, 2, 3, 4}
        self.habit = "pairs"
        # What the drawer's pulse does to its adapter: so long it is off the bus. Seconds.
        self.shaken_s = 0.0
        self._before: bytes | None = None
        # Answers to GS ( H carry another number than they should.
        self.wrong_ids = False
        self.powered = True
        self.drawer_open = False
        self.drawer_kicks = 0
        # What came when its buffer was full, and when it had no power.
        self.lost_bytes = 0
        self.ignored_bytes = 0
        self.asb_switch = self._asb = asb
        self.speed_mm_s = speed_mm_s
        self._told = b""
        self._buffer_bytes = buffer_bytes
        self._xonxoff = xonxoff
        self._tcp = tcp_port is not None
        self._held_off = False
        self._real = bytearray()
        self._held = bytearray()
        self._measured = 0
        self._stalled = False
        self._head: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._on_slip = on_slip
        self._line = PrinterLine(
            self._take, self._room, wire=wire or Wire(), link=link, seed=seed, tcp_port=tcp_port
        )
        self._interpreter = self._new_interpreter()

    def _new_interpreter(self) -> Interpreter:
        return Interpreter(
            self.paper,
            self._confirm,
            status=self._status,
            kick=self._kick,
            finished=self._slip,
            began=self._began,
            automatic=self._automatic,
            name=self._name,
            **self._kind,  # type: ignore[arg-type]
        )

    async def __aenter__(self) -> FakePrinter:
        self.plug()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.unplug()

    @property
    def problems(self) -> list[str]:
        return self._interpreter.problems

    @property
    def wire(self) -> Wire:
        return self._line.wire

    @property
    def device_path(self) -> str:
        return self._line.device_path

    # --- the world around it ----------------------------------------------------------------------

    @property
    def plugged(self) -> bool:
        return self._line.plugged

    def plug(self) -> None:
        """On a fresh pty, whose path may be another than before; or on the same TCP port."""
        if not self.plugged:
            self._line.plug()
            # What was in its buffer goes on: full, it would take nothing off the line for ever.
            self._work()

    def unplug(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
        self._line.unplug()

    def reset_link(self) -> None:
        """TCP: the connection is gone, the printer is not."""
        self._line.reset()

    def close(self) -> None:
        """As `unplug`, for contextlib.closing."""
        self.unplug()

    def power_cut(self) -> None:
        """What was printed stays on the paper; what was in the buffer is gone, and every setting."""
        self._held.clear()
        self._real.clear()
        self.paper.scrap()
        self._interpreter = self._new_interpreter()
        self._measured = 0
        self._asb, self._told = self.asb_switch, b""
        self._held_off = self._stalled = False
        self._line.reset()

    def power_off(self) -> None:
        """Until `power_on` it hears nothing and says nothing."""
        self.power_cut()
        self.powered = False

    def power_on(self) -> None:
        self.powered = True
        self._moved()

    def open_cover(self) -> None:
        self.cover_open = True
        self._moved()

    def close_cover(self) -> None:
        self.cover_open = False
        self._moved()

    @property
    def paper_out(self) -> bool:
        return self.used_mm >= self.roll_mm

    @property
    def held_bytes(self) -> int:
        """What is in its buffer."""
        return len(self._held)

    @property
    def near_end(self) -> bool:
        return self.roll_mm - self.used_mm < self.near_end_mm

    def remove_paper(self) -> None:
        self.roll_mm = 0.0
        self._moved()

    def load_paper(self, roll_mm: float = ENDLESS_MM) -> None:
        self.roll_mm = roll_mm
        self.used_mm = 0.0
        self._moved()

    def jam_cutter(self, jammed: bool = True) -> None:
        self.cutter_jammed = jammed
        self._moved()

    def go_offline(self, offline: bool = True) -> None:
        """By its own button, for no reason it has a bit for."""
        self.held_offline = offline
        self._moved()

    def fail(self, failed: bool = True) -> None:
        """An error that only switching it off ends."""
        self.error = failed
        self._moved()

    def close_drawer(self) -> None:
        self.drawer_open = False
        self._moved()

    def pull_drawer(self) -> None:
        """Opened with a key."""
        self.drawer_open = True
        self._moved()

    @property
    def stalled(self) -> bool:
        return self._stalled

    def stall(self) -> None:
        """It takes what fits into its buffer, and prints nothing."""
        self._stalled = True

    def resume(self) -> None:
        self._stalled = False
        self._moved()

    def stick(self, stuck: bool = True) -> None:
        """The line stalls, in the middle of whatever is under way."""
        if stuck:
            self._line.stall()
        else:
            self._line.resume()

    @property
    def stuck(self) -> bool:
        return self._line.stalled

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
        return (
            self.cover_open
            or self.paper_out
            or self.cutter_jammed
            or self.error
            or self.held_offline
        )

    def _moved(self) -> None:
        """Something about it has changed: it may go on, and tells, if it was asked to."""
        self._work()
        self._tell()

    def _room(self) -> int:
        """How many bytes it takes off the line now. Only flow control keeps what does not fit."""
        if self._tcp:
            return self._buffer_bytes - len(self._held)
        if self._xonxoff:
            full = self._held_off and len(self._held) > self._buffer_bytes - 64
            return 0 if full else 32
        return 1 << 16

    def _take(self, data: bytes) -> None:
        if not self.powered:
            self.ignored_bytes += len(data)
            return
        if self.habit == "echo":
            self._line.send(data)
            return
        self._held += self._real_time(data)
        over = len(self._held) - self._buffer_bytes
        if over > 0:
            self.lost_bytes += over
            del self._held[self._buffer_bytes :]
        self._work()

    def _flow(self) -> None:
        if self._tcp and self._room() > 0:
            self._line.listen()
        if not self._xonxoff:
            return
        if not self._held_off and len(self._held) > self._buffer_bytes // 2:
            self._held_off = True
            self._line.put(XOFF)
        elif self._held_off and len(self._held) < self._buffer_bytes // 4:
            self._held_off = False
            self._line.put(XON)
            self._line.listen()

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
                self._answer_now(self._real[2])
                del self._real[:3]
        return bytes(passed)

    def _work(self) -> None:
        while self._held and not (self.offline or self._stalled or self._head is not None):
            byte = bytes(self._held[:1])
            del self._held[:1]
            self._interpreter.feed(byte)
            self._roll()
        self._flow()

    def _roll(self) -> None:
        """Paper goes by as it is printed; at the roll's end the printer stops in the middle of a slip."""
        items = self.paper.open.items
        before = self.near_end, self.paper_out
        height = 0.0
        while self._measured < len(items):
            height += _height_mm(items[self._measured])
            self._measured += 1
        if not items:
            self._measured = 0
        self.used_mm += height
        if before != (self.near_end, self.paper_out):
            self._tell()
        if self.speed_mm_s is not None and height:
            loop = asyncio.get_running_loop()
            self._head = loop.call_later(height / self.speed_mm_s, self._head_is_there)

    def _head_is_there(self) -> None:
        self._head = None
        self._work()

    # --- what it says --------------------------------------------------------------------------------

    def _status(self, which: int) -> int:
        if which < 0x100:  # GS r 1
            return (0x03 if self.near_end else 0) | (0x0C if self.paper_out else 0)
        if which == 0x104:
            return 0x12 | (0x0C if self.near_end else 0) | (0x60 if self.paper_out else 0)
        if which == 0x103:
            return 0x12 | (0x08 if self.cutter_jammed else 0) | (0x20 if self.error else 0)
        if which == 0x102:
            cover = 0x04 if self.cover_open else 0
            return 0x12 | cover | (0x20 if self.paper_out else 0) | (0x40 if self.error else 0)
        if which == 0x101:
            return 0x12 | (0x08 if self.offline else 0) | (0 if self.drawer_open else 0x04)
        return 0x12

    def _name(self, which: int) -> bytes:
        if self.model is None:
            return b""
        texts = {65: "30.21", 66: "EPSON", 67: self.model}
        return b"_" + texts[which].encode() + b"\0" if which in texts else b"\x02"

    def _automatic(self, enabled: int | None) -> None:
        self._asb = self.asb_switch if enabled is None else enabled
        if enabled:
            self._told = b""
            self._tell()

    def _tell(self) -> None:
        """Automatic status back: four bytes when something has changed that it is to tell of."""
        if not self._asb:
            return
        first = 0x10 | (0x08 if self.offline else 0) | (0 if self.drawer_open else 0x04)
        first |= 0x20 if self.cover_open else 0
        errors = (0x08 if self.cutter_jammed else 0) | (0x20 if self.error else 0)
        paper = (0x03 if self.near_end else 0) | (0x0C if self.paper_out else 0)
        packet = bytes([first, errors, paper, 0x0F])
        if packet != self._told:
            self._told = packet
            self._answer(packet)

    def _confirm(self, data: bytes) -> None:
        """What is answered when the printer gets there: GS r, GS ( H, GS I."""
        if self.habit in ("zero", "nonsense") and data:
            data = b"\0" if self.habit == "zero" else b"OK\r"
        if self.wrong_ids and len(data) == 7:
            data = data[:2] + bytes(byte ^ 0x01 for byte in data[2:6]) + data[6:]
        if self.confirms:
            self._answer(data)

    def _answer_now(self, number: int) -> None:
        """To DLE EOT `number`, by its habit."""
        if number not in self.questions:
            return
        said = bytes([self._status(0x100 + number)])
        if self.habit == "late":
            said, self._before = self._before or b"", said
        elif self.habit == "zero":
            said = b"\0"
        elif self.habit == "nonsense":
            said = b"OK\r"
        if said:
            self._answer(said)
        if self.habit == "twice":
            asyncio.get_running_loop().call_later(0.03, self._answer, said)

    def _answer(self, data: bytes) -> None:
        if not self.silent and self.powered:
            self._line.send(data)

    def _kick(self) -> None:
        self.drawer_open = True
        self.drawer_kicks += 1
        self._tell()
        if self.shaken_s:
            loop = asyncio.get_running_loop()
            loop.call_soon(self.unplug)
            loop.call_later(self.shaken_s, self.plug)

    def _began(self) -> None:
        if self.paper.open.began is None:
            self.paper.open.began = asyncio.get_running_loop().time()

    def _slip(self) -> None:
        self.paper.slips[-1].ended = asyncio.get_running_loop().time()
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
