"""Reads single values of M-Pesa's JSON, whose types drift: numbers as strings, floats for money, members
that are missing. What cannot be read is None; nothing here raises."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway import strict_json
from gateway.clock import EAT, from_compact
from gateway.errors import BodyNotJson

# Far above any message that is known (2 KB; a page of Pull has its own limit).
MESSAGE_MAX_BYTES = 64 * 1024
# 10 million shillings: 40 times what M-Pesa moves at once (daraja.md 2).
CENTS_MAX = 1_000_000_000
TEXT_MAX = 200
_DIGITS_MAX = 18
_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")
_IDENT = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_RECEIPT = re.compile(r"[A-Za-z0-9]{6,20}")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_PHONE = re.compile(r"\+?[0-9*xX ]{4,24}")
# C2B shows the payer as the SHA-256 of the number on many short codes (daraja.md 12).
HASHED = re.compile(r"[0-9a-f]{64}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


def document(raw: bytes, limit: int = MESSAGE_MAX_BYTES) -> dict[str, Any] | None:
    """The JSON object, its fractions exact. None when it is too large, none, or to be read in two ways."""
    if len(raw) > limit:
        return None
    try:
        value = strict_json.parse(raw, decimals=True)
    except BodyNotJson:
        return None
    return value if isinstance(value, dict) else None


def member(value: Any, *path: str) -> Any:
    """`value[path0][path1]...`, None where there is no such thing."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def text(value: Any, limit: int = TEXT_MAX) -> str:
    """One line for people, shortened; "" for what is no text and no number."""
    plain = _plain(value)
    return "" if plain is None else _UNPRINTABLE.sub(" ", plain).strip()[:limit]


def code(value: Any) -> str | None:
    """A result code as a string: a number in callbacks, a string in queries (daraja.md 3)."""
    return _matching(_CODE, value)


def ident(value: Any) -> str | None:
    """One of M-Pesa's ids, opaque, at most 64 characters."""
    return _matching(_IDENT, value)


def receipt(value: Any) -> str | None:
    """An M-Pesa receipt number, as it came (10 characters as a rule, daraja.md 2.2)."""
    return _matching(_RECEIPT, value)


def phone(value: Any) -> str | None:
    """A number, whole or masked ("2547 ***** 149", "0722000***"), or its SHA-256 in lower case; None for
    anything else."""
    if isinstance(value, str) and HASHED.fullmatch(value.strip().lower()):
        return value.strip().lower()
    return _matching(_PHONE, value)


def cents(value: Any) -> int | None:
    """Shillings (450, 450.0, "450.00") -> integer cents, exactly. None for fractions of a cent, for zero
    and below, for anything above CENTS_MAX."""
    if isinstance(value, str):
        value = value.strip()
        if not _AMOUNT.fullmatch(value):
            return None
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if not 0 < value <= CENTS_MAX // 100:
        return None
    exact = Decimal(value)
    # Longer ones would be rounded by the product below.
    if len(exact.as_tuple().digits) > _DIGITS_MAX:
        return None
    product = exact * 100
    return int(product) if product == product.to_integral_value() else None


def signed_cents(value: Any) -> int | None:
    """Return `cents`, and negative ones and zero; None for what is no amount."""
    plain = _plain(value)
    if plain is None:
        return None
    plain = plain.strip()
    if re.fullmatch(r"[-+]?0{1,12}(\.0{1,6})?", plain):
        return 0
    amount = cents(plain.lstrip("-+"))
    return None if amount is None else -amount if plain.startswith("-") else amount


def compact_time(value: Any) -> datetime | None:
    """20261123101552 as a number or string, Nairobi time."""
    plain = _plain(value)
    if plain is None or not plain.isascii():
        return None
    try:
        return from_compact(plain.strip())
    except (ValueError, OverflowError):
        return None


def iso_time(value: Any) -> datetime | None:
    """ISO 8601; without a zone it is Nairobi time. "Z" counts as none: Pull writes it, and no source says
    whether it means UTC or only ends the text (messages.in_window settles it)."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value.strip().removesuffix("Z"))
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=EAT)
        moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return moment if moment.year >= 1970 else None


def _matching(pattern: re.Pattern[str], value: Any) -> str | None:
    plain = _plain(value)
    if plain is None:
        return None
    plain = plain.strip()
    return plain if pattern.fullmatch(plain) else None


def _plain(value: Any) -> str | None:
    """A string or number as text; whole numbers without a point (0.0 is "0")."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if -(10**24) < value < 10**24 else None
    if isinstance(value, Decimal):
        if not value.is_finite() or not -(10**24) < value < 10**24:
            return None
        if len(value.as_tuple().digits) > 24 or value.as_tuple().exponent < -12:  # type: ignore[operator]
            return None
        return str(int(value)) if value == value.to_integral_value() else format(value, "f")
    return None
