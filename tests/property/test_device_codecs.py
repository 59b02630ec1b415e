"""Whatever comes over a wire, and in whatever pieces: no codec raises, and the pieces do not matter."""

from __future__ import annotations

import itertools
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.counter.scale import Scale
from gateway.counter.scanner import CODE_MAX, KEEP_MAX, Scanner
from gateway.devices import display_codec, scale_codec
from gateway.devices.channel import LineSettings
from hw_fakes.display.glass import COLUMNS, Glass
from tests.support.clock import FakeClock

PROTOCOLS: list[Any] = ["toledo", "and"]
DISPLAYS: list[Any] = ["cd5220", "escpos"]
# Bytes that mean something to one of them, more often than others.
ALPHABET = b"\x02\r\n?STUSOLGNTQ,+-0123456789. kglbZ\x80\xff\x1b\x1f\x0c$@"
BYTES = st.one_of(
    st.binary(max_size=80), st.lists(st.sampled_from(ALPHABET), max_size=80).map(bytes)
)
WEIGHTS = st.decimals("0", "99.999", places=3)
GOOD = {
    "toledo": lambda kg: f"\x02{kg:06.3f}\r".encode(),
    "and": lambda kg: f"ST,GS,+{kg:08.3f}kg\r\n".encode() * 2,
}


def last_reading(data: bytes, protocol: Any) -> scale_codec.Reading | None:
    readings = scale_codec.readings_of(data, protocol)
    return readings[-1] if readings else None


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(where % (len(data) + 1) for where in at)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(data=BYTES, protocol=st.sampled_from(PROTOCOLS))
def test_anything_on_a_scales_wire_is_a_reading_or_none(data: bytes, protocol: Any) -> None:
    for reading in scale_codec.readings_of(data, protocol):
        if reading.problem is None:
            assert reading.weight >= 0
            assert reading.weight.is_finite()


@given(junk=BYTES, kg=WEIGHTS, protocol=st.sampled_from(PROTOCOLS), tail=st.binary(max_size=8))
def test_a_whole_answer_is_found_after_any_junk(
    junk: bytes, kg: Decimal, protocol: Any, tail: bytes
) -> None:
    if protocol == "and":
        junk += b"\r\n"
    data = junk + GOOD[protocol](kg) + re.sub(rb"[\r\n]", b"", tail)
    reading = last_reading(data, protocol)
    assert reading is not None
    assert (reading.weight, reading.stable, reading.problem) == (kg, True, None)


@given(kg=WEIGHTS, lost=st.integers(0, 40), protocol=st.sampled_from(PROTOCOLS))
def test_an_answer_that_lost_a_byte_is_no_other_weight(
    kg: Decimal, lost: int, protocol: Any
) -> None:
    whole = GOOD[protocol](kg)
    at = lost % len(whole)
    for reading in scale_codec.readings_of(whole[:at] + whole[at + 1 :], protocol):
        assert reading.problem is not None or reading.weight == kg


@given(kg=WEIGHTS, at=st.integers(0, 40), byte=st.integers(0x80, 0xFF))
def test_an_answer_with_a_bad_byte_is_no_other_weight(kg: Decimal, at: int, byte: int) -> None:
    for protocol in PROTOCOLS:
        whole = bytearray(GOOD[protocol](kg))
        whole[at % len(whole)] = byte
        for reading in scale_codec.readings_of(bytes(whole), protocol):
            assert reading.problem is not None or reading.weight == kg


@given(
    data=BYTES, at=st.lists(st.integers(0, 200), max_size=8), protocol=st.sampled_from(PROTOCOLS)
)
def test_a_scales_bytes_mean_the_same_in_any_pieces(
    data: bytes, at: list[int], protocol: Any
) -> None:
    scales = [Scale("s", LineSettings("nowhere"), protocol, FakeClock()) for _ in range(2)]
    scales[0]._heard(data)
    for piece in cut(data, at):
        scales[1]._heard(piece)
    assert scales[0]._reading == scales[1]._reading
    assert scales[0]._heard_count == scales[1]._heard_count


# What the makers' manuals print as examples, and what other models of the family send.
@pytest.mark.parametrize(
    ("line", "weight", "stable"),
    [
        (b"ST,GS,+0001.234kg\r\n", "1.234", True),
        (b"US,NT,+0000.250kg\r\n", "0.250", False),
        (b"ST,+00123.45  g\r\n", "0.12345", True),
        (b"ST,GS,+  0.735 kg\r\n", "0.735", True),
        (b"ST,NT, 0000.735,kg\r\n", "0.735", True),
        (b"ST,OK,+0001.234 kg\r\n", "1.234", True),
        (b"ST,GS,+0001,234kg\r\n", "1.234", True),
        (b"ST,NT,+0012.34kg\r", "12.34", True),
        (b"ST,GS,1\xc4,0000.876 kg\r\n", "0.876", True),
        (b"ST,N ,+0000.876 kg\r\n", "0.876", True),
    ],
)
def test_lines_of_real_scales(line: bytes, weight: str, stable: bool) -> None:
    reading = last_reading(line * 2, "and")
    assert reading == scale_codec.Reading(Decimal(weight), stable)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"OL,GS,+9999.999kg\r\n", "too much"),
        (b"OL,GS,+    .   kg\r\n", "too much"),
        (b"OL,-999999.9  g\r\n", "below zero"),
        (b"ST,GS,-0000.015kg\r\n", "below zero"),
        (b"QT,+00012345 PC\r\n", "counts pieces"),
        (b"ST,GS,+0001.62lb\r\n", "set it to kg"),
        (b"ST,GS,+0001.620\r\n", "set it to kg"),
        (b"US,GS,+    .   kg\r\n", "no weight"),
    ],
)
def test_lines_that_are_no_weight_to_charge_for(line: bytes, problem: str) -> None:
    reading = last_reading(line * 2, "and")
    assert reading is not None
    assert problem in (reading.problem or "")


