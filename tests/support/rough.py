"""A cable that loses and delays packets: two TAP interfaces in two namespaces, and the test in between.

`tc netem` needs a kernel module that many kernels lack; a TAP needs /dev/net/tun only. What goes over it is
what the two kernels' TCP makes of it, retransmissions and all.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

_TUNSETIFF = 0x400454CA
_TAP, _NO_INFO = 0x0002, 0x1000
_FRAME_MAX = 65_536
TUN = Path("/dev/net/tun")


class Rough:
    """Interfaces called `name` in two namespaces. `loss` of the packets (0 to 1) never arrive, the others
    `delay_s` later, each way; `lost` counts. Async context manager: it carries inside only."""

    def __init__(
        self,
        name: str,
        one: AbstractContextManager[object],
        other: AbstractContextManager[object],
        *,
        seed: int = 1,
    ) -> None:
        if not TUN.exists():
            pytest.skip("there is no /dev/net/tun: no cable that loses packets")
        self.loss = 0.0
        self.delay_s = 0.0
        self.lost = 0
        self._chance = random.Random(seed)
        self._ends: list[int] = []
        for where in (one, other):
            self._open(where, name)

    def _open(self, where: AbstractContextManager[object], name: str) -> None:
        with where:
            end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
            self._ends.append(end)
            fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP | _NO_INFO))

    async def __aenter__(self) -> Rough:
        loop = asyncio.get_running_loop()
        for end, far in zip(self._ends, reversed(self._ends), strict=True):
            loop.add_reader(end, self._carry, end, far)
        return self

    async def __aexit__(self, *_: object) -> None:
        ends, self._ends = self._ends, []
        for end in ends:
            asyncio.get_running_loop().remove_reader(end)
            os.close(end)

    def _carry(self, end: int, far: int) -> None:
        try:
            frame = os.read(end, _FRAME_MAX)
        except OSError:
            return
        if self._chance.random() < self.loss:
            self.lost += 1
            return
        asyncio.get_running_loop().call_later(self.delay_s, self._arrive, far, frame)

    def _arrive(self, far: int, frame: bytes) -> None:
        if far in self._ends:
            try:
                os.write(far, frame)
            except OSError:
                # The interface is down or its queue full: lost, as on any cable.
                self.lost += 1
