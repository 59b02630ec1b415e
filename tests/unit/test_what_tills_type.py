"""Text and quantities as tills type them: what is harmless is normalised, what is not is refused with its place."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway import ids
from gateway.api.schemas import InvoiceIn, field_errors
from gateway.domain.invoice import make_line
from gateway.domain.tax import TaxRate
from gateway.errors import BodyNotJson
from gateway.money import parse_amount, parse_quantity, round_amount
from gateway.strict_json import parse, without_mark
from gateway.vscu.sale import line_body, wire_quantity

RATES = {"B": TaxRate("B", Decimal(16), "B", "B")}


def body(**changes: Any) -> InvoiceIn:
    line = {
        "itemCode": "KE2NTXU0000001", "name": "Milk", "quantity": "1", "unitPrice": "1.00", "taxCode": "B",
    }  # fmt: skip
    line |= changes.pop("line", {})
    return InvoiceIn.model_validate(
        {"tillReceiptNo": "1", "lines": [line], "total": "1.00", **changes}
    )


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("Milk 500ml ", "Milk 500ml"),
        ("  Milk", "Milk"),
        ("[P01] Milk\nfresh 500ml", "[P01] Milk fresh 500ml"),
        ("Milk\r\n\r\nfresh", "Milk fresh"),
        ("Milk \t 500ml", "Milk 500ml"),
        ("Milk\u2028fresh", "Milk fresh"),
        ("\u00a0Milk\u3000", "Milk"),
        ("\ufeffMilk", "Milk"),
        # Two blanks inside a name are the shop's own.
        ("Milk  500ml", "Milk  500ml"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("\u0645\u0627\u0621", "\u0645\u0627\u0621"),
        ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
    ],
)  # fmt: skip
def test_harmless_text_is_normalised(typed: str, taken: str) -> None:
    assert body(line={"name": typed}).lines[0].name == taken
    assert body(tillReceiptNo=typed).tillReceiptNo == taken


@pytest.mark.parametrize(
    "char", ["\x00", "\x07", "\x1b", "\x1c", "\x1f", "\x7f", "\x9b", "\u202e", "\u200f", "\u2066"]
)
@pytest.mark.parametrize("form", ["a{}b", "{}a", "a{}"])
def test_other_control_characters_are_refused_with_their_place(char: str, form: str) -> None:
    with pytest.raises(ValidationError) as caught:
        body(line={"name": form.format(char)})
    [error] = field_errors(caught.value)
    assert (error.pointer, error.code) == ("/lines/0/name", "TEXT_INVALID")
    assert f"U+{ord(char):04X}" in error.message


def test_half_a_character_is_refused() -> None:
    with pytest.raises(BodyNotJson):
        parse(b'{"name": "\\ud800"}')


def test_a_byte_order_mark_before_a_body_is_nothing() -> None:
    assert parse(without_mark(b'\xef\xbb\xbf{"a": 1}')) == {"a": 1}
    with pytest.raises(BodyNotJson):
        parse(without_mark(b'\xef\xbb\xbf\xef\xbb\xbf{"a": 1}'))


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("p051234567x", "P051234567X"),
        (" P051234567X ", "P051234567X"),
        ("P051 234 567 X", "P051234567X"),
        ("p051234567x\n", "P051234567X"),
        ("", None),
        ("  ", None),
        (None, None),
    ],
)
def test_a_pin_counts_without_case_and_blanks(typed: str | None, taken: str | None) -> None:
    found = body(buyer={"pin": typed}).buyer
    assert found is not None and found.pin == taken


@pytest.mark.parametrize(
    "typed", ["P05123456X", "P051234567", "0P51234567X", "P-051234567X", "\u1d18051234567x"]
)
def test_a_wrong_pin_is_refused(typed: str) -> None:
    with pytest.raises(ValidationError) as caught:
        body(buyer={"pin": typed})
    [error] = field_errors(caught.value)
    assert (error.pointer, error.code) == ("/buyer/pin", "PIN_INVALID")


def test_names_of_buyers_and_cashiers_are_cut_and_empty_ones_absent() -> None:
    long = "KENYA AGRICULTURAL AND LIVESTOCK RESEARCH ORGANIZATION HEADQUARTERS"
    found = body(buyer={"name": long, "phone": " "}, cashier={"id": "1", "name": long}, remark=" ")
    assert found.buyer is not None and found.cashier is not None
    assert found.buyer.name == found.cashier.name == long[:60].strip()
    assert (found.buyer.phone, found.remark) == (None, None)
    absent = body(buyer={"name": ""}, cashier={"id": "1", "name": " \t"})
    assert absent.buyer is not None and absent.buyer.name is None
    assert absent.cashier is not None and absent.cashier.name is None


def test_what_identifies_goods_is_refused_and_never_cut() -> None:
    for field, value in (("name", "x" * 201), ("itemCode", "x" * 21), ("barcode", "x" * 21)):
        with pytest.raises(ValidationError) as caught:
            body(line={field: value})
        [error] = field_errors(caught.value)
        assert (error.pointer, error.code) == (f"/lines/0/{field}", "TOO_LONG")


def test_the_digest_of_a_body_does_not_see_the_normalisation() -> None:
    """A till that sends its bytes again after an update is known by them."""
    value = {"tillReceiptNo": "POS-7", "lines": [{"name": "Milk 500ml"}], "total": "1.00"}
    assert ids.digest(value) == ("26d7f29eb01bc065fa97b1bdf502057531600eaeebfbf06cb3a30e4c5c85571a")
    assert ids.digest({**value, "tillReceiptNo": "POS-7 "}) != ids.digest(value)


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ("1", "1.00"), ("1.5", "1.50"), ("1.230", "1.23"), ("1.000", "1.00"), ("0.625", "0.625"),
        ("1.234", "1.234"), ("1.2340000", "1.234"), ("0.001", "0.001"),
    ],
)  # fmt: skip
def test_a_quantity_is_taken_by_its_value(typed: str, taken: str) -> None:
    assert str(parse_quantity(typed)) == taken


@pytest.mark.parametrize("typed", ["1.2345", "0.0001", "0", "0.000", "-1", "1e3", " 1", "", "."])
def test_what_is_no_quantity_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_quantity(typed)


def test_an_amount_is_taken_by_its_value() -> None:
    assert str(parse_amount("116.000")) == "116.00"
    with pytest.raises(ValueError, match="more than 2 decimals"):
        parse_amount("116.001")


def line(quantity: str, price: str, **more: Any) -> Any:
    return make_line(
        seq=1, item_code="c", item_class="1", name="n", quantity=parse_quantity(quantity),
        unit_price=parse_amount(price), tax_letter="B", rates=RATES, package_unit="NT",
        quantity_unit="KG", **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("quantity", "price", "total"),
    [
        ("0.625", "8.30", "5.19"), ("1.230", "100.00", "123.00"), ("1.234", "100.00", "123.40"),
        ("0.005", "1.00", "0.01"), ("0.001", "100.00", "0.10"), ("2.675", "199.99", "534.97"),
        ("0.335", "450.00", "150.75"),
    ],
)  # fmt: skip
def test_a_weighed_line_is_exact_and_its_wire_multiplies(
    quantity: str, price: str, total: str
) -> None:
    made = line(quantity, price)
    assert str(made.total) == total
    wire = line_body(made, exclusive=True)
    assert (wire["splyAmt"], wire["totAmt"]) == (Decimal(total), Decimal(total))
    assert round_amount(wire["qty"] * wire["prc"]) == wire["splyAmt"]
    for name in ("qty", "prc", "pkg"):
        assert wire[name] == wire[name].quantize(Decimal("0.01")) > 0


@given(
    st.integers(1, 20_000).map(lambda n: Decimal(n) / 1000),
    st.integers(1, 200_000).map(lambda n: Decimal(n) / 100),
)
def test_the_wire_keeps_the_amount_and_stays_near_the_weight(
    quantity: Decimal, price: Decimal
) -> None:
    supply = round_amount(quantity * price)
    sent, asked = wire_quantity(quantity, price, supply)
    assert sent == sent.quantize(Decimal("0.01")) and asked == asked.quantize(Decimal("0.01"))
    assert abs(sent - quantity) <= Decimal("0.055") or sent == Decimal("0.01")
    # The product may be off by half a cent of price for each unit of quantity, and never by more.
    assert abs(sent * asked - supply) <= sent * Decimal("0.005") + Decimal("0.005")
    if quantity == round_amount(quantity):
        assert (sent, asked) == (quantity, price)
