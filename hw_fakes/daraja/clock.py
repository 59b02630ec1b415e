"""The fake's one clock: what it waits for runs at a scale, what it stamps is wall time in Nairobi."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

EAT = timezone(timedelta(hours=3), "EAT")


class FakeClock:
    """`scale` 0.01: a second of the fake's world takes 10 ms. Stamps are not scaled, only shifted by `offset_s`."""

    def __init__(self, scale: float = 1.0, now: Callable[[], datetime] | None = None) -> None:
        self._scale = scale
        self._now = now or (lambda: datetime.now(UTC))
        self._real = time.monotonic()
        self._fake = 0.0
        self.offset_s = 0.0

    @property
    def scale(self) -> float:
        return self._scale

    @scale.setter
    def scale(self, value: float) -> None:
        self._fake, self._real = self.elapsed(), time.monotonic()
        self._scale = value

    def now(self) -> datetime:
        return (self._now() + timedelta(seconds=self.offset_s)).astimezone(EAT)

    def elapsed(self) -> float:
        """Seconds of the fake's world since it began; never back."""
        return self._fake + (time.monotonic() - self._real) / self._scale

    def real(self) -> float:
        """Seconds that no scale touches: for the life of a token, which the other side counts too."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds) * self._scale)
