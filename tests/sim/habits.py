"""What some control units do that others do not, and what else may sign with them: decided by the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Habits:
    """One unit's ways. Dice of their own: a seed's other events stay what they were without them."""

    # How a repeated number is answered: a duplicate code, the stored receipt, a refusal of the bytes, or a second
    # signature (always, or when the first sending was still at work when the second one arrived).
    guard: str = "code"
    # How often an answer carries the receipt of the sale before it.
    echo: float = 0.0
    # How often the unit reports trouble on its path to KRA, before or after it has signed.
    link: float = 0.0
    # How often an external unit is started again; it forgets what it had only accepted.
    restarts: float = 0.0
    # Sales of its own that something else signs with this unit, and whether they look like the shop's.
    beside: int = 0
    alike: bool = False
    # Whether the receipt counter can be read.
    counts: bool = False
    first_number: int = 1

    @property
    def resend(self) -> bool:
        """What `pos-gateway unit-test` finds of this build."""
        return self.guard not in ("again", "racy")


def of(seed: int) -> Habits:
    """Return the ways of the unit of this seed; most of the first 1,000 seeds have none."""
    dice = random.Random(f"habits {seed}")
    if dice.random() < 0.4:
        return Habits(counts=dice.random() < 0.3)
    guard = dice.choice(("code", "code", "replay", "bytes", "again", "racy"))
    return Habits(
        guard=guard,
        echo=dice.choice((0.0, 0.0, 0.0, 0.1)),
        link=dice.choice((0.0, 0.0, 0.2)),
        restarts=dice.choice((0.0, 0.0, 0.2)),
        # A unit that repeats stored answers hands out another writer's receipt, and nothing shows it (A2).
        beside=dice.choice((0, 0, 0, 0, 1, 2)) if guard != "replay" else 0,
        alike=dice.random() < 0.5,
        counts=dice.random() < 0.3,
        first_number=dice.choice((1, 1, 1, 2**31 - 2, 2**53 - 2)),
    )
