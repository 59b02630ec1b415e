"""Sales that wait for their M-Pesa money, their parts, and receipts that no known money stands behind.

Every function is (part of) one transaction on the writer's connection, or a read. Called by
`payments/checkout.py` and `payments/tenders.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_COLUMNS = (
    "id, till_id, idem_key, body_digest, request, document, sale_ref, total_cents, printer, state, reason, "
    "sign_until, invoice_id, created_at, updated_at"
)
_SELECT = f"SELECT {_COLUMNS} FROM checkout"
_TENDER = "invoice_id, position, till_id, sale_ref, amount_cents, reference, state, payment_id, who, reason, at"


class CheckoutState(StrEnum):
    COLLECTING = "COLLECTING"  # the money is asked for
    READY = "READY"  # all of it has come: to be signed, whatever crashes
    SIGNED = "SIGNED"
    CLOSED = "CLOSED"  # it is not signed and will not be; `reason` says why


OPEN_CHECKOUTS = frozenset({CheckoutState.COLLECTING, CheckoutState.READY})


@dataclass(frozen=True, slots=True)
class NewPart:
    """What of a sale comes by M-Pesa: to be asked of `phone`, or there as `payment_id`."""

    amount_cents: int
    phone: str | None = None
    payment_id: str | None = None


@dataclass(frozen=True, slots=True)
class NewCheckout:
    """`request` is the till's body as it came, `document` the valid invoice."""

    id: str
    till_id: str
    idem_key: str
    body_digest: str
    request: bytes
    document: bytes
    sale_ref: str
    total_cents: int
    printer: str | None
    parts: tuple[NewPart, ...]
    at: int


@dataclass(frozen=True, slots=True)
class CheckoutRow:
    """One checkout as stored; instants in UTC microseconds."""

    id: str
    till_id: str
    idem_key: str
    body_digest: str
    request: bytes
    document: bytes
    sale_ref: str
    total_cents: int
    printer: str | None
    state: CheckoutState
    reason: str | None
    sign_until: int | None
    invoice_id: str | None
    created_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class PartRow:
    checkout_id: str
    position: int
    amount_cents: int
    phone: str | None
    payment_id: str | None


@dataclass(frozen=True, slots=True)
class UnpaidTender:
    """MOBILE_MONEY on a signed receipt without a payment that is known."""

    invoice_id: str
    position: int
    till_id: str
    sale_ref: str
    amount_cents: int
    reference: str | None
    state: str
    payment_id: str | None
    who: str | None
    reason: str | None
    at: int


# --- checkouts ------------------------------------------------------------------------------------


def claim(conn: sqlite3.Connection, new: NewCheckout) -> tuple[bool, CheckoutRow]:
    """Insert the sale with its parts, or find the row that has its key: the INSERT decides."""
    inserted = conn.execute(
        """INSERT INTO checkout (id, till_id, idem_key, body_digest, request, document, sale_ref, total_cents,
               printer, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
           ON CONFLICT (till_id, idem_key) DO NOTHING""",
        (
            new.id, new.till_id, new.idem_key, new.body_digest, new.request, new.document, new.sale_ref,
            new.total_cents, new.printer, new.at, new.at,
        ),
    ).rowcount  # fmt: skip
    if inserted == 1:
        conn.executemany(
            "INSERT INTO checkout_part (checkout_id, position, amount_cents, phone, payment_id) "
            "VALUES (?, ?, ?, ?, ?)",
            [(new.id, n, p.amount_cents, p.phone, p.payment_id) for n, p in enumerate(new.parts)],
        )
    row = by_key(conn, new.till_id, new.idem_key)
    assert row is not None
    return inserted == 1, row


def move(
    conn: sqlite3.Connection,
    row: CheckoutRow,
    state: CheckoutState,
    *,
    at: int,
    reason: str | None = None,
    invoice_id: str | None = None,
    sign_until: int | None = None,
) -> bool:
    """Compare-and-swap from the state of `row`; False when somebody else has moved it."""
    cursor = conn.execute(
        """UPDATE checkout SET state = ?, reason = COALESCE(?, reason), invoice_id = COALESCE(?, invoice_id),
               sign_until = COALESCE(?, sign_until), updated_at = ? WHERE id = ? AND state = ?""",
        (state, reason, invoice_id, sign_until, at, row.id, row.state),
    )
    return cursor.rowcount == 1


def sign_until(conn: sqlite3.Connection, checkout_id: str, until: int, *, at: int) -> bool:
    """Somebody asks for the signature once more. False when it is not READY."""
    cursor = conn.execute(
        "UPDATE checkout SET sign_until = ?, updated_at = ? WHERE id = ? AND state = 'READY'",
        (until, at, checkout_id),
    )
    return cursor.rowcount == 1


def by_id(conn: sqlite3.Connection, checkout_id: str) -> CheckoutRow | None:
    return _row(conn.execute(f"{_SELECT} WHERE id = ?", (checkout_id,)).fetchone())


