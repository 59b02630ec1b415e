"""Keys of sales that may have been signed by the store that this old copy has replaced."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.ids import lasting_names
from gateway.store import lost_keys


@dataclass(frozen=True, slots=True)
class SaleName:
    """How a sale is known: to its till by the key, to a person by receipt number and total (cents)."""

    till_id: str
    idem_key: str
    till_receipt_no: str | None = None
    total_cents: int | None = None


class KeyedSale(Protocol):
    """A stored or new invoice, as far as its names go."""

    @property
    def till_id(self) -> str: ...
    @property
    def idem_key(self) -> str: ...
    @property
    def till_receipt_no(self) -> str: ...
    @property
    def total_cents(self) -> int: ...


def names_of(sale: KeyedSale) -> list[SaleName]:
    """Return every name under which this sale may come again."""
    return [
        SaleName(sale.till_id, key, sale.till_receipt_no, sale.total_cents)
        for key in lasting_names(sale.idem_key)
    ]


@dataclass(frozen=True, slots=True)
class UnclearKey:
    """`at` in UTC microseconds: when the sale was first sent to this copy of the store, or taken over."""

    sale: SaleName
    at: int


def note(conn: sqlite3.Connection, sale: SaleName, *, at: int, settled: bool = False) -> None:
    """Sent while signing is held; again changes nothing."""
    conn.execute(
        """INSERT INTO unclear_key (till_id, idem_key, till_receipt_no, total_cents, at, settled)
           VALUES (?, ?, ?, ?, ?, ?)
           ON CONFLICT DO UPDATE SET settled = MAX(settled, excluded.settled)""",
        (sale.till_id, sale.idem_key, sale.till_receipt_no, sale.total_cents, at, settled),
    )


def quarantine(conn: sqlite3.Connection, names: Sequence[SaleName], *, at: int) -> None:
    """Record that a sale under any of these names may be signed: it is never sent again."""
    for sale in names:
        conn.execute(
            """INSERT INTO unclear_key (till_id, idem_key, till_receipt_no, total_cents, at, settled)
               VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET settled = 1""",
            (sale.till_id, sale.idem_key, sale.till_receipt_no, sale.total_cents, at),
        )


def settle(conn: sqlite3.Connection) -> int:
    """Quarantine every key that was noted during a signing hold and every sale that is claimed and not signed,
    also one that waits for its M-Pesa money: sales are missing here, and each of these may be one of them.
    Return how many keys that are."""
    claimed = conn.execute(
        """SELECT till_id, idem_key, till_receipt_no, total_cents, created_at
             FROM invoice WHERE state = 'RECEIVED'
           UNION ALL
           SELECT till_id, idem_key, sale_ref, total_cents, created_at
             FROM checkout WHERE state IN ('COLLECTING', 'READY')"""
    ).fetchall()
    for till_id, idem_key, till_receipt_no, total_cents, created_at in claimed:
        for key in lasting_names(idem_key):
            note(conn, SaleName(till_id, key, till_receipt_no, total_cents), at=created_at)
    lost_keys.settle(conn)
    return conn.execute("UPDATE unclear_key SET settled = 1 WHERE settled = 0").rowcount


def forget(conn: sqlite3.Connection) -> None:
    """No sale is missing here: what was sent meanwhile is new."""
    lost_keys.forget(conn)
    conn.execute("DELETE FROM unclear_key WHERE settled = 0")


def is_settled(conn: sqlite3.Connection, till_id: str, idem_key: str) -> bool:
    row = conn.execute(
        "SELECT settled FROM unclear_key WHERE till_id = ? AND idem_key = ?", (till_id, idem_key)
    ).fetchone()
    if row is not None and row[0] == 1:
        return True
    return lost_keys.is_settled(conn, till_id, idem_key)


def may_be_signed(conn: sqlite3.Connection, sale: KeyedSale) -> bool:
    """Return whether any name of this sale is quarantined."""
    return any(is_settled(conn, name.till_id, name.idem_key) for name in names_of(sale))


def any_settled(conn: sqlite3.Connection) -> bool:
    query = "SELECT 1 FROM unclear_key WHERE settled = 1 LIMIT 1"
    return conn.execute(query).fetchone() is not None or lost_keys.any_settled(conn)


def count(conn: sqlite3.Connection) -> int:
    return int(conn.execute("SELECT COUNT(*) FROM unclear_key").fetchone()[0])


def newest(conn: sqlite3.Connection, limit: int) -> list[UnclearKey]:
    rows = conn.execute(
        """SELECT at, till_id, idem_key, till_receipt_no, total_cents
             FROM unclear_key ORDER BY at DESC LIMIT ?""",
        (limit,),
    ).fetchall()
    return [UnclearKey(SaleName(*sale), at) for at, *sale in rows]
