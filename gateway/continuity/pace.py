"""How fast things go: receipts today, so that "hours left" is also "receipts left"; records to the cloud."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from gateway.clock import EAT, from_micros, micros

HOUR_US = 3_600_000_000
# With less than this behind it, a rate says nothing. Microseconds.
ENOUGH_US = 600_000_000


def day_start(now: datetime) -> datetime:
    """Midnight in Nairobi before `now`."""
    return now.astimezone(EAT).replace(hour=0, minute=0, second=0, microsecond=0)


@dataclass(slots=True)
class Pace:
    """Today's receipts: when the first was signed (microseconds UTC) and how many since."""

    first_us: int | None = None
    count: int = 0

    def signed(self, at_us: int) -> None:
        today = micros(day_start(from_micros(at_us)))
        if self.first_us is None or self.first_us < today:
            self.first_us, self.count = at_us, 0
        self.count += 1

    def left(self, now_us: int, left_us: int | None) -> int | None:
        """Receipts at today's rate in the time that is left; None while no rate can be said."""
        if left_us is None or self.first_us is None or now_us - self.first_us < ENOUGH_US:
            return None
        return self.count * left_us // (now_us - self.first_us)


# The flow to the cloud is what moved within so long; older news says nothing of the link. Nanoseconds.
FLOW_NS = 60_000_000_000
_SECOND_NS = 1_000_000_000


@dataclass(slots=True)
class Flow:
    """How many records moved in the last minute; at most one entry a second is kept."""

    _moves: deque[tuple[int, int]] = field(default_factory=deque)

    def moved(self, now_ns: int, count: int) -> None:
        self._forget(now_ns)
        second = now_ns // _SECOND_NS
        if self._moves and self._moves[-1][0] // _SECOND_NS == second:
            at, before = self._moves.pop()
            self._moves.append((at, before + count))
        else:
            self._moves.append((now_ns, count))

    def per_minute(self, now_ns: int) -> int | None:
        """Records a minute; None when nothing moved in the last one."""
        self._forget(now_ns)
        if not self._moves:
            return None
        span_ns = max(_SECOND_NS, now_ns - self._moves[0][0])
        return sum(count for _, count in self._moves) * 60 * _SECOND_NS // span_ns

    def _forget(self, now_ns: int) -> None:
        while self._moves and self._moves[0][0] <= now_ns - FLOW_NS:
            self._moves.popleft()
