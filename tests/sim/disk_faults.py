"""Disk faults inside a day: an input or output error, a lock of another program, a file system that became
read-only, no descriptor left; at BEGIN, at a statement and at COMMIT, for readers and at the start.

A lock and a read-only file are raised by SQLite itself. The other errors carry the code and the name that SQLite gives
them. After a failed sync the frames may be in the file all the same: the process that failed does not see them, the next
one may, and a later sync by the same process proves nothing (the kernel has dropped the pages that it could not write).
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.store.database import FILE_NAME
from gateway.store.sqlite_errors import at_start
from gateway.store.witness import StoreConnection

if TYPE_CHECKING:
    from tests.sim.connection import InlineConnection
    from tests.sim.world import Disk, World

# The share of days with such faults, and how often one begins at a transaction on such a day.
DAYS, BEGINS = 0.12, 0.01
READS, STARTS = 0.002, 0.1
SYNC, WRITE, READ = "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_READ"
BUSY, READONLY, CANTOPEN = "SQLITE_BUSY", "SQLITE_READONLY", "SQLITE_CANTOPEN"
BEGIN, STATEMENT, COMMIT = "BEGIN", "statement", "COMMIT"
CASES = (
    (SYNC, COMMIT), (SYNC, COMMIT), (SYNC, COMMIT), (WRITE, COMMIT), (READ, BEGIN), (READ, STATEMENT),
    (BUSY, BEGIN), (BUSY, COMMIT), (READONLY, BEGIN), (READONLY, STATEMENT),
    (CANTOPEN, BEGIN), (CANTOPEN, STATEMENT), (CANTOPEN, COMMIT),
)  # fmt: skip
_SAID = {
    SYNC: (1034, "disk I/O error"), WRITE: (778, "disk I/O error"), READ: (266, "disk I/O error"),
    BUSY: (5, "database is locked"), CANTOPEN: (14, "unable to open database file"),
}  # fmt: skip
# Clock steps in the middle of a transaction: over an hour, a day, a month and a year, into 1970 and past 2**31
# seconds.
STEPS = (-3600, 3600, 86_400, 32 * 86_400, 400 * 86_400, "1970", "2038")


def error(name: str) -> sqlite3.OperationalError:
    """Return the error as SQLite gives it."""
    code, text = _SAID[name]
    made = sqlite3.OperationalError(text)
    made.sqlite_errorcode, made.sqlite_errorname = code, name
    return made


def of(world: World) -> Faults | None:
    """Return the faults of this day, if it has any; most days have none and stay what they were."""
    dice = random.Random(f"disk {world.seed}")
    disk, clock = dice.random() < DAYS, dice.random() < DAYS
    return Faults(world, dice, disk=disk, clock=clock) if disk or clock else None


class FaultyConnection(StoreConnection):
    """The writer's or a reader's connection on a day with faults."""

    faults: Faults | None = None

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if self.faults is not None:
            self.faults.before(self, sql)
        return super().execute(sql, *values)


class Faults:
    """What goes wrong with the transactions of a day, and when."""

    def __init__(self, world: World, dice: random.Random, *, disk: bool, clock: bool) -> None:
        self._world = world
        self._dice = dice
        self._disk = disk
        self._clock = clock
        # The fault that goes on for a while: its name, its place, and until when.
        self._lasting: tuple[str, str, float] | None = None
        self._armed: tuple[str, str] | None = None
        self._steps_in: int | None = None
        self._countdown = 0
        # The log before and after a commit whose sync failed; the process that failed has the first one.
        self._ghost: tuple[bytes, bytes] | None = None
        # A sync failed in this process: no later one of it proves anything.
        self.sync_failed = False
        self.store: Disk

    # --- before and after a transaction ---------------------------------------------------------------

    def arm(self, conn: sqlite3.Connection) -> None:
        """Decide what happens to the next transaction of this connection."""
        world, dice = self._world, self._dice
        self._armed = self._steps_in = None
        self._countdown = dice.randint(1, 6)
        if not world.quiet and self._disk:
            if self._lasting is not None and world.loop.time() > self._lasting[2]:
                self._lasting = None
            if self._lasting is None and dice.random() < BEGINS:
                name, place = dice.choice(CASES)
                seconds = dice.choice((0.0, 0.0, 0.5, 20.0, 120.0))
                self._lasting = (name, place, world.loop.time() + seconds)
                world.trace(f"disk: {name} at {place} for {seconds} s")
            if self._lasting is not None:
                self._armed = self._lasting[:2]
        if not world.quiet and self._clock and dice.random() < BEGINS:
            self._steps_in = dice.randint(1, 6)
        if isinstance(conn, FaultyConnection):
            conn.faults = self if self._armed or self._steps_in else None

    def arm_reader(self, conn: sqlite3.Connection) -> None:
        """Decide what happens to the next reading transaction."""
        self._armed = self._steps_in = None
        assert isinstance(conn, FaultyConnection)
        conn.faults = None
        if self._disk and not self._world.quiet and self._dice.random() < READS:
            self._countdown = 1
            name = self._dice.choice((READ, READ, BUSY, CANTOPEN))
            self._armed = (name, self._dice.choice((BEGIN, STATEMENT)))
            conn.faults = self
            self._world.trace(f"disk: {name} for a reader at {self._armed[1]}")

    def disarm(self, conn: sqlite3.Connection) -> None:
        """End what was armed for one transaction."""
        self._armed = self._steps_in = None
        if isinstance(conn, FaultyConnection):
            conn.faults = None

    def at_open(self, path: Path) -> None:
        """Raise as a start does that the disk does not let through, now and then."""
        self._ghost, self.sync_failed, self._lasting = None, False, None
        if self._disk and not self._world.quiet and self._dice.random() < STARTS:
            name = self._dice.choice((READ, BUSY, CANTOPEN))
            self._world.trace(f"disk: {name} at the start")
            raise at_start(error(name), path)

    # --- inside a transaction ---------------------------------------------------------------------------

    def before(self, conn: FaultyConnection, sql: str) -> None:
        """Raise what is armed for this statement."""
        if sql.startswith(("PRAGMA", "ROLLBACK")):
            return
        place = sql.split(maxsplit=1)[0] if sql.startswith(("BEGIN", "COMMIT")) else STATEMENT
        if place is STATEMENT:
            self._countdown -= 1
        self._step(place)
        if self._armed is None or self._armed[1] != place:
            return
        if place is STATEMENT and self._countdown > 0:
            return
        name = self._armed[0]
        self.disarm(conn)
        if name == SYNC and conn.execute("PRAGMA synchronous").fetchone()[0] != 2:
            # A soft commit syncs nothing.
            name = WRITE
        if name == BUSY and place == BEGIN and sql == "BEGIN IMMEDIATE":
            self._locked(conn, sql)
        elif name == READONLY:
            self._read_only(conn, sql)
        elif name in (SYNC, WRITE):
            self._commit_fails(conn, name)
        raise error(name)

    def _step(self, place: str) -> None:
        """Set the clock between BEGIN and COMMIT."""
        if self._steps_in is None or place == BEGIN:
            return
        self._steps_in -= 1
        if self._steps_in > 0 and place != COMMIT:
            return
        self._steps_in = None
        step = self._dice.choice(STEPS)
        if isinstance(step, str):
            now = (self._world.true_time() + self._world.skew).timestamp()
            step = (5.0 if step == "1970" else 2**31 - 0.5) - now
        self._world.set_clock(step)

    def _locked(self, conn: FaultyConnection, sql: str) -> None:
        """Let another program hold the write lock."""
        path = self.store.directory / FILE_NAME
        waited = conn.execute("PRAGMA busy_timeout").fetchone()[0]
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            conn.execute("PRAGMA busy_timeout = 0")
            try:
                conn.execute(sql)
            finally:
                conn.execute(f"PRAGMA busy_timeout = {waited}")

    def _read_only(self, conn: FaultyConnection, sql: str) -> None:
        conn.execute("PRAGMA query_only = 1")
        try:
            # A statement that only reads is let through.
            conn.execute(sql if sql.startswith("BEGIN") else "UPDATE meta SET value = value")
        finally:
            conn.execute("PRAGMA query_only = 0")

    def _commit_fails(self, conn: FaultyConnection, name: str) -> None:
        """Leave in the file what a commit leaves there whose write or sync fails, and go on with the store of before."""
        before = self.store.files()
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        conn.execute("COMMIT")
        log = self.store.files()[1]
        if name == WRITE:
            log = log[: self._dice.randint(len(before[1]), max(len(before[1]), len(log) - 1))]
        self.store.exchange(*before)
        self._ghost = (self.store.files()[1], log)
        self.sync_failed = True
        raise error(name)

    def leave_ghost(self, wal: Path) -> None:
        """Put the frames of the failed commit into the file, where nothing was written since. Called when the process
        has ended."""
        if self._ghost is None:
            return
        before, after = self._ghost
        now = wal.read_bytes() if wal.exists() else b""
        if now == before:
            wal.write_bytes(after)
            self._world.trace(f"the log of the failed commit is there: {len(before)} {len(after)}")
        self._ghost = None


@contextlib.contextmanager
def armed(faults: Faults | None, connection: InlineConnection, *, reads: bool) -> Iterator[None]:
    """Let `faults` act on one transaction."""
    if faults is None:
        yield
        return
    conn = connection._conn
    (faults.arm_reader if reads else faults.arm)(conn)
    try:
        yield
    finally:
        faults.disarm(conn)
