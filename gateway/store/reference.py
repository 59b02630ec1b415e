"""KRA's lists in the store: rows by list and key, and each list's watermark."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_PUT = """
    INSERT INTO reference (list, key, body, updated_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (list, key) DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at
    WHERE body <> excluded.body"""
_MARK = """
    INSERT INTO reference_list (name, watermark, refreshed_at) VALUES (?, ?, ?)
    ON CONFLICT (name) DO UPDATE
    SET watermark = excluded.watermark, refreshed_at = excluded.refreshed_at"""
_PAGE = "SELECT key, body FROM reference WHERE list = ? AND key > ? ORDER BY key LIMIT ?"


@dataclass(frozen=True, slots=True)
class ListState:
    """`watermark` as KRA counts (yyyymmddhhmmss); `refreshed_at` UTC microseconds."""

    watermark: str
    refreshed_at: int | None


def state(conn: sqlite3.Connection, name: str) -> ListState | None:
    row = conn.execute(
        "SELECT watermark, refreshed_at FROM reference_list WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else ListState(*row)


def put(
    conn: sqlite3.Connection, name: str, rows: Iterable[tuple[str, Mapping[str, Any]]], *, at: int
) -> int:
    """Insert or replace rows, each (key, JSON-ready body); how many are new or other than before."""
    before = conn.total_changes
    conn.executemany(
        _PUT,
        (
            (name, key, json.dumps(body, ensure_ascii=False, separators=(",", ":")), at)
            for key, body in rows
        ),
    )
    return conn.total_changes - before


def mark(conn: sqlite3.Connection, name: str, watermark: str, *, at: int) -> None:
    """The list is complete up to `watermark`. Only in the transaction that stored its rows."""
    conn.execute(_MARK, (name, watermark, at))


def page(
    conn: sqlite3.Connection, name: str, *, after: str = "", limit: int
) -> list[tuple[str, dict[str, Any]]]:
    """Rows in the order of their keys, behind `after`."""
    return [(key, json.loads(body)) for key, body in conn.execute(_PAGE, (name, after, limit))]


def one(conn: sqlite3.Connection, name: str, key: str) -> dict[str, Any] | None:
    row = conn.execute(
        "SELECT body FROM reference WHERE list = ? AND key = ?", (name, key)
    ).fetchone()
    return None if row is None else dict(json.loads(row[0]))


def refreshed(conn: sqlite3.Connection) -> dict[str, int | None]:
    """When each list was last read to its end, UTC microseconds."""
    rows = conn.execute("SELECT name, refreshed_at FROM reference_list ORDER BY name").fetchall()
    return dict(rows)
