"""The barcode scanner as a peer on a pty: it sends what it reads and hears nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hw_fakes.control import TEXT, Knob, attribute
from hw_fakes.line import Wire
from hw_fakes.serial_device import SerialDevice


class FakeScanner(SerialDevice):
    """Async context manager. `scan` reads a code; `prefix` and `suffix` are how it is set up."""

    def __init__(
        self,
        *,
        prefix: str = "",
        suffix: str = "\r",
        link: Path | None = None,
        wire: Wire | None = None,
    ) -> None:
        super().__init__(link=link, wire=wire)
        self.prefix = prefix
        self.suffix = suffix

    def scan(self, code: str) -> None:
        """It beeps, whether or not anybody hears what it sends."""
        self.note("scanned", code=code)
        self.say(f"{self.prefix}{code}{self.suffix}".encode())

    def send_raw(self, data: bytes) -> None:
        """Whatever a broken or foreign device would send."""
        self.note("sent", hex=data.hex(" "))
        self.say(data)

    def state(self) -> dict[str, Any]:
        return super().state() | {"prefix": self.prefix, "suffix": self.suffix}

    @property
    def knobs(self) -> dict[str, Knob]:
        return super().knobs | {
            "scan": Knob(self.scan, TEXT),
            "sendHex": Knob(lambda text: self.send_raw(bytes.fromhex(text)), TEXT),
            "prefix": attribute(self, "prefix", TEXT),
            "suffix": attribute(self, "suffix", TEXT),
        }
