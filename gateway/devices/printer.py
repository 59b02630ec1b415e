"""One receipt printer on a serial line: sends a slip and waits for the printer's own word on it.

Everything here blocks; each printer's worker calls it from a thread of its own, so a printer that is
off or out of paper keeps nobody else waiting.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum

import serial

from gateway.printing.document import Document

log = logging.getLogger(__name__)

# Bits on the wire per byte: start, eight data, stop.
BITS_PER_BYTE = 10
# Beyond the time on the wire, how long a printer may take to print and answer, in seconds.
ANSWER_MAX_S = 5.0
# No printer takes longer than this for one piece when it is well; then its line is called stuck.
WRITE_MAX_S = 15.0
# One look for an answer, in seconds.
READ_S = 0.1


class Result(Enum):
    PRINTED = "PRINTED"  # the printer has answered behind the slip's last byte
    UNCONFIRMED = "UNCONFIRMED"  # sent, no answer: it may be out or not
    NOT_SENT = "NOT_SENT"  # the port could not be opened: nothing left


@dataclass(frozen=True, slots=True)
class Outcome:
    result: Result
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SerialPrinter:
    """Where a printer is and how it is spoken to; from settings."""

    name: str
    port: str
    baud: int
    profile: str
    paper_mm: int
    columns: int
    cut: bool

    def print_slip(self, document: Document) -> Outcome:
        """Encode, send, wait for the status answer. Never raises for the wire's faults."""
        from gateway.devices import escpos

        data = escpos.encode(document, profile=self.profile, cut=self.cut)
        try:
            port = serial.serial_for_url(
                self.port, baudrate=self.baud, timeout=READ_S, write_timeout=WRITE_MAX_S
            )
        except (serial.SerialException, OSError, ValueError) as error:
            return Outcome(Result.NOT_SENT, _short(error))
        with port:
            try:
                port.reset_input_buffer()
                port.write(data)
                port.flush()
                return self._answer(port, len(data))
            except (serial.SerialException, OSError) as error:
                return Outcome(Result.UNCONFIRMED, f"the line broke: {_short(error)}")

    def _answer(self, port: serial.SerialBase, sent_bytes: int) -> Outcome:
        from gateway.devices import escpos

        wire_s = sent_bytes * BITS_PER_BYTE / self.baud
        for _ in range(int((wire_s + ANSWER_MAX_S) / READ_S)):
            answer = port.read(1)
            if answer:
                if escpos.paper_is_out(answer[0]):
                    return Outcome(Result.UNCONFIRMED, "paper out")
                return Outcome(Result.PRINTED)
        return Outcome(Result.UNCONFIRMED, "the printer gave no answer")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
