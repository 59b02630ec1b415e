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
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.netns import Namespace

_TUNSETIFF = 0x400454CA
_TAP, _NO_INFO = 0x0002, 0x1000
_FRAME_MAX = 65_536
TUN = Path("/dev/net/tun")


class Rough:
    """`loss` of the packets (0 to 1) never arrive, the others `delay_s` later, each way. Async context
    manager; `lost` and `passed` count."""

    def __init__(
        self, one: tuple[Namespace, str], other: tuple[Namespace, str], *, seed: int = 1
    ) -> None:
        if not TUN.exists():
            pytest.skip("there is no /dev/net/tun: no cable that loses packets")
        self.loss = 0.0
        self.delay_s = 0.0
        self.lost = self.passed = 0
        self._chance = random.Random(seed)
        self._stack = ExitStack()
        self._ends = [self._open(*one), self._open(*other)]

    def _open(self, where: Namespace, name: str) -> int:
        with where:
            end = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
            self._stack.callback(os.close, end)
            fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP | _NO_INFO))
        return end

    async def __aenter__(self) -> Rough:
        loop = asyncio.get_running_loop()
        for end, far in zip(self._ends, reversed(self._ends), strict=True):
            loop.add_reader(end, self._carry, end, far)
        return self

    async def __aexit__(self, *_: object) -> None:
        for end in self._ends:
            asyncio.get_running_loop().remove_reader(end)
        ends, self._ends = self._ends, []
        assert ends
        self._stack.close()

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
                return
            self.passed += 1
