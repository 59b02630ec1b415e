"""What a till sends to its printer, read as a printer would: lines of text, slip by slip. No I/O.

Status questions are answered so that the till goes on; pictures and barcodes are skipped by their
length, so that no byte of them is taken for text.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

ESC, GS, FS, DLE, FF = 0x1B, 0x1D, 0x1C, 0x10, 0x0C
CODE_PAGES = {0: "cp437", 2: "cp850", 3: "cp860", 4: "cp863", 5: "cp865", 16: "cp1252", 18: "cp852",
    19: "cp858", 45: "cp1250"}  # fmt: skip
SLIP_MAX_BYTES = 200_000
# Parameters of the one-letter commands, in bytes.
_ESC_LENGTHS = {
    "@": 0,
    "2": 0,
    "<": 0,
    "i": 0,
    "m": 0,
    "p": 3,
    "c": 2,
    "$": 2,
    "\\": 2,
    "W": 8,
    "L": 0,
    "S": 0,
}
_GS_LENGTHS = {"L": 2, "W": 2, "P": 2, "$": 2, "\\": 2, ":": 0, "c": 0}


@dataclass(frozen=True, slots=True)
class CapturedSlip:
    """One slip: its lines without trailing blanks, and the bytes that made it."""

    lines: tuple[str, ...]
    raw: bytes


class SlipReader:
    """`feed` gives (what the printer would say back, the slips that ended)."""

    def __init__(self) -> None:
        self._machine = self._commands()
        next(self._machine)
        self._raw = bytearray()
        self._lines: list[str] = []
        self._text = bytearray()
        self._page = 0
        self._answers = bytearray()
        self._slips: list[CapturedSlip] = []

    @property
    def in_slip(self) -> bool:
        return bool(self._text) or any(self._lines)

    def feed(self, data: bytes) -> tuple[bytes, list[CapturedSlip]]:
        for byte in data:
            self._raw.append(byte)
            self._machine.send(byte)
        del self._raw[: max(0, len(self._raw) - SLIP_MAX_BYTES)]
        answers, self._answers = bytes(self._answers), bytearray()
        slips, self._slips = self._slips, []
        return answers, slips

    def end(self) -> list[CapturedSlip]:
        """The till has been silent: what hangs in the printer is a slip without a cut."""
        self._cut()
        slips, self._slips = self._slips, []
        return slips

    def _commands(self) -> Generator[None, int, None]:
        while True:
            byte = yield
            if byte >= 0x20 or byte == 0x09:
                self._text.append(byte)
            elif byte == 0x0A:
                self._line()
            elif byte == ESC:
                yield from self._esc()
            elif byte == GS:
                yield from self._gs()
            elif byte == DLE:
                yield from self._dle()
            elif byte == FF:
                self._line()
            elif byte == FS:
                yield

    def _esc(self) -> Generator[None, int, None]:
        command = chr((yield))
        if command == "t":
            self._flush_page((yield))
        elif command == "d":
            self._line()
            yield
        elif command in "im":
            self._cut()
        elif command == "*":
            mode, low, high = (yield), (yield), (yield)
            for _ in range((low + 256 * high) * (3 if mode > 1 else 1)):
                yield
        elif command == "D":
            while (yield):
                pass
        else:
            for _ in range(_ESC_LENGTHS.get(command, 1)):
                yield

    def _gs(self) -> Generator[None, int, None]:
        command = chr((yield))
        if command == "V":
            if (yield) >= 65:
                yield
            self._cut()
        elif command == "r":
            yield
            self._answers += b"\x00"
        elif command == "I":
            yield
            self._answers += b"\x02"
        elif command == "(":
            name, low, high = chr((yield)), (yield), (yield)
            data = bytearray()
            for _ in range(low + 256 * high):
                data.append((yield))
            if name == "H" and len(data) >= 6:
                self._answers += b"\x37\x22" + bytes(data[2:6]) + b"\x00"
        elif command == "v":
            yield
            yield
            wide, high = (yield) + 256 * (yield), (yield) + 256 * (yield)
            for _ in range(wide * high):
                yield
        elif command == "k":
            kind = yield
            if kind >= 65:
                for _ in range((yield)):
                    yield
            else:
                while (yield):
                    pass
        else:
            for _ in range(_GS_LENGTHS.get(command, 1)):
                yield

    def _dle(self) -> Generator[None, int, None]:
        command = yield
        if command == 0x04:
            yield
            self._answers += b"\x12"
        elif command == 0x14:
            for _ in range(3):
                yield

    def _flush_page(self, page: int) -> None:
        if self._text:
            # Two code pages in one line: the first part is decoded as it was meant.
            text = self._decoded()
            self._text = bytearray(text.encode(CODE_PAGES.get(page, "cp437"), "replace"))
        self._page = page

    def _decoded(self) -> str:
        return bytes(self._text).decode(CODE_PAGES.get(self._page, "cp437"), "replace")

    def _line(self) -> None:
        self._lines.append(self._decoded().replace("\t", " ").rstrip())
        self._text.clear()

    def _cut(self) -> None:
        if self._text:
            self._line()
        lines = tuple(self._lines)
        raw = bytes(self._raw)
        self._lines.clear()
        self._raw.clear()
        if any(line.strip() for line in lines):
            self._slips.append(CapturedSlip(lines, raw))
