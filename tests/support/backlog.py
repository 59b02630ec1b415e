"""A shop that was offline for long: so many records wait for the cloud."""

from __future__ import annotations

import sqlite3

from gateway.ids import canonical
from gateway.store import outbox
from gateway.store.database import Database


async def fill(db: Database, count: int) -> None:
    payload = canonical({"x": "receipt " * 150})

    def put(conn: sqlite3.Connection, start: int) -> None:
        for number in range(start, min(start + 5000, count)):
            outbox.put(
                conn,
                kind="receipt",
                subject_id=f"invoice-{number}",
                payload=payload.replace(b'"x"', b'"%d"' % number),
                at=number,
            )

    for start in range(0, count, 5000):
        await db.write(lambda conn, start=start: put(conn, start))
