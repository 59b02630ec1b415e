"""The public formats of scales: a weight in kg, or a problem; another format is named with its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from gateway.counter.scale import Scale
from gateway.devices.channel import LineSettings
from gateway.devices.scale_codec import looks_like, not_as_set, readings_of
from gateway.devices.scale_reading import Options, Reading
from tests.support.clock import FakeClock

KG = Options("kg", 3)
SENDING = ["and", "toledo-continuous", "yaohua", "digi", "ohaus"]


def last(data: bytes, protocol: Any, options: Options = Options()) -> Reading | None:
    readings = readings_of(data, protocol, options)
    return readings[-1] if readings else None


def xor(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte
    return value


def continuous(
    weight: bytes, *, a: int = 0x2D, b: int = 0x30, c: int = 0x20, tare: bytes = b"000000"
) -> bytes:
    return bytes((0x02, a, b, c)) + weight + tare + b"\r"


def checked(frame: bytes) -> bytes:
    return frame + bytes((-sum(frame) & 0x7F,))


def cas(body: bytes, *, whole: bool = False) -> bytes:
    head = b"\x01\x02"
    return head + body + bytes((xor(head + body if whole else body),)) + b"\x03\x04"


# Protocol, what arrives, what the settings add, the weight. Where a manual prints an example, it is that.
WEIGHTS: list[tuple[str, bytes, Options, str]] = [
    ("toledo", b"\x0201.235\r", Options(), "1.235"),
    ("toledo", b"\x02 1.235\r", Options(), "1.235"),
    ("toledo", b"\x0201235\r", Options(decimals=3), "1.235"),
    ("toledo", b"\x0201235N\r", Options(decimals=2), "12.35"),
    ("toledo", b"\x0201235\r", Options("g", 0), "1.235"),
    *[
        ("and", b"ST,GS,+  1.235%s\r\n" % unit * 2, Options(), "1.235")
        for unit in (b"kg", b"KG", b"Kg", b"kG", b" kg", b" KG ")
    ],
    ("and", b"ST,GS,+ 1235.0 g\r\n" * 2, Options(), "1.2350"),
    ("and", b"ST,GS,+ 1235.0 G\r\n" * 2, Options("g"), "1.2350"),
    ("and", b"ST,GS,+001.235\r\n" * 2, Options("kg"), "1.235"),
    ("and", b"ST,GS,+1235\r\n" * 2, Options("g"), "1.235"),
    ("and", b"ST,GS,+001235kg\r\n" * 2, KG, "1.235"),
    ("and", b"ST,GS,+0012.kg\r\n" * 2, Options(), "12"),
    ("toledo-continuous", continuous(b"001235") * 3, Options(), "1.235"),
    ("toledo-continuous", continuous(b"  1235") * 3, Options(), "1.235"),
    ("toledo-continuous", checked(continuous(b"001235")) * 3, Options(), "1.235"),
    ("toledo-continuous", continuous(b"001235", b=0x31, tare=b"000250") * 3, Options(), "1.235"),
    ("toledo-continuous", continuous(b"001235", tare=b"") * 3, Options(), "1.235"),
    ("toledo-continuous", continuous(b"001235", a=0x2A, c=0x21) * 3, Options(), "1.235"),
    ("toledo-continuous", continuous(b"000012", a=0x29) * 3, Options(), "120"),
    ("sics", b"S S      1.235 kg\r\n", Options(), "1.235"),
    ("sics", b"S S     1235.0 g\r\n", Options(), "1.2350"),
    ("nci", b"\n0001.235KG\r\n00\r\x03", Options(), "1.235"),
    ("nci", b"\n  1.235kg\r\nS00\r\x03", Options(), "1.235"),
    ("nci", b"\n01.235KG\n\rS00\r\x03", Options(), "1.235"),
    ("nci", b"\n01.235kg\r\n0p4\r\x03", Options(), "1.235"),
    ("cas", cas(b"S 01.235kg"), Options(), "1.235"),
    ("cas", cas(b"S  1.235KG"), Options(), "1.235"),
    ("cas", cas(b"S 01.235kg", whole=True), Options(), "1.235"),
    ("cas", cas(b"S 001235  "), KG, "1.235"),
    ("dibal", b"9900031600000004\r\n", Options(), "0.316"),
    ("yaohua", b"=532.1000" * 5, KG, "1.235"),
    ("yaohua", b"=000.3000" * 5, KG, "3.000"),
    ("yaohua", b"=0003.000" * 5, KG, "3.000"),
    ("yaohua", b"=05.32100" * 5, Options("kg", 2), "123.50"),
    ("yaohua", b"\x02+001560019\x03" * 4, Options("kg"), "1560"),
    ("yaohua", b"\x02+00123531D\x03" * 4, Options("kg"), "1.235"),
    ("yaohua", b"WG004.139kg3D\r\n" * 4, Options(), "4.139"),
    ("digi", b"\x00\r0001.235\r4000.000\r\n" * 3, Options("kg"), "1.235"),
    ("digi", b"\x00\r001.235\r000.250\r\n" * 3, Options("kg"), "1.235"),
    ("digi", b"0001.235\r4000.000\r\n" * 5, Options("kg"), "1.235"),
    ("digi", b"001.235\r000.000\r\n" * 5, Options("kg"), "1.235"),
    ("ohaus", b"    1.235 kg    \r\n" * 3, Options(), "1.235"),
    ("ohaus", b"    1.235 KG   NET\r\n" * 3, Options(), "1.235"),
    ("ohaus", b"  +1.235KG\r\n" * 3, Options(), "1.235"),
    ("ohaus", b" 1235.0 g   G\r\n" * 3, Options(), "1.2350"),
    ("ohaus", b"    1.235\r\n" * 5, Options("kg"), "1.235"),
    ("ohaus", b"\n  1.235kgGR\r\x03" * 3, Options(), "1.235"),
]


@pytest.mark.parametrize(("protocol", "data", "options", "weight"), WEIGHTS)
def test_a_format_gives_its_weight(
    protocol: Any, data: bytes, options: Options, weight: str
) -> None:
    assert last(data, protocol, options) == Reading(Decimal(weight), stable=True)


PROBLEMS: list[tuple[str, bytes, Options, str]] = [
    # A part that the format leaves out, and the settings too.
    ("toledo", b"\x0201235\r", Options(), "decimals = 3"),
    ("and", b"ST,GS,+001.235\r\n" * 2, Options(), 'unit = "kg"'),
    ("and", b"ST,GS,+001235kg\r\n" * 2, Options(), "decimals = 3"),
    ("yaohua", b"=532.1000" * 5, Options(), "Yaohua"),
    ("yaohua", b"=532.1000" * 5, Options("kg"), "decimals = 3"),
    ("yaohua", b"\x02+001560019\x03" * 4, Options(), 'unit = "kg"'),
    ("digi", b"\x00\r0001.235\r4000.000\r\n" * 3, Options(), 'unit = "kg"'),
    ("ohaus", b"    1.235\r\n" * 5, Options(), 'unit = "kg"'),
    # Other units.
    *[
        ("and", b"ST,GS,+  1.235%s\r\n" % unit * 2, KG, "set it to kg")
        for unit in (b"lb", b"LB", b"oz", b"t", b"G", b"kgs", b"k")
    ],
    ("toledo-continuous", continuous(b"001235", b=0x20) * 3, KG, "set it to kg"),
    ("toledo-continuous", continuous(b"001235", c=0x23) * 3, KG, "set it to kg"),
    ("toledo-continuous", continuous(b"012350", c=0x30) * 3, KG, "set it to kg"),
    ("sics", b"S S      2.723 lb\r\n", KG, "set it to kg"),
    ("nci", b"\n0002.72LB\r\n00\r\x03", KG, "set it to kg"),
    ("cas", cas(b"S 002.72LB"), KG, "set it to kg"),
    ("yaohua", b"WG004.139lb3F\r\n" * 4, KG, "set it to kg"),
    ("ohaus", b"    2.723 lb\r\n" * 3, KG, "set it to kg"),
    ("ohaus", b"        3 PCS\r\n" * 3, KG, "set it to kg"),
    # Moving.
    ("toledo-continuous", continuous(b"001235", b=0x38) * 3, KG, "not at rest"),
    ("sics", b"S D      1.235 kg\r\n", KG, "not at rest"),
    ("sics", b"S I\r\n", KG, "not at rest"),
    ("nci", b"\n01.235KG\r\n10\r\x03", KG, "not at rest"),
    ("cas", cas(b"U 01.235kg"), KG, "not at rest"),
    ("yaohua", b"=532.1000=632.1000=732.1000=832.1000=932.1000=", KG, "not at rest"),
    ("digi", b"\x01\r0001.235\r4000.000\r\n" * 3, KG, "not at rest"),
    ("ohaus", b"    1.235 kg ? NET\r\n" * 3, KG, "not at rest"),
    # Too much, and below zero.
    ("toledo-continuous", continuous(b"999999", b=0x34) * 3, KG, "too much"),
    ("toledo-continuous", continuous(b"000005", b=0x32) * 3, KG, "below zero"),
    ("toledo-continuous", continuous(b"000005", b=0x36) * 3, KG, "below zero"),
    ("sics", b"S +\r\n", KG, "too much"),
    ("sics", b"S -\r\n", KG, "below zero"),
    ("sics", b"S S     -1.235 kg\r\n", KG, "below zero"),
    ("nci", b"\n02\r\x03", KG, "too much"),
    ("nci", b"\n01\r\x03", KG, "below zero"),
    ("nci", b"\n01.235KG\r\n02\r\x03", KG, "too much"),
    ("cas", cas(b"F 00.000kg"), KG, "too much"),
    ("cas", cas(b"S-01.235kg"), KG, "below zero"),
    ("yaohua", b"=00.1000-" * 5, Options("kg", 2), "below zero"),
    ("yaohua", b"=-0001.00" * 5, Options("kg", 2), "below zero"),
    ("yaohua", b"         OL23\r\n", KG, "too much"),
    ("yaohua", b"         LO23\r\n", KG, "below zero"),
    ("digi", b"\x00\r0-01.235\r4000.000\r\n" * 3, KG, "below zero"),
    ("ohaus", b"   -1.235 kg\r\n" * 3, KG, "below zero"),
    ("ohaus", b"^^^^^^^^^\r\n", KG, "too much"),
    ("ohaus", b"Err8.3\r\n", KG, "no weight"),
    # A check that does not fit, and faults.
    ("cas", b"\x01\x02S 01.235kg\x00\x03\x04", KG, "garbled"),
    ("dibal", b"9900031700000004\r\n", KG, "garbled"),
    ("dibal", b"9910031600000005\r\n", KG, "status 1"),
    ("nci", b"\n01.235KG\r\n40\r\x03", KG, "fault"),
    ("nci", b"\n?\r\x03", KG, "garbled"),
    ("sics", b"ES\r\n", KG, "garbled"),
]


@pytest.mark.parametrize(("protocol", "data", "options", "part"), PROBLEMS)
def test_what_is_no_weight_to_charge_for_is_a_problem(
    protocol: Any, data: bytes, options: Options, part: str
) -> None:
    reading = last(data, protocol, options)
    assert reading is not None
    assert part in (reading.problem or "")


@pytest.mark.parametrize(
    ("protocol", "data"),
    [
        ("toledo-continuous", (continuous(b"001235") + b"\x01") * 3),
        ("toledo-continuous", checked(continuous(b"001235"))[:-1] + b"\x00"),
        ("yaohua", b"\x02+001560018\x03" * 4),
        ("yaohua", b"WG004.139kg3C\r\n" * 4),
        ("yaohua", b"=53.1000" * 5),
        ("and", b"ST,TR,+  1.235kg\r\n" * 2),
        ("ohaus", b"T         0.250 kg\r\n" * 3),
        ("ohaus", b"    0.250 kg  T\r\n" * 3),
        ("ohaus", b"  207.800 kg TOTAL\r\n" * 3),
        ("sics", b"S S     1.235 kg\r\n"),
    ],
)
def test_a_wrong_check_a_lost_byte_and_the_tare_are_no_weight(protocol: Any, data: bytes) -> None:
    reading = last(data, protocol, KG)
    assert reading is None or reading.problem is not None


def damaged(data: bytes) -> Iterator[bytes]:
    """Every byte once lost, once with its top bit set, once with its lowest bits turned."""
    for at in range(len(data)):
        yield data[:at] + data[at + 1 :]
        yield data[:at] + bytes((data[at] | 0x80,)) + data[at + 1 :]
        yield data[:at] + bytes((data[at] ^ 0x01,)) + data[at + 1 :]


@pytest.mark.parametrize(
    ("protocol", "data", "options", "weight"),
    [case for case in WEIGHTS if case[0] in (*SENDING, "cas", "dibal")],
)
def test_one_damaged_byte_is_no_other_weight(
    protocol: Any, data: bytes, options: Options, weight: str
) -> None:
    for changed in damaged(data):
        for reading in readings_of(changed, protocol, options):
            assert reading.problem is not None or reading.weight == Decimal(weight), changed


@pytest.mark.parametrize(
    ("protocol", "data", "options", "weight"), [case for case in WEIGHTS if case[0] in SENDING]
)
def test_a_format_is_recognised_when_another_is_set(
    protocol: Any, data: bytes, options: Options, weight: str
) -> None:
    assert looks_like(data * 2, but="toledo") == protocol
    text = not_as_set(data * 2, "toledo")
    assert f'this looks like protocol = "{protocol}"' in text
    assert (data * 2)[-4:].hex(" ") in text


@pytest.mark.parametrize("parity", ["E", "O"])
@pytest.mark.parametrize(
    "frame", [b"\x0201.235\r", b"ST,GS,+0001.235kg\r\n", b"    1.235 kg  \r\n"]
)
def test_a_parity_bit_that_is_not_set_is_recognised(frame: bytes, parity: str) -> None:
    odd = parity == "O"
    sent = bytes(byte | 0x80 if byte.bit_count() % 2 != odd else byte for byte in frame * 3)
    text = not_as_set(sent, "and")
    assert f'data_bits = 7 and parity = "{parity}"' in text, text


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x12" * 30, b"6161", bytes(range(256))])
def test_bytes_of_no_format_are_shown_without_a_guess(data: bytes) -> None:
    assert looks_like(data) is None
    assert data[-8:].hex(" ") in not_as_set(data, "and")


@pytest.mark.parametrize(
    ("protocol", "data"), [("toledo", b"=532.1000" * 16), ("and", b"\x0201235\r" * 20)]
)
def test_a_scale_that_sends_another_format_is_shown_without_a_question(
    protocol: Any, data: bytes
) -> None:
    scale = Scale("pan", LineSettings("nowhere"), protocol, FakeClock())
    scale.line.problem = None
    scale._heard(data[:20])
    assert scale.problem is None
    scale._heard(data)
    assert "it sends, but not what is set" in (scale.problem or "")
    assert data[-8:].hex(" ") in (scale.problem or "")


async def test_a_problem_of_the_settings_shows_the_bytes() -> None:
    scale = Scale("pan", LineSettings("nowhere"), "toledo", FakeClock())
    scale.line.problem = None
    scale._heard(b"\x0201235\r")
    said = scale.problem or ""
    assert "decimals = 3" in said and "protocol toledo" in said and "02 30 31 32 33 35 0d" in said
    scale._heard(b"\x0201.235\r")
    assert scale.problem is None
