"""One simulated day of a shop that is paid by M-Pesa: tills, customers, Daraja, relay, deaths.

python -m tests.sim.run --payments --seeds 1000        # or one seed with its trace: --seed 7 --trace
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.ids import token_hash
from tests.sim.daraja import SimDaraja
from tests.sim.paying_gateway import PayingGateway
from tests.sim.run import Outcome, _abandon
from tests.sim.shillings import check_shillings
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, VirtualLoop, World

# Virtual seconds: a storm of so long, then quiet for reconciliation and M-Pesa's own list.
STORM_S = 1500.0
TILL_S = 2 * 3600.0
QUIET_S = 3 * 3600.0

MakePaying = Callable[[Life, Disk, SimUnit, SimDaraja], PayingGateway]


@dataclass(slots=True)
class Basket:
    """What one customer buys, and how the till means to be paid."""

    till: str
    ref: str
    shillings: int
    phone: str
    how: str  # push, checkout, split, cash later
    patience_s: float
    heard: list[tuple[int, bytes]] = field(default_factory=list)
    done: bool = False
    asked: int = 0


@dataclass(slots=True)
class Counter:
    """The state of one run."""

    world: World
    disk: Disk
    unit: SimUnit
    daraja: SimDaraja
    make: MakePaying
    crashes: list[int]
    baskets: list[Basket] = field(default_factory=list)
    life: Life | None = None
    system: PayingGateway | None = None
    lives: int = 0

    async def power(self) -> None:
        """The machine: starts the process, and again whenever it has died."""
        world = self.world
        while True:
            self.lives += 1
            world.dies_at = self.crashes.pop(0) if self.crashes and not world.quiet else None
            life = self.life = Life(world, self.lives)
            world.trace(f"life {life.number} starts, dies at {world.dies_at}")
            try:
                self.system = self.make(life, self.disk, self.unit, self.daraja)
                process = asyncio.ensure_future(self.system.run())
                dead = asyncio.ensure_future(life.ended.wait())
                await asyncio.wait({process, dead}, return_when=asyncio.FIRST_COMPLETED)
                if process.done() and not dead.done():
                    error = process.exception()
                    world.trace(f"life {life.number} ends by itself: {error!r}")
                    if not _the_stores(error):
                        world.problems.append(f"a part died: {error!r}")
                    life.alive = False
            finally:
                self.system = None
            self.disk.crash(power=world.chance.random() < 0.5)
            await asyncio.sleep(world.chance.choice((0.5, 5, 60)))

    def row_of(self, token: str) -> tuple[str, tuple[str, str], str] | None:
        """What the store holds of a push with this token; durable, or the process may yet forget it."""
        writer = self.disk._writer
        if writer is None:
            return None
        row = writer._conn.execute(
            "SELECT id, till_id, sale_ref, money FROM payment WHERE token_hash = ?",
            (token_hash(token),),
        ).fetchone()
        return None if row is None else (row[0], (row[1], row[2]), row[3])
