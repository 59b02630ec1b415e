"""The relay's own SQLite file: what came, by gateway, until it was fetched and for a while after.

One thread owns the connection. A message is on the disk (synchronous=FULL) before `put` returns; messages
that come together share one fsync.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")

FILE_NAME = "relay.db"
# What a row takes on the disk beside its body, rounded up, so that the cap is one of the disk.
ROW_BYTES = 512
# One answer to a gateway: so many messages, and no more once so many bytes are in it.
PAGE_ROWS = 100
PAGE_BYTES = 1_000_000
# Rows in one transaction: new ones, and old ones that go.
BATCH_ROWS = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS relay (epoch TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS message (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    gateway     TEXT    NOT NULL,
    kind        TEXT    NOT NULL,
    token       TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    peer        TEXT    NOT NULL,
    received_at INTEGER NOT NULL,
    acked_at    INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS message_of_gateway ON message (gateway, id);
CREATE INDEX IF NOT EXISTS message_waiting ON message (gateway, id) WHERE acked_at IS NULL;
CREATE INDEX IF NOT EXISTS message_done ON message (gateway, id) WHERE acked_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS message_by_ack ON message (acked_at) WHERE acked_at IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One request of M-Pesa's side, exactly. `received_at` in UTC microseconds."""

    gateway: str
    kind: str
    token: str
    body: bytes
    peer: str
    received_at: int

    @property
    def size(self) -> int:
        return len(self.body) + ROW_BYTES


@dataclass(frozen=True, slots=True)
class Kept:
    id: int
    kind: str
    token: str
    body: bytes
    peer: str
    received_at: int


class Full(Exception):
    """The gateway's share is full of messages that it has not fetched: no more is taken."""


