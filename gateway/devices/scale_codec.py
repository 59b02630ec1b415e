"""Decode what scales send: one parser for each protocol, and the name of a format that is not set. No I/O.

`toledo` and `and` are here, the other formats in `scale_formats`. Sources: Mettler Toledo Diva service
manual 6.1.4 (8217); A&D AD-4329A 12.1, EK-L 9-2 and AD-4404 9.2.6; CAS NT-200 14 and CI-600D 10-1 (22
bytes). A weight that lost a digit on the wire is still a number, so the shape is checked, not only the
digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.devices import scale_formats
from gateway.devices.scale_reading import (
    BELOW_ZERO,
    GARBLED,
    MOVING,
    NO_POINT,
    NO_WEIGHT,
    OVERLOAD,
    Decoded,
    Options,
    Protocol,
    Reading,
    charge,
    number,
)

__all__ = ["ASK", "TWICE", "Options", "Protocol", "Reading", "decode", "looks_like", "readings_of"]

# Asked protocols and their question; the others send without being asked.
# CAS: models with a handshake answer ENQ by ACK and DC1 by the weight, the others DC1 alone.
ASK: dict[str, bytes] = {
    "toledo": b"W",
    "sics": b"SI\r\n",
    "nci": b"W\r",
    "cas": b"\x05\x11",
    "dibal": b"98000001\r\n",
}
# Answers whose shape does not show a lost digit, or whose check is only assumed, count when the scale
# gives the same weight twice.
TWICE = frozenset({"sics", "nci", "cas", "dibal"})

# STX, something, CR. In kg always two digits, point, three digits, N behind a net weight; or "?" and
# a status byte (bit 6 always set) when there is no weight to give. Some models leave out the point.
_TOLEDO = re.compile(rb"\x02([^\x02\r]{0,16})\r", re.S)
_TOLEDO_KG = re.compile(rb"([0-9 ][0-9]\.[0-9]{3})N?")
_TOLEDO_NO_POINT = re.compile(rb"([0-9]{5})N?")
_TOLEDO_STATUS = re.compile(rb"\?([\x40-\x7f])", re.S)
MOTION, OVER, UNDER = 0x01, 0x02, 0x04
# ST at rest, US moving, OL out of range, QT counting; then what kind of weight; CAS adds a device
# number and its lamps (top bit set); sign, digits, unit; CR or CR LF.
_LINE = re.compile(rb"((?:ST|US|OL|QT),[^\r\n]{5,24})\r\n?", re.S)
_FIELDS = re.compile(
    rb"(ST|US|OL|QT),(?:(GS|NT|TR|PT|G |N |T |LO|OK|HI|--),)?(?:[^,][\x80-\xff],)?"
    rb" *([+-]?) *([0-9]*)(?:[.,]([0-9]+))?([.]?)[ ,]*([A-Za-z%]*) *",
    re.S,
)
_TARE = (b"TR", b"PT", b"T ")
BYTES_SHOWN = 24


def decode(data: bytes, protocol: Protocol, options: Options = Options()) -> Decoded:
    """Return every whole answer in `data`, oldest first, and the bytes behind the last answer."""
    if protocol == "toledo":
        found = list(_TOLEDO.finditer(data))
        readings = [_toledo(match[1], options) for match in found]
        return Decoded(readings, data[found[-1].end() :] if found else data)
    if protocol == "and":
        return Decoded(_lines(data, options), data)
    return _OTHERS[protocol](data, options)


def readings_of(data: bytes, protocol: Protocol, options: Options = Options()) -> list[Reading]:
    """Return every whole answer in `data`, oldest first."""
    return decode(data, protocol, options).readings


def looks_like(data: bytes, but: Protocol | None = None) -> Protocol | None:
    """Return the protocol that these bytes fit, other than `but`; None when they fit none."""
    for protocol in _RECOGNISED:
        if protocol != but and any(
            reading.problem != GARBLED
            for options in (Options(unit="kg", decimals=3), Options())
            for reading in readings_of(data, protocol, options)
        ):
            return protocol
    return None


def not_as_set(data: bytes, protocol: Protocol) -> str:
    """Return the sentence for bytes that the protocol of the settings does not cover."""
    text = f"it sends, but not what is set (protocol {protocol}): {_shown(data)}"
    likely = looks_like(data, but=protocol)
    if likely is not None:
        return f'{text}; this looks like protocol = "{likely}": set that in its section'
    likely = looks_like(bytes(byte & 0x7F for byte in data))
    if likely is None or all(byte < 0x80 for byte in data):
        return text
    parity = "E" if all(byte.bit_count() % 2 == 0 for byte in data) else "O"
    return (
        f'{text}; this looks like protocol = "{likely}" with a parity bit: set that, data_bits = 7 and '
        f'parity = "{parity}" in its section'
    )


def with_bytes(problem: str, data: bytes, protocol: Protocol) -> str:
    """Return a problem of the settings with the bytes that show it."""
    return f"{problem} (protocol {protocol}, it sends {_shown(data)})"


def _shown(data: bytes) -> str:
    return data[-BYTES_SHOWN:].hex(" ")


def _toledo(answer: bytes, options: Options) -> Reading:
    if (match := _TOLEDO_KG.fullmatch(answer)) is not None:
        return Reading(number(match[1]), stable=True)
    if (match := _TOLEDO_NO_POINT.fullmatch(answer)) is not None:
        if options.decimals is None:
            return Reading(problem=NO_POINT)
        return charge(number(match[1], options.decimals), options.unit or "kg")
    if (match := _TOLEDO_STATUS.fullmatch(answer)) is None:
        return Reading(problem=GARBLED)
    status = match[1][0]
    if status & OVER:
        return Reading(problem=OVERLOAD)
    if status & UNDER:
        return Reading(problem=BELOW_ZERO)
    return Reading(problem=MOVING)


def _lines(data: bytes, options: Options) -> list[Reading]:
    """Decode lines that arrive without a question.

    A line counts when the line before had the same length, and at rest when both are equal: a line
    that lost a byte or took a wrong one would be another weight.
    """
    found = []
    before = b""
    for match in _LINE.finditer(data):
        line = match[1]
        same = line == before if line.startswith(b"ST") else len(line) == len(before)
        if same and (reading := _line(line, options)) is not None:
            found.append(reading)
        before = line
    return found


def _line(line: bytes, options: Options) -> Reading | None:
    """Return None for a line that is about something else: the tare, or noise."""
    match = _FIELDS.fullmatch(line)
    if match is None or match[2] in _TARE:
        return None
    state, _, sign, whole, fraction, point, unit = match.groups()
    if state == b"OL":
        return Reading(problem=BELOW_ZERO if sign == b"-" else OVERLOAD)
    if state == b"QT":
        return Reading(problem="it counts pieces: set it to weighing")
    if not whole and not fraction:
        return Reading(problem=NO_WEIGHT)
    digits = (whole or b"0") + (b"." + fraction if fraction else point)
    return options.weigh(sign, digits, unit, stable=state == b"ST")


_Decoder = Callable[[bytes, Options], Decoded]
_OTHERS: dict[str, _Decoder] = {
    "toledo-continuous": scale_formats.toledo_continuous,
    "sics": scale_formats.sics,
    "nci": scale_formats.nci,
    "cas": scale_formats.cas,
    "dibal": scale_formats.dibal,
    "yaohua": scale_formats.yaohua,
    "digi": scale_formats.digi,
    "ohaus": scale_formats.ohaus,
}
# The formats with a check or a fixed shape first; `ohaus` has the least of either.
_RECOGNISED: tuple[Protocol, ...] = (
    "toledo-continuous",
    "yaohua",
    "cas",
    "dibal",
    "and",
    "digi",
    "nci",
    "sics",
    "toledo",
    "ohaus",
)
