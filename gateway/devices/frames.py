"""Frames of the serial till's protocol (docs/reference/serial-till.md). No I/O.

    STX  sequence(1)  length(2, big endian)  JSON  CRC-16(2, big endian)  ETX
    ACK sequence     NAK sequence

The CRC is CRC-16/CCITT-FALSE over sequence, length and JSON.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

STX, ETX, ACK, NAK = 0x02, 0x03, 0x06, 0x15
LENGTH_MAX = 60_000
_HEAD, _TAIL = 4, 3


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame, its CRC right."""

    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    sequence: int


@dataclass(frozen=True, slots=True)
class Refused:
    sequence: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A frame whose CRC or end is wrong; its sequence number as it was read."""

    sequence: int


Piece = Frame | Acknowledged | Refused | Broken


def encode(sequence: int, body: bytes) -> bytes:
    """ValueError for a body that is too long."""
    if len(body) > LENGTH_MAX:
        raise ValueError("the message is too long for a frame")
    covered = bytes([sequence & 0xFF]) + len(body).to_bytes(2, "big") + body
    return bytes([STX]) + covered + crc(covered) + bytes([ETX])


def crc(covered: bytes) -> bytes:
    return binascii.crc_hqx(covered, 0xFFFF).to_bytes(2, "big")


def ack(sequence: int) -> bytes:
    return bytes([ACK, sequence & 0xFF])


def nak(sequence: int) -> bytes:
    return bytes([NAK, sequence & 0xFF])


class Decoder:
    """Bytes in, in whatever pieces; noise between frames is skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def forget(self) -> None:
        """The line was silent in mid-frame: what is here is the rest of a broken one."""
        self._buffer.clear()

    @property
    def in_frame(self) -> bool:
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Piece]:
        self._buffer += data
        found: list[Piece] = []
        while (piece := self._next()) is not None:
            found.append(piece)
        return found

    def _next(self) -> Piece | None:
        buffer = self._buffer
        while buffer and buffer[0] not in (STX, ACK, NAK):
            del buffer[0]
        if len(buffer) < 2:
            return None
        sequence = buffer[1]
        if buffer[0] in (ACK, NAK):
            kind = buffer[0]
            del buffer[:2]
            return Acknowledged(sequence) if kind == ACK else Refused(sequence)
        if len(buffer) < _HEAD:
            return None
        length = int.from_bytes(buffer[2:4], "big")
        if length > LENGTH_MAX:
            # Noise that looks like a beginning; the next STX may be a real one.
            del buffer[0]
            return Broken(sequence)
        end = _HEAD + length + _TAIL
        if len(buffer) < end:
            return None
        covered = bytes(buffer[1 : _HEAD + length])
        whole = bytes(buffer[_HEAD + length : end - 1]) == crc(covered) and buffer[end - 1] == ETX
        if whole:
            del buffer[:end]
            return Frame(sequence, covered[3:])
        # A wrong length may have swallowed a good frame, so only the STX is given up.
        del buffer[0]
        return Broken(sequence)