def test_the_tare_is_not_the_weight() -> None:
    assert last_reading(b"ST,TR,+0000.250kg\r\n" * 2, "and") is None


@pytest.mark.parametrize(
    ("answer", "weight", "problem"),
    [
        (b"\x0201.235\r", "1.235", None),
        (b"\x0200.735N\r", "0.735", None),
        (b"\x02?\x41\r", "0", "not at rest"),
        (b"\x02?\x43\r", "0", "too much"),
        (b"\x02?\x6c\r", "0", "below zero"),
        (b"\x02001.62\r", "0", "not in kg"),
        (b"\x0201.62\r", "0", "not in kg"),
        (b"\x02\r", "0", "not in kg"),
    ],
)
def test_answers_of_the_8217_family(answer: bytes, weight: str, problem: str | None) -> None:
    reading = last_reading(answer, "toledo")
    assert reading is not None
    assert reading.weight == Decimal(weight)
    assert (problem or "") in (reading.problem or "")
    assert (problem is None) == (reading.problem is None)


# --- scanner --------------------------------------------------------------------------------------


@given(data=BYTES, at=st.lists(st.integers(0, 200), max_size=8))
def test_a_scanners_bytes_mean_the_same_in_any_pieces(data: bytes, at: list[int]) -> None:
    codes: list[list[str]] = [[], []]
    for heard, pieces in zip(codes, ([data], cut(data, at)), strict=True):
        scanner = Scanner("s", LineSettings("nowhere"), FakeClock(), heard.append)
        for piece in pieces:
            scanner._heard(piece)
    assert codes[0] == codes[1]
    for code in codes[0]:
        assert 0 < len(code) <= CODE_MAX
        assert all(" " <= char <= "~" or char == "\x1d" for char in code)


@given(data=st.binary(min_size=KEEP_MAX, max_size=2000))
def test_a_scanner_that_never_ends_fills_nothing(data: bytes) -> None:
    scanner = Scanner("s", LineSettings("nowhere"), FakeClock(), lambda code: None)
    for _ in range(3):
        scanner._heard(data)
        assert len(scanner._buffer) <= KEEP_MAX + 1


# --- display --------------------------------------------------------------------------------------


@given(
    lines=st.lists(st.text(max_size=30), max_size=2),
    protocol=st.sampled_from(DISPLAYS),
    before=BYTES,
    columns=st.integers(8, COLUMNS),
)
def test_whatever_stood_there_the_glass_shows_the_lines(
    lines: list[str], protocol: Any, before: bytes, columns: int
) -> None:
    """After any bytes a display could have been left with, at most one frame is lost."""
    glass = Glass(protocol)
    glass.feed(before)
    frame = display_codec.frame(lines, protocol, columns)
    glass.feed(display_codec.RESET + frame)
    glass.feed(display_codec.RESET + frame)
    for shown, wanted in zip(glass.lines, [*lines, "", ""], strict=False):
        expected = "".join(c if " " <= c <= "~" else "?" for c in wanted[:columns])
        assert shown == expected.ljust(COLUMNS)


@given(lost=st.integers(3, 22))
def test_a_lost_character_costs_one_line_only(lost: int) -> None:
    glass = Glass("escpos")
    frame = display_codec.frame(["A" * COLUMNS, "B" * COLUMNS], "escpos", COLUMNS)
    glass.feed(frame[:lost] + frame[lost + 1 :])
    assert glass.lines[1] == "B" * COLUMNS


@given(data=BYTES, at=st.lists(st.integers(0, 200), max_size=8), protocol=st.sampled_from(DISPLAYS))
def test_a_glass_takes_anything_in_any_pieces(data: bytes, at: list[int], protocol: Any) -> None:
    whole, pieces = Glass(protocol), Glass(protocol)
    whole.feed(data)
    for piece in cut(data, at):
        pieces.feed(piece)
    assert whole.lines == pieces.lines
    assert all(len(line) == COLUMNS for line in whole.lines)


@given(left=st.text(max_size=40), cents=st.integers(0, 10**11), columns=st.integers(8, 40))
def test_an_amount_on_the_display_is_never_cut(left: str, cents: int, columns: int) -> None:
    amount = f"{Decimal(cents) / 100:,.2f}"
    text = display_codec.both_ends(left, amount, columns)
    assert len(text) == columns
    if len(amount) <= columns:
        assert text.endswith(amount)
