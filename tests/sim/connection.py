"""The store's connections in virtual time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.store.witness import StoreConnection
from tests.sim import disk_faults

if TYPE_CHECKING:
    from tests.sim.world import Disk, Life


class InlineConnection:
    """What `Database` needs of an aiosqlite connection, without its thread: a real SQLite
    connection, run in the loop's own order so that a seed replays exactly."""

    def __init__(self, life: Life, path: Path, disk: Disk, *, reads: bool = False) -> None:
        self._reads = reads
        self._faults = disk.faults
        self.replaced: list[sqlite3.Connection] = []
        self.connect(path)
        self._life = life
        self._disk = disk
        self.limited = False

    def connect(self, path: Path) -> None:
        """Open the store in `path`, with the witness that the connection before this one had."""
        before = getattr(self, "_conn", None)
        place = f"file:{path}?mode=ro" if self._reads else path
        factory = StoreConnection if self._faults is None else disk_faults.FaultyConnection
        self._conn = sqlite3.connect(place, isolation_level=None, uri=self._reads, factory=factory)
        if before is not None:
            self._conn.witness = before.witness
            for name in (
                "synchronous",
                "foreign_keys",
                "wal_autocheckpoint",
                "busy_timeout",
                "query_only",
            ):
                value = before.execute(f"PRAGMA {name}").fetchone()[0]
                self._conn.execute(f"PRAGMA {name} = {value}")
            # Its transaction is still being ended.
            self.replaced.append(before)

    async def _execute(self, run: Callable[[], Any]) -> Any:
        await self._life.point()
        if self._reads:
            with disk_faults.armed(self._faults, self, reads=True):
                result = run()
            # SQLite shows a commit to others only when its fsync is done.
            self._disk.told()
        else:
            try:
                self._disk.before_write(self)
                with disk_faults.armed(self._faults, self, reads=False):
                    result = run()
            finally:
                self._disk.after_write(self)
        await self._life.point()
        if not self._reads:
            self._disk.told()
        return result

    def full(self) -> bool:
        return self.synchronous() == 2

    def synchronous(self) -> int:
        return int(self._conn.execute("PRAGMA synchronous").fetchone()[0])
