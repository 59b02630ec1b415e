"""One receipt printer: asks how it is, sends a slip, and waits for the printer's own word on it.

Everything here blocks; each printer's worker calls it from a thread of its own. A slip that has not
begun can wait for ever without harm; once its first byte has left, only the printer's confirmation
makes it "printed", and its silence makes it "unconfirmed".

A slip carries questions between its lines (GS r or GS ( H, every few hundred bytes), which the printer
answers as it gets there. All must be answered: a printer whose plug was bumped has lost some of them
with the lines around them, and would otherwise confirm half a slip.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
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
from gateway.devices.printer_status import (
    DLE_EOT,
    GS_R_PAPER,
    ID_MAX,
    REAL_TIME,
    Listener,
    PrinterStatus,
)
from gateway.printing.document import Document

log = logging.getLogger(__name__)

# Bits on the wire per byte: start, eight data, stop.
BITS_PER_BYTE = 10
# How long a printer may take for a real-time answer, which it gives at once, in seconds.
REAL_TIME_S = 0.5
# Beyond the time on the wire, how long a printer that says it is well may take to get on. Seconds.
CONFIRM_S = 8.0
# How often a printer that has not confirmed is asked how it is, in seconds.
ASK_S = 1.0
# One wait on the line, in seconds.
LOOK_S = 0.1
# So long a silence means that nothing of before is still on its way. Seconds.
QUIET_S = 0.3
# A line that takes nothing for so long is held by the printer. Seconds.
HELD_S = 2.0
# What a slip that is coming out gets to end when the gateway stops, in seconds: an ordinary one at
# 9600 baud takes three.
STOP_S = 4.5
# So many reads with something in them in one wait are no answer any more; it is another device.
FLOOD_READS = 500
PIECE_BYTES = 256
PULSE_PIN_2 = b"\x1bp\x00\x19\xfa"
PULSE_PIN_5 = b"\x1bp\x01\x19\xfa"
HELD = "the printer holds its line: paper, cover, or switched off?"
SILENT = "the printer fell silent while printing"
STOPPED = "the gateway stopped while it was printing"

Confirm = Literal["status", "process-id", "none"]


class Result(Enum):
    PRINTED = "PRINTED"  # the printer has confirmed everything up to the slip's last byte
    UNCONFIRMED = "UNCONFIRMED"  # begun, not confirmed: it may be out, in part, or not
    NOT_SENT = "NOT_SENT"  # not one byte of the slip has left
    UNFIT = "UNFIT"  # it cannot be put into this printer's bytes; trying again would not help


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
    """Keeps the line open between slips, so that the printer can be watched while it is idle.

    All of it belongs to the printer's thread, except `close` and the attributes."""

    def __init__(self, setup: PrinterSetup, clock: Clock | None = None) -> None:
        self.setup = setup
        self.tap = Tap(clock.now if clock else None)
        self.status = PrinterStatus()
        # Told from the printer's thread why a slip that has begun does not go on, None when it does.
        self.holds: Callable[[str | None], None] = lambda reason: None
        self._channel = Channel(setup.line, self.tap)
        self._stop = threading.Event()
        self._heard = Listener()
        # Whether a real-time question has gone unanswered: its answer may still come.
        self._unanswered = False
        # Whether answers to GS r may still come for what was sent before; and how many at most.
        self._in_step = False
        self._owed = 0
        # Not from 0: the answers of before a restart must not fit.
        self._number = secrets.randbelow(ID_MAX)

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
        """From any thread: whatever waits, ends soon; a slip that is coming out may end."""
        self._stop.set()

    def reopen(self) -> None:
        """After `close`: it may be used again."""
        self._stop.clear()

    def release(self) -> None:
        """Give the line back. In the printer's thread."""
        self._channel.discard()
        self._channel.close()

    # --- asked while idle ---------------------------------------------------------------------------

    def look(self) -> str | None:
        """How it is: None when it would print, otherwise why not. Sends no slip's byte."""
        problem = self._opened()
        if problem is not None:
            return problem
        if self.setup.confirm == "none":
            # A printer that cannot speak is taken to be well as long as its line is there.
            return self._gone()
        try:
            status = self._ask()
            if status is None:
                # Opened anew next time: an adapter that was put back on another port is found then.
                self._channel.close()
                return "the printer gives no answer: is it switched on and connected?"
            self.status = status
            if status.stops is None and not self._in_step:
                self._get_in_step()
                # Loaded while nothing waits for it, and after the gateway can sell.
                from gateway.devices import escpos  # noqa: F401
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)
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
        self._heard, self._unanswered, self._in_step = Listener(), False, False
        return None

    def _get_in_step(self) -> None:
        """Have the printer work off what it was sent before, so that no late answer to that can
        confirm the next slip. What stays unanswered is remembered, and then waited for as well."""
        if self.setup.confirm == "process-id":
            self._in_step = True  # its answers say what they answer
            return
        self._heard.papers = 0
        if not self._push(GS_R_PAPER):
            return
        self._in_step = True
        for _ in self._listen(CONFIRM_S):
            if self._heard.papers:
                break
        if self._heard.papers:
            for _ in self._listen(QUIET_S):
                pass
            self._owed = 0
        else:
            self._owed += 1

    def _ask(self) -> PrinterStatus | None:
        """The real-time status; None when the printer says nothing. One question at a time, because
        the answers do not say what they answer."""
        status = PrinterStatus()
        if self._unanswered:
            for _ in self._listen(QUIET_S):
                pass
        self._hear(0)
        for number in REAL_TIME:
            self._heard.real_time.clear()
            if not self._push(DLE_EOT + bytes([number])):
                return None
            answer = self._answer()
            if answer is None:
                self._unanswered = True
                return None
            if self._unanswered:
                # The first answers belong to the questions before; the last one is to this.
                for _ in self._listen(QUIET_S):
                    answer = self._heard.real_time.pop() if self._heard.real_time else answer
                self._unanswered = False
            status = printer_status.real_time(status, number, answer)
        return status

    def _answer(self) -> int | None:
        for _ in self._listen(REAL_TIME_S):
            if self._heard.real_time:
                return self._heard.real_time.popleft()
        return None

    def _push(self, data: bytes) -> bool:
        """A few bytes now; False if the printer does not take them."""
        left = data
        for _ in range(int(REAL_TIME_S / LOOK_S)):
            left = left[self._channel.write_some(left, LOOK_S) :]
            if not left:
                return True
        return False

    def _hear(self, wait_s: float) -> bool:
        data = self._channel.read_some(wait_s)
        self._heard.feed(data)
        return bool(data)

    def _listen(self, silence_s: float) -> Iterator[None]:
        """One turn for every read; ends after so long a silence, a flood, or when all ends."""
        left = round(silence_s / LOOK_S)
        for _ in range(FLOOD_READS):
            if not self._hear(LOOK_S):
                left -= 1
            yield
            if left <= 0 or self._stop.is_set():
                return

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
            return None if self._push(pulse) else HELD
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)

    @property
    def pulse(self) -> bytes | None:
        return {None: None, 2: PULSE_PIN_2, 5: PULSE_PIN_5}[self.setup.drawer_pin]

    # --- a slip --------------------------------------------------------------------------------------

    def print_slip(self, document: Document) -> Outcome:
        """Encode, send, wait for the confirmation; the caller has looked. Never raises for the wire's
        faults, nor for a document that cannot be encoded."""
        asked: list[int] = []
        try:
            data = self._encode(document, asked)
        except Exception as error:  # whatever a library or a picture file has against this slip
            log.exception("slip.unfit printer=%s", self.setup.name)
            return Outcome(Result.UNFIT, f"it cannot be put on this printer's paper: {error}")
        size, wire_s = len(data), self.wire_s(len(data))
        problem = self._opened()
        if problem is not None:
            return Outcome(Result.NOT_SENT, problem, size, wire_s)
        self._heard.papers = 0
        self._heard.ids.clear()
        try:
            reason = self._send(data) or self._confirmed(asked, wire_s)
        except ChannelLost as lost:
            self._channel.close()
            reason = f"the line broke while printing: {lost}"
        finally:
            self.holds(None)
        if reason is None:
            self._owed = 0
            return Outcome(Result.PRINTED, "", size, wire_s)
        self._in_step = False
        self._owed = max(0, self._owed + len(asked) - self._heard.papers)
        return Outcome(Result.UNCONFIRMED, reason, size, wire_s)

    def _encode(self, document: Document, asked: list[int]) -> bytes:
        """The slip with its questions; `asked` gets their numbers."""
        from gateway.devices import escpos

        def mark() -> bytes:
            self._number = (self._number + 1) & ID_MAX
            asked.append(self._number)
            if self.setup.confirm == "process-id":
                return printer_status.process_id_request(self._number)
            return GS_R_PAPER

        part, speaks = self.setup, self.setup.confirm != "none"
        data = escpos.encode(
            document,
            profile=part.profile,
            cut=part.cut,
            pulse=self.pulse or b"",
            mark=mark if speaks else None,
        )
        if speaks:
            data += mark()
        if self.setup.confirm == "status":
            # Twice at the end: one stray byte that looks like an answer must not confirm a slip.
            data += mark()
        return data

    def _send(self, data: bytes) -> str | None:
        """Put it all on the line, for as long as the printer takes; None, or why not all went."""
        left = memoryview(data)
        held, ending = 0, 0
        before = -1
        while left or (before := self._channel.pending()):
            moved = self._channel.write_some(bytes(left[:PIECE_BYTES]), LOOK_S) if left else 0
            left = left[moved:]
            if not moved:
                # No space, or all of it is in the adapter's driver; a read is the pause.
                self._hear(0 if left else LOOK_S)
                moved = int(not left and self._channel.pending() != before)
            held = 0 if moved else held + 1
            if self._stop.is_set():
                ending += 1
                if held * LOOK_S > QUIET_S or ending * LOOK_S > STOP_S:
                    return STOPPED
            if held == round(HELD_S / LOOK_S):
                # Its buffer is full and it says so by flow control; no question gets through now.
                told = self._heard.told
                self.holds((told.stops if told else None) or HELD)
            elif moved:
                self.holds(None)
        return None

    def _confirmed(self, asked: list[int], wire_s: float) -> str | None:
        """None when the printer has worked off the slip; waits on while it says what it lacks."""
        if self.setup.confirm == "none":
            return "this printer cannot confirm"
        patience_s, since_asked_s = wire_s + CONFIRM_S, 0.0
        silent = ending = done = 0
        while self._done(asked) < len(asked):
            if patience_s <= 0:
                return SILENT if silent else "the printer did not confirm"
            if not self._hear(LOOK_S):
                since_asked_s += LOOK_S
                patience_s -= LOOK_S
            elif self._done(asked) > done:
                # It gets on: slow, not silent. A question would only queue behind the slip.
                done = self._done(asked)
                since_asked_s = 0.0
                patience_s = max(patience_s, CONFIRM_S)
            if self._stop.is_set():
                ending += 1
                if self.status.stops is not None or ending * LOOK_S > STOP_S:
                    return STOPPED
                continue
            if since_asked_s < ASK_S:
                continue
            since_asked_s = 0.0
            status = self._ask()
            if status is None:
                # A power cut looks like this: what was in its buffer is gone.
                silent += 1
                patience_s -= REAL_TIME_S
                if silent >= 3 and patience_s < CONFIRM_S:
                    return SILENT
                continue
            silent = 0
            self.status = status
            self.holds(status.stops)
            if status.stops is not None:
                # It will go on by itself when the paper is in; that is no silence.
                patience_s = max(patience_s, CONFIRM_S)
        return None

    def _done(self, asked: list[int]) -> int:
        """How many of the slip's questions have been answered."""
        if self.setup.confirm == "process-id":
            return len(self._heard.ids.intersection(asked))
        return self._heard.papers - self._owed