def by_key(conn: sqlite3.Connection, till_id: str, idem_key: str) -> CheckoutRow | None:
    return _row(
        conn.execute(
            f"{_SELECT} WHERE till_id = ? AND idem_key = ?", (till_id, idem_key)
        ).fetchone()
    )


def all_open(conn: sqlite3.Connection) -> list[CheckoutRow]:
    """COLLECTING and READY, the oldest first."""
    rows = conn.execute(f"{_SELECT} WHERE state IN ('COLLECTING', 'READY') ORDER BY created_at, id")
    return [row for values in rows if (row := _row(values)) is not None]


def open_of_sale(conn: sqlite3.Connection, till_id: str, sale_ref: str) -> list[CheckoutRow]:
    return [row for row in all_open(conn) if (row.till_id, row.sale_ref) == (till_id, sale_ref)]


def open_with(conn: sqlite3.Connection, payment_id: str) -> CheckoutRow | None:
    """The open checkout that counts on this payment."""
    found = conn.execute(
        f"""{_SELECT} WHERE state IN ('COLLECTING', 'READY') AND id IN
            (SELECT checkout_id FROM checkout_part WHERE payment_id = ?1
             UNION SELECT checkout_id FROM payment WHERE id = ?1) LIMIT 1""",
        (payment_id,),
    )
    return _row(found.fetchone())


# --- parts ----------------------------------------------------------------------------------------


def parts(conn: sqlite3.Connection, checkout_id: str) -> list[PartRow]:
    rows = conn.execute(
        "SELECT checkout_id, position, amount_cents, phone, payment_id FROM checkout_part "
        "WHERE checkout_id = ? ORDER BY position",
        (checkout_id,),
    )
    return [PartRow(*row) for row in rows]


# --- receipts without money -----------------------------------------------------------------------


def note_unpaid(
    conn: sqlite3.Connection,
    *,
    invoice_id: str,
    position: int,
    till_id: str,
    sale_ref: str,
    amount_cents: int,
    reference: str | None,
    at: int,
) -> None:
    conn.execute(
        """INSERT INTO unpaid_tender (invoice_id, position, till_id, sale_ref, amount_cents, reference, at)
           VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
        (invoice_id, position, till_id, sale_ref, amount_cents, reference, at),
    )


def close_unpaid(
    conn: sqlite3.Connection,
    tender: UnpaidTender,
    *,
    who: str,
    reason: str,
    at: int,
    payment_id: str | None = None,
) -> bool:
    """False when it is closed already."""
    cursor = conn.execute(
        """UPDATE unpaid_tender SET state = 'CLOSED', payment_id = ?, who = ?, reason = ?, closed_at = ?
           WHERE invoice_id = ? AND position = ? AND state = 'OPEN'""",
        (payment_id, who, reason, at, tender.invoice_id, tender.position),
    )
    return cursor.rowcount == 1


def unpaid_for(
    conn: sqlite3.Connection,
    *,
    receipt: str | None,
    till_id: str | None,
    sale_ref: str | None,
    amounts: Sequence[int],
) -> UnpaidTender | None:
    """The open tender that this money is for: by its receipt, else by the sale that claimed it."""
    marks = ",".join("?" * len(amounts))
    found = conn.execute(
        f"""SELECT {_TENDER} FROM unpaid_tender WHERE state = 'OPEN' AND amount_cents IN ({marks})
            AND (reference = ? OR (till_id = ? AND sale_ref = ?))
            ORDER BY reference IS ? DESC, at LIMIT 1""",
        (*amounts, receipt, till_id, sale_ref, receipt),
    ).fetchone()
    return None if found is None else UnpaidTender(*found)


def unpaid(conn: sqlite3.Connection, limit: int = 200) -> list[UnpaidTender]:
    """Open ones, newest first."""
    rows = conn.execute(
        f"SELECT {_TENDER} FROM unpaid_tender WHERE state = 'OPEN' ORDER BY at DESC LIMIT ?",
        (limit,),
    )
    return [UnpaidTender(*row) for row in rows]


def unpaid_of(conn: sqlite3.Connection, invoice_id: str) -> list[UnpaidTender]:
    rows = conn.execute(
        f"SELECT {_TENDER} FROM unpaid_tender WHERE invoice_id = ? ORDER BY position", (invoice_id,)
    )
    return [UnpaidTender(*row) for row in rows]


@contextmanager
def attempt(conn: sqlite3.Connection) -> Iterator[None]:
    """A part of a transaction that may fail as a whole without undoing the rest: a receipt is committed
    whatever becomes of the bookkeeping about its money. The error is passed on."""
    conn.execute("SAVEPOINT attempt")
    try:
        yield
    except BaseException:  # undone whatever ended it, and passed on
        conn.execute("ROLLBACK TO attempt")
        conn.execute("RELEASE attempt")
        raise
    conn.execute("RELEASE attempt")


def _row(values: tuple[Any, ...] | None) -> CheckoutRow | None:
    if values is None:
        return None
    row = list(values)
    row[9] = CheckoutState(row[9])
    return CheckoutRow(*row)
