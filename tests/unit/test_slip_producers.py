"""One sale as public receipt libraries print it, read with the sample's template: exactly, or refused with
the setting that cures it. tests/producers made the bytes; python-escpos prints live."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from escpos.printer import Dummy

from gateway.counter.slip_reader import SlipReader
from gateway.counter.template import SlipReading, Template
from gateway.counter_line import template_of
from tests.support.capture import sample_settings

DATA = Path(__file__).parents[1] / "data" / "producers"
CAPTURED = sorted(path.stem for path in DATA.glob("*.bin") if not path.stem.endswith("-accents"))
LIVE = "python-escpos"
# Letters above ASCII without a command that says in which encoding they are.
SILENT_PAGES = {
    "escpos": "cp437", "node-escpos": "cp437", "escpos-php": "cp437", "escpos-thermal": "cp437",
    "pyescpos": "utf-8", "xml-escpos-helper": "utf-8",
}  # fmt: skip
TEMPLATE = template_of(sample_settings())


def python_escpos(name: str) -> bytes:
    """Print the sale with python-escpos, in its own way: pages of its profile, QR code, drawer, cut."""
    printer = Dummy(profile="default")
    printer.hw("INIT")
    printer.set(align="center", bold=True, double_height=True)
    printer.textln("MAMA MBOGA STORES")
    printer.set_with_default()
    for line in ("RECEIPT NO 0001", "25/11/2026 10:15", "-" * 32, "SODA 500ML              120.00 V",
                 "  2 x 60.00", f"{name:24} 65.00 Z", f"{'TOTAL':26}185.00", f"{'M-PESA':26}185.00"):  # fmt: skip
        printer.textln(line)
    printer.qr("0001", native=True)
    printer.barcode("4006381333931", "EAN13", function_type="A")
    printer.textln("THANK YOU")
    printer.cashdraw(2)
    printer.cut()
    return bytes(printer.output)


def printed(producer: str, accents: bool = False) -> bytes:
    name = "CAFÉ “400G”" if producer == "escpos-php" and accents else "CAFÉ 400G"
    if producer == LIVE:
        return python_escpos(name if accents else "BREAD 400G")
    return (DATA / f"{producer}{'-accents' if accents else ''}.bin").read_bytes()


def read(data: bytes, template: Template = TEMPLATE, code_page: str | None = None) -> SlipReading:
    reader = SlipReader(code_page=code_page)
    _, slips = reader.feed(data)
    (slip,) = slips + reader.end()
    return template.read(slip.lines, slip.doubts)


def sold(reading: SlipReading) -> list[tuple[str, str, str, str]]:
    assert reading.invoice is not None, reading.problems
    assert (reading.receipt_no, reading.dated) == ("0001", "25/11/2026 10:15")
    assert reading.invoice["total"] == "185.00"
    assert reading.invoice["payments"] == [{"method": "MOBILE_MONEY", "amount": "185.00"}]
    return [
        (x["name"], x["quantity"], x["unitPrice"], x["taxCode"]) for x in reading.invoice["lines"]
    ]


def test_there_are_twelve_producers_at_least() -> None:
    assert len([*CAPTURED, LIVE]) >= 12


@pytest.mark.parametrize("producer", [*CAPTURED, LIVE])
def test_a_sale_of_every_producer_is_read_exactly(producer: str) -> None:
    assert sold(read(printed(producer))) == [
        ("SODA 500ML", "2", "60.00", "B"),
        ("BREAD 400G", "1", "65.00", "C"),
    ]


@pytest.mark.parametrize("producer", [*CAPTURED, LIVE])
def test_a_name_with_an_accent_is_read_exactly_or_refused_with_its_cure(producer: str) -> None:
    name = "CAFÉ “400G”" if producer == "escpos-php" else "CAFÉ 400G"
    exact = [("SODA 500ML", "2", "60.00", "B"), (name, "1", "65.00", "C")]
    reading = read(printed(producer, accents=True))
    if producer not in SILENT_PAGES:
        assert sold(reading) == exact
        return
    assert reading.kind == "unread"
    assert "set code_page" in reading.problems[0]
    cured = read(printed(producer, accents=True), code_page=SILENT_PAGES[producer])
    assert sold(cured) == exact


@pytest.mark.parametrize("producer", [*CAPTURED, LIVE])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.replace(b"120.00 V", b"121.00 V"),
        lambda data: data.replace(b"65.00 Z", b"65.00 Q"),
        lambda data: data.replace(b"TOTAL", b"TOTAX"),
        lambda data: data.replace(b"0001", b"", 1),
        lambda data: data.replace(b"2 x 60.00", b"3 x 60.00"),
    ],
)
def test_a_damaged_sale_of_every_producer_is_refused(
    producer: str, damage: Callable[[bytes], bytes]
) -> None:
    data = printed(producer)
    assert damage(data) != data
    assert read(damage(data)).kind == "unread"
