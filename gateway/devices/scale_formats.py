"""The formats of scales beside `toledo` and `and`: one decoder for each. No I/O.

Sources, read as published: Toledo continuous output (Rockwell 57C428 appendix D, Cardinal 225 page 118,
KERN FTC 5.2); Avery Weigh-Tronix SCP-01 (NCI); CAS SW-II page 15 and Pinnacle OS2; Yaohua XK3190-A12E page
13 and XK3190-A26 pages 12 and 13; Digi DS-425 service manual 4.3; Ohaus Ranger 5.1.4 and Defender 3000
5.2; Mettler Toledo MT-SICS level 0; Dibal as the Emdi shop program sends and reads it.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterator

from gateway.devices.scale_reading import (
    BELOW_ZERO,
    GARBLED,
    MOVING,
    NO_UNIT,
    NO_WEIGHT,
    NOT_KG,
    OVERLOAD,
    Decoded,
    Frame,
    Options,
    Reading,
    charge,
    matches,
    number,
    repeated,
)

FAULT = "it reports a fault of its own: switch it off and on, then call its service"


def xor(data: bytes) -> int:
    """Return all bytes combined by exclusive or."""
    return functools.reduce(operator.xor, data, 0)


# --- Mettler Toledo, continuous output ----------------------------------------------------------------

# STX, three status bytes, six digits of weight, mostly six of tare, CR, and a checksum where it is on.
_CONTINUOUS = re.compile(
    rb"\x02[\x20-\x3f][\x20-\x3f\x60-\x7f][\x20-\x3f\x60-\x7f][ 0-9]{6}(?:[ 0-9]{6})?\r", re.S
)
NEGATIVE, OUT_OF_RANGE, IN_MOTION, IS_KG, EXPANDED = 0x02, 0x04, 0x08, 0x10, 0x10


def toledo_continuous(data: bytes, options: Options) -> Decoded:
    """Decode STX SWA SWB SWC, weight, tare, CR, with or without a checksum behind it."""
    return Decoded(repeated(_continuous_frames(data), _continuous), data)


def _continuous_frames(data: bytes) -> Iterator[bytes]:
    for match in _CONTINUOUS.finditer(data):
        # The byte behind CR is the checksum, or the STX of the next frame.
        behind = data[match.end() : match.end() + 1]
        check = -sum(byte & 0x7F for byte in match[0]) & 0x7F
        if behind == b"\x02" or (behind and behind[0] & 0x7F == check):
            yield match[0]
        elif behind:
            yield b""


def _continuous(frame: bytes) -> Frame | None:
    if not frame:
        return None
    a, b, c = frame[1], frame[2], frame[3]
    if b & OUT_OF_RANGE:
        return Frame(Reading(problem=BELOW_ZERO if b & NEGATIVE else OVERLOAD), marked=True)
    if b & IN_MOTION:
        return Frame(Reading(problem=MOVING), marked=True)
    grams = c & 0x07 == 1
    if c & EXPANDED or c & 0x07 > 1 or not (grams or b & IS_KG):
        return Frame(Reading(problem=NOT_KG), marked=True)
    digits = frame[4:10].strip()
    if not digits or b" " in digits:
        return None
    weight = number(digits, (a & 0x07) - 2)
    if b & NEGATIVE and weight:
        return Frame(Reading(problem=BELOW_ZERO), marked=True)
    return Frame(charge(weight, "g" if grams else "kg"), marked=True)


# --- MT-SICS, asked by SI -----------------------------------------------------------------------------

_SICS = re.compile(rb"S ([SD]) ([ 0-9.\-]{10}) ([A-Za-z%]{1,3}) *\r\n|S ([I+\-])\r\n|(E[SLT])\r\n")
_SICS_DIGITS = re.compile(rb" *(-?)([0-9]+(?:\.[0-9]+)?)")


def sics(data: bytes, options: Options) -> Decoded:
    """Decode the answer to SI: S S at rest, S D moving, S + and S - out of range."""
    frames, rest = matches(_SICS, data)
    return Decoded([_sics(frame, options) for frame in frames], rest)


def _sics(frame: bytes, options: Options) -> Reading:
    match = _SICS.fullmatch(frame)
    if match is None or match[5]:
        return Reading(problem=GARBLED)
    if match[4]:
        return Reading(problem={b"+": OVERLOAD, b"-": BELOW_ZERO}.get(match[4], MOVING))
    digits = _SICS_DIGITS.fullmatch(match[2])
    if digits is None:
        return Reading(problem=GARBLED)
    if match[1] == b"D":
        return Reading(problem=MOVING)
    return options.weigh(digits[1], digits[2], match[3], stable=True)


# --- NCI and Avery Weigh-Tronix, asked by W CR --------------------------------------------------------

# LF, weight and unit, CR, LF, two to four status bytes, CR, ETX; without a weight only the status.
_NCI = re.compile(
    rb"[\n\r](?:([^\n\r\x03]{1,16})(?:\r\n|\n\r))?S?([\x30-\x3f\x70-\x7f]{2,4})\r\x03|\n\?\r\x03"
)
_NCI_WEIGHT = re.compile(rb" *([+-]?) *([0-9]+(?:\.[0-9]+)?) *([A-Za-z]{0,2}) *")


def nci(data: bytes, options: Options) -> Decoded:
    """Decode the answer to W CR of the SCP-01 protocol."""
    frames, rest = matches(_NCI, data)
    return Decoded([_nci(frame, options) for frame in frames], rest)


def _nci(frame: bytes, options: Options) -> Reading:
    match = _NCI.fullmatch(frame)
    if match is None or match[2] is None:
        return Reading(problem=GARBLED)
    first, second = match[2][0], match[2][1]
    initial_zero_error = len(match[2]) > 2 and match[2][2] & 0x08
    if (first | second) & 0x0C or initial_zero_error:
        return Reading(problem=FAULT)
    if second & 0x02:
        return Reading(problem=OVERLOAD)
    if second & 0x01:
        return Reading(problem=BELOW_ZERO)
    if first & 0x01:
        return Reading(problem=MOVING)
    weight = _NCI_WEIGHT.fullmatch(match[1] or b"")
    if weight is None:
        return Reading(problem=NO_WEIGHT if match[1] is None else GARBLED)
    return options.weigh(weight[1], weight[2], weight[3], stable=True)


# --- CAS, asked by DC1 --------------------------------------------------------------------------------

# SOH STX, S at rest or U moving or F out of range, sign, six digits, two of unit, check, ETX EOT.
_CAS = re.compile(rb"\x01\x02([SUF])([ +\-F])([ 0-9.]{6})([A-Za-z ]{2})(.)\x03\x04", re.S)


def cas(data: bytes, options: Options) -> Decoded:
    """Decode the 15 bytes of CAS and of Pinnacle."""
    frames, rest = matches(_CAS, data)
    return Decoded([_cas(frame, options) for frame in frames], rest)


def _cas(frame: bytes, options: Options) -> Reading:
    match = _CAS.fullmatch(frame)
    # One manual counts SOH and STX into the check, the others do not.
    if match is None or frame[12] not in (xor(frame[:12]), xor(frame[2:12])):
        return Reading(problem=GARBLED)
    state, sign, digits, unit, _ = match.groups()
    if state == b"F" or sign == b"F":
        return Reading(problem=OVERLOAD)
    if state == b"U":
        return Reading(problem=MOVING)
    if not _DIGITS.fullmatch(digits):
        return Reading(problem=GARBLED)
    return options.weigh(sign, digits.strip(), unit, stable=True)


_DIGITS = re.compile(rb" *[0-9]+(?:\.[0-9]+)?")


# --- Dibal, asked by 98 and a price of zero -----------------------------------------------------------

# 99, status, five digits of weight in grams, price and amount, check digit, CR LF.
_DIBAL = re.compile(rb"99([0-9])([0-9]{5})[0-9]{7}([0-?])\r\n")


def dibal(data: bytes, options: Options) -> Decoded:
    """Decode the answer 99: the check is the exclusive or of all digits before it."""
    frames, rest = matches(_DIBAL, data)
    return Decoded([_dibal(frame, options) for frame in frames], rest)


def _dibal(frame: bytes, options: Options) -> Reading:
    match = _DIBAL.fullmatch(frame)
    if match is None or xor(frame[:15]) & 0x0F != match[3][0] & 0x0F:
        return Reading(problem=GARBLED)
    if match[1] != b"0":
        return Reading(problem=f"it reports status {match[1].decode()} in place of a weight")
    decimals = 3 if options.decimals is None else options.decimals
    return charge(number(match[2], decimals), options.unit or "kg")


# --- Yaohua XK3190 ------------------------------------------------------------------------------------

# `=`, seven digits and the point, in some models last digit first and then the sign (A26: formats 1
# and 2). The next frame ends it.
_EQUALS = rb"=([0-9.\-]{8})(?==)"
# STX, sign, six digits, places behind the point, check in two hexadecimal digits, ETX.
_PLACES = rb"\x02([+\-][0-9]{6}[0-5])([0-9A-F]{2})\x03"
# W, gross or net, seven characters, unit, check, CR LF; blanks with OL or LO out of range.
_WG = rb"((?:W[GN][ 0-9.\-]{7}[A-Za-z]{2})|(?: {9}(?:OL|LO)))([0-9A-F]{2})\r\n"
_YAOHUA = re.compile(rb"|".join((_EQUALS, _PLACES, _WG)))
_YAOHUA_SET = (
    "it sends the Yaohua format without a unit, in an order that only the point shows: put decimals = 3, "
    'or as many digits as its display shows behind the point, and unit = "kg" into its section of the '
    "settings"
)


def yaohua(data: bytes, options: Options) -> Decoded:
    """Decode the continuous formats of the XK3190 series."""
    frames = [match[0] for match in _YAOHUA.finditer(data)]
    return Decoded(repeated(frames, lambda frame: _yaohua(frame, options)), data)


def _yaohua(frame: bytes, options: Options) -> Frame | None:
    if frame.startswith(b"="):
        return _yaohua_equals(frame[1:], options)
    start = 1 if frame.startswith(b"\x02") else 0
    body, check = (frame[1:9], frame[9:11]) if start else (frame[:11], frame[11:13])
    if xor(body) != int(check, 16):
        return None
    if body.endswith((b"OL", b"LO")) and not body[:9].strip():
        return Frame(
            Reading(problem=OVERLOAD if body.endswith(b"OL") else BELOW_ZERO), marked=False
        )
    if start:
        sign, digits, places = body[:1], body[1:7], int(body[7:])
        point = len(digits) - places
        text = digits[:point] + b"." + digits[point:]
        return Frame(options.weigh(sign, text, b"", stable=True), marked=False)
    match = _WG_FIELDS.fullmatch(body)
    if match is None:
        return None
    return Frame(options.weigh(match[1], match[2], match[3], stable=True), marked=False)


_WG_FIELDS = re.compile(rb"W[GN] *(-?)([0-9]+(?:\.[0-9]+)?) *([A-Za-z]{2})")
_FORWARD = re.compile(rb"([0\-]?)([0-9]+\.([0-9]+))")


def _yaohua_equals(text: bytes, options: Options) -> Frame | None:
    """Return the weight that has the right number of decimals: read forwards, or last digit first."""
    if options.unit is None or options.decimals is None:
        return Frame(Reading(problem=_YAOHUA_SET), marked=False)
    found = set()
    for order in (text, text[::-1]):
        match = _FORWARD.fullmatch(order)
        if match is not None and len(match[3]) == options.decimals:
            found.add((match[1], match[2]))
    if len(found) != 1:
        return None
    ((sign, digits),) = found
    return Frame(
        options.weigh(sign if sign == b"-" else b"", digits, b"", stable=True), marked=False
    )


# --- Digi (Teraoka) -----------------------------------------------------------------------------------

# Stability byte and headers only where they are switched on; net weight, CR, tare, CR LF.
_DIGI = re.compile(
    rb"(?:(?<=\n)|\A)(?:([\x00\x01])\r)?(0)?([ 0-9.,\-]{7})\r((?(2)4|))([ 0-9.,\-]{7})\r\n"
)
_DIGI_NUMBER = re.compile(rb" *(-?) *([0-9]+(?:\.[0-9]+)?)")


def digi(data: bytes, options: Options) -> Decoded:
    """Decode the four forms of the DS series."""
    frames = [match[0] for match in _DIGI.finditer(data)]
    return Decoded(repeated(frames, lambda frame: _digi(frame, options)), data)


def _digi(frame: bytes, options: Options) -> Frame | None:
    match = _DIGI.fullmatch(frame)
    if match is None:
        return None
    if match[1] == b"\x01":
        return Frame(Reading(problem=MOVING), marked=True)
    digits = _DIGI_NUMBER.fullmatch(match[3].replace(b",", b"."))
    if digits is None:
        return None
    reading = options.weigh(digits[1], digits[2], b"", stable=True)
    return Frame(reading, marked=match[1] is not None)


# --- Ohaus, and lines of weight and unit ---------------------------------------------------------------

_OHAUS = re.compile(rb"(?:(?<=[\r\n\x03])|\A)\n?([^\r\n\x03]{4,32})\r", re.S)
_OHAUS_FIELDS = re.compile(
    rb" *([+-]?) *([0-9]+(?:\.[0-9]+)?) *((?:[kK][gG]|g|[A-Za-z]{2,5}?)?) *(\??) *(G|N|T|B/G|NET|GR|NT|PT|TR|GROSS)? *"
)
_OHAUS_ERROR = re.compile(rb" *(?:[\^_\-]{3,}|Er.*|OL|UL|H|L) *", re.S)


def ohaus(data: bytes, options: Options) -> Decoded:
    """Decode lines of weight, unit, `?` while it moves, and the kind of weight."""
    frames = [match[1] for match in _OHAUS.finditer(data)]
    return Decoded(repeated(frames, lambda frame: _ohaus(frame, options)), data)


def _ohaus(frame: bytes, options: Options) -> Frame | None:
    if _OHAUS_ERROR.fullmatch(frame):
        return Frame(Reading(problem=OVERLOAD if b"^" in frame else NO_WEIGHT), marked=True)
    match = _OHAUS_FIELDS.fullmatch(frame)
    if match is None or match[5] in (b"T", b"TR", b"PT"):
        return None
    if match[4]:
        return Frame(Reading(problem=MOVING), marked=True)
    # Sartorius leaves the unit out while it moves: without one only rest of its own making counts.
    reading = options.weigh(match[1], match[2], match[3], stable=True)
    return Frame(reading, marked=bool(match[3]) and reading.problem != NO_UNIT)
