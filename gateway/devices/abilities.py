"""Finds out what a printer answers, once for each time its line is opened.

Cheap printers answer some questions, all of them late, each one twice, or none. Answers to DLE EOT do not say
what they answer, so a printer whose answers and questions do not pair is asked in a way that makes them pair.
Sources: `DLE EOT`, `GS r` and `GS I` of the ESC/POS command reference; the habits are those of public reports.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from gateway.devices.printer_status import DLE_EOT, Listener
from gateway.devices.printer_talk import LOOK_S, QUIET_S, Talk

# How long a printer may take for the answer to a question that it answers at once: Wi-Fi and bridges take up to
# two seconds, and this machine some time. Seconds.
FIRST_S = 2.5
# How long it may take to say its name, in seconds.
NAME_S = 1.0
GS_I_MODEL = b"\x1dI\x43"
# Models of Epson whose native QR command is documented, by the beginning of what they answer to GS I 67.
NATIVE_QR = ("TM-T20", "TM-T70II", "TM-T82", "TM-T88V", "TM-m", "TM-P", "TM-L90")

# pairs: one answer to each question. twice: two answers to each. late: the answer to the question before.
Habit = Literal["pairs", "twice", "late"]
ECHO = "the port sends back what it is sent: is a printer connected to it?"
NONSENSE = (
    "it answers what no receipt printer answers: is this the printer's port, and at its speed?"
)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a printer answers. `questions`: the numbers n of DLE EOT that it answers, () where none has a meaning.
    `confirms`: whether it answers GS r when it has worked off what came before; None while that is not known.
    `answer_s`: how long an answer may take. `model`: its answer to GS I 67, "" where there was none."""

    questions: tuple[int, ...] = ()
    confirms: bool | None = None
    habit: Habit = "pairs"
    answer_s: float = FIRST_S
    model: str = ""

    @property
    def answers(self) -> bool:
        return bool(self.questions)

    @property
    def native_qr(self) -> bool:
        """Whether its model is known to print the QR command as a QR."""
        return self.model.startswith(NATIVE_QR)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def from_json(value: dict[str, Any]) -> Abilities:
    """Return what `as_json` gave. TypeError, KeyError or ValueError for anything else."""
    return Abilities(
        questions=tuple(int(number) for number in value["questions"]),
        confirms=value["confirms"],
        habit=value["habit"],
        answer_s=float(value["answer_s"]),
        model=str(value["model"]),
    )


@dataclass(frozen=True, slots=True)
class _Reply:
    """What followed one question, and after how long the first byte of it."""

    data: bytes
    after_s: float

    @property
    def answers(self) -> list[int]:
        """The real-time answers in it."""
        listener = Listener()
        listener.feed(self.data)
        return list(listener.real_time)


def find_out(talk: Talk) -> Abilities | str | None:
    """Ask the printer what it answers; return that, or a sentence why this is no printer. None when the gateway
    stops. ChannelLost. A printer that answers nothing has no abilities and is none the less a printer."""
    talk.settle()
    first = _ask(talk, 1, FIRST_S)
    last = _ask(talk, 4, FIRST_S)
    if talk.stop.is_set():
        return None
    if not first.data and not last.data:
        talk.renew()
        return Abilities()
    if first.data[:2] == DLE_EOT or last.data[:2] == DLE_EOT:
        return ECHO
    if not first.answers and not last.answers:
        talk.renew()
        # One that sends zeros is there and says nothing by it.
        return NONSENSE if set(first.data + last.data) - {0} else Abilities()
    found = _what_it_answers(talk, first, last)
    talk.renew()
    return None if talk.stop.is_set() else found


def _what_it_answers(talk: Talk, first: _Reply, last: _Reply) -> Abilities:
    # A printer that lags by one answers this with its own answer, and answered the one before with another.
    again = _ask(talk, 4, FIRST_S)
    late = _differ(last, again) and not _differ(again, _ask(talk, 4, FIRST_S))
    replies = {1: first, 4: last, 2: _ask(talk, 2, FIRST_S), 3: _ask(talk, 3, FIRST_S)}
    for number, reply in replies.items():
        if not reply.answers:
            # Once more: an answer can be lost.
            replies[number] = _ask(talk, number, FIRST_S)
    if late:
        questions: tuple[int, ...] = (1, 2, 3, 4)
    else:
        questions = tuple(number for number in (1, 2, 3, 4) if replies[number].answers)
    answered = [reply for reply in (*replies.values(), again) if reply.answers]
    twice = not late and any(len(reply.answers) > 1 for reply in answered)
    slowest = max(reply.after_s for reply in answered)
    return Abilities(
        questions=questions,
        habit="late" if late else "twice" if twice else "pairs",
        answer_s=min(2 * FIRST_S, max(0.5, 2 * slowest)),
        model=_model(talk),
    )


def _differ(one: _Reply, other: _Reply) -> bool:
    return bool(one.answers) and bool(other.answers) and one.answers[-1] != other.answers[-1]


def _ask(talk: Talk, number: int, wait_s: float) -> _Reply:
    if talk.stop.is_set() or not talk.push(DLE_EOT + bytes([number])):
        return _Reply(b"", wait_s)
    return _reply(talk, wait_s)


def _reply(talk: Talk, wait_s: float) -> _Reply:
    data, waited_s = b"", 0.0
    for piece in talk.listen(wait_s):
        if piece:
            data = piece
            break
        waited_s += LOOK_S
    if data:
        # A second copy of it, or the rest of something longer.
        for piece in talk.listen(QUIET_S):
            data += piece
    return _Reply(data, waited_s)


def _model(talk: Talk) -> str:
    talk.heard.name = ""
    if not talk.push(GS_I_MODEL):
        return ""
    for _ in talk.listen(NAME_S):
        if talk.heard.name:
            break
    return talk.heard.name
