"""The commands of a receipt printer, read one byte at a time. No I/O.

Status requests are answered as a printer with a closed drawer answers them. Every documented command is
skipped by its length. A command that is not known is a doubt and takes no byte after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gateway.counter.slip_commands import (
    COLUMN_BYTES,
    DC4_LENGTHS,
    ESC_LENGTHS,
    FS_LENGTHS,
    GS_LENGTHS,
    begins,
)
from gateway.counter.slip_data import Bytes, DataCommands

ESC, GS, FS, DLE = 0x1B, 0x1D, 0x1C, 0x10
LF, FF, TAB, CR, CAN, DC2 = 0x0A, 0x0C, 0x09, 0x0D, 0x18, 0x12
# Text for a customer display that is kept, to be seen if it was a slip after all.
ASIDE_MAX_BYTES = 8192
# Answers of a printer that is online, with paper, its cover and its drawer closed (pin 3 is high then).
REAL_TIME_WELL = {1: b"\x16", 2: b"\x12", 3: b"\x12", 4: b"\x12", 7: b"\x12", 8: b"\x12"}
# To GS r and ESC u, by the status that is asked for; to ESC v; to GS a (four bytes).
STATUS_WELL = {1: b"\x00", 49: b"\x00", 2: b"\x01", 50: b"\x01"}
DRAWER_WELL, PAPER_WELL, AUTOMATIC_WELL = b"\x01", b"\x00", b"\x14\x00\x00\x00"
_NAMES = {65: b"_1.0\0", 66: b"_POS GATEWAY\0", 67: b"_CAPTURE\0", 68: b"_0\0"}
# The connectors that ESC p knows, as numbers and as digits.
DRAWERS = (0, 1, 2, 48, 49, 50)


class CommandMachine(DataCommands, ABC):
    """`_send` one byte at a time; text goes to the paper, answers are collected, pictures are skipped."""

    def __init__(self, code_page: str | None = None) -> None:
        super().__init__(code_page)
        self._in_command = False
        # The command that is being read may end here, as some tills leave its last parameters out.
        self._may_end = False
        self._aside = False
        self._macro = False
        # The number of times the till has asked for the drawer.
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
            if self._letter is not None:
                if byte == 0x20 or chr(byte).isalnum():
                    paper.doubt(f"{self._letter!r} may be text or belong to the command before it")
                self._letter = None
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
            elif byte == DC2:
                paper.control(byte)
                yield from self._dc2()
            elif byte == CAN and paper.page_mode and not paper.is_blank:
                paper.doubt("text of page mode is deleted again (CAN)")
            else:
                paper.control(byte)

    def _esc(self) -> Bytes:
        command = chr((yield))
        if command == "p":
            yield from self._kick()
        elif command == "=":
            if not (yield from self._parameter()) & 1:
                yield from self._to_display()
        elif command in "dJeK":
            yield from self._parameter()
            self._paper.line_end()
            if command in "eK":
                self._paper.move_back()
            self._line_ended()
        elif command in "im":
            self._cut()
        elif command in "uv":
            if command == "u":
                yield from self._parameter()
            self._answers += DRAWER_WELL if command == "u" else PAPER_WELL
        elif command in "*&(ZDC":
            yield from self._esc_data(command)
        elif command in "t@R9$\\LS":
            yield from self._esc_text(command)
        else:
            if command == "\x0c":
                self._paper.line_end(if_any=True)
            elif command == "%":
                self._paper.user_set = bool((yield from self._parameter()) & 1)
                return
            yield from self._known("ESC", command, ESC_LENGTHS)

    def _esc_text(self, command: str) -> Bytes:
        """Read a command that changes what the text after it is, or where it stands."""
        paper = self._paper
        if command == "t":
            paper.choose_page((yield from self._parameter()))
        elif command == "@":
            paper.reset()
        elif command == "R":
            paper.choose_country((yield from self._parameter()))
        elif command == "9":
            # Clones: 0 GBK, 1 UTF-8, 3 Big5.
            kind = yield from self._parameter()
            paper.choose_double({0: "gb18030", 1: "utf-8", 3: "big5"}.get(kind))
            paper.switch_double(True)
        elif command in "$\\":
            dots = (yield) + 256 * (yield from self._parameter())
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
        last, letters = 0, 0
        for at in range(3):
            last = yield
            letters += at > 0 and chr(last).isascii() and chr(last).isalpha()
            self._may_end = True
            if at == 0 and last not in DRAWERS:
                self._paper.doubt(f"the drawer {last:02X} of ESC p is not known")
                self._give_back(last)
                return
            if last in (ESC, GS, DLE):
                byte = yield
                self._again.append(byte)
                if begins(last, byte):
                    self._again.insert(0, last)
                    return
        if letters == 2:
            self._letter = chr(last)
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

    def _gs(self) -> Bytes:
        command = chr((yield))
        if command == "V":
            kind = yield
            if kind in (65, 66, 97, 98, 103, 104):
                yield from self._parameter()
            elif kind not in (0, 1, 48, 49):
                self._give_back(kind)
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
            yield
            yield from self._parameter()
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
        kind = yield from self._parameter()
        if command == "r":
            self._answers += STATUS_WELL.get(kind, b"\x00")
        elif command == "a":
            self._answers += AUTOMATIC_WELL if kind else b""
        elif command == "I":
            self._letter = None
            self._answers += _NAMES.get(kind, b"\x02")
        else:
            yield from self._bytes(3)
            if kind in (2, 50):
                self._answers += b"_0\0"

    def _fs(self) -> Bytes:
        command = chr((yield))
        if command == "(":
            yield from self._function("FS")
        elif command in "&.":
            self._paper.switch_double(command == "&")
        elif command == "C":
            # 1 is Shift JIS. 0 is JIS of 7 bits on Japanese printers, and nothing on Chinese ones.
            kind = yield from self._parameter()
            self._paper.choose_double(None if kind in (0, 48) else "cp932")
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

    def _dc2(self) -> Bytes:
        """DC2 q n and DC2 ~ n of some makers; elsewhere DC2 prints nothing, and text follows."""
        self._may_end = True
        command = yield
        if command not in b"q~":
            self._again.append(command)
            return
        value = yield
        if value >= 0x08:
            self._again += [command, value]

    def _known(self, lead: str, command: str, lengths: dict[str, int]) -> Bytes:
        if command not in lengths:
            self._paper.doubt(f"{lead} {ord(command):02X} is not known")
            self._give_back(ord(command))
        count = lengths.get(command, 0)
        if count:
            yield from self._bytes(count - 1)
            yield from self._parameter()
