"""A barcode scanner: each code it reads is an event for its till."""

from __future__ import annotations

from collections.abc import Callable

from gateway.clock import Clock
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine

# Longer than any barcode a till sells by; what is longer is noise.
CODE_MAX = 128


class Scanner:
    """Codes end with CR or LF, as scanners are delivered."""

    def __init__(
        self, name: str, settings: LineSettings, clock: Clock, read: Callable[[str], None]
    ) -> None:
        self._read = read
        self._buffer = bytearray()
        self.line = DeviceLine(name, settings, clock, heard=self._heard, opened=self._buffer.clear)

    def _heard(self, data: bytes) -> None:
        for byte in data:
            if byte not in b"\r\n":
                self._buffer.append(byte)
                continue
            code = bytes(self._buffer)
            self._buffer.clear()
            if 0 < len(code) <= CODE_MAX and all(0x20 <= char < 0x7F for char in code):
                self._read(code.decode())
        del self._buffer[: max(0, len(self._buffer) - CODE_MAX - 1)]
