"""One receipt printer: asks how it is, sends a slip, and waits for the printer's own word on it.

Everything here blocks; each printer's worker calls it from a thread of its own. A slip that has not
begun can wait for ever without harm; once its first byte has left, only the printer's confirmation
makes it "printed", and its silence makes it "unconfirmed".

A slip carries questions between its lines (GS r or GS ( H, every few hundred bytes), which the printer
answers as it gets there. All must be answered: a printer whose plug was bumped has lost some of them
with the lines around them, and would otherwise confirm half a slip. What is not answered is also not
outrun: no more is on its way than the smallest buffer holds (`pace.py`).

Many printers answer no such question, some answer none at all. That is found out when the line is opened
(`abilities.py`), and their slips end as "sent": all bytes have left, and nothing spoke against it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from gateway.devices import printer_status
from gateway.devices.channel import ChannelLost
from gateway.devices.pace import Piece, Reckoning, Window
from gateway.devices.printer_asked import (
    CONFIRM_S,
    REAL_TIME_S,
    STOPPED,
    AskedPrinter,
    Confirm,
    PrinterSetup,
)
from gateway.devices.printer_status import GS_R_PAPER, ID_MAX
from gateway.devices.printer_talk import LOOK_S, QUIET_S
from gateway.printing.document import Document

if TYPE_CHECKING:
    from gateway.devices.escpos import Manner

__all__ = ["Confirm", "Outcome", "PrinterSetup", "ReceiptPrinter", "Result"]

log = logging.getLogger(__name__)

# How often a printer that has not confirmed is asked how it is, if it answers at once. Seconds.
ASK_S = 1.0
# A line that takes nothing for so long is held by the printer. Seconds.
HELD_S = 2.0
# What a slip that is coming out gets to end when the gateway stops, in seconds: an ordinary one at
# 9600 baud takes three.
STOP_S = 4.5
# A port that the pulse has shaken off the bus is gone within this time. Seconds.
SHAKEN_S = 0.2
# How long a printer that does not confirm is left to its paper before it is asked how it is. Seconds.
AFTER_MAX_S = 3.0
PIECE_BYTES = 256
# The pause after a pulse, in units of 2 ms, as the command reference proposes for a drawer's coil.
PULSE_OFF = 0xFA
HELD = "the printer holds its line: paper, cover, or switched off?"
SILENT = "the printer fell silent while printing"
NOT_CONFIRMED = "the printer did not confirm"
RAN_OUT = "the printer stopped in the slip or right after it"


class Result(Enum):
    PRINTED = "PRINTED"  # the printer has confirmed everything up to the slip's last byte
    SENT = "SENT"  # all bytes have left to a printer that cannot confirm, and it said nothing against it
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


class ReceiptPrinter(AskedPrinter):
    """Prints slips and opens the drawer. All of it belongs to the printer's thread, except what `AskedPrinter`
    says of `close` and the attributes."""

    # --- the drawer ------------------------------------------------------------------------------------

    def kick(self) -> str | None:
        """Open the cash drawer now; None, or why it could not. Never queued: a drawer that opens an
        hour later is worse than one that does not."""
        pulse = self.pulse
        if pulse is None:
            return "no drawer is set up at this printer"
        # Paper and cover do not matter to the drawer's plug, but an offline printer queues the pulse.
        try:
            if (
                not (self.is_fresh and self.is_online() is not False)
                and (problem := self.look()) is not None
            ):
                return problem
            return None if self._talk.push(pulse) else HELD
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)

    def shaken(self) -> str | None:
        """After a pulse: why the port is not there any more; None where it has taken the pulse well. The coil
        can throw a cheap adapter off the bus, and a slip must not be under way then."""
        try:
            self._talk.settle(SHAKEN_S)
            return None
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)

    @property
    def pulse(self) -> bytes | None:
        if self.setup.drawer_pin is None:
            return None
        on = min(255, max(1, self.setup.pulse_ms // 2))
        return b"\x1bp" + bytes([0 if self.setup.drawer_pin == 2 else 1, on, PULSE_OFF])

    # --- a slip --------------------------------------------------------------------------------------

    @property
    def confirms(self) -> bool:
        """Whether each slip is confirmed by the printer's own answers."""
        if self.setup.confirm == "auto":
            return bool(self.found and self.found.answers and self.found.confirms)
        return self.setup.confirm != "none"

    @property
    def manner(self) -> Manner:
        """How a slip is made for it. The native QR only where it is known that the printer has it: elsewhere
        its bytes come out as text."""
        from gateway.devices.escpos import Manner

        qr = self.setup.qr if self.setup.qr != "auto" else self.corrected.qr
        if qr == "auto" and self.setup.profile == "default":
            model = self.found or self.known
            qr = "native" if model is not None and model.native_qr else "picture"
        return Manner(self.setup.profile, self.setup.cut, self.setup.cut_how, qr)

    def print_slip(self, document: Document) -> Outcome:
        """Encode, send, wait for the confirmation; the caller has looked. Never raises for the wire's
        faults, nor for a document that cannot be encoded."""
        asked: list[int] = []
        try:
            pieces = self._encode(document, asked)
        except Exception as error:  # whatever a library or a picture file has against this slip
            log.exception("slip.unfit printer=%s", self.setup.name)
            return Outcome(Result.UNFIT, f"it cannot be put on this printer's paper: {error}")
        size = sum(len(piece.data) for piece in pieces)
        wire_s = self.wire_s(size)
        problem = self._opened() or self._padded()
        if problem is not None:
            return Outcome(Result.NOT_SENT, problem, size, wire_s)
        self._talk.heard.papers = 0
        self._talk.heard.ids.clear()
        reckoned = Reckoning(self.setup.speed_mm_s, size / wire_s if wire_s else 0.0)
        try:
            reason = self._send(pieces, asked, reckoned)
            if reason is None:
                reason = (
                    self._confirmed(asked, wire_s)
                    if asked
                    else self._stands(min(AFTER_MAX_S, reckoned.rest_s(self._now_s())))
                )
        except ChannelLost as lost:
            self._channel.close()
            reason = f"the line broke while printing: {lost}"
        finally:
            self.holds(None)
        if reason is None:
            self._owed = 0
            # One that does not confirm may have lost bytes of a picture, and wait for them.
            self._torn = not asked
            return Outcome(Result.PRINTED if asked else Result.SENT, "", size, wire_s)
        self._in_step, self._torn = False, True
        self._owed = max(0, self._owed + len(asked) - self._talk.heard.papers)
        return Outcome(Result.UNCONFIRMED, reason, size, wire_s)

    def _padded(self) -> str | None:
        try:
            return None if self._pad() else HELD
        except ChannelLost as lost:
            self._channel.close()
            return str(lost)

    def _encode(self, document: Document, asked: list[int]) -> list[Piece]:
        """The slip with its questions; `asked` gets their numbers."""
        from gateway.devices import escpos

        def mark() -> bytes:
            self._number = (self._number + 1) & ID_MAX
            asked.append(self._number)
            if self.setup.confirm == "process-id":
                return printer_status.process_id_request(self._number)
            return GS_R_PAPER

        speaks = self.confirms
        pieces = escpos.pieces(document, self.manner, mark if speaks else None)
        if speaks:
            # Twice at the end: one stray byte that looks like an answer must not confirm a slip.
            for _ in range(1 if self.setup.confirm == "process-id" else 2):
                pieces.append(Piece(mark(), asks=True))
        return pieces

    def _send(self, pieces: list[Piece], asked: list[int], reckoned: Reckoning) -> str | None:
        """Put it all on the line, for as long as the printer takes; None, or why not all went."""
        window = Window()
        answers = bool(asked)
        for piece in pieces:
            if self._loses:
                window.answered(self._done(asked))
                if answers and window.full(len(piece.data), self.setup.buffer_bytes):
                    answers, reason = self._let_work(window, piece, asked)
                    if reason is not None:
                        return reason
                if not answers and (reason := self._let_pass(piece, reckoned)) is not None:
                    return reason
            reason = self._put(piece.data)
            if reason is not None:
                return reason
            window.sent(piece)
            reckoned.sent(piece, self._now_s())
        return self._put(b"")

    def _let_work(self, window: Window, piece: Piece, asked: list[int]) -> tuple[bool, str | None]:
        """Wait until there is room for `piece` by the printer's answers; whether it still answers, and why the
        slip ends here. One that says that it is well and skips an answer is paced by reckoning from here on."""

        def room() -> bool:
            window.answered(self._done(asked))
            return not window.full(len(piece.data), self.setup.buffer_bytes)

        reason = self._until(room, CONFIRM_S, lambda: self._done(asked))
        return reason is None, None if reason == NOT_CONFIRMED else reason

    def _let_pass(self, piece: Piece, reckoned: Reckoning) -> str | None:
        """Wait until there is room by what the printer's paper must have moved, and while it says that it is
        offline: what is sent then only fills its buffer. Return why the slip ends here."""
        size, room = len(piece.data), self.setup.buffer_bytes
        while not self._stop.is_set():
            wait_s = reckoned.wait_s(size, room, self._now_s())
            if wait_s > 0:
                self._talk.hear(min(LOOK_S, wait_s))
                continue
            online = self._goes_on()
            if online is None:
                return SILENT
            if online:
                break
        return None

    def _goes_on(self) -> bool | None:
        """Between two pieces: whether a printer that answers at once is online; None where it fell silent, as in a
        power cut, which takes what is in its buffer."""
        found = self.found
        asks = found is not None and 1 in found.questions and found.habit == "pairs"
        if found is None or not asks or found.answer_s > REAL_TIME_S:
            return True
        online = self.is_online()
        if online:
            self.holds(None)
            return True
        status = self._ask()
        if status is None:
            return None
        self.status = status
        self.holds(status.stops)
        if status.stops is not None:
            self._talk.settle(ASK_S)
        return status.stops is None

    def _put(self, data: bytes) -> str | None:
        """Give the line these bytes; with none, wait until the driver has put everything on it."""
        left = memoryview(data)
        held, ending = 0, 0
        before = -1
        while left or (not data and (before := self._channel.pending())):
            moved = self._channel.write_some(bytes(left[:PIECE_BYTES]), LOOK_S) if left else 0
            left = left[moved:]
            if not moved:
                # No space, or all of it is in the adapter's driver; a read is the pause.
                self._talk.hear(0 if left else LOOK_S)
                moved = int(not left and self._channel.pending() != before)
            held = 0 if moved else held + 1
            if self._stop.is_set():
                ending += 1
                if held * LOOK_S > QUIET_S or ending * LOOK_S > STOP_S:
                    return STOPPED
            if held == round(HELD_S / LOOK_S):
                # Its buffer is full and it says so by flow control; no question gets through now.
                told = self._talk.heard.told
                self.holds((told.stops if told else None) or HELD)
            elif moved:
                self.holds(None)
        return None

    def _stands(self, wait_s: float) -> str | None:
        """After the last byte to a printer that does not confirm: None where nothing speaks against it."""
        found = self.found
        if found is None or not found.answers or self.setup.confirm == "none":
            return None
        end_s = self._now_s() + wait_s
        while not self._stop.is_set() and (rest_s := end_s - self._now_s()) > 0:
            self._talk.hear(min(LOOK_S, rest_s))
        status = self._ask()
        if status is None:
            return SILENT
        self.status = status
        return None if status.stops is None else f"{RAN_OUT}: {status.stops}"

    def _confirmed(self, asked: list[int], wire_s: float) -> str | None:
        """None when the printer has worked off the slip; waits on while it says what it lacks."""

        def done() -> int:
            return self._done(asked)

        return self._until(lambda: done() >= len(asked), wire_s + CONFIRM_S, done)

    def _until(
        self, fits: Callable[[], bool], patience_s: float, progress: Callable[[], int]
    ) -> str | None:
        """Wait until the printer has answered enough; None, or why it does not. Waits on while it says what it
        lacks, and while `progress` grows."""
        since_asked_s = 0.0
        silent = ending = 0
        done = progress()
        while not fits():
            if patience_s <= 0:
                return SILENT if silent else NOT_CONFIRMED
            if not self._talk.hear(LOOK_S):
                since_asked_s += LOOK_S
                patience_s -= LOOK_S
            elif progress() > done:
                # It gets on: slow, not silent. A question would only queue behind the slip.
                done = progress()
                since_asked_s = 0.0
                patience_s = max(patience_s, CONFIRM_S)
            if self._stop.is_set():
                ending += 1
                if self.status.stops is not None or ending * LOOK_S > STOP_S:
                    return STOPPED
                continue
            if since_asked_s < max(ASK_S, self.found.answer_s if self.found else 0.0):
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
            return len(self._talk.heard.ids.intersection(asked))
        return self._talk.heard.papers - self._owed
