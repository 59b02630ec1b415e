"""A template proposed from marked slips: it reads them, and what it does not know stays refused."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from gateway.capture_tool import line_roles, slip_numbers, tax_letters
from gateway.counter.learn import guess, lines_of, propose, to_toml
from gateway.counter.slip_advice import next_step, reads_nothing
from gateway.counter.slip_trial import slips_sent
from gateway.counter.template import Template
from gateway.counter_line import template_of
from gateway.counter_settings import CaptureSettings
from gateway.errors import ConfigError
from hw_fakes.legacy_till import slips
from hw_fakes.legacy_till.slips import TillItem, TillSale

LETTERS = {"V": "B", "Z": "C", "E": "A"}
COLUMNS = [
    "DUKA LA JIRANI", "Tel: 0712345678", "Invoice: A-0417", "Date: 2026-11-25 10:15", "==========",
    "Item  Qty  Price  Amount", "Sukari 1kg  2  145.00  290.00 V", "Unga 2kg  1  180.00  180.00 Z",
    "Jumla  470.00", "Taslimu  500.00", "Chenji  30.00", "VAT 16%  40.00", "KARIBU TENA",
]  # fmt: skip
LEADING = [
    "CORNER SHOP", "Bill No 17", "25.11.26 9:05 AM", "2 SODA 500ML 120.00", "1 BREAD 65.00",
    "TOTAL 185.00", "MPESA 185.00", "Asante",
]  # fmt: skip


def learned(*lines: list[str], taxes: dict[str, str]) -> Template:
    """The template as the configuration would hold it."""
    proposal = propose(lines, taxes=taxes)
    assert proposal.open == ()
    values = tomllib.loads(to_toml(proposal))
    return template_of(CaptureSettings(port="/dev/null", till="till-1", **values))


def test_three_sales_of_a_till_make_a_template_for_all_its_sales() -> None:
    sales = (
        TillSale(paid=20000),
        TillSale(number="0002", tender="M-PESA"),
        TillSale(number="0003", items=(TillItem("MAZIWA", 6000, mark="E"),)),
    )
    template = learned(*map(slips.lines_of, sales), taxes=LETTERS)
    other = TillSale(
        number="0117", date="01/12/2026 18:59", paid=1_000_000, tender="M-PESA",
        items=(TillItem("UNGA 2KG", 54000, 3, "Z"), TillItem("SODA", 6000)),
    )  # fmt: skip
    reading = template.read(slips.lines_of(other))
    assert reading.problems == ()
    assert reading.invoice is not None
    assert (reading.receipt_no, reading.invoice["total"]) == ("0117", "600.00")
    odd = slips.lines_of(replace(other, extra=("PROMO WEEK",)))
    assert template.read(odd).problems == ("no pattern fits: PROMO WEEK",)


@pytest.mark.parametrize(
    ("lines", "taxes", "items"),
    [
        (COLUMNS, {"V": "B", "Z": "C"}, [("Sukari 1kg", "2", "145.00"), ("Unga 2kg", "1", "180.00")]),
        (LEADING, {"": "B"}, [("SODA 500ML", "2", "60.00"), ("BREAD", "1", "65.00")]),
    ],
)  # fmt: skip
def test_other_layouts(
    lines: list[str], taxes: dict[str, str], items: list[tuple[str, str, str]]
) -> None:
    reading = learned(lines, taxes=taxes).read(lines)
    assert reading.problems == ()
    assert reading.invoice is not None
    assert [(x["name"], x["quantity"], x["unitPrice"]) for x in reading.invoice["lines"]] == items


def test_a_tax_letter_is_asked_for_and_never_proposed() -> None:
    proposal = propose([slips.lines_of(TillSale())], taxes={"V": "B"})
    assert proposal.open == ("Say which tax letter (A to E) the mark 'Z' has (--tax Z=LETTER).",)
    assert proposal.template is not None
    assert proposal.template.read(slips.lines_of(TillSale())).kind == "unread"


def test_a_mark_of_a_person_outweighs_the_form_of_a_line() -> None:
    lines = [*slips.lines_of(TillSale()), "YOUR COUPON BOOK        10.00 V"]
    assert guess(lines[-1]) == "ignore"
    proposal = propose([lines], {lines[-1]: "item"}, LETTERS)
    assert proposal.template is not None
    assert "no article" in "".join(proposal.template.read(lines).problems)


def test_what_is_missing_or_fits_no_pattern_is_said() -> None:
    proposal = propose([["HELLO", "WORLD"]])
    assert proposal.template is None
    assert [sentence.split(";")[0] for sentence in proposal.open] == [
        f"No line is marked as {role}" for role in ("item", "total", "receipt")
    ]
    proposal = propose([slips.lines_of(TillSale())], {"THANK YOU": "item"}, LETTERS)
    assert any("No pattern for item fits" in sentence for sentence in proposal.open)


@pytest.mark.parametrize(
    ("line", "role"),
    [
        ("BALANCE B/F             500.00", "ignore"), ("VAT 16%  16.55", "vat"), ("DISCOUNT  -5.00", "discount"),
        ("X REPORT", "not_a_sale"), ("*** DUPLICATE ***", "copies"), ("  0.455 kg x 120.00", "item_detail"),
        ("GRAND TOTAL  1,250.00", "total"), ("AIRTEL MONEY  50.00", "payment"), ("RISITI NA. 17", "receipt"),
    ],
)  # fmt: skip
def test_the_form_of_a_line_tells_its_role(line: str, role: str) -> None:
    assert guess(line) == role


def test_an_amount_below_zero_is_no_total() -> None:
    template = learned(slips.lines_of(TillSale()), taxes=LETTERS)
    lines = [line.replace("185.00", "-185.00") for line in slips.lines_of(TillSale())]
    assert template.read(lines).kind == "unread"


def test_words_of_the_command_line_that_are_none_are_refused_in_a_sentence() -> None:
    assert line_roles(["3=item", "4=total"]) == {3: "item", 4: "total"}
    assert tax_letters(["V=B", "=A"]) == {"V": "B", "": "A"}
    for parse, word, says in (
        (slip_numbers, "x", "x is no number of a slip."),
        (line_roles, "3=goods", "write the number of a line, = and one of item,"),
        (line_roles, "x=item", "write the number of a line"),
        (tax_letters, "V=F", "a letter from A to E"),
        (tax_letters, "V", "write the till's mark"),
    ):
        with pytest.raises(ConfigError, match=says):
            parse([word])


@pytest.mark.parametrize(
    ("data", "step"),
    [
        (b"\x1dv0\x00\x01\x00\x01\x00a\x1dV\x01", "print text instead of a picture"),
        (b"A" * 210_000, "Set silence_s or last_line"),
        ("CAFÉ 400G\n".encode(), "Set code_page"),
        (b"A\n\x1b\x7f\n", "Switch this function off"),
        (b"PROMO WEEK\n", "Write a pattern for this line"),
        (b"VAT RETURN BOOK         10.00 V\n", "If it is an article"),
        (b"BREAD                   10.00 V\n", None),
    ],
)  # fmt: skip
def test_a_refused_slip_has_a_next_step(data: bytes, step: str | None) -> None:
    slip = slips_sent(data)[0]
    template = learned(slips.lines_of(TillSale()), taxes=LETTERS)
    reading = template.read(slip.lines, slip.doubts)
    assert reading.kind == "unread"
    found = next_step("; ".join(reading.problems))
    assert (found is None) if step is None else (step in (found or ""))


def test_a_template_that_reads_nothing_is_said_in_one_sentence() -> None:
    assert reads_nothing("old", ["UNREAD"] * 4) is None
    assert reads_nothing("old", ["UNREAD", "SIGNED", "UNREAD", "UNREAD", "UNREAD"]) is None
    assert "capture learn" in (reads_nothing("old", ["UNREAD", "DISMISSED"] * 3) or "")


def test_a_slip_of_1_mb_is_no_example_and_takes_no_time() -> None:
    """Long lines and many lines are left out before a pattern is tried on them."""
    long = [" " * 200_000 + "x", *(f"LINE {at:06d}" for at in range(20_000)), "- " * 100_000]
    proposal = propose([slips.lines_of(TillSale()), long], taxes=LETTERS)
    assert proposal.template is not None
    assert len(lines_of([long])) < 400
    assert guess(long[0]) == guess(long[-1]) == "ignore"
