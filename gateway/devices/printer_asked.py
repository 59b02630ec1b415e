"""How a printer is: opens its line, finds out what it answers, and asks it. Blocking, in the printer's thread."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gateway.clock import Clock
from gateway.devices import printer_status
from gateway.devices.abilities import Abilities, find_out
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
    PrinterStatus,
)
from gateway.devices.printer_talk import LOOK_S, QUIET_S, Talk
from gateway.printing.document import QrHow

if TYPE_CHECKING:
    from gateway.devices.escpos import CutHow

# Bits on the wire per byte: start, eight data, stop.
BITS_PER_BYTE = 10
# How long a printer may take for a real-time answer, where nothing else was found out, in seconds.
REAL_TIME_S = 0.5
# Beyond the time on the wire, how long a printer that says it is well may take to get on. Seconds.
CONFIRM_S = 8.0
# A printer that was well so long ago is taken to be well for the drawer's pulse. Seconds.
FRESH_S = 6.0
# How long the drawer waits for the printer's word that it is online. Seconds.
ONLINE_S = 0.2
# How long a line may take for the bytes that end an open command. Seconds.
PAD_S = 5.0
# A printer is taken for one that answers nothing when it was silent so many times.
SILENCES = 2
STOPPED = "the gateway stopped while it was printing"
NO_ANSWER = "the printer gives no answer: is it switched on and connected?"
FELL_SILENT = (
    "the printer gives no answer, and it answered before: is it switched on and connected? If another printer is "
    "on this port now, say so on the page /counter"
)

Confirm = Literal["auto", "status", "process-id", "none"]


@dataclass(frozen=True, slots=True)
class PrinterSetup:
    """Where a printer is and how it is spoken to; from settings. `buffer_bytes` and `speed_mm_s`: what the
    smallest and slowest printers have, for lines without flow control."""

    name: str
    line: LineSettings
    profile: str = "default"
    paper_mm: int = 80
    columns: int = 42
    cut: bool = True
    cut_how: CutHow = "profile"
    qr: QrHow = "auto"
    confirm: Confirm = "auto"
    drawer_pin: Literal[2, 5] | None = None
    pulse_ms: int = 50
    buffer_bytes: int = 1024
    speed_mm_s: float = 50.0


@dataclass(frozen=True, slots=True)
class Corrections:
    """`qr`: which of the two QRs of the test print came out. `mute`: it answers nothing and prints none the less."""

    qr: QrHow = "auto"
    mute: bool = False


class AskedPrinter:
    """Keeps the line open between slips, so that the printer can be watched while it is idle.

    All of it belongs to the printer's thread, except `close` and the attributes. `known` is what the printer on
    this port was found to answer earlier; None where nothing is known. `learned` is called from the printer's
    thread when something was found out."""

    def __init__(self, setup: PrinterSetup, clock: Clock | None = None) -> None:
        self.setup = setup
        self.tap = Tap(clock.now if clock else None)
        self.status = PrinterStatus()
        # Told from the printer's thread why a slip that has begun does not go on, None when it does.
        self.holds: Callable[[str | None], None] = lambda reason: None
        self.learned: Callable[[Abilities], None] = lambda found: None
        # Told when a printer that was taken for one that cannot answer does answer.
        self.woke: Callable[[], None] = lambda: None
        self.known: Abilities | None = None
        # The corrections that a person made on its page; they count where the settings leave it open.
        self.corrected = Corrections()
        # Its answers, found out since the line was opened.
        self.found: Abilities | None = None
        self._channel = Channel(setup.line, self.tap)
        self._stop = threading.Event()
        self._talk = Talk(self._channel, self._stop)
        self._clock = clock
        # Whether a real-time question has gone unanswered: its answer may still come.
        self._unanswered = False
        # Whether answers to GS r may still come for what was sent before; and how many at most.
        self._in_step = False
        self._owed = 0
        # Whether the printer may wait for the rest of a command: at the first contact, and after a broken slip.
        self._torn = True
        self._well_at_s: float | None = None
        # The number of times it was silent at the first contact.
        self._silences = 0
        # Not from 0: the answers of before a restart must not fit.
        self._number = secrets.randbelow(ID_MAX)

    def _now_s(self) -> float:
        """Return seconds of a clock that nobody sets."""
        return self._clock.boottime_ns() / 1e9 if self._clock else time.perf_counter()

    def wire_s(self, size: int) -> float:
        """How long so many bytes take on a serial line; 0 where the line has no such speed."""
        if self._pushes_back:
            return 0.0
        return size * BITS_PER_BYTE / self.setup.line.baud

    @property
    def _pushes_back(self) -> bool:
        port = self.setup.line.port
        return is_network(port) or is_printer_class(port)

    @property
    def _loses(self) -> bool:
        """Whether the line delivers what the printer has no room for."""
        return self.setup.line.flow == "none" and not self._pushes_back

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

    def forget(self) -> None:
        """Another printer is on this port now: find out again what it answers. In the printer's thread."""
        self.known = self.found = None
        self.corrected = Corrections()
        self._silences = 0
        self._channel.close()

    # --- asked while idle ---------------------------------------------------------------------------

    def look(self) -> str | None:
        """How it is: None when it would print, otherwise why not. Sends no slip's byte."""
        problem = self._opened()
        if problem is None:
            try:
                problem = self._looked()
            except ChannelLost as lost:
                self._channel.close()
                problem = str(lost)
        self._well_at_s = self._now_s() if problem is None else None
        return problem

    def _looked(self) -> str | None:
        if self.setup.confirm == "none":
            # A printer that cannot speak is taken to be well as long as its line is there.
            return self._gone()
        if self.found is None:
            problem = self._find_out()
            if problem is not None or self.found is None:
                return problem or STOPPED
        if not self.found.answers:
            problem = self._gone()
            if problem is None:
                self._listen_for_life()
            return problem
        status = self._ask()
        if status is None:
            # Opened again next time: an adapter that was put back on another port is found then.
            self._channel.close()
            return NO_ANSWER
        self.status = status
        if self.found.confirms is False and self._talk.heard.papers:
            # It seems to answer GS r after all.
            self.found, self._in_step = replace(self.found, confirms=None), False
        if status.stops is None and not self._in_step:
            self._get_in_step()
        return status.stops

    def _find_out(self) -> str | None:
        """Find out what it answers; return why it cannot be used, None where it can or the gateway stops."""
        found = find_out(self._talk)
        if found is None:
            return None
        if isinstance(found, str):
            self._channel.close()
            return found
        problem = None if found.answers else self._silent()
        if problem is not None:
            # Opened again next time: an adapter that was put back on another port is found then.
            self._channel.close()
            return problem
        knows = self.known is not None and bool(self.known.confirms)
        if found.answers and (self.setup.confirm != "auto" or knows):
            found = replace(found, confirms=True)
        self.found = found
        if not found.answers:
            self.learned(found)
        return None

    def _silent(self) -> str | None:
        """Why a printer that gave no answer is not printed on; None where it is one that cannot answer."""
        if self.setup.confirm != "auto":
            return NO_ANSWER
        if self.corrected.mute:
            return None
        if self.known is not None:
            return FELL_SILENT if self.known.answers else None
        self._silences += 1
        return NO_ANSWER if self._silences < SILENCES else None

    def _listen_for_life(self) -> None:
        """A printer that was taken for one without answers may have been switched off: ask it in passing."""
        if self._talk.heard.real_time:
            self.found = None
            self.woke()
            return
        self._talk.heard.papers = 0
        self._talk.push(DLE_EOT + b"\x01")

    def _gone(self) -> str | None:
        """Why the line of a printer that never answers is gone, so that the next look opens it anew;
        else the first slip after an unplug would be sent into nothing."""
        try:
            while self._talk.hear(0):
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
        self._talk.renew()
        self.found, self._unanswered, self._in_step = None, False, False
        self._torn = True
        return None

    def _get_in_step(self) -> None:
        """Have the printer work off what it was sent before, so that no late answer to that can
        confirm the next slip. What stays unanswered is remembered, and then waited for as well."""
        assert self.found is not None
        if self.setup.confirm == "process-id" or self.found.confirms is False:
            # Its answers say what they answer; or it gives none.
            self._in_step = self._pad()
            return
        self._talk.heard.papers = 0
        if not self._pad() or not self._talk.push(GS_R_PAPER):
            return
        self._in_step = True
        for _ in self._talk.listen(CONFIRM_S):
            if self._talk.heard.papers:
                break
        answered = bool(self._talk.heard.papers)
        if answered:
            self._talk.settle()
            self._owed = 0
        else:
            self._owed += 1
        if self.found.confirms is None and not self._stop.is_set():
            self.found = replace(self.found, confirms=answered)
            self.learned(self.found)

    def _pad(self) -> bool:
        """End what may be open in the printer: a picture that was cut off takes the next bytes as its own, and they
        would be the next slip's first lines. NUL prints nothing. Return False if the line does not take it."""
        if not self._torn:
            return True
        from gateway.devices.escpos import longest_command

        left = bytes(longest_command(self.setup.profile))
        for _ in range(round(PAD_S / LOOK_S)):
            left = left[self._channel.write_some(left, LOOK_S) :]
            if not left and not self._channel.pending():
                self._torn = False
                return True
            self._talk.hear(0 if left else LOOK_S)
        return False

    def _ask(self) -> PrinterStatus | None:
        """The real-time status; None when the printer says nothing. One question at a time, because
        the answers do not say what they answer."""
        status = PrinterStatus()
        if self._unanswered:
            self._talk.settle()
        self._talk.hear(0)
        questions = self.found.questions if self.found else REAL_TIME
        for number in questions:
            answer = self._answer_to(number)
            if answer is not None and printer_status.real_time(status, number, answer) != status:
                # Something is the matter, or this belonged to the question before: the second answer is its own.
                answer = self._answer_to(number)
            if answer is None:
                return None
            status = printer_status.real_time(status, number, answer)
        return status

    def _answer_to(self, number: int) -> int | None:
        """Ask once; the last answer that comes, where answers and questions do not pair."""
        heard = self._talk.heard
        habit = self.found.habit if self.found else "pairs"
        for _ in range(2 if habit == "late" else 1):
            heard.real_time.clear()
            if not self._talk.push(DLE_EOT + bytes([number])):
                return None
            answer = self._answer()
            if answer is None:
                self._unanswered = True
                return None
            if self._unanswered or habit != "pairs":
                # The first answers belong to the questions before; the last one is to this.
                for _ in self._talk.listen(QUIET_S):
                    answer = heard.real_time.pop() if heard.real_time else answer
                self._unanswered = False
        return answer

    def _answer(self) -> int | None:
        wait_s = max(REAL_TIME_S, self.found.answer_s if self.found else 0.0)
        for _ in self._talk.listen(wait_s):
            if self._talk.heard.real_time:
                return self._talk.heard.real_time.popleft()
        return None

    def is_online(self) -> bool | None:
        """Whether it says within a moment that it is; None where it does not say. A pulse to one that is not is
        queued, and opens the drawer whenever the cover is closed."""
        if self.found is None or not self.found.answers:
            return None
        heard = self._talk.heard
        self._talk.hear(0)
        heard.real_time.clear()
        if not self._talk.push(DLE_EOT + b"\x01"):
            return False
        for _ in self._talk.listen(ONLINE_S):
            if heard.real_time:
                return not printer_status.real_time(PrinterStatus(), 1, heard.real_time[-1]).offline
        self._unanswered = True
        return None

    @property
    def is_fresh(self) -> bool:
        """Whether it was well a few seconds ago, so that the drawer need not wait for a round of questions."""
        at_s = self._well_at_s
        return self._channel.is_open and at_s is not None and self._now_s() - at_s < FRESH_S
