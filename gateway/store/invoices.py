"""Invoice rows: the claim that is the lock, the write-ahead, and the moves of the signing state.

Every function here is (part of) one transaction on the writer's connection; names say the fact
they record. Called by `fiscal/` only.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from gateway.domain.signing import SigningEvent, SigningState, transition

_COLUMNS = """
    seq, id, till_id, idem_key, body_digest, label, original_id, till_receipt_no, total_cents,
    document, printer, state, invc_no, unit_request, attempts, answer_status, answer,
    created_at, updated_at, unit_life, last_sent_boot_id, last_sent_boot_ns, duplicate_seen,
    link_trouble"""
_INSERT = """
    INSERT INTO invoice (id, till_id, idem_key, body_digest, label, original_id, till_receipt_no,
                         total_cents, request, document, printer, created_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (till_id, idem_key) DO NOTHING"""
_BY_KEY = f"SELECT {_COLUMNS} FROM invoice WHERE till_id = ? AND idem_key = ?"
_BY_FINGERPRINT = f"""
    SELECT {_COLUMNS} FROM invoice WHERE id =
        (SELECT invoice_id FROM keyless WHERE till_id = ? AND fingerprint = ? AND at >= ?)"""
_BY_ID = f"SELECT {_COLUMNS} FROM invoice WHERE id = ?"
_CREDIT = f"""
    SELECT {_COLUMNS} FROM invoice
    WHERE original_id = ? AND state IN ('SIGNING', 'IN_DOUBT', 'SIGNED')"""
_OPEN = f"SELECT {_COLUMNS} FROM invoice WHERE state IN ('SIGNING', 'IN_DOUBT')"
_WRITE_AHEAD = """
    UPDATE invoice SET state = ?, invc_no = ?, unit_request = ?, attempts = 1, duplicate_seen = 0,
                       link_trouble = 0,
                       unit_life = ?, last_sent_boot_id = ?, last_sent_boot_ns = ?,
                       updated_at = ? WHERE id = ?"""
_SETTLE = """
    UPDATE invoice SET state = ?, invc_no = ?, unit_answer = ?, answer_status = ?, answer = ?,
                       updated_at = ? WHERE id = ?"""
_DOUBT = """
    UPDATE invoice SET state = ?, unit_answer = ?, link_trouble = ?, updated_at = ? WHERE id = ?"""
_UNSIGNED = """
    UPDATE invoice SET state = ?, invc_no = NULL, unit_request = NULL, updated_at = ?
    WHERE id = ?"""


@dataclass(frozen=True, slots=True)
class NewInvoice:
    """What a claim inserts. `request` is the till's body as it came, `document` the valid invoice."""

    id: str
    till_id: str
    idem_key: str
    body_digest: str
    label: str
    original_id: str | None
    till_receipt_no: str
    total_cents: int
    request: bytes
    document: bytes
    printer: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Sending:
    """When one saveSales request left, and to which run of the control unit.

    `unit_life` is None for an external unit, whose restarts are not seen. `boot_ns` is CLOCK_BOOTTIME
    of the boot `boot_id`.
    """

    unit_life: str | None
    boot_id: str
    boot_ns: int


@dataclass(frozen=True, slots=True)
class InvoiceRow:
    """One stored invoice; instants are UTC microseconds. `unit_life`, `last_sent_boot_id` and
    `last_sent_boot_ns` describe the last sending of the present number, None where it was sent by a
    version that did not record them. `duplicate_seen`: the unit reported the resend as a duplicate.
    `link_trouble`: the unit answered with trouble on its path to KRA."""

    seq: int
    id: str
    till_id: str
    idem_key: str
    body_digest: str
    label: str
    original_id: str | None
    till_receipt_no: str
    total_cents: int
    document: bytes
    printer: str | None
    state: SigningState
    invc_no: int | None
    unit_request: bytes | None
    attempts: int
    answer_status: int | None
    answer: bytes | None
    created_at: int
    updated_at: int
    unit_life: str | None = None
    last_sent_boot_id: str | None = None
    last_sent_boot_ns: int | None = None
    duplicate_seen: bool = False
    link_trouble: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """`won` is true for exactly one caller per key, whatever the number of processes and restarts."""

    won: bool
    row: InvoiceRow


def claim(conn: sqlite3.Connection, new: NewInvoice) -> Claim:
    """Insert the sale, or find the row that has its key: the INSERT decides, nothing is asked first."""
    inserted = conn.execute(
        _INSERT,
        (
            new.id,
            new.till_id,
            new.idem_key,
            new.body_digest,
            new.label,
            new.original_id,
            new.till_receipt_no,
            new.total_cents,
            new.request,
            new.document,
            new.printer,
            new.at,
            new.at,
        ),
    ).rowcount
    row = by_key(conn, new.till_id, new.idem_key)
    assert row is not None
    return Claim(inserted == 1, row)


_KEYLESS = """
    INSERT INTO keyless (till_id, fingerprint, invoice_id, at) VALUES (?, ?, ?, ?)
    ON CONFLICT (till_id, fingerprint) DO UPDATE
    SET invoice_id = excluded.invoice_id, at = excluded.at
    WHERE excluded.at - keyless.at > ?
      AND NOT EXISTS (SELECT 1 FROM invoice WHERE id = keyless.invoice_id
                      AND state IN ('SIGNING', 'IN_DOUBT'))"""


def claim_keyless(
    conn: sqlite3.Connection, new: NewInvoice, fingerprint: str, *, window_us: int
) -> str | None:
    """Take the fingerprint for `new`; else the id of the invoice that has it since less than the
    window. The upsert decides, nothing is asked first. Part of the claim's transaction. One that a
    clock ahead of its time has stamped is never too old: the cashier is asked rather than signed twice.
    Nor is one whose outcome is open, however long that takes.
    """
    values = (new.till_id, fingerprint, new.id, new.at, window_us)
    if conn.execute(_KEYLESS, values).rowcount == 1:
        conn.execute("DELETE FROM keyless WHERE at < ?", (new.at - 2 * window_us,))
        return None
    row = conn.execute(
        "SELECT invoice_id FROM keyless WHERE till_id = ? AND fingerprint = ?",
        (new.till_id, fingerprint),
    ).fetchone()
    return str(row[0])


def by_fingerprint(
    conn: sqlite3.Connection, till_id: str, fingerprint: str, *, since: int
) -> InvoiceRow | None:
    """The sale without a key that has this fingerprint, not older than `since`."""
    values = (till_id, fingerprint, since)
    return _one(conn.execute(_BY_FINGERPRINT, values).fetchone())


def by_key(conn: sqlite3.Connection, till_id: str, idem_key: str) -> InvoiceRow | None:
    return _one(conn.execute(_BY_KEY, (till_id, idem_key)).fetchone())


def by_id(conn: sqlite3.Connection, invoice_id: str) -> InvoiceRow | None:
    return _one(conn.execute(_BY_ID, (invoice_id,)).fetchone())


def credit_note_of(conn: sqlite3.Connection, original_id: str) -> InvoiceRow | None:
    """The credit note that took this sale's one cancellation (TIS 6.16), signed or on its way."""
    return _one(conn.execute(_CREDIT, (original_id,)).fetchone())


def open_row(conn: sqlite3.Connection) -> InvoiceRow | None:
    """The one row in SIGNING or IN_DOUBT, if any; an index allows no second."""
    return _one(conn.execute(_OPEN).fetchone())


def last_change(conn: sqlite3.Connection, *, before: int) -> int | None:
    """When an invoice last changed, not later than `before`."""
    row = conn.execute(
        "SELECT MAX(updated_at) FROM (SELECT updated_at FROM invoice WHERE updated_at <= ? "
        "ORDER BY seq DESC LIMIT 100)",
        (before,),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def under_way(conn: sqlite3.Connection, *, claimed_since: int, signed_since: int) -> list[str]:
    """Ids of the open sale, of claims since a moment, and of what was settled since another."""
    rows = conn.execute(
        """SELECT id FROM invoice WHERE state IN ('SIGNING', 'IN_DOUBT')
           OR (state = 'RECEIVED' AND updated_at >= ?)
           OR seq IN (SELECT seq FROM invoice WHERE state IN ('SIGNED', 'REJECTED')
                      AND updated_at >= ? ORDER BY seq DESC LIMIT 100)
           ORDER BY seq""",
        (claimed_since, signed_since),
    ).fetchall()
    return [row[0] for row in rows]


def write_ahead(
    conn: sqlite3.Connection,
    row: InvoiceRow,
    *,
    invc_no: int,
    unit_request: bytes,
    sending: Sending,
    at: int,
) -> None:
    """Record number, exact bytes and the sending, before the first byte leaves (etims.md 8.3)."""
    state = transition(row.state, SigningEvent.WRITTEN_AHEAD)
    sent = (sending.unit_life, sending.boot_id, sending.boot_ns)
    _changed(conn.execute(_WRITE_AHEAD, (state, invc_no, unit_request, *sent, at, row.id)))


def count_attempt(conn: sqlite3.Connection, row: InvoiceRow, sending: Sending, *, at: int) -> None:
    """Record a resend of the same bytes; durable before they leave."""
    _changed(
        conn.execute(
            "UPDATE invoice SET attempts = attempts + 1, unit_life = ?, last_sent_boot_id = ?, "
            "last_sent_boot_ns = ?, updated_at = ? WHERE id = ? AND state = 'IN_DOUBT'",
            (sending.unit_life, sending.boot_id, sending.boot_ns, at, row.id),
        )
    )


def uncount_attempt(conn: sqlite3.Connection, row: InvoiceRow, *, at: int) -> None:
    """Withdraw a recorded resend of which no byte left. `row` as it was before the resend."""
    conn.execute(
        "UPDATE invoice SET attempts = attempts - 1, unit_life = ?, last_sent_boot_id = ?, "
        "last_sent_boot_ns = ?, updated_at = ? WHERE id = ? AND state = 'IN_DOUBT'",
        (row.unit_life, row.last_sent_boot_id, row.last_sent_boot_ns, at, row.id),
    )


def record_duplicate(conn: sqlite3.Connection, row: InvoiceRow) -> None:
    """Record that the unit reported the resend as a duplicate: the number is used."""
    _changed(
        conn.execute(
            "UPDATE invoice SET duplicate_seen = 1 WHERE id = ? AND state = 'IN_DOUBT'", (row.id,)
        )
    )


def settle_signed(
    conn: sqlite3.Connection,
    row: InvoiceRow,
    *,
    event: SigningEvent,
    unit_answer: bytes,
    answer_status: int,
    answer: bytes,
    at: int,
) -> None:
    """The unit's answer and what the till is told, for ever."""
    state = transition(row.state, event)
    assert state is SigningState.SIGNED
    values = (state, row.invc_no, unit_answer, answer_status, answer, at, row.id)
    _changed(conn.execute(_SETTLE, values))


def settle_rejected(
    conn: sqlite3.Connection,
    row: InvoiceRow,
    *,
    unit_answer: bytes,
    answer_status: int,
    answer: bytes,
    at: int,
) -> None:
    """The unit certainly did not take it; its number is free again."""
    state = transition(row.state, SigningEvent.REFUSED)
    _changed(conn.execute(_SETTLE, (state, None, unit_answer, answer_status, answer, at, row.id)))


def fall_into_doubt(
    conn: sqlite3.Connection,
    row: InvoiceRow,
    *,
    unit_answer: bytes | None,
    link_trouble: bool = False,
    at: int,
) -> None:
    """The bytes may have been taken; what came back, if anything, is kept as evidence."""
    state = transition(row.state, SigningEvent.OUTCOME_LOST)
    _changed(conn.execute(_DOUBT, (state, unit_answer, link_trouble, at, row.id)))


def found_unsigned(conn: sqlite3.Connection, row: InvoiceRow, *, at: int) -> None:
    """Evidence says the unit does not hold it: back to RECEIVED, without number or bytes.

    A row still in SIGNING passes through IN_DOUBT in the same transaction.
    """
    state = row.state
    if state is SigningState.SIGNING:
        state = transition(state, SigningEvent.OUTCOME_LOST)
        _changed(conn.execute(_DOUBT, (state, None, False, at, row.id)))
    state = transition(state, SigningEvent.FOUND_UNSIGNED)
    _changed(conn.execute(_UNSIGNED, (state, at, row.id)))


def _changed(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount != 1:
        raise AssertionError(f"{cursor.rowcount} invoices changed instead of one")


def _one(row: tuple[object, ...] | None) -> InvoiceRow | None:
    if row is None:
        return None
    values = list(row)
    values[11] = SigningState(str(row[11]))
    values[-2:] = [bool(row[-2]), bool(row[-1])]
    return InvoiceRow(*values)  # type: ignore[arg-type]
