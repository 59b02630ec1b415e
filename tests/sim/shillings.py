"""What must be true of payments when the weather has cleared: the store against M-Pesa's own journal."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from typing import Any

from gateway.payments import report, twins
from gateway.store import payments
from tests.sim.daraja import SimDaraja
from tests.sim.daraja_words import Moved

# A paid shilling is with one of these: signed for, on a list for a person, or back with the customer.
_LISTED = ("OPEN", "REVIEW", "REFUND_DUE")
_PAID = ("PAID", "REFUNDED")


def check_shillings(
    conn: sqlite3.Connection, daraja: SimDaraja, journal: list[dict[str, Any]]
) -> list[str]:
    """Every sentence that is not true; `journal`: what the unit has signed."""
    conn.row_factory = sqlite3.Row
    try:
        return [
            *_owners(conn, daraja),
            *_phantoms(conn, daraja),
            *_stories(conn),
            *_signed(conn, journal),
            *_checkouts(conn),
            *_refunds(conn, daraja),
            *_counted(conn, daraja),
            *_absences(conn, daraja),
        ]
    finally:
        conn.row_factory = None


def _owners(conn: sqlite3.Connection, daraja: SimDaraja) -> list[str]:
    """Each receipt of M-Pesa is exactly one payment that was not merged, and that one has an owner."""
    problems = []
    for moved in daraja.journal:
        rows = conn.execute(
            "SELECT * FROM payment WHERE receipt = ? AND merged_into IS NULL", (moved.receipt,)
        ).fetchall()
        if len(rows) != 1:
            problems.append(f"{moved.receipt} ({_how(moved)}) has {len(rows)} owners")
            continue
        row = rows[0]
        if row["money"] not in _PAID or row["paid_cents"] != moved.shillings * 100:
            problems.append(
                f"{moved.receipt} is {row['money']} with {row['paid_cents']}, {moved.shillings} came"
            )
        tender = row["tender"]
        if tender not in (*_LISTED, "COMPLETED_BY_MPESA", "REFUNDED"):
            problems.append(f"{moved.receipt} is paid and {tender}: nobody's")
        if tender == "REFUNDED" and not (moved.reversed or _by_hand(conn, row["id"])):
            problems.append(f"{moved.receipt} is called refunded, and did not go back")
        if row["kind"] == "STK" and not _its_own(daraja, moved, row):
            problems.append(f"{moved.receipt} ({_how(moved)}) was given to another's push")
        if moved.reversed and row["money"] != "REFUNDED" and not _in_doubt(conn, row["id"]):
            problems.append(f"{moved.receipt} went back, and is {row['money']} here")
        if moved.token is not None and row["kind"] == "C2B":
            # The push that asked for it must not wait for the same money as well.
            problems += _asked_twice(conn, daraja, moved, row)
    return problems


def _asked_twice(
    conn: sqlite3.Connection, daraja: SimDaraja, moved: Moved, owner: sqlite3.Row
) -> list[str]:
    """One money as two payments: never both used, and shown as what may be the same until it is known."""
    assert moved.token is not None
    found = daraja.row_of(moved.token)
    if found is None:
        return [f"{moved.receipt} came by a push of which nothing is known"]
    row = conn.execute("SELECT * FROM payment WHERE id = ?", (found[0],)).fetchone()
    other = row["receipt"] is not None and row["receipt"] != moved.receipt
    if row["money"] not in _PAID or row["merged_into"] == owner["id"] or other:
        return []
    used = {row["tender"], owner["tender"]} - {"OPEN", "REVIEW", "COMPLETED_OTHERWISE", "ABANDONED"}
    if row["tender"] == owner["tender"] == "COMPLETED_BY_MPESA":
        return [f"{moved.receipt} signed two sales"]
    if used == {"COMPLETED_BY_MPESA", "REFUNDED"}:
        return [f"{moved.receipt} signed a sale and went back"]
    push = payments.by_id(conn, row["id"])
    assert push is not None
    shown = owner["id"] in {found.id for found in twins.of(conn, push)}
    if not shown and moved.shillings * 100 == row["amount_cents"]:
        return [f"{moved.receipt} is counted twice: {row['tender']} and {owner['tender']}"]
    return []


def _counted(conn: sqlite3.Connection, daraja: SimDaraja) -> list[str]:
    """The report counts each shilling that came once."""
    rows = payments.where(conn, "1 ORDER BY seq")
    ends = report.Day("all", 0, 2**62)
    elsewhere = twins.counted_elsewhere(rows, twins.pairs(conn, rows))
    counted = report.totals(rows, [], [], ends, elsewhere)[0].paid.cents
    came = sum(moved.shillings * 100 for moved in daraja.journal)
    # A query says that a push was paid, not how much: less came than it is counted for, until that is told.
    told = all(
        row.paid_cents is not None for row in rows if row.money in _PAID and not row.merged_into
    )
    less = any(p.moved is not None and p.moved.shillings != p.shillings for p in daraja.prompts)
    if counted != came and (told or not less):
        return [f"the report counts {counted}, {came} came"]
    return []


def _its_own(daraja: SimDaraja, moved: Moved, owner: sqlite3.Row) -> bool:
    """A push owns what it asked for; of what a customer sent by himself only what may be taken for it: no
    reference, the same phone (daraja.md 6, end)."""
    if moved.token is None:
        return moved.reference == "" and owner["phone"] == moved.phone
    if (
        daraja.till
        and owner["phone"] == moved.phone
        and owner["amount_cents"] == moved.shillings * 100
    ):
        # At a till nothing tells two payments of one amount by one customer apart; each is counted once.
        return True
    found = daraja.row_of(moved.token)
    return found is not None and found[0] == owner["id"]


def _in_doubt(conn: sqlite3.Connection, payment_id: str) -> bool:
    """Nobody has heard what became of its refund: it stands on a list, and is not sent again."""
    sql = "SELECT 1 FROM refund WHERE payment_id = ? AND state IN ('SENDING', 'SENT', 'UNKNOWN')"
    return conn.execute(sql, (payment_id,)).fetchone() is not None


def _by_hand(conn: sqlite3.Connection, payment_id: str) -> bool:
    sql = "SELECT 1 FROM payment_event WHERE payment_id = ? AND word = 'REFUNDED_BY_HAND'"
    hand = "SELECT 1 FROM refund WHERE payment_id = ? AND how = 'BY_HAND' AND state = 'DONE'"
    return any(conn.execute(query, (payment_id,)).fetchone() for query in (sql, hand))


def _phantoms(conn: sqlite3.Connection, daraja: SimDaraja) -> list[str]:
    """No payment is called paid whose money did not move: by another's query, by a forged callback."""
    problems = []
    receipts = {moved.receipt for moved in daraja.journal}
    moved_ids = {
        found[0]
        for moved in daraja.journal
        if moved.token is not None and (found := daraja.row_of(moved.token)) is not None
    }
    for row in conn.execute("SELECT * FROM payment WHERE paid_by IS NOT NULL"):
        if row["receipt"] is not None and row["receipt"] not in receipts:
            problems.append(f"receipt {row['receipt']} is nobody's at M-Pesa")
        if row["kind"] == "STK" and row["receipt"] is None and row["id"] not in moved_ids:
            problems.append(f"a push of {row['sale_ref']} is called paid, and no money moved")
    counted = Counter(
        row["receipt"]
        for row in conn.execute(
            "SELECT receipt FROM payment WHERE merged_into IS NULL AND paid_by IS NOT NULL"
        )
    )
    twice = [receipt for receipt, count in counted.items() if receipt and count > 1]
    return [*problems, *(f"{receipt} is counted twice" for receipt in twice)]


