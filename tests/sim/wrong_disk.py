"""Mistakes a gateway can make with a disk that fails, forgets or lies, and with clocks: one for each new fault of the
simulation. Never used for anything else."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.continuity import monitor
from gateway.domain import ceiling
from gateway.domain.ceiling import Checkpoint, ClockReading
from gateway.errors import StoreError
from gateway.fiscal.intake import Intake
from gateway.store import database, witness_start
from gateway.store.database import Database
from gateway.store.sqlite_errors import name_of
from gateway.store.witness import StoreConnection, Witness
from tests.sim import disk_faults, habits, pages, rot
from tests.sim.disk_faults import BEGIN, BUSY, COMMIT, SYNC
from tests.sim.gateway import RealGateway
from tests.sim.habits import Habits
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, World

Patch = Callable[[pytest.MonkeyPatch], type[RealGateway]]


def _faults(patch: pytest.MonkeyPatch, *cases: tuple[str, str], often: float = 0.03) -> None:
    """Let these faults happen every day, and often."""
    patch.setattr(disk_faults, "DAYS", 1.0)
    patch.setattr(disk_faults, "BEGINS", often)
    patch.setattr(disk_faults, "CASES", cases)


def _clock_only(world: World) -> disk_faults.Faults:
    dice = random.Random(f"clock {world.seed}")
    return disk_faults.Faults(world, dice, disk=False, clock=True)


def unsynced(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """No commit is synced."""
    patch.setattr(Database, "write", Database.write_soft)
    return RealGateway


def never_syncs(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """Neither commits nor checkpoints are synced: faster, and a power cut leaves pages of two times."""
    patch.setattr(pages, "DAYS", 1.0)

    def run(self: Any, conn: sqlite3.Connection, fn: Any, soft: bool) -> Any:
        conn.execute("PRAGMA synchronous = OFF")
        return self._in_transaction(conn, fn, soft)

    patch.setattr(Database, "_run", run)
    return RealGateway


def not_written(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A commit that fails has written nothing, and the process goes on."""
    _faults(patch, (SYNC, COMMIT))
    translated = Database._translated

    def believes(self: Database, error: sqlite3.Error) -> Exception:
        if name_of(error).startswith("SQLITE_IOERR"):
            return StoreError("The disk failed while writing.")
        return translated(self, error)

    patch.setattr(Database, "_translated", believes)
    return RealGateway


def tries_again(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A commit that fails is made once more, and the second sync is believed."""
    not_written(patch)
    write = Database.write

    async def twice(self: Database, fn: Callable[[sqlite3.Connection], Any]) -> Any:
        try:
            return await write(self, fn)
        except StoreError:
            return await write(self, fn)

    patch.setattr(Database, "write", twice)
    return RealGateway


def busy_is_fine(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A lock at COMMIT is not looked at: the transaction is taken for committed, and is undone."""
    _faults(patch, (BUSY, COMMIT))

    @contextmanager
    def transaction(conn: sqlite3.Connection) -> Iterator[None]:
        conn.execute("BEGIN IMMEDIATE")
        try:
            yield
            conn.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if name_of(error) != BUSY:
                raise
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")

    patch.setattr(database, "transaction", transaction)
    return RealGateway


def unclaimed(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A sale without a key that cannot be claimed just now is not signed."""
    _faults(patch, (BUSY, BEGIN), often=0.01)

    async def nothing(self: Intake, *_: Any) -> None:
        return None

    patch.setattr(Intake, "_marked", nothing)
    return RealGateway


def wall_clock(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """The ceiling is counted by a clock that anybody can set."""
    patch.setattr(disk_faults, "BEGINS", 0.1)
    patch.setattr(disk_faults, "STEPS", (-300,))
    patch.setattr(disk_faults, "of", _clock_only)
    advance = ceiling.advance

    def by_wall(at: Checkpoint, now: ClockReading) -> Checkpoint:
        then = advance(at, now)
        by_us = now.wall_us - at.reading.wall_us
        age_us, unsent_us = at.contact_age_us, at.unsent_age_us
        return replace(
            then,
            contact_age_us=None if age_us is None else max(0, age_us + by_us),
            unsent_age_us=None if unsent_us is None else max(0, unsent_us + by_us),
        )

    patch.setattr(monitor, "advance", by_wall)
    for check in ("clock_is_behind", "clock_is_apart"):
        patch.setattr(ceiling, check, lambda *_: False)

    class Gateway(RealGateway):
        def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit) -> None:
            sim_unit.ceiling_s = 400
            super().__init__(life, disk, sim_unit)

    return Gateway


def unnoticed(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """A store that has lost its newest part at the start is taken as it is, and the witness with it."""
    patch.setattr(rot, "DAYS", 1.0)
    patch.setattr(rot, "FLIPS", ("flip frame", "cut wal", "no wal"))

    def adopts(conn: StoreConnection, beside: Witness, *_: Any) -> None:
        witness_start.adopt(conn, beside)

    patch.setattr(witness_start, "_ahead", adopts)
    patch.setattr(habits, "of", lambda seed: Habits(guard="again"))

    class Gateway(RealGateway):
        def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit) -> None:
            sim_unit.read_back = False
            super().__init__(life, disk, sim_unit)

    return Gateway


# With what the simulation says of it, and the first of 200 days on which it is looked for.
WRONG: dict[Patch, tuple[str, int]] = {
    unsynced: ("is answered before that is on the disk", 40),
    never_syncs: ("a whole store is refused", 40),
    not_written: ("is answered before that is on the disk", 45),
    tries_again: ("is answered before that is on the disk", 41),
    busy_is_fine: ("damage is seen: The store's commit count", 40),
    unclaimed: ("is signed, and hears that it is not", 42),
    wall_clock: ("a sale was sent at", 62),
    unnoticed: ("was told that it is not signed, and then was", 70),
}
