"""Moments at which days of the simulation begin, and how full they are: decided by the seed."""

from __future__ import annotations

import random
from datetime import UTC, datetime

# Some days begin a minute before Nairobi's midnight, so that a close is written in the storm.
START = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
LATE = datetime(2026, 11, 23, 20, 59, tzinfo=UTC)
# Ends of a year, a month and February in Nairobi and in UTC, and 2**31 seconds.
BORDERS = (
    datetime(2026, 12, 31, 20, 59, tzinfo=UTC),
    datetime(2026, 12, 31, 23, 59, tzinfo=UTC),
    datetime(2027, 1, 31, 20, 58, tzinfo=UTC),
    datetime(2028, 2, 28, 20, 59, tzinfo=UTC),
    datetime(2028, 2, 29, 20, 59, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 13, tzinfo=UTC),
)
BORDER_DAYS, FULL_DAYS = 0.15, 0.03
# Receipts that the unit had given before this shop.
COUNTED = (0, 0, 2**31 - 3, 2**53 - 3)


def start_of(seed: int) -> datetime:
    """Return when the day of this seed begins, in true time."""
    dice = random.Random(f"border {seed}")
    if dice.random() < BORDER_DAYS:
        return dice.choice(BORDERS)
    return LATE if seed % 4 == 3 else START


def more_sales(seed: int) -> int:
    """Return how many sales more than usual each till has on this day."""
    dice = random.Random(f"full {seed}")
    return dice.randint(8, 15) if dice.random() < FULL_DAYS else 0
