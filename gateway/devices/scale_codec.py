"""What scales say: the Toledo 8217 family, asked by W; and A&D's continuous lines. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Protocol = Literal["toledo", "and"]
ASK = b"W"
# Toledo: STX, five digits and a point, CR; or STX, "?", a status byte, CR when it is not at rest.
_TOLEDO = re.compile(rb"\x02(?:([0-9]{1,3}\.[0-9]{1,3})|\?(.))\r", re.S)
# A&D: "ST,GS,+0001.234kg", "US" while it moves, "OL" for too much; unit kg or g.
_AND = re.compile(rb"(ST|US|OL)(?:,(?:GS|NT|TR))?,?\s*([+-]?)\s*([0-9]*\.?[0-9]*)\s*(kg|g)?\s*\r\n")


@dataclass(frozen=True, slots=True)
class Reading:
    """`weight` in kg. With a `problem` there is none."""

    weight: Decimal = Decimal(0)
    stable: bool = False
    problem: str | None = None


def last_reading(data: bytes, protocol: Protocol) -> Reading | None:
    """The newest whole answer in what was heard; None when there is none yet."""
    found = None
    if protocol == "toledo":
        for match in _TOLEDO.finditer(data):
            found = _toledo(match)
        return found
    for match in _AND.finditer(data):
        found = _and(match)
    return found


def _toledo(match: re.Match[bytes]) -> Reading:
    if match[1] is not None:
        return Reading(Decimal(match[1].decode()), stable=True)
    status = match[2][0]
    if status & 0x02:
        return Reading(problem="too much lies on it")
    if status & 0x04:
        return Reading(problem="below zero: empty it and press zero")
    return Reading(problem="not at rest yet")


def _and(match: re.Match[bytes]) -> Reading:
    if match[1] == b"OL":
        return Reading(problem="too much lies on it")
    if not match[3] or match[3] == b".":
        return Reading(problem="it sends no weight")
    weight = Decimal((match[2] + match[3]).decode())
    if match[4] == b"g":
        weight /= 1000
    if weight < 0:
        return Reading(problem="below zero: empty it and press zero")
    return Reading(weight, stable=match[1] == b"ST")
