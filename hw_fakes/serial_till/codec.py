"""Frames of the serial till's protocol, written from docs/reference/serial-till.md alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

STX, ETX, ACK, NAK = 0x02, 0x03, 0x06, 0x15
Kind = Literal["frame", "ack", "nak", "broken"]


@dataclass(frozen=True, slots=True)
class Heard:
    """One thing the other side said; `payload` of a frame only."""

    kind: Kind
    sequence: int
    payload: bytes = b""


def crc16(data: bytes) -> int:
    """Polynomial 0x1021, initial value 0xFFFF, not reflected, no final XOR."""
    value = 0xFFFF
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1) ^ 0x1021 if value & 0x8000 else value << 1
            value &= 0xFFFF
    return value


def frame(sequence: int, payload: bytes) -> bytes:
    """ValueError when two bytes cannot say its length."""
    if len(payload) > 65_535:
        raise ValueError("too long for a frame")
    middle = bytes([sequence, len(payload) >> 8, len(payload) & 0xFF]) + payload
    check = crc16(middle)
    return bytes([STX]) + middle + bytes([check >> 8, check & 0xFF, ETX])


def short(mark: int, sequence: int) -> bytes:
    """ACK or NAK of a sequence number."""
    return bytes([mark, sequence, 255 - sequence])


class Listener:
    """Splits what arrives, in whatever pieces, into frames, ACKs and NAKs."""

    def __init__(self) -> None:
        self.held = b""

    def hear(self, data: bytes) -> list[Heard]:
        self.held += data
        found: list[Heard] = []
        while True:
            heard, used = self._first()
            self.held = self.held[used:]
            if heard is not None:
                found.append(heard)
            elif not used:
                return found

    def _first(self) -> tuple[Heard | None, int]:
        """(what begins here, bytes used up); nothing and 0 while more bytes are needed."""
        held = self.held
        if not held:
            return None, 0
        if held[0] in (ACK, NAK):
            if len(held) < 3:
                return None, 0
            if held[1] + held[2] != 255:
                return None, 1
            return Heard("ack" if held[0] == ACK else "nak", held[1]), 3
        if held[0] != STX:
            return None, 1
        if len(held) < 4:
            return None, 0
        size = held[2] * 256 + held[3]
        whole = 4 + size + 3
        if STX in held[4 : 4 + size]:
            return Heard("broken", held[1]), 1
        if len(held) < whole:
            return None, 0
        check = held[4 + size] * 256 + held[5 + size]
        if held[whole - 1] == ETX and crc16(held[1 : 4 + size]) == check:
            return Heard("frame", held[1], held[4 : 4 + size]), whole
        return Heard("broken", held[1]), 1