class RelayStore:
    """Made by `open_store`. Every method may raise sqlite3.Error; nothing of the call is kept then."""

    def __init__(
        self, conn: sqlite3.Connection, thread: ThreadPoolExecutor, cap_bytes: int
    ) -> None:
        self._conn = conn
        self._thread = thread
        self._cap = cap_bytes
        self._waiting: list[tuple[Incoming, asyncio.Future[int | None]]] = []
        self._writer: asyncio.Future[None] | None = None
        # Bytes kept, by gateway; only the thread touches it.
        self._sizes: dict[str, int] = {}
        self.epoch = ""

    async def prepare(self) -> None:
        await self._run(self._prepare)

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer
        await self._run(self._conn.close)
        self._thread.shutdown(wait=True)

    async def put(self, message: Incoming) -> int:
        """Its number, once it is on the disk. Full when the gateway's share is."""
        done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.ensure_future(self._write())
        number = await done
        if number is None:
            raise Full(message.gateway)
        return number

    async def page(self, gateway: str, after: int) -> list[Kept]:
        """The next messages after this number, in order, fetched or not: a gateway that was restored from
        a backup asks again for what it had. Bounded in rows and bytes."""
        return await self._run(lambda: self._page(gateway, after))

    async def ack(self, gateway: str, up_to: int, at: int) -> int:
        """The gateway has them durably; how many that were new to it."""
        return await self._run(lambda: self._ack(gateway, up_to, at))

    async def forget(self, acked_before: int, any_before: int) -> tuple[int, int]:
        """Deletes what was fetched before the one time, and whatever came before the other; how many of
        each. In small transactions, so that new messages are not held up."""
        done = await self._forget_all("acked_at < ?", acked_before)
        lost = await self._forget_all("acked_at IS NULL AND received_at < ?", any_before)
        return done, lost

    async def waiting(self, gateway: str) -> int:
        """Messages that it has not acknowledged."""
        return await self._run(lambda: self._count(gateway))

    # --- on the thread ----------------------------------------------------------------------------

    async def _run(self, fn: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, fn)

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH_ROWS], self._waiting[BATCH_ROWS:]
            try:
                numbers = await self._run(lambda: self._insert([item for item, _ in batch]))  # noqa: B023
            except Exception as error:  # each caller is told; the next batch is tried anew
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), number in zip(batch, numbers, strict=True):
                if not done.done():
                    done.set_result(number)

    def _prepare(self) -> None:
        mode = self._conn.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        self._conn.execute("PRAGMA synchronous = FULL")
        if (mode, self._conn.execute("PRAGMA synchronous").fetchone()[0]) != ("wal", 2):
            raise sqlite3.OperationalError("SQLite did not take the settings it needs")
        if not self._conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'relay'").fetchone():
            self._conn.executescript(_SCHEMA)
        row = self._conn.execute("SELECT epoch FROM relay").fetchone()
        if row is None:
            row = (secrets.token_hex(8),)
            self._conn.execute("INSERT INTO relay (epoch) VALUES (?)", row)
        self.epoch = str(row[0])
        self._measure()

    def _measure(self) -> None:
        self._sizes = dict(
            self._conn.execute(
                f"SELECT gateway, SUM(LENGTH(body) + {ROW_BYTES}) FROM message GROUP BY gateway"
            )
        )

    def _insert(self, batch: list[Incoming]) -> list[int | None]:
        numbers: list[int | None] = []
        sizes = dict(self._sizes)
        self._conn.execute("BEGIN IMMEDIATE")
        try:
            for item in batch:
                used = sizes.get(item.gateway, 0)
                if used + item.size > self._cap:
                    used -= self._make_room(item.gateway, used + item.size - self._cap)
                    sizes[item.gateway] = used
                if used + item.size > self._cap:
                    numbers.append(None)
                    continue
                cursor = self._conn.execute(
                    """INSERT INTO message (gateway, kind, token, body, peer, received_at)
                       VALUES (?, ?, ?, ?, ?, ?)""",
                    (item.gateway, item.kind, item.token, item.body, item.peer, item.received_at),
                )
                sizes[item.gateway] = used + item.size
                numbers.append(int(cursor.lastrowid or 0))
            self._conn.execute("COMMIT")
        except BaseException:  # undone whatever ended it, and passed on
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
            raise
        self._sizes = sizes
        return numbers

    def _make_room(self, gateway: str, wanted: int) -> int:
        """Fetched messages go before a new one is refused; how many bytes were freed."""
        freed, gone = 0, []
        for number, size in self._conn.execute(
            f"""SELECT id, LENGTH(body) + {ROW_BYTES} FROM message
                WHERE gateway = ? AND acked_at IS NOT NULL ORDER BY id""",
            (gateway,),
        ):
            if freed >= wanted:
                break
            freed += size
            gone.append((number,))
        self._conn.executemany("DELETE FROM message WHERE id = ?", gone)
        return freed

    def _page(self, gateway: str, after: int) -> list[Kept]:
        rows = self._conn.execute(
            """SELECT id, kind, token, body, peer, received_at FROM message
               WHERE gateway = ? AND id > ? ORDER BY id LIMIT ?""",
            (gateway, after, PAGE_ROWS),
        )
        found: list[Kept] = []
        size = 0
        for values in rows:
            found.append(Kept(*values))
            size += len(found[-1].body)
            if size >= PAGE_BYTES:
                break
        rows.close()
        return found

    def _ack(self, gateway: str, up_to: int, at: int) -> int:
        cursor = self._conn.execute(
            "UPDATE message SET acked_at = ? WHERE gateway = ? AND id <= ? AND acked_at IS NULL",
            (at, gateway, up_to),
        )
        return cursor.rowcount

    async def _forget_all(self, where: str, before: int) -> int:
        total = 0
        while gone := await self._run(lambda: self._forget(where, before)):
            total += gone
        return total

    def _forget(self, where: str, before: int) -> int:
        cursor = self._conn.execute(
            f"DELETE FROM message WHERE id IN (SELECT id FROM message WHERE {where} LIMIT {BATCH_ROWS})",
            (before,),
        )
        if cursor.rowcount:
            self._measure()
        return cursor.rowcount

    def _count(self, gateway: str) -> int:
        row = self._conn.execute(
            "SELECT COUNT(*) FROM message WHERE gateway = ? AND acked_at IS NULL", (gateway,)
        ).fetchone()
        return int(row[0])


async def open_store(directory: Path, cap_bytes: int) -> RelayStore:
    """The file in `directory`, made where there is none. sqlite3.Error or OSError when it cannot be used."""
    directory.mkdir(parents=True, exist_ok=True)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="relay-store")
    loop = asyncio.get_running_loop()
    path = directory / FILE_NAME
    try:
        conn = await loop.run_in_executor(
            thread, lambda: sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        )
        store = RelayStore(conn, thread, cap_bytes)
        try:
            await store.prepare()
        except BaseException:  # undone whatever ended it, and passed on
            await store.close()
            raise
    except BaseException:  # undone whatever ended it, and passed on
        thread.shutdown(wait=False)
        raise
    return store
