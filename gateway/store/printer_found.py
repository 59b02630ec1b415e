"""What each printer was found to answer, so that one that falls silent is not taken for one that cannot answer;
and what a person has said of it."""

from __future__ import annotations

import json
import sqlite3
from typing import Any


def load(
    conn: sqlite3.Connection, printer: str, port: str
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return what was found on this port under this name, None where nothing was, and what was corrected."""
    row = conn.execute(
        "SELECT found, corrected FROM printer_found WHERE printer = ? AND port = ?", (printer, port)
    ).fetchone()
    if row is None:
        return None, {}
    return json.loads(row[0]) if row[0] else None, json.loads(row[1])


def keep(
    conn: sqlite3.Connection, printer: str, port: str, found: dict[str, Any], *, at: int
) -> None:
    """Replace what was found of this printer; what was corrected of another port's printer is gone."""
    conn.execute(
        """INSERT INTO printer_found (printer, port, found, at) VALUES (?, ?, ?, ?)
           ON CONFLICT (printer) DO UPDATE SET
             corrected = CASE WHEN port = excluded.port THEN corrected ELSE '{}' END,
             port = excluded.port, found = excluded.found, at = excluded.at""",
        (printer, port, json.dumps(found), at),
    )


def correct(
    conn: sqlite3.Connection, printer: str, port: str, corrected: dict[str, Any], *, at: int
) -> None:
    """Replace what a person has said of this printer."""
    conn.execute(
        """INSERT INTO printer_found (printer, port, corrected, at) VALUES (?, ?, ?, ?)
           ON CONFLICT (printer) DO UPDATE SET
             found = CASE WHEN port = excluded.port THEN found END,
             port = excluded.port, corrected = excluded.corrected, at = excluded.at""",
        (printer, port, json.dumps(corrected), at),
    )


def forget(conn: sqlite3.Connection, printer: str) -> None:
    """Another printer is on this printer's port."""
    conn.execute("DELETE FROM printer_found WHERE printer = ?", (printer,))
