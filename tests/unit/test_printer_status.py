"""What printers say, byte by byte: no answer is taken for another one, in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.devices.printer_status import (
    ID_MAX,
    Listener,
    automatic,
    process_id_request,
    real_time,
)
from gateway.devices.printer_status import PrinterStatus as Status

ASB = b"\x14\x00\x00\x0f"


def response(number: int) -> bytes:
    """As a printer answers GS ( H: its own digits come back."""
    return b"\x37\x22" + process_id_request(number)[-4:] + b"\x00"


def heard(*pieces: bytes) -> Listener:
    listener = Listener()
    for piece in pieces:
        listener.feed(piece)
    return listener


def test_the_four_bytes_a_printer_tells_by_itself_confirm_nothing() -> None:
    listener = heard(ASB * 5)
    assert listener.papers == 0
    assert listener.told == Status()
    assert heard(b"\x00", ASB, b"\x0f").papers == 2


def test_a_real_time_answer_may_come_between_two_bytes() -> None:
    listener = heard(ASB[:2] + b"\x16" + ASB[2:], b"\x00")
    assert list(listener.real_time) == [0x16]
    assert listener.papers == 1


def test_flow_control_and_noise_are_no_answers() -> None:
    listener = heard(b"\x11\x13\xf3\xff\x80")
    assert (listener.papers, list(listener.real_time), listener.ids) == (0, [], set())
    assert heard(b"\x37\x13\x22", response(7)[2:]).ids == {7}


def test_a_process_id_that_broke_off_does_not_swallow_what_comes_after() -> None:
    assert heard(b"\x37", b"\x03").papers == 1
    assert heard(response(5)[:3], b"\x10", ASB[1:], response(6)).ids == {6}


@given(st.integers(0, ID_MAX), st.integers(1, 7))
def test_a_process_id_comes_back_whole_and_looks_like_nothing_else(number: int, size: int) -> None:
    data = response(number)
    listener = heard(*(data[at : at + size] for at in range(0, len(data), size)))
    assert listener.ids == {number}
    assert (listener.papers, list(listener.real_time), listener.told) == (0, [], None)


@given(st.binary(max_size=200))
def test_any_bytes_are_sorted_without_an_error(data: bytes) -> None:
    whole, single = heard(data), heard(*(bytes([byte]) for byte in data))
    assert (whole.papers, whole.ids, whole.told) == (single.papers, single.ids, single.told)


@pytest.mark.parametrize(
    ("which", "bits", "says"),
    [
        (1, 0x08, "offline"),
        (2, 0x04, "cover"),
        (2, 0x20, "paper out"),
        (2, 0x40, "error"),
        (3, 0x08, "cutter"),
        (3, 0x20, "error"),
        (3, 0x40, "error"),
        (4, 0x60, "paper out"),
    ],
)
def test_every_bit_that_stops_a_printer_has_its_words(which: int, bits: int, says: str) -> None:
    well = 0x16 if which == 1 else 0x12
    assert says in (real_time(Status(), which, well | bits).stops or "")
    assert real_time(Status(), which, well).stops is None


def test_paper_near_its_end_stops_nothing() -> None:
    near = real_time(Status(), 4, 0x12 | 0x0C)
    assert near.paper_near_end
    assert near.stops is None


@pytest.mark.parametrize(
    ("packet", "says"),
    [
        (b"\x1c\x00\x00\x0f", "offline"),
        (b"\x3c\x00\x00\x0f", "cover"),
        (b"\x1c\x08\x00\x0f", "cutter"),
        (b"\x1c\x20\x00\x0f", "error"),
        (b"\x1c\x00\x0c\x0f", "paper out"),
    ],
)
def test_every_bit_it_tells_by_itself_has_the_same_words(packet: bytes, says: str) -> None:
    assert says in (automatic(packet).stops or "")
    assert automatic(b"\x10\x00\x03\x0f") == Status(drawer_open=True, paper_near_end=True)
