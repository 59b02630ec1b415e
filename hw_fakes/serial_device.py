"""A device on a pty: plugged in, journalled, with the knobs of its wire; what each serial fake builds on."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw_fakes.control import FLAG, NOTHING, NUMBER, Knob, action, attribute
from hw_fakes.line import OnALine, PtyLine, Wire

JOURNAL_MAX = 2000


class SerialDevice(OnALine):
    """Async context manager. A subclass overrides `hear`, and adds to `state` and `knobs`."""

    def __init__(self, *, link: Path | None = None, wire: Wire | None = None) -> None:
        self.line = PtyLine(self._taken, wire=wire, link=link)
        self.wire = self.line.wire
        self.powered = True
        self._journal: collections.deque[dict[str, Any]] = collections.deque(maxlen=JOURNAL_MAX)
        self._changed = asyncio.Event()

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.unplug()

    def power_off(self) -> None:
        """It hears nothing and says nothing; the cable stays."""
        self.powered = False

    def power_on(self) -> None:
        self.powered = True

    def hear(self, data: bytes) -> None:
        """Bytes of the gateway."""

    def say(self, data: bytes) -> None:
        if self.powered:
            self.line.send(data)

    def _taken(self, data: bytes) -> None:
        if self.powered:
            self.hear(data)

    def note(self, what: str, **more: Any) -> None:
        """Into the journal; whoever waits looks again."""
        self._journal.append({"what": what, **more})
        self.changed()

    def changed(self) -> None:
        self._changed.set()

    async def wait_until(self, true: Callable[[], bool], timeout: float = 20) -> None:
        """Looks whenever something has changed. TimeoutError otherwise."""
        async with asyncio.timeout(timeout):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    # --- control ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {
            "port": self.device_path,
            "pty": self.line.pty,
            "plugged": self.line.plugged,
            "powered": self.powered,
            "stalled": self.line.stalled,
            "wire": dataclasses.asdict(self.wire),
        }

    def journal(self) -> list[dict[str, Any]]:
        return list(self._journal)

    @property
    def knobs(self) -> dict[str, Knob]:
        return {
            "baud": attribute(self.wire, "baud", (int, *NOTHING)),
            "oneByte": attribute(self.wire, "one_byte", FLAG),
            "loseEvery": attribute(self.wire, "lose_every", (int,)),
            "noise": attribute(self.wire, "noise", NUMBER),
            "delayS": attribute(self.wire, "delay_s", NUMBER),
            "stallAfter": attribute(self.wire, "stall_after", (int, *NOTHING)),
            "stall": action(self.line.stall),
            "resume": action(self.line.resume),
            "plugged": Knob(lambda on: self.plug() if on else self.unplug(), FLAG),
            "powered": Knob(lambda on: self.power_on() if on else self.power_off(), FLAG),
        }
