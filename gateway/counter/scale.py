"""A scale, read when a till asks."""

from __future__ import annotations

import asyncio

from gateway.clock import Clock, wake_or_sleep
from gateway.devices import scale_codec
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine
from gateway.devices.scale_codec import Reading

# A scale answers within this time, or sends within it if it sends by itself. Seconds.
ANSWER_S = 1.0
KEEP_BYTES = 256


class Scale:
    """`read` gives what lies on it now; two tills may ask at once."""

    def __init__(
        self, name: str, settings: LineSettings, protocol: scale_codec.Protocol, clock: Clock
    ) -> None:
        self.protocol = protocol
        self._clock = clock
        self._buffer = b""
        self._news = asyncio.Event()
        self._one = asyncio.Lock()
        self.line = DeviceLine(name, settings, clock, heard=self._heard)

    def _heard(self, data: bytes) -> None:
        self._buffer = (self._buffer + data)[-KEEP_BYTES:]
        if scale_codec.last_reading(self._buffer, self.protocol) is not None:
            self._news.set()

    async def read(self) -> Reading:
        """Never older than the question."""
        async with self._one:
            if self.line.problem is not None:
                return Reading(problem=self.line.problem)
            self._buffer = b""
            self._news.clear()
            if self.protocol == "toledo" and not await self.line.write(scale_codec.ASK):
                return Reading(problem="it takes no question")
            await wake_or_sleep(self._clock, self._news, ANSWER_S)
            reading = scale_codec.last_reading(self._buffer, self.protocol)
            return reading or Reading(problem="it gives no answer")
