"""The printed receipt in KRA's order and wording, for all seven labels (TIS pages 8 and 10, 6.17, 11).

Pure: an invoice, its receipt and the shop in, a Document out. KRA has refused a go-live for the
template alone (etims.md 6), so the order of the blocks is as fixed as the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from gateway.clock import EAT
from gateway.domain.invoice import Invoice, InvoiceLine, ReceiptType, SalesType
from gateway.domain.receipt import COPY_LABELS, Receipt, dashed, portal_url
from gateway.domain.tax import RateTable
from gateway.printing.document import Block, Cut, Document, Drawer, Logo, Qr, Text
from gateway.printing.typeset import Typesetter
from gateway.printing.words import WORDS, Words

NOT_OFFICIAL = "THIS IS NOT AN OFFICIAL RECEIPT"
CREDIT_SENTENCE = ("CREDIT NOTE IS APPROVED ONLY FOR", "ORIGINAL SALES RECEIPT")
# Code class 07 in KRA's words (etims.md 5.3).
PAYMENT_NAMES = {
    "01": "CASH",
    "02": "CREDIT",
    "03": "CASH/CREDIT",
    "04": "BANK CHECK",
    "05": "DEBIT&CREDIT CARD",
    "06": "MOBILE MONEY",
    "07": "OTHER",
}
# KRA's address at correction M is 41 modules (45 on the sandbox): 25.6 mm and 30.7 mm at 8 dots/mm.
QR_DOTS = {58: 5, 80: 6}


@dataclass(frozen=True, slots=True)
class Shop:
    """Who sells: from the settings, the same on every slip."""

    trade_name: str
    address: str
    pin: str
    branch_id: str
    portal: str
    commercial_message: str = ""
    footer_lines: tuple[str, ...] = ()
    language: Literal["en", "sw"] = "en"
    legal_end_line: bool = True
    logo: str | None = None


@dataclass(frozen=True, slots=True)
class Slip:
    """What is printed: the original, or its n-th copy. `sold_at` is the till's own time (TIS)."""

    invoice: Invoice
    receipt: Receipt
    sold_at: datetime
    rates: RateTable
    copy_no: int = 0
    # Whether the cash drawer opens with it.
    drawer: bool = False

    @property
    def label(self) -> str:
        """The label on paper: CS and CC for copies of NS and NC (TIS 4.3)."""
        label = self.receipt.label
        return COPY_LABELS.get(label, label) if self.copy_no else label


def receipt_document(slip: Slip, shop: Shop, *, columns: int, paper_mm: int = 80) -> Document:
    """The whole slip, 32 to 64 columns wide."""
    return tuple(_Layout(slip, shop, columns, paper_mm).blocks())


