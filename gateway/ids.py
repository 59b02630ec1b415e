"""Identifiers: invoice ids made here, keys made by tills, digests of what a till sent."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import Any

# 1 to 200 visible ASCII characters: what survives every till's HTTP stack and a log line unquoted.
KEY_LENGTH_MAX = 200
KEY_PATTERN = re.compile(r"[\x21-\x7e]{1,%d}" % KEY_LENGTH_MAX)
_KEYLESS = "keyless:"
_CONFIRMED = "confirmed:"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_id(now_us: int) -> str:
    """A ULID (26 characters): sorts by time, so the store's index grows at its end."""
    value = ((now_us // 1000) << 80) | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def is_id(text: str) -> bool:
    return len(text) == 26 and set(text) <= set(_ALPHABET)


def is_key(text: str) -> bool:
    """Return whether a till may send this key. Those that are made here begin otherwise."""
    return KEY_PATTERN.fullmatch(text) is not None and not text.startswith((_KEYLESS, _CONFIRMED))


def confirmed_key(body_digest: str, confirms: str) -> str:
    """Naming the earlier sale makes the key, so that this one cannot be doubled either."""
    return f"{_CONFIRMED}{digest([body_digest, confirms])[:32]}"


def is_confirmed(idem_key: str) -> bool:
    return idem_key.startswith(_CONFIRMED)


def keyless_key(fingerprint: str, at_us: int) -> str:
    """The key of a sale whose till sent none; unique, since the same sale may come again one day."""
    return f"{_KEYLESS}{fingerprint[:32]}:{at_us}"


def lasting_names(idem_key: str) -> list[str]:
    """The key, and for a sale without one what stays the same when it is sent again later."""
    if idem_key.startswith(_KEYLESS):
        return [idem_key, idem_key.rpartition(":")[0]]
    return [idem_key]


def canonical(value: Any) -> bytes:
    """One byte form for equal JSON values: a till that orders its fields anew has not changed the sale."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


def token_hash(token: str) -> str:
    """SHA-256 (hex) of an unguessable part of a callback address: what is stored in its place."""
    return hashlib.sha256(token.encode()).hexdigest()
