"""The ceiling's checkpoint: one row, so that a reboot does not give hours back."""

from __future__ import annotations

import sqlite3

from gateway.domain.ceiling import Checkpoint, ClockReading

_LOAD = """
    SELECT boot_id, boottime_ns, wall_us, high_water_us, contact_age_us, unsent_age_us, kra_us,
           counted_us
    FROM continuity WHERE id = 1"""
_SAVE = """
    INSERT INTO continuity (id, boot_id, boottime_ns, wall_us, high_water_us, contact_age_us,
                            unsent_age_us, contact_at, kra_time, kra_us, counted_us)
    VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        boot_id = excluded.boot_id, boottime_ns = excluded.boottime_ns,
        wall_us = excluded.wall_us, high_water_us = excluded.high_water_us,
        contact_age_us = excluded.contact_age_us, unsent_age_us = excluded.unsent_age_us,
        contact_at = COALESCE(excluded.contact_at, contact_at),
        kra_time = COALESCE(excluded.kra_time, kra_time),
        kra_us = excluded.kra_us, counted_us = excluded.counted_us"""


def load(conn: sqlite3.Connection) -> Checkpoint | None:
    row = conn.execute(_LOAD).fetchone()
    if row is None:
        return None
    return Checkpoint(ClockReading(row[2], row[1], row[0]), *row[3:])


def save(
    conn: sqlite3.Connection,
    at: Checkpoint,
    *,
    contact_at: int | None = None,
    kra_time: str | None = None,
) -> None:
    """`contact_at` (UTC microseconds) and KRA's own stamp only when this is a contact."""
    reading = at.reading
    conn.execute(
        _SAVE,
        (
            reading.boot_id,
            reading.boottime_ns,
            reading.wall_us,
            at.high_water_us,
            at.contact_age_us,
            at.unsent_age_us,
            contact_at,
            kra_time,
            at.kra_us,
            at.counted_us,
        ),
    )


def last_contact(conn: sqlite3.Connection) -> tuple[int | None, str | None]:
    """(when, UTC microseconds; KRA's stamp) of the last contact by the wall clock, for display."""
    row = conn.execute("SELECT contact_at, kra_time FROM continuity WHERE id = 1").fetchone()
    return (None, None) if row is None else (row[0], row[1])
