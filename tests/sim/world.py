"""Virtual time, a disk that remembers what was synced, and a clock: the ground the simulation stands on.

One seed drives everything. A process that dies stops at its next await for ever; of its writes only
what reached the disk is there for the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from gateway.store import damage, meta, start, verify, witness, witness_start
from gateway.store.database import FILE_NAME, Database, _prepare_reader, _prepare_writer
from tests.sim import borders, disk_faults, pages
from tests.sim.connection import InlineConnection
from tests.sim.pages import Files, Pages
from tests.sim.rot import Rot, looked_at


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer when nothing else can run; nothing ever waits for real."""

    virtual_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        # No socket and no thread is a part of a day: there is never anything to be selected.
        self._selector.select = lambda timeout=None: []  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.virtual_s

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            if not self._scheduled:  # type: ignore[attr-defined]
                raise AssertionError("the simulation stands still: nobody waits for time")
            self.virtual_s = max(self.virtual_s, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Life:
    """One process from its start to its death. `steps` counts the points at which it can die."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.alive = True
        self.steps = 0
        self.ended = asyncio.Event()

    async def point(self) -> None:
        """A moment at which time may pass, others may run, and the process may die."""
        await asyncio.sleep(self.world.delay())
        if not self.alive:
            await never()
        self.steps += 1
        if self.steps == self.world.dies_at:
            self.die()
            await never()

    def die(self) -> None:
        self.alive = False
        self.world.trace(f"life {self.number} dies at step {self.steps}")
        self.ended.set()


async def never() -> None:
    await asyncio.get_running_loop().create_future()


class World:
    """What is shared by all lives: chance, faults, the disk's place and the trace of what happened."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.start = borders.start_of(seed)
        self.directory = directory
        self.loop = asyncio.get_running_loop()
        self.quiet = False  # the end of a run: no more faults
        self.dies_at: int | None = None
        self.skew = timedelta()
        # Nobody has set the clock yet: true time and the gateway's are one.
        self.clock_right = True
        self.boot = 1
        self.boot_at_s = 0.0
        self.lines: list[str] = []
        self.problems: list[str] = []

    def trace(self, line: str) -> None:
        # The directory has another name each time.
        line = line.replace(str(self.directory), "")
        self.lines.append(f"{self.loop.time():.3f} {line}")

    def delay(self) -> float:
        """Mostly nothing, sometimes long enough for others to come first."""
        if self.chance.random() < 0.7:
            return 0.0
        return self.chance.choice((0.0005, 0.003, 0.02))

    def happens(self, probability: float) -> bool:
        return not self.quiet and self.chance.random() < probability

    def true_time(self) -> datetime:
        return self.start + timedelta(seconds=self.loop.time())

    def set_clock(self, step_s: float) -> None:
        # Linux sets no clock to before 1970.
        epoch = datetime.fromtimestamp(1, UTC)
        self.skew = max(self.skew + timedelta(seconds=step_s), epoch - self.true_time())
        self.clock_right = False
        self.trace(f"clock steps {step_s}")

    def weather_clears(self) -> None:
        """No new fault from here on, and the clock is set right."""
        self.quiet = True
        self.skew = timedelta()
        self.trace("quiet")

    def power_cut(self) -> None:
        """The machine was off; its boot time starts anew."""
        self.boot += 1
        self.boot_at_s = self.loop.time()


class SimClock:
    """`gateway.clock.Clock` for one life."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._world = life.world

    def now(self) -> datetime:
        return self._world.true_time() + self._world.skew

    def boottime_ns(self) -> int:
        return int((self._world.loop.time() - self._world.boot_at_s) * 1e9) + 5_000_000_000

    def boot_id(self) -> str:
        return f"boot-{self._world.boot}"

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self._life.alive:
            await never()


@cache
def _new_store() -> bytes:
    """A store in which nothing has happened yet; made once for all days."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / FILE_NAME
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
            _prepare_writer(conn, path, 1000)
        return path.read_bytes()


class Disk:
    """The store's files, and how far the WAL has been synced. SQLite's own recovery reads them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.directory = world.directory / "store-0"
        self.directory.mkdir(parents=True)
        (self.directory / FILE_NAME).write_bytes(_new_store())
        self.faults = disk_faults.of(world)
        if self.faults is not None:
            self.faults.store = self
        # On some days checkpoints happen, and a power cut leaves torn and reordered pages.
        self.pages: Pages | None = pages.of(world)
        self._generation = self._exchanged = 0
        self._synced = 0
        self._before = self._witness_before = 0
        self._writer: InlineConnection | None = None
        self._readers: list[InlineConnection] = []
        self.full_for = 0
        # Till receipt numbers of sales whose end is on the disk: what a till may be answered.
        self.durable: set[str] = set()
        # Whether this shop keeps copies of its store, and the one it has.
        self.copies = False
        # Where the unit cannot be asked only `restore` tells the gateway that its store is old.
        self.always_marked = True
        self._copy: Path | None = None
        # Whether this disk reports a sync before the data are durable, and whether that has cost it something.
        self.lies = False
        self.lied = self._has_lied = False
        # What this disk loses or changes while the machine is off.
        self.rot: Rot | None = None

    @property
    def _witness(self) -> Path:
        return self.directory / witness.FILE_NAME

    @property
    def _wal(self) -> Path:
        return self.directory / f"{FILE_NAME}-wal"

    def open(self, life: Life) -> Database:
        """The real `Database` on real files, with connections that run inline."""
        path = self.directory / FILE_NAME
        if self.faults is not None:
            self.faults.at_open(path)
        checked = start.noted(self.directory)
        self._writer = InlineConnection(life, path, self)
        _prepare_writer(self._writer._conn, path, 1000)
        # Where everything stays in the WAL, what was synced is a length.
        every = 0 if self.pages is None else self.pages.every
        self._writer._conn.execute(f"PRAGMA wal_autocheckpoint = {every}")
        self._synced = self._size()
        if self.rot is not None:
            beside = start.at_first(
                self._writer._conn, path, self.directory, checked=checked
            ).beside
        else:
            found = verify.at_start(self._writer._conn)
            if found is not None:
                self.world.problems.append(f"a whole store is taken for damaged: {found}")
            beside = witness_start.attach(self._writer._conn, self.directory)
        if checked:
            damage.clear(self.directory)
        self._synced = self._size()
        if self.pages is not None:
            self.pages.opened(*self.files())
        self.durable = self._ended()
        noticed = meta.get(self._writer._conn, meta.NOTICED)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(2):
            reader = InlineConnection(life, path, self, reads=True)
            _prepare_reader(reader._conn, 1000)
            reader._conn.witness = None if beside is None else beside.for_reader()
            self._readers.append(reader)
            queue.put_nowait(reader)
        self.db = Database(path, self._writer, queue, noticed=noticed, beside=beside)  # type: ignore[arg-type]
        return self.db

    def files(self) -> tuple[bytes, bytes]:
        """The main file and the WAL as a process that reads them finds them."""
        wal = self._wal.read_bytes() if self._wal.exists() else b""
        return (self.directory / FILE_NAME).read_bytes(), wal

    def exchange(self, main: bytes, wal: bytes) -> None:
        """Put other files in place of the open ones, under the connections of this life."""
        self._exchanged += 1
        target = self.world.directory / f"exchanged-{self._exchanged}"
        target.mkdir()
        (target / FILE_NAME).write_bytes(main)
        (target / f"{FILE_NAME}-wal").write_bytes(wal)
        for file in self.directory.glob(f"{witness.FILE_NAME}*"):
            # The open witness stays the same file.
            (target / file.name).hardlink_to(file)
        self.directory = target
        for connection in (self._writer, *self._readers):
            assert connection is not None
            connection.connect(target / FILE_NAME)
        self.db.path = target / FILE_NAME

    def before_write(self, writer: InlineConnection) -> None:
        conn = writer._conn
        if self.full_for > 0:
            self.full_for -= 1
            pages = conn.execute("PRAGMA page_count").fetchone()[0]
            conn.execute(f"PRAGMA max_page_count = {pages}")
            writer.limited = True
        else:
            if writer.limited:
                conn.execute("PRAGMA max_page_count = 1000000")
                writer.limited = False
            if self.world.happens(0.003):
                self.full_for = self.world.chance.randint(1, 15)
                self.world.trace("disk full")
        self._settle()

    def after_write(self, writer: InlineConnection) -> None:
        full = writer.full() and (self.faults is None or not self.faults.sync_failed)
        if full:
            self._synced = self._size()
            self.durable |= self._ended()
        if self.pages is not None:
            self.pages.wrote(*self.files(), full=full, syncs=writer.synchronous() > 0)

    def _ended(self) -> set[str]:
        assert self._writer is not None
        ended = "SELECT till_receipt_no FROM invoice WHERE state IN ('SIGNED', 'REJECTED')"
        try:
            return {row[0] for row in self._writer._conn.execute(ended)}
        except sqlite3.DatabaseError:
            if self.rot is None:
                raise
            return set()

    def told(self) -> None:
        """Somebody goes on from the last write: from here on it must survive."""
        self._settle()

    def _settle(self) -> None:
        self._before = self._synced
        if self.pages is not None:
            self.pages.settle()
        log = Path(f"{self._witness}-wal")
        self._witness_before = log.stat().st_size if log.exists() else 0

    def crash(self, *, power: bool) -> None:
        """Leave what the next process will find. Power: of what was not synced, any beginning; on some days any
        sectors."""
        if self.faults is not None:
            self.faults.leave_ghost(self._wal)
        size = self._size()
        kept = size
        if power:
            # The last write's fsync may itself have been cut short.
            low = self._before if self.world.chance.random() < 0.3 else self._synced
            kept = self.world.chance.randint(min(low, size), size)
            kept = self._after_lies(kept)
            self.world.power_cut()
        self._generation += 1
        target = self.world.directory / f"store-{self._generation}"
        target.mkdir()
        main, wal = self.files()
        wal, cut = wal[:kept], kept < self._synced
        if power and self.pages is not None:
            self.pages.wrote(main, self.files()[1], full=False, syncs=self.pages.syncs)
            found, cut = self.pages.after_power_cut()
            main, wal = found.main, found.wal
        if power and self.rot is not None:
            spoiled = self.rot.spoiled(Files(main, wal), self.pages)
            if spoiled is not None:
                main, wal = spoiled.main, spoiled.wal
                self.lied = self._has_lied = True
        (target / FILE_NAME).write_bytes(main)
        if wal:
            (target / f"{FILE_NAME}-wal").write_bytes(wal)
        self._keep_witness(target, power=power, cut=cut)
        if (self.directory / damage.FILE_NAME).exists():
            if self.rot is not None:
                shutil.copyfile(self.directory / damage.FILE_NAME, target / damage.FILE_NAME)
            else:
                self.world.problems.append(f"damage is seen: {damage.read(self.directory)}")
        self.world.trace(f"crash power={power} wal {size} synced {self._synced} kept {kept}")
        self.close()
        shutil.rmtree(self.directory)
        self.directory = target

    def _after_lies(self, kept: int) -> int:
        """What is left of a log whose newest part, synced as it was, never reached the disk."""
        # Dice of their own: days on honest disks stay the days that they were.
        chance = random.Random(f"{kept} {self._generation}")
        if not self.lies or self.pages or self.rot or self.world.quiet or chance.random() < 0.5:
            return kept
        less = chance.randint(kept * 6 // 10, kept)
        self.lied = self._has_lied = less < self._before
        return less

    def _keep_witness(self, target: Path, *, power: bool, cut: bool) -> None:
        """The witness is never synced: a power cut may take its newest part, or all of it. It outlives a lie. Of a write
        whose sync was `cut` short it knows nothing yet."""
        chance = random.Random(f"{self._generation} {self._witness.stat().st_size}")
        shutil.copyfile(self._witness, target / witness.FILE_NAME)
        log = Path(f"{self._witness}-wal").read_bytes()
        if cut and not self._has_lied:
            log = log[: self._witness_before]
        if power and not self._has_lied and chance.random() < 0.5:
            log = log[: chance.randint(0, len(log))]
        Path(f"{target / witness.FILE_NAME}-wal").write_bytes(log)

    def lost_something(self) -> bool:
        """After a crash: whether the disk has lied about what it had synced."""
        lost, self._has_lied = self._has_lied, False
        if lost:
            self.world.trace("the newest transactions are lost, synced as they were")
        return lost

    def puts_back(self) -> bool:
        """After a crash: whether somebody has put an older copy of the store in its place. Taken at one
        crash, put back at a later one; sometimes by `restore`, which says so in the store."""
        chance = self.world.chance
        if not self.copies or self.world.quiet:
            return False
        if self._copy is None:
            if chance.random() < 0.8:
                self._copy = self.world.directory / "copy"
                shutil.copytree(self.directory, self._copy)
                self.world.trace("a copy of the store is taken")
            return False
        if chance.random() < 0.4:
            return False
        shutil.rmtree(self.directory)
        self._copy.rename(self.directory)
        self._copy = None
        marked = self.always_marked or chance.random() < 0.5
        if marked:
            with self.look() as conn, conn:
                meta.put(conn, meta.RESTORED, "1")
        self.world.trace(f"an older copy of the store is put back, marked={marked}")
        return True

    @contextlib.contextmanager
    def look(self) -> Iterator[sqlite3.Connection]:
        """The store as it is at this moment: the open writer's, or the files of a machine that is off."""
        if self._writer is not None:
            yield self._writer._conn
            return
        if self.rot is not None:
            with looked_at(Files(*self.files())) as conn:
                yield conn
            return
        with contextlib.closing(sqlite3.connect(self.directory / FILE_NAME)) as conn:
            yield conn

    def close(self) -> None:
        for connection in (*self._readers, self._writer):
            if connection is not None:
                if connection._conn.witness is not None:
                    connection._conn.witness.close()
                for conn in (connection._conn, *connection.replaced):
                    conn.close()
        self._readers.clear()
        self._writer = None

    def _size(self) -> int:
        return self._wal.stat().st_size if self._wal.exists() else 0
