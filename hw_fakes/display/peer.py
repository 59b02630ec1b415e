"""The customer display as a peer on a pty."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from hw_fakes.display.glass import Glass
from hw_fakes.line import Wire
from hw_fakes.serial_device import SerialDevice


class FakeDisplay(SerialDevice):
    """Async context manager. `lines` is what stands on it; it forgets that without power."""

    def __init__(
        self,
        protocol: Literal["escpos", "cd5220"] = "cd5220",
        *,
        link: Path | None = None,
        wire: Wire | None = None,
        on_change: Callable[[FakeDisplay], None] | None = None,
    ) -> None:
        super().__init__(link=link, wire=wire)
        self.glass = Glass(protocol)
        self._on_change = on_change

    @property
    def lines(self) -> list[str]:
        """Two lines of twenty, without the blanks at their ends."""
        return [line.rstrip() for line in self.glass.lines]

    def unplug(self) -> None:
        """It is fed through its cable: what stood there is gone."""
        super().unplug()
        self._show(self.glass.reset)

    def power_off(self) -> None:
        super().power_off()
        self._show(self.glass.reset)

    def hear(self, data: bytes) -> None:
        self._show(lambda: self.glass.feed(data))

    def _show(self, do: Callable[[], None]) -> None:
        before = self.lines
        do()
        if self.lines != before:
            self.note("shows", lines=self.lines)
            if self._on_change is not None:
                self._on_change(self)

    async def shows(self, upper: str, lower: str, timeout: float = 20) -> None:
        """Waits until exactly this stands on it. TimeoutError says what stood there instead."""
        try:
            await self.wait_until(lambda: self.lines == [upper, lower], timeout)
        except TimeoutError:
            raise TimeoutError(f"it shows {self.lines}, not {[upper, lower]}") from None

    def picture(self) -> bytes:
        return self.glass.to_png()

    def state(self) -> dict[str, Any]:
        return super().state() | {"lines": self.lines, "problems": self.glass.problems[-20:]}
