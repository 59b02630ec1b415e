"""A day of M-Pesa summed: every payment is somewhere, once; the day is Nairobi's; a CSV runs nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.payment_report import as_csv
from gateway.domain.invoice import Payment
from gateway.domain.payment import Act, Evidence, Money, Source, Tender, Verdict
from gateway.ids import new_id
from gateway.payments.ledger import Ledger
from gateway.payments.report import COLUMNS, day_of, make, table, totals
from gateway.store import checkouts, payments
from gateway.store.database import Database, open_database
from gateway.store.payment_days import Uncovered
from gateway.store.payments import NewPush, PaymentRow
from tests.support.book import Book
from tests.support.clock import FakeClock
from tests.support.invoices import an_invoice
from tests.support.payment_rows import a_payment

DAY = day_of(date(2026, 11, 23))
HOUR = 3_600_000_000
times = st.integers(DAY.start - 24 * HOUR, DAY.end + 24 * HOUR)


@st.composite
def a_row(draw: st.DrawFn) -> PaymentRow:
    money = draw(st.sampled_from(Money))
    came = money in (Money.PAID, Money.REFUNDED)
    kind = draw(st.sampled_from(("STK", "C2B"))) if came else "STK"
    tender = draw(st.sampled_from(Tender))
    created = draw(times)
    return a_payment(
        draw(st.integers(0, 10**9)),
        kind=kind,
        till_id=draw(st.sampled_from(("till-1", "till-2", None))) if kind == "C2B" else "till-1",
        money=money,
        tender=tender if came or tender is not Tender.MERGED else Tender.OPEN,
        amount_cents=draw(st.integers(1, 25_000_000)),
        paid_cents=draw(st.none() | st.integers(1, 25_000_000)) if came else None,
        paid_by=draw(st.sampled_from(Source)) if came else None,
        paid_at=created + draw(st.integers(0, 24 * HOUR)) if came else None,
        created_at=created,
    )


@given(st.lists(a_row(), max_size=30))
def test_every_payment_of_the_day_is_counted_once(rows: Sequence[PaymentRow]) -> None:
    shop, tills = totals(rows, (), (), DAY)
    asked = [row for row in rows if row.kind == "STK" and DAY.has(row.created_at)]
    assert shop.asked.number == len(asked)
    # What was asked for is paid, not paid, open, or told at another place of the report.
    assert shop.asked.number == (
        shop.paid.number - shop.unasked.number - shop.asked_earlier.number
        + shop.paid_later.number + shop.counted_as_c2b.number + shop.not_paid.number
        + shop.waiting.number + shop.unknown.number
    )  # fmt: skip
    came = [
        row.state.came_cents
        for row in rows
        if DAY.has(row.paid_at) and row.tender is not Tender.MERGED
    ]
    assert shop.paid.cents == sum(came)
    assert shop.paid.cents == sum(each.cents for each in shop.paid_by.values())
    assert shop.not_paid.number == sum(each.number for each in shop.not_paid_by.values())
    for name in ("asked", "paid", "not_paid", "unknown", "money_without_receipt"):
        assert getattr(shop, name).cents == sum(getattr(t, name).cents for t in tills.values())


def test_the_day_is_nairobis() -> None:
    assert DAY.name == "2026-11-23"
    # Midnight in Nairobi is 21:00 UTC of the day before.
    before = a_payment(1, created_at=DAY.start - 1)
    first = a_payment(2, created_at=DAY.start)
    last = a_payment(3, created_at=DAY.end - 1)
    after = a_payment(4, created_at=DAY.end)
    shop, _ = totals([before, first, last, after], (), (), DAY)
    assert shop.asked.number == 2


@pytest.mark.parametrize("reference", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_a_csv_runs_nothing_that_a_customer_typed(reference: str) -> None:
    row = a_payment(
        1, kind="C2B", sale_ref=None, account_ref=reference, till_id=None, money=Money.PAID,
        paid_by=Source.C2B, paid_at=DAY.start, receipt="UKN1AB2CD3", payer="2547*****149",
    )  # fmt: skip
    text = as_csv(table([row], [Uncovered("i", "till-1", '="x"', "1/1 NS", 100)]))
    head, paid, sale = csv.reader(io.StringIO(text, newline=""))
    assert tuple(head) == COLUMNS
    assert paid[COLUMNS.index("sale")] == "'" + reference
    assert sale[COLUMNS.index("sale")] == '\'="x"'
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in paid + sale)
    assert len(paid) == len(sale) == len(COLUMNS)


def test_a_csv_has_no_whole_phone_number() -> None:
    text = as_csv(table([a_payment(1)], []))
    assert "2547*****149" in text
    assert "254708374149" not in text


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as opened:
        yield opened


async def test_the_stored_day_refunds_and_receipts_without_money(db: Database) -> None:
    clock = FakeClock()
    ledger, book = Ledger(db, clock), Book(clock)

    async def push(number: int) -> str:
        at = int(clock.now().timestamp() * 1e6)
        new = NewPush(
            new_id(at), "till-1", f"k{number}", "0" * 64, None, f"POS-{number}", 29_700,
            f"2547083741{number:02d}", f"REF{number}", f"{number:064d}", at,
        )  # fmt: skip
        await db.write(lambda conn: payments.insert_push(conn, new))
        await ledger.hear(new.id, Evidence(Source.TILL, Verdict.SENDING))
        await ledger.hear(new.id, Evidence(Source.PUSH, Verdict.ACCEPTED))
        return new.id

    async def paid(payment_id: str, receipt: str) -> None:
        await ledger.hear(
            payment_id,
            Evidence(Source.CALLBACK, Verdict.PAID, "0", receipt=receipt, amount_cents=29_700),
        )

    covered, back, late = [await push(n) for n in (1, 2, 3)]
    await paid(covered, "UKN1AB2CD3")
    await paid(back, "UKN1AB2CD4")
    await ledger.act(back, Act.REFUND_ORDERED, "wanjiru", "broken bottle")
    await ledger.act(back, Act.REFUNDED_BY_HAND, "wanjiru", "gave cash")
    by_phone = an_invoice(payments=(Payment("06", Decimal("297.00")),))
    mixed = an_invoice(payments=(Payment("06", Decimal("97.00")), Payment("01", Decimal("200.00"))))
    await db.write(lambda conn: book.sell(conn, an_invoice()))
    with_it = await db.write(lambda conn: book.sell(conn, by_phone))
    without = await db.write(lambda conn: book.sell(conn, mixed))
    await db.write(
        lambda conn: checkouts.note_unpaid(
            conn, invoice_id=without, position=0, till_id="till-1", sale_ref="P3", amount_cents=9700,
            reference=None, at=DAY.start + HOUR,
        )
    )  # fmt: skip
    await ledger.act(covered, Act.SALE_WITH_IT, "till-1", invoice_id=with_it)

    conn_day = await db.read(lambda conn: make(conn, {"tradeName": "T"}, DAY, clock.now()))
    shop = conn_day["shop"]
    assert conn_day["tradeName"] == "T"
    assert shop["asked"] == {"number": 3, "amount": "891.00"}
    assert shop["paid"] == {"number": 2, "amount": "594.00"}
    assert shop["paidBy"] == {"CALLBACK": {"number": 2, "amount": "594.00"}}
    assert shop["refunded"] == {"number": 1, "amount": "297.00"}
    assert shop["kept"] == "297.00"
    assert shop["waiting"]["number"] == 1
    assert shop["receiptsWithoutMoney"] == {"number": 1, "amount": "97.00"}
    assert [row["invoiceId"] for row in conn_day["receiptsWithoutMoney"]] == [without]
    # The third customer pays after midnight: today's money for yesterday's request.
    clock.pass_time(hours=18)
    await paid(late, "UKO1AB2CD5")
    yesterday = await db.read(lambda conn: make(conn, {}, DAY, clock.now()))
    next_day = day_of(date(2026, 11, 24))
    now = await db.read(lambda conn: make(conn, {}, next_day, clock.now()))
    assert yesterday["shop"]["paidLater"]["number"] == 1
    assert yesterday["shop"]["paid"] == {"number": 2, "amount": "594.00"}
    assert now["shop"]["askedEarlier"] == {"number": 1, "amount": "297.00"}
    assert now["shop"]["moneyWithoutReceipt"]["number"] == 1
    assert [row["receipt"] for row in now["open"]] == ["UKO1AB2CD5"]
