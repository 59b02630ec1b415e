"""What must be true of receipts when the weather has cleared: the unit's journal, what tills heard, and the
store's own rows."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from decimal import Decimal
from typing import Any

from gateway.store import invoices, receipts, reports
from tests.sim.day import Asked
from tests.sim.notes import Note
from tests.sim.sale import Sale


def check_books(
    conn: sqlite3.Connection | None,
    journal: list[dict[str, Any]],
    sales: list[Sale],
    notes: list[Note],
) -> list[str]:
    """Every sentence that is not true. Without `conn` there is no store of ours to look at."""
    aliens = any("alien" in entry for entry in journal)
    journal = [entry for entry in journal if "alien" not in entry]
    keys = Counter(entry["trdInvcNo"] for entry in journal)
    problems = [f"{key} has {count} receipts" for key, count in keys.items() if count > 1]
    by_key = {entry["trdInvcNo"]: entry for entry in journal}
    for item in (*sales, *notes):
        problems += _told(item, by_key)
    if conn is not None:
        numbers = [entry["invcNo"] for entry in journal]
        # One counter for sales and credit notes, and nothing that was not signed has used a number up.
        first = numbers[0] if numbers else 0
        rises = numbers == sorted(set(numbers))
        if not rises or (not aliens and numbers != list(range(first, first + len(journal)))):
            problems.append(f"invcNo does not rise one by one: {numbers}")
        forgotten = {item.key for item in (*sales, *notes) if item.forgotten}
        # What a numbering decision has given up may be signed; its till was answered so.
        given_up = {sale.key for sale in sales if sale.quarantined}
        problems += _stored(conn, dict(by_key), forgotten | given_up)
        problems += _chain(conn)
        problems += _days(conn)
    return problems


def _told(item: Asked, by_key: dict[str, Any]) -> list[str]:
    """One receipt for ever; what is called refused is not signed, what is called a repeat is."""
    problems = []
    told = {body for status, body in item.heard if status == 201}
    if len(told) > 1:
        problems.append(f"{item.key} was told {len(told)} different answers")
    entry = by_key.get(item.key)
    for body in told:
        value = json.loads(body)
        if entry is None or value["rcptSign"] != entry["rcptSign"]:
            problems.append(f"{item.key} was told a receipt the unit does not have")
        elif "rcptNo" in value and value["rcptNo"] != entry["rcptNo"]:
            problems.append(
                f"{item.key} was told {value['rcptNo']}, the unit has {entry['rcptNo']}"
            )
    if item.final and b'"MAYBE_SIGNED"' in item.final[1]:
        return problems
    if isinstance(item, Sale) and item.final:
        if item.final[0] == 409 and entry is None:
            problems.append(f"{item.key} was called a repeat, and is not signed")
        if item.final[0] == 422 and entry is not None:
            problems.append(f"{item.key} was refused, and is signed")
    if isinstance(item, Note) and item.final and item.final[0] == 409:
        sale = by_key.get(item.of.key) if item.of is not None else None
        of = [e for e in by_key.values() if sale and e["orgInvcNo"] == sale["invcNo"]]
        if not of:
            problems.append(f"{item.key} was called one too many, and its sale has none")
    return problems


def _stored(conn: sqlite3.Connection, by_key: dict[str, Any], forgotten: set[str]) -> list[str]:
    """The store against the unit: agreed, or IN_DOUBT with a reason."""
    problems = []
    signed_here = {
        number
        for (number,) in conn.execute("SELECT till_receipt_no FROM invoice WHERE state = 'SIGNED'")
    }
    for (row_id,) in conn.execute("SELECT id FROM invoice ORDER BY seq").fetchall():
        row = invoices.by_id(conn, row_id)
        assert row is not None
        number = row.till_receipt_no
        # A till that makes a new key has more than one row, and one receipt.
        if row.state != "SIGNED" and number in signed_here:
            continue
        entry = by_key.pop(number, None)
        receipt = receipts.by_invoice(conn, row_id)
        if row.state == "SIGNED":
            if entry is None or receipt is None or receipt.rcpt_sign != entry["rcptSign"]:
                problems.append(f"{number} is SIGNED here, not in the unit")
            elif (receipt.receipt.rcpt_no, receipt.invc_no) != (entry["rcptNo"], entry["invcNo"]):
                problems.append(f"{number} has other numbers in the unit")
        elif entry is not None and row.state != "IN_DOUBT" and number not in forgotten:
            problems.append(f"{number} is signed in the unit, {row.state} here")
        if row.state == "IN_DOUBT":
            reasons = "SELECT 1 FROM event WHERE subject = ? AND kind = 'invoice.in_doubt'"
            if not conn.execute(reasons, (row_id,)).fetchone():
                problems.append(f"{number} is IN_DOUBT without a reason")
    return problems + [
        f"{key} is in the unit and not here" for key in by_key if key not in forgotten
    ]


def _chain(conn: sqlite3.Connection) -> list[str]:
    previous = receipts.GENESIS
    problems = []
    for link in reversed(receipts.recent(conn, 10_000)):
        if link.previous != previous:
            problems.append(f"the chain breaks at {link.seq}")
        fields = receipts.chained_fields(
            link.invoice_id, link.receipt, link.total_cents, link.how, link.signed_at
        )
        previous = receipts.chain(link.previous, fields)
        if previous != link.hash:
            problems.append(f"the chain's hash is wrong at {link.seq}")
    return problems


def _days(conn: sqlite3.Connection) -> list[str]:
    """Each receipt is in one Z report, or in none yet; sales and credit notes are never taken off each
    other."""
    closes = list(reversed(reports.recent(conn, 10_000)))
    upto = closes[-1].bounds if closes else reports.Bounds()
    problems = []
    for label, name in (("NS", "sales"), ("NC", "creditNotes")):
        query = "SELECT COUNT(*), COALESCE(SUM(total_cents), 0) FROM receipt WHERE label = ? AND seq <= ?"
        count, total = conn.execute(query, (label, upto.receipt)).fetchone()
        sums = [close.body[name] for close in closes]
        closed = (
            sum(s["number"] for s in sums),
            sum((Decimal(s["amount"]) for s in sums), Decimal(0)),
        )
        if closed != (count, Decimal(total) / 100):
            problems.append(
                f"{name} of {len(closes)} closes are {closed}, signed were {count, total}"
            )
    return problems
