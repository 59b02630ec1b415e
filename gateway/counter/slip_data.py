"""Printer commands that are followed by data: pictures, barcodes, characters, functions. No I/O.

Each is read by its length, so that no byte of its data is taken for text.
"""

from __future__ import annotations

from collections.abc import Generator

from gateway.counter.slip_paper import SlipPaper

# Data of a GS ( or FS ( function that is looked at; the rest is skipped.
HEAD_MAX_BYTES = 16
# A barcode's data that ends with NUL.
BARCODE_MAX_BYTES = 255
# Functions of GS ( L and GS 8 L that print a picture, and those that only store one.
_PRINTED, _STORED = (2, 50, 69, 85), (67, 68, 83, 84)

Bytes = Generator[None, int, None]


class DataCommands:
    """Generators that are sent the bytes after a command, one at a time."""

    def __init__(self, code_page: str | None = None) -> None:
        self._paper = SlipPaper(code_page)
        # Bytes of a picture still to be skipped.
        self._to_skip = 0
        # Bytes that a command has read and does not want.
        self._again: list[int] = []
        # The last parameter of a command, where it is a letter: it may be text after a shorter command.
        self._letter: str | None = None
        self._answers = bytearray()

    def _characters(self) -> Bytes:
        """ESC & y c1 c2, and for each character its width and as many columns of y bytes."""
        high, first, last = (yield), (yield), (yield)
        if not (1 <= high <= 6 and 0x20 <= first <= last):
            self._paper.doubt("ESC & defines no characters")
            return
        for byte in range(first, last + 1):
            yield from self._bytes(high * (yield))
            self._paper.user_bytes.add(byte)

    def _tabs(self) -> Bytes:
        """ESC D: columns in ascending order; NUL, or a column that is not further right, ends them."""
        stops: list[int] = []
        while len(stops) < 32:
            byte = yield
            if byte == 0:
                break
            if byte <= (stops[-1] if stops else 0):
                self._again.append(byte)
                break
            stops.append(byte)
        self._paper.set_tabs(stops)

    def _gs_picture(self, command: str) -> Bytes:
        if command == "*":
            wide, high = (yield), (yield)
            self._skip(wide * high * 8)
            self._paper.stored.append(f"[picture: {wide * 8} x {high * 8} dots]")
            return
        if command == "D":
            # A picture of Windows, whose size stands in its own head.
            yield from self._bytes(9)
            sizes = [(yield), (yield), (yield), (yield)]
            self._skip(max(0, int.from_bytes(bytes(sizes), "little") - 6))
            self._picture("[picture]")
            return
        yield from self._bytes(2)
        wide, high = (yield) + 256 * (yield), (yield) + 256 * (yield)
        self._skip(wide * high)
        dots = f"{wide * 8} x {high}" if command == "v" else f"{wide} x {high * 8}"
        self._picture(f"[picture: {dots} dots]")

    def _barcode(self) -> Bytes:
        kind = yield
        if kind == 97:
            # Clones: a QR code with version, level and a length of two bytes.
            yield from self._bytes(2)
            self._skip((yield) + 256 * (yield))
        elif 65 <= kind <= 79:
            yield from self._bytes((yield))
        elif kind > 10:
            self._paper.doubt(f"a barcode of kind {kind:02X} is not known")
            return
        else:
            for _ in range(BARCODE_MAX_BYTES):
                byte = yield
                if byte == 0:
                    break
                if byte < 0x20 or byte > 0x7E:
                    # No data of a barcode: the printer gives it up, and goes on with this byte.
                    self._again.append(byte)
                    break
        self._picture("[barcode]")

    def _counter(self) -> Bytes:
        """GS C: 0, 1 and 2 set the counter; with a semicolon its values are digits."""
        kind = yield
        if kind == ord(";"):
            marks = 1
            while marks < 6:
                byte = yield
                if byte != ord(";") and not 0x30 <= byte <= 0x39:
                    self._again.append(byte)
                    return
                marks += byte == ord(";")
            return
        lengths = {0: 2, 48: 2, 1: 6, 49: 6, 2: 2, 50: 2}
        if kind not in lengths:
            self._paper.doubt(f"GS C {kind:02X} is not known")
        yield from self._bytes(lengths.get(kind, 0))

    def _memory(self) -> Bytes:
        """FS g 1 writes to the printer's memory, FS g 2 reads."""
        kind = yield
        yield from self._bytes(5)
        count = (yield) + 256 * (yield)
        if kind in (1, 49):
            self._skip(count)

    def _function(self, lead: str) -> Bytes:
        """ESC ( x, GS ( x and FS ( x: the length is in two bytes."""
        name = chr((yield))
        count = (yield) + 256 * (yield)
        yield from self._function_of(lead, name, count)

    def _long_function(self) -> Bytes:
        """GS 8 x: the length is in four bytes."""
        name = chr((yield))
        sizes = [(yield), (yield), (yield), (yield)]
        yield from self._function_of("GS", name, int.from_bytes(bytes(sizes), "little"))

    def _function_of(self, lead: str, name: str, count: int) -> Bytes:
        head = bytearray()
        for _ in range(min(count, HEAD_MAX_BYTES)):
            head.append((yield))
        self._skip(count - len(head))
        if lead == "GS" and name == "H" and len(head) >= 6:
            self._answers += b"\x37\x22" + bytes(head[2:6]) + b"\x00"
        elif lead == "GS" and name == "L" and len(head) >= 2:
            self._graphics(head)
        elif lead == "GS" and name == "k" and len(head) >= 2 and head[1] == 81:
            self._picture("[code]")
        elif lead == "FS" and name == "C" and len(head) >= 2 and head[0] == 48:
            self._paper.choose_utf8(head[1] in (2, 50))

    def _graphics(self, head: bytearray) -> None:
        stored = self._paper.stored
        if head[1] in _PRINTED:
            self._picture(stored[-1] if stored else "[picture]")
        elif head[1] in (112, 113) and len(head) >= 10:
            wide, high = head[6] + 256 * head[7], head[8] + 256 * head[9]
            stored.append(f"[picture: {wide} x {high} dots]")
        elif head[1] in _STORED:
            stored.append("[picture]")

    def _give_back(self, byte: int) -> None:
        """Read a byte again that is no command: it may begin one, or end the line."""
        if byte < 0x20:
            self._again.append(byte)

    def _bytes(self, count: int) -> Bytes:
        for _ in range(count):
            yield

    def _parameter(self) -> Generator[None, int, int]:
        """Read the last parameter of a command without data."""
        byte = yield
        self._letter = chr(byte) if 0x41 <= byte <= 0x7A and chr(byte).isalpha() else None
        return byte

    def _skip(self, count: int) -> None:
        """Skip data after the last byte of a command, in large pieces."""
        self._to_skip = count

    def _picture(self, line: str) -> None:
        self._paper.pictures.append(line)
