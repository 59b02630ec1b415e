"""Any bytes a till may send, any lines a slip may have: read alike in all pieces, and never certain
without the sums to show for it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.counter.slip_commands import ESC_LENGTHS, FS_LENGTHS, GS_LENGTHS
from gateway.counter.slip_reader import SLIP_MAX_BYTES, CapturedSlip, SlipReader
from gateway.counter.template import Template
from gateway.counter_line import template_of
from hw_fakes.legacy_till import slips
from hw_fakes.legacy_till.slips import TillItem, TillSale
from tests.support.capture import a_template, sample_settings

ROOT = Path(__file__).parents[2]
TEMPLATE = a_template()
SALE = TillSale()
COMMANDS = st.sampled_from([
    b"\x1b@", b"\x1bt\x10", b"\x1d!\x11", b"\x1dV\x00", b"\x1dV\x42\x03", b"\x1bd\x02", b"\x1bi",
    b"\x10\x04\x01", b"\x1dr\x01", b"\x1d(H\x06\x00\x30\x30ABCD", b"\x1dk\x04123\x00", b"\x1bp\x00\x19\xfa",
    b"\x1dv0\x00\x02\x00\x02\x00\x0a\x1b\x1d\x0a", b"\x1b*\x00\x03\x00abc", b"\x1cp\x01\x00", b"\n", b"\r\n",
    b"\x1dk\x49\x04{B12", b"\x1d8L\x02\x00\x00\x00zz", b"\x1da\x04",
])  # fmt: skip
STREAM = st.lists(
    st.one_of(
        st.binary(max_size=20), COMMANDS, st.sampled_from([slips.plain(SALE), b"TOTAL 1.00\n"])
    ),
    max_size=15,
).map(b"".join)


def read(data: bytes, sizes: list[int]) -> tuple[bytes, list[CapturedSlip]]:
    reader, answers, found, at, turn = SlipReader(), b"", [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        said, ended = reader.feed(data[at : at + size])
        answers, at, turn = answers + said, at + size, turn + 1
        found += ended
    return answers, found + reader.end()


@given(STREAM, st.lists(st.integers(1, 50), min_size=1, max_size=10))
def test_any_bytes_are_read_alike_in_whatever_pieces(data: bytes, sizes: list[int]) -> None:
    whole = read(data, [max(1, len(data))])
    assert read(data, sizes) == whole
    for slip in whole[1]:
        TEMPLATE.read(slip.lines, slip.doubts)


@given(st.lists(COMMANDS, max_size=20).map(b"".join))
def test_after_any_commands_a_status_question_is_answered_and_a_sale_is_read(
    data: bytes,
) -> None:
    reader = SlipReader()
    reader.feed(data + b"\x1dV\x00")
    answers, _ = reader.feed(b"\x10\x04\x01\x10\x04\x02\x1dr\x01")
    assert answers == b"\x16\x12\x00"
    _, (slip,) = reader.feed(b"\x1b@" + slips.fancy(SALE))
    assert TEMPLATE.read(slip.lines, slip.doubts).kind == "sale"


LINES = st.one_of(
    st.sampled_from([*slips.lines_of(SALE), "NO SALE", "*** DUPLICATE ***", "  3 x 1.00", ""]),
    st.builds(
        lambda name, cents, mark: slips.pair(name, f"{slips.money(cents)} {mark}"),
        st.text("AB Z", max_size=8), st.integers(0, 300_00), st.sampled_from(["V", "Z", "", "Q"]),
    ),
    st.builds(lambda cents: slips.pair("TOTAL", slips.money(cents)), st.integers(0, 600_00)),
    st.text(max_size=40),
)  # fmt: skip


@given(st.lists(LINES, max_size=14))
def test_what_is_certain_has_one_number_one_total_and_items_that_make_it(lines: list[str]) -> None:
    reading = TEMPLATE.read(lines)
    if reading.invoice is None:
        assert reading.kind != "sale"
        assert reading.problems or reading.kind == "not_a_sale"
        return
    summed = sum(
        (Decimal(line["quantity"]) * Decimal(line["unitPrice"])).quantize(Decimal("0.01"))
        for line in reading.invoice["lines"]
    )
    assert summed == Decimal(reading.invoice["total"])
    assert reading.receipt_no
    assert all(line.role is not None for line in reading.lines)


@given(
    st.lists(
        st.builds(
            lambda name, unit, quantity, mark: TillItem(name, unit * quantity, quantity, mark),
            st.sampled_from(["SODA 500ML", "UGALI FLOUR 2KG", "X"]), st.integers(1, 2_000_000),
            st.integers(1, 99), st.sampled_from(["V", "Z", "E", ""]),
        ),
        min_size=1, max_size=10,
    ),
    st.sampled_from(slips.STYLES),
)  # fmt: skip
def test_every_receipt_of_the_till_is_certain_in_every_style(
    items: list[TillItem], style: str
) -> None:
    sale = replace(SALE, items=tuple(items))
    (slip,) = read(slips.printed(style, sale), [7])[1]
    reading = TEMPLATE.read(slip.lines, slip.doubts)
    assert reading.kind == "sale", reading.problems
    assert reading.invoice is not None
    assert Decimal(reading.invoice["total"]) * 100 == sale.total
    assert [line["name"] for line in reading.invoice["lines"]] == [item.name for item in items]


@given(st.integers(0, 10**9), st.floats(0.01, 0.5))
def test_a_garbled_slip_is_another_sale_at_most_by_a_letter_of_a_name(
    seed: int, share: float
) -> None:
    """Whatever is certain of it has the till's own amounts: they check each other."""
    data = slips.garbled(slips.plain(SALE), seed, share)
    for slip in read(data, [64])[1]:
        reading = TEMPLATE.read(slip.lines, slip.doubts)
        if reading.invoice is not None:
            assert reading.invoice["total"] == "185.00"


