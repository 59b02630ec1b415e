"""What is recorded beside a payment: how M-Pesa showed it, which payments a person called two, QR codes,
reversals by customers, and rows of M-Pesa's list that are no customer's payment."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from gateway.store.payments import PaymentRow, where


@dataclass(frozen=True, slots=True)
class Shown:
    """How M-Pesa announced a payment. `payer`: whole, masked, or 64 hex digits; `paid_at` None: no time given."""

    payer: str | None
    kind: str
    paid_at: int | None


@dataclass(frozen=True, slots=True)
class Reversal:
    """A customer's payment that M-Pesa reports as taken back."""

    id: int
    receipt: str
    payment_id: str | None
    source: str
    at: int
    settled_at: int | None


@dataclass(frozen=True, slots=True)
class OtherRow:
    """A row of M-Pesa's list that is no customer's payment."""

    receipt: str
    kind: str
    cents: int
    paid_at: int


# --- announcements ----------------------------------------------------------------------------------


def note(conn: sqlite3.Connection, payment_id: str, shown: Shown) -> None:
    """Record how M-Pesa showed a payment; the last announcement counts, and a missing value replaces none."""
    conn.execute(
        """INSERT INTO payment_shown (payment_id, payer, kind, paid_at) VALUES (?, ?, ?, ?)
           ON CONFLICT (payment_id) DO UPDATE SET payer = COALESCE(excluded.payer, payer),
               kind = CASE excluded.kind WHEN '' THEN kind ELSE excluded.kind END,
               paid_at = COALESCE(excluded.paid_at, paid_at)""",
        (payment_id, shown.payer, shown.kind, shown.paid_at),
    )


def shown(conn: sqlite3.Connection, payment_id: str) -> Shown | None:
    row = conn.execute(
        "SELECT payer, kind, paid_at FROM payment_shown WHERE payment_id = ?", (payment_id,)
    ).fetchone()
    return None if row is None else Shown(*row)


def receipts_to_follow(
    conn: sqlite3.Connection, amount_cents: int, since: int, until: int
) -> list[PaymentRow]:
    """Return pushes sent in [since, until) that were paid this much under a receipt that is not known."""
    return where(
        conn,
        """kind = 'STK' AND receipt IS NULL AND merged_into IS NULL AND money IN ('PAID', 'REFUNDED')
           AND sent_at >= ? AND sent_at < ? AND COALESCE(paid_cents, amount_cents) = ? ORDER BY seq""",
        (since, until, amount_cents),
    )


def announced(
    conn: sqlite3.Connection, amount_cents: int, since: int, until: int
) -> list[PaymentRow]:
    """Return unasked payments of this amount that came in [since, until)."""
    return where(
        conn,
        """kind = 'C2B' AND merged_into IS NULL AND paid_at >= ? AND paid_at < ?
           AND COALESCE(paid_cents, amount_cents) = ? ORDER BY seq""",
        (since, until, amount_cents),
    )


def announced_between(conn: sqlite3.Connection, since: int, until: int) -> list[PaymentRow]:
    """Return unasked payments of any amount that came in [since, until)."""
    return where(
        conn,
        "kind = 'C2B' AND merged_into IS NULL AND paid_at >= ? AND paid_at < ? ORDER BY seq",
        (since, until),
    )


def set_apart(
    conn: sqlite3.Connection, push_id: str, c2b_id: str, who: str, reason: str, *, at: int
) -> None:
    conn.execute(
        "INSERT OR IGNORE INTO payment_apart (push_id, c2b_id, who, reason, at) VALUES (?, ?, ?, ?, ?)",
        (push_id, c2b_id, who, reason, at),
    )


def are_apart(conn: sqlite3.Connection, push_id: str, c2b_id: str) -> bool:
    sql = "SELECT 1 FROM payment_apart WHERE push_id = ? AND c2b_id = ?"
    return conn.execute(sql, (push_id, c2b_id)).fetchone() is not None


# --- M-Pesa's list ----------------------------------------------------------------------------------


def keep_other_row(conn: sqlite3.Connection, row: OtherRow, *, at: int) -> bool:
    """Return False when the row was recorded before."""
    cursor = conn.execute(
        """INSERT INTO pulled_row (receipt, kind, cents, paid_at, seen_at) VALUES (?, ?, ?, ?, ?)
           ON CONFLICT DO NOTHING""",
        (row.receipt, row.kind, row.cents, row.paid_at, at),
    )
    return cursor.rowcount == 1


