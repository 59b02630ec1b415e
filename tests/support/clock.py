"""A clock that tests drive: wall and boot time apart, steps, drift, reboots; sleep is virtual."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

FOLLOW_NS = 240_000_000_000


class FakeClock:
    """`advance` moves both clocks and wakes sleepers in order; nothing waits for real time."""

    def __init__(self, start: datetime | None = None) -> None:
        self._wall = start or datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
        # What the wall clock would show had nobody set it.
        self.true = self._wall
        self._boot_ns = 1_000_000_000
        self._boot = itertools.count(1)
        self._boot_id = f"boot-{next(self._boot)}"
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._virtual_ns = 0
        # Called before a sleeper wakes, at most every FOLLOW_NS of the clock: another clock follows.
        self.follower: Callable[[], Awaitable[None]] | None = None
        self._followed_ns = 0

    def now(self) -> datetime:
        return self._wall

    def boottime_ns(self) -> int:
        return self._boot_ns

    def boot_id(self) -> str:
        return self._boot_id

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due = self._virtual_ns + int(seconds * 1e9)
        heapq.heappush(self._sleepers, (due, next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """How many sleeps have not ended and were not given up."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def next_s(self) -> float:
        """Seconds until the next sleep ends; infinite while nobody sleeps."""
        due = min((due for due, _, future in self._sleepers if not future.done()), default=None)
        return math.inf if due is None else max(0, due - self._virtual_ns) / 1e9

    def step_wall(self, **delta: float) -> None:
        """A hand or NTP sets the clock; no time goes by."""
        self._wall += timedelta(**delta)

    def reboot(self, **off: float) -> None:
        """The machine is off for a while; the wall clock goes on, time since boot starts anew."""
        self._wall += timedelta(**off)
        self.true += timedelta(**off)
        self._boot_ns = 1_000_000_000
        self._boot_id = f"boot-{next(self._boot)}"

    def pass_time(self, **delta: float) -> None:
        """Time goes by for a machine that runs or is suspended, without waking sleepers."""
        step = timedelta(**delta)
        self._wall += step
        self.true += step
        self._boot_ns += int(step.total_seconds() * 1e9)

    async def advance(self, **delta: float) -> None:
        """Time goes by; each sleeper wakes at its own moment. What it does on other threads is not waited for:
        look for it afterwards."""
        end = self._virtual_ns + int(timedelta(**delta).total_seconds() * 1e9)
        while True:
            await settle()
            due = self._sleepers[0][0] if self._sleepers else end
            step = min(max(due, self._virtual_ns), end) - self._virtual_ns
            self._virtual_ns += step
            self._wall += timedelta(microseconds=step / 1000)
            self.true += timedelta(microseconds=step / 1000)
            self._boot_ns += step
            if not self._sleepers or self._sleepers[0][0] > end:
                break
            await self._follow()
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)
        await settle()

    async def _follow(self) -> None:
        if self.follower is not None and self._virtual_ns - self._followed_ns >= FOLLOW_NS:
            self._followed_ns = self._virtual_ns
            await self.follower()


class FastClock:
    """Real time, so many times as fast, for everything that is handed a Clock. Sockets stay as they are."""

    def __init__(self, factor: float, start: datetime | None = None) -> None:
        self.factor = factor
        self._start = start or datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
        self._real_ns = time.monotonic_ns()

    def boottime_ns(self) -> int:
        return 1_000_000_000 + int((time.monotonic_ns() - self._real_ns) * self.factor)

    def now(self) -> datetime:
        return self._start + timedelta(microseconds=self.boottime_ns() / 1000)

    def boot_id(self) -> str:
        return "boot-fast"

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.factor)


async def settle(rounds: int = 20) -> None:
    """Let everything on the loop run that can run now. What is on the store's threads may take longer."""
    for _ in range(rounds):
        await asyncio.sleep(0)
