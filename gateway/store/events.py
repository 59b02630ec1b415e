"""The append-only story: what happened to an invoice, the unit, a printer, and when."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INSERT = "INSERT INTO event (at, kind, subject, till_id, data) VALUES (?, ?, ?, ?, ?)"
_AFTER = """
    SELECT id, at, kind, subject, till_id, data FROM event
    WHERE id > ? AND (till_id IS NULL OR till_id = ? OR ? IS NULL) ORDER BY id LIMIT ?"""
_STORY = "SELECT id, at, kind, subject, till_id, data FROM event WHERE subject = ? ORDER BY id"


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` is dotted past tense (`receipt.signed`); `at` UTC microseconds; `till_id` None = all."""

    id: int
    at: int
    kind: str
    subject: str | None
    till_id: str | None
    data: dict[str, Any]


def record(
    conn: sqlite3.Connection,
    *,
    at: int,
    kind: str,
    subject: str | None = None,
    till_id: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> int:
    """Append one event inside the caller's transaction; its id."""
    body = json.dumps(data or {}, separators=(",", ":"), ensure_ascii=False)
    return int(conn.execute(_INSERT, (at, kind, subject, till_id, body)).lastrowid or 0)


def after(conn: sqlite3.Connection, last_id: int, till_id: str | None, limit: int) -> list[Event]:
    """Up to `limit` events newer than `last_id`; with a till: its own and everybody's."""
    return [_event(row) for row in conn.execute(_AFTER, (last_id, till_id, till_id, limit))]


def story(conn: sqlite3.Connection, subject: str) -> list[Event]:
    """All that happened to one invoice, in order."""
    return [_event(row) for row in conn.execute(_STORY, (subject,))]


def newest_of(conn: sqlite3.Connection, subject: str, since: int, limit: int) -> list[Event]:
    """What happened to a subject from then on (UTC microseconds), newest first."""
    rows = conn.execute(
        "SELECT id, at, kind, subject, till_id, data FROM event WHERE subject = ? AND at >= ? "
        "ORDER BY id DESC LIMIT ?",
        (subject, since, limit),
    )
    return [_event(row) for row in rows]


def of_kind(conn: sqlite3.Connection, kind: str) -> list[Event]:
    """All events of one kind, oldest first."""
    rows = conn.execute(
        "SELECT id, at, kind, subject, till_id, data FROM event WHERE kind = ? ORDER BY id", (kind,)
    )
    return [_event(row) for row in rows]


def newest_id(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT COALESCE(MAX(id), 0) FROM event").fetchone()[0])


def _event(row: tuple[Any, ...]) -> Event:
    return Event(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]))
