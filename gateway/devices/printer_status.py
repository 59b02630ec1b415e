"""What a receipt printer says: DLE EOT answers, GS r answers, process ID responses, and what it tells
unasked (automatic status back). No I/O.

Bits as in the ESC/POS command reference of common receipt printers. Every kind of answer has a pattern
of its own in bits 0, 1, 4 and 7 of its first byte; only the bytes that follow in an answer of several
look like answers to GS r, so they are counted off where they come.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

DLE_EOT = b"\x10\x04"
# In this order: printer, cause of offline, error, paper sensor.
REAL_TIME = (1, 2, 3, 4)
GS_R_PAPER = b"\x1dr\x01"
XON, XOFF = 0x11, 0x13
# The first byte of a process ID response, the one after it, and how many follow the first.
ID_HEAD, ID_KIND, ID_REST = 0x37, 0x22, 6
# The first byte of an answer to GS I with a text, its end, and the longest text that is taken.
NAME_HEAD, NAME_END, NAME_MAX = 0x5F, 0x00, 80
ASB_REST = 3
# Sixteen bits, four to a byte of 0x40 to 0x4F: none of them looks like a status or flow control.
ID_MAX = 0xFFFF


@dataclass(frozen=True, slots=True)
class PrinterStatus:
    """All well by default."""

    offline: bool = False
    drawer_open: bool = False
    cover_open: bool = False
    paper_out: bool = False
    paper_near_end: bool = False
    cutter_error: bool = False
    error: bool = False

    @property
    def stops(self) -> str | None:
        """Why it does not print, in words for whoever stands in front of it; None while it does."""
        if self.paper_out:
            return "paper out: load a new roll"
        if self.cover_open:
            return "the cover is open"
        if self.cutter_error:
            return "the cutter is jammed: switch the printer off, clear it, switch it on"
        if self.error:
            return "the printer reports an error: switch it off and on"
        if self.offline:
            return "the printer is offline"
        return None


def real_time(status: PrinterStatus, which: int, answer: int) -> PrinterStatus:
    """`status` with the answer to DLE EOT `which` worked in."""
    match which:
        case 1:
            # Bit 2 is pin 3 of the drawer's plug: low while the drawer is open, on most drawers.
            return replace(status, offline=bool(answer & 0x08), drawer_open=not answer & 0x04)
        case 2:
            return replace(
                status,
                cover_open=bool(answer & 0x04),
                paper_out=status.paper_out or bool(answer & 0x20),
                error=bool(answer & 0x40),
            )
        case 3:
            return replace(
                status, cutter_error=bool(answer & 0x08), error=status.error or bool(answer & 0x60)
            )
        case _:
            return replace(
                status,
                paper_near_end=bool(answer & 0x0C),
                paper_out=status.paper_out or bool(answer & 0x60),
            )


def automatic(packet: bytes) -> PrinterStatus:
    """The four bytes a printer sends by itself (GS a, or its switches) when something changes."""
    first, errors, paper, _ = packet
    return PrinterStatus(
        offline=bool(first & 0x08),
        drawer_open=not first & 0x04,
        cover_open=bool(first & 0x20),
        paper_out=bool(paper & 0x0C),
        paper_near_end=bool(paper & 0x03),
        cutter_error=bool(errors & 0x08),
        error=bool(errors & 0x64),
    )


def process_id_request(number: int) -> bytes:
    """GS ( H: the printer answers with `number` (0 to ID_MAX) when all before it has been printed."""
    return b"\x1d(H\x06\x00\x30\x30" + _id_bytes(number)


def _id_bytes(number: int) -> bytes:
    return bytes(0x40 | number >> shift & 0x0F for shift in (12, 8, 4, 0))


class Listener:
    """Sorts a printer's bytes as they come, in whatever pieces; never raises.

    `real_time`: answers to DLE EOT, oldest first. `papers`: how many answers to GS r. `ids`: process
    IDs. `told`: what the printer said last by itself, None if it never did. `name`: its last answer to GS I.
    """

    def __init__(self) -> None:
        self.real_time: deque[int] = deque(maxlen=64)
        self.papers = 0
        self.ids: set[int] = set()
        self.told: PrinterStatus | None = None
        self.name = ""
        self._open = bytearray()
        # The text of a name that has begun; its letters look like answers of every kind.
        self._name: bytearray | None = None

    def feed(self, data: bytes) -> None:
        for byte in data:
            self._take(byte)

    def _take(self, byte: int) -> None:
        if self._name is not None and self._in_name(byte):
            return
        if byte == NAME_HEAD:
            self._name = bytearray()
        elif byte in (XON, XOFF) or byte & 0x80:
            return  # flow control, or noise: no answer has bit 7
        if byte & 0x93 == 0x12:
            # In real time, which may be between two bytes of something longer.
            self.real_time.append(byte)
        elif byte & 0x93 == 0x10 or byte == ID_HEAD:
            self._open = bytearray([byte])
        elif byte & 0x10 == 0:
            self._follow(byte)

    def _in_name(self, byte: int) -> bool:
        """Take a byte of a name; return False for one that belongs to none, which ends it."""
        assert self._name is not None
        if 0x20 <= byte < 0x7F and len(self._name) < NAME_MAX:
            self._name.append(byte)
            return True
        if byte == NAME_END:
            self.name = self._name.decode("ascii").strip()
        self._name = None
        return byte == NAME_END

    def _follow(self, byte: int) -> None:
        if not self._open:
            self.papers += 1
            return
        if self._open[0] == ID_HEAD and len(self._open) == 1 and byte != ID_KIND:
            self._open.clear()
            self.papers += 1
            return
        self._open.append(byte)
        if self._open[0] == ID_HEAD:
            if len(self._open) == 1 + ID_REST:
                self.ids.add(_number(self._open[2:6]))
                self._open.clear()
        elif len(self._open) == 1 + ASB_REST:
            self.told = automatic(bytes(self._open))
            self._open.clear()


def _number(data: bytes | bytearray) -> int:
    number = 0
    for byte in data:
        number = number << 4 | byte & 0x0F
    return number