@pytest.mark.parametrize(
    ("raw", "certain"),
    [("1,250.00", True), ("1250.00", True), ("12,50.00", False), ("1,50", False), ("1_0.00", False),
     ("-1.00", False), ("1.005", False), ("", False), ("1e3", False), ("١.٠٠", False)],
)  # fmt: skip
def test_an_amount_that_could_be_two_is_none(raw: str, certain: bool) -> None:
    loose = a_template(
        item=r"^ITEM (?P<name>\w+) (?P<amount>\S*)$", total=r"^TOTAL (?P<amount>\S*)$", date=None
    )
    reading = loose.read(["RECEIPT NO 7", f"ITEM X {raw}", f"TOTAL {raw}"])
    assert (reading.kind == "sale") is certain


def test_quantity_and_price_may_stand_above_the_item_and_belong_to_one() -> None:
    above = a_template(detail_first=True, date=None)
    lines = ["RECEIPT NO 7", "  2 x 60.00", "SODA  120.00 V", "TOTAL  120.00"]
    assert above.read(lines).kind == "sale"
    assert a_template(date=None).read(lines).problems == ("it belongs to no item:   2 x 60.00",)
    three = ["RECEIPT NO 7", "SODA  120.00 V", "  2.000 x 60.00", "TOTAL  120.00"]
    invoice = a_template(date=None).read(three).invoice
    assert invoice is not None
    assert (invoice["lines"][0]["quantity"], invoice["lines"][0]["unitPrice"]) == ("2", "60.00")


