"""The real daemon with a clock that runs faster: `python -m tests.support.fast run --config FILE`.

A payment takes minutes and its reconciliation hours; nothing of the daemon is changed for a test of that
but the one clock that every part is handed. Process, store, HTTP and kill are real. FAST_ORIGIN (Unix
seconds) is where the two clocks agree, FAST_SPEED how many seconds go by in one: all processes of a test,
and the next life of one that was killed, live in the same time.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from datetime import UTC, datetime

from gateway import app, daemon
from gateway.cli import main
from gateway.clock import SystemClock


class FastClock(SystemClock):
    """`SystemClock`, at another pace."""

    def __init__(self, origin: float, speed: float) -> None:
        super().__init__()
        self.origin = origin
        self.speed = speed

    def seconds(self) -> float:
        """Unix seconds of this clock."""
        return self.origin + (time.time() - self.origin) * self.speed

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)

    def boottime_ns(self) -> int:
        return int(super().boottime_ns() * self.speed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.speed)

    def environment(self) -> dict[str, str]:
        """For a daemon that is to live in this time."""
        return {"FAST_ORIGIN": repr(self.origin), "FAST_SPEED": repr(self.speed)}


def from_environment() -> FastClock:
    return FastClock(float(os.environ["FAST_ORIGIN"]), float(os.environ["FAST_SPEED"]))


if __name__ == "__main__":
    app.SystemClock = daemon.SystemClock = from_environment  # type: ignore[assignment,misc]
    # KRA's first word comes over a real line: without it a new shop is suspended.
    app.FIRST_CONTACT_S *= from_environment().speed
    app.FIRST_WORD_S *= from_environment().speed
    sys.exit(main())
