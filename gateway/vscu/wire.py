"""JSON of the control unit: Decimals written exactly, answers and receipts read without a guess."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from gateway.clock import from_compact
from gateway.domain.outcome import SignedData

# An answer larger than this is not the unit's (item classes come paged). Bytes.
ANSWER_MAX_BYTES = 32 * 1024 * 1024
# Characters of the unit's own text that are kept for people.
MESSAGE_MAX = 500


def encode(value: Any) -> bytes:
    """UTF-8 JSON; Decimals as plain numbers with the places they have. TypeError for floats."""
    out: list[str] = []
    _write(value, out)
    return "".join(out).encode("utf-8")


def _write(value: Any, out: list[str]) -> None:
    if value is None or isinstance(value, (str, bool)):
        out.append(json.dumps(value, ensure_ascii=False))
    elif isinstance(value, int):
        out.append(str(int(value)))
    elif isinstance(value, Decimal):
        out.append(f"{value:f}")
    elif isinstance(value, dict):
        for at, (name, member) in enumerate(value.items()):
            out.append(("," if at else "{") + json.dumps(name) + ":")
            _write(member, out)
        out.append("}" if value else "{}")
    elif isinstance(value, (list, tuple)):
        out.append("[")
        for at, member in enumerate(value):
            if at:
                out.append(",")
            _write(member, out)
        out.append("]")
    else:
        raise TypeError(f"{type(value).__name__} does not belong on the wire")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of the unit. `raw` is kept as it came; `code` None when it was no envelope."""

    status: int
    raw: bytes
    code: str | None
    message: str
    result_dt: datetime | None
    data: Any


def decode(status: int, raw: bytes) -> Answer:
    """Envelope of etims.md 3.1. Never raises: what cannot be read has code None.

    Bytes around the JSON (a byte order mark, blanks) and characters in another encoding do no harm: what a
    receipt needs is plain ASCII, and `receipt_data` checks that.
    """
    try:
        value = json.loads(_text(raw), parse_float=Decimal, object_pairs_hook=_members)
    except (ValueError, RecursionError):
        return Answer(status, raw, None, "not JSON", None, None)
    if not isinstance(value, dict) or "resultCd" not in value:
        return Answer(status, raw, None, "not an answer of a control unit", None, None)
    return Answer(
        status,
        raw,
        _code(value["resultCd"]),
        _plain(value.get("resultMsg")),
        stamp_of(value.get("resultDt")),
        value.get("data"),
    )


# Blanks of every kind, NUL, and the byte order mark.
_AROUND = "".join(map(chr, range(0x21))) + "\u00a0\u200b\ufeff"


def _text(raw: bytes) -> str:
    """Return the text of an answer: UTF-8, UTF-16 or UTF-32 by its first bytes, Latin-1 otherwise."""
    raw = raw.lstrip(b"\t\r\n ")
    try:
        text = raw.decode(json.detect_encoding(raw))
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.strip(_AROUND)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object. ValueError where one name has two values: which one counts is a guess."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found and found[name] != value:
            raise ValueError(f"{name} appears twice")
        found[name] = value
    return found


def _code(value: Any) -> str:
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        value = int(value)
    return str(value).strip(_AROUND).upper()


def _plain(value: Any) -> str:
    """Return the unit's text as it can be stored and shown: printable, of one line, not endless."""
    text = " ".join(str("" if value is None else value)[: MESSAGE_MAX * 2].split())
    return "".join(char for char in text if char.isprintable())[:MESSAGE_MAX]


_DATE = re.compile(
    r"(?:(?P<y>\d{4})(?P<s>[-/. ]?)(?P<m>\d{2})(?P=s)(?P<d>\d{2})"
    r"|(?P<a>\d{2})(?P<s2>[-/.])(?P<b>\d{2})(?P=s2)(?P<y2>\d{4}))"
    r"(?:T|\s+|-)?(?P<time>\d{2}:?\d{2}:?\d{2})(?:\.0+)?(?:\s?\+03:?00)?",
    re.ASCII,
)
# Two readings of one date (day or month first) are told apart by the time of the answer itself.
_NEAR = timedelta(days=1)


def stamp_of(value: Any, near: datetime | None = None) -> datetime | None:
    """Return the unit's time out of 14 digits, or of a date with dashes, slashes or dots, None where there is
    any doubt. `near`: the time of the answer, where day and month could be exchanged."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        return None
    match = _DATE.fullmatch(str(value).strip(_AROUND))
    if match is None:
        return None
    time = match["time"].replace(":", "")
    if match["y"]:
        dates = {match["y"] + match["m"] + match["d"]}
    else:
        dates = {match["y2"] + match["b"] + match["a"], match["y2"] + match["a"] + match["b"]}
    found = [stamp for stamp in (_compact(date + time) for date in dates) if stamp is not None]
    if len(found) > 1:
        found = [stamp for stamp in found if near is not None and abs(stamp - near) <= _NEAR]
    return found[0] if len(found) == 1 else None


def _compact(text: str) -> datetime | None:
    try:
        return from_compact(text)
    except ValueError:
        return None


# What the store can hold; a counter beyond it is no counter.
COUNTER_END = 2**62
_COUNTER = re.compile(r"0*([1-9][0-9]{0,18})(?:\.0+)?")
# A signature has 16 characters and internal data 26 (etims.md 4.1); what is much longer is none, and would
# not fit on the paper or into the QR code.
_PRINTABLE = re.compile(r"[!-~]{1,100}")


def receipt_data(data: Any, answered_at: datetime | None = None) -> SignedData | str:
    """Return the receipt in `saveSales.data` (etims.md 4.1). A str says what cannot be read without a doubt."""
    if not isinstance(data, dict):
        return "data is missing"
    numbers = {name: _counter(data.get(name)) for name in ("rcptNo", "totRcptNo")}
    marks = {name: _mark(data.get(name)) for name in ("intrlData", "rcptSign")}
    for name, found in (numbers | marks).items():
        if found is None:
            return f"{name} is missing or cannot be read"
    scu_time = stamp_of(data.get("vsdcRcptPbctDate") or data.get("VSCURcptPbctDate"), answered_at)
    if scu_time is None:
        return "vsdcRcptPbctDate is missing or cannot be read"
    ids = {name: _mark(data.get(name)) for name in ("sdcId", "mrcNo")}
    for name, found in ids.items():
        if found is None and data.get(name) not in (None, ""):
            return f"{name} cannot be read"
    return SignedData(
        rcpt_no=numbers["rcptNo"] or 0,
        tot_rcpt_no=numbers["totRcptNo"] or 0,
        intrl_data=marks["intrlData"] or "",
        rcpt_sign=marks["rcptSign"] or "",
        scu_time=scu_time,
        sdc_id=ids["sdcId"],
        mrc_no=ids["mrcNo"],
    )


def _counter(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        return None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        value = f"{value:f}" if value.adjusted() < 20 else ""
    match = _COUNTER.fullmatch(str(value).strip(_AROUND))
    return int(match[1]) if match and int(match[1]) < COUNTER_END else None


def _mark(value: Any) -> str | None:
    """Return a signature or an id: plain ASCII without blanks inside, None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    text = value.strip(_AROUND)
    return text if _PRINTABLE.fullmatch(text) else None
