"""A day of M-Pesa in figures: per till and in all, what was asked, what came and by whose word, what did not,
what is open, what went back, and where money and receipts do not meet.

A payment counts as asked on the day it was asked for, as paid on the day its money came, as gone back on
the day it went. Amounts are integer cents inside, text in the JSON. Nothing here changes anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from gateway.clock import EAT, from_micros, iso, micros
from gateway.domain.payment import OPEN_PUSH, Money, Source, Tender
from gateway.money import from_cents, text
from gateway.payments import twins
from gateway.payments.view import payment_json
from gateway.store import payment_days, payments_shown
from gateway.store.payment_days import Uncovered
from gateway.store.payments import PaymentRow

# Money that came and is no sale's yet.
UNOWNED = (Tender.OPEN, Tender.REVIEW, Tender.REFUND_DUE)
# Payments of a pair lie at most this far apart in most cases; a day is looked at with its edges. Microseconds.
AROUND_US = 3_600_000_000
OTHER_ROWS_MAX = 500


@dataclass(slots=True)
class Sum:
    """How many, and how many cents."""

    number: int = 0
    cents: int = 0

    def add(self, amount_cents: int) -> None:
        self.number += 1
        self.cents += amount_cents

    def as_json(self) -> dict[str, Any]:
        return {"number": self.number, "amount": text(from_cents(self.cents))}


@dataclass(frozen=True, slots=True)
class Day:
    """[start, end) in UTC microseconds; `name` is Nairobi's day (2026-11-24)."""

    name: str
    start: int
    end: int

    def has(self, at: int | None) -> bool:
        return at is not None and self.start <= at < self.end


def day_of(day: date) -> Day:
    """A day in Nairobi."""
    start = datetime(day.year, day.month, day.day, tzinfo=EAT)
    return Day(day.isoformat(), micros(start), micros(start + timedelta(days=1)))


