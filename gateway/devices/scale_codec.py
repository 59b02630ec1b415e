"""What scales say: the Toledo 8217 family, asked by W; and the lines A&D's and CAS's send. No I/O.

Formats as in the makers' manuals: Mettler Toledo Diva service manual 6.1.4 (8217); A&D AD-4329A 12.1,
EK-L 9-2 and AD-4404 9.2.6; CAS NT-200 14 and CI-600D 10-1 (22 bytes). A weight that lost a digit on the
wire is still a number, so the shape is checked, not only the digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Protocol = Literal["toledo", "and"]
ASK = b"W"
# STX, something, CR. In kg always two digits, point, three digits, N behind a net weight; or "?" and
# a status byte (bit 6 always set) when there is no weight to give.
_TOLEDO = re.compile(rb"\x02([^\x02\r]{0,16})\r", re.S)
_TOLEDO_KG = re.compile(rb"([0-9]{2}\.[0-9]{3})N?")
_TOLEDO_STATUS = re.compile(rb"\?([\x40-\x7f])", re.S)
MOTION, OVER, UNDER = 0x01, 0x02, 0x04
# ST at rest, US moving, OL out of range, QT counting; then what kind of weight; CAS adds a device
# number and its lamps (top bit set); sign, digits, unit; CR or CR LF.
_LINE = re.compile(rb"((?:ST|US|OL|QT),[^\r\n]{5,24})\r\n?", re.S)
_FIELDS = re.compile(
    rb"(ST|US|OL|QT),(?:(GS|NT|TR|PT|G |N |T |LO|OK|HI|--),)?(?:[^,][\x80-\xff],)?"
    rb" *([+-]?) *([0-9]*)(?:[.,]([0-9]+))?[.]?[ ,]*([A-Za-z%]*) *",
    re.S,
)
_TARE = (b"TR", b"PT", b"T ")

OVERLOAD = "too much lies on it"
BELOW_ZERO = "below zero: empty it and press zero"
MOVING = "not at rest yet"
GARBLED = "its answer is garbled, or not in kg"


@dataclass(frozen=True, slots=True)
class Reading:
    """`weight` in kg. With a `problem` there is none."""

    weight: Decimal = Decimal(0)
    stable: bool = False
    problem: str | None = None


def readings_of(data: bytes, protocol: Protocol) -> list[Reading]:
    """Every whole answer in what was heard, oldest first.

    Lines that come by themselves count when the line before had the same length, and at rest when it
    said the same: a line that lost a byte or took a wrong one would be another weight.
    """
    if protocol == "toledo":
        return [_toledo(match[1]) for match in _TOLEDO.finditer(data)]
    found = []
    before = b""
    for match in _LINE.finditer(data):
        line = match[1]
        same = line == before if line.startswith(b"ST") else len(line) == len(before)
        if same and (reading := _line(line)) is not None:
            found.append(reading)
        before = line
    return found


def _toledo(answer: bytes) -> Reading:
    if (match := _TOLEDO_KG.fullmatch(answer)) is not None:
        return Reading(Decimal(match[1].decode()), stable=True)
    if (match := _TOLEDO_STATUS.fullmatch(answer)) is None:
        return Reading(problem=GARBLED)
    status = match[1][0]
    if status & OVER:
        return Reading(problem=OVERLOAD)
    if status & UNDER:
        return Reading(problem=BELOW_ZERO)
    return Reading(problem=MOVING)


def _line(line: bytes) -> Reading | None:
    """None for a line that is about something else: the tare, or noise."""
    match = _FIELDS.fullmatch(line)
    if match is None or match[2] in _TARE:
        return None
    state, _, sign, whole, fraction, unit = match.groups()
    if state == b"OL":
        return Reading(problem=BELOW_ZERO if sign == b"-" else OVERLOAD)
    if state == b"QT":
        return Reading(problem="it counts pieces: set it to weighing")
    if not whole and not fraction:
        return Reading(problem="it sends no weight")
    if unit not in (b"kg", b"g"):
        return Reading(problem="it does not weigh in kg: set it to kg")
    weight = Decimal(f"{(whole or b'0').decode()}.{(fraction or b'0').decode()}")
    if sign == b"-" and weight:
        return Reading(problem=BELOW_ZERO)
    if unit == b"g":
        weight = weight.scaleb(-3)
    return Reading(weight, stable=state == b"ST")
