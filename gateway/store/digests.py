"""Digests that a row carries of itself, so that a changed byte is found before the row is believed.

An index may lead to the wrong row and a page may change without any checksum of SQLite noticing it. `claim`
covers what a till sent and never changes, `outcome` what the row is in its present state, `key` is what the
witness stores of one claimed key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

# Bytes; no attacker, only chance, so that 128 bits are plenty.
SIZE = 16


def claim(fields: Iterable[object], request: bytes) -> bytes:
    """Return the digest of what was claimed, followed by the digest of the till's own body."""
    return core(b"claim", fields) + core(b"request", (request,))


def outcome(fields: Iterable[object]) -> bytes:
    """Return the digest of the state, the number, the sent bytes and the answer."""
    return core(b"outcome", fields)


def key(till_id: str, idem_key: str) -> bytes:
    """Return the digest under which the witness knows this key."""
    return core(b"key", (till_id, idem_key))


def core(purpose: bytes, fields: Iterable[object]) -> bytes:
    """Return the BLAKE2b of the fields with type and length of each, so that none can take another's place."""
    digest = hashlib.blake2b(digest_size=SIZE, person=purpose)
    for field in fields:
        if isinstance(field, bytes):
            body, kind = field, b"B"
        elif isinstance(field, str):
            body, kind = field.encode(), b"S"
        else:
            body, kind = repr(field).encode(), b"N"
        digest.update(kind + len(body).to_bytes(8, "big"))
        digest.update(body)
    return digest.digest()
