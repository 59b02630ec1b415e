"""A serial device that speaks by itself, on the loop: opened, heard, healed after an unplug."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.clock import Clock
from gateway.devices.channel import Channel, ChannelLost, LineSettings, Tap

log = logging.getLogger(__name__)

REOPEN_FIRST_S, REOPEN_LAST_S = 0.5, 5.0
# A device that takes no byte for this long is said to be stuck. Seconds.
WRITE_MAX_S = 2.0


class DeviceLine:
    """`run` belongs to the supervisor; `heard` gets bytes as they come, `opened` each new beginning."""

    def __init__(
        self,
        name: str,
        settings: LineSettings,
        clock: Clock,
        *,
        heard: Callable[[bytes], None] = lambda data: None,
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.tap = Tap()
        self.settings = settings
        self._clock = clock
        self._heard = heard
        self._opened = opened
        self._channel = Channel(settings, self.tap)
        self._lost = asyncio.Event()
        self._writing = asyncio.Lock()
        # Why the device cannot be spoken to; None while it can.
        self.problem: str | None = "not opened yet"

    async def run(self) -> None:
        pause = REOPEN_FIRST_S
        try:
            while True:
                try:
                    await asyncio.to_thread(self._channel.open)
                except ChannelLost as lost:
                    self._say(str(lost))
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, REOPEN_LAST_S)
                    continue
                pause = REOPEN_FIRST_S
                self._say(None)
                await self._listen()
        finally:
            self._channel.close()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._lost.clear()
        fd = self._channel.fileno()
        loop.add_reader(fd, self._readable)
        try:
            self._opened()
            await self._lost.wait()
        finally:
            loop.remove_reader(fd)
            self._channel.close()

    def _readable(self) -> None:
        try:
            data = self._channel.read_some(0)
        except ChannelLost as lost:
            self._say(str(lost))
            self._lost.set()
            return
        if data:
            self._heard(data)

    async def write(self, data: bytes) -> bool:
        """All of it, in order with other writers; False when the device is not there or is stuck."""
        async with self._writing:
            if self.problem is not None or not self._channel.is_open:
                return False
            return await asyncio.to_thread(self._write_all, data)

    def _write_all(self, data: bytes) -> bool:
        left = data
        held = 0
        try:
            # A long answer at a low baud rate takes its time; only a line that takes nothing is stuck.
            while held < WRITE_MAX_S / 0.1:
                count = self._channel.write_some(left, 0.1)
                left = left[count:]
                held = 0 if count else held + 1
                if not left:
                    return True
        except (ChannelLost, ValueError) as lost:
            log.warning("device.write_failed name=%s reason=%s", self.name, lost)
        return False

    def _say(self, problem: str | None) -> None:
        if problem != self.problem:
            level = logging.INFO if problem is None else logging.WARNING
            log.log(level, "device.changed name=%s problem=%s", self.name, problem)
        self.problem = problem
