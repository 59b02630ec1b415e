"""An ESC/POS interpreter: bytes in, in whatever pieces; paper and answers out.

Written from the command reference of common receipt printers; shares nothing with any encoder. What
it does not know is noted in `problems` and skipped, as a printer would.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from hw_fakes.printer.paper import Feed, Line, Paper, Picture, QrMark, Run

CODE_PAGES = {0: "cp437", 2: "cp850", 3: "cp860", 4: "cp863", 5: "cp865", 13: "cp857", 14: "cp737",
    15: "iso8859_7", 16: "cp1252", 17: "cp866", 18: "cp852", 19: "cp858", 45: "cp1250",
    46: "cp1251", 47: "cp1253", 48: "cp1254"}  # fmt: skip
LINE_DOTS = 30
ESC, GS, FS, DLE = 0x1B, 0x1D, 0x1C, 0x10


def _wide(row: bytes | bytearray) -> bytes:
    """Each dot twice."""
    bits = "".join(f"{byte:08b}" for byte in row)
    double = "".join(bit * 2 for bit in bits)
    return int(double, 2).to_bytes(2 * len(row), "big") if row else b""


@dataclass(slots=True)
class Style:
    bold: bool = False
    underline: bool = False
    inverse: bool = False
    small: bool = False
    width: int = 1
    height: int = 1
    align: int = 0
    code_page: int = 0


class Interpreter:
    """`feed` takes bytes; `answer` is called with what the printer says back."""

    def __init__(
        self,
        paper: Paper,
        answer: Callable[[bytes], None],
        *,
        status: Callable[[int], int],
        kick: Callable[[], None] = lambda: None,
        finished: Callable[[], None] = lambda: None,
        began: Callable[[], None] = lambda: None,
        automatic: Callable[[int | None], None] = lambda enabled: None,
        name: Callable[[int], bytes] = lambda which: b"\x02",
        chinese: bool = False,
        native_qr: bool = True,
        rows_max: int | None = None,
    ) -> None:
        self.paper = paper
        self.problems: list[str] = []
        self._answer = answer
        self._status = status
        self._kick = kick
        self._finished = finished
        self._began = began
        # GS a n; None for ESC @, after which the printer's switches count again.
        self._automatic = automatic
        # Two bytes above 7F are one character until FS . ends that; ESC @ does not.
        self._chinese = chinese
        self._native_qr = native_qr
        self._rows_max = rows_max
        # What it says to GS I n.
        self._name = name
        self._style = Style()
        self._line = Line()
        self._qr = {"size": 3, "level": "L", "data": b""}
        self._machine = self._commands()
        next(self._machine)
        self.consumed = 0

    def feed(self, data: bytes) -> None:
        for byte in data:
            self.paper.open.raw += bytes([byte])
            self.consumed += 1
            self._machine.send(byte)

    # --- the grammar: a generator that is sent one byte at a time -----------------------------------

    def _commands(self) -> Generator[None, int, None]:
        text = bytearray()
        while True:
            byte = yield
            if byte >= 0x20 or byte == 0x09:
                text.append(byte)
                continue
            self._print(bytes(text))
            text.clear()
            if byte == 0x0A:
                self._line_feed()
            elif byte == ESC:
                yield from self._esc()
            elif byte == GS:
                yield from self._gs()
            elif byte == DLE:
                yield from self._dle()
            elif byte == FS:
                # FS & and FS . ; other one-byte selections of Asian sets are taken, not used.
                self._chinese = {0x26: True, 0x2E: False}.get((yield), self._chinese)
            elif byte not in (0x0D, 0x00, 0x18, 0x0C):
                self.problems.append(f"control {byte:#04x}")

    def _esc(self) -> Generator[None, int, None]:
        command = chr((yield))
        style = self._style
        if command == "@":
            self._style = Style()
            self._line = Line()
            self._automatic(None)
            self._began()
        elif command == "!":
            mode = yield
            style.small, style.bold = bool(mode & 1), bool(mode & 8)
            style.height, style.width = 1 + bool(mode & 16), 1 + bool(mode & 32)
            style.underline = bool(mode & 128)
        elif command == "E" or command == "G":
            style.bold = bool((yield) & 1)
        elif command == "-":
            style.underline = ((yield) & 3) > 0
        elif command == "a":
            style.align = (yield) & 3
        elif command == "M":
            style.small = bool((yield) & 1)
        elif command == "t":
            style.code_page = yield
        elif command == "d":
            lines = yield
            self._flush()
            self.paper.open.items.append(Feed(lines * LINE_DOTS))
        elif command == "J":
            dots = yield
            self._flush()
            self.paper.open.items.append(Feed(dots))
        elif command == "p":
            yield
            yield
            yield
            self._kick()
        elif command == "2":
            pass
        elif command in "3R{VrS U=":
            yield
        elif command == "D":
            while (yield):
                pass
        elif command == "*":
            mode, low, high = (yield), (yield), (yield)
            count = (low + 256 * high) * (3 if mode > 1 else 1)
            for _ in range(count):
                yield
        elif command == "c":
            yield
            yield
        else:
            self.problems.append(f"ESC {command!r}")

    def _gs(self) -> Generator[None, int, None]:
        command = chr((yield))
        style = self._style
        if command == "!":
            size = yield
            style.width, style.height = (size >> 4 & 7) + 1, (size & 7) + 1
        elif command == "B":
            style.inverse = bool((yield) & 1)
        elif command == "V":
            mode = yield
            if mode >= 65:
                yield
            self._flush()
            self.paper.cut()
            self._finished()
        elif command == "(":
            yield from self._extended()
        elif command == "v":
            yield from self._raster()
        elif command == "r":
            which = yield
            # Worked off in order: what came before has been printed when this is answered.
            self._answer(bytes([self._status(which)]))
        elif command == "I":
            self._answer(self._name((yield)))
        elif command == "k":
            yield from self._barcode()
        elif command == "a":
            self._automatic((yield))
        elif command in "hwHfLWxbT":
            yield
            if command in "LW":
                yield
        else:
            self.problems.append(f"GS {command!r}")

    def _dle(self) -> Generator[None, int, None]:
        command = yield
        if command == 0x04:
            which = yield
            self._answer(bytes([self._status(0x100 + which)]))
        elif command == 0x14:
            for _ in range(3):
                yield
        else:
            self.problems.append(f"DLE {command:#04x}")

    def _extended(self) -> Generator[None, int, None]:
        name, low, high = chr((yield)), (yield), (yield)
        data = bytearray()
        for _ in range(low + 256 * high):
            data.append((yield))
        if name == "k" and len(data) >= 2 and data[0] == 49:
            self._qr_function(data[1], bytes(data[2:]))
        elif name == "H" and len(data) >= 6:
            self._answer(b"\x37\x22" + bytes(data[2:6]) + b"\x00")
        elif name not in "kLEKN":
            self.problems.append(f"GS ( {name}")

    def _qr_function(self, function: int, data: bytes) -> None:
        if not self._native_qr:
            # Its length and its letters come out as they are.
            self._print(bytes([0x31, function]) + data)
            return
        if function == 67:
            self._qr["size"] = data[0]
        elif function == 69:
            self._qr["level"] = {48: "L", 49: "M", 50: "Q", 51: "H"}.get(data[0], "L")
        elif function == 80:
            self._qr["data"] = data[1:]
        elif function == 81:
            self._flush()
            content = bytes(self._qr["data"]).decode("utf-8", "replace")  # type: ignore[arg-type]
            self.paper.open.items.append(
                QrMark(content, int(self._qr["size"]), str(self._qr["level"]), self._style.align)  # type: ignore[call-overload]
            )

    def _raster(self) -> Generator[None, int, None]:
        yield
        # Bit 0: twice as wide, bit 1: twice as high; as a digit or a number.
        mode = (yield) & 3
        x_low, x_high, y_low, y_high = (yield), (yield), (yield), (yield)
        width, height = x_low + 256 * x_high, y_low + 256 * y_high
        if self._rows_max is not None:
            height &= self._rows_max
        rows: list[bytes] = []
        for _ in range(height):
            row = bytearray()
            for _ in range(width):
                row.append((yield))
            rows += [_wide(row) if mode & 1 else bytes(row)] * (2 if mode & 2 else 1)
        self._flush()
        dots = width * 8 * (2 if mode & 1 else 1)
        self.paper.open.items.append(Picture(dots, rows, self._style.align))

    def _barcode(self) -> Generator[None, int, None]:
        kind = yield
        data = bytearray()
        if kind >= 65:
            for _ in range((yield)):
                data.append((yield))
        else:
            while byte := (yield):
                data.append(byte)
        self._print(b"[BARCODE " + bytes(data) + b"]")
        self._line_feed()

    # --- printing --------------------------------------------------------------------------------------

    def _print(self, data: bytes) -> None:
        if not data:
            return
        style = self._style
        codec = CODE_PAGES.get(style.code_page)
        if codec is None:
            self.problems.append(f"code page {style.code_page}")
            codec = "cp437"
        if self._chinese:
            codec = "gb18030"
        text = data.decode(codec, "replace")
        run = Run(
            text, style.bold, style.width, style.height, style.underline, style.inverse, style.small
        )
        self._line.runs.append(run)
        self._line.align = style.align

    def _line_feed(self) -> None:
        self._line.align = self._style.align if not self._line.runs else self._line.align
        self.paper.open.items.append(self._line)
        self._line = Line()

    def _flush(self) -> None:
        if self._line.runs:
            self._line_feed()
