"""How much of a slip may be on its way to a printer that cannot hold the line. No I/O, no clock of its own.

A serial line without flow control loses what does not fit into the printer's buffer. So no more is sent than the
buffer holds beyond what is known to be worked off: known from the printer's answers where it answers, else
reckoned from the speed of its paper, which is then taken to be slow and its buffer to be small.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# A line of text at the usual spacing of 1/6 inch, in mm.
LINE_MM = 25.4 / 6
# A cut takes about this long, as mm of paper.
CUT_MM = 30.0
DOTS_PER_MM = 8


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that are sent at once, how much paper they move in mm, and whether a question ends them."""

    data: bytes
    mm: float = 0.0
    asks: bool = False


class Reckoning:
    """What a printer that cannot be asked has worked off by now, if it moves `speed_mm_s` and the line carries
    `bytes_s` (0: no limit). Times in seconds of one clock."""

    def __init__(self, speed_mm_s: float, bytes_s: float) -> None:
        self._speed = speed_mm_s
        self._bytes_s = bytes_s
        # (bytes, when they are worked off) of what is not.
        self._inside: deque[tuple[int, float]] = deque()
        self._bytes = 0
        # When the last byte is at the printer, and when it has worked it off.
        self._arrived_s = self._done_s = 0.0

    def sent(self, piece: Piece, now_s: float) -> None:
        size = len(piece.data)
        wire_s = size / self._bytes_s if self._bytes_s else 0.0
        self._arrived_s = max(self._arrived_s, now_s) + wire_s
        self._done_s = max(self._done_s, self._arrived_s) + piece.mm / self._speed
        self._inside.append((size, self._done_s))
        self._bytes += size

    def inside(self, now_s: float) -> int:
        """Return how many bytes are on the line or in the printer."""
        while self._inside and self._inside[0][1] <= now_s:
            self._bytes -= self._inside.popleft()[0]
        return self._bytes

    def wait_s(self, size: int, room: int, now_s: float) -> float:
        """Return how long to wait until `size` bytes fit into `room`; a piece that never fits goes alone."""
        over = self.inside(now_s) + size - room
        at_s = now_s
        for piece, done_s in self._inside:
            if over <= 0:
                break
            over -= piece
            at_s = done_s
        return max(0.0, at_s - now_s)

    def rest_s(self, now_s: float) -> float:
        """Return how long it works on what it was sent."""
        return max(0.0, self._done_s - now_s)


class Window:
    """What a printer that answers questions has not answered for: bytes after its last answer."""

    def __init__(self) -> None:
        self._sizes: deque[int] = deque()
        self._answered = 0
        self._bytes = 0
        self._open = 0

    def sent(self, piece: Piece) -> None:
        self._open += len(piece.data)
        self._bytes += len(piece.data)
        if piece.asks:
            self._sizes.append(self._open)
            self._open = 0

    def answered(self, count: int) -> None:
        """`count`: how many of this slip's questions are answered by now."""
        while self._answered < count and self._sizes:
            self._bytes -= self._sizes.popleft()
            self._answered += 1

    def full(self, size: int, room: int) -> bool:
        """Return whether `size` more bytes must wait for an answer; without an open question none is awaited."""
        return bool(self._sizes) and self._bytes + size > room
