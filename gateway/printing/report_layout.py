"""X, Z and PLU on paper. Pure: the report's JSON in, a Document out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from gateway.clock import EAT
from gateway.printing.document import Block, Cut, Document, Text
from gateway.printing.layout import PAYMENT_NAMES
from gateway.printing.typeset import Typesetter
from gateway.printing.words import WORDS


def report_document(report: Mapping[str, Any], columns: int, language: str = "en") -> Document:
    """One report, 32 to 64 columns wide."""
    return tuple(_Report(report, columns, language).blocks())


class _Report(Typesetter):
    def __init__(self, report: Mapping[str, Any], columns: int, language: str) -> None:
        super().__init__(columns)
        self.words = WORDS[language]
        self.report = report

    def blocks(self) -> Iterator[Block]:
        report = self.report
        yield from self.centred(report["tradeName"], bold=True)
        yield from self.centred(f"PIN: {report['pin']}")
        kind = report["type"]
        names = {"X": "X DAILY REPORT", "Z": "Z DAILY REPORT", "PLU": "PLU REPORT"}
        yield from self.large(names[kind])
        if kind == "PLU":
            yield from self.plu()
        else:
            yield from self.day()
        yield self.rule()
        yield Text(self.words.end_of_report, "center")
        yield Cut()

    def day(self) -> Iterator[Block]:
        r = self.report
        made = datetime.fromisoformat(r["madeAt"]).astimezone(EAT)
        yield self.pair(self.words.report_number, str(r["number"]))
        yield self.pair(f"DATE: {made:%d/%m/%Y}", f"TIME: {made:%H:%M:%S}")
        yield from self.interval()
        yield self.rule()
        yield self.tally("SALES (NS)", r["sales"])
        yield self.tally("CREDIT NOTES (NC)", r["creditNotes"], minus=True)
        yield self.rule()
        for letter, amount in r["taxable"].items():
            yield self.money(f"TAXABLE {letter}", amount)
        for letter, amount in r["tax"].items():
            yield self.money(f"TAX {letter}", amount)
        # Never netted with the sales (TIS 16.1.10, 16.1.11).
        for name, key in (("NC TAXABLE", "creditNoteTaxable"), ("NC TAX", "creditNoteTax")):
            for letter, amount in r[key].items():
                if amount != "0.00":
                    yield self.money(f"{name} {letter}", f"-{amount}")
        yield self.rule()
        yield self.money("OPENING DEPOSIT", r["openingDeposit"])
        yield self.pair("ITEMS SOLD", r["itemsSold"])
        if r["itemsReturned"] != "0":
            yield self.pair("ITEMS RETURNED", r["itemsReturned"])
        yield self.tally("COPIES", r["copies"])
        yield self.tally("TRAINING", r["training"])
        yield self.tally("PROFORMA", r["proforma"])
        yield self.rule()
        for code, amount in r["payments"].items():
            yield self.money(PAYMENT_NAMES.get(code, code), amount)
        for code, amount in r["creditNotePayments"].items():
            yield self.money(f"NC {PAYMENT_NAMES.get(code, code)}", f"-{amount}")
        yield self.rule()
        yield self.money("ALL DISCOUNTS", r["discounts"])
        yield self.money("OTHER REDUCTIONS", r["otherReductions"])
        yield self.pair("INCOMPLETE SALES", str(r["incompleteSales"]))

    def plu(self) -> Iterator[Block]:
        yield from self.interval()
        yield self.rule()
        for item in self.report["items"]:
            yield from self.wrapped(f"{item['itemCode']} {item['name']}")
            price = f"{Decimal(item['unitPrice']):,.2f}{item['taxCode']}"
            yield self.money(f"  {price} x {item['quantity']}", item["amount"])
            if item["remaining"] is not None:
                yield self.pair("  IN STOCK", item["remaining"])
        yield self.rule()
        yield self.money("TOTAL", self.report["total"], bold=True)

    def interval(self) -> Iterator[Text]:
        for name, key in ((self.words.since, "from"), (self.words.until, "to")):
            at = datetime.fromisoformat(self.report[key]).astimezone(EAT)
            yield self.pair(name, f"{at:%d/%m/%Y %H:%M:%S}")

    def tally(self, name: str, tally: Mapping[str, Any], *, minus: bool = False) -> Text:
        sign = "-" if minus and tally["number"] else ""
        return self.money(f"{name} {tally['number']}", sign + tally["amount"])

    def money(self, name: str, amount: str, *, bold: bool = False) -> Text:
        return self.pair(name, f"{Decimal(amount):,.2f}", bold=bold)
