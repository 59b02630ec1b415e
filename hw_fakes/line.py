"""What serial fakes share: a pty with a name that stays, and everything that can be wrong with a wire."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import tempfile
import tty
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

READ_BYTES = 4096
# With `one_byte`, so long between two bytes (seconds): each arrives in a read of its own.
APART_S = 0.002
_names = itertools.count(1)


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

    `link` is the name that stays over a replug, as udev makes it: gone while nothing is plugged in. Without
    one it has a name of its own, which goes as well: the pty's number is free then, and the next to get it
    may be another program's fake, which a gateway that opens its port again must not find.
    `room` says how many bytes the device takes now; where it said 0, `listen` goes on.
    `device`: a serial device that is there, instead of a pty.
    """

    def __init__(
        self,
        heard: Callable[[bytes], None],
        room: Callable[[], int] = lambda: READ_BYTES,
        *,
        wire: Wire | None = None,
        link: Path | None = None,
        device: Path | None = None,
        seed: int = 1,
    ) -> None:
        self.wire = wire or Wire()
        self.pty = ""
        self.stalled = False
        self._heard = heard
        self._room = room
        self._link = link
        self._device = device
        self._random = random.Random(seed)
        self._master = self._slave = -1
        self._counts = {"in": 0, "out": 0}
        self._waiting = bytearray()
        self._held = False
        self._listening = False
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
        if self._device is not None:
            self._master = os.open(self._device, os.O_RDWR | os.O_NOCTTY)
            tty.setraw(self._master)
            self.pty = str(self._device)
        else:
            self._open_pty()
            if self._link is None:
                name = f"pos-fake-{os.getpid()}-{next(_names)}"
                self._link = Path(tempfile.gettempdir()) / name
        os.set_blocking(self._master, False)
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.pty)
        self.listen()

    def _open_pty(self) -> None:
        master, slave = os.openpty()
        if os.ttyname(slave) == self.pty:
            again = os.openpty()
            os.close(master)
            os.close(slave)
            master, slave = again
        self._master, self._slave = master, slave
        # The slave stays open here, or the master would see a hang-up whenever the gateway closes it.
        tty.setraw(slave)
        self.pty = os.ttyname(slave)

    def unplug(self) -> None:
        """The cable is pulled: what was under way is gone, and so is the name."""
        if not self.plugged:
            return
        self._drop()
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1

    def _drop(self) -> None:
        """Deaf, and what was under way is gone."""
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        self._reading = self._writing = None
        self._waiting.clear()
        self._pause()

    def stall(self) -> None:
        """Nothing goes through until `resume`; nothing is lost either."""
        self.stalled = True

    def resume(self) -> None:
        self.stalled = False
        self.wire.stall_after = None
        self._pump_soon()
        self.listen()

    def hold(self) -> None:
        """The device takes no more bytes (its buffer is full); `release` ends it."""
        self._held = True

    def release(self) -> None:
        self._held = False
        self.listen()

    # --- from the gateway ---------------------------------------------------------------------------

    def listen(self) -> None:
        """Go on reading, if something stopped it."""
        if self._master >= 0 and not self._listening and self._reading is None:
            self._listening = True
            asyncio.get_running_loop().add_reader(self._master, self._readable)

    def _pause(self) -> None:
        if self._listening:
            self._listening = False
            asyncio.get_running_loop().remove_reader(self._master)

    def _readable(self) -> None:
        room = 0 if self.stalled or self._held else self._room()
        if room <= 0:
            self._pause()
            return
        # At a baud rate a fiftieth of a second's worth at a time; the line holds the rest back.
        baud = self.wire.baud
        limit = READ_BYTES if baud is None else max(1, baud // 500)
        try:
            data = os.read(self._master, 1 if self.wire.one_byte else min(limit, room))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up()
            return
        if baud is not None:
            self._pause()
            self._reading = asyncio.get_running_loop().call_later(
                len(data) * 10 / baud, self._paced_out
            )
        if kept := self._lossy("in", data):
            self._heard(kept)

    def _paced_out(self) -> None:
        self._reading = None
        self.listen()

    def _hung_up(self) -> None:
        self.unplug()

    # --- to the gateway -----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """What the device says; into the void while it is not plugged in."""
        if not self.plugged:
            return
        if self.wire.delay_s:
            asyncio.get_running_loop().call_later(self.wire.delay_s, self._queue, self.pty, data)
        else:
            self._queue(self.pty, data)

    async def write(self, data: bytes) -> bool:
        """Bytes as they are, all of them, however slowly they are read; False if it was unplugged."""
        step = 1 if self.wire.one_byte else READ_BYTES
        while data and self.plugged:
            try:
                data = data[os.write(self._master, data[:step]) :]
                await asyncio.sleep(0)
            except BlockingIOError:
                await asyncio.sleep(0.005)
        return not data

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
        self.put(self._noisy(self._lossy("out", piece)))
        if wire.stall_after is not None:
            wire.stall_after -= len(piece)
            if wire.stall_after <= 0:
                self.stall()
                return
        pace = len(piece) * 10 / wire.baud if wire.baud is not None else 0.0
        if self._waiting:
            self._pump_soon(max(pace, APART_S if wire.one_byte else 0.0))

    def put(self, data: bytes) -> None:
        """Past everything that is wrong with the wire."""
        with contextlib.suppress(
            OSError
        ):  # nobody reads: lost, as on a real wire; or nobody is there
            os.write(self._master, data)

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


class OnALine:
    """A device at its end of a `line`: an async context manager that is plugged in meanwhile."""

    line: PtyLine

    async def __aenter__(self) -> Self:
        self.plug()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.unplug()

    @property
    def device_path(self) -> str:
        """What the gateway opens."""
        return self.line.device_path

    def plug(self) -> None:
        self.line.plug()

    def unplug(self) -> None:
        self.line.unplug()
