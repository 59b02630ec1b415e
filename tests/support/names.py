"""A name server for tests, over real UDP: answers, refuses, or says nothing at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter

from tests.support.netns import Namespace

NXDOMAIN, SERVFAIL = 3, 2
_A = 1


class FakeNames(asyncio.DatagramProtocol):
    """`table`: name -> IPv4 address; any other name is NXDOMAIN. `silent`: every question is swallowed;
    `code`: every answer is this error. `asked` counts the questions by name; one that is sent again because
    nobody answered is the same question. Async context manager."""

    def __init__(self, where: Namespace, address: str, table: dict[str, str] | None = None) -> None:
        self._where, self._address = where, address
        self.table = dict(table or {})
        self.silent = False
        self.code = 0
        self.asked: Counter[str] = Counter()
        self._known: set[tuple[str, bytes]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> FakeNames:
        made = self._where.socket(socket.SOCK_DGRAM)
        made.bind((self._address, 53))
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=made)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, end = _name(data, 12)
        self.asked[name] += (name, data[:2]) not in self._known
        self._known.add((name, data[:2]))
        if self.silent or self._transport is None:
            return
        (kind,) = struct.unpack("!H", data[end : end + 2])
        address = self.table.get(name)
        code = self.code or (0 if address is not None else NXDOMAIN)
        found = address is not None and kind == _A and not code
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, int(found), 0, 0)
        answer = head + data[12 : end + 4]
        if found and address is not None:
            answer += struct.pack("!HHHIH", 0xC00C, _A, 1, 0, 4) + socket.inet_aton(address)
        self._transport.sendto(answer, addr)


def _name(data: bytes, at: int) -> tuple[str, int]:
    labels = []
    while (length := data[at]) != 0:
        labels.append(data[at + 1 : at + 1 + length].decode().lower())
        at += 1 + length
    return ".".join(labels), at + 1
