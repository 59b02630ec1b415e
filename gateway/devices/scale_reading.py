"""The weight of a scale, and the rules that every format shares: unit, decimal point, sign, repetition."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NamedTuple

Protocol = Literal[
    "toledo",
    "and",
    "toledo-continuous",
    "sics",
    "nci",
    "cas",
    "dibal",
    "yaohua",
    "digi",
    "ohaus",
]
Unit = Literal["kg", "g"]

OVERLOAD = "too much lies on it"
BELOW_ZERO = "below zero: empty it and press zero"
MOVING = "not at rest yet"
GARBLED = "its answer is garbled, or not in kg"
NO_WEIGHT = "it sends no weight"
NO_POINT = (
    "it sends digits without a point: put decimals = 3, or as many digits as its display shows behind "
    "the point, into its section of the settings"
)
NO_UNIT = (
    'it sends no unit: set it to kg, or put unit = "kg" (or "g"), as its display shows, into its '
    "section of the settings"
)
NOT_KG = "it does not weigh in kg: set it to kg"
# Equal frames in a row that count as rest, where the format has no mark for rest.
EQUAL_AT_REST = 4
# Equal frames in a row where it has one: a frame with a damaged byte is not repeated.
EQUAL_MARKED = 2


@dataclass(frozen=True, slots=True)
class Reading:
    """`weight` in kg. With a `problem` there is none."""

    weight: Decimal = Decimal(0)
    stable: bool = False
    problem: str | None = None


class Decoded(NamedTuple):
    """The whole answers, oldest first, and the bytes behind the last of them."""

    readings: list[Reading]
    rest: bytes


@dataclass(frozen=True, slots=True)
class Options:
    """What the format does not carry: the unit, and how many digits stand behind the point."""

    unit: Unit | None = None
    decimals: int | None = None

    def weigh(self, sign: bytes, digits: bytes, unit: bytes, *, stable: bool) -> Reading:
        """Return the reading for the parts of a line; a part that is missing comes from the settings."""
        named = self.unit_of(unit)
        if named is None:
            return Reading(problem=NOT_KG if unit.strip() else NO_UNIT)
        if b"." in digits:
            weight = number(digits)
        elif self.decimals is not None:
            weight = number(digits, self.decimals)
        elif named == "g":
            weight = number(digits)
        else:
            # 1235 may be 1.235 kg: only a scale of whole kilograms would mean what it says.
            return Reading(problem=NO_POINT)
        if sign.strip() == b"-" and weight:
            return Reading(problem=BELOW_ZERO)
        return charge(weight, named, stable=stable)

    def unit_of(self, unit: bytes) -> Unit | None:
        """Return kg or g; None for every other unit, and for none where the settings name none."""
        text = unit.strip()
        if not text:
            return self.unit
        if text.lower() == b"kg":
            return "kg"
        # A single capital letter is also the mark of a gross weight.
        if text == b"g" or (text == b"G" and self.unit == "g"):
            return "g"
        return None


def charge(weight: Decimal, unit: Unit, *, stable: bool = True) -> Reading:
    """Return a weight in kg."""
    return Reading(weight.scaleb(-3) if unit == "g" else weight, stable)


def number(digits: bytes, decimals: int = 0) -> Decimal:
    """Return the number of these ASCII digits, blanks left out; `decimals` places the point."""
    text = digits.decode("ascii").strip().rstrip(".")
    return Decimal(text if not text.startswith(".") else f"0{text}").scaleb(-decimals)


class Frame(NamedTuple):
    """A frame that a parser has understood. `marked`: the frame itself says that it is at rest."""

    reading: Reading
    marked: bool


def repeated(frames: Iterable[bytes], parse: Callable[[bytes], Frame | None]) -> list[Reading]:
    """Return the readings of frames that arrive without a question.

    A weight counts when the same frame came often enough in a row. A frame whose weight changes is a
    scale that is not at rest; a problem counts at once, since no weight can be wrong by it.
    """
    found = []
    equal = valid = 0
    before = b""
    for raw in frames:
        equal = equal + 1 if raw == before else 1
        valid = valid + 1 if len(raw) == len(before) else 1
        before = raw
        frame = parse(raw)
        if frame is None:
            equal = valid = 0
            before = b""
            continue
        needed = EQUAL_MARKED if frame.marked else EQUAL_AT_REST
        if frame.reading.problem is not None or equal >= needed:
            found.append(frame.reading)
        elif valid >= needed:
            found.append(Reading(problem=MOVING))
    return found


def matches(pattern: re.Pattern[bytes], data: bytes) -> tuple[list[bytes], bytes]:
    """Return the whole matches in order, and the bytes behind the last of them."""
    found = list(pattern.finditer(data))
    return [match[0] for match in found], data[found[-1].end() :] if found else data
