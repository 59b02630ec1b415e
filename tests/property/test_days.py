"""Reports over any story of sales, closes and clocks: each receipt in exactly one close, each figure the
sum that a naive reckoning in cents comes to."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import micros
from gateway.domain.invoice import Invoice, Payment, ReceiptType, SalesType, make_line
from gateway.domain.tax import DEFAULT_RATES
from gateway.errors import DayClosed
from gateway.fiscal.days import Days
from gateway.store import print_jobs, reports
from gateway.store.database import Database, open_database
from tests.support.book import Book
from tests.support.clock import FakeClock
from tests.support.invoices import an_invoice

# Per mille of the tax inside a price: 16 of 116 and 8 of 108, as the law has it; nothing else is taxed.
TAXED = {"A": (0, 1), "B": (16, 116), "C": (0, 1), "D": (0, 1), "E": (8, 108)}


@dataclass(frozen=True)
class Item:
    letter: str
    price_cents: int
    quantity: int
    discount_cents: int = 0

    @property
    def total_cents(self) -> int:
        return self.price_cents * self.quantity - self.discount_cents

    @property
    def tax_cents(self) -> int:
        part, whole = TAXED[self.letter]
        return (2 * self.total_cents * part + whole) // (2 * whole)


@dataclass(frozen=True)
class Sale:
    label: str
    items: tuple[Item, ...]
    card_cents: int
    handed_over_cents: int
    copies: int
    signed: bool


@dataclass(frozen=True)
class Clock:
    """The wall clock moves on, or is set, by so many minutes."""

    minutes: int
    set_by_hand: bool


@dataclass(frozen=True)
class Close:
    """A person presses the button; otherwise the gateway looks by itself."""

    person: bool


@st.composite
def items(draw: st.DrawFn) -> Item:
    item = Item(
        draw(st.sampled_from("ABCDE")), draw(st.integers(1, 50_000)), draw(st.integers(1, 9))
    )
    return Item(
        item.letter, item.price_cents, item.quantity, draw(st.integers(0, item.total_cents))
    )


SALES = st.builds(
    Sale,
    label=st.sampled_from(["NS", "NS", "NS", "NC", "TS", "PS"]),
    items=st.lists(items(), min_size=1, max_size=4).map(tuple),
    card_cents=st.integers(0, 30_000),
    handed_over_cents=st.integers(0, 5_000),
    copies=st.integers(0, 2),
    signed=st.booleans() | st.just(True),
)
CLOCKS = st.builds(Clock, minutes=st.integers(1, 3_000), set_by_hand=st.just(False)) | st.builds(
    Clock, minutes=st.integers(-3_000, 3_000), set_by_hand=st.just(True)
)
STORIES = st.lists(
    SALES | SALES | CLOCKS | st.builds(Close, person=st.booleans()), min_size=1, max_size=25
)


def invoice_of(sale: Sale) -> Invoice:
    lines = tuple(
        make_line(
            seq=seq, item_code=f"KE2NTXU{seq:07d}", item_class="50202300", name="Thing",
            quantity=Decimal(item.quantity), unit_price=Decimal(item.price_cents) / 100,
            tax_letter=item.letter, rates=DEFAULT_RATES, package_unit="NT", quantity_unit="U",
            discount=Decimal(item.discount_cents) / 100,
        )
        for seq, item in enumerate(sale.items, start=1)
    )  # fmt: skip
    total = sum(item.total_cents for item in sale.items)
    card = min(sale.card_cents, total)
    cash = total - card
    payments = [Payment("06", Decimal(card) / 100)] if card else []
    over = sale.handed_over_cents if cash else 0
    if cash:
        payments.append(Payment("01", Decimal(cash + over) / 100))
    kind = {"N": SalesType.NORMAL, "T": SalesType.TRAINING, "P": SalesType.PROFORMA}
    return an_invoice(
        sales_type=kind[sale.label[0]],
        receipt_type=ReceiptType.REFUND if sale.label == "NC" else ReceiptType.SALE,
        lines=lines,
        payments=tuple(payments),
        change=Decimal(over) / 100,
    )


@dataclass
class Reckoning:
    """The naive sums, in cents, by a name for each figure."""

    sums: Counter[str] = field(default_factory=Counter)

    def take(self, sale: Sale) -> None:
        total = sum(item.total_cents for item in sale.items)
        add = self.sums
        if not sale.signed:
            add["incomplete"] += 1
            return
        if sale.label in ("NS", "NC"):
            add["copies"] += sale.copies
            add["copies amount"] += sale.copies * total
        add[sale.label] += 1
        add[f"{sale.label} amount"] += total
        if sale.label not in ("NS", "NC"):
            return
        for item in sale.items:
            add[f"{sale.label} taxable {item.letter}"] += item.total_cents - item.tax_cents
            add[f"{sale.label} tax {item.letter}"] += item.tax_cents
            add[f"{sale.label} items"] += item.quantity
            if sale.label == "NS":
                add["discounts"] += item.discount_cents
        card = min(sale.card_cents, total)
        add[f"{sale.label} 06"] += card
        add[f"{sale.label} 01"] += total - card


def figures(reports_: list[dict[str, Any]]) -> Counter[str]:
    """What the reports say, under the same names."""
    found: Counter[str] = Counter()

    def money(text: str) -> int:
        return int(Decimal(text) * 100)

    for body in reports_:
        for key, label in (("sales", "NS"), ("creditNotes", "NC"), ("proforma", "PS"),
                           ("training", "TS"), ("copies", "copies")):  # fmt: skip
            found[label] += body[key]["number"]
            found[f"{label} amount"] += money(body[key]["amount"])
        for label, taxable, tax, paid, count in (
            ("NS", "taxable", "tax", "payments", "itemsSold"),
            ("NC", "creditNoteTaxable", "creditNoteTax", "creditNotePayments", "itemsReturned"),
        ):
            for letter in "ABCDE":
                found[f"{label} taxable {letter}"] += money(body[taxable][letter])
                found[f"{label} tax {letter}"] += money(body[tax][letter])
            for code, amount in body[paid].items():
                found[f"{label} {code}"] += money(amount)
            found[f"{label} items"] += int(body[count])
        found["discounts"] += money(body["discounts"])
        found["incomplete"] += body["incompleteSales"]
    return found


def days_of(db: Database, clock: FakeClock) -> Days:
    return Days(
        db=db, clock=clock, header={"tradeName": "T", "pin": "P", "branchId": "00"},
        tell_unit=None, paper=lambda conn, report: None, by_itself=True,
    )  # fmt: skip


async def live(story: list[Sale | Clock | Close], folder: Path) -> None:
    clock = FakeClock()
    book, naive = Book(clock), Reckoning()
    async with open_database(folder, readers=1) as db:
        days = days_of(db, clock)
        for step in story:
            match step:
                case Sale():
                    naive.take(step)
                    await db.write_soft(lambda conn, s=step: put(conn, book, s, clock))
                case Clock(minutes, set_by_hand=True):
                    clock.step_wall(minutes=minutes)
                case Clock(minutes):
                    clock.pass_time(minutes=minutes)
                case Close(person=True):
                    try:
                        await days.close("wanjiru")
                    except DayClosed as closed:
                        assert closed.extra["number"]
                case Close():
                    await days.catch_up()
        # Nothing is in hand any more.
        clock.pass_time(days=10)
        open_one = await days.x_report()
        assert await days.x_report() == open_one
        closed = await db.read(lambda conn: reports.recent(conn, 1000))
        assert len({z.day for z in closed}) == len(closed)
        assert [z.number for z in closed] == list(range(len(closed), 0, -1))
        bodies = [z.body for z in closed]
        assert +figures([*bodies, open_one]) == +naive.sums
        # The last look of the gateway itself leaves no receipt without a close.
        await days.catch_up()
        left = figures([await days.x_report()])
        assert not any(left[label] for label in ("NS", "NC", "TS", "PS"))
        bodies = [z.body for z in await db.read(lambda conn: reports.recent(conn, 1000))]
        assert +(figures(bodies) + left) == +naive.sums


def put(conn: Any, book: Book, sale: Sale, clock: FakeClock) -> None:
    row = book.begin(conn, invoice_of(sale))
    if not sale.signed:
        return
    book.sign(conn, row)
    for _ in range(sale.copies):
        print_jobs.enqueue_copy(conn, row.id, "counter", "till-1", at=micros(clock.now()))


@settings(max_examples=60, deadline=None)
@given(STORIES)
def test_every_receipt_is_in_exactly_one_close_whatever_the_clock_did(
    story: list[Sale | Clock | Close],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(story, Path(folder)))
