"""Makes a store with many signed sales, written directly: what a shop has after months, in seconds."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from gateway import ids
from gateway.domain.receipt import Receipt
from gateway.store import digests, meta, receipts
from gateway.store.database import FILE_NAME, _prepare_writer
from tests.support.clock import FakeClock

_INVOICE = """
    INSERT INTO invoice (seq, id, till_id, idem_key, body_digest, label, till_receipt_no, total_cents, request,
                         document, state, invc_no, unit_request, attempts, answer_status, answer, created_at,
                         updated_at, claim_digest, outcome_digest)
    VALUES (?, ?, ?, ?, ?, 'NS', ?, 29700, ?, ?, 'SIGNED', ?, ?, 1, 201, ?, ?, ?, ?, ?)"""
_RECEIPT = """
    INSERT INTO receipt (invoice_id, label, invc_no, rcpt_no, tot_rcpt_no, sdc_id, mrc_no, intrl_data, rcpt_sign,
                         scu_time, total_cents, how, signed_at, previous, hash)
    VALUES (?, 'NS', ?, ?, ?, 'KRACU01', 'MRC', 'I', ?, ?, 29700, 'ANSWER', ?, ?, ?)"""


def key_of(number: int) -> str:
    return f"KEY-{number:07d}-abcdefgh"


def answer_of(number: int, size: int = 200) -> bytes:
    return (b'{"number": %d, "text": "' % number) + b"x" * size + b'"}'


def make(directory: Path, count: int, *, blob: int = 200) -> Path:
    """A store of `count` sales of till-1 with keys `key_of(1..)`, after a clean stop. `blob`: bytes of each blob."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE_NAME
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
        _prepare_writer(conn, path, 1000)
        conn.execute("PRAGMA synchronous = OFF")
        moves = "SELECT sql FROM sqlite_schema WHERE name = 'invoice_starts_received'"
        (trigger,) = conn.execute(moves).fetchone()
        conn.execute("DROP TRIGGER invoice_starts_received")
        conn.execute("BEGIN")
        clock, previous = FakeClock(), receipts.GENESIS
        start = int(clock.now().timestamp() * 1e6) - count * 1_000_000
        sales, signed = [], []
        for n in range(1, count + 1):
            at = start + n * 1_000_000
            sale, previous, receipt = _one(n, at, blob, previous)
            sales.append(sale)
            signed.append(receipt)
        conn.executemany(_INVOICE, sales)
        conn.executemany(_RECEIPT, signed)
        conn.execute(
            "INSERT INTO unit (id, next_invc_no, updated_at, commits) VALUES (1, ?, 0, ?)",
            (count + 1, 2 * count),
        )
        meta.put(conn, meta.RUNNING, "")
        conn.execute(trigger)
        conn.execute("COMMIT")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


def _one(n: int, at: int, blob: int, previous: str) -> tuple[tuple, str, tuple]:  # type: ignore[type-arg]
    invoice_id, key, body = ids.new_id(at), key_of(n), b"r" * blob
    digest, number, sent = f"{n:064x}", f"POS-{n:06d}", b"u" * blob
    answer = answer_of(n, blob)
    fields = (invoice_id, "till-1", key, digest, "NS", None, number, 29700, body, None, at)
    outcome = (invoice_id, "SIGNED", n, sent, 201, answer)
    sale = (
        n, invoice_id, "till-1", key, digest, number, body, body, n, sent, answer, at, at,
        digests.claim(fields, body), digests.outcome(outcome),
    )  # fmt: skip
    time = receipts.from_compact("20261123090000")
    receipt = Receipt("NS", n, n, n, "KRACU01", "MRC", "I", f"S{n:015d}", time)
    chained = receipts.chained_fields(invoice_id, receipt, 29700, "ANSWER", at)
    link = receipts.chain(previous, chained)
    row = (invoice_id, n, n, n, f"S{n:015d}", "20261123090000", at, previous, link)
    return sale, link, row