def other_rows(conn: sqlite3.Connection, since: int, until: int, limit: int) -> list[OtherRow]:
    rows = conn.execute(
        """SELECT receipt, kind, cents, paid_at FROM pulled_row WHERE paid_at >= ? AND paid_at < ?
           ORDER BY paid_at DESC LIMIT ?""",
        (since, until, limit),
    )
    return [OtherRow(*row) for row in rows]


def confirmed_receipts(conn: sqlite3.Connection, since: int, until: int) -> set[str]:
    """Return the receipts that M-Pesa itself has confirmed for payments surely made in [since, until)."""
    # A push was paid between its request and the word that it was. An announcement without a time of M-Pesa's
    # may be as late as it likes.
    rows = conn.execute(
        """SELECT receipt FROM payment WHERE receipt IS NOT NULL AND merged_into IS NULL AND money = 'PAID'
               AND paid_by <> 'PERSON' AND COALESCE(sent_at, paid_at) >= ? AND paid_at < ?
               AND NOT EXISTS (SELECT 1 FROM payment_shown s
                               WHERE s.payment_id = payment.id AND s.paid_at IS NULL)""",
        (since, until),
    )
    return {str(row[0]) for row in rows}


# --- reversals by customers -------------------------------------------------------------------------

_REVERSAL = "SELECT id, receipt, payment_id, source, at, settled_at FROM payment_reversal"


def note_reversal(
    conn: sqlite3.Connection, receipt: str, payment_id: str | None, source: str, *, at: int
) -> bool:
    """Return False when it was recorded before; then only a payment that was not known is added."""
    cursor = conn.execute(
        """INSERT INTO payment_reversal (receipt, payment_id, source, at) VALUES (?, ?, ?, ?)
           ON CONFLICT (receipt) DO NOTHING""",
        (receipt, payment_id, source, at),
    )
    if cursor.rowcount == 1:
        return True
    cursor = conn.execute(
        """UPDATE payment_reversal SET payment_id = ?
           WHERE receipt = ? AND payment_id IS NULL AND ? IS NOT NULL AND settled_at IS NULL""",
        (payment_id, receipt, payment_id),
    )
    return cursor.rowcount == 1


def reversals(conn: sqlite3.Connection, limit: int = 200) -> list[Reversal]:
    """Return those that no person has decided about, newest first."""
    rows = conn.execute(f"{_REVERSAL} WHERE settled_at IS NULL ORDER BY id DESC LIMIT ?", (limit,))
    return [Reversal(*row) for row in rows]


def reversal_of(conn: sqlite3.Connection, payment_id: str) -> Reversal | None:
    """Return the undecided one of this payment."""
    row = conn.execute(
        f"{_REVERSAL} WHERE payment_id = ? AND settled_at IS NULL", (payment_id,)
    ).fetchone()
    return None if row is None else Reversal(*row)


def settle_reversal(
    conn: sqlite3.Connection, reversal_id: int, *, went_back: bool, who: str, reason: str, at: int
) -> None:
    conn.execute(
        """UPDATE payment_reversal SET settled_at = ?, went_back = ?, who = ?, reason = ?
           WHERE id = ? AND settled_at IS NULL""",
        (at, int(went_back), who, reason, reversal_id),
    )


# --- QR codes ---------------------------------------------------------------------------------------


def note_qr(
    conn: sqlite3.Connection,
    references: set[str],
    till_id: str,
    sale_ref: str,
    amount_cents: int,
    *,
    at: int,
) -> None:
    for reference in sorted(references):
        conn.execute(
            """INSERT INTO payment_qr (reference, till_id, sale_ref, amount_cents, at)
               VALUES (?, ?, ?, ?, ?)""",
            (reference, till_id, sale_ref, amount_cents, at),
        )


def qr_sales(
    conn: sqlite3.Connection, reference: str, amount_cents: int, since: int, until: int
) -> list[tuple[str, str]]:
    """Return (till, sale) of every QR code with this reference and amount that was made in [since, until)."""
    rows = conn.execute(
        """SELECT DISTINCT till_id, sale_ref FROM payment_qr
           WHERE reference = ? AND amount_cents = ? AND at >= ? AND at < ?""",
        (reference, amount_cents, since, until),
    )
    return [(str(till), str(sale)) for till, sale in rows]
