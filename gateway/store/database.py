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
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import aiosqlite

from gateway.errors import DiskFull, StoreCorrupt, StoreError
from gateway.store import migrate
from gateway.store.ballast import Ballast

log = logging.getLogger(__name__)
T = TypeVar("T")

FILE_NAME = "gateway.db"
# Lies there while a backup is being put back (restore.py).
UNFINISHED = "restore.unfinished"
# Readers give up after this many SQLite VM instructions x1000: a page must never hold a snapshot
# for long, or the WAL could not be checkpointed.
READ_PROGRESS_LIMIT = 20_000


class Database:
    """The open store. Made by `open_database`; nobody else ever holds its connections."""

    def __init__(
        self,
        path: Path,
        writer: aiosqlite.Connection,
        readers: asyncio.Queue[aiosqlite.Connection],
        ballast: Ballast | None = None,
    ) -> None:
        self.path = path
        self._writer = writer
        self._readers = readers
        self.ballast = ballast
        self._soft = False
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
            return await run_on(reader, lambda conn: _read(conn, fn))
        except sqlite3.DatabaseError as error:
            if _name(error).startswith(_DAMAGED):
                raise self._translated(error) from error
            raise
        finally:
            self._readers.put_nowait(reader)
            self._tell()

    async def _transact(self, fn: Callable[[sqlite3.Connection], T], *, soft: bool) -> T:
        if self.broken is not None:
            raise StoreError(f"The store failed and needs a restart: {self.broken}")
        try:
            result = await run_on(self._writer, lambda conn: self._run(conn, fn, soft))
        finally:
            self._tell()
        # Everybody waiting now is woken; who comes later waits for the next one.
        self._changed.set()
        self._changed = asyncio.Event()
        return result

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
            result = self._in_transaction(conn, fn)
        except sqlite3.Error as error:
            raise self._translated(error) from error
        if not soft:
            self.durable_commits += 1
        return result

    def _in_transaction(self, conn: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with transaction(conn):
                return fn(conn)
        except sqlite3.Error as error:
            if not _is_full(error) or self.ballast is None or not self.ballast.release():
                raise
        # The disk was full and is not any more: the ballast's room is for exactly this.
        with transaction(conn):
            return fn(conn)

    def _translated(self, error: sqlite3.Error) -> Exception:
        name = _name(error)
        if _is_full(error):
            return DiskFull(FULL)
        if name.startswith("SQLITE_IOERR"):
            self.broken = f"{name}: {error}"
            log.critical("store.failed error=%s", self.broken)
            return StoreError("The disk failed while writing. Call the technician.")
        if name.startswith(_DAMAGED):
            self.broken = f"{name}: {error}"
            log.critical("store.corrupt error=%s", self.broken)
            return StoreCorrupt("The store is damaged. Restore a backup; see the status page.")
        if isinstance(error, sqlite3.IntegrityError):
            return error
        return StoreError(f"The store refused: {name or type(error).__name__}.")


FULL = "The disk is full. Free some space; selling goes on by itself then."
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def _name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "") or ""


def _is_full(error: sqlite3.Error) -> bool:
    # The WAL's index cannot grow either, and says so in its own words.
    return _name(error) in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")


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
    directory: Path, *, readers: int = 2, busy_timeout_ms: int = 5000, ballast_bytes: int = 0
) -> AsyncIterator[Database]:
    """Open (and where needed create and migrate) the store in `directory`.

    StoreError when another process holds it or its files are somebody else's, DiskFull, SchemaNewer or
    StoreCorrupt when it must not be used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / FILE_NAME
    with only_instance(directory):
        if (directory / UNFINISHED).exists():
            raise StoreCorrupt(
                "Putting a backup back was cut short. Run it once more: pos-gateway restore, with the same file."
            )
        writer = await aiosqlite.connect(path, isolation_level=None)
        pool: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        opened = [writer]
        try:
            ballast = Ballast(directory, ballast_bytes)
            try:
                await run_on(writer, lambda conn: _prepare_writer(conn, path, busy_timeout_ms))
            except DiskFull:
                # It filled up while nothing ran: opening needs room, too.
                if not ballast.release():
                    raise
                await run_on(writer, lambda conn: _prepare_writer(conn, path, busy_timeout_ms))
            for _ in range(readers):
                reader = await aiosqlite.connect(
                    f"file:{path}?mode=ro", uri=True, isolation_level=None
                )
                opened.append(reader)
                await run_on(reader, lambda conn: _prepare_reader(conn, busy_timeout_ms))
                pool.put_nowait(reader)
            ballast.lay()
            yield Database(path, writer, pool, ballast)
        finally:
            # An aiosqlite connection left open keeps its thread, and the process with it.
            for connection in reversed(opened):
                await connection.close()


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
    except sqlite3.DatabaseError as error:
        raise _at_start(error, path) from error
    if held != {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}:
        raise StoreError(f"SQLite did not take the settings it needs: {held}")


def _at_start(error: sqlite3.DatabaseError, path: Path) -> StoreError:
    """A full disk and a file of another user are not a damaged store: no backup helps there."""
    if _is_full(error):
        return DiskFull(FULL)
    if _name(error).startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return StoreError(
            f"{path} cannot be opened for writing ({error}). Its files must belong to the gateway's user."
        )
    return StoreCorrupt(f"{path.name} cannot be read as a database: {error}")


def _prepare_reader(conn: sqlite3.Connection, busy_timeout_ms: int) -> None:
    conn.execute(f"PRAGMA busy_timeout = {busy_timeout_ms}")
    conn.execute("PRAGMA query_only = 1")


@contextmanager
def only_instance(directory: Path):  # type: ignore[no-untyped-def]
    """Two gateways on one directory would be two signers; the kernel's lock forbids it."""
    try:
        handle: IO[str] = (directory / "gateway.lock").open("a+")
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull(FULL) from error
        raise StoreError(
            f"{directory} cannot be written ({error.strerror}). It must belong to the gateway's user."
        ) from error
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
