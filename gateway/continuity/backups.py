"""Makes a backup on a schedule, keeps so many, and says so when it could not."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from gateway.clock import Clock, iso, micros
from gateway.errors import StoreError
from gateway.store import backup, events
from gateway.store.database import Database

log = logging.getLogger(__name__)

# After a failure (no room, a stick pulled out) it is tried again this soon, in seconds.
RETRY_S = 600.0


class Backups:
    """`run` for as long as the daemon lives; `problem` and `last` are shown by the status."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        store: Path,
        unit: Path | None,
        target: Path,
        every_s: float,
        keep: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._store = store
        self._unit = unit
        self._target = target
        self._every_s = every_s
        self._keep = keep
        self.problem: str | None = None
        self.last: str | None = None

    async def run(self) -> None:
        await self._clock.sleep(self._first_s())
        while True:
            await self._clock.sleep(self._every_s if await self.once() else RETRY_S)

    def _first_s(self) -> float:
        """A restart is no reason for another backup when the last one is fresh."""
        files = backup.found(self._target)
        if not files:
            return min(60.0, self._every_s)
        self.last = files[-1].name
        age_s = self._clock.now().timestamp() - files[-1].stat().st_mtime
        return min(self._every_s, max(60.0, self._every_s - age_s))

    async def once(self) -> bool:
        at = self._clock.now()
        try:
            made = await asyncio.to_thread(backup.make, self._store, self._unit, self._target, at)
            await asyncio.to_thread(backup.rotate, self._target, self._keep)
        except (StoreError, OSError) as error:
            self.problem = str(error)
            log.error("backup.failed reason=%s", error)
            await self._tell("backup.failed", {"reason": str(error)})
            return False
        self.problem, self.last = None, made.path.name
        log.info("backup.made file=%s bytes=%d", made.path.name, made.size)
        await self._tell("backup.made", {"file": made.path.name, "receipts": made.receipts})
        return True

    async def _tell(self, kind: str, data: dict[str, object]) -> None:
        at = micros(self._clock.now())
        try:
            await self._db.write_soft(lambda conn: events.record(conn, at=at, kind=kind, data=data))
        except StoreError as error:
            log.error("backup.untold reason=%s at=%s", error.code, iso(self._clock.now()))
