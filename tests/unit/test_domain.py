"""Arithmetic, numbers and texts of the fiscal domain against KRA's rules and the shared vectors."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import invoice_json
from gateway.domain.invoice import (
    Buyer,
    InvoiceLine,
    make_line,
)
from gateway.domain.receipt import PORTALS, Receipt, dashed, portal_url
from gateway.domain.signing import MOVES, SigningEvent, SigningState, transition
from gateway.domain.tax import DEFAULT_RATES, LETTERS, tax_of
from gateway.errors import IllegalTransition
from gateway.money import parse_amount, parse_quantity, round_amount
from gateway.store import migrate
from gateway.vscu.sale import SaleForm, line_body, sale_body
from gateway.vscu.wire import encode
from tests.support.invoices import an_invoice, at_noon

DATA = Path(__file__).parents[1] / "data"
TAX = json.loads((DATA / "tax-vectors.json").read_text())
QR = json.loads((DATA / "qr-vectors.json").read_text())
FORM = SaleForm(
    "A000123456B", "00", "TEST TRADERS LTD", "NAIROBI", "Welcome", "Thank you",
    "exclusive", None, None, "02",
)  # fmt: skip


@pytest.mark.parametrize("vector", TAX["vectors"], ids=lambda v: f"{v['taxTyCd']}-{v['gross']}")
def test_tax_is_split_half_up_on_the_line_total(vector: dict[str, str]) -> None:
    gross = Decimal(vector["gross"])
    tax = tax_of(gross, Decimal(vector["rate"]))
    assert tax == Decimal(vector["tax"])
    assert gross - tax == Decimal(vector["net"])


def test_tax_is_taken_from_the_line_and_not_from_the_unit() -> None:
    line = a_line(quantity="7", price="33.33")
    assert line.tax == Decimal(TAX["unitVsLine"]["lineTax"])
    assert tax_of(Decimal("33.33"), Decimal(16)) * 7 == Decimal(TAX["unitVsLine"]["unitTaxTimes7"])


def test_qr_and_dashes_are_as_the_portal_wants_them() -> None:
    for item in QR["dash"]:
        assert dashed(item["in"]) == item["out"]
    for environment in ("production", "sandbox"):
        url = portal_url("A000123456B", "00", "QUII27MATATSHFRB", base=PORTALS[environment])
        assert url == QR["portalUrl"][environment]
    receipt = Receipt("NS", 9, 56, 60, "KRACU0300000001", None, "I", "S", at_noon())
    assert receipt.cu_invoice_no == QR["cuInvoiceNumber"]["portalForm"]
    assert receipt.counter == "56/60 NS"


@given(st.lists(st.tuples(st.integers(1, 9999), st.integers(1, 99_999_99), st.sampled_from(LETTERS)),
                min_size=1, max_size=30))  # fmt: skip
def test_sums_of_letters_are_sums_of_lines(rows: list[tuple[int, int, str]]) -> None:
    lines = tuple(
        a_line(seq=at, quantity=str(Decimal(q) / 100), price=str(Decimal(p) / 100), letter=letter)
        for at, (q, p, letter) in enumerate(rows, start=1)
    )
    invoice = an_invoice(lines=lines)
    letters = invoice.letters
    assert [row.letter for row in letters] == list(LETTERS)
    assert sum(row.gross for row in letters) == invoice.total == sum(x.total for x in lines)
    assert sum(row.tax for row in letters) == invoice.tax
    assert all(row.net + row.tax == row.gross for row in letters)
    assert invoice_json.from_json(invoice_json.to_json(invoice)) == invoice


@pytest.mark.parametrize("convention", ["exclusive", "inclusive"])
def test_both_taxable_amount_conventions_add_up(convention: str) -> None:
    form = SaleForm(
        **{**{f: getattr(FORM, f) for f in FORM.__slots__}, "taxable_amount": convention}
    )
    invoice = an_invoice()
    body = sale_body(form, invoice, 1, at_noon(), 1)
    taxable = sum(body[f"taxblAmt{letter}"] for letter in LETTERS)
    assert body["totTaxblAmt"] == taxable
    assert (
        body["totTaxblAmt"] + (body["totTaxAmt"] if convention == "exclusive" else 0)
        == body["totAmt"]
    )
    assert sum(item["taxblAmt"] for item in body["itemList"]) == taxable


@pytest.mark.parametrize(
    ("buyer", "sent"),
    [
        (Buyer(), ("A000000000D", "CASH")),
        (Buyer(name="Jane"), ("A000000000D", "Jane")),
        (Buyer(pin="P051234567X"), ("P051234567X", None)),
        (Buyer(pin="P051234567X", name="BUYER LTD"), ("P051234567X", "BUYER LTD")),
    ],
)
def test_a_walk_in_name_never_stands_beside_a_buyers_pin(
    buyer: Buyer, sent: tuple[str, str | None]
) -> None:
    form = replace(FORM, walk_in_pin="A000000000D", walk_in_name="CASH")
    body = sale_body(form, replace(an_invoice(), buyer=buyer), 1, at_noon(), 1)
    assert (body["custTin"], body["custNm"]) == sent
    assert body["receipt"]["custTin"] == sent[0]


def test_a_discount_in_shillings_is_folded_into_the_price() -> None:
    line = a_line(quantity="2", price="100.00", discount=Decimal("30.00"))
    body = line_body(line, exclusive=True)
    assert (body["prc"], body["splyAmt"], body["dcRt"], body["dcAmt"]) == (
        Decimal("85.00"), Decimal("170.00"), 0, 0,
    )  # fmt: skip
    assert line_body(a_line(discount_percent=Decimal(10)), exclusive=True)["dcRt"] == 10


def test_the_wire_has_the_fields_of_the_spec_and_no_float() -> None:
    sample = json.loads((DATA / "sale-cases.json").read_text())["cases"]["sale-simple"]["request"]
    body = sale_body(FORM, an_invoice(), 1, at_noon(), 1)
    assert list(body) == list(sample)
    assert list(body["itemList"][0]) == list(sample["itemList"][0])
    assert list(body["receipt"]) == list(sample["receipt"])
    assert b'"totAmt":297.00' in encode(body)
    with pytest.raises(TypeError):
        encode({"totAmt": 297.0})


@pytest.mark.parametrize("text", ["", "-1", "1.234", "1e3", "١", "NaN", " 1", "1,000.00", "9" * 30])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_amount(text)


def test_rounding_is_half_up() -> None:
    assert round_amount(Decimal("0.005")) == Decimal("0.01")
    assert round_amount(Decimal("2.675")) == Decimal("2.68")
    assert parse_quantity("1.5") == Decimal("1.50")


def test_the_signing_table_is_total_and_signed_is_final() -> None:
    for state, event in itertools.product(SigningState, SigningEvent):
        if (state, event) in MOVES:
            assert transition(state, event) is MOVES[state, event]
        else:
            with pytest.raises(IllegalTransition):
                transition(state, event)
    assert all(state is not SigningState.SIGNED for state, _ in MOVES)


def test_the_stores_trigger_has_the_same_moves() -> None:
    (_, _, sql), *_ = migrate.migrations()
    listed = re.search(r"NOT IN \(([^)]*)\)\s*BEGIN SELECT RAISE\(ABORT, 'no such move", sql)
    assert listed is not None
    assert set(re.findall(r"'([A-Z_>]+)'", listed[1])) == {
        f"{state}>{after}" for (state, _), after in MOVES.items()
    }


def a_line(
    *,
    seq: int = 1,
    quantity: str = "1",
    price: str = "116.00",
    letter: str = "B",
    discount: Decimal | None = None,
    discount_percent: Decimal = Decimal(0),
) -> InvoiceLine:
    return make_line(
        seq=seq, item_code="KE2NTXU0000001", item_class="50202300", name="Soda",
        quantity=Decimal(quantity), unit_price=Decimal(price), tax_letter=letter,
        rates=DEFAULT_RATES, package_unit="NT", quantity_unit="U",
        discount=discount, discount_percent=discount_percent,
    )  # fmt: skip
