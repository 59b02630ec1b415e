"""A barcode scanner: each code it reads is an event for its till."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine

log = logging.getLogger(__name__)

# The longest code in use at a till is the QR address of a receipt (129); what is longer than this is noise.
CODE_MAX = 512
# The most bytes that are kept of a code that has not ended, frames included.
KEEP_MAX = CODE_MAX + 8
# The bytes of one code follow each other closer than this, at any baud rate. Seconds.
SILENCE_S = 1.0
# Separates the fields of a GS1 code (FNC1), and is the one control character inside a code.
GS = 0x1D
NUL, STX, ETX, TAB = 0x00, 0x02, 0x03, 0x09
# CR and LF end a code always. The others do only as long as no code of this scanner ended with CR or LF:
# inside the code of such a scanner they are noise, and half a code can be another article's. A break on
# the wire is read as NUL, so the first NUL counts only when nothing follows it.
LINE_ENDS, FIRST_ENDS = b"\r\n", bytes((ETX, TAB))
ALL_ENDS = LINE_ENDS + FIRST_ENDS + bytes((NUL,))
NUL_SILENCE_S = 0.25
# Bytes before a code that are no part of it: frames, and padding after the end of the code before.
PADDING = bytes((NUL, STX, ETX))
# `]`, the letter of the kind of code, and a digit or letter (AIM, ISO/IEC 15424).
AIM = re.compile(r"\][A-Za-z][0-9A-Za-z]")
BYTES_SHOWN = 24
NO_END = (
    'nothing ends its code: scan "suffix CR" in its manual, or put suffix = "none" into its section '
    "of the settings"
)


@dataclass(frozen=True, slots=True)
class ScannerRules:
    """`silence_s`: a code also ends after this silence (None: only with its suffix)."""

    silence_s: float | None = None
    strip_aim: bool = True


class Scanner:
    """Codes end with CR, LF, TAB, NUL or ETX, or by silence where the settings say so. A code that may
    be cut is no code: half a number can be another article's."""

    def __init__(
        self,
        name: str,
        settings: LineSettings,
        clock: Clock,
        read: Callable[[str], None],
        rules: ScannerRules = ScannerRules(),
    ) -> None:
        self._read = read
        self._clock = clock
        self._rules = rules
        self._buffer = bytearray()
        self._cut = False
        self._heard_ns = 0
        self._ends = LINE_ENDS + FIRST_ENDS
        self._waiting: asyncio.Task[None] | None = None
        # The reason why the newest bytes were no code; None after a code.
        self._unread: str | None = None
        self.line = DeviceLine(name, settings, clock, heard=self._heard, opened=self._opened)

    @property
    def problem(self) -> str | None:
        """Return why its codes do not reach the till."""
        return self.line.problem or self._unread

    def _opened(self) -> None:
        self._begin()
        # It may be another scanner than before.
        self._ends = LINE_ENDS + FIRST_ENDS
        self._unread = None

    def _begin(self) -> None:
        self._buffer.clear()
        self._cut = False

    def _heard(self, data: bytes) -> None:
        now = self._clock.boottime_ns()
        if self._buffer and now - self._heard_ns > SILENCE_S * 1e9:
            self._cut = True
        self._heard_ns = now
        for byte in data:
            if byte in self._ends and (self._buffer or byte not in PADDING):
                self._end(byte)
            elif byte in PADDING and not self._buffer:
                continue
            elif len(self._buffer) <= KEEP_MAX:
                self._buffer.append(byte)
        if self._buffer:
            self._await_silence()

    def _end(self, end: int | None) -> None:
        code, cut = bytes(self._buffer), self._cut
        self._begin()
        if not code:
            return
        if end is not None and end in LINE_ENDS:
            self._ends = LINE_ENDS
        text = code.decode("latin-1")
        match = AIM.match(text) if self._rules.strip_aim else None
        if match is not None:
            text = text[match.end() :]
        if cut or len(text) > CODE_MAX or not all(" " <= c <= "~" or ord(c) == GS for c in text):
            log.warning("scanner.unread name=%s bytes=%d cut=%s", self.line.name, len(code), cut)
            reason = "a part of it is missing" if cut else "that is no code"
            self._unread = not_as_set(code, reason)
        elif text:
            self._unread = None
            self._read(text)

    # --- the end of a code without a suffix --------------------------------------------------------

    def _await_silence(self) -> None:
        """Look again when the line may have fallen silent in the middle of a code."""
        if self._waiting is not None and not self._waiting.done():
            return
        try:
            self._waiting = asyncio.get_running_loop().create_task(self._silence())
        except RuntimeError:  # no loop: bytes without a line, as in a test of the codec
            return

    async def _silence(self) -> None:
        while self._buffer and not self._cut:
            left_ns = self._heard_ns + self._limit_s * 1e9 - self._clock.boottime_ns()
            if left_ns <= 0:
                self._fallen_silent()
                return
            await self._clock.sleep(left_ns / 1e9)
            # Bytes that wait in the port arrived within the time, however late this task runs.
            self.line.hear_now()

    @property
    def _limit_s(self) -> float:
        if self._rules.silence_s is not None:
            return self._rules.silence_s
        return NUL_SILENCE_S if self._ends_with_nul else SILENCE_S

    @property
    def _ends_with_nul(self) -> bool:
        return self._buffer[-1] == NUL and self._ends != LINE_ENDS

    def _fallen_silent(self) -> None:
        if self._ends_with_nul:
            self._ends = ALL_ENDS
            for code in bytes(self._buffer).split(b"\0"):
                self._buffer[:] = code.strip(PADDING)
                self._end(NUL)
        elif self._rules.silence_s is not None:
            self._end(None)
        else:
            self._unread = not_as_set(bytes(self._buffer), NO_END)
            if self._buffer[-1] in ALL_ENDS:
                # Its suffix was changed: from the next code on this byte ends them.
                self._ends = ALL_ENDS
                self._begin()


def not_as_set(data: bytes, reason: str) -> str:
    """Return the sentence for bytes that are no code, with the newest of them."""
    return f"it sends, but not what is set: {data[-BYTES_SHOWN:].hex(' ')}; {reason}"
