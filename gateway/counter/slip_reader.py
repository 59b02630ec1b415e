"""The bytes that a till sends to its printer, read as a printer does: lines of text, slip by slip. No I/O.

Status requests are answered as a printer with a closed drawer answers them. Every documented command is
skipped by its length, so that no byte of it is taken for text. A command that is not known is a doubt and
takes no byte after it: a byte too many or too few may have changed an amount.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.counter.slip_machine import CommandMachine

# A slip ends here at the latest, pictures not counted; 200 kB are some 4,000 lines.
SLIP_MAX_BYTES = 200_000
TOO_LONG = "it is too long for one slip"
# A slip that does not end is shown once in this number of pieces.
PIECES_A_SLIP = 10
# A slip with its pictures: six metres of paper.
RAW_MAX_BYTES = 1_000_000
# Bytes before the first line that are kept with a slip; a till may ask for the status all day.
LEAD_MAX_BYTES = 4096
# Wider than any paper; a pattern is never let loose on more.
LINE_MAX = 256


@dataclass(frozen=True, slots=True)
class CapturedSlip:
    """One slip: its lines without trailing blanks, the bytes that made it, and what was not understood.

    A slip without text has a line in brackets for each of its pictures and codes.
    """

    lines: tuple[str, ...]
    raw: bytes
    doubts: tuple[str, ...] = ()


class SlipReader(CommandMachine):
    """`feed` returns (the printer's answers, the slips that ended).

    `last_line`: a line that ends a slip, for tills that do not cut. `code_page`: see `SlipPaper`.
    """

    def __init__(self, last_line: str | None = None, code_page: str | None = None) -> None:
        super().__init__(code_page)
        self._last_line = re.compile(last_line) if last_line else None
        self._raw = bytearray()
        # Bytes of this slip's pictures so far.
        self._skipped = 0
        # Pieces of SLIP_MAX_BYTES of a slip that does not end.
        self._pieces = 0
        self._slips: list[CapturedSlip] = []

    @property
    def in_slip(self) -> bool:
        return self._pieces > 0 or self._to_skip > 0 or not self._paper.is_blank

    def feed(self, data: bytes) -> tuple[bytes, list[CapturedSlip]]:
        at = 0
        while at < len(data):
            if self._to_skip:
                count = min(self._to_skip, len(data) - at, RAW_MAX_BYTES - len(self._raw))
                self._raw += data[at : at + count]
                self._to_skip -= count
                self._skipped += count
                at += count
            else:
                self._raw.append(data[at])
                self._send(data[at])
                at += 1
            self._bound()
        answers, self._answers = bytes(self._answers), bytearray()
        slips, self._slips = self._slips, []
        return answers, slips

    def end(self) -> list[CapturedSlip]:
        """End the slip: the till has been silent, so what it printed last is a slip without a cut."""
        self.give_up_command()
        if self.in_slip:
            self._cut()
        slips, self._slips = self._slips, []
        return slips

    def _bound(self) -> None:
        if len(self._raw) > LEAD_MAX_BYTES and not self.in_slip:
            del self._raw[:-LEAD_MAX_BYTES]
            self._skipped = min(self._skipped, len(self._raw))
        elif len(self._raw) >= RAW_MAX_BYTES or len(self._raw) - self._skipped >= SLIP_MAX_BYTES:
            pieces = self._pieces
            self._pieces = 0
            if pieces % PIECES_A_SLIP == 0:
                self._paper.doubt(TOO_LONG)
                self._cut()
            # The rest of it, to its cut, is no slip of its own.
            self._paper.cut()
            self._drop()
            self._pieces = pieces + 1

    # --- slips ---------------------------------------------------------------------------------------

    def _line_ended(self) -> None:
        lines = self._paper.lines
        if self._last_line and lines and self._last_line.search(lines[-1][:LINE_MAX]):
            self._cut()

    def _cut(self) -> None:
        paper = self._paper
        pictures = paper.pictures or paper.stored
        lines, doubts = paper.cut()
        raw = self._drop()
        if self._pieces:
            # Its beginning is a slip already.
            self._pieces = 0
            return
        if not any(line.strip() for line in lines):
            if not pictures and not doubts:
                return
            lines = list(dict.fromkeys(pictures)) or ["[nothing readable]"]
            doubts.insert(0, "it has no text that can be read, only a picture or a code")
        self._slips.append(CapturedSlip(tuple(lines), raw, tuple(doubts)))

    def _drop(self) -> bytes:
        raw = bytes(self._raw)
        self._raw.clear()
        self._skipped = 0
        self._macro = False
        return raw
