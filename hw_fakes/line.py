"""What serial fakes share: a pty with a name that stays, and everything that can be wrong with a wire."""

from __future__ import annotations

import asyncio
import os
import random
import tty
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

READ_BYTES = 4096
# With `one_byte`, so long between two bytes (seconds): each arrives in a read of its own.
APART_S = 0.002


@dataclass(slots=True)
class Wire:
    """Faults, in force from the next byte on. None of them is seen by the device itself."""

    # Paces both directions, ten bits a byte; None: as fast as it comes.
    baud: int | None = None
    one_byte: bool = False
    # Every so manieth byte is lost, in each direction; 0: none.
    lose_every: int = 0
    # How likely a byte from the device arrives as junk: with its top bit set, as a framing error does.
    noise: float = 0.0
    # What the device says arrives so much later, in order.
    delay_s: float = 0.0
    # After so many more bytes from the device nothing goes through, in either direction.
    stall_after: int | None = None


class PtyLine:
    """The device's end of a serial line. `heard` gets what the gateway sent; `send` speaks to it.

    `link` is the name that stays over a replug, as udev makes it: gone while nothing is plugged in.
    """

    def __init__(
        self,
        heard: Callable[[bytes], None],
        *,
        wire: Wire | None = None,
        link: Path | None = None,
        seed: int = 1,
    ) -> None:
        self.wire = wire or Wire()
        self.pty = ""
        self.stalled = False
        self._heard = heard
        self._link = link
        self._random = random.Random(seed)
        self._master = self._slave = -1
        self._counts = {"in": 0, "out": 0}
        self._waiting = bytearray()
        self._held = False
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None

    @property
    def device_path(self) -> str:
        """What the gateway opens."""
        return str(self._link) if self._link is not None else self.pty

    @property
    def plugged(self) -> bool:
        return self._master >= 0

    def plug(self) -> None:
        """On a fresh pty, never the one before it."""
        if self.plugged:
            return
        master, slave = os.openpty()
        if os.ttyname(slave) == self.pty:
            again = os.openpty()
            os.close(master)
            os.close(slave)
            master, slave = again
        self._master, self._slave = master, slave
        # The slave stays open here, or the master would see a hang-up whenever the gateway closes it.
        tty.setraw(slave)
        os.set_blocking(master, False)
        self.pty = os.ttyname(slave)
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.pty)
        self._listen()

    def unplug(self) -> None:
        """The cable is pulled: what was under way is gone, and so is the name."""
        if not self.plugged:
            return
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        self._reading = self._writing = None
        self._waiting.clear()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def stall(self) -> None:
        """Nothing goes through until `resume`; nothing is lost either."""
        self.stalled = True

    def resume(self) -> None:
        self.stalled = False
        self.wire.stall_after = None
        self._pump_soon()
        if self.plugged and self._reading is None:
            self._listen()

    def hold(self) -> None:
        """The device takes no more bytes (its buffer is full); `release` ends it."""
        self._held = True

    def release(self) -> None:
        self._held = False
        if self.plugged and self._reading is None:
            self._listen()

    # --- from the gateway ---------------------------------------------------------------------------

    def _listen(self) -> None:
        self._reading = None
        asyncio.get_running_loop().add_reader(self._master, self._readable)

    def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        if self.stalled or self._held:
            loop.remove_reader(self._master)
            return
        baud = self.wire.baud
        limit = READ_BYTES if baud is None else max(1, baud // 500)
        if self.wire.one_byte:
            limit = 1
        try:
            data = os.read(self._master, limit)
        except BlockingIOError:
            return
        except OSError:
            self.unplug()
            return
        if baud is not None:
            loop.remove_reader(self._master)
            self._reading = loop.call_later(len(data) * 10 / baud, self._listen)
        if kept := self._lossy("in", data):
            self._heard(kept)

    # --- to the gateway -----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """What the device says; into the void while it is not plugged in."""
        if not self.plugged:
            return
        if self.wire.delay_s:
            asyncio.get_running_loop().call_later(self.wire.delay_s, self._queue, self.pty, data)
        else:
            self._queue(self.pty, data)

    def _queue(self, pty: str, data: bytes) -> None:
        if self.plugged and self.pty == pty:
            self._waiting += data
            if self._writing is None:
                self._pump()

    def _pump_soon(self, after_s: float = 0.0) -> None:
        if self.plugged and self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(after_s, self._pump)

    def _pump(self) -> None:
        self._writing = None
        if self.stalled or not self.plugged or not self._waiting:
            return
        wire = self.wire
        count = len(self._waiting)
        if wire.baud is not None:
            count = max(1, wire.baud // 500)
        if wire.one_byte:
            count = 1
        if wire.stall_after is not None:
            count = min(count, wire.stall_after)
        piece = bytes(self._waiting[:count])
        del self._waiting[:count]
        self._put(self._noisy(self._lossy("out", piece)))
        if wire.stall_after is not None:
            wire.stall_after -= len(piece)
            if wire.stall_after <= 0:
                self.stall()
                return
        pace = len(piece) * 10 / wire.baud if wire.baud is not None else 0.0
        if self._waiting:
            self._pump_soon(max(pace, APART_S if wire.one_byte else 0.0))

    def _put(self, data: bytes) -> None:
        try:
            os.write(self._master, data)
        except BlockingIOError:
            pass  # nobody reads: lost, as on a real wire

    def _lossy(self, way: str, data: bytes) -> bytes:
        if not self.wire.lose_every:
            return data
        kept = bytearray()
        for byte in data:
            self._counts[way] += 1
            if self._counts[way] % self.wire.lose_every:
                kept.append(byte)
        return bytes(kept)

    def _noisy(self, data: bytes) -> bytes:
        if not self.wire.noise:
            return data
        return bytes(
            byte | 0x80 if self._random.random() < self.wire.noise else byte for byte in data
        )
