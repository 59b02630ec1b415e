"""The commands of a receipt printer, read one byte at a time. No I/O.

Status requests are answered as a printer with a closed drawer answers them. Every documented command is
skipped by its length. A command that is not known is a doubt and takes no byte after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator

from gateway.counter.slip_commands import (
    COLUMN_BYTES,
    DC4_LENGTHS,
    ESC_LENGTHS,
    FS_LENGTHS,
    GS_LENGTHS,
    begins,
)
from gateway.counter.slip_paper import SlipPaper

ESC, GS, FS, DLE = 0x1B, 0x1D, 0x1C, 0x10
LF, FF, TAB, CR, CAN = 0x0A, 0x0C, 0x09, 0x0D, 0x18
# Data of a GS ( or FS ( function that is looked at; the rest is skipped.
HEAD_MAX_BYTES = 16
# A barcode's data that ends with NUL.
BARCODE_MAX_BYTES = 255
# Text for a customer display that is kept, to be seen if it was a slip after all.
ASIDE_MAX_BYTES = 8192
# Answers of a printer that is online, with paper, its cover and its drawer closed (pin 3 is high then).
REAL_TIME_WELL = {1: b"\x16", 2: b"\x12", 3: b"\x12", 4: b"\x12", 7: b"\x12", 8: b"\x12"}
# To GS r and ESC u, by the status that is asked for; to ESC v; to GS a (four bytes).
STATUS_WELL = {1: b"\x00", 49: b"\x00", 2: b"\x01", 50: b"\x01"}
DRAWER_WELL, PAPER_WELL, AUTOMATIC_WELL = b"\x01", b"\x00", b"\x14\x00\x00\x00"
_NAMES = {65: b"_1.0\0", 66: b"_POS GATEWAY\0", 67: b"_CAPTURE\0", 68: b"_0\0"}
# Functions of GS ( L and GS 8 L that print a picture, and those that only store one.
_PRINTED, _STORED = (2, 50, 69, 85), (67, 68, 83, 84)

Bytes = Generator[None, int, None]


class CommandMachine(ABC):
    """`send` one byte at a time; text goes to `paper`, answers to `answers`, pictures are skipped."""

    def __init__(self, code_page: str | None = None) -> None:
        self._paper = SlipPaper(code_page)
        # Bytes of a picture still to be skipped.
        self._to_skip = 0
        # Bytes that a command has read and does not want.
        self._again: list[int] = []
        self._in_command = False
        # The command that is being read may end here, as some tills leave its last parameters out.
        self._may_end = False
        self._aside = False
        self._macro = False
        self._answers = bytearray()
        # How often the till has asked for the drawer.
        self.pulses = 0
        self._machine = self._commands()
        next(self._machine)

    @abstractmethod
    def _line_ended(self) -> None:
        """Look at the line that ended last."""

    @abstractmethod
    def _cut(self) -> None:
        """End the slip."""

    def give_up_command(self) -> None:
        """Forget a command whose data have not come: the till was unplugged, and begins again.

        Without this the data that are missing would be taken out of the slips that follow.
        """
        if self._aside or not (self._to_skip or self._in_command):
            return
        if self._to_skip or not self._may_end:
            self._paper.doubt("the data of a command are missing")
        self._to_skip = 0
        self._machine = self._commands()
        next(self._machine)

    def _send(self, byte: int) -> None:
        self._machine.send(byte)
        while self._again:
            self._machine.send(self._again.pop(0))

    def _commands(self) -> Bytes:
        paper = self._paper
        while True:
            self._in_command = self._may_end = False
            byte = yield
            self._in_command = True
            if byte >= 0x20:
                paper.char(byte)
            elif byte == LF:
                if paper.line_feed():
                    self._line_ended()
            elif byte == CR:
                paper.carriage_return()
                self._line_ended()
            elif byte == FF:
                paper.line_end()
                self._line_ended()
            elif byte == TAB:
                paper.tab()
            elif byte == ESC:
                yield from self._esc()
            elif byte == GS:
                yield from self._gs()
            elif byte == FS:
                yield from self._fs()
            elif byte == DLE:
                yield from self._dle()
            elif byte == CAN and paper.page_mode and not paper.is_blank:
                paper.doubt("text of page mode is deleted again (CAN)")
            else:
                paper.control(byte)

    def _esc(self) -> Bytes:
        command = chr((yield))
        if command == "p":
            yield from self._kick()
        elif command == "=":
            if not (yield) & 1:
                yield from self._to_display()
        elif command in "dJeK":
            yield
            self._paper.line_end()
            if command in "eK":
                self._paper.move_back()
            self._line_ended()
        elif command in "im":
            self._cut()
        elif command in "uv":
            if command == "u":
                yield
            self._answers += DRAWER_WELL if command == "u" else PAPER_WELL
        elif command in "*&(ZDC":
            yield from self._esc_data(command)
        elif command in "t@R9$\\LS":
            yield from self._esc_text(command)
        else:
            if command == "\x0c":
                self._paper.line_end(if_any=True)
            elif command == "%":
                self._paper.user_set = bool((yield) & 1)
                return
            yield from self._known("ESC", command, ESC_LENGTHS)

    def _esc_text(self, command: str) -> Bytes:
        """Read a command that changes what the text after it is, or where it stands."""
        paper = self._paper
        if command == "t":
            paper.choose_page((yield))
        elif command == "@":
            paper.reset()
        elif command == "R":
            paper.choose_country((yield))
        elif command == "9":
            # Clones: 0 GBK, 1 UTF-8, 3 Big5.
            paper.choose_double({0: "gb18030", 1: "utf-8", 3: "big5"}.get((yield), "ascii"))
            paper.switch_double(True)
        elif command in "$\\":
            dots = (yield) + 256 * (yield)
            if command == "$":
                paper.move_to(dots)
            else:
                paper.move_by(dots - 0x10000 if dots >= 0x8000 else dots)
        else:
            paper.page_mode = command == "L"

    def _esc_data(self, command: str) -> Bytes:
        """Read a command that is followed by data."""
        if command == "*":
            mode, low, high = (yield), (yield), (yield)
            if mode not in COLUMN_BYTES:
                self._paper.doubt(f"ESC * of mode {mode} is not known")
                return
            columns = low + 256 * high
            self._skip(columns * COLUMN_BYTES[mode])
            self._picture(f"[picture: {columns} dots wide]")
        elif command == "&":
            yield from self._characters()
        elif command == "(":
            yield from self._function("ESC")
        elif command == "Z":
            yield from self._bytes(3)
            self._skip((yield) + 256 * (yield))
            self._picture("[code]")
        elif command == "D":
            yield from self._tabs()
        else:
            # A page's length on some printers; on clones a buzzer of three values below 10.
            yield
            self._may_end = True
            for _ in range(2):
                byte = yield
                if byte >= LF:
                    self._again.append(byte)
                    return

    def _kick(self) -> Bytes:
        """ESC p m t1 t2; some libraries leave t1 and t2 out, and some write them as UTF-8."""
        self.pulses += 1
        last = 0
        for _ in range(3):
            last = yield
            self._may_end = True
            if last in (ESC, GS, DLE):
                byte = yield
                self._again.append(byte)
                if begins(last, byte):
                    self._again.insert(0, last)
                    return
        if last in (0xC2, 0xC3):
            byte = yield
            if not 0x80 <= byte < 0xC0:
                self._again.append(byte)

    def _to_display(self) -> Bytes:
        """Read text for the customer display behind the printer, until the printer is chosen again.

        A display is never cut: where a cut follows, a slip was sent this way, and must not vanish.
        """
        aside, before = bytearray(), 0
        self._aside = True
        while True:
            byte = yield
            if before == ESC and byte == ord("="):
                if (yield) & 1:
                    break
            elif before == DLE and byte == 0x04:
                self._answers += REAL_TIME_WELL.get((yield), b"")
            elif (before == GS and byte == ord("V")) or (before == ESC and byte in b"im"):
                self._from_aside(aside)
                self._again += [before, byte]
                break
            elif len(aside) < ASIDE_MAX_BYTES:
                aside.append(byte)
            before = byte
        self._aside = False

    def _from_aside(self, aside: bytearray) -> None:
        for byte in aside.replace(b"\r", b"\n"):
            if byte == LF:
                self._paper.line_end()
            elif byte >= 0x20:
                self._paper.char(byte)
        self._paper.doubt("it was sent while the printer was switched off (ESC =)")

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

    def _gs(self) -> Bytes:
        command = chr((yield))
        if command == "V":
            kind = yield
            if kind in (65, 66, 97, 98, 103, 104):
                yield
            self._cut()
        elif command in "raIg":
            yield from self._gs_request(command)
        elif command == "(":
            yield from self._function("GS")
        elif command == "8":
            yield from self._long_function()
        elif command in "v*QD":
            yield from self._gs_picture(command)
        elif command == "k":
            yield from self._barcode()
        elif command == "C":
            yield from self._counter()
        elif command in "$\\":
            yield from self._bytes(2)
            self._paper.move_down()
        else:
            if command == "P":
                self._paper.own_units = True
            elif command == "/":
                self._picture("[picture]")
            elif command == ":":
                self._macro = True
            elif command == "^" and self._macro:
                self._paper.doubt("a macro is printed, and its text is not known (GS ^)")
            yield from self._known("GS", command, GS_LENGTHS)

    def _gs_request(self, command: str) -> Bytes:
        kind = yield
        if command == "r":
            self._answers += STATUS_WELL.get(kind, b"\x00")
        elif command == "a":
            self._answers += AUTOMATIC_WELL if kind else b""
        elif command == "I":
            self._answers += _NAMES.get(kind, b"\x02")
        else:
            yield from self._bytes(3)
            if kind in (2, 50):
                self._answers += b"_0\0"

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

    def _fs(self) -> Bytes:
        command = chr((yield))
        if command == "(":
            yield from self._function("FS")
        elif command in "&.":
            self._paper.switch_double(command == "&")
        elif command == "C":
            # 7-bit JIS has no codec that fits: its text is no ASCII, and a doubt where it has any.
            kind = yield
            self._paper.choose_double("ascii" if kind in (0, 48) else "cp932")
        elif command == "q":
            for _ in range((yield)):
                wide, high = (yield) + 256 * (yield), (yield) + 256 * (yield)
                yield from self._bytes(wide * high * 8)
                self._paper.stored.append(f"[picture: {wide * 8} x {high * 8} dots]")
        elif command == "g":
            yield from self._memory()
        else:
            if command == "p":
                self._picture("[picture]")
            yield from self._known("FS", command, FS_LENGTHS)

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

    def _dle(self) -> Bytes:
        command = yield
        if command == 0x04:
            kind = yield
            if kind in (7, 8, 18):
                yield
            self._answers += REAL_TIME_WELL.get(kind, b"")
        elif command == 0x05:
            yield
        elif command == 0x14:
            kind = yield
            if kind not in DC4_LENGTHS:
                self._paper.doubt(f"DLE DC4 {kind:02X} is not known")
            yield from self._bytes(DC4_LENGTHS.get(kind, 0))
            self.pulses += kind == 1
        else:
            self._paper.doubt(f"DLE {command:02X} is not known")
            self._give_back(command)

    def _known(self, lead: str, command: str, lengths: dict[str, int]) -> Bytes:
        if command not in lengths:
            self._paper.doubt(f"{lead} {ord(command):02X} is not known")
            self._give_back(ord(command))
        yield from self._bytes(lengths.get(command, 0))

    def _give_back(self, byte: int) -> None:
        """A byte after a lead that is no command may begin one, or end the line."""
        if byte < 0x20:
            self._again.append(byte)

    def _bytes(self, count: int) -> Bytes:
        for _ in range(count):
            yield

    def _skip(self, count: int) -> None:
        """Skip data after the last byte of a command, in large pieces."""
        self._to_skip = count

    def _picture(self, line: str) -> None:
        self._paper.pictures.append(line)
