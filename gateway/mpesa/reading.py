"""Read a message of C2B whose body is no strict JSON in UTF-8 but can be read in exactly one way.

A confirmation is money that has come, and M-Pesa sends it once, so a name in Latin-1 must not cost the payment its
row. Nothing here is used for callbacks: what cannot be read strictly there is asked of M-Pesa (STK query).
"""

from __future__ import annotations

import json
import zlib
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from gateway import strict_json
from gateway.mpesa.fields import MESSAGE_MAX_BYTES, document

_GZIP = b"\x1f\x8b"
# zlib's headers for its four levels ("Content-Encoding: deflate").
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_FORM_MEMBERS_MAX = 100


def leniently(raw: bytes, limit: int = MESSAGE_MAX_BYTES) -> dict[str, Any] | None:
    """Return the message's members; None when there is no way, or more than one way, to read it.

    Read besides strict JSON: gzip and zlib, a byte order mark, UTF-16 and UTF-32, Latin-1 in names, raw control
    characters and half characters inside texts, JSON inside a JSON text, and an HTML form. Still refused: repeated
    members, NaN, truncated bodies."""
    strict = document(raw, limit)
    if strict is not None or len(raw) > limit:
        return strict
    if raw.startswith((_GZIP, *_ZLIB)):
        unpacked = _unpacked(raw, limit)
        return None if unpacked is None else leniently_read(unpacked)
    return leniently_read(raw)


def leniently_read(raw: bytes) -> dict[str, Any] | None:
    """Return the members of a body that is not compressed."""
    text = _text(raw)
    if text is None:
        return None
    value = _json(text)
    if isinstance(value, str):
        value = _json(value)
    if isinstance(value, dict):
        return value
    return _form(raw) if value is None else None


def _unpacked(raw: bytes, limit: int) -> bytes | None:
    """Return at most `limit` bytes of a whole gzip or zlib body."""
    inflate = zlib.decompressobj(wbits=47)
    try:
        plain = inflate.decompress(raw, limit)
    except zlib.error:
        return None
    whole = inflate.eof and not inflate.unused_data and not inflate.unconsumed_tail
    return plain if whole else None


def _text(raw: bytes) -> str | None:
    """Return the text. Bytes that are no Unicode are Latin-1's: digits and codes read alike in all its kin."""
    encoding = json.detect_encoding(raw)
    try:
        return raw.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError:
        return raw.decode("latin-1") if encoding.startswith("utf-8") else None


def _json(text: str) -> Any:
    """Return the value, with control characters as they are and half characters replaced; None for none."""
    try:
        value = json.loads(
            text.strip("\ufeff\x00 \t\r\n"),
            strict=False,
            object_pairs_hook=strict_json.no_repeats,
            parse_constant=strict_json.no_constant,
            parse_float=Decimal,
        )
        return _mended(value, strict_json.DEPTH_MAX)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _mended(value: Any, depth: int) -> Any:
    if depth < 0:
        raise ValueError("it is nested too deeply")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_mended(name, depth): _mended(member, depth - 1) for name, member in value.items()}
    if isinstance(value, list):
        return [_mended(member, depth - 1) for member in value]
    return value


def _form(raw: bytes) -> dict[str, Any] | None:
    """Return the members of an HTML form; None when one appears twice or it is no form."""
    for encoding in ("utf-8", "latin-1"):
        try:
            pairs = parse_qsl(
                raw.decode("ascii").strip(),
                keep_blank_values=True,
                strict_parsing=True,
                encoding=encoding,
                errors="strict",
                max_num_fields=_FORM_MEMBERS_MAX,
            )
        except UnicodeDecodeError:
            continue
        except ValueError:
            return None
        members = dict(pairs)
        return members if len(members) == len(pairs) else None
    return None
