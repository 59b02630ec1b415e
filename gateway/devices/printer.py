"""One receipt printer: asks how it is, sends a slip, and waits for the printer's own word on it.

Everything here blocks; each printer's worker calls it from a thread of its own. A slip that has not
begun can wait for ever without harm; once its first byte has left, only the printer's confirmation
makes it "printed", and its silence makes it "unconfirmed".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from gateway.clock import Clock
from gateway.devices import printer_status
from gateway.devices.channel import (
    Channel,
    ChannelLost,
    LineSettings,
    Tap,
    is_network,
    is_printer_class,
)
from gateway.devices.printer_status import DLE_EOT, REAL_TIME, PrinterStatus
from gateway.printing.document import Document

log = logging.getLogger(__name__)

# Bits on the wire per byte: start, eight data, stop.
BITS_PER_BYTE = 10
# How long a printer may take for a real-time answer, which it gives at once, in seconds.
REAL_TIME_S = 0.5
# Beyond the time on the wire, how long a printer that says it is well may take to confirm. Seconds.
CONFIRM_S = 8.0
# How often a printer that has not confirmed is asked how it is, in seconds.
ASK_S = 1.0
# One wait on the line, in seconds; what a stop of the gateway waits for at most.
LOOK_S = 0.1
PULSE_PIN_2 = b"\x1bp\x00\x19\xfa"
PULSE_PIN_5 = b"\x1bp\x01\x19\xfa"

Confirm = Literal["status", "process-id", "none"]


class Result(Enum):
    PRINTED = "PRINTED"  # the printer has confirmed everything up to the slip's last byte
    UNCONFIRMED = "UNCONFIRMED"  # begun, not confirmed: it may be out, in part, or not
    NOT_SENT = "NOT_SENT"  # not one byte of the slip has left


@dataclass(frozen=True, slots=True)
class Outcome:
    """`wire_s` is how long the slip's bytes take at the line's speed."""

    result: Result
    reason: str = ""
    size: int = 0
    wire_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PrinterSetup:
    """Where a printer is and how it is spoken to; from settings."""

    name: str
    line: LineSettings
    profile: str = "default"
    paper_mm: int = 80
    columns: int = 42
    cut: bool = True
    confirm: Confirm = "status"
    drawer_pin: Literal[2, 5] | None = None


class ReceiptPrinter:
    """Keeps the line open between slips, so that the printer can be watched while it is idle."""

    def __init__(
        self,
        setup: PrinterSetup,
        clock: Clock | None = None,
    ) -> None:
        self.setup = setup
        self.tap = Tap(clock.now if clock else None)
        self.status = PrinterStatus()
        # Told from the printer's thread why a slip that has begun does not go on, None when it does.
        self.holds: Callable[[str | None], None] = lambda reason: None
        self._channel = Channel(setup.line, self.tap)
        self._stop = threading.Event()
        self._number = 0

    @property
    def columns(self) -> int:
        return self.setup.columns

    @property
    def paper_mm(self) -> int:
        return self.setup.paper_mm

    def wire_s(self, size: int) -> float:
        """How long so many bytes take on a serial line; 0 where the line has no such speed."""
        port = self.setup.line.port
        if is_network(port) or is_printer_class(port):
            return 0.0
        return size * BITS_PER_BYTE / self.setup.line.baud

    def exclude(self, ports: tuple[str, ...]) -> None:
        """Ports that are never opened, whatever name leads to them."""
        self._channel.excluded = ports

    def close(self) -> None:
        """From any thread: whatever waits, ends soon."""
        self._stop.set()

    def release(self) -> None:
        """Give the line back. In the printer's thread."""
        self._channel.close()

    # --- asked while idle ---------------------------------------------------------------------------

    def look(self) -> str | None:
        """How it is: None when it would print, otherwise why not. Sends no slip's byte."""
        if self.setup.confirm == "none":
            # A printer that cannot speak is taken to be well as long as its line can be opened.
            return self._opened() or self._gone()
        problem = self._opened()
        if problem is not None:
            return problem
        try:
            status = self._ask(REAL_TIME)
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)
        if status is None:
            # Opened anew next time: an adapter that was put back on another port is found then.
            self._channel.close()
            return "the printer gives no answer: is it switched on and connected?"
        self.status = status
        return status.stops

    def _gone(self) -> str | None:
        """Why the line of a printer that never answers is gone, so that the next look opens it anew;
        else the first slip after an unplug would be sent into nothing."""
        try:
            while self._channel.read_some(0):
                pass
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)
        return None

    def _opened(self) -> str | None:
        if self._channel.is_open:
            return None
        try:
            self._channel.open()
        except ChannelLost as lost:
            return str(lost)
        return None

    def _ask(self, which: tuple[int, ...]) -> PrinterStatus | None:
        """The real-time status; None when the printer says nothing. One question at a time, because
        the answers do not say what they answer."""
        status = PrinterStatus()
        while self._channel.read_some(0):
            pass  # late answers of before
        for number in which:
            self._push(DLE_EOT + bytes([number]))
            answer = self._await(printer_status.is_real_time, REAL_TIME_S)
            if answer is None:
                return None
            status = printer_status.real_time(status, number, answer)
        return status

    def _push(self, data: bytes) -> None:
        left = data
        for _ in range(int(REAL_TIME_S / LOOK_S)):
            left = left[self._channel.write_some(left, LOOK_S) :]
            if not left:
                return

    def _await(self, fits: Callable[[int], bool], within_s: float) -> int | None:
        for _ in range(max(1, int(within_s / LOOK_S))):
            for byte in self._channel.read_some(LOOK_S):
                if fits(byte):
                    return byte
            if self._stop.is_set():
                return None
        return None

    # --- the drawer ------------------------------------------------------------------------------------

    def kick(self) -> str | None:
        """Open the cash drawer now; None, or why it could not. Never queued: a drawer that opens an
        hour later is worse than one that does not."""
        pulse = self.pulse
        if pulse is None:
            return "no drawer is set up at this printer"
        problem = self.look()
        # Paper and cover do not matter to the drawer's plug, but an offline printer queues the pulse.
        if problem is not None:
            return problem
        try:
            self._push(pulse)
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)
        return None

    @property
    def pulse(self) -> bytes | None:
        return {None: None, 2: PULSE_PIN_2, 5: PULSE_PIN_5}[self.setup.drawer_pin]

    # --- a slip --------------------------------------------------------------------------------------

    def print_slip(self, document: Document) -> Outcome:
        """Encode, look, send, wait for the confirmation. Never raises for the wire's faults."""
        from gateway.devices import escpos

        setup = self.setup
        data = escpos.encode(
            document, profile=setup.profile, cut=setup.cut, pulse=self.pulse or b""
        )
        self._number += 1
        if setup.confirm == "process-id":
            data += printer_status.process_id_request(self._number)
        elif setup.confirm == "status":
            data += printer_status.GS_R_PAPER
        size, wire_s = len(data), self.wire_s(len(data))
        problem = self.look()
        if problem is not None:
            return Outcome(Result.NOT_SENT, problem, size, wire_s)
        try:
            reason = self._send(data) or self._confirmed(wire_s)
        except ChannelLost as lost:
            self._channel.close()
            reason = f"the line broke while printing: {lost}"
        finally:
            self.holds(None)
        result = Result.PRINTED if reason is None else Result.UNCONFIRMED
        return Outcome(result, reason or "", size, wire_s)

    def _send(self, data: bytes) -> str | None:
        """Put it all on the line, for as long as the printer takes; None, or why not all went."""
        left = memoryview(data)
        held = 0
        while left:
            count = self._channel.write_some(bytes(left[:256]), LOOK_S)
            left = left[count:]
            held = 0 if count else held + 1
            if self._stop.is_set():
                return "the gateway stopped while it was printing"
            if held == int(2 / LOOK_S):
                # Its buffer is full and it says so by flow control; no question gets through now.
                self.holds("the printer holds its line: paper, cover, or switched off?")
            elif count:
                self.holds(None)
        return None

    def _confirmed(self, wire_s: float) -> str | None:
        """None when the printer has worked off the slip; waits on while it says what it lacks."""
        if self.setup.confirm == "none":
            return "this printer cannot confirm"
        heard = bytearray()
        patience_s = wire_s + CONFIRM_S
        asked_s = 0.0
        silent = 0
        while patience_s > 0:
            heard += self._channel.read_some(LOOK_S)
            if self._is_confirmation(heard):
                return None
            if self._stop.is_set():
                return "the gateway stopped while it was printing"
            asked_s += LOOK_S
            patience_s -= LOOK_S
            if asked_s < ASK_S:
                continue
            asked_s = 0.0
            status = self._ask_meanwhile(heard)
            if self._is_confirmation(heard):
                return None
            if status is None:
                # A power cut looks like this: what was in its buffer is gone.
                silent += 1
                if silent >= 3 and patience_s < CONFIRM_S:
                    return "the printer fell silent while printing"
                continue
            silent = 0
            self.status = status
            self.holds(status.stops)
            if status.stops is not None:
                # It will go on by itself when the paper is in; that is no silence.
                patience_s = max(patience_s, CONFIRM_S)
        return "the printer did not confirm"

    def _ask_meanwhile(self, heard: bytearray) -> PrinterStatus | None:
        """The status beside an awaited confirmation, which must not be lost between the answers."""
        status = PrinterStatus()
        for number in REAL_TIME:
            self._push(DLE_EOT + bytes([number]))
            answer = None
            for _ in range(int(REAL_TIME_S / LOOK_S)):
                for byte in self._channel.read_some(LOOK_S):
                    if answer is None and printer_status.is_real_time(byte):
                        answer = byte
                    else:
                        heard.append(byte)
                if answer is not None:
                    break
            if answer is None:
                return None
            status = printer_status.real_time(status, number, answer)
        return status

    def _is_confirmation(self, heard: bytearray) -> bool:
        if self.setup.confirm == "process-id":
            return printer_status.process_id_response(self._number) in heard
        return any(printer_status.is_gs_r(byte) for byte in heard)
