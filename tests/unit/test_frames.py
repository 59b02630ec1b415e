"""The serial till's protocol: the page's own examples through both codecs, and any bytes at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.devices import frames
from gateway.devices.frames import Acknowledged, Decoder, Frame, Piece, Refused
from hw_fakes.serial_till import codec
from hw_fakes.serial_till.codec import Listener

PAGE = (Path(__file__).parents[2] / "docs/reference/serial-till.md").read_text()
# A block of the page: what it is, its hex, and for a frame its sequence number and JSON.
EXAMPLES = re.findall(r"```hex (\w+) (\d+)\n(.*?)```(?:\s+```json\n(.*?)```)?", PAGE, re.DOTALL)


@pytest.mark.parametrize(("kind", "number", "text", "value"), EXAMPLES)
def test_every_example_of_the_page_is_what_both_codecs_make_and_read(
    kind: str, number: str, text: str, value: str
) -> None:
    wire, sequence = bytes.fromhex(text), int(number)
    (piece,) = Decoder().feed(wire)
    (heard,) = Listener().hear(wire)
    if kind == "frame":
        body = value.strip().encode()
        assert json.loads(body)
        assert frames.encode(sequence, body) == codec.frame(sequence, body) == wire
        assert piece == Frame(sequence, body)
        assert (heard.kind, heard.sequence, heard.payload) == ("frame", sequence, body)
    else:
        assert kind in ("ack", "nak")
        ours = frames.ack if kind == "ack" else frames.nak
        mark = codec.ACK if kind == "ack" else codec.NAK
        assert ours(sequence) == codec.short(mark, sequence) == wire
        assert piece == (Acknowledged(sequence) if kind == "ack" else Refused(sequence))
        assert (heard.kind, heard.sequence) == (kind, sequence)


def test_the_page_has_its_examples_and_its_test_vector() -> None:
    assert {kind for kind, *_ in EXAMPLES} == {"frame", "ack", "nak"}
    assert sum(kind == "frame" for kind, *_ in EXAMPLES) >= 3
    vector = re.search(r'"(\d+)" gives `0x([0-9A-F]{4})`', PAGE)
    assert vector
    data, check = vector[1].encode(), int(vector[2], 16)
    assert codec.crc16(data) == int.from_bytes(frames.crc(data), "big") == check


def test_the_page_has_the_gateways_limits() -> None:
    from gateway.counter import serial_till

    for text in (
        f"{serial_till.REQUEST_MAX:,} bytes",
        f"{serial_till.ANSWER_TRIES} times",
        f"{serial_till.ANSWER_WAIT_S:.0f} seconds",
        f"{serial_till.SILENCE_S:.0f} second",
        f"{serial_till.OPEN_MAX} requests",
    ):
        assert text in PAGE, text


MARKS = st.sampled_from(
    [b"\x02", b"\x03", b"\x06", b"\x15", b"\x00\x05", b"{}", b"\x02\x01\x00\x02"]
)
GOOD = st.builds(frames.encode, st.integers(0, 255), st.binary(max_size=40))
WIRE = st.lists(st.one_of(st.binary(max_size=30), MARKS, GOOD), max_size=12).map(b"".join)


@given(WIRE, st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_any_bytes_are_read_alike_in_whatever_pieces(wire: bytes, sizes: list[int]) -> None:
    whole = Decoder().feed(wire)
    pieces: list[Piece] = []
    decoder, at, turn = Decoder(), 0, 0
    while at < len(wire):
        size = sizes[turn % len(sizes)]
        pieces += decoder.feed(wire[at : at + size])
        at, turn = at + size, turn + 1
    assert pieces == whole
    heard = Listener().hear(wire)
    found = [(h.sequence, h.payload) for h in heard if h.kind == "frame"]
    assert found == [(p.sequence, p.body) for p in whole if isinstance(p, Frame)]


@given(WIRE, st.integers(0, 255), st.binary(max_size=40).filter(lambda body: 2 not in body))
def test_after_noise_and_a_silence_the_next_frame_is_read(
    noise: bytes, sequence: int, body: bytes
) -> None:
    decoder = Decoder()
    decoder.feed(noise)
    decoder.gap()
    assert not decoder.in_frame
    assert decoder.feed(frames.encode(sequence, body)) == [Frame(sequence, body)]


@given(st.binary(max_size=40), st.binary(max_size=40).filter(lambda body: 2 not in body))
def test_a_frame_swallowed_by_noise_is_found_when_the_line_is_silent(
    noise: bytes, body: bytes
) -> None:
    decoder = Decoder()
    early = decoder.feed(b"\x02\x00\xff\xff" + noise.replace(b"\x02", b"") + frames.encode(7, body))
    assert Frame(7, body) in [*early, *decoder.gap()]