@dataclass(slots=True)
class Figures:
    """One till's day, or the shop's."""

    asked: Sum = field(default_factory=Sum)
    paid: Sum = field(default_factory=Sum)
    # Of the paid: sent by customers unasked (C2B), and asked for on an earlier day.
    unasked: Sum = field(default_factory=Sum)
    asked_earlier: Sum = field(default_factory=Sum)
    paid_by: dict[str, Sum] = field(default_factory=dict)
    # Of the asked: money came on another day, or is counted as the customer's own C2B payment.
    paid_later: Sum = field(default_factory=Sum)
    counted_as_c2b: Sum = field(default_factory=Sum)
    # Left out of the paid: may be the same money as another payment that is counted.
    may_be_same: Sum = field(default_factory=Sum)
    not_paid: Sum = field(default_factory=Sum)
    not_paid_by: dict[str, Sum] = field(default_factory=dict)
    unknown: Sum = field(default_factory=Sum)
    waiting: Sum = field(default_factory=Sum)
    refunded: Sum = field(default_factory=Sum)
    to_follow: Sum = field(default_factory=Sum)
    money_without_receipt: Sum = field(default_factory=Sum)
    refund_due: Sum = field(default_factory=Sum)
    receipts_without_money: Sum = field(default_factory=Sum)

    def add(self, row: PaymentRow, day: Day, *, elsewhere: bool = False) -> None:
        """One payment that was asked for, or whose money came, on `day`. `elsewhere`: its money may be that of
        another payment, which is counted."""
        asked = row.kind == "STK" and day.has(row.created_at)
        if asked:
            self.asked.add(row.amount_cents)
        if row.tender is Tender.MERGED:
            # The same shilling is its twin's.
            if asked:
                self.counted_as_c2b.add(row.amount_cents)
            return
        if elsewhere:
            if day.has(row.paid_at):
                self.may_be_same.add(row.state.came_cents)
            return
        if row.money in (Money.PAID, Money.REFUNDED):
            self._add_paid(row, day, asked=asked)
        elif asked:
            self._add_without_money(row)

    def _add_paid(self, row: PaymentRow, day: Day, *, asked: bool) -> None:
        came = row.state.came_cents
        if not day.has(row.paid_at):
            if asked:
                self.paid_later.add(row.amount_cents)
            return
        self.paid.add(came)
        if row.kind == "C2B":
            self.unasked.add(came)
        elif not asked:
            self.asked_earlier.add(came)
        self.paid_by.setdefault(row.paid_by or Source.PERSON, Sum()).add(came)
        if row.receipt is None:
            self.to_follow.add(came)
        if row.money is Money.PAID and row.tender in UNOWNED:
            self.money_without_receipt.add(came)
            if row.tender is Tender.REFUND_DUE:
                self.refund_due.add(came)

    def _add_without_money(self, row: PaymentRow) -> None:
        if row.money in OPEN_PUSH:
            self.waiting.add(row.amount_cents)
        elif row.money is Money.UNKNOWN:
            self.unknown.add(row.amount_cents)
        else:
            self.not_paid.add(row.amount_cents)
            self.not_paid_by.setdefault(row.reason or "FAILED", Sum()).add(row.amount_cents)

    def as_json(self) -> dict[str, Any]:
        return {
            "asked": self.asked.as_json(),
            "paid": self.paid.as_json(),
            "paidBy": _each(self.paid_by),
            "unasked": self.unasked.as_json(),
            "askedEarlier": self.asked_earlier.as_json(),
            "paidLater": self.paid_later.as_json(),
            "countedAsC2b": self.counted_as_c2b.as_json(),
            "mayBeSame": self.may_be_same.as_json(),
            "notPaid": self.not_paid.as_json(),
            "notPaidBy": _each(self.not_paid_by),
            "waiting": self.waiting.as_json(),
            "unknown": self.unknown.as_json(),
            "refunded": self.refunded.as_json(),
            "kept": text(from_cents(self.paid.cents - self.refunded.cents)),
            "receiptToFollow": self.to_follow.as_json(),
            "moneyWithoutReceipt": self.money_without_receipt.as_json(),
            "refundDue": self.refund_due.as_json(),
            "receiptsWithoutMoney": self.receipts_without_money.as_json(),
        }


def _each(sums: Mapping[str, Sum]) -> dict[str, Any]:
    return {name: sums[name].as_json() for name in sorted(sums)}


def totals(
    rows: Iterable[PaymentRow],
    refunded: Iterable[PaymentRow],
    uncovered: Iterable[Uncovered],
    day: Day,
    elsewhere: Collection[str] = (),
) -> tuple[Figures, dict[str, Figures]]:
    """(the shop, by till). Money that no till has claimed is under the name ''."""
    shop = Figures()
    tills: dict[str, Figures] = {}

    def both(till: str | None) -> tuple[Figures, Figures]:
        return shop, tills.setdefault(till or "", Figures())

    for row in rows:
        for figures in both(row.till_id):
            figures.add(row, day, elsewhere=row.id in elsewhere)
    for row in refunded:
        for figures in both(row.till_id):
            figures.refunded.add(row.state.came_cents)
    for sale in uncovered:
        for figures in both(sale.till_id):
            figures.receipts_without_money.add(sale.cents)
    return shop, dict(sorted(tills.items()))


def make(
    conn: sqlite3.Connection, header: Mapping[str, Any], day: Day, now: datetime
) -> dict[str, Any]:
    """The report's JSON: `header` is the shop's (tradeName, pin, branchId)."""
    rows = payment_days.of_day(conn, day.start, day.end)
    return {
        **header,
        "type": "MPESA",
        "madeAt": iso(now),
        "from": iso(from_micros(day.start)),
        "to": iso(min(now, from_micros(day.end))),
        **day_json(
            rows,
            payment_days.refunded(conn, day.start, day.end),
            payment_days.uncovered(conn, day.start, day.end),
            day,
            elsewhere(conn, day),
        ),
        "otherRows": [
            {"receipt": row.receipt, "kind": row.kind, "amount": text(from_cents(row.cents))}
            for row in payments_shown.other_rows(conn, day.start, day.end, OTHER_ROWS_MAX)
        ],
    }


