"""Signed receipts, append-only, chained by hash in the order in which the gateway stored them.

The chain's rule is plain, so that an inspector can check it with a short script: hash =
SHA-256(previous + "\\n" + the receipt's canonical JSON), and the first `previous` is 64 zeros.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gateway.clock import compact, from_compact, micros
from gateway.domain.receipt import Receipt
from gateway.ids import canonical
from gateway.store import meta

GENESIS = "0" * 64
_COLUMNS = """
    seq, invoice_id, label, invc_no, rcpt_no, tot_rcpt_no, sdc_id, mrc_no, intrl_data, rcpt_sign,
    scu_time, total_cents, how, signed_at, previous, hash"""
_INSERT = """
    INSERT INTO receipt (invoice_id, label, invc_no, rcpt_no, tot_rcpt_no, sdc_id, mrc_no,
                         intrl_data, rcpt_sign, scu_time, total_cents, how, signed_at, previous,
                         hash)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_LAST_HASH = "SELECT hash FROM receipt ORDER BY seq DESC LIMIT 1"
_BY_INVOICE = f"SELECT {_COLUMNS} FROM receipt WHERE invoice_id = ?"
_RECENT_WITH_TILL = f"""
    SELECT {", ".join("r." + name.strip() for name in _COLUMNS.split(","))}, i.till_id
    FROM receipt r JOIN invoice i ON i.id = r.invoice_id ORDER BY r.seq DESC LIMIT ?"""
_RECENT = f"SELECT {_COLUMNS} FROM receipt ORDER BY seq DESC LIMIT ?"


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    seq: int
    invoice_id: str
    label: str
    invc_no: int
    rcpt_no: int
    tot_rcpt_no: int
    sdc_id: str
    mrc_no: str | None
    intrl_data: str
    rcpt_sign: str
    scu_time: str
    total_cents: int
    how: str
    signed_at: int
    previous: str
    hash: str

    @property
    def receipt(self) -> Receipt:
        return Receipt(
            label=self.label,
            invc_no=self.invc_no,
            rcpt_no=self.rcpt_no,
            tot_rcpt_no=self.tot_rcpt_no,
            sdc_id=self.sdc_id,
            mrc_no=self.mrc_no,
            intrl_data=self.intrl_data,
            rcpt_sign=self.rcpt_sign,
            scu_time=from_compact(self.scu_time),
        )


def chained_fields(
    invoice_id: str, receipt: Receipt, total_cents: int, how: str, signed_at: int
) -> dict[str, Any]:
    """What the chain covers, in the field's own names."""
    return {
        "invoiceId": invoice_id,
        "label": receipt.label,
        "invcNo": receipt.invc_no,
        "rcptNo": receipt.rcpt_no,
        "totRcptNo": receipt.tot_rcpt_no,
        "sdcId": receipt.sdc_id,
        "mrcNo": receipt.mrc_no,
        "intrlData": receipt.intrl_data,
        "rcptSign": receipt.rcpt_sign,
        "scuTime": compact(receipt.scu_time),
        "totalCents": total_cents,
        "how": how,
        "signedAt": signed_at,
    }


def chain(previous: str, fields: dict[str, Any]) -> str:
    return hashlib.sha256(previous.encode() + b"\n" + canonical(fields)).hexdigest()


def append(
    conn: sqlite3.Connection,
    *,
    invoice_id: str,
    receipt: Receipt,
    total_cents: int,
    how: str,
    at: int,
) -> str:
    """Add one receipt to the journal; its hash. `how` is ANSWER, RECOVERED or PERSON."""
    last = conn.execute(_LAST_HASH).fetchone()
    previous = last[0] if last else GENESIS
    digest = chain(previous, chained_fields(invoice_id, receipt, total_cents, how, at))
    conn.execute(
        _INSERT,
        (
            invoice_id,
            receipt.label,
            receipt.invc_no,
            receipt.rcpt_no,
            receipt.tot_rcpt_no,
            receipt.sdc_id,
            receipt.mrc_no,
            receipt.intrl_data,
            receipt.rcpt_sign,
            compact(receipt.scu_time),
            total_cents,
            how,
            at,
            previous,
            digest,
        ),
    )
    return digest


