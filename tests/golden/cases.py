"""The slips whose bytes and pictures are kept: fixed times, numbers and names, so one outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.clock import EAT
from gateway.domain.ceiling import CeilingState, CeilingView
from gateway.domain.invoice import (
    Buyer,
    Cashier,
    InvoiceLine,
    Payment,
    ReceiptType,
    SalesType,
    make_line,
)
from gateway.domain.payment import Money, Reason, Source, Tender
from gateway.domain.receipt import PORTALS, Receipt
from gateway.domain.report import DayTotals
from gateway.domain.tax import DEFAULT_RATES
from gateway.payments.report import day_json, day_of
from gateway.printing.document import Document
from gateway.printing.layout import Shop, Slip, receipt_document
from gateway.printing.notes import note_document, strip_text, with_banner
from gateway.printing.report_layout import report_document
from gateway.printing.words import WORDS
from gateway.store.payment_days import Uncovered
from tests.support.invoices import an_invoice
from tests.support.payment_rows import a_payment

FOLDER = Path(__file__).parent / "receipts"
DOTS = {58: 384, 80: 576}
COLUMNS = {58: 32, 80: 48}
SCU_TIME = datetime(2026, 7, 7, 11, 41, 22, tzinfo=EAT)
TIS_TIME = SCU_TIME - timedelta(seconds=2)
LABELS = ("NS", "NC", "CS", "CC", "TS", "TC", "PS")
SIGNED = ("NS", "NC", "CS", "CC")


@dataclass(frozen=True, slots=True)
class Case:
    """`replaced` is what the printer has no letter for, and what stands in its place."""

    name: str
    document: Document
    paper_mm: int = 80
    profile: str = "default"
    cut: bool = True
    replaced: dict[str, str] = field(default_factory=dict)

    @property
    def columns(self) -> int:
        return COLUMNS[self.paper_mm]

    @property
    def dots(self) -> int:
        return DOTS[self.paper_mm]

    @property
    def bytes_file(self) -> Path:
        return FOLDER / f"{self.name}.bin"

    @property
    def picture_file(self) -> Path:
        return FOLDER / f"{self.name}.png"


def shop(language: Any = "en", **changes: Any) -> Shop:
    words = WORDS[language]
    seller = Shop(
        trade_name="TEST TRADERS LTD",
        address="TEST PLAZA, NAIROBI",
        pin="A000123456B",
        branch_id="00",
        portal=PORTALS["production"],
        commercial_message=words.welcome,
        footer_lines=words.thanks,
        language=language,
    )
    return replace(seller, **changes)


def labelled(label: str, *, copy_no: int | None = None, **changes: Any) -> Slip:
    """The sale of the fixtures, or its credit note, as the slip with this label."""
    original = {"CS": "NS", "CC": "NC"}.get(label, label)
    refund = original.endswith("C")
    values: dict[str, Any] = {
        "sales_type": SalesType(original[0]),
        "receipt_type": ReceiptType.REFUND if refund else ReceiptType.SALE,
    }
    if refund:
        values |= {
            "till_receipt_no": "POS-000002",
            "original_invc_no": 1,
            "original_cu_invoice_no": "KRACU0300000001/1",
            "refund_reason": "06",
        }
    number = 2 if refund else 1
    receipt = Receipt(
        label=original,
        invc_no=number,
        rcpt_no=number,
        tot_rcpt_no=number,
        sdc_id="KRACU0300000001",
        mrc_no="WIS00000001",
        intrl_data="EGVEIFTKL2IOQU5ZT2RT4GFVGU",
        rcpt_sign="3FAFG3VM36XTOUJT",
        scu_time=SCU_TIME,
    )
    if copy_no is None:
        copy_no = int(label in ("CS", "CC"))
    invoice = an_invoice(**(values | changes))
    return Slip(invoice, receipt, TIS_TIME, DEFAULT_RATES, copy_no)


def a_line(seq: int, name: str, quantity: str, price: str, letter: str, **more: Any) -> InvoiceLine:
    return make_line(
        seq=seq, item_code=f"KE2NTXU{seq:07d}", item_class="50202300", name=name,
        quantity=Decimal(quantity), unit_price=Decimal(price), tax_letter=letter,
        rates=DEFAULT_RATES, package_unit="NT", quantity_unit="U", **more,
    )  # fmt: skip


def cash(*lines: InvoiceLine) -> dict[str, Any]:
    total = sum((line.total for line in lines), Decimal(0))
    return {"lines": lines, "payments": (Payment("01", total),)}


def on_paper(slip: Slip, seller: Shop, paper_mm: int) -> Document:
    return receipt_document(slip, seller, columns=COLUMNS[paper_mm], paper_mm=paper_mm)


LONG_NAMES = cash(
    a_line(1, "Maize flour sifted grade one fortified with vitamins and iron, bale of 12 x 2kg "
           "packets, Premium Millers of Kitale", "1.5", "1899.00", "C"),
    a_line(2, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
           "1", "10.00", "B"),
    a_line(3, "X" * 200, "10", "0.50", "E"),
)  # fmt: skip
# Accents, typographic marks, money signs: all on some code page. Then what is on none of a printer's.
ACCENTS = cash(
    a_line(1, "Café Kenya AA – moulu, crème brûlée", "1", "850.00", "B"),
    a_line(2, "Piña colada ‘añejo’ 70cl", "1", "2400.00", "B"),
    a_line(3, "Mama’s “Maziwa Lala” 500ml", "2", "65.00", "C"),
    a_line(4, "Ng'ombe ¼ kilo, Müsli Größe 2", "1", "320.00", "A"),
    a_line(5, "Voucher 10 € / £8", "1", "1500.00", "D"),
    a_line(6, "Wĩra wa gĩthomo", "1", "50.00", "B"),
    a_line(7, "Chai 茶 green tea ☕", "1", "450.00", "B"),
    a_line(8, "Cafe\u0301 ﬁlter … ™ tab\tnbsp\u00a0zero\u200bwidth", "1", "5.00", "B"),
)  # fmt: skip
DISCOUNTS: dict[str, Any] = {
    "lines": (
        a_line(1, "Cooking oil 5L", "2", "1450.00", "B", discount_percent=Decimal(10)),
        a_line(2, "Rice pishori 2kg", "3", "420.00", "C", discount=Decimal("60.00")),
        a_line(3, "Diesel", "12.35", "178.50", "E"),
        a_line(4, "Ordinary bread 400g", "1", "65.00", "A", discount_percent=Decimal("2.5")),
    ),
    "payments": (
        Payment("06", Decimal("3000.00"), "TJ12XYZ890"),
        Payment("05", Decimal("2000.00")),
        Payment("01", Decimal("1100.00")),
    ),
    "change": Decimal("22.15"),
    "buyer": Buyer("P051234567X", "Kiboko Safaris & Transport Company Limited", "0712345678"),
    "cashier": Cashier("w7", "Wanjirũ wa Kamau"),
}
MILLIONS = cash(a_line(1, "Generator 500 kVA", "12", "4875999.99", "B"))


def report(kind: str) -> dict[str, Any]:
    """As `fiscal.days` makes it."""
    made = "2026-07-07T21:04:09+03:00"
    head = {
        "type": kind, "tradeName": "TEST TRADERS LTD", "pin": "A000123456B", "madeAt": made,
        "from": "2026-07-07T00:00:00+03:00",
        "to": "2026-07-07T23:59:59+03:00" if kind == "Z" else made,
    }  # fmt: skip
    if kind == "MPESA":
        return head | mpesa_day()
    if kind == "PLU":
        rows = (
            ("KE2NTXU0000001", "Bottled soda 500ml", "116.00", "B", "214", "24824.00", "386"),
            ("KE2NTXU0000002", "Ordinary bread 400g", "65.00", "A", "95", "6175.00", None),
            ("KE2NTXU0000003", "Maize flour sifted, fortified, bale of 12 x 2kg packets",
             "1899.00", "C", "-1", "-1899.00", "12.5"),
        )  # fmt: skip
        names = (
            "itemCode", "name", "unitPrice", "taxCode", "quantity", "amount", "remaining",
        )  # fmt: skip
        items = [dict(zip(names, row, strict=True)) for row in rows]
        return head | {"items": items, "total": "29100.00"}
    day = DayTotals(incomplete=1)
    for _ in range(150):
        day.add("NS", labelled("NS").invoice)
    for tender in ("05", "06"):
        paid = (Payment(tender, Decimal("297.00")),)
        day.add("NS", labelled("NS", payments=paid).invoice)
    for label in ("NC", "TS"):
        day.add(label, labelled(label).invoice)
    day.copies.add(Decimal("297.00"))
    return head | {
        "number": 17 if kind == "Z" else 3, "openingDeposit": "5000.00", **day.as_json(),
    }  # fmt: skip


def mpesa_day() -> dict[str, Any]:
    """Two tills and a customer who paid by himself; every line of the report."""
    day = day_of(date(2026, 7, 7))
    at = day.start + 9 * 3_600_000_000
    paid = dict(money=Money.PAID, paid_at=at, created_at=at, paid_by=Source.CALLBACK)
    done: dict[str, Any] = paid | {"tender": Tender.COMPLETED_BY_MPESA}
    rows = [a_payment(n, **done, receipt=f"UG7AB1C{n:02d}D") for n in range(12)]
    rows += [
        a_payment(20, **{**done, "paid_by": Source.QUERY}),
        a_payment(21, **paid, till_id="till-2", receipt="UG7AB1C99D"),
        a_payment(22, **paid, receipt="UG7AB1C98D", paid_cents=28_000, tender=Tender.REVIEW),
        a_payment(23, **paid, till_id="till-2", receipt="UG7AB1C97D", tender=Tender.REFUND_DUE),
        a_payment(24, **{**paid, "paid_by": Source.C2B, "till_id": None, "sale_ref": None},
                  kind="C2B", receipt="UG7AB1C96D", amount_cents=1_250_000),
        a_payment(25, **{**done, "created_at": day.start - 1}, receipt="UG7AB1C95D"),
        a_payment(26, created_at=at, money=Money.NOT_PAID, reason=Reason.CANCELLED),
        a_payment(27, created_at=at, money=Money.NOT_PAID, reason=Reason.FAILED_FUNDS),
        a_payment(28, created_at=at, money=Money.REFUSED, reason=Reason.CONFIG, till_id="till-2"),
        a_payment(29, created_at=at, money=Money.UNKNOWN, tender=Tender.COMPLETED_OTHERWISE),
        a_payment(30, created_at=at, money=Money.WAITING, till_id="till-2"),
    ]  # fmt: skip
    back = a_payment(31, **{**paid, "money": Money.REFUNDED}, receipt="UG7AB1C94D",
                     tender=Tender.REFUNDED)  # fmt: skip
    uncovered = [Uncovered("x", "till-1", "POS-000077", "77/81 NS", 29_700)]
    return day_json([*rows, back], [back], uncovered, day)


def a_warning(language: str) -> str:
    view = CeilingView(CeilingState.WARNING, 4 * 3_600_000_000 + 25 * 60_000_000, 81, 75, "A",
                       0, 0, 24 * 3_600_000_000)  # fmt: skip
    text = strip_text(view, TIS_TIME, language)
    assert text is not None
    return text


def _labels() -> Iterator[Case]:
    for paper_mm in (80, 58):
        for label in LABELS:
            yield Case(f"{label}-{paper_mm}", on_paper(labelled(label), shop(), paper_mm), paper_mm)


def _reports() -> Iterator[Case]:
    for paper_mm in (80, 58):
        for kind in ("X", "Z", "PLU", "MPESA"):
            document = report_document(report(kind), COLUMNS[paper_mm])
            yield Case(f"{kind}-{paper_mm}", document, paper_mm)
    yield Case("Z-sw-58", report_document(report("Z"), 32, "sw"), 58)


def _more() -> Iterator[Case]:
    ns: Callable[..., Slip] = lambda **changes: labelled("NS", **changes)  # noqa: E731
    yield Case("long-names-58", on_paper(ns(**LONG_NAMES), shop(), 58), 58)
    replaced = {"ĩ": "i", "ũ": "u", "茶": "?", "☕": "?"}
    yield Case("accents-80", on_paper(ns(**ACCENTS), shop(), 80), replaced=replaced)
    yield Case(
        "accents-one-page-80", on_paper(ns(**ACCENTS), shop(), 80), profile="simple",
        replaced=replaced | {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "€": "E"},
    )  # fmt: skip
    sale = on_paper(ns(**DISCOUNTS), shop(), 80)
    yield Case("discounts-80", sale, replaced={"ũ": "u"})
    note = labelled("NC", **{**DISCOUNTS, "payments": (), "change": Decimal(0)})
    yield Case("discounts-NC-80", on_paper(note, shop(), 80), replaced={"ũ": "u"})
    yield Case(
        "kiswahili-80", on_paper(ns(**DISCOUNTS), shop("sw"), 80), replaced={"ũ": "u"}
    )  # fmt: skip
    yield Case("kiswahili-CS-58", on_paper(labelled("CS", copy_no=2), shop("sw"), 58), 58)
    hundreds = cash(a_line(1, "Television 65 inch", "2", "99999.00", "B"))
    yield Case("hundred-thousands-58", on_paper(ns(**hundreds), shop(), 58), 58)
    yield Case("millions-58", on_paper(ns(**MILLIONS), shop(), 58), 58)
    many = cash(*(a_line(n, f"Item number {n}", "1", f"{n}.50", "ABCDE"[n % 5])
                  for n in range(1, 301)))  # fmt: skip
    yield Case("lines-300-80", on_paper(ns(**many), shop(), 80))
    sandbox = shop(portal=PORTALS["sandbox"])
    yield Case("sandbox-58", on_paper(ns(), sandbox, 58), 58)
    yield Case("drawn-qr-58", on_paper(ns(), shop(), 58), 58, profile="NT-5890K", cut=False)
    for paper_mm in (80, 58):
        seller = shop(logo=str(Path(__file__).parent / f"logo-{paper_mm}.png"))
        yield Case(f"logo-PS-{paper_mm}", on_paper(labelled("PS"), seller, paper_mm), paper_mm)
    yield Case("strip-sw-58", note_document(a_warning("sw"), 32), 58)
    banner = WORDS["en"].meant_for.format("TILL-2")
    yield Case("banner-80", with_banner(banner, on_paper(labelled("TS"), shop(), 80), 48))
    captured = "NOT FISCALISED\nMY SHOP\n\n2 SODA               116.00\n  CHANGE              84.00"
    yield Case("not-fiscalised-58", note_document(captured, 32), 58)


def cases() -> tuple[Case, ...]:
    return (*_labels(), *_reports(), *_more())