def test_a_till_that_asks_all_day_and_one_that_never_ends_are_bounded() -> None:
    reader = SlipReader()
    for _ in range(30_000):
        reader.feed(b"\x10\x04\x01")
    _, (slip,) = reader.feed(slips.plain(SALE))
    assert TEMPLATE.read(slip.lines, slip.doubts).kind == "sale"
    assert len(slip.raw) < 5000
    found = []
    for _ in range(SLIP_MAX_BYTES // 1000 + 1):
        found += reader.feed(b"A" * 999 + b"\n")[1]
    (slip,) = found
    assert slip.doubts == ("it is too long for one slip",)
    assert TEMPLATE.read(slip.lines, slip.doubts).kind == "unread"


def test_two_code_pages_in_one_line() -> None:
    _, (slip,) = SlipReader().feed(b"\x1bt\x10caf\xe9\x1bt\x00 \x82\n\x1dV\x00")
    assert slip.lines == (
        "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{LATIN SMALL LETTER E WITH ACUTE}",
    )


def test_the_sample_configurations_template_reads_the_slip_of_its_page() -> None:
    """docs/operating/capture.md shows a slip, config/gateway.toml the template for it."""
    page = (ROOT / "docs/operating/capture.md").read_text()
    slip = page.split("```slip\n")[1].split("```")[0].splitlines()
    template: Template = template_of(sample_settings())
    reading = template.read(slip)
    assert reading.problems == ()
    assert reading.invoice is not None
    assert reading.invoice["payments"] == [{"method": "MOBILE_MONEY", "amount": "185.00"}]
    assert [line["taxCode"] for line in reading.invoice["lines"]] == ["B", "C"]


# A documented command with any parameters of its length, and commands with data of any bytes.
_SHORT = [
    *((b"\x1b", name, count) for name, count in ESC_LENGTHS.items()),
    *((b"\x1d", name, count) for name, count in GS_LENGTHS.items()),
    *((b"\x1c", name, count) for name, count in FS_LENGTHS.items()),
    *((b"\x1b", name, 1) for name in "dJeKRu9"), (b"\x1b", "$", 2), (b"\x1b", "\\", 2), (b"\x1b", "p", 3),
    (b"\x1d", "r", 1), (b"\x1d", "I", 1), (b"\x1d", "$", 2), (b"\x10", "\x04", 1), (b"\x10", "\x05", 1),
]  # fmt: skip
SHORT = st.sampled_from(_SHORT).flatmap(
    lambda command: st.binary(min_size=command[2], max_size=command[2]).map(
        lambda data: command[0] + command[1].encode("latin-1") + data
    )
)
DATA = st.one_of(
    st.binary(max_size=40).map(lambda data: b"\x1d(k" + len(data).to_bytes(2, "little") + data),
    st.binary(max_size=40).map(lambda data: b"\x1dkI" + bytes([len(data)]) + data),
    st.binary(min_size=12, max_size=12).map(lambda data: b"\x1dv0\x00\x03\x00\x04\x00" + data),
    st.binary(min_size=6, max_size=6).map(lambda data: b"\x1b*\x21\x02\x00" + data),
)
# Anything at all: no command, half a command, two at once.
JUNK = st.one_of(
    st.binary(max_size=6), st.binary(min_size=1, max_size=3).map(lambda x: b"\x1b" + x)
)
ITEMS = st.lists(
    st.builds(
        lambda name, unit, quantity, mark: TillItem(name, unit * quantity, quantity, mark),
        st.sampled_from(["SODA 500ML", "UGALI FLOUR 2KG", "BREAD"]), st.integers(1, 2_000_000),
        st.integers(1, 99), st.sampled_from(["V", "Z", "E"]),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


def sold(slip: CapturedSlip) -> tuple[str, list[tuple[str, str, str]], str] | None:
    reading = TEMPLATE.read(slip.lines, slip.doubts)
    if reading.invoice is None:
        return None
    items = [(x["name"], x["quantity"], x["taxCode"]) for x in reading.invoice["lines"]]
    return reading.receipt_no or "", items, reading.invoice["total"]


def truth(sale: TillSale) -> tuple[str, list[tuple[str, str, str]], str]:
    letters = {"V": "B", "Z": "C", "E": "A"}
    items = [(item.name, str(item.quantity), letters[item.mark]) for item in sale.items]
    return sale.number, items, slips.money(sale.total).replace(",", "")


@given(ITEMS, st.data())
def test_documented_commands_between_lines_never_give_a_wrong_sale(
    items: list[TillItem], data: st.DataObject
) -> None:
    """Commands after the end of a line, as tills send them; the next line begins with ESC E."""
    sale = replace(SALE, items=tuple(items))
    stream = bytearray(b"\x1b@")
    for line in slips.lines_of(sale):
        stream += line.encode() + b"\n" + data.draw(st.one_of(st.just(b""), SHORT, DATA))
        stream += b"\x1bE\x00"
    for slip in read(bytes(stream) + b"\x1dV\x00", [4096])[1]:
        assert sold(slip) in (None, truth(sale))


@given(ITEMS, st.data())
def test_any_bytes_between_lines_never_give_another_amount(
    items: list[TillItem], data: st.DataObject
) -> None:
    """Bytes that are no whole command may print a letter, as they would on paper; amounts check each other."""
    sale = replace(SALE, items=tuple(items))
    stream = bytearray()
    for line in slips.lines_of(sale):
        stream += line.encode() + b"\n" + data.draw(st.one_of(st.just(b""), SHORT, JUNK))
    for slip in read(bytes(stream) + b"\x1dV\x00", [4096])[1]:
        found = sold(slip)
        if found is not None:
            assert found[2] == truth(sale)[2]
            assert [item[1:] for item in found[1]] == [item[1:] for item in truth(sale)[1]]
