"""X, Z and PLU on paper. Pure: the report's JSON in, a Document out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from gateway.clock import EAT
from gateway.printing.document import Block, Cut, Document, Text
from gateway.printing.layout import PAYMENT_NAMES
from gateway.printing.typeset import Typesetter


def report_document(report: Mapping[str, Any], columns: int) -> Document:
    """One report, 32 to 64 columns wide."""
    return tuple(_Report(report, columns).blocks())


class _Report(Typesetter):
    def __init__(self, report: Mapping[str, Any], columns: int) -> None:
        super().__init__(columns)
        self.report = report

    def blocks(self) -> Iterator[Block]:
        report = self.report
        for line in self.wrap(report["tradeName"]):
            yield Text(line, "center", bold=True)
        yield from self.centred(f"PIN: {report['pin']}")
        kind = report["type"]
        names = {"X": "X DAILY REPORT", "Z": "Z DAILY REPORT", "PLU": "PLU REPORT"}
        yield Text(names[kind], "center", bold=True, size=2 if self.columns >= 32 else 1)
        if kind == "PLU":
            yield from self.plu()
        else:
            yield from self.day()
        yield self.rule()
        yield Text("END OF REPORT", "center")
        yield Cut()

    def day(self) -> Iterator[Block]:
        r = self.report
        made = datetime.fromisoformat(r["madeAt"]).astimezone(EAT)
        yield self.pair("REPORT NUMBER", str(r["number"]))
        yield self.pair(f"DATE: {made:%d/%m/%Y}", f"TIME: {made:%H:%M:%S}")
        yield from self.interval()
        yield self.rule()
        yield self.tally("SALES (NS)", r["sales"])
        yield self.tally("CREDIT NOTES (NC)", r["creditNotes"], minus=True)
        yield self.rule()
        for letter, amount in r["taxable"].items():
            yield self.pair(f"TAXABLE {letter}", amount)
        for letter, amount in r["tax"].items():
            yield self.pair(f"TAX {letter}", amount)
        # Never netted with the sales (TIS 16.1.10, 16.1.11).
        for name, key in (("NC TAXABLE", "creditNoteTaxable"), ("NC TAX", "creditNoteTax")):
            for letter, amount in r.get(key, {}).items():
                if amount != "0.00":
                    yield self.pair(f"{name} {letter}", f"-{amount}")
        yield self.rule()
        yield self.pair("OPENING DEPOSIT", r["openingDeposit"])
        yield self.pair("ITEMS SOLD", r["itemsSold"])
        if r.get("itemsReturned", "0") != "0":
            yield self.pair("ITEMS RETURNED", r["itemsReturned"])
        yield self.tally("COPIES", r["copies"])
        yield self.tally("TRAINING", r["training"])
        yield self.tally("PROFORMA", r["proforma"])
        yield self.rule()
        for code, amount in r["payments"].items():
            yield self.pair(PAYMENT_NAMES.get(code, code), amount)
        for code, amount in r.get("creditNotePayments", {}).items():
            yield self.pair(f"NC {PAYMENT_NAMES.get(code, code)}", f"-{amount}")
        yield self.rule()
        yield self.pair("ALL DISCOUNTS", r["discounts"])
        yield self.pair("OTHER REDUCTIONS", r["otherReductions"])
        yield self.pair("INCOMPLETE SALES", str(r["incompleteSales"]))

    def plu(self) -> Iterator[Block]:
        yield from self.interval()
        yield self.rule()
        for item in self.report["items"]:
            yield from self.wrapped(f"{item['itemCode']} {item['name']}")
            yield self.pair(
                f"  {item['unitPrice']}{item['taxCode']} x {item['quantity']}", item["amount"]
            )
            if item["remaining"] is not None:
                yield self.pair("  IN STOCK", item["remaining"])
        yield self.rule()
        yield self.pair("TOTAL", self.report["total"], bold=True)

    def interval(self) -> Iterator[Text]:
        for name, key in (("FROM", "from"), ("TO", "to")):
            at = datetime.fromisoformat(self.report[key]).astimezone(EAT)
            yield self.pair(name, f"{at:%d/%m/%Y %H:%M:%S}")

    def tally(self, name: str, tally: Mapping[str, Any], *, minus: bool = False) -> Text:
        amount = tally["amount"]
        if minus and tally["number"]:
            amount = f"-{amount}"
        return self.pair(f"{name} {tally['number']}", amount)
