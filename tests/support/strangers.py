"""Devices of the LAN that hold connections and send little, or too much."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.support.relay import until

HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "
FORM = b"application/x-www-form-urlencoded"


def post_head(path: str, length: int, kind: bytes = FORM) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: ".encode()
        + kind
        + f"\r\nContent-Length: {length}\r\n\r\n".encode()
    )


@dataclass(slots=True)
class Strangers:
    """Connections to one port, from any address of loopback. `close` ends all of them."""

    port: int
    host: str = "127.0.0.1"
    made: Callable[[], socket.socket] = field(
        default=lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    )
    socks: list[socket.socket] = field(default_factory=list)

    async def connect(self, address: str, sent: bytes = b"") -> socket.socket:
        sock = self.made()
        sock.setblocking(False)
        sock.bind((address, 0))
        self.socks.append(sock)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (self.host, self.port))
        if sent:
            with suppress(ConnectionError):
                await loop.sock_sendall(sock, sent)
        return sock

    async def many(self, count: int, address: str, sent: bytes = b"") -> list[socket.socket]:
        return [await self.connect(address, sent) for _ in range(count)]

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def held(sock: socket.socket) -> bool:
    """Return True while the other side has neither said anything nor closed the connection."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


async def settled(socks: list[socket.socket], count: int) -> None:
    """Wait until so many of these are held."""
    await until(lambda: sum(held(sock) for sock in socks) == count)


async def answer_of(sock: socket.socket) -> tuple[int, Any]:
    """Return the status and the JSON of what the other side says before it closes."""
    loop = asyncio.get_running_loop()
    raw = b""
    async with asyncio.timeout(60):
        while piece := await loop.sock_recv(sock, 65536):
            raw += piece
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), json.loads(body)
