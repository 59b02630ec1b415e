"""Mistakes a gateway can make with a disk that fails, forgets or lies, and with clocks: one for each new fault of the
simulation. Never used for anything else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from gateway.continuity import monitor
from gateway.domain import ceiling
from gateway.domain.ceiling import Checkpoint, ClockReading
from gateway.errors import ClockFault, StoreError
from gateway.fiscal.intake import Intake
from gateway.store import database, witness_start
from gateway.store.database import Database
from gateway.store.sqlite_errors import name_of
from tests.sim import disk_faults, pages, rot
from tests.sim.disk_faults import BEGIN, BUSY, COMMIT, SYNC
from tests.sim.gateway import RealGateway
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life

Patch = Callable[[pytest.MonkeyPatch], type[RealGateway]]


def _faults(patch: pytest.MonkeyPatch, *cases: tuple[str, str], often: float = 0.03) -> None:
    """Let these faults happen every day, and often."""
    patch.setattr(disk_faults, "DAYS", 1.0)
    patch.setattr(disk_faults, "BEGINS", often)
    patch.setattr(disk_faults, "CASES", cases)


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


def hold_hides_clock(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """While signing is held nobody looks whether the clock is right, and earlier sales look old."""
    patch.setattr(disk_faults, "DAYS", 1.0)
    patch.setattr(disk_faults, "CASES", ((BUSY, BEGIN),))
    patch.setattr(disk_faults, "STEPS", (400 * 86_400, -400 * 86_400))
    refusal = Intake._refusal

    def of_clock(self: Intake) -> Any:
        found = refusal(self)
        return found if isinstance(found, ClockFault) else None

    patch.setattr(Intake, "_refusal", of_clock)

    class Gateway(RealGateway):
        def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit) -> None:
            disk.copies = True
            super().__init__(life, disk, sim_unit)

    return Gateway


def wall_clock(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """The ceiling is counted by a clock that anybody can set."""
    patch.setattr(disk_faults, "DAYS", 1.0)
    patch.setattr(disk_faults, "CASES", ((BUSY, BEGIN),))
    patch.setattr(disk_faults, "STEPS", (-120, -3600, 120))
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


def unwitnessed(patch: pytest.MonkeyPatch) -> type[RealGateway]:
    """Beside the store nothing remembers what it had."""
    patch.setattr(rot, "DAYS", 1.0)
    patch.setattr(rot, "FLIPS", ("flip frame", "cut wal", "no wal"))
    patch.setattr(witness_start, "attach", lambda *_, **__: None)
    return RealGateway


# With what the simulation says of it.
WRONG: dict[Patch, str] = {
    unsynced: "is answered before that is on the disk",
    never_syncs: "",
    not_written: "",
    tries_again: "is answered before that is on the disk",
    busy_is_fine: "is answered before that is on the disk",
    unclaimed: "is signed, and hears that it is not",
    hold_hides_clock: "",
    wall_clock: "a sale was sent at",
    unwitnessed: "",
}
