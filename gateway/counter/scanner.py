"""A barcode scanner: each code it reads is an event for its till."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gateway.clock import Clock
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine

log = logging.getLogger(__name__)

# Longer than any barcode a till sells by; what is longer is noise.
CODE_MAX = 128
# The bytes of one code follow each other closer than this, at any baud rate. Seconds.
SILENCE_S = 1.0
# Separates the fields of a GS1 code (FNC1), and is the one control character inside a code.
GS = 0x1D


class Scanner:
    """Codes end with CR or LF, as scanners are delivered. A code that may be cut is no code: half a
    number can be another article's."""

    def __init__(
        self, name: str, settings: LineSettings, clock: Clock, read: Callable[[str], None]
    ) -> None:
        self._read = read
        self._clock = clock
        self._buffer = bytearray()
        self._cut = False
        self._heard_ns = 0
        self.line = DeviceLine(name, settings, clock, heard=self._heard, opened=self._begin)

    def _begin(self) -> None:
        self._buffer.clear()
        self._cut = False

    def _heard(self, data: bytes) -> None:
        now = self._clock.boottime_ns()
        if self._buffer and now - self._heard_ns > SILENCE_S * 1e9:
            self._cut = True
        self._heard_ns = now
        for byte in data:
            if byte in b"\r\n":
                self._end()
            elif len(self._buffer) <= CODE_MAX:
                self._buffer.append(byte)

    def _end(self) -> None:
        code, cut = bytes(self._buffer), self._cut
        self._begin()
        if not code:
            return
        if cut or len(code) > CODE_MAX or not all(0x20 <= b < 0x7F or b == GS for b in code):
            log.warning("scanner.unread name=%s bytes=%d cut=%s", self.line.name, len(code), cut)
            return
        self._read(code.decode())
