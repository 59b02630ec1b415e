"""Digests of keys that this store had claimed, or the store before it, and has lost.

Only the witness still knew them, and it knows no names. Until an operator has decided, they are kept aside;
once it is decided that sales are missing here, a key with such a digest is never signed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from gateway.store import digests


def add(conn: sqlite3.Connection, lost: Iterable[bytes]) -> None:
    """Record digests of lost keys. Idempotent."""
    conn.executemany(
        "INSERT INTO lost_key (digest) VALUES (?) ON CONFLICT DO NOTHING",
        ((digest,) for digest in lost),
    )


def settle(conn: sqlite3.Connection) -> None:
    """Quarantine all of them: sales are missing here."""
    conn.execute("UPDATE lost_key SET settled = 1 WHERE settled = 0")


def forget(conn: sqlite3.Connection) -> None:
    """Delete those that no decision has quarantined: no sale is missing here."""
    conn.execute("DELETE FROM lost_key WHERE settled = 0")


def is_settled(conn: sqlite3.Connection, till_id: str, idem_key: str) -> bool:
    """Return whether this key is quarantined."""
    row = conn.execute(
        "SELECT settled FROM lost_key WHERE digest = ?", (digests.key(till_id, idem_key),)
    ).fetchone()
    return row is not None and row[0] == 1


def any_settled(conn: sqlite3.Connection) -> bool:
    """Return whether any key is quarantined by its digest."""
    return conn.execute("SELECT 1 FROM lost_key WHERE settled = 1 LIMIT 1").fetchone() is not None
