"""Codes of a scanner: every usual suffix and prefix, none at all, and what is never a code."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.counter.scanner import CODE_MAX, Scanner, ScannerRules
from gateway.devices.channel import LineSettings
from tests.support.clock import FakeClock

EAN = "6161100100015"
OTHER = "5449000000996"
# An address as it stands in the QR of a receipt: 129 characters.
ADDRESS = "https://etims.kra.go.ke/common/link/etims/receipt/indexEtimsReceiptData?Data=".ljust(
    129, "A"
)


class Front:
    """A scanner whose line is open, and the codes that its till gets."""

    def __init__(self, **rules: Any) -> None:
        self.codes: list[str] = []
        self.clock = FakeClock()
        self.scanner = Scanner(
            "front", LineSettings("nowhere"), self.clock, self.codes.append, ScannerRules(**rules)
        )
        self.scanner.line.problem = None

    async def scan(self, *pieces: bytes, pause_s: float = 2.0) -> list[str]:
        """The codes so far, after these bytes and a pause behind each."""
        for piece in pieces:
            self.scanner._heard(piece)
            await self.clock.advance(seconds=pause_s)
        return self.codes


@pytest.mark.parametrize(
    "code", [EAN, "7", ADDRESS, "Z" * CODE_MAX, "0106161100100015\x1d310200125"]
)
@pytest.mark.parametrize(
    "frame",
    ["{}\r", "{}\n", "{}\r\n", "{}\t", "{}\0", "{}\x03", "\x02{}\x03", "\x02{}\r", "\x02{}\x03\r\n",
     "{}\r\0", "\0{}\r", "{}\t\r\n", "\r\n{}\r\n", "]E0{}\r", "\x02]C1{}\x03", "]Q3{}\t"],
)  # fmt: skip
async def test_a_code_arrives_whatever_stands_around_it(frame: str, code: str) -> None:
    front = Front()
    data = frame.format(code).encode()
    assert await front.scan(data, data) == [code, code]
    assert front.scanner.problem is None
    # Two in one piece, as the first bytes of a line and later.
    assert await Front().scan(data + data) == [code, code] or len(code) > 200
    assert await front.scan(data + data) == [code] * 4


async def test_the_kind_of_code_is_passed_on_when_the_settings_say_so() -> None:
    assert await Front(strip_aim=False).scan(b"]E0" + EAN.encode() + b"\r") == [f"]E0{EAN}"]
    # A bracket alone is a part of the code.
    assert await Front().scan(b"]9X6161\r", b"]\r", b"]E0\r") == ["]9X6161", "]"]


async def test_a_code_without_a_suffix_ends_by_silence_where_the_settings_say_so() -> None:
    front = Front(silence_s=0.2)
    code = EAN.encode()
    assert await front.scan(code[:6], code[6:], pause_s=0.1) == []
    assert await front.scan(b"") == [EAN]
    assert await front.scan(OTHER.encode(), b"]E0" + code) == [EAN, OTHER, EAN]
    # A suffix ends it as well.
    assert await front.scan(code + b"\r" + OTHER.encode() + b"\r", pause_s=0.0) == [
        EAN, OTHER, EAN, EAN, OTHER,
    ]  # fmt: skip


async def test_a_code_without_a_suffix_is_shown_with_its_bytes() -> None:
    front = Front()
    assert await front.scan(b"6161") == []
    problem = front.scanner.problem or ""
    assert "it sends, but not what is set: 36 31 36 31" in problem and 'suffix = "none"' in problem
    # The rest is no code: what it belongs to is not known.
    assert await front.scan(b"100015\r") == []
    assert "a part of it is missing" in (front.scanner.problem or "")
    assert await front.scan(EAN.encode() + b"\r") == [EAN]
    assert front.scanner.problem is None


@pytest.mark.parametrize("inner", [b"\t", b"\0", b"\x03", b"\x02", b"\x80", "é".encode()])
async def test_half_a_code_is_no_code(inner: bytes) -> None:
    """A byte that ends codes of other scanners, in the middle of a code of this one."""
    front = Front()
    assert await front.scan(EAN.encode() + b"\r") == [EAN]
    assert await front.scan(b"61611" + inner + b"00100\r") == [EAN]
    assert f"{inner.hex(' ')} 30 30 31 30 30" in (front.scanner.problem or "")


async def test_a_break_in_the_first_code_is_not_its_end() -> None:
    assert await Front().scan(b"61611\x0000100\r") == []


async def test_a_suffix_that_was_changed_is_found_by_the_second_code() -> None:
    front = Front()
    await front.scan(EAN.encode() + b"\r")
    assert await front.scan(OTHER.encode() + b"\t") == [EAN]
    assert "36 09" in (front.scanner.problem or "")
    # The first of them may be a half; the next one is read.
    assert await front.scan(OTHER.encode() + b"\t") == [EAN, OTHER]
    assert front.scanner.problem is None


async def test_what_is_too_long_is_no_code() -> None:
    front = Front()
    assert await front.scan(b"X" * (CODE_MAX + 1) + b"\r", b"Y" * 5000 + b"\r") == []
    assert len(front.scanner._buffer) == 0
    assert "59 59 59" in (front.scanner.problem or "")
    assert await front.scan(EAN.encode() + b"\r") == [EAN]
