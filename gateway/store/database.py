"""The store's one writer and its readers: `await db.write(fn)` and `await db.read(fn)`.

A transaction is one synchronous function `fn(conn)`, run whole on the writer's own thread, so that
two coroutines can never interleave inside one (with awaits between statements they do, and a plain
INSERT then vanishes with a stranger's ROLLBACK).

Durability is chosen per transaction. `write` returns after an fsync of the WAL. `write_soft`
commits without one: atomic and visible at once, kept by a crash of the process, and made durable by
the next `write`, whose fsync covers everything before it. Only facts that nobody has been told yet
may be soft; this is what lets a sale under load cost one fsync.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import quote

import aiosqlite

from gateway.errors import DiskFull, StoreBusy, StoreCorrupt, StoreError
from gateway.store import causes, damage, migrate, start, witness, witness_start
from gateway.store.ballast import Ballast
from gateway.store.causes import FULL
from gateway.store.sqlite_errors import (
    LOCKED,
    at_start,
    corrupt,
    is_damage,
    is_full,
    name_of,
    unread,
)
from gateway.store.witness import LostKey, StoreConnection, Witness

log = logging.getLogger(__name__)
T = TypeVar("T")
# What callers outside this package hold of a connection without knowing the library.
Connection = aiosqlite.Connection

FILE_NAME = "gateway.db"
# Lies there while a backup is being put back (restore.py).
UNFINISHED = "restore.unfinished"
# Readers give up after this many SQLite VM instructions x1000: a page must never hold a snapshot
# for long, or the WAL could not be checkpointed.
READ_PROGRESS_LIMIT = 20_000
# What a transaction waits out instead of raising it. A loop of the daemon has nobody to tell; a till has, and is told.
waits_out: ContextVar[tuple[type[StoreError], ...]] = ContextVar("waits_out", default=())
# Then it is tried again after this long. Seconds.
WAIT_S = 1.0


class Database:
    """The open store. Made by `open_database`; nobody else ever holds its connections."""

    def __init__(
        self,
        path: Path,
        writer: aiosqlite.Connection,
        readers: asyncio.Queue[aiosqlite.Connection],
        ballast: Ballast | None = None,
        *,
        was_running: bool = False,
        noticed: str | None = None,
        beside: Witness | None = None,
    ) -> None:
        self.path = path
        self._writer = writer
        self._readers = readers
        self.ballast = ballast
        # Whether the process before this one ended without a stop.
        self.was_running = was_running
        # How it was noticed at this start that the newest transactions are lost.
        self.noticed = noticed
        # Its state is only looked at here; it belongs to the writer's thread.
        self.witness = beside
        self._soft = False
        # The commit count after the last durable transaction.
        self._count: int | None = None
        # Why the store cannot be written just now, while another program has locked it.
        self.locked: str | None = None
        # Commits that waited for an fsync of the WAL; `make bench` divides it by sales.
        self.durable_commits = 0
        # Set when an fsync failed. What SQLite believes is then not what the disk holds, and a
        # second fsync would lie; signing stops until a restart has looked at the file afresh.
        self.broken: str | None = None
        self._failed = asyncio.Event()
        self._changed = asyncio.Event()

    async def changed(self) -> None:
        """Wait for the next transaction to be committed; what the event streams wake on."""
        await self._changed.wait()

    async def failed(self) -> None:
        """Wait for the store to fail for good, and raise it: the process must end, only the next one may
        look at the file."""
        await self._failed.wait()
        raise StoreError(f"The store failed and needs a restart: {self.broken}")

    async def write(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` in one transaction; back only when it is on the disk.

        StoreError when the store cannot be written (DiskFull, StoreCorrupt); then nothing of `fn`
        remains. Cancelled while waiting: unknown, read again by key.
        """
        return await self._transact(fn, soft=False)

    async def write_soft(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Like `write`, without waiting for the disk (see the module's text for when)."""
        return await self._transact(fn, soft=True)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` on a read-only connection; sees everything committed before the call."""
        reader = await self._readers.get()
        try:
            try:
                return await run_on(reader, lambda conn: _read(conn, fn))
            except LostKey:
                # The witness may have been newer than this snapshot; it is not newer than the next one.
                return await run_on(reader, lambda conn: _read(conn, fn))
        except StoreCorrupt as error:
            raise self.report_damage(error.detail) from error
        except UnicodeDecodeError as error:
            raise self.report_damage(str(error)) from error
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise self._translated(error) from error
            refused = unread(error)
            if refused is None:
                raise
            raise refused from error
        finally:
            self._readers.put_nowait(reader)
            self._tell()

    async def _transact(self, fn: Callable[[sqlite3.Connection], T], *, soft: bool) -> T:
        while True:
            if self.broken is not None:
                raise StoreError(f"The store failed and needs a restart: {self.broken}")
            try:
                result = await run_on(self._writer, lambda conn: self._run(conn, fn, soft))
                break
            except waits_out.get() as error:
                log.warning("store.waits reason=%s", error.detail)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._failed.wait(), WAIT_S)
            finally:
                self._tell()
        # Everybody waiting now is woken; who comes later waits for the next one.
        self._changed.set()
        self._changed = asyncio.Event()
        return result

    def report_damage(self, reason: str) -> StoreCorrupt:
        """Stop everything because the store is damaged, and leave a note for the next start; return the error to
        raise. Called on the store's threads and on the loop."""
        if self.broken is None:
            self.broken = reason
            log.critical("store.damaged reason=%s", reason)
            damage.note(self.path.parent, reason)
        return corrupt(reason)

    def fail(self) -> None:
        """End the process because of what `report_damage` has recorded. Called on the loop."""
        self._tell()

    def _tell(self) -> None:
        if self.broken is not None:
            self._failed.set()

    def _run(
        self, conn: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T], soft: bool
    ) -> T:
        if self._soft != soft:
            conn.execute(f"PRAGMA synchronous = {'NORMAL' if soft else 'FULL'}")
            self._soft = soft
        try:
            result = self._in_transaction(conn, fn, soft)
        except StoreCorrupt as error:
            raise self.report_damage(error.detail) from error
        except UnicodeDecodeError as error:
            # SQLite's own message names what it cannot read, in bytes that are no text.
            raise self.report_damage(str(error)) from error
        except sqlite3.Error as error:
            raise self._translated(error) from error
        self.locked = None
        if not soft:
            self.durable_commits += 1
        return result

    def _in_transaction(
        self, conn: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T], soft: bool
    ) -> T:
        try:
            return self._once(conn, fn, soft)
        except sqlite3.Error as error:
            if not is_full(error, self.path) or self.ballast is None:
                raise
            if not self.ballast.release():
                raise
        # The disk was full and is not any more: the ballast's room is for exactly this.
        return self._once(conn, fn, soft)

    def _once(
        self, conn: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T], soft: bool
    ) -> T:
        """One transaction. Once a durable one is on the disk, its witness records it."""
        beside = witness.of(conn)
        if beside is not None:
            beside.begin()
        with transaction(conn):
            result = fn(conn)
            count = None if soft else self._counted(conn)
        if count is not None:
            self._count = count[0]
        if beside is not None:
            beside.committed(count)
            if beside.new_store_id is not None and isinstance(conn, StoreConnection):
                self._adopted(conn, beside)
        return result

    def _counted(self, conn: sqlite3.Connection) -> tuple[int, int] | None:
        """Count this transaction; return (the count, the next invoice number). None before the first start's end.
        StoreCorrupt when the store went back in between."""
        row = conn.execute(
            "UPDATE unit SET commits = commits + 1 WHERE id = 1 RETURNING commits, next_invc_no"
        ).fetchall()
        if not row:
            return None
        if self._count is not None and row[0][0] != self._count + 1:
            raise StoreCorrupt(
                f"The store's commit count was {self._count} and is {row[0][0] - 1} now."
            )
        return row[0][0], row[0][1]

    def _adopted(self, conn: StoreConnection, beside: Witness) -> None:
        self.noticed = None
        try:
            witness_start.adopt(conn, beside)
        except witness.WitnessFailed as error:
            beside.fails(error)

    def _translated(self, error: sqlite3.Error) -> Exception:
        name = name_of(error)
        if is_full(error, self.path):
            return DiskFull(FULL)
        if is_damage(error):
            return self.report_damage(f"{name or type(error).__name__}: {error}")
        if name.startswith("SQLITE_IOERR"):
            self.broken = f"{name}: {error}"
            log.critical("store.failed error=%s", self.broken)
            return StoreError("The disk failed while writing. Call the technician.")
        if name.startswith(LOCKED):
            self.locked = "another program has locked the store"
            return StoreBusy(
                "Another program has locked the gateway's store. Close it (a sqlite3 shell?); selling goes on by "
                "itself then.",
                retry_after_s=5,
            )
        if isinstance(error, sqlite3.IntegrityError):
            return error
        if name.startswith("SQLITE_READONLY"):
            cause = causes.probe(self.path.parent)
            if cause is not None:
                return causes.explain(cause, self.path.parent)
        return StoreError(f"The store refused: {name or type(error).__name__}.")


async def run_on(connection: aiosqlite.Connection, fn: Callable[[sqlite3.Connection], T]) -> T:
    """Run `fn` whole on the connection's own thread.

    `_execute` is aiosqlite's protected way to do that; its version is pinned for it.
    """
    run: Any = connection._execute  # noqa: SLF001
    return await run(lambda: fn(connection._conn))  # type: ignore[no-any-return]  # noqa: SLF001


@contextmanager
def transaction(conn: sqlite3.Connection):  # type: ignore[no-untyped-def]
    """BEGIN IMMEDIATE .. COMMIT; any error rolls everything back and is passed on."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield
        conn.execute("COMMIT")
    except BaseException:  # undone whatever ended it, and passed on
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _read(conn: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T]) -> T:
    steps = 0

    def too_long() -> int:
        nonlocal steps
        steps += 1
        return int(steps > READ_PROGRESS_LIMIT)

    conn.set_progress_handler(too_long, 1000)
    conn.execute("BEGIN")
    try:
        return fn(conn)
    finally:
        conn.execute("ROLLBACK")
        conn.set_progress_handler(None, 0)


@asynccontextmanager
async def open_database(
    directory: Path,
    *,
    readers: int = 2,
    busy_timeout_ms: int = 5000,
    ballast_bytes: int = 0,
    witness_directory: Path | None = None,
) -> AsyncIterator[Database]:
    """Open (and where needed create and migrate) the store in `directory`, with its witness in
    `witness_directory` where that can be written, else beside it.

    StoreError when another process holds it or the system refuses its files, DiskFull, StoreReadOnly, SchemaNewer or
    StoreCorrupt when it must not be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise causes.explain(error, directory) from error
    with only_instance(directory):
        if (directory / UNFINISHED).exists():
            raise StoreCorrupt(
                "Putting a backup back was cut short. Run it once more: pos-gateway restore, with the same file."
            )
        opened: list[aiosqlite.Connection] = []
        try:
            ballast = Ballast(directory, ballast_bytes)
            place = start.place(witness_directory, directory)
            try:
                db = await _open(directory, readers, busy_timeout_ms, ballast, place, opened)
            except OSError as error:
                raise causes.explain(error, directory) from error
            yield db
        finally:
            # An aiosqlite connection left open keeps its thread, and the process with it.
            for connection in reversed(opened):
                await run_on(connection, start.close_witness)
                await connection.close()


async def _open(
    directory: Path,
    readers: int,
    busy_timeout_ms: int,
    ballast: Ballast,
    place: Path,
    opened: list[aiosqlite.Connection],
) -> Database:
    path = directory / FILE_NAME
    checked = start.noted(directory)
    writer = await _connected(path, opened)

    def prepare(conn: sqlite3.Connection) -> None:
        _prepare_writer(conn, path, busy_timeout_ms)

    try:
        await run_on(writer, prepare)
    except DiskFull:
        # It filled up while nothing ran: opening needs room, too.
        if not ballast.release():
            raise
        await run_on(writer, prepare)
    started = await run_on(writer, lambda conn: start.at_first(conn, path, place, checked=checked))
    pool: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
    for _ in range(readers):
        reader = await _connected(path, opened, reads=True)
        await run_on(reader, lambda conn: _prepare_reader(conn, busy_timeout_ms))
        await run_on(reader, lambda conn: start.witnessed(conn, started.beside))
        pool.put_nowait(reader)
    ballast.lay()
    if checked:
        damage.clear(directory)
    return Database(
        path,
        writer,
        pool,
        ballast,
        was_running=started.was_running,
        noticed=started.noticed,
        beside=started.beside,
    )


async def open_reader(path: Path) -> aiosqlite.Connection:
    """Open one more connection that only reads, for what reads long and seldom. sqlite3.Error, StoreError."""
    reader = await _connected(path, [], reads=True)
    await run_on(reader, lambda conn: _prepare_reader(conn, 5000))
    return reader


async def _connected(
    path: Path, opened: list[aiosqlite.Connection], *, reads: bool = False
) -> aiosqlite.Connection:
    place = f"file:{quote(str(path))}?mode=ro" if reads else str(path)
    connecting = aiosqlite.connect(place, uri=reads, isolation_level=None, factory=StoreConnection)
    try:
        connection = await connecting
    except sqlite3.Error as error:
        raise at_start(error, path) from error
    opened.append(connection)
    return connection


def _prepare_writer(conn: sqlite3.Connection, path: Path, busy_timeout_ms: int) -> None:
    conn.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
    try:
        migrate.migrate(conn, path)
        mode = conn.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("PRAGMA foreign_keys = ON")
        held = {
            "journal_mode": mode,
            "synchronous": conn.execute("PRAGMA synchronous").fetchone()[0],
            "foreign_keys": conn.execute("PRAGMA foreign_keys").fetchone()[0],
        }
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise at_start(error, path) from error
    if held != {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}:
        raise StoreError(f"SQLite did not take the settings it needs: {held}")


def _prepare_reader(conn: sqlite3.Connection, busy_timeout_ms: int) -> None:
    conn.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
    conn.execute("PRAGMA query_only = 1")


@contextmanager
def only_instance(directory: Path):  # type: ignore[no-untyped-def]
    """Two gateways on one directory would be two signers; the kernel's lock forbids it."""
    try:
        handle: IO[str] = (directory / "gateway.lock").open("a+")
    except OSError as error:
        raise causes.explain(error, directory) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise StoreError(
                f"Another gateway (process {owner}) already uses {directory}. Stop it first."
            ) from None
        # Whose it is, is only told; the lock holds without it, and on a full disk.
        with suppress(OSError):
            os.ftruncate(handle.fileno(), 0)
            os.write(handle.fileno(), str(os.getpid()).encode())
        yield
    finally:
        handle.close()
