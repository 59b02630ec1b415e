"""Captured slips: kept as they came, so that none is lost between till and unit."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_COLUMNS = """id, device, till_id, raw, text, state, reason, receipt_no, dated, total_cents, content,
    idem_key, reprint, taken, invoice_id, at"""
# Earlier slips of one number that are looked at: a number that starts again each day has many.
EARLIER_MAX = 400


@dataclass(frozen=True, slots=True)
class Captured:
    """One slip. `receipt_no` to `idem_key` are None where it could not be read as a sale."""

    id: int
    device: str
    till_id: str
    raw: bytes
    text: str
    state: str
    reason: str | None
    receipt_no: str | None
    dated: str | None
    total_cents: int | None
    content: str | None
    idem_key: str | None
    reprint: int
    taken: int
    invoice_id: str | None
    at: int


@dataclass(frozen=True, slots=True)
class NewSlip:
    """What is put down of a slip when it comes."""

    device: str
    till_id: str
    raw: bytes
    text: str
    state: str
    reason: str | None
    at: int
    receipt_no: str | None = None
    dated: str | None = None
    total_cents: int | None = None
    content: str | None = None
    idem_key: str | None = None
    reprint: bool = False
    invoice_id: str | None = None


def add(conn: sqlite3.Connection, slip: NewSlip) -> int:
    cursor = conn.execute(
        """INSERT INTO captured_slip (device, till_id, raw, text, state, reason, receipt_no, dated,
                                      total_cents, content, idem_key, reprint, invoice_id, at, updated_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            slip.device, slip.till_id, slip.raw, slip.text, slip.state, slip.reason, slip.receipt_no,
            slip.dated, slip.total_cents, slip.content, slip.idem_key, int(slip.reprint),
            slip.invoice_id, slip.at, slip.at,
        ),
    )  # fmt: skip
    return int(cursor.lastrowid or 0)


def by_id(conn: sqlite3.Connection, capture_id: int) -> Captured | None:
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM captured_slip WHERE id = ?", (capture_id,)
    ).fetchone()
    return Captured(*row) if row else None


def in_state(conn: sqlite3.Connection, state: str, device: str | None = None) -> list[Captured]:
    """Oldest first, at most 200."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM captured_slip WHERE state = ? AND (? IS NULL OR device = ?)"
        " ORDER BY id LIMIT 200",
        (state, device, device),
    )
    return [Captured(*row) for row in rows]


def newest(conn: sqlite3.Connection, limit: int, device: str | None = None) -> list[Captured]:
    """Newest first, whatever became of them."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM captured_slip WHERE (? IS NULL OR device = ?) ORDER BY id DESC LIMIT ?",
        (device, device, limit),
    )
    return [Captured(*row) for row in rows]


def newest_states(conn: sqlite3.Connection, device: str, limit: int) -> list[str]:
    """Return the states of the newest slips of a device, newest first."""
    rows = conn.execute(
        "SELECT state FROM captured_slip WHERE device = ? ORDER BY id DESC LIMIT ?", (device, limit)
    )
    return [str(row[0]) for row in rows]


def of_number(conn: sqlite3.Connection, till_id: str, receipt_no: str) -> list[Captured]:
    """What this till printed under a number before, newest first."""
    rows = conn.execute(
        f"""SELECT {_COLUMNS} FROM captured_slip WHERE till_id = ? AND receipt_no = ?
            AND state IN ('WAITING', 'SIGNED', 'UNREAD', 'DISMISSED') ORDER BY id DESC LIMIT ?""",
        (till_id, receipt_no, EARLIER_MAX),
    )
    return [Captured(*row) for row in rows]


def first_of_key(conn: sqlite3.Connection, till_id: str, receipt_no: str, key: str) -> Captured:
    """The slip that a reprint repeats."""
    row = conn.execute(
        f"""SELECT {_COLUMNS} FROM captured_slip WHERE till_id = ? AND receipt_no = ? AND idem_key = ?
            AND reprint = 0 ORDER BY id DESC LIMIT 1""",
        (till_id, receipt_no, key),
    ).fetchone()
    return Captured(*row)


def sold_alike(
    conn: sqlite3.Connection, captured: Captured, receipt_no: str, total_cents: int
) -> Captured | None:
    """A slip of the same till with this number and total, or the very same text, that is sold or about
    to be."""
    row = conn.execute(
        f"""SELECT {_COLUMNS} FROM captured_slip
            WHERE till_id = ? AND state IN ('SIGNED', 'WAITING') AND id <> ?
              AND ((receipt_no = ? AND total_cents = ?) OR (id > ? - 2000 AND text = ?))
            ORDER BY id DESC LIMIT 1""",
        (captured.till_id, captured.id, receipt_no, total_cents, captured.id, captured.text),
    ).fetchone()
    return Captured(*row) if row else None


def take(conn: sqlite3.Connection, capture_id: int, receipt_no: str, total_cents: int) -> bool:
    """A person begins to sell it; False when it is settled already. What the person read stands for
    what the template could not, so that a reprint is known from now on."""
    cursor = conn.execute(
        """UPDATE captured_slip SET taken = 1,
                  receipt_no = CASE WHEN content IS NULL THEN ? ELSE receipt_no END,
                  total_cents = CASE WHEN content IS NULL THEN ? ELSE total_cents END
           WHERE id = ? AND state = 'UNREAD'""",
        (receipt_no, total_cents, capture_id),
    )
    return cursor.rowcount == 1


def settle(
    conn: sqlite3.Connection, capture_id: int, state: str, *, reason: str | None = None,
    invoice_id: str | None = None, at: int,
) -> bool:  # fmt: skip
    """False when it was settled already."""
    cursor = conn.execute(
        """UPDATE captured_slip SET state = ?, reason = ?, invoice_id = ?, updated_at = ?
           WHERE id = ? AND state IN ('WAITING', 'UNREAD')""",
        (state, reason, invoice_id, at, capture_id),
    )
    return cursor.rowcount == 1


def count_unread(conn: sqlite3.Connection) -> int:
    row = conn.execute("SELECT COUNT(*) FROM captured_slip WHERE state = 'UNREAD'").fetchone()
    return int(row[0])
