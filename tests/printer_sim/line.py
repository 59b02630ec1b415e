"""A serial line and a printer in virtual time, at the edge where the driver reads and writes.

The driver is the real one; so is the interpreter of its bytes. What is virtual is the port: bytes take their time on
the wire, the head takes its time on the paper, and what does not fit into the buffer is lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from gateway.devices.channel import ChannelLost
from hw_fakes.printer.interpreter import Interpreter
from hw_fakes.printer.paper import Paper
from hw_fakes.printer.peer import _height_mm

# What a serial driver takes before the wire.
DRIVER_BYTES = 4096
CUT_S = 0.3


class VirtualClock:
    """What the driver asks for the time."""

    def __init__(self) -> None:
        self.s = 1000.0

    def boottime_ns(self) -> int:
        return int(self.s * 1e9)


@dataclass(slots=True)
class Faults:
    """What goes wrong, counted in bytes that have arrived since the slip began, or as a share."""

    # The power is off from this byte on, for so long.
    power_at: int | None = None
    power_s: float = 3.0
    # The cable is out from this byte on, for so long.
    unplugged_at: int | None = None
    unplugged_s: float = 3.0
    # Paper is out from this byte on, for so long.
    paper_at: int | None = None
    paper_s: float = 20.0
    # The head stands still from this byte on, for so long.
    stall_at: int | None = None
    stall_s: float = 4.0
    # The share of answers that are lost.
    lose_answers: float = 0.0


@dataclass(slots=True)
class Model:
    """A printer: what it answers, its buffer and its paper's speed."""

    baud: int = 9600
    buffer_bytes: int = 1024
    speed_mm_s: float = 60.0
    questions: tuple[int, ...] = (1, 2, 3, 4)
    confirms: bool = True
    faults: Faults = field(default_factory=Faults)


