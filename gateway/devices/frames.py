"""Frames of the serial till's protocol (docs/reference/serial-till.md). No I/O.

    STX  sequence(1)  length(2, big endian)  JSON  CRC-16(2, big endian)  ETX
    ACK  sequence  255-sequence              NAK  sequence  255-sequence

The CRC is CRC-16/CCITT-FALSE over sequence, length and JSON. JSON has no bytes below 0x20 but white
space, so none of the four marks can stand in it.
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass

STX, ETX, ACK, NAK = 0x02, 0x03, 0x06, 0x15
# What the two bytes of the length can say; what a till may ask is less (counter/serial_till.py).
LENGTH_MAX = 0xFFFF
_HEAD, _TAIL, _SHORT = 4, 3, 3


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
    return bytes([ACK, sequence & 0xFF, ~sequence & 0xFF])


def nak(sequence: int) -> bytes:
    return bytes([NAK, sequence & 0xFF, ~sequence & 0xFF])


class Decoder:
    """Bytes in, in whatever pieces; noise between frames is skipped."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def forget(self) -> None:
        """The line is a new one: nothing of the old one will come to its end."""
        self._buffer.clear()

    @property
    def in_frame(self) -> bool:
        return bool(self._buffer)

    def gap(self) -> list[Piece]:
        """The line was silent in mid-frame: that frame will not come to its end. What is whole in it
        (noise may have looked like a beginning) is found all the same."""
        found: list[Piece] = []
        while self._buffer:
            del self._buffer[0]
            while (piece := self._next()) is not None:
                if not isinstance(piece, Broken):
                    found.append(piece)
        return found

    def feed(self, data: bytes) -> list[Piece]:
        self._buffer += data
        found: list[Piece] = []
        while (piece := self._next()) is not None:
            found.append(piece)
        return found

    def _next(self) -> Piece | None:
        buffer = self._buffer
        while buffer:
            if buffer[0] == STX:
                return self._frame()
            if buffer[0] not in (ACK, NAK):
                del buffer[0]
            elif len(buffer) < _SHORT:
                return None
            elif buffer[1] ^ buffer[2] != 0xFF:
                del buffer[0]
            else:
                kind, sequence = buffer[0], buffer[1]
                del buffer[:_SHORT]
                return Acknowledged(sequence) if kind == ACK else Refused(sequence)
        return None

    def _frame(self) -> Piece | None:
        buffer = self._buffer
        if len(buffer) < _HEAD:
            return None
        length = int.from_bytes(buffer[2:4], "big")
        end = _HEAD + length + _TAIL
        if buffer.find(STX, _HEAD, _HEAD + length) >= 0:
            # JSON has no such byte: another frame has begun, and this one will not come to its end.
            return self._broken()
        if len(buffer) < end:
            return None
        covered = bytes(buffer[1 : _HEAD + length])
        if bytes(buffer[_HEAD + length : end - 1]) == crc(covered) and buffer[end - 1] == ETX:
            del buffer[:end]
            return Frame(covered[0], covered[3:])
        return self._broken()

    def _broken(self) -> Broken:
        """A wrong length may have swallowed a good frame, so only the STX is given up."""
        sequence = self._buffer[1]
        del self._buffer[0]
        return Broken(sequence)
