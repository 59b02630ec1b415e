"""The second witness of every claimed key: a small SQLite file beside the store, or on another disk.

The store's own index decides whether a key is new. A damaged index, a lost page or a lost tail of the log makes it
say "new" of a sale that has a receipt. So each key is also recorded here, with the store's commit count and the
next invoice number, after the store's transaction is durable and before anything leaves or is answered. Nothing
here is synced on the path of a sale: a witness that lost its own newest rows is behind, which is harmless.

`witness_start.py` compares the two at the start; `check_loop.py` does it all day.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gateway.errors import StoreCorrupt
from gateway.ids import lasting_names
from gateway.store import digests, meta

log = logging.getLogger(__name__)

FILE_NAME = "witness.db"
# "PoSW".
APPLICATION_ID = 0x506F5357
# A lock that another program holds on the witness must not stop a sale. Milliseconds.
BUSY_MS = 50
# Rows that could not be written yet; beyond that the background check adds them from the store.
WAITING_MAX = 10_000
_SCHEMA = f"""
    PRAGMA page_size = 1024;
    PRAGMA journal_mode = WAL;
    BEGIN IMMEDIATE;
    CREATE TABLE state (
        id           INTEGER PRIMARY KEY CHECK (id = 1),
        store_id     TEXT    NOT NULL,
        commits      INTEGER NOT NULL,
        next_invc_no INTEGER NOT NULL,
        digest       BLOB    NOT NULL,
        filled_to    INTEGER NOT NULL,
        fill_until   INTEGER NOT NULL,
        position     TEXT    NOT NULL DEFAULT ''
    ) STRICT;
    CREATE TABLE claimed (
        seq     INTEGER PRIMARY KEY,
        digest  BLOB    NOT NULL UNIQUE,
        lasting BLOB,
        crc     INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX claimed_by_lasting ON claimed (lasting) WHERE lasting IS NOT NULL;
    PRAGMA application_id = {APPLICATION_ID};
    COMMIT"""
_NOTE = "INSERT OR REPLACE INTO claimed (seq, digest, lasting, crc) VALUES (?, ?, ?, ?)"
_ADD = "INSERT OR IGNORE INTO claimed (seq, digest, lasting, crc) VALUES (?, ?, ?, ?)"
_ADVANCE = "UPDATE state SET commits = ?, next_invc_no = ?, digest = ? WHERE id = 1"


class WitnessFailed(Exception):
    """Raised when the witness itself cannot be used or is damaged. That proves nothing about the store."""


class LostKey(StoreCorrupt):
    """Raised for a key that the witness knows and the store does not. A reader tries once more on a newer
    snapshot before it is believed."""


class StoreConnection(sqlite3.Connection):
    """A connection to the store that has the witness beside it."""

    witness: Witness | None = None


def of(conn: sqlite3.Connection) -> Witness | None:
    """Return the witness of this connection; None for one that has none (tools, tests)."""
    return conn.witness if isinstance(conn, StoreConnection) else None


@dataclass(frozen=True, slots=True)
class State:
    """What the witness last knew of the store. Rows up to `filled_to`, and from `fill_until` on, are recorded."""

    store_id: str
    commits: int
    next_invc_no: int
    filled_to: int
    fill_until: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """One key that the witness recorded."""

    seq: int
    digest: bytes
    lasting: bytes | None


@dataclass(slots=True)
class _Shared:
    """What the writer's witness and the readers' have in common."""

    is_foreign: bool = False


class Witness:
    """The open file. Used on the store's own threads only; on the path of a sale nothing here raises."""

    def __init__(self, conn: sqlite3.Connection, path: Path, shared: _Shared | None = None) -> None:
        self._conn = conn
        self._shared = shared or _Shared()
        self.path = path
        # Why the witness cannot be written or read; shown on the page.
        self.problem: str | None = None
        # Set inside the transaction that ends the hold: the witness becomes this store's.
        self.new_store_id: str | None = None
        self._store_id = ""
        self._begun: list[Claimed] = []
        self._waiting: dict[bytes, Claimed] = {}

    @property
    def is_foreign(self) -> bool:
        """Return whether it belongs to another store, or to a later state of this one, and no operator has decided."""
        return self._shared.is_foreign

    @is_foreign.setter
    def is_foreign(self, value: bool) -> None:
        self._shared.is_foreign = value

    def for_reader(self) -> Witness:
        """Open it once more, for a connection that reads. WitnessFailed."""
        return _opened(self.path, reads=True, shared=self._shared)

    def once_more(self) -> Witness:
        """Open it once more for the background check, which writes on a thread of its own. WitnessFailed."""
        again = _opened(self.path, shared=self._shared)
        again.state()
        return again

    # --- on the path of a sale ------------------------------------------------------------------------

    def seq_of(self, digest: bytes) -> int | None:
        """Return the row that this key was claimed in, as the witness knows it."""
        waiting = self._waiting.get(digest)
        if waiting is not None and not self.is_foreign:
            return waiting.seq
        return self._look("SELECT seq FROM claimed WHERE digest = ?", digest)

    def newest_of(self, till_id: str, lasting_name: str) -> int | None:
        """Return the newest row of a sale without a key that had this lasting name."""
        return self._look(
            "SELECT MAX(seq) FROM claimed WHERE lasting = ?", digests.key(till_id, lasting_name)
        )

    def _look(self, query: str, digest: bytes) -> int | None:
        if self.is_foreign:
            return None
        try:
            row = self._conn.execute(query, (digest,)).fetchone()
        except sqlite3.Error as error:
            self.fails(error)
            return None
        return None if row is None or not isinstance(row[0], int) else row[0]

    def begin(self) -> None:
        """Forget the claims of a transaction that was rolled back."""
        self._begun.clear()
        self.new_store_id = None

    def claims(self, seq: int, till_id: str, idem_key: str) -> None:
        """Record a claim of the transaction under way."""
        self._begun.append(claimed(seq, till_id, idem_key))

    def committed(self, count: tuple[int, int] | None) -> None:
        """Record what the transaction claimed, and once it is durable its (commit count, next number).

        A soft claim waits for the next durable commit: a power cut may take it back, and nothing was sent.
        """
        self._waiting.update((row.digest, row) for row in self._begun)
        self._begun.clear()
        if count is None or self.is_foreign:
            return
        try:
            self._conn.execute("BEGIN IMMEDIATE")
            self._conn.executemany(_NOTE, _values(self._waiting.values()))
            self._conn.execute(_ADVANCE, (*count, _digest(self._store_id, *count)))
            self._conn.execute("COMMIT")
        except sqlite3.Error as error:
            self.fails(error)
            if len(self._waiting) > WAITING_MAX:
                self._waiting.clear()
        else:
            self._waiting.clear()
            self.problem = None

    def fails(self, error: Exception) -> None:
        """Record that it cannot be used just now: it is behind from here on, and sales go on."""
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")
        if self.problem is None:
            log.error("store.witness_failed file=%s reason=%s", self.path, error)
        self.problem = str(error)

    # --- at the start and in the background: all of it raises WitnessFailed -----------------------------

    @contextmanager
    def _safely(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise WitnessFailed(str(error)) from error
        finally:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")

    def state(self) -> State | None:
        """Return what it knows; None in a new file."""
        with self._safely():
            row = self._conn.execute(
                "SELECT store_id, commits, next_invc_no, filled_to, fill_until, digest FROM state"
            ).fetchone()
        if row is None:
            return None
        if row[5] != _digest(*row[:3]):
            raise WitnessFailed("its state is damaged")
        self._store_id = row[0]
        return State(*row[:5])

    def take(self, state: State, rows: Iterable[Claimed] | None) -> None:
        """Make this the state; with `rows` in place of all recorded keys."""
        values = (state.store_id, state.commits, state.next_invc_no)
        with self._safely():
            self._conn.execute("BEGIN IMMEDIATE")
            if rows is not None:
                self._conn.execute("DELETE FROM claimed")
            self._conn.execute(
                """INSERT OR REPLACE INTO state
                       (id, store_id, commits, next_invc_no, digest, filled_to, fill_until)
                   VALUES (1, ?, ?, ?, ?, ?, ?)""",
                (*values, _digest(*values), state.filled_to, state.fill_until),
            )
            self._conn.executemany(_NOTE, _values(rows or ()))
            self._conn.execute("COMMIT")
        self._store_id = state.store_id

    def fill(self, rows: Iterable[Claimed], filled_to: int) -> None:
        """Add rows of the store that are not recorded yet, up to `filled_to`."""
        with self._safely():
            self._conn.execute("BEGIN IMMEDIATE")
            self._conn.executemany(_ADD, _values(rows))
            self._conn.execute(
                "UPDATE state SET filled_to = MAX(filled_to, ?) WHERE id = 1", (filled_to,)
            )
            self._conn.execute("COMMIT")

    def last_seq(self) -> int:
        """Return the newest recorded row, 0 for none."""
        with self._safely():
            row = self._conn.execute("SELECT COALESCE(MAX(seq), 0) FROM claimed").fetchone()
        return int(row[0])

    def newest(self, limit: int) -> list[Claimed]:
        """Return the newest recorded keys, newest first."""
        query = "SELECT seq, digest, lasting, crc FROM claimed ORDER BY seq DESC LIMIT ?"
        return self._rows(query, limit)

    def after(self, seq: int, limit: int) -> list[Claimed]:
        """Return the next recorded keys in the order of their rows."""
        query = "SELECT seq, digest, lasting, crc FROM claimed WHERE seq > ? ORDER BY seq LIMIT ?"
        return self._rows(query, seq, limit)

    def _rows(self, query: str, *values: int) -> list[Claimed]:
        with self._safely():
            found = self._conn.execute(query, values).fetchall()
        rows = []
        for seq, digest, lasting, crc in found:
            row = Claimed(seq, digest, lasting)
            if not isinstance(digest, bytes) or _crc(row) != crc:
                raise WitnessFailed(f"its row {seq} is damaged")
            rows.append(row)
        return rows

    def remember(self, position: str) -> None:
        """Store how far the background check has come."""
        with self._safely():
            self._conn.execute("UPDATE state SET position = ? WHERE id = 1", (position,))

    def position(self) -> str:
        """Return how far the background check had come."""
        with self._safely():
            row = self._conn.execute("SELECT position FROM state").fetchone()
        return "" if row is None else str(row[0])

    def checkpoint(self) -> None:
        """Move the log into the file and write once, so that the sync that begins a new log is not a sale's."""
        with self._safely():
            self._conn.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self.remember(self.position())

    def close(self) -> None:
        self._conn.close()


def claimed(seq: int, till_id: str, idem_key: str) -> Claimed:
    """Return what the witness records of one row of the store."""
    last = lasting_names(idem_key)[-1]
    lasting = None if last == idem_key else digests.key(till_id, last)
    return Claimed(seq, digests.key(till_id, idem_key), lasting)


def new_id() -> str:
    """Return a new id of a store, by which its witness knows it."""
    return secrets.token_hex(8)


def settled(conn: sqlite3.Connection) -> None:
    """Let the witness become this store's, once the transaction under way is committed: an operator has decided, or
    the unit's counter has shown, what this store lacks."""
    beside = of(conn)
    if beside is None or not beside.is_foreign:
        return
    try:
        state = beside.state()
    except WitnessFailed:
        state = None
    beside.new_store_id = new_id()
    meta.put(conn, meta.WITNESS_ID, beside.new_store_id)
    if state is not None:
        # If the process ends before the witness is written, the next start knows that this state is settled.
        meta.put(conn, meta.WITNESS_TAKEN, f"{state.store_id}:{state.commits}")


def open_file(path: Path) -> Witness:
    """Open the file, made where it is missing. WitnessFailed for one that cannot be used."""
    return _opened(path)


def _opened(path: Path, *, reads: bool = False, shared: _Shared | None = None) -> Witness:
    conn: sqlite3.Connection | None = None
    try:
        place = f"file:{quote(str(path))}?mode={'ro' if reads else 'rwc'}"
        conn = sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)
        conn.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        if not reads:
            if conn.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
                conn.executescript(_SCHEMA)
            conn.execute("PRAGMA synchronous = NORMAL")
            # The background check does it: a checkpoint syncs.
            conn.execute("PRAGMA wal_autocheckpoint = 0")
        conn.execute("SELECT COUNT(*) FROM state").fetchone()
    except sqlite3.Error as error:
        if conn is not None:
            conn.close()
        raise WitnessFailed(str(error)) from error
    return Witness(conn, path, shared)


def _digest(store_id: str, commits: int, next_invc_no: int) -> bytes:
    return digests.core(b"witness", (store_id, commits, next_invc_no))


def _crc(row: Claimed) -> int:
    return zlib.crc32(b"%d:%b:%b" % (row.seq, row.digest, row.lasting or b""))


def _values(rows: Iterable[Claimed]) -> Iterator[tuple[int, bytes, bytes | None, int]]:
    return ((row.seq, row.digest, row.lasting, _crc(row)) for row in rows)
