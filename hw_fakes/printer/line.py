"""What a fake printer hangs on: a pty (RS-232, USB), or a TCP port that takes one connection at a time."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hw_fakes import line


@dataclass(slots=True)
class Wire(line.Wire):
    """As of every serial fake, but `noise` is a stray byte before what it says, and `lose_answers` the
    share of its answers that are lost whole."""

    lose_answers: float = 0.0


class PrinterLine(line.PtyLine):
    """On a pty, or on a loopback port where `tcp_port` is given (0: any)."""

    wire: Wire

    def __init__(
        self,
        heard: Callable[[bytes], None],
        room: Callable[[], int],
        *,
        wire: Wire,
        link: Path | None,
        seed: int,
        tcp_port: int | None,
    ) -> None:
        super().__init__(heard, room, wire=wire, link=link, seed=seed)
        self._tcp_port = tcp_port
        self._connection: socket.socket | None = None
        self._door: socket.socket | None = None

    @property
    def device_path(self) -> str:
        if self._tcp_port is None:
            return super().device_path
        return f"socket://127.0.0.1:{self._tcp_port}"

    @property
    def plugged(self) -> bool:
        return self._door is not None if self._tcp_port is not None else self._slave >= 0

    def plug(self) -> None:
        """On a fresh pty, or on the same TCP port again."""
        if self._tcp_port is None:
            super().plug()
            return
        self._door = socket.create_server(("127.0.0.1", self._tcp_port), reuse_port=False)
        self._door.setblocking(False)
        self._tcp_port = self._door.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._door, self._accept)

    def unplug(self) -> None:
        if self._door is None:
            super().unplug()
            return
        asyncio.get_running_loop().remove_reader(self._door)
        self._door.close()
        self._door = None
        self.reset()

    def reset(self) -> None:
        """TCP: the connection is reset, as by a printer that lost its power. Nothing on a pty."""
        if self._connection is None:
            return
        self._drop()
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()
        self._connection, self._master = None, -1

    def send(self, data: bytes) -> None:
        if self._random.random() >= self.wire.lose_answers:
            super().send(data)

    def _accept(self) -> None:
        assert self._door is not None
        try:
            link, _ = self._door.accept()
        except BlockingIOError:
            return
        self.reset()
        link.setblocking(False)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection, self._master = link, link.fileno()
        self.listen()

    def _hung_up(self) -> None:
        if self._door is None:
            self.unplug()
        else:
            self.reset()

    def _noisy(self, data: bytes) -> bytes:
        if self._random.random() < self.wire.noise:
            return bytes([0xF0 | self._random.randrange(16)]) + data
        return data