def _stories(conn: sqlite3.Connection) -> list[str]:
    """PAID is never left but for REFUNDED, at no step of any payment."""
    problems = []
    before: dict[str, str] = {}
    for row in conn.execute("SELECT * FROM payment_event ORDER BY id"):
        was = before.get(row["payment_id"])
        if (was == "PAID" and row["money"] not in _PAID) or (
            was == "REFUNDED" and row["money"] != was
        ):
            problems.append(f"a payment went from {was} to {row['money']} by {row['source']}")
        before[row["payment_id"]] = row["money"]
    for row in conn.execute("SELECT id, money, sale_ref FROM payment"):
        last = before.get(row["id"])
        if last is not None and last != row["money"]:
            problems.append(f"the last word on {row['sale_ref']} is {last}, it is {row['money']}")
    return problems


def _absences(conn: sqlite3.Connection, daraja: SimDaraja) -> list[str]:
    """No push is called "not on M-Pesa's list" whose money has moved: an empty list proves nothing."""
    # Of a till, money of another amount is nobody's; of a paybill its reference says whose.
    moved_ids = {
        found[0]
        for prompt in daraja.prompts
        if prompt.moved is not None
        and (prompt.moved.shillings == prompt.shillings or not daraja.till)
        and (found := daraja.row_of(prompt.token)) is not None
    }
    sql = "SELECT DISTINCT payment_id FROM payment_event WHERE word = 'NOT_FOUND' AND changed = 1"
    return [
        f"a push was called not paid by a list, and its money has moved: {row['payment_id']}"
        for row in conn.execute(sql)
        if row["payment_id"] in moved_ids
    ]


