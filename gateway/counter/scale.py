"""A scale, read when a till asks."""

from __future__ import annotations

import asyncio

from gateway.clock import Clock, wake_or_sleep
from gateway.devices import scale_codec
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine
from gateway.devices.scale_codec import Reading

# A scale answers within this time; one that sends by itself sends two lines within it. Seconds.
ANSWER_S = {"toledo": 1.0, "and": 2.0}
KEEP_BYTES = 256
# Questions without an answer whose answers may still come. A scale does not queue more than one or two.
OWED_MAX = 3
SILENT = "it gives no answer"


class Scale:
    """`read` gives what lies on it now; several tills may ask at once."""

    def __init__(
        self, name: str, settings: LineSettings, protocol: scale_codec.Protocol, clock: Clock
    ) -> None:
        self.protocol = protocol
        self._clock = clock
        self._buffer = b""
        self._news = asyncio.Event()
        self._one = asyncio.Lock()
        self._owed = 0
        self._begun = 0
        self._last = Reading(problem=SILENT)
        self.line = DeviceLine(name, settings, clock, heard=self._heard, opened=self._opened)

    def _opened(self) -> None:
        self._owed = 0
        self._buffer = b""

    def _heard(self, data: bytes) -> None:
        self._buffer = (self._buffer + data)[-KEEP_BYTES:]
        if scale_codec.last_reading(self._buffer, self.protocol) is not None:
            self._news.set()

    async def read(self) -> Reading:
        """Never older than the question; one that began after it, for another till, will do."""
        begun = self._begun
        async with self._one:
            if self._begun == begun:
                self._begun += 1
                self._last = Reading(problem=SILENT)
                self._last = await self._ask()
            return self._last

    async def _ask(self) -> Reading:
        reading = None
        # What earlier questions did not get may come now, and is older than this one. A scale answers
        # in order: the answer to our own question is at most so many further on.
        for _ in range(self._owed + 1):
            if not self.line.is_open:
                return Reading(problem=self.line.problem or SILENT)
            self.line.hear_now()
            self._buffer = b""
            self._news.clear()
            if self.protocol == "toledo":
                if not await self.line.write(scale_codec.ASK):
                    return Reading(problem=self.line.problem or SILENT)
                self._owed = min(self._owed + 1, OWED_MAX)
            await wake_or_sleep(self._clock, self._news, ANSWER_S[self.protocol])
            reading = scale_codec.last_reading(self._buffer, self.protocol)
            if reading is None:
                return Reading(problem=self.line.problem or SILENT)
        self._owed = 0
        return reading or Reading(problem=SILENT)
