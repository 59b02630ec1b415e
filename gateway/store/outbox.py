"""The outbox's rows: what the cloud must still get, in the order of signing, without gaps."""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass

_PUT = """
    INSERT INTO outbox (subject_id, kind, payload, sha256, created_at) VALUES (?, ?, ?, ?, ?)"""
_NEXT = """
    SELECT seq, subject_id, kind, payload, sha256, attempts FROM outbox
    WHERE state = 'WAITING' AND seq > ? ORDER BY seq LIMIT ?"""
_FIGURES = """
    SELECT (SELECT COUNT(*) FROM outbox WHERE state = 'WAITING'),
           (SELECT COUNT(*) FROM outbox WHERE state = 'PARKED'),
           (SELECT MIN(created_at) FROM outbox WHERE state = 'WAITING'),
           (SELECT COALESCE(MAX(seq), 0) FROM outbox)"""


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """One record to send. `payload` is canonical JSON, `sha256` its digest."""

    seq: int
    subject_id: str
    kind: str
    payload: bytes
    sha256: str
    attempts: int


@dataclass(frozen=True, slots=True)
class OutboxFigures:
    """`oldest_at` in UTC microseconds."""

    waiting: int
    parked: int
    oldest_at: int | None
    total: int

    @property
    def stored(self) -> int:
        return self.total - self.waiting - self.parked


def put(conn: sqlite3.Connection, *, kind: str, subject_id: str, payload: bytes, at: int) -> None:
    """Part of the commit of what must be sent: signed and queued, or neither."""
    conn.execute(_PUT, (subject_id, kind, payload, hashlib.sha256(payload).hexdigest(), at))


def next_batch(
    conn: sqlite3.Connection, records: int, max_bytes: int, *, after: int = 0
) -> list[OutboxRecord]:
    """The oldest waiting records (behind the seq `after`), at most so many and (but for the first) so
    many bytes."""
    batch: list[OutboxRecord] = []
    size = 0
    for row in conn.execute(_NEXT, (after, records)):
        size += len(row[3])
        if batch and size > max_bytes:
            break
        batch.append(OutboxRecord(*row))
    return batch


def mark_stored(conn: sqlite3.Connection, seqs: list[int], *, at: int) -> None:
    conn.executemany(
        "UPDATE outbox SET state = 'STORED', stored_at = ?, reason = NULL WHERE seq = ?",
        [(at, seq) for seq in seqs],
    )


def park(conn: sqlite3.Connection, seq: int, reason: str) -> None:
    """The cloud refused this record; the rest flows."""
    conn.execute("UPDATE outbox SET state = 'PARKED', reason = ? WHERE seq = ?", (reason, seq))


def count_attempt(conn: sqlite3.Connection, seqs: list[int]) -> None:
    conn.executemany(
        "UPDATE outbox SET attempts = attempts + 1 WHERE seq = ?", [(seq,) for seq in seqs]
    )


def wait_again(conn: sqlite3.Connection, seqs: list[int]) -> None:
    """Parked records whose refusal was the cloud's fault."""
    conn.executemany(
        "UPDATE outbox SET state = 'WAITING', reason = NULL WHERE seq = ? AND state = 'PARKED'",
        [(seq,) for seq in seqs],
    )


def retry_parked(conn: sqlite3.Connection) -> int:
    """Send refused records again, after someone has mended the cause; how many."""
    return conn.execute("UPDATE outbox SET state = 'WAITING' WHERE state = 'PARKED'").rowcount


def parked(conn: sqlite3.Connection) -> list[tuple[int, str, str, str]]:
    """(seq, subject, kind, reason) of what the cloud refused."""
    return conn.execute(
        "SELECT seq, subject_id, kind, reason FROM outbox WHERE state = 'PARKED' ORDER BY seq LIMIT 500"
    ).fetchall()


def figures(conn: sqlite3.Connection) -> OutboxFigures:
    return OutboxFigures(*conn.execute(_FIGURES).fetchone())
