"""Invoice rows: the claim that is the lock, the write-ahead, and the moves of the signing state.

Every function here is (part of) one transaction on the writer's connection; names say the fact
they record. Called by `fiscal/` only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.signing import OPEN_STATES, SigningEvent, SigningState, transition
from gateway.errors import StoreCorrupt
from gateway.ids import lasting_names
from gateway.store import digests, witness
from gateway.store.witness import LostKey

_COLUMNS = """
    seq, id, till_id, idem_key, body_digest, label, original_id, till_receipt_no, total_cents,
    document, printer, state, invc_no, unit_request, attempts, answer_status, answer,
    created_at, updated_at, unit_life, last_sent_boot_id, last_sent_boot_ns, duplicate_seen,
    link_trouble"""
# A row as `_one` takes it: the columns, and the digests that they are compared with.
_ROW = f"{_COLUMNS}, claim_digest, outcome_digest"
_INSERT = """
    INSERT INTO invoice (id, till_id, idem_key, body_digest, label, original_id, till_receipt_no,
                         total_cents, request, document, printer, created_at, updated_at,
                         claim_digest, outcome_digest)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (till_id, idem_key) DO NOTHING"""
_BY_KEY = f"SELECT {_ROW} FROM invoice WHERE till_id = ? AND idem_key = ?"
_BY_FINGERPRINT = f"""
    SELECT {_ROW} FROM invoice WHERE id =
        (SELECT invoice_id FROM keyless WHERE till_id = ? AND fingerprint = ? AND at >= ?)"""
_BY_ID = f"SELECT {_ROW} FROM invoice WHERE id = ?"
_CREDIT = f"""
    SELECT {_ROW} FROM invoice
    WHERE original_id = ? AND state IN ('SIGNING', 'IN_DOUBT', 'SIGNED')"""
_OPEN = f"SELECT {_ROW} FROM invoice WHERE state IN ('SIGNING', 'IN_DOUBT')"
_WRITE_AHEAD = """
    UPDATE invoice SET state = ?, invc_no = ?, unit_request = ?, attempts = 1, duplicate_seen = 0,
                       link_trouble = 0,
                       unit_life = ?, last_sent_boot_id = ?, last_sent_boot_ns = ?,
                       updated_at = ?, outcome_digest = ? WHERE id = ?"""
_SETTLE = """
    UPDATE invoice SET state = ?, invc_no = ?, unit_answer = ?, answer_status = ?, answer = ?,
                       updated_at = ?, outcome_digest = ? WHERE id = ?"""
_DOUBT = """
    UPDATE invoice SET state = ?, unit_answer = ?, link_trouble = ?, updated_at = ?, outcome_digest = ?
    WHERE id = ?"""
_UNSIGNED = """
    UPDATE invoice SET state = ?, invc_no = NULL, unit_request = NULL, updated_at = ?,
                       outcome_digest = ? WHERE id = ?"""
# Not by its index, which may be what is damaged.
_BY_SEQ = f"SELECT {_ROW} FROM invoice NOT INDEXED WHERE seq = ?"
_KEYS_AFTER = """
    SELECT seq, till_id, idem_key FROM invoice NOT INDEXED WHERE seq > ? ORDER BY seq LIMIT ?"""
_KEYS_BACK = "SELECT seq, till_id, idem_key FROM invoice NOT INDEXED ORDER BY seq DESC LIMIT ?"


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
    """Insert the sale, or find the row that has its key: the INSERT decides, nothing is asked first.

    The INSERT sees the key by an index. StoreCorrupt when the witness knows the key all the same: the index
    or the row is damaged.
    """
    inserted = conn.execute(_INSERT, (*_claimed(new), *_digests(new))).rowcount
    row = _one(conn.execute(_BY_KEY, (new.till_id, new.idem_key)).fetchone())
    if row is None or (row.till_id, row.idem_key) != (new.till_id, new.idem_key):
        raise StoreCorrupt("A key that was just claimed is not found by its index.")
    beside = witness.of(conn)
    if inserted == 1 and beside is not None:
        if beside.seq_of(digests.key(new.till_id, new.idem_key)) is not None:
            raise StoreCorrupt(f"The store has lost the key {new.idem_key} of {new.till_id}.")
        beside.claims(row.seq, row.till_id, row.idem_key)
    return Claim(inserted == 1, row)


def _claimed(new: NewInvoice) -> tuple[object, ...]:
    sent = (new.id, new.till_id, new.idem_key, new.body_digest, new.label, new.original_id)
    what = (new.till_receipt_no, new.total_cents, new.request, new.document, new.printer)
    return (*sent, *what, new.at, new.at)


def _digests(new: NewInvoice) -> tuple[bytes, bytes]:
    sent = (new.id, new.till_id, new.idem_key, new.body_digest, new.label, new.original_id)
    what = (new.till_receipt_no, new.total_cents, new.document, new.printer, new.at)
    state = _outcome(new.id, SigningState.RECEIVED)
    return digests.claim((*sent, *what), new.request), state


def _outcome(
    invoice_id: str,
    state: SigningState,
    invc_no: int | None = None,
    unit_request: bytes | None = None,
    answer_status: int | None = None,
    answer: bytes | None = None,
) -> bytes:
    fields = (invoice_id, str(state.value), invc_no, unit_request, answer_status, answer)
    return digests.outcome(fields)


_KEYLESS = """
    INSERT INTO keyless (till_id, fingerprint, invoice_id, at) VALUES (?, ?, ?, ?)
    ON CONFLICT (till_id, fingerprint) DO UPDATE
    SET invoice_id = excluded.invoice_id, at = excluded.at
    WHERE (excluded.at - keyless.at > ?
           AND NOT EXISTS (SELECT 1 FROM invoice WHERE id = keyless.invoice_id
                           AND state IN ('SIGNING', 'IN_DOUBT')))
       OR NOT EXISTS (SELECT 1 FROM invoice WHERE id = keyless.invoice_id)"""


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
        _no_earlier(conn, new, window_us)
        conn.execute("DELETE FROM keyless WHERE at < ?", (new.at - 2 * window_us,))
        return None
    row = conn.execute(
        "SELECT invoice_id FROM keyless WHERE till_id = ? AND fingerprint = ?",
        (new.till_id, fingerprint),
    ).fetchone()
    return str(row[0])


def _no_earlier(conn: sqlite3.Connection, new: NewInvoice, window_us: int) -> None:
    """Raise StoreCorrupt when the witness knows a sale of this fingerprint that is still within the window."""
    beside = witness.of(conn)
    seq = None if beside is None else beside.newest_of(new.till_id, lasting_names(new.idem_key)[-1])
    row = None if seq is None else by_seq(conn, seq)
    if row is None:
        return
    if new.at - row.created_at <= window_us or row.state in OPEN_STATES:
        raise StoreCorrupt(f"The store has lost the repeat of the sale {row.id}.")


def by_fingerprint(
    conn: sqlite3.Connection, till_id: str, fingerprint: str, *, since: int
) -> InvoiceRow | None:
    """The sale without a key that has this fingerprint, not older than `since`."""
    values = (till_id, fingerprint, since)
    return _one(conn.execute(_BY_FINGERPRINT, values).fetchone())


def by_key(conn: sqlite3.Connection, till_id: str, idem_key: str) -> InvoiceRow | None:
    """Return the sale that has this key. LostKey when there is none and the witness knows the key."""
    beside = witness.of(conn)
    # Looked up first: what the witness knows was committed before, so that the row must be visible.
    known = None if beside is None else beside.seq_of(digests.key(till_id, idem_key))
    row = _one(conn.execute(_BY_KEY, (till_id, idem_key)).fetchone())
    if row is None and known is not None:
        raise LostKey(f"The store has lost the key {idem_key} of {till_id}.")
    return row


def by_seq(conn: sqlite3.Connection, seq: int) -> InvoiceRow | None:
    """Return the row in this place of the table, without any index."""
    return _one(conn.execute(_BY_SEQ, (seq,)).fetchone())


def keys_after(conn: sqlite3.Connection, seq: int, limit: int) -> list[tuple[int, str, str]]:
    """Return (seq, till, key) of the next rows of the table, without any index."""
    return conn.execute(_KEYS_AFTER, (seq, limit)).fetchall()


def newest_keys(conn: sqlite3.Connection, limit: int) -> list[tuple[int, str, str]]:
    """Return (seq, till, key) of the newest rows of the table, newest first, without any index."""
    return conn.execute(_KEYS_BACK, (limit,)).fetchall()


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
    digest = _outcome(row.id, state, invc_no, unit_request, row.answer_status, row.answer)
    values = (state, invc_no, unit_request, *sent, at, digest, row.id)
    _changed(conn.execute(_WRITE_AHEAD, values))


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
    digest = _outcome(row.id, state, row.invc_no, row.unit_request, answer_status, answer)
    values = (state, row.invc_no, unit_answer, answer_status, answer, at, digest, row.id)
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
    digest = _outcome(row.id, state, None, row.unit_request, answer_status, answer)
    values = (state, None, unit_answer, answer_status, answer, at, digest, row.id)
    _changed(conn.execute(_SETTLE, values))


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
    _doubt(conn, row, state, unit_answer, link_trouble, at)


def found_unsigned(conn: sqlite3.Connection, row: InvoiceRow, *, at: int) -> None:
    """Evidence says the unit does not hold it: back to RECEIVED, without number or bytes.

    A row still in SIGNING passes through IN_DOUBT in the same transaction.
    """
    state = row.state
    if state is SigningState.SIGNING:
        state = transition(state, SigningEvent.OUTCOME_LOST)
        _doubt(conn, row, state, None, False, at)
    state = transition(state, SigningEvent.FOUND_UNSIGNED)
    digest = _outcome(row.id, state, None, None, row.answer_status, row.answer)
    _changed(conn.execute(_UNSIGNED, (state, at, digest, row.id)))


def _doubt(
    conn: sqlite3.Connection,
    row: InvoiceRow,
    state: SigningState,
    unit_answer: bytes | None,
    link_trouble: bool,
    at: int,
) -> None:
    digest = _outcome(row.id, state, row.invc_no, row.unit_request, row.answer_status, row.answer)
    _changed(conn.execute(_DOUBT, (state, unit_answer, link_trouble, at, digest, row.id)))


def _changed(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount != 1:
        raise AssertionError(f"{cursor.rowcount} invoices changed instead of one")


def _one(row: tuple[object, ...] | None) -> InvoiceRow | None:
    """Return the row. StoreCorrupt when it is not what was stored: nothing of it may be believed."""
    if row is None:
        return None
    *values, claimed, outcome = row
    problem = mismatch(values, claimed, outcome)
    if problem is not None:
        raise StoreCorrupt(problem)
    values[11] = SigningState(str(values[11]))
    values[-2:] = [bool(values[-2]), bool(values[-1])]
    return InvoiceRow(*values)  # type: ignore[arg-type]


def mismatch(values: Sequence[object], claimed: object, outcome: object) -> str | None:
    """Return what is wrong with a stored row, by its own digests; None when it is whole. Rows of an older
    version have none."""
    sent, state = (*values[1:11], values[17]), (values[1], *values[11:14], *values[15:17])
    if claimed is not None and (
        not isinstance(claimed, bytes)
        or claimed[: digests.SIZE] != digests.claim(sent, b"")[: digests.SIZE]
    ):
        return f"The stored sale in row {values[0]} is damaged."
    if outcome is not None and outcome != digests.outcome(state):
        return f"The stored outcome in row {values[0]} is damaged."
    if values[11] not in _STATES:
        return f"The stored state in row {values[0]} is damaged."
    return None


_STATES = frozenset(state.value for state in SigningState)
_CHECKED = f"""
    SELECT {_ROW}, request FROM invoice NOT INDEXED WHERE seq > ? ORDER BY seq LIMIT ?"""


def damaged_after(
    conn: sqlite3.Connection, seq: int, limit: int, *, digests_after: int
) -> tuple[int | None, str | None]:
    """Compare the next rows of the table with their digests; return the last row's seq (None: the end) and
    the first problem. Rows above `digests_after` must have digests."""
    last = None
    for *values, claimed, outcome, request in conn.execute(_CHECKED, (seq, limit)):
        last = values[0]
        problem = mismatch(values, claimed, outcome)
        if problem is None and last > digests_after and (claimed is None or outcome is None):
            problem = f"Row {last} has lost its digests."
        body = digests.core(b"request", (request,))
        if problem is None and claimed is not None and claimed[digests.SIZE :] != body:
            problem = f"The till's own body in row {last} is damaged."
        if problem is not None:
            return last, problem
    return last, None
