"""What a till sends to its printer, read as a printer would: lines of text, slip by slip. No I/O.

Status questions are answered so that the till goes on; pictures and barcodes are skipped by their
length, so that no byte of them is taken for text. What is not understood is remembered as a doubt: a
byte too many or too few may have changed an amount. Commands as common receipt printers document them.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass

ESC, GS, FS, DLE = 0x1B, 0x1D, 0x1C, 0x10
LF, FF, TAB = 0x0A, 0x0C, 0x09
# Bytes between commands that put nothing on paper: CR, CAN, and the bell of a till that has one.
SILENT = (0x0D, 0x18, 0x07)
CODE_PAGES = {0: "cp437", 2: "cp850", 3: "cp860", 4: "cp863", 5: "cp865", 16: "cp1252", 18: "cp852",
    19: "cp858", 45: "cp1250"}  # fmt: skip
# A slip ends here at the latest; 200 kB are some 4,000 lines, or a large picture.
SLIP_MAX_BYTES = 200_000
# Bytes before the first line that are kept with a slip; a till may ask for the status all day.
LEAD_MAX_BYTES = 4096
# Wider than any paper; a pattern is never let loose on more.
LINE_MAX = 256
# Bytes that follow a command which needs no more than to be skipped.
_ESC_LENGTHS = {"2": 0, "<": 0, "L": 0, "S": 0, "\x0c": 0, " ": 1, "!": 1, "%": 1, "-": 1, "3": 1,
    "=": 1, "?": 1, "E": 1, "G": 1, "M": 1, "R": 1, "T": 1, "U": 1, "V": 1, "a": 1, "r": 1, "{": 1,
    "c": 2, "$": 2, "\\": 2, "B": 2, "W": 8}  # fmt: skip
_GS_LENGTHS = {"!": 1, "/": 1, "B": 1, "E": 1, "H": 1, "T": 1, "b": 1, "f": 1, "h": 1, "w": 1, ":": 0,
    "c": 0, "L": 2, "W": 2, "P": 2, "$": 2, "\\": 2, "^": 3}  # fmt: skip
_FS_LENGTHS = {"&": 0, ".": 0, "!": 1, "-": 1, "C": 1, "W": 1, "S": 2, "p": 2}
# Online, cover closed, paper there; the answers of GS r, ESC v, ESC u, and of GS a (four bytes).
REAL_TIME_WELL, STATUS_WELL, AUTOMATIC_WELL = b"\x12", b"\x00", b"\x10\x00\x00\x00"
_NAMES = {65: b"_1.0\0", 66: b"_POS GATEWAY\0", 67: b"_CAPTURE\0", 68: b"_0\0"}


@dataclass(frozen=True, slots=True)
class CapturedSlip:
    """One slip: its lines without trailing blanks, the bytes that made it, and what was not understood."""

    lines: tuple[str, ...]
    raw: bytes
    doubts: tuple[str, ...] = ()


class SlipReader:
    """`feed` gives (what the printer would say back, the slips that ended).

    `last_line`: a line that ends a slip, for tills that do not cut.
    """

    def __init__(self, last_line: str | None = None) -> None:
        self._last_line = re.compile(last_line) if last_line else None
        self._machine = self._commands()
        next(self._machine)
        self._raw = bytearray()
        self._lines: list[str] = []
        self._line_text = ""
        self._text = bytearray()
        self._page = 0
        self._doubts: list[str] = []
        self._answers = bytearray()
        self._slips: list[CapturedSlip] = []
        # How often the till has asked for the drawer.
        self.pulses = 0

    @property
    def in_slip(self) -> bool:
        return bool(self._text) or bool(self._line_text) or any(self._lines)

    def feed(self, data: bytes) -> tuple[bytes, list[CapturedSlip]]:
        for byte in data:
            self._raw.append(byte)
            self._machine.send(byte)
            if len(self._raw) > LEAD_MAX_BYTES and not self.in_slip:
                del self._raw[:-LEAD_MAX_BYTES]
            elif len(self._raw) >= SLIP_MAX_BYTES:
                self._doubt("it is too long for one slip")
                self._cut()
        answers, self._answers = bytes(self._answers), bytearray()
        slips, self._slips = self._slips, []
        return answers, slips

    def end(self) -> list[CapturedSlip]:
        """The till has been silent: what hangs in the printer is a slip without a cut."""
        self._cut()
        slips, self._slips = self._slips, []
        return slips

    # --- the commands: a generator that is sent one byte at a time -----------------------------------

    def _commands(self) -> Generator[None, int, None]:
        while True:
            byte = yield
            if byte >= 0x20 or byte == TAB:
                self._text.append(byte)
            elif byte in (LF, FF):
                self._line()
            elif byte == ESC:
                yield from self._esc()
            elif byte == GS:
                yield from self._gs()
            elif byte == FS:
                yield from self._fs()
            elif byte == DLE:
                yield from self._dle()
            elif byte not in SILENT:
                self._doubt(f"byte {byte:02X} is no text")

    def _esc(self) -> Generator[None, int, None]:
        command = chr((yield))
        if command == "t":
            self._to_page((yield))
        elif command == "@":
            self._to_page(0)
        elif command in "dJeK":
            yield
            self._line()
        elif command in "im":
            self._cut()
        elif command == "p":
            yield from self._skip(3)
            self.pulses += 1
        elif command in "uv":
            if command == "u":
                yield
            self._answers += STATUS_WELL
        elif command == "*":
            mode, low, high = (yield), (yield), (yield)
            yield from self._skip((low + 256 * high) * (3 if mode > 1 else 1))
        elif command == "D":
            while (yield):
                pass
        else:
            yield from self._known("ESC", command, _ESC_LENGTHS)

    def _gs(self) -> Generator[None, int, None]:
        command = chr((yield))
        if command == "V":
            if (yield) >= 65:
                yield
            self._cut()
        elif command == "r":
            yield
            self._answers += STATUS_WELL
        elif command == "a":
            if (yield):
                self._answers += AUTOMATIC_WELL
        elif command == "I":
            self._answers += _NAMES.get((yield), b"\x02")
        elif command == "(":
            yield from self._function()
        elif command == "v":
            yield from self._skip(2)
            wide, high = (yield) + 256 * (yield), (yield) + 256 * (yield)
            yield from self._skip(wide * high)
        elif command == "8":
            yield
            sizes = [(yield), (yield), (yield), (yield)]
            yield from self._skip(int.from_bytes(bytes(sizes), "little"))
        elif command == "*":
            wide, high = (yield), (yield)
            yield from self._skip(wide * high * 8)
        elif command == "k":
            kind = yield
            if kind >= 65:
                yield from self._skip((yield))
            else:
                while (yield):
                    pass
        else:
            yield from self._known("GS", command, _GS_LENGTHS)

    def _fs(self) -> Generator[None, int, None]:
        command = chr((yield))
        if command == "(":
            yield from self._function()
        else:
            yield from self._known("FS", command, _FS_LENGTHS)

    def _function(self) -> Generator[None, int, None]:
        """GS ( x and FS ( x: the length says all."""
        name, low, high = chr((yield)), (yield), (yield)
        data = bytearray()
        for _ in range(low + 256 * high):
            data.append((yield))
        if name == "H" and len(data) >= 6:
            self._answers += b"\x37\x22" + bytes(data[2:6]) + b"\x00"

    def _dle(self) -> Generator[None, int, None]:
        command = yield
        if command == 0x04:
            yield
            self._answers += REAL_TIME_WELL
        elif command == 0x05:
            yield
        elif command == 0x14:
            kind = yield
            yield from self._skip(2)
            self.pulses += kind == 1
        else:
            self._doubt(f"DLE {command:02X} is not known")

    def _known(
        self, lead: str, command: str, lengths: dict[str, int]
    ) -> Generator[None, int, None]:
        if command not in lengths:
            self._doubt(f"{lead} {ord(command):02X} is not known")
        yield from self._skip(lengths.get(command, 1))

    def _skip(self, count: int) -> Generator[None, int, None]:
        for _ in range(count):
            yield

    # --- the paper -----------------------------------------------------------------------------------

    def _doubt(self, reason: str) -> None:
        if reason not in self._doubts and len(self._doubts) < 10:
            self._doubts.append(reason)

    def _to_page(self, page: int) -> None:
        """A line may have two code pages: what is there is decoded as it was meant."""
        self._line_text += self._decoded()
        self._page = page

    def _decoded(self) -> str:
        if self._page not in CODE_PAGES and any(byte > 0x7F for byte in self._text):
            self._doubt(f"code page {self._page} is not known")
        text = bytes(self._text).decode(CODE_PAGES.get(self._page, "cp437"), "replace")
        self._text.clear()
        return text

    def _line(self) -> None:
        line = (self._line_text + self._decoded()).replace("\t", " ").rstrip()
        self._line_text = ""
        self._lines.append(line)
        if self._last_line is not None and self._last_line.search(line[:LINE_MAX]):
            self._cut()

    def _cut(self) -> None:
        if self._text or self._line_text:
            # Not through `_line`: a last line must not end the slip twice.
            self._lines.append((self._line_text + self._decoded()).replace("\t", " ").rstrip())
            self._line_text = ""
        lines, raw, doubts = tuple(self._lines), bytes(self._raw), tuple(self._doubts)
        self._lines.clear()
        self._raw.clear()
        self._doubts.clear()
        if any(line.strip() for line in lines):
            self._slips.append(CapturedSlip(lines, raw, doubts))
