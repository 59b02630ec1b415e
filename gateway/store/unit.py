"""What the gateway knows of its control unit: the next number, its ids, the tax rates it served."""

from __future__ import annotations

import json
import sqlite3
from decimal import Decimal
from typing import Any

from gateway.domain.tax import DEFAULT_RATES, RateTable, TaxRate
from gateway.store import meta


def ensure(conn: sqlite3.Connection, *, first_invoice_no: int, at: int) -> None:
    """The unit's single row, made once. An installed gateway's numbering is never set back."""
    conn.execute(
        "INSERT INTO unit (id, next_invc_no, updated_at) VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
        (first_invoice_no, at),
    )


def next_invc_no(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT next_invc_no FROM unit WHERE id = 1").fetchone()[0])


def rising_stamp(conn: sqlite3.Connection, at: int) -> int:
    """`at`, or the last time a sale was stamped with if that is later; kept for the next one."""
    row = conn.execute(
        "UPDATE unit SET last_stamp = MAX(last_stamp, ?) WHERE id = 1 RETURNING last_stamp", (at,)
    ).fetchone()
    return int(row[0])


def use_up(conn: sqlite3.Connection, invc_no: int, *, at: int) -> None:
    """`invc_no` is signed, or nobody can say that it is not: the next sale gets a higher one."""
    conn.execute(
        "UPDATE unit SET next_invc_no = MAX(next_invc_no, ?), updated_at = ? WHERE id = 1",
        (invc_no + 1, at),
    )


def remember_device(
    conn: sqlite3.Connection,
    *,
    sdc_id: str | None,
    mrc_no: str | None,
    info: bytes | None = None,
    last_invc_no: int | None = None,
    at: int,
) -> None:
    """Ids from `selectInitInfo` or a sale's answer. The init answer is one-shot (etims.md 1.5)."""
    conn.execute(
        """UPDATE unit SET sdc_id = COALESCE(?, sdc_id), mrc_no = COALESCE(?, mrc_no),
                           info = COALESCE(?, info), updated_at = ? WHERE id = 1""",
        (sdc_id, mrc_no, info, at),
    )
    if last_invc_no is not None:
        # Seed from the unit's own last number, so that the first sale never collides (etims.md 1.5).
        use_up(conn, last_invc_no, at=at)


def assume_ids(conn: sqlite3.Connection, *, sdc_id: str | None, mrc_no: str | None) -> None:
    """Store the ids of the settings, for a unit that never gives its own (etims.md 12, item 9)."""
    for key, value in ((meta.SDC_ID_SET, sdc_id), (meta.MRC_NO_SET, mrc_no)):
        if value is None:
            meta.remove(conn, key)
        else:
            meta.put(conn, key, value)


def device(conn: sqlite3.Connection) -> dict[str, Any]:
    """The next number, and the unit's ids: its own where it ever gave them, else those of the settings."""
    row = conn.execute("SELECT next_invc_no, sdc_id, mrc_no FROM unit WHERE id = 1").fetchone()
    return {
        "next_invc_no": row[0],
        "own_sdc_id": row[1],
        "sdc_id": row[1] or meta.get(conn, meta.SDC_ID_SET),
        "mrc_no": row[2] or meta.get(conn, meta.MRC_NO_SET),
    }


def save_rates(conn: sqlite3.Connection, rates: RateTable, *, at: int) -> None:
    body = [[r.letter, str(r.percent), r.name, r.short] for r in rates.values()]
    conn.execute(
        "UPDATE unit SET rates = ?, updated_at = ? WHERE id = 1", (json.dumps(body).encode(), at)
    )


def load_rates(conn: sqlite3.Connection) -> RateTable:
    """The rates last served by the unit; KRA's published ones before the first time."""
    row = conn.execute("SELECT rates FROM unit WHERE id = 1").fetchone()
    if row is None or row[0] is None:
        return dict(DEFAULT_RATES)
    rows = json.loads(row[0])
    served = {
        letter: TaxRate(letter, Decimal(pct), name, short) for letter, pct, name, short in rows
    }
    return {**DEFAULT_RATES, **served}
