"""A scale, read when a till asks."""

from __future__ import annotations

import asyncio

from gateway.clock import Clock, wake_or_sleep
from gateway.devices import scale_codec
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine
from gateway.devices.scale_codec import Options, Reading
from gateway.devices.scale_reading import (
    GARBLED,
    MOVING,
    NO_POINT,
    NO_UNIT,
    NO_WEIGHT,
    NOT_KG,
)

# A scale answers within this time; one that sends without a question sends enough lines within it.
ANSWER_S, SENDING_ANSWER_S = 1.0, 2.0
KEEP_BYTES = 256
# The newest bytes that a problem shows; fewer than WHOLE_BYTES are a cut answer, FOREIGN_BYTES another
# format.
RAW_BYTES, WHOLE_BYTES, FOREIGN_BYTES = 64, 6, 128
# A scale is asked so many times for two equal answers.
TWICE_TRIES = 3
# Questions whose answers may still come: no more than so many, and not for longer than so long (seconds).
OWED_MAX, LATE_S = 3, 5.0
SILENT = "it gives no answer"


class Scale:
    """`read` gives what lies on it now; several tills may ask at once."""

    def __init__(
        self,
        name: str,
        settings: LineSettings,
        protocol: scale_codec.Protocol,
        clock: Clock,
        options: Options = Options(),
    ) -> None:
        self.protocol = protocol
        self._options = options
        self._question = scale_codec.ASK.get(protocol)
        self._clock = clock
        self._buffer = b""
        # The newest bytes, and how many arrived since the last answer that was understood.
        self._raw = b""
        self._foreign = 0
        # A problem of the settings, until a weight arrives.
        self._setup: str | None = None
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
        self._owed = self._foreign = 0
        self._buffer = self._raw = b""
        self._setup = None

    @property
    def problem(self) -> str | None:
        """Return why it gives no weight, as far as that is known without a question."""
        if self.line.problem is not None:
            return self.line.problem
        if self._foreign >= FOREIGN_BYTES:
            return scale_codec.not_as_set(self._raw, self.protocol)
        return self._setup

    def _heard(self, data: bytes) -> None:
        self._buffer = (self._buffer + data)[-KEEP_BYTES:]
        self._raw = (self._raw + data)[-RAW_BYTES:]
        self._foreign += len(data)
        found, rest = scale_codec.decode(self._buffer, self.protocol, self._options)
        if not found:
            return
        if self._question is not None:
            # Each answer is counted once.
            self._buffer = rest
            self._heard_count += len(found)
            self._owed = max(0, self._owed - len(found))
        self._reading = found[-1]
        self._foreign = 0
        self._setup = self._shown(self._reading).problem if _is_setup(self._reading) else None
        self._news.set()

    async def read(self) -> Reading:
        """Never older than the question; one that began after it, for another till, will do."""
        begun = self._begun
        async with self._one:
            if self._begun == begun:
                self._begun += 1
                self._last = Reading(problem=SILENT)
                self._last = await self._weigh()
            return self._last

    async def _weigh(self) -> Reading:
        """Ask once, or until two answers agree where one alone cannot be trusted."""
        reading = await self._ask()
        if self.protocol not in scale_codec.TWICE:
            return reading
        for _ in range(TWICE_TRIES):
            before, reading = reading, await self._ask()
            if reading.problem is not None or reading == before:
                return reading
        return Reading(problem=MOVING)

    async def _ask(self) -> Reading:
        self.line.hear_now()
        question = self._question
        self._raw = b""
        if question is None:
            self._buffer = b""
        if self._clock.boottime_ns() - self._asked_ns > LATE_S * 1e9:
            self._owed = 0
        # A scale answers in order. What is still due comes first, and is older than this question; it
        # may also never come, so after each of them the question is asked again.
        own = self._heard_count + self._owed + 1
        while self.line.is_open:
            self._news.clear()
            if question is not None:
                if not await self.line.write(question):
                    break
                self._owed = min(self._owed + 1, OWED_MAX)
                self._asked_ns = self._clock.boottime_ns()
            await wake_or_sleep(
                self._clock, self._news, SENDING_ANSWER_S if question is None else ANSWER_S
            )
            if not self._news.is_set():
                break
            if self._reading is not None and (question is None or self._heard_count >= own):
                return self._shown(self._reading)
        return Reading(problem=self.line.problem or self._unread())

    def _shown(self, reading: Reading) -> Reading:
        """Return the reading; with the bytes where it could not be understood."""
        if reading.problem is None or not _is_setup(reading):
            return reading
        if reading.problem == GARBLED:
            return Reading(problem=f"{GARBLED}; {scale_codec.not_as_set(self._raw, self.protocol)}")
        return Reading(problem=scale_codec.with_bytes(reading.problem, self._raw, self.protocol))

    def _unread(self) -> str:
        """Return what to say of a question without an answer."""
        if not self._raw:
            return SILENT
        if len(self._raw) < WHOLE_BYTES:
            return f"{SILENT} that is whole: {self._raw.hex(' ')}"
        return scale_codec.not_as_set(self._raw, self.protocol)


def _is_setup(reading: Reading) -> bool:
    """Return whether only a setting, of the scale or of the gateway, ends this problem."""
    return reading.problem in (NO_POINT, NO_UNIT, NO_WEIGHT, NOT_KG, GARBLED)
