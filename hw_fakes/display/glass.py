"""What stands on the glass of a customer display, and how its bytes change that; text and picture.

Written from the command tables in the manuals of 2x20 displays (Epson mode and CD5220 standard mode);
shares nothing with any encoder. What it does not know is noted in `problems` and skipped.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 20, 2
ESC, US = 0x1B, 0x1F
BS, HT, LF, HOM, CLR, CR, CAN = 0x08, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x18
# So many bytes of parameters follow these commands, and none of them changes the text.
ESCPOS_ESC = {ord("t"): 1, ord("R"): 1, ord("="): 1, ord("%"): 1, ord("?"): 1, ord("W"): 6}
ESCPOS_US = {ord(c): 1 for c in "CXErTm"} | {ord("#"): 2, ord("^"): 2, ord("@"): 0, ord(":"): 0}
CD5220_ESC = {ord(c): 1 for c in "*_fc=%?sd"} | {ord("W"): 4}
CELL = (24, 36)


class Glass:
    """`feed` takes bytes in whatever pieces; `lines` is what a customer reads."""

    def __init__(self, protocol: Literal["escpos", "cd5220"]) -> None:
        self.protocol = protocol
        self.problems: list[str] = []
        self.reset()

    def reset(self) -> None:
        """As when it is switched on."""
        self._cells = [[" "] * COLUMNS for _ in range(ROWS)]
        self._x = self._y = 0
        # CD5220: after ESC Q only ESC Q, CLR and CAN are obeyed.
        self._strings = False
        self._machine = self._commands()
        next(self._machine)

    @property
    def lines(self) -> list[str]:
        return ["".join(row) for row in self._cells]

    def feed(self, data: bytes) -> None:
        for byte in data:
            self._machine.send(byte)

    # --- the grammar: sent one byte at a time --------------------------------------------------------

    def _commands(self) -> Generator[None, int, None]:
        while True:
            byte = yield
            if byte == CLR:
                self._clear()
            elif byte == CAN:
                self._cells[self._y] = [" "] * COLUMNS
                self._x, self._strings = 0, False
            elif byte == ESC:
                yield from self._esc()
            elif self._strings:
                self.problems.append(f"{byte:#04x} in string mode")
            elif byte == US:
                yield from self._us()
            elif byte >= 0x20:
                self._put(chr(byte) if byte < 0x7F else "~")
            else:
                self._move(byte)

    def _esc(self) -> Generator[None, int, None]:
        command = yield
        if self.protocol == "cd5220" and command == ord("Q"):
            yield from self._string()
        elif self._strings:
            self.problems.append(f"ESC {chr(command)!r} in string mode")
        elif command == ord("@"):
            self._clear()
        elif self.protocol == "cd5220" and command == ord("l"):
            column, row = (yield), (yield)
            self._go(column, row)
        elif self.protocol == "cd5220" and command == ord("["):
            self._arrow(chr((yield)))
        elif self.protocol == "cd5220" and command in (0x11, 0x12, 0x13):
            pass
        else:
            table = CD5220_ESC if self.protocol == "cd5220" else ESCPOS_ESC
            if command not in table:
                self.problems.append(f"ESC {chr(command)!r}")
            for _ in range(table.get(command, 0)):
                yield

    def _string(self) -> Generator[None, int, None]:
        """ESC Q A or B, up to twenty characters, CR: the line is replaced when CR comes."""
        row = {ord("A"): 0, ord("B"): 1}.get((yield))
        text = ""
        while (byte := (yield)) != CR:
            text += chr(byte) if 0x20 <= byte < 0x7F else "~"
        self._strings = True
        if row is None:
            self.problems.append("ESC Q of another kind")
        else:
            self._cells[row] = list(text[:COLUMNS].ljust(COLUMNS))

    def _us(self) -> Generator[None, int, None]:
        command = yield
        if command == ord("$") and self.protocol == "escpos":
            column, row = (yield), (yield)
            self._go(column, row)
        elif command in (0x01, 0x02, 0x03):
            if command != 0x01:
                self.problems.append("a scroll mode")
        elif command == LF:
            self._y = (self._y - 1) % ROWS
        elif command == CR:
            self._x = COLUMNS - 1
        elif command == ord("B"):
            self._x, self._y = 0, ROWS - 1
        elif command in ESCPOS_US:
            for _ in range(ESCPOS_US[command]):
                yield
        else:
            self.problems.append(f"US {command:#04x}")

    # --- the cursor ----------------------------------------------------------------------------------

    def _clear(self) -> None:
        self._cells = [[" "] * COLUMNS for _ in range(ROWS)]
        self._x, self._y, self._strings = 0, 0, False

    def _put(self, char: str) -> None:
        self._cells[self._y][self._x] = char
        self._step(1)

    def _step(self, by: int) -> None:
        at = (self._y * COLUMNS + self._x + by) % (ROWS * COLUMNS)
        self._y, self._x = divmod(at, COLUMNS)

    def _go(self, column: int, row: int) -> None:
        if 1 <= column <= COLUMNS and 1 <= row <= ROWS:
            self._x, self._y = column - 1, row - 1
        else:
            self.problems.append(f"position {column}, {row}")

    def _move(self, byte: int) -> None:
        if byte == BS:
            self._step(-1)
        elif byte == HT:
            self._step(1)
        elif byte == LF:
            self._y = (self._y + 1) % ROWS
        elif byte == HOM:
            self._x = self._y = 0
        elif byte == CR:
            self._x = 0
        else:
            self.problems.append(f"control {byte:#04x}")

    def _arrow(self, which: str) -> None:
        if which in "CD":
            self._step(1 if which == "C" else -1)
        elif which in "AB":
            self._y = (self._y + (1 if which == "B" else -1)) % ROWS
        elif which in "HK":
            self._x, self._y = 0, 0 if which == "H" else ROWS - 1
        elif which in "LR":
            self._x = 0 if which == "L" else COLUMNS - 1
        else:
            self.problems.append(f"ESC [ {which!r}")

    # --- to look at ----------------------------------------------------------------------------------

    def text(self) -> str:
        edge = "+" + "-" * COLUMNS + "+"
        return "\n".join([edge, *(f"|{line}|" for line in self.lines), edge])

    def to_png(self) -> bytes:
        """Green on black, one cell per character, as a fluorescent display stands on the counter."""
        width, height = CELL
        art = Image.new("RGB", (COLUMNS * width + 40, ROWS * height + 40), (12, 16, 14))
        draw = ImageDraw.Draw(art)
        font = _font(26)
        for y, line in enumerate(self.lines):
            for x, char in enumerate(line):
                left, top = 20 + x * width, 20 + y * height
                box = (left + 2, top + 2, left + width - 3, top + height - 3)
                draw.rectangle(box, fill=(18, 30, 26))
                draw.text((left + 4, top + 1), char, font=font, fill=(90, 255, 200))
        out = io.BytesIO()
        art.save(out, "PNG")
        return out.getvalue()


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in ("DejaVuSansMono.ttf", "LiberationMono-Regular.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
