"""JSON as the unit wants it: Decimals written exactly, answers read without a float."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.clock import from_compact

# An answer larger than this is not the unit's (item classes come paged). Bytes.
ANSWER_MAX_BYTES = 32 * 1024 * 1024


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
    """Envelope of etims.md 3.1. Never raises: what cannot be read has code None."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_float=Decimal)
    except (ValueError, RecursionError):
        return Answer(status, raw, None, "not JSON", None, None)
    if not isinstance(value, dict) or "resultCd" not in value:
        return Answer(status, raw, None, "not an answer of a control unit", None, None)
    return Answer(
        status,
        raw,
        str(value["resultCd"]),
        str(value.get("resultMsg") or ""),
        _time(value.get("resultDt")),
        value.get("data"),
    )


def _time(value: Any) -> datetime | None:
    try:
        return from_compact(str(value))
    except ValueError:
        return None