def _signed(conn: sqlite3.Connection, journal: list[dict[str, Any]]) -> list[str]:
    """What was signed as paid by M-Pesa is what came, to the shilling; and each sale was signed once."""
    problems = []
    keys = Counter(entry["trdInvcNo"] for entry in journal)
    problems += [f"{key} was signed {count} times" for key, count in keys.items() if count > 1]
    for row in conn.execute("SELECT id, document, state, till_receipt_no FROM invoice"):
        paid = conn.execute("SELECT * FROM payment WHERE invoice_id = ?", (row["id"],)).fetchall()
        with_it = [p for p in paid if p["tender"] != "MERGED"]
        if any(p["tender"] == "COMPLETED_BY_MPESA" for p in with_it) and row["state"] != "SIGNED":
            problems.append(f"{row['till_receipt_no']} has its money and is {row['state']}")
        if row["state"] != "SIGNED":
            continue
        document = json.loads(row["document"])
        for _, _, _, *named in document["payments"]:
            if not named or _is_asked_about(conn, named[0], row["id"]):
                continue
            if not _linked(conn, named[0], row["id"]):
                problems.append(
                    f"{row['till_receipt_no']} is signed, and its payment does not know"
                )
        if not with_it:
            continue
        mobile = sum(
            round(float(amount) * 100) for code, amount, *_ in document["payments"] if code == "06"
        )
        came = sum(
            p["amount_cents"] if p["paid_cents"] is None else p["paid_cents"] for p in with_it
        )
        # A query says that it was paid, not how much: less may be told later, and is an alarm then.
        doubted = any(_has_alarm(conn, p["id"], "OTHER_AMOUNT") for p in with_it)
        if mobile != came and not doubted:
            problems.append(
                f"{row['till_receipt_no']} is signed for {mobile} by phone, {came} came"
            )
    return problems


def _has_alarm(conn: sqlite3.Connection, payment_id: str, alarm: str) -> bool:
    sql = "SELECT 1 FROM payment_event WHERE payment_id = ? AND alarm = ?"
    return conn.execute(sql, (payment_id, alarm)).fetchone() is not None


def _linked(conn: sqlite3.Connection, payment_id: str, invoice_id: str) -> bool:
    """The payment that a signed sale names, or the one whose twin it was, is that sale's."""
    row = conn.execute("SELECT * FROM payment WHERE id = ?", (payment_id,)).fetchone()
    while row is not None and row["merged_into"] is not None:
        row = conn.execute("SELECT * FROM payment WHERE id = ?", (row["merged_into"],)).fetchone()
    return row is not None and row["invoice_id"] == invoice_id


def _is_asked_about(conn: sqlite3.Connection, payment_id: str, invoice_id: str) -> bool:
    """Whether another amount became known while the sale was at the unit: a manager was asked about the payment,
    and its receipt is on the list of those without money."""
    review = "SELECT 1 FROM payment WHERE id = ? AND tender IN ('REVIEW', 'REFUNDED')"
    noted = "SELECT 1 FROM unpaid_tender WHERE invoice_id = ? AND state = 'OPEN'"
    return (
        _has_alarm(conn, payment_id, "OTHER_AMOUNT")
        and conn.execute(review, (payment_id,)).fetchone() is not None
        and conn.execute(noted, (invoice_id,)).fetchone() is not None
    )


def _checkouts(conn: sqlite3.Connection) -> list[str]:
    """A sale whose money is all there is signed, or closed and its money on a list."""
    problems = []
    for row in conn.execute("SELECT * FROM checkout"):
        parts = conn.execute("SELECT * FROM payment WHERE checkout_id = ?", (row["id"],)).fetchall()
        ref = row["sale_ref"]
        if row["state"] == "SIGNED":
            loose = [p["money"] for p in parts if p["tender"] == "OPEN" and p["money"] == "PAID"]
            if loose:
                problems.append(f"{ref} is signed, and money of it is nobody's")
        elif row["state"] == "READY":
            problems.append(f"{ref} has all its money, and was never signed")
        elif (
            row["state"] == "COLLECTING"
            and parts
            and all(p["money"] == "PAID" and p["tender"] == "OPEN" for p in parts)
        ):
            problems.append(f"{ref} has all its money, and still collects")
    return problems


def _refunds(conn: sqlite3.Connection, daraja: SimDaraja) -> list[str]:
    problems = []
    by_receipt = {moved.receipt: moved for moved in daraja.journal}
    for row in conn.execute(
        "SELECT r.*, p.receipt AS paid FROM refund r JOIN payment p ON p.id = r.payment_id WHERE r.state = 'DONE'"
    ):
        moved = by_receipt.get(row["paid"])
        if row["how"] == "REVERSAL" and (moved is None or not moved.reversed):
            problems.append(f"the refund of {row['paid']} is called done, and is not")
    return problems


def _how(moved: Moved) -> str:
    return "by a push" if moved.token is not None else "paid directly"
