"""The only place that reads a clock or sleeps; everything else is handed a `Clock`.

Wall time says what a receipt carries; CLOCK_BOOTTIME says how much time really went by (it counts
suspend and ignores NTP steps and hand-set clocks). The ceiling needs both.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from zoneinfo import ZoneInfo

EAT = ZoneInfo("Africa/Nairobi")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What the gateway may ask about time."""

    def now(self) -> datetime:
        """Wall clock, aware, UTC."""
        ...

    def boottime_ns(self) -> int:
        """Nanoseconds since boot, suspend included; never steps back within one boot."""
        ...

    def boot_id(self) -> str:
        """Changes with every boot of the machine."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        try:
            self._boot_id = BOOT_ID.read_text().strip()
        except OSError:
            # Without the kernel's boot id every start counts as a new boot, which only makes the
            # ceiling stricter (elapsed time is then taken from the wall clock's high-water mark).
            self._boot_id = f"unknown-{time.time_ns()}"

    def now(self) -> datetime:
        return datetime.now(UTC)

    def boottime_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def boot_id(self) -> str:
        return self._boot_id

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def micros(moment: datetime) -> int:
    """Aware datetime -> integer UTC microseconds, the store's form of an instant."""
    if moment.tzinfo is None:
        raise ValueError("naive datetime")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(value: int) -> datetime:
    """Integer UTC microseconds -> aware datetime, UTC."""
    seconds, rest = divmod(value, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def compact(moment: datetime) -> str:
    """The unit's 14 digits, YYYYMMDDhhmmss, in Nairobi time (VSCU spec: cfmDt, resultDt)."""
    return moment.astimezone(EAT).strftime("%Y%m%d%H%M%S")


def from_compact(text: str) -> datetime:
    """The unit's 14 digits in Nairobi time -> aware datetime. ValueError if they are not a time."""
    if len(text) != 14 or not (text.isascii() and text.isdigit()):
        raise ValueError(f"not 14 digits: {text!r}")
    # Not strptime: it raises while another thread sets the locale, as a JVM does when it starts.
    month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
    moment = datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=EAT)
    if moment.year < 1970:
        raise ValueError(f"not a time of this age: {text!r}")
    return moment


def iso(moment: datetime) -> str:
    """ISO 8601 in Nairobi time to the second, the API's form of an instant."""
    return moment.astimezone(EAT).isoformat(timespec="seconds")


async def wake_or_sleep(clock: Clock, wake: asyncio.Event, seconds: float) -> None:
    """Back when `wake` is set, or after so many seconds of `clock`."""
    woken = asyncio.ensure_future(wake.wait())
    nap = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({woken, nap}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        woken.cancel()
        nap.cancel()
