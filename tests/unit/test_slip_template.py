"""Lines that are no article, sums that do not agree, layouts that are read or refused with their line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from gateway.counter.template import SlipReading
from gateway.counter_line import template_of
from tests.support.capture import a_template, sample_settings

HEAD = ["MAMA MBOGA STORES", "RECEIPT NO 0001", "25/11/2026 10:15"]
# The sample, and the sample of a shop that sells nothing but 16 % goods.
SAMPLE = template_of(sample_settings())
UNMARKED = template_of(sample_settings(tax_letters={"V": "B", "Z": "C", "": "B"}))


def row(name: str, amount: str) -> str:
    return f"{name:24}{amount}"


def read(*lines: str, template: Any = UNMARKED) -> SlipReading:
    reading: SlipReading = template.read([*HEAD, *lines])
    return reading


def refused(reading: SlipReading, line: str) -> None:
    """Not sold, and the line is shown."""
    assert reading.invoice is None
    assert any(line.split("  ", maxsplit=1)[0] in problem for problem in reading.problems), (
        reading.problems
    )


# --- D13: lines that are no goods -------------------------------------------------------------------------

NO_GOODS = (
    "VAT 16%", "VAT", "V.A.T.", "TAX", "Tax B", "B 16%", "A", "V", "16.00% VAT", "A = 16%", "CATERING LEVY",
    "BALANCE B/F", "BAL B/F", "Balance", "ARREARS", "PREVIOUS BALANCE", "DEBT", "CREDIT", "DEPOSIT", "SALIO",
    "ROUNDING", "Rounding adj.", "ROUND OFF", "ROUND", "VOID SODA", "Voided", "CANCELLED", "CORRECTION",
    "RETURN SODA", "REFUND", "DISCOUNT", "DISC 10%", "Less discount", "COUPON", "VOUCHER", "PUNGUZO",
    "MPESA TXN COST", "M-PESA", "SERVICE CHARGE", "Service 10%", "SERVICE", "DELIVERY FEE", "DELIVERY", "TIP",
    "COMMISSION", "SUBTOTAL", "SUB TOTAL", "SUB-TOTAL", "GRAND TOTAL", "NET AMOUNT", "NET", "GROSS", "CHANGE",
    "CASH TENDERED", "CARD", "AMOUNT DUE", "PAID", "JUMLA", "KODI", "CHENJI", "LOYALTY POINTS", "SAVINGS",
    "DUE", "TURNOVER", "BAKI",
)  # fmt: skip


@pytest.mark.parametrize("name", NO_GOODS)
@pytest.mark.parametrize("mark", ["", " V"])
def test_a_tax_balance_rounding_void_or_charge_is_never_goods(name: str, mark: str) -> None:
    line = row(name, f"16.55{mark}")
    reading = read(
        row("SODA 500ML", "103.45 V"), line, row("TOTAL", "120.00"), row("CASH", "120.00")
    )
    assert reading.invoice is None
    if any(part.text == line and part.role == "item" for part in reading.lines):
        refused(reading, name)


@pytest.mark.parametrize(
    "name",
    ["SODA 500ML", "CASHEW NUTS", "PHONE CHARGER", "MOSQUITO NET", "SIM CARD", "CHANGELESS", "TAXI TOY",
     "ROUND STEAK", "BRAKE DISC", "VOIDLESS", "T-SHIRT", "X-RAY FILM", "LESSO", "TIPPEX", "CARDAMOM",
     "BALLOON", "TIMBER 2X4", "AA BATTERY 4X2", "OIL 1.50L", "PAYPHONE", "DUETTE", "7UP 500ML", "DEBTFREE"],
)  # fmt: skip
def test_goods_whose_names_look_like_it_are_goods(name: str) -> None:
    reading = read(row(name, "120.00 V"), row("TOTAL", "120.00"))
    assert reading.invoice is not None, reading.problems
    assert [line["name"] for line in reading.invoice["lines"]] == [name]


def test_the_shop_names_goods_and_further_words() -> None:
    own = template_of(sample_settings(goods=("^VAT 69", "^7 UP"), not_goods=("OFFCUT",)))
    for name, sold in (
        ("VAT 69 750ML", True),
        ("7 UP 500ML", True),
        ("VAT 16%", False),
        ("OFFCUT A", False),
    ):
        reading = read(row(name, "120.00 V"), row("TOTAL", "120.00"), template=own)
        assert (reading.kind == "sale") is sold, name
    assert "name it in goods" in "".join(
        read(row("VAT 69 750ML", "120.00 V"), row("TOTAL", "120.00")).problems
    )


def test_the_sample_has_no_letter_for_a_line_without_a_mark() -> None:
    assert "" not in sample_settings().tax_letters
    refused(
        read(row("SODA 500ML", "120.00"), row("TOTAL", "120.00"), template=SAMPLE), "SODA 500ML"
    )


def test_without_a_setting_no_line_has_a_letter() -> None:
    plain = a_template(tax_letters={})
    refused(read(row("SODA 500ML", "120.00"), row("TOTAL", "120.00"), template=plain), "SODA 500ML")


def test_an_ignored_line_never_hides_an_amount() -> None:
    loose = template_of(sample_settings(ignore=("^-+$", "MAMA MBOGA", "^THANK YOU", "^KARIBU")))
    thanks = row("THANK YOU HAMPER", "50.00 V")
    soda = row("SODA 500ML", "120.00 V")
    reading = read(soda, thanks, row("TOTAL", "120.00"), template=loose)
    assert "the items make 170.00, the total is 120.00" in reading.problems
    reading = read(soda, thanks, row("TOTAL", "170.00"), template=loose)
    assert reading.invoice is not None
    assert len(reading.invoice["lines"]) == 2
    dated = read("25/11/2026 10:15 BREAD 65.00", soda, row("TOTAL", "120.00"), template=loose)
    refused(dated, "25/11/2026 10:15 BREAD 65.00")


@pytest.mark.parametrize(
    ("total", "vat", "sold"),
    [("120.00", "16.55", True), ("120.00", "16.56", True), ("120.00", "16.00", False),
     ("120.00", "0.00", False), ("120.00", "19.20", False)],
)  # fmt: skip
def test_the_vat_of_the_slip_must_be_that_of_its_items(total: str, vat: str, sold: bool) -> None:
    lines = [row("SODA 500ML", "120.00 V"), row("TOTAL", total), row("VAT 16%", vat)]
    reading = read(*lines, template=SAMPLE)
    assert (reading.kind == "sale") is sold
    if not sold:
        refused(reading, "VAT 16%")


def test_vat_by_its_letter() -> None:
    lettered = template_of(sample_settings(vat=r"^VAT (?P<tax>[VZE]) +(?P<amount>[0-9,.]+)$"))
    goods = [row("SODA 500ML", "116.00 V"), row("BREAD 400G", "65.00 Z"), row("TOTAL", "181.00")]
    assert read(*goods, "VAT V  16.00", "VAT Z  0.00", template=lettered).kind == "sale"
    refused(read(*goods, "VAT V  16.00", "VAT Z  8.97", template=lettered), "VAT V")
    refused(read(*goods, "VAT V  25.00", template=lettered), "VAT V")


# --- layouts ----------------------------------------------------------------------------------------------


def items(reading: SlipReading) -> list[tuple[str, str, str]]:
    assert reading.invoice is not None, reading.problems
    return [(x["name"], x["quantity"], x["unitPrice"]) for x in reading.invoice["lines"]]


def test_a_weight_of_three_decimals_is_read() -> None:
    for detail in ("  0.455 kg x 120.00", "0.455 KG @ 120.00", "  0.455 x 120.00"):
        reading = read(row("NYAMA", "54.60 V"), detail, row("TOTAL", "54.60"))
        assert items(reading) == [("NYAMA", "0.455", "120.00")]
    reading = read(row("NYAMA", "54.61 V"), "  0.455 kg x 120.00", row("TOTAL", "54.61"))
    refused(reading, "NYAMA")
    refused(read(row("NYAMA", "54.66 V"), "  0.4555 x 120.00", row("TOTAL", "54.66")), "NYAMA")


@pytest.mark.parametrize(
    "lines",
    [
        [row("SODA 500ML", "100.00 V"), "  3 FOR 100.00"],
        [row("SODA 3 FOR 100", "100.00 V")],
        [row("SODA 500ML", "100.00 V"), "  3 x 33.33"],
        [row("SODA 2 x 50.00", "100.00 V")],
        [row("SODA 2X50", "100.00 V")],
        [row("SODA  2  50.00", "100.00 V")],
        [row("2 SODA 500ML", "100.00 V")],
        [row("2x SODA 500ML", "100.00 V")],
        [row("SODA @ 50", "100.00 V"), "SODA @ 50"],
        ["A NAME THAT IS VERY VERY", row("LONG INDEED", "100.00 V")],
        [row("A NAME THAT IS VERY", "100.00 V"), "VERY LONG INDEED"],
        [row("SODA 500ML", "100.00 VE")],
        [row("SODA 500ML", "100.00 V Z")],
        [row("SODA 500ML", "110.00 V"), row("SODA 500ML", "-10.00 V")],
        [row("SODA 500ML", "110.00 V"), "  10.00-"],
        [row("SODA 500ML", "110.00 V"), row("DISCOUNT", "10.00 V")],
        [row("SODA 500ML", "50.00 V"), row("VOID SODA 500ML", "50.00 V")],
        [row("SODA 500ML", "99.98 V"), row("ROUNDING", "0.02")],
    ],
)  # fmt: skip
def test_a_layout_that_the_template_does_not_know_is_refused_with_its_line(
    lines: list[str],
) -> None:
    reading = read(*lines, row("TOTAL", "100.00"), row("CASH", "100.00"))
    assert reading.invoice is None
    words = {line.split("  ")[0].strip() for line in lines if line.strip()}
    assert any(word in problem for word in words for problem in reading.problems), reading.problems


def test_a_discount_belongs_to_the_item_above_it() -> None:
    soda, bread = row("SODA 500ML", "120.00 V"), row("BREAD 400G", "65.00 V")
    off = row("  DISCOUNT", "-20.00")
    reading = read(soda, "  2 x 60.00", off, bread, row("TOTAL", "165.00"))
    assert reading.invoice is not None, reading.problems
    first = reading.invoice["lines"][0]
    assert (first["unitPrice"], first["discountAmount"]) == ("60.00", "20.00")
    # At the end it may be of the whole sale: with one tax rate that is the same.
    assert read(soda, bread, off, row("TOTAL", "165.00")).kind == "sale"
    zero = row("BREAD 400G", "65.00 Z")
    refused(read(soda, zero, off, row("TOTAL", "165.00")), "  DISCOUNT".strip())
    assert read(soda, off, zero, row("TOTAL", "165.00")).kind == "sale"
    for lines in ([off, soda], [soda, off, off], [row("SODA 500ML", "10.00 V"), off]):
        assert read(*lines, row("TOTAL", "100.00")).invoice is None
    between = read(soda, bread, row("TOTAL", "185.00"), off)
    refused(between, "DISCOUNT")


def test_a_template_that_reads_nothing_names_every_line() -> None:
    other = template_of(
        sample_settings(item="^NEVER (?P<name>x)(?P<amount>y)$", total="^NEVER (?P<amount>x)$")
    )
    reading = read(row("SODA 500ML", "120.00 V"), row("SUM", "120.00"), template=other)
    assert "there are no items" in reading.problems
    assert any("no pattern fits: SODA 500ML" in problem for problem in reading.problems)


def test_an_encoding_that_python_has_not_is_refused_in_the_settings() -> None:
    assert sample_settings(code_page="latin-1").code_page == "iso8859-1"
    for name in ("cp9999", "rot13", "utf-16"):
        with pytest.raises(ValidationError, match="is no text encoding"):
            sample_settings(code_page=name)