def elsewhere(conn: sqlite3.Connection, day: Day) -> frozenset[str]:
    """Return the payments that are left out of sums about `day`; of a pair around midnight it is the same one on
    both days."""
    rows = payment_days.of_day(conn, day.start - AROUND_US, day.end + AROUND_US)
    return twins.counted_elsewhere(rows, twins.pairs(conn, rows))


def day_json(
    rows: Sequence[PaymentRow],
    refunded: Sequence[PaymentRow],
    uncovered: Sequence[Uncovered],
    day: Day,
    elsewhere: Collection[str] = (),
) -> dict[str, Any]:
    """The figures and what a person has to look at. Pure. `elsewhere`: what is not counted (`elsewhere`)."""
    shop, tills = totals(rows, refunded, uncovered, day, elsewhere)
    return {
        "day": day.name,
        "shop": shop.as_json(),
        "tills": [{"till": till or None, **figures.as_json()} for till, figures in tills.items()],
        "open": [_open(row) for row in rows if _needs_a_person(row, day)],
        "receiptsWithoutMoney": [
            {
                "invoiceId": sale.invoice_id,
                "till": sale.till_id,
                "saleRef": sale.sale_ref,
                "receipt": sale.counter,
                "amount": text(from_cents(sale.cents)),
            }
            for sale in uncovered
        ],
    }


def _needs_a_person(row: PaymentRow, day: Day) -> bool:
    if row.money is Money.PAID:
        return row.tender in UNOWNED and day.has(row.paid_at)
    return row.money is Money.UNKNOWN


def _open(row: PaymentRow) -> dict[str, Any]:
    shown = payment_json(row)
    names = ("paymentId", "till", "saleRef", "amount", "paid", "receipt", "state", "tender")
    return {name: shown[name] for name in names}


# --- as a table -----------------------------------------------------------------------------------------

COLUMNS = (
    "askedAt", "till", "sale", "kind", "amount", "state", "reason", "tender", "paid", "paidAt", "paidBy",
    "mpesaReceipt", "phone", "invoiceId", "paymentId",
)  # fmt: skip


def table(
    rows: Sequence[PaymentRow],
    uncovered: Sequence[Uncovered],
    elsewhere: Collection[str] = (),
) -> list[tuple[str, ...]]:
    """A line for each payment of the day and for each receipt without money; phones masked. What is not counted
    has MAY_BE_SAME as its reason, and no amount in the column of what was paid."""
    lines: list[tuple[str, ...]] = [COLUMNS]
    for row in rows:
        shown = payment_json(row)
        if row.id in elsewhere:
            shown |= {"paid": None, "reason": "MAY_BE_SAME"}
        values = (
            iso(from_micros(row.created_at)), row.till_id, row.sale_ref or row.account_ref, row.kind,
            shown["amount"], row.money, shown["reason"], row.tender, shown["paid"], shown["paidAt"],
            row.paid_by, row.receipt, shown["phone"], row.invoice_id, row.id,
        )  # fmt: skip
        lines.append(tuple("" if value is None else str(value) for value in values))
    for sale in uncovered:
        lines.append(
            ("", sale.till_id, sale.sale_ref, "RECEIPT", text(from_cents(sale.cents)), "NO_MONEY",
             "", "", "", "", "", "", "", sale.invoice_id, "")
        )  # fmt: skip
    return lines


def rows_of_day(conn: sqlite3.Connection, day: Day) -> tuple[list[PaymentRow], list[Uncovered]]:
    return payment_days.of_day(conn, day.start, day.end), payment_days.uncovered(
        conn, day.start, day.end
    )
