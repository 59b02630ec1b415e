"""X, Z, PLU and the day of M-Pesa on paper. Pure: the report's JSON in, a Document out."""

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

MPESA_SOURCES = {
    "CALLBACK": "MESSAGE",
    "QUERY": "QUERY",
    "C2B": "C2B MESSAGE",
    "PULL": "M-PESA'S LIST",
    "STATUS": "STATUS",
    "PERSON": "A PERSON",
}
MPESA_REASONS = {
    "FAILED_FUNDS": "NO FUNDS",
    "FAILED_LIMIT": "OVER A LIMIT",
    "FAILED_PIN": "WRONG PIN",
    "FAILED_BUSY": "PHONE BUSY",
    "FAILED_EXPIRED": "EXPIRED",
    "FAILED_RETRYABLE": "M-PESA BUSY",
    "FAILED_UNREACHABLE": "NOT REACHED",
    "FAILED_CONFIG": "SET-UP",
    "FAILED": "OTHER",
    "NOT_SENT": "NOT SENT",
    "CONFIG": "SET-UP, NOT SENT",
    "INPUT": "NUMBER OR AMOUNT",
    "NOT_FOUND": "NOT IN M-PESA",
    "PERSON": "A PERSON SAYS",
}
MPESA_OF_PAID = (
    ("CAME UNASKED", "unasked"),
    ("ASKED EARLIER", "askedEarlier"),
    ("NUMBER TO FOLLOW", "receiptToFollow"),
)
MPESA_NOT_PAID = (
    ("NOT PAID", "notPaid"),
    ("STATUS UNKNOWN", "unknown"),
    ("STILL OPEN", "waiting"),
    ("PAID LATER", "paidLater"),
    ("PAID UNASKED INSTEAD", "countedAsC2b"),
)
MPESA_APART = (
    ("MONEY, NO RECEIPT", "moneyWithoutReceipt"),
    ("  REFUND DUE", "refundDue"),
    ("RECEIPT, NO MONEY", "receiptsWithoutMoney"),
    # Not in PAID: it may be the money of another payment there.
    ("MAY BE SAME MONEY", "mayBeSame"),
)
MPESA_OPEN = {
    "OPEN": "NO RECEIPT",
    "REVIEW": "OTHER AMOUNT",
    "REFUND_DUE": "REFUND DUE",
    "COMPLETED_OTHERWISE": "UNKNOWN",
    "ABANDONED": "UNKNOWN",
}


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
        names = {
            "X": "X DAILY REPORT",
            "Z": "Z DAILY REPORT",
            "PLU": "PLU REPORT",
            "MPESA": "M-PESA DAILY REPORT",
        }
        yield from self.large(names[kind])
        if kind == "PLU":
            yield from self.plu()
        elif kind == "MPESA":
            yield from self.mpesa()
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

    def mpesa(self) -> Iterator[Block]:
        r = self.report
        made = datetime.fromisoformat(r["madeAt"]).astimezone(EAT)
        yield self.pair("DAY", f"{datetime.fromisoformat(r['day']):%d/%m/%Y}")
        yield self.pair("MADE", f"{made:%d/%m/%Y %H:%M:%S}")
        yield self.rule()
        yield from self.figures(r["shop"])
        if len(r["tills"]) > 1:
            for till in r["tills"]:
                yield self.rule()
                for line in self.wrap(till["till"] or "CLAIMED BY NO TILL"):
                    yield Text(line, bold=True)
                yield from self.figures(till)
        if r["open"]:
            yield self.rule()
            yield Text("MONEY TO SETTLE", bold=True)
            for row in r["open"]:
                why = "UNKNOWN" if row["state"] == "UNKNOWN" else MPESA_OPEN[row["tender"]]
                where = f"{row['till'] or '-'} {row['saleRef'] or '-'}"
                yield self.money(
                    row["receipt"] or "NO RECEIPT NUMBER", row["paid"] or row["amount"]
                )
                yield from self.wrapped(f"  {why}: {where}")
        if r["receiptsWithoutMoney"]:
            yield self.rule()
            yield Text("RECEIPTS WITHOUT M-PESA MONEY", bold=True)
            for row in r["receiptsWithoutMoney"]:
                yield self.money(f"{row['receipt']} {row['till']}", row["amount"])

    def figures(self, f: Mapping[str, Any]) -> Iterator[Text]:
        """One till's day or the shop's; what is nought is left out, but for what was paid."""
        if f["asked"]["number"]:
            yield self.tally("ASKED", f["asked"])
        yield self.tally("PAID", f["paid"])
        for source, tally in f["paidBy"].items():
            yield self.tally(f"  BY {MPESA_SOURCES.get(source, source)}", tally)
        for name, key in MPESA_OF_PAID:
            if f[key]["number"]:
                yield self.tally(f"  {name}", f[key])
        for name, key in MPESA_NOT_PAID:
            if f[key]["number"]:
                yield self.tally(name, f[key])
            if key == "notPaid":
                for reason, tally in f["notPaidBy"].items():
                    yield self.tally(f"  {MPESA_REASONS.get(reason, reason)}", tally)
        if f["refunded"]["number"]:
            yield self.tally("GIVEN BACK", f["refunded"], minus=True)
        yield self.money("KEPT", f["kept"], bold=True)
        for name, key in MPESA_APART:
            # A report that was stored by an earlier version has fewer figures.
            if key in f and f[key]["number"]:
                yield self.tally(name, f[key])

    def interval(self) -> Iterator[Text]:
        for name, key in ((self.words.since, "from"), (self.words.until, "to")):
            at = datetime.fromisoformat(self.report[key]).astimezone(EAT)
            yield self.pair(name, f"{at:%d/%m/%Y %H:%M:%S}")

    def tally(self, name: str, tally: Mapping[str, Any], *, minus: bool = False) -> Text:
        sign = "-" if minus and tally["number"] else ""
        return self.money(f"{name} {tally['number']}", sign + tally["amount"])

    def money(self, name: str, amount: str, *, bold: bool = False) -> Text:
        return self.pair(name, f"{Decimal(amount):,.2f}", bold=bold)