class _Layout(Typesetter):
    def __init__(self, slip: Slip, shop: Shop, columns: int, paper_mm: int) -> None:
        self.slip = slip
        self.invoice = slip.invoice
        self.receipt = slip.receipt
        self.shop = shop
        super().__init__(columns)
        self.paper_mm = paper_mm
        self.words: Words = WORDS[shop.language]
        self.refund = slip.invoice.receipt_type is ReceiptType.REFUND

    def blocks(self) -> Iterator[Block]:
        if self.slip.drawer:
            yield Drawer()
        yield from self.header()
        yield from self.designation()
        if self.shop.commercial_message:
            yield from self.centred(self.shop.commercial_message)
        yield from self.buyer()
        yield self.rule()
        yield from self.items()
        yield self.rule()
        yield from self.totals()
        yield self.rule()
        yield from self.payments()
        yield self.rule()
        yield from self.tax_table()
        yield self.rule()
        yield from self.scu()
        yield self.rule()
        yield from self.tis()
        yield self.rule()
        yield from self.footer()
        yield Cut()

    # --- blocks in KRA's order -------------------------------------------------------------------

    def header(self) -> Iterator[Block]:
        if self.shop.logo is not None:
            yield Logo(self.shop.logo)  # KRA's, on every receipt of every type (TIS 6.28)
        yield from self.centred(self.shop.trade_name, bold=True)
        if self.shop.address:
            yield from self.centred(self.shop.address)
        yield from self.centred(f"PIN: {self.shop.pin}")
        title = "CREDIT NOTE" if self.refund else "TAX INVOICE"
        if self.invoice.sales_type is SalesType.PROFORMA:
            title = "PROFORMA INVOICE"
        yield from self.centred(title, bold=True)

    def designation(self) -> Iterator[Block]:
        """Below the header, above the items, at twice the size of the amounts (TIS 11)."""
        name = None
        if self.invoice.sales_type is SalesType.TRAINING:
            name = "TRAINING"
        elif self.invoice.sales_type is SalesType.PROFORMA:
            name = "PROFORMA"
        elif self.slip.copy_no:
            name = "COPY"
        if name is None:
            return
        yield Text("")
        yield from self.large(name)
        yield from self.large(NOT_OFFICIAL)
        if self.slip.copy_no > 1:
            yield from self.centred(f"({self.words.copy_number.format(self.slip.copy_no)})")

    def buyer(self) -> Iterator[Block]:
        buyer = self.invoice.buyer
        yield from self.wrapped(f"BUYER PIN: {buyer.pin or '-'}")
        if buyer.name:
            yield from self.wrapped(f"{self.words.buyer}: {buyer.name}")
        if self.refund:
            yield self.rule()
            yield from self.wrapped("ORIGINAL CU INVOICE NO.#:")
            yield from self.wrapped(self.invoice.original_cu_invoice_no or "-")
            for line in CREDIT_SENTENCE:
                yield from self.wrapped(line)

    def items(self) -> Iterator[Block]:
        for line in self.invoice.lines:
            yield from self.wrapped(line.name)
            yield self.pair(
                f"  {_plain(line.unit_price)} x {_quantity(line.quantity)}",
                self.amount(line.supply) + self.letter(line),
            )
            if line.discount:
                percent = (
                    f" {line.discount_percent.normalize():f}%" if line.discount_percent else ""
                )
                # A discount taken back is money to the shop again, so it is plain on a credit note.
                amount = _plain(line.discount)
                yield self.pair(
                    f"  {self.words.discount}{percent}", amount if self.refund else f"({amount})"
                )

    def letter(self, line: InvoiceLine) -> str:
        """The tax letter behind the amount; exempt goods carry KRA's short form (TIS page 8)."""
        return f"{line.tax_letter}-EX" if line.tax_letter == "A" else line.tax_letter

    def totals(self) -> Iterator[Block]:
        invoice = self.invoice
        if self.refund:
            yield self.pair("TOTAL", self.amount(invoice.total), bold=True)
            for row in invoice.letters:
                if row.gross and row.percent:
                    name = f"TOTAL {row.letter}-{row.percent:.2f}%"
                    yield self.pair(name, self.amount(row.gross))
                    yield self.pair(f"TOTAL TAX {row.letter}", self.amount(row.tax))
            yield self.pair("TOTAL TAX", self.amount(invoice.tax))
            return
        yield self.pair("TOTAL BEFORE DISCOUNT", self.amount(invoice.supply))
        yield self.pair("TOTAL DISCOUNT AWARDED", f"({self.amount(invoice.discount)})")
        exempt = next(row.gross for row in invoice.letters if row.letter == "A")
        yield self.pair("TOTAL TAX-EXEMPTED AMOUNT", self.amount(exempt))
        yield self.pair("SUB TOTAL", self.amount(invoice.net))
        yield self.pair("VAT", self.amount(invoice.tax))
        yield self.pair("TOTAL", self.amount(invoice.total), bold=True)

    def payments(self) -> Iterator[Block]:
        for payment in self.invoice.payments:
            name = PAYMENT_NAMES.get(payment.code, payment.code)
            yield self.pair(name, self.amount(payment.amount))
        if self.invoice.change:
            yield self.pair(self.words.change, self.amount(self.invoice.change))
        yield self.pair("ITEMS NUMBER", str(len(self.invoice.lines)))

    def tax_table(self) -> Iterator[Block]:
        """All five rows, also the unused: KRA-certified receipts print them always (etims.md 6.1).

        With KRA's long names where they fit beside the amounts, else with its short ones (A-EX), and
        for sums of millions on narrow paper with the amounts on a line of their own.
        """
        rows = [
            (self.slip.rates[row.letter], self.amount(row.net), self.amount(row.tax))
            for row in self.invoice.letters
        ]
        rates = [f"{rate.percent.normalize():f}" for rate, _, _ in rows]
        least = 11 if self.columns >= 42 else 10
        net_room = max(least, *(len(net) + 1 for _, net, _ in rows))
        tax_room = max(least, *(len(tax) + 1 for _, _, tax in rows))
        left = self.columns - 6 - net_room - tax_room
        names = [rate.name for rate, _, _ in rows]
        if max(map(len, names)) > left:
            names = [rate.short for rate, _, _ in rows]
        split = max(map(len, names)) > left
        for name, rate, (_, net, tax) in zip(
            ["Tax", *names], ["Rate%", *rates], [("", "Taxable", "VAT"), *rows], strict=True
        ):
            if split:
                yield Text(f"{name:<{self.columns - 6}}{rate:>6}")
                yield self.pair(f"  {net}", tax)
            else:
                yield Text(f"{name:<{left}}{rate:>6}{net:>{net_room}}{tax:>{tax_room}}")

    def scu(self) -> Iterator[Block]:
        receipt = self.receipt
        at = receipt.scu_time.astimezone(EAT)
        yield Text("SCU INFORMATION", "center", bold=True)
        yield from self.wrapped(f"Date: {at:%d/%m/%Y}  Time: {at:%H:%M:%S}")
        yield from self.wrapped(f"SCU ID: {receipt.sdc_id}")
        yield from self.wrapped(f"CU INVOICE NO.: {receipt.cu_invoice_no}")
        yield from self.wrapped(
            f"RECEIPT NUMBER: {receipt.rcpt_no}/{receipt.tot_rcpt_no} {self.slip.label}"
        )
        if self.invoice.sales_type is not SalesType.NORMAL:
            return  # nothing that KRA's portal knows: no signature, no address to look it up at
        yield Text("Internal Data:")
        yield from self.wrapped(dashed(receipt.intrl_data))
        yield Text("Receipt Signature:")
        yield from self.wrapped(dashed(receipt.rcpt_sign))
        shop = self.shop
        yield Qr(
            portal_url(shop.pin, shop.branch_id, receipt.rcpt_sign, base=shop.portal),
            QR_DOTS.get(self.paper_mm, 5),
        )

    def tis(self) -> Iterator[Block]:
        at = self.slip.sold_at.astimezone(EAT)
        yield Text("TIS INFORMATION", "center", bold=True)
        yield from self.wrapped(f"RECEIPT NUMBER: {self.invoice.till_receipt_no}")
        yield from self.wrapped(f"DATE: {at:%d/%m/%Y}  TIME: {at:%H:%M:%S}")
        yield from self.wrapped(f"{self.words.cashier}: {self.invoice.cashier.name}")

    def footer(self) -> Iterator[Block]:
        for line in self.shop.footer_lines:
            yield from self.centred(line)
        if self.shop.legal_end_line:
            official = not self.slip.copy_no and self.invoice.sales_type is SalesType.NORMAL
            yield from self.centred("END OF LEGAL RECEIPT" if official else "END OF RECEIPT")

    # --- the typesetter's hand -------------------------------------------------------------------

    def amount(self, value: Decimal) -> str:
        """Money on paper; everything on a credit note is negative there (TIS page 10)."""
        return _plain(-value if self.refund and value else value)


def _plain(value: Decimal) -> str:
    return f"{value:,.2f}"


def _quantity(value: Decimal) -> str:
    return f"{value.normalize():f}"
