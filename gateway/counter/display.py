"""What the customer sees: the sale's total and change, the till's own words, and when selling stops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock, wake_or_sleep
from gateway.devices import display_codec
from gateway.devices.channel import LineSettings
from gateway.devices.display_codec import both_ends
from gateway.devices.line import DeviceLine

# A total stays this long, then the display is the shop's again. Seconds.
SALE_S = 20.0
# The whole screen again this often: a display that was unplugged knows nothing. Seconds.
REFRESH_S = 5.0


@dataclass(frozen=True, slots=True)
class Shown:
    lines: tuple[str, str]
    until_ns: int


class CustomerDisplay:
    """The most important thing is shown: a stop of selling, then the sale, then the shop's greeting."""

    def __init__(
        self,
        name: str,
        settings: LineSettings,
        protocol: display_codec.Protocol,
        columns: int,
        idle_text: str,
        clock: Clock,
    ) -> None:
        self._protocol = protocol
        self._columns = columns
        self._idle = idle_text
        self._clock = clock
        self._sale: Shown | None = None
        self._ceiling: Mapping[str, Any] = {"state": "ONLINE"}
        self._wake = asyncio.Event()
        self._fresh = True
        self.line = DeviceLine(name, settings, clock, opened=self._opened)

    def _opened(self) -> None:
        self._fresh = True
        self._wake.set()

    def show_sale(self, total: str, change: str) -> None:
        columns = self._columns
        self._put(both_ends("TOTAL", total, columns), both_ends("CHANGE", change, columns))

    def show_till(self, lines: Sequence[str]) -> None:
        """The till's own words: an item with its price, a greeting."""
        upper, lower = (*lines, "", "")[:2]
        self._put(upper, lower)

    def show_ceiling(self, ceiling: Mapping[str, Any]) -> None:
        """The ceiling as every answer has it."""
        if ceiling["state"] != self._ceiling["state"] or ceiling["state"] == "WARNING":
            self._wake.set()
        self._ceiling = ceiling

    def _put(self, upper: str, lower: str) -> None:
        until = self._clock.boottime_ns() + int(SALE_S * 1e9)
        self._sale = Shown((upper, lower), until)
        self._wake.set()

    @property
    def lines(self) -> list[str]:
        """What stands on it, or would if it were connected."""
        state = self._ceiling["state"]
        if state == "SUSPENDED":
            return ["SUSPENDED", "NO SALES: NO KRA"]
        if state == "NOT_SET_UP":
            return ["NOT SET UP", "NO SALES YET"]
        if state == "CLOCK_FAULT":
            return ["SUSPENDED", "NO SALES: CLOCK"]
        sale = self._sale
        if sale is not None and self._clock.boottime_ns() < sale.until_ns:
            return list(sale.lines)
        if state == "WARNING" and self._ceiling.get("secondsLeft") is not None:
            hours, minutes = divmod(self._ceiling["secondsLeft"] // 60, 60)
            left = f"{hours}H {minutes:02d}M LEFT"
            return [self._idle, both_ends("KRA OFF", left, self._columns)]
        return [self._idle, ""]

    async def run(self) -> None:
        """Keep the screen right."""
        while True:
            self._wake.clear()
            frame = display_codec.frame(self.lines, self._protocol, self._columns)
            # What was plugged in stands in nobody knows which mode.
            start, self._fresh = (display_codec.RESET if self._fresh else b""), False
            if not await self.line.write(start + frame):
                self._fresh = True
            await wake_or_sleep(self._clock, self._wake, REFRESH_S)