def by_invoice(conn: sqlite3.Connection, invoice_id: str) -> ReceiptRow | None:
    row = conn.execute(_BY_INVOICE, (invoice_id,)).fetchone()
    return ReceiptRow(*row) if row else None


def recent(conn: sqlite3.Connection, limit: int) -> list[ReceiptRow]:
    """The newest receipts, newest first."""
    return [ReceiptRow(*row) for row in conn.execute(_RECENT, (limit,))]


def recent_with_till(conn: sqlite3.Connection, limit: int) -> list[tuple[ReceiptRow, str]]:
    """The newest receipts with the till each was sold at, newest first."""
    return [(ReceiptRow(*row[:-1]), row[-1]) for row in conn.execute(_RECENT_WITH_TILL, (limit,))]


def after(conn: sqlite3.Connection, seq: int, limit: int) -> list[ReceiptRow]:
    """The next receipts in the order of the chain."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM receipt WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)
    )
    return [ReceiptRow(*row) for row in rows]


def hash_at(conn: sqlite3.Connection, seq: int) -> str | None:
    """Return the hash of the receipt in this row; None where there is none."""
    row = conn.execute("SELECT hash FROM receipt NOT INDEXED WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else str(row[0])


def by_counter(conn: sqlite3.Connection, sdc_id: str, tot_rcpt_no: int) -> ReceiptRow | None:
    """The receipt that has this total counter of this unit."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM receipt WHERE sdc_id = ? AND tot_rcpt_no = ?",
        (sdc_id, tot_rcpt_no),
    ).fetchone()
    return ReceiptRow(*row) if row else None


def by_signature(conn: sqlite3.Connection, rcpt_sign: str) -> ReceiptRow | None:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM receipt WHERE rcpt_sign = ?", (rcpt_sign,)
    ).fetchone()
    return ReceiptRow(*row) if row else None


def newest_on_portal(conn: sqlite3.Connection) -> list[ReceiptRow]:
    """The receipts of which one is the newest that KRA's portal shows, newest first: back to the last sale or
    credit note, because a portal may not show training and proforma receipts."""
    rows = conn.execute(
        f"""SELECT {_COLUMNS} FROM receipt WHERE seq >= COALESCE(
                (SELECT seq FROM receipt WHERE label IN ('NS', 'NC') ORDER BY seq DESC LIMIT 1), 0)
            ORDER BY seq DESC LIMIT 1000"""
    )
    return [ReceiptRow(*row) for row in rows]


def last_counter(conn: sqlite3.Connection) -> int:
    """Return the unit's receipt counter as this store accounts for it; 0 before the first receipt.

    It is that of the last receipt here, or the one that the unit had at the last numbering decision, with
    which an operator accounted for receipts that this store does not have.
    """
    newest = last(conn)
    accounted = int(meta.get(conn, meta.COUNTER_ACCOUNTED) or 0)
    return max(accounted, 0 if newest is None else newest.tot_rcpt_no)


def since(conn: sqlite3.Connection, start_us: int) -> tuple[int | None, int]:
    """(when the first receipt since `start_us` was signed, how many there are), UTC microseconds."""
    row = conn.execute(
        "SELECT MIN(signed_at), COUNT(*) FROM receipt WHERE signed_at >= ?", (start_us,)
    ).fetchone()
    return row[0], int(row[1])


def count_between(conn: sqlite3.Connection, start: datetime, end: datetime) -> int:
    """Receipts signed in [start, end), by the gateway's clock."""
    row = conn.execute(
        "SELECT COUNT(*) FROM receipt WHERE signed_at >= ? AND signed_at < ?",
        (micros(start), micros(end)),
    ).fetchone()
    return int(row[0])


def last(conn: sqlite3.Connection) -> ReceiptRow | None:
    rows = recent(conn, 1)
    return rows[0] if rows else None
