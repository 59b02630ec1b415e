"""Who holds the fingerprint of a till receipt: the same table and upsert as for sales without a key.

Part of the transactions of a claim and of a write-ahead; called by `fiscal/repeats.py` and `fiscal/intake.py`.
"""

from __future__ import annotations

import sqlite3

from gateway.store import invoices
from gateway.store.invoices import InvoiceRow

_TAKE_FINGERPRINT = """
    INSERT INTO keyless (till_id, fingerprint, invoice_id, at)
    VALUES (:till, :fingerprint, :owner, :stamp)
    ON CONFLICT (till_id, fingerprint) DO UPDATE
    SET invoice_id = excluded.invoice_id, at = excluded.at
    WHERE keyless.invoice_id IN (:owner, :confirms)
       OR NOT EXISTS (SELECT 1 FROM invoice WHERE id = keyless.invoice_id
                      AND state IN ('SIGNING', 'IN_DOUBT', 'SIGNED'))
       OR (:at - keyless.at > :window
           AND NOT EXISTS (SELECT 1 FROM invoice WHERE id = keyless.invoice_id
                           AND state IN ('SIGNING', 'IN_DOUBT')))"""


def take(
    conn: sqlite3.Connection,
    till_id: str,
    fingerprint: str,
    owner: str,
    *,
    at: int,
    stamp: int,
    window_us: int,
    confirms: str | None = None,
) -> str | None:
    """Take the fingerprint for `owner`, an invoice or a sale that waits for its money; else return the id of the
    invoice that keeps it: signed less than the window ago, or with an open outcome. `confirms` never keeps it.
    The upsert decides, nothing is asked first. Earlier marks are compared with `at`; the new one gets `stamp`."""
    values = {
        "till": till_id,
        "fingerprint": fingerprint,
        "owner": owner,
        "at": at,
        "stamp": stamp,
        "window": window_us,
        "confirms": confirms,
    }
    if conn.execute(_TAKE_FINGERPRINT, values).rowcount == 1:
        conn.execute("DELETE FROM keyless WHERE at < ?", (at - 2 * window_us,))
        return None
    row = conn.execute(
        "SELECT invoice_id FROM keyless WHERE till_id = ? AND fingerprint = ?",
        (till_id, fingerprint),
    ).fetchone()
    return str(row[0])


def holder(conn: sqlite3.Connection, till_id: str, fingerprint: str) -> InvoiceRow | None:
    """Return the sale that has this fingerprint now, however old it is."""
    return invoices.by_fingerprint(conn, till_id, fingerprint, since=-(2**62))
