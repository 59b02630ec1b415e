"""A serial device that speaks by itself, on the loop: opened, heard, healed after an unplug."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.clock import Clock, wake_or_sleep
from gateway.devices.channel import Channel, ChannelLost, LineSettings, Tap

log = logging.getLogger(__name__)

REOPEN_FIRST_S, REOPEN_LAST_S = 0.5, 2.0
# A device that takes no byte for this long is said to be stuck. Seconds.
WRITE_MAX_S = 2.0
STUCK = "it takes no data"
# A question waits for no more than so many reads of what came before it.
HEAR_MAX = 16


class DeviceLine:
    """`run` belongs to the supervisor; `heard` gets bytes as they come, `opened` each new beginning.

    Reading and writing happen on the loop only: a thread that still wrote while the port is closed
    could write into whatever file gets its number next.
    """

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
        self.tap = Tap(clock.now)
        self.settings = settings
        self._clock = clock
        self._heard = heard
        self._opened = opened
        self._channel = Channel(settings, self.tap)
        self._lost = asyncio.Event()
        self._room = asyncio.Event()
        self._writing = asyncio.Lock()
        # Why the device cannot be spoken to; None while it can.
        self.problem: str | None = "not opened yet"

    def exclude(self, ports: tuple[str, ...]) -> None:
        """Ports that are never opened, whatever name leads to them."""
        self._channel.excluded = ports

    async def run(self) -> None:
        """Open it, listen until it is gone, and again: after half a second first, every two at last."""
        pause = REOPEN_FIRST_S
        try:
            while True:
                try:
                    await self._open()
                except ChannelLost as lost:
                    self._say(str(lost))
                else:
                    self._say(None)
                    opened_ns = self._clock.boottime_ns()
                    await self._listen()
                    # One that hangs up as soon as it is opened must not be opened all the time.
                    if self._clock.boottime_ns() - opened_ns > REOPEN_LAST_S * 1e9:
                        pause = REOPEN_FIRST_S
                await self._clock.sleep(pause)
                pause = min(pause * 2, REOPEN_LAST_S)
        finally:
            self._channel.close()

    async def _open(self) -> None:
        """In a thread, since a port takes its time; at a stop that thread is waited for, or what it
        opens then would stay open."""
        opening = asyncio.ensure_future(asyncio.to_thread(self._channel.open))
        try:
            await asyncio.wait({opening})
        except asyncio.CancelledError:
            await asyncio.wait({opening})
            opening.exception()
            raise
        opening.result()

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
            loop.remove_writer(fd)
            self._channel.close()
            self._room.set()

    def _readable(self) -> bool:
        try:
            data = self._channel.read_some(0)
        except ChannelLost as lost:
            self._lose(lost)
            return False
        if data:
            self._heard(data)
        return bool(data)

    @property
    def is_open(self) -> bool:
        return self._channel.is_open and not self._lost.is_set()

    def hear_now(self) -> None:
        """What has arrived by now is heard before this returns: it is older than what comes next."""
        for _ in range(HEAR_MAX):
            if not self.is_open or not self._readable():
                return

    async def write(self, data: bytes) -> bool:
        """All of it, in order with other writers; False when the device is not there or is stuck."""
        async with self._writing:
            left = data
            try:
                while left:
                    if not self.is_open:
                        return False
                    left = left[self._channel.write_some(left, 0) :]
                    if left and not await self._has_room():
                        return False
            except ChannelLost as lost:
                self._lose(lost)
                return False
            self._say(None)
            return True

    async def _has_room(self) -> bool:
        """Waits until the line takes more; False when it does not for WRITE_MAX_S, or is gone."""
        loop = asyncio.get_running_loop()
        fd = self._channel.fileno()
        self._room.clear()
        loop.add_writer(fd, self._room.set)
        try:
            await wake_or_sleep(self._clock, self._room, WRITE_MAX_S)
        finally:
            # Closed meanwhile: the number may be another file's by now.
            if self._channel.fileno() == fd:
                loop.remove_writer(fd)
        if not self._room.is_set():
            self._say(STUCK)
        return self._room.is_set()

    def _lose(self, lost: ChannelLost) -> None:
        self._say(str(lost))
        self._lost.set()

    def _say(self, problem: str | None) -> None:
        if problem != self.problem:
            level = logging.INFO if problem is None else logging.WARNING
            log.log(level, "device.changed name=%s problem=%s", self.name, problem)
        self.problem = problem
