"""The durable inbox: what M-Pesa sent, exactly, before anybody has read it; and what became of it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_COLUMNS = "id, origin, kind, token_hash, raw, peer, received_at, state, payment_id, reason"
_INSERT = """
    INSERT INTO mpesa_message (origin, origin_id, kind, token_hash, raw, peer, received_at)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (origin_id) DO NOTHING"""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """`origin`: RELAY or DIRECT; `origin_id` the relay's number; `at` UTC microseconds."""

    origin: str
    origin_id: str | None
    kind: str
    token_hash: str
    raw: bytes
    peer: str
    at: int


@dataclass(frozen=True, slots=True)
class Message:
    """`state`: NEW, DONE, or UNMATCHED with the reason why nothing came of it."""

    id: int
    origin: str
    kind: str
    token_hash: str
    raw: bytes
    peer: str
    received_at: int
    state: str
    payment_id: str | None
    reason: str | None


def put(conn: sqlite3.Connection, new: NewMessage) -> bool:
    """False when the relay had delivered it before."""
    values = (new.origin, new.origin_id, new.kind, new.token_hash, new.raw, new.peer, new.at)
    return conn.execute(_INSERT, values).rowcount == 1


def by_id(conn: sqlite3.Connection, number: int) -> Message | None:
    row = conn.execute(f"SELECT {_COLUMNS} FROM mpesa_message WHERE id = ?", (number,)).fetchone()
    return None if row is None else Message(*row)


def open_after(conn: sqlite3.Connection, number: int, limit: int) -> list[int]:
    """The numbers of the next messages that nobody has worked off, in the order they came."""
    rows = conn.execute(
        "SELECT id FROM mpesa_message WHERE state = 'NEW' AND id > ? ORDER BY id LIMIT ?",
        (number, limit),
    )
    return [int(row[0]) for row in rows]


def settle(
    conn: sqlite3.Connection,
    number: int,
    state: str,
    *,
    at: int,
    payment_id: str | None = None,
    reason: str | None = None,
) -> None:
    """DONE or UNMATCHED, once."""
    conn.execute(
        """UPDATE mpesa_message SET state = ?, settled_at = ?, payment_id = ?, reason = ?
           WHERE id = ? AND state = 'NEW'""",
        (state, at, payment_id, reason, number),
    )


def forget_forged(conn: sqlite3.Connection, reason: str, keep: int) -> int:
    """Deletes UNMATCHED messages with this reason but for the newest `keep`; how many. Strangers can send
    as many as they like, and must not fill the disk that sales are kept on."""
    cursor = conn.execute(
        """DELETE FROM mpesa_message WHERE state = 'UNMATCHED' AND reason = ? AND id <= (
               SELECT id FROM mpesa_message WHERE state = 'UNMATCHED' AND reason = ?
               ORDER BY id DESC LIMIT 1 OFFSET ?)""",
        (reason, reason, keep),
    )
    return cursor.rowcount