class VirtualLine:
    """The interface of `gateway.devices.channel.Channel`."""

    def __init__(self, model: Model, clock: VirtualClock, chance: object) -> None:
        self.model = model
        self.clock = clock
        self.chance = chance
        self.paper = Paper()
        # Bytes that came when the buffer was full, and that came without power or were in the buffer then.
        self.overflowed = self.cut_off = 0
        self.arrived = 0
        self.offline_until = 0.0
        self.dark_until = 0.0
        self._open = False
        self._driver: deque[int] = deque()
        self._next_byte_s = 0.0
        self._buffer: deque[int] = deque()
        self._real: bytes = b""
        self._head_s = 0.0
        self._measured = 0
        self._in: deque[tuple[float, int]] = deque()
        self._away_until = 0.0
        self._interpreter = self._new()

    def _new(self) -> Interpreter:
        return Interpreter(
            self.paper, self._confirm, status=lambda which: 0, name=lambda which: b""
        )

    # --- the driver's side --------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._open

    def open(self) -> None:
        if self.clock.s < self._away_until:
            self.clock.s += 0.5
            raise ChannelLost("it is not there: is it plugged in?")
        self._open = True
        self._in.clear()

    def close(self) -> None:
        self._open = False
        self._driver.clear()

    discard = close

    def pending(self) -> int:
        return len(self._driver)

    def write_some(self, data: bytes, wait_s: float) -> int:
        self._alive()
        room = DRIVER_BYTES - len(self._driver)
        if room <= 0:
            self._until(self.clock.s + wait_s)
            self._alive()
            room = DRIVER_BYTES - len(self._driver)
        taken = data[: max(0, room)]
        if taken and not self._driver:
            self._next_byte_s = max(self._next_byte_s, self.clock.s) + self._byte_s
        self._driver.extend(taken)
        return len(taken)

    def read_some(self, wait_s: float) -> bytes:
        self._alive()
        end_s = self.clock.s + wait_s
        while not (self._in and self._in[0][0] <= self.clock.s):
            if self.clock.s >= end_s:
                return b""
            self._until(min(end_s, self.clock.s + 0.02))
            self._alive()
        data = bytearray()
        while self._in and self._in[0][0] <= self.clock.s:
            data.append(self._in.popleft()[1])
        return bytes(data)

    def _alive(self) -> None:
        if self.clock.s < self._away_until:
            raise ChannelLost("the device was unplugged")

    # --- the world ------------------------------------------------------------------------------------

    @property
    def _byte_s(self) -> float:
        return 10 / self.model.baud

    def begin(self) -> None:
        """A slip begins: faults count from here."""
        self.arrived = 0

    def settle(self) -> None:
        """Let everything come to its end."""
        self._until(self.clock.s + 120.0)

    def _until(self, end_s: float) -> None:
        """Let time pass; every byte and every movement of the head in its order."""
        while True:
            self._work(min(end_s, self._next_byte_s if self._driver else end_s))
            if not self._driver or self._next_byte_s > end_s:
                break
            self.clock.s = max(self.clock.s, self._next_byte_s)
            self._arrive(self._driver.popleft())
            self._next_byte_s += self._byte_s
        self.clock.s = max(self.clock.s, end_s)

    def _arrive(self, byte: int) -> None:
        now_s, faults = self.clock.s, self.model.faults
        self.arrived += 1
        if faults.power_at == self.arrived:
            self.dark_until = now_s + faults.power_s
            self.cut_off += len(self._buffer)
            self._buffer.clear()
            self.paper.scrap()
            self._interpreter, self._real, self._measured = self._new(), b"", 0
        if faults.unplugged_at == self.arrived:
            self._away_until = now_s + faults.unplugged_s
            self.cut_off += len(self._driver)
            self._driver.clear()
        if faults.paper_at == self.arrived:
            self.offline_until = now_s + faults.paper_s
        if faults.stall_at == self.arrived:
            self._head_s = max(self._head_s, now_s) + faults.stall_s
        if now_s < self.dark_until:
            self.cut_off += 1
            return
        self._real += bytes([byte])
        if b"\x10\x04".startswith(self._real) or (
            len(self._real) == 2 and self._real == b"\x10\x04"
        ):
            return
        if len(self._real) == 3 and self._real.startswith(b"\x10\x04"):
            self._answer_now(self._real[2])
            self._real = b""
            return
        for each in self._real:
            if len(self._buffer) >= self.model.buffer_bytes:
                self.overflowed += 1
            else:
                self._buffer.append(each)
        self._real = b""

    def _work(self, end_s: float) -> None:
        """The head takes bytes from the buffer until the paper moves, and then for as long as that takes."""
        while self._buffer and max(self._head_s, self.offline_until) <= end_s:
            at_s = max(self._head_s, self.offline_until, 0.0)
            self._head_s = max(at_s, min(self.clock.s, end_s))
            self._interpreter.feed(bytes([self._buffer.popleft()]))
            items = self.paper.open.items
            if not items:
                self._measured = 0
            height = 0.0
            while self._measured < len(items):
                height += _height_mm(items[self._measured])
                self._measured += 1
            self._head_s += height / self.model.speed_mm_s

    def _confirm(self, data: bytes) -> None:
        if self.model.confirms:
            self._say(data, max(self._head_s, self.clock.s))

    def _answer_now(self, number: int) -> None:
        if number in self.model.questions:
            out = self.clock.s < self.offline_until
            well = {1: 0x16 | (0x08 if out else 0), 2: 0x12 | (0x20 if out else 0), 3: 0x12}
            self._say(bytes([well.get(number, 0x12 | (0x60 if out else 0))]), self.clock.s)

    def _say(self, data: bytes, at_s: float) -> None:
        lost = self.model.faults.lose_answers
        if at_s >= self.dark_until and self.chance.random() >= lost:  # type: ignore[attr-defined]
            last_s = self._in[-1][0] if self._in else 0.0
            for number, byte in enumerate(data, 1):
                self._in.append((max(last_s, at_s) + number * self._byte_s, byte))
