"""What a fake printer hangs on: a pty (RS-232, USB) or a TCP port. Bytes in by a callback, faults included."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import tty
from collections.abc import Callable
from dataclasses import dataclass

READ_BYTES = 4096
BITS_PER_BYTE = 10


@dataclass(slots=True)
class Wire:
    """Faults of the line. `baud` paces what the printer takes (None: as fast as it comes);
    `lose_every` n: every n-th byte to the printer is lost; `lose_answers`, `noise`: the share of its
    answers that are lost, or have a stray byte before them; `stuck`: not a byte gets through."""

    baud: int | None = None
    one_byte: bool = False
    lose_every: int = 0
    lose_answers: float = 0.0
    noise: float = 0.0
    delay_s: float = 0.0
    stuck: bool = False


class PrinterLine:
    """One end. `take` gets what arrives while `ready` says that there is room."""

    def __init__(
        self,
        wire: Wire,
        chance: random.Random,
        take: Callable[[bytes], None],
        room: Callable[[], int],
        *,
        tcp_port: int | None = None,
    ) -> None:
        self.wire = wire
        self._random = chance
        self._take = take
        self._room = room
        self._tcp_port = tcp_port
        self.device_path = ""
        self._link: socket.socket | None = None
        self._door: socket.socket | None = None
        self._master = -1
        self._slave = -1
        self._count = 0
        self._paced: asyncio.TimerHandle | None = None
        self._reading = False

    @property
    def plugged(self) -> bool:
        return self._slave >= 0 or self._door is not None

    def plug(self) -> None:
        """On a fresh pty, whose path may be another than before; or on the same TCP port again."""
        if self._tcp_port is None:
            self._master, self._slave = os.openpty()
            # The slave stays open here, or the master would see a hang-up when the till closes it.
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.device_path = os.ttyname(self._slave)
            self.listen()
            return
        self._door = socket.create_server(("127.0.0.1", self._tcp_port), reuse_port=False)
        self._door.setblocking(False)
        self._tcp_port = self._door.getsockname()[1]
        self.device_path = f"socket://127.0.0.1:{self._tcp_port}"
        asyncio.get_running_loop().add_reader(self._door, self._accept)

    def unplug(self) -> None:
        self._deaf()
        loop = asyncio.get_running_loop()
        if self._door is not None:
            loop.remove_reader(self._door)
            self._door.close()
            self._door = None
            self.reset()
        elif self._slave >= 0:
            os.close(self._master)
            os.close(self._slave)
            self._master = self._slave = -1

    def reset(self) -> None:
        """TCP: the connection is reset, as by a printer that lost its power. Nothing on a pty."""
        if self._link is None:
            return
        self._deaf()
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._link.close()
        self._link, self._master = None, -1

    def put(self, data: bytes) -> None:
        """Towards the till, with the wire's faults."""
        wire = self.wire
        if self._random.random() < wire.lose_answers:
            return
        if self._random.random() < wire.noise:
            data = bytes([0xF0 | self._random.randrange(16)]) + data
        if wire.delay_s:
            asyncio.get_running_loop().call_later(wire.delay_s, self.put_now, data)
        else:
            self.put_now(data)

    def put_now(self, data: bytes) -> None:
        if self._master >= 0:
            with contextlib.suppress(OSError):  # nobody reads, or nobody is there
                os.write(self._master, data)

    def listen(self) -> None:
        """Go on reading, if something stopped it."""
        if self._master >= 0 and not self._reading and self._paced is None:
            self._reading = True
            asyncio.get_running_loop().add_reader(self._master, self._readable)

    def _deaf(self) -> None:
        if self._paced is not None:
            self._paced.cancel()
            self._paced = None
        self._pause()

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            asyncio.get_running_loop().remove_reader(self._master)

    def _accept(self) -> None:
        assert self._door is not None
        try:
            link, _ = self._door.accept()
        except BlockingIOError:
            return
        self.reset()
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link, self._master = link, link.fileno()
        self.listen()

    def _readable(self) -> None:
        room = self._room()
        if room <= 0 or self.wire.stuck:
            # What is under way stays in the adapter until there is room.
            self._pause()
            return
        # At a baud rate a fiftieth of a second's worth at a time; the line holds the rest back.
        baud = self.wire.baud
        limit = READ_BYTES if baud is None else max(1, baud // BITS_PER_BYTE // 50)
        limit = 1 if self.wire.one_byte else min(limit, room)
        try:
            data = os.read(self._master, limit)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if self._link is not None:
                self.reset()
            else:
                self.unplug()
            return
        if baud is not None:
            self._pause()
            loop = asyncio.get_running_loop()
            self._paced = loop.call_later(len(data) * BITS_PER_BYTE / baud, self._paced_out)
        self._take(self._lossy(data))

    def _paced_out(self) -> None:
        self._paced = None
        self.listen()

    def _lossy(self, data: bytes) -> bytes:
        if not self.wire.lose_every:
            return data
        kept = bytearray()
        for byte in data:
            self._count += 1
            if self._count % self.wire.lose_every:
                kept.append(byte)
        return bytes(kept)
