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
# Questions whose answers may still come: no more than so many, and not for longer than so long (seconds).
OWED_MAX, LATE_S = 3, 5.0
SILENT = "it gives no answer"


class Scale:
    """`read` gives what lies on it now; several tills may ask at once."""

    def __init__(
        self, name: str, settings: LineSettings, protocol: scale_codec.Protocol, clock: Clock
    ) -> None:
        self.protocol = protocol
        self._clock = clock
        self._buffer = b""
        self._reading: Reading | None = None
        self._news = asyncio.Event()
        self._one = asyncio.Lock()
        # Answers heard, and answers that are still due to questions of the past.
        self._heard_count = 0
        self._owed = 0
        self._asked_ns = 0
        self._begun = 0
        self._last = Reading(problem=SILENT)
        self.line = DeviceLine(name, settings, clock, heard=self._heard, opened=self._opened)

    def _opened(self) -> None:
        self._owed = 0
        self._buffer = b""

    def _heard(self, data: bytes) -> None:
        self._buffer = (self._buffer + data)[-KEEP_BYTES:]
        found = scale_codec.readings_of(self._buffer, self.protocol)
        if not found:
            return
        if self.protocol == "toledo":
            # Each answer is counted once, and every one ends with CR.
            self._buffer = self._buffer.rpartition(b"\r")[2]
            self._heard_count += len(found)
            self._owed = max(0, self._owed - len(found))
        self._reading = found[-1]
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
        self.line.hear_now()
        asked = self.protocol == "toledo"
        if not asked:
            self._buffer = b""
        if self._clock.boottime_ns() - self._asked_ns > LATE_S * 1e9:
            self._owed = 0
        # A scale answers in order. What is still due comes first, and is older than this question; it
        # may also never come, so after each of them the question is asked again.
        own = self._heard_count + self._owed + 1
        while self.line.is_open:
            self._news.clear()
            if asked:
                if not await self.line.write(scale_codec.ASK):
                    break
                self._owed = min(self._owed + 1, OWED_MAX)
                self._asked_ns = self._clock.boottime_ns()
            await wake_or_sleep(self._clock, self._news, ANSWER_S[self.protocol])
            if not self._news.is_set():
                break
            if self._reading is not None and (not asked or self._heard_count >= own):
                return self._reading
        return Reading(problem=self.line.problem or SILENT)
