"""How fast the shop sells today, so that "hours left" can also be said as "receipts left"."""

from __future__ import annotations

from dataclasses import dataclass
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
