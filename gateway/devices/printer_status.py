"""What a receipt printer says of itself: DLE EOT answers, GS r answers, process ID responses. No I/O.

Bits as in the ESC/POS command reference of common receipt printers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

DLE_EOT = b"\x10\x04"
# In this order: printer, cause of offline, error, paper sensor.
REAL_TIME = (1, 2, 3, 4)
GS_R_PAPER = b"\x1dr\x01"


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


def is_real_time(byte: int) -> bool:
    """Bits 1 and 4 set, 0 and 7 clear: an answer to DLE EOT, whatever else is on the line."""
    return byte & 0x93 == 0x12


def is_gs_r(byte: int) -> bool:
    """Bits 4 and 7 clear, and no XON or XOFF: an answer to GS r."""
    return byte & 0x90 == 0x00


def process_id_request(number: int) -> bytes:
    """GS ( H: the printer sends `process_id_response(number)` when all before it has been printed."""
    return b"\x1d(H\x06\x00\x30\x30" + _digits(number)


def process_id_response(number: int) -> bytes:
    return b"\x37\x22" + _digits(number) + b"\x00"


def _digits(number: int) -> bytes:
    # Printable bytes, so that none of them is a flow-control character.
    return f"{number % 10_000:04d}".encode()
