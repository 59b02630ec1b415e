"""Drains the outbox to the cloud: in order, in batches, until every record is stored or parked."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Sequence
from typing import Protocol

from gateway import ids
from gateway.clock import Clock, micros, wake_or_sleep
from gateway.continuity.pace import Flow
from gateway.store import events, outbox
from gateway.store.database import Database
from gateway.store.outbox import OutboxRecord
from gateway.sync.client import Acknowledged, NotTaken

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 1.0
# Under a bandwidth cap a batch is made small enough to take no longer than this. Seconds.
CAPPED_BATCH_S = 10.0
CAPPED_BATCH_MIN_BYTES = 4_000


class Cloud(Protocol):
    @property
    def sent_bytes(self) -> int: ...
    async def send(
        self, batch_id: str, records: Sequence[OutboxRecord]
    ) -> Acknowledged | NotTaken: ...


class OutboxSender:
    """One batch in flight. Sending again is safe: the cloud is idempotent by invoice id."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        cloud: Cloud,
        batch_records: int,
        batch_bytes: int,
        interval_s: float,
        backoff_max_s: float,
        max_kbps: float | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._cloud = cloud
        self._batch_records = batch_records
        # Bytes a second; None for as fast as it goes.
        self._cap = None if max_kbps is None else max_kbps * 1000 / 8
        if self._cap is not None:
            small = max(CAPPED_BATCH_MIN_BYTES, int(self._cap * CAPPED_BATCH_S))
            batch_bytes = min(batch_bytes, small)
        self._batch_bytes = batch_bytes
        self._interval_s = interval_s
        self._backoff_max_s = backoff_max_s
        self._wake = asyncio.Event()
        self._backing_off = False
        # Why the last batch did not get through; None while all is well.
        self.problem: str | None = None
        self._flow = Flow()

    def notify(self) -> None:
        """Something was signed. Does not cut a back-off short: the cloud is known to be away."""
        if not self._backing_off:
            self._wake.set()

    def link_is_back(self) -> None:
        """The network answered elsewhere: try now instead of waiting a back-off out."""
        self._wake.set()

    def per_minute(self) -> int | None:
        """Records the cloud took in the last minute of work; None while nothing flows."""
        return self._flow.per_minute(self._clock.boottime_ns())

    async def run(self) -> None:
        pause = BACKOFF_FIRST_S
        limit = self._batch_records
        while True:
            self._wake.clear()
            batch = await self._next(limit)
            if not batch:
                limit = self._batch_records
                await wake_or_sleep(self._clock, self._wake, self._interval_s)
                continue
            result = await self._send(batch)
            if isinstance(result, NotTaken):
                self.problem = result.reason
                if result.poison:
                    limit = await self._halve(batch, result.reason)
                    continue
                await self._count([record.seq for record in batch])
                log.warning("outbox.not_taken reason=%s", result.reason)
                self._backing_off = True
                # Full jitter; a server that names its own time is heard.
                nap = result.retry_after_s or pause * random.random()  # noqa: S311
                await wake_or_sleep(self._clock, self._wake, nap)
                self._backing_off = False
                pause = min(pause * 2, self._backoff_max_s)
                continue
            pause = BACKOFF_FIRST_S
            limit = self._batch_records
            await self._acknowledge(batch, result)

    async def _send(self, batch: Sequence[OutboxRecord]) -> Acknowledged | NotTaken:
        """One batch, and under a cap the rest of the time that its bytes are worth."""
        before, start_ns = self._cloud.sent_bytes, self._clock.boottime_ns()
        result = await self._cloud.send(ids.new_id(micros(self._clock.now())), batch)
        if self._cap is not None:
            worth_s = (self._cloud.sent_bytes - before) / self._cap
            took_s = (self._clock.boottime_ns() - start_ns) / 1e9
            if worth_s > took_s:
                await self._clock.sleep(worth_s - took_s)
        return result

    async def _next(self, limit: int) -> list[OutboxRecord]:
        return await self._db.read(lambda conn: outbox.next_batch(conn, limit, self._batch_bytes))

    async def _count(self, seqs: list[int]) -> None:
        await self._db.write_soft(lambda conn: outbox.count_attempt(conn, seqs))

    async def _acknowledge(self, batch: Sequence[OutboxRecord], result: Acknowledged) -> None:
        ours = {record.seq: record for record in batch}
        taken = [seq for seq in result.taken if seq in ours]
        refused = [(seq, reason) for seq, reason in result.refused if seq in ours]
        if not taken and not refused:
            self.problem = "the cloud answered without a word on our records"
            await wake_or_sleep(self._clock, self._wake, self._interval_s)
            return
        self.problem = None
        self._flow.moved(self._clock.boottime_ns(), len(taken) + len(refused))
        await self._db.write_soft(lambda conn: self._settle(conn, ours, taken, refused))

    def _settle(
        self,
        conn: sqlite3.Connection,
        ours: dict[int, OutboxRecord],
        taken: list[int],
        refused: list[tuple[int, str]],
    ) -> None:
        # Soft on purpose: a power cut forgets it at worst, and the cloud knows duplicates.
        at = micros(self._clock.now())
        outbox.mark_stored(conn, taken, at=at)
        for seq, reason in refused:
            self._park(conn, ours[seq], reason, at)

    async def _halve(self, batch: Sequence[OutboxRecord], reason: str) -> int:
        """A batch the cloud cannot take is made smaller until the one bad record stands alone."""
        if len(batch) > 1:
            return len(batch) // 2
        at = micros(self._clock.now())
        await self._db.write(lambda conn: self._park(conn, batch[0], reason, at))
        return self._batch_records

    def _park(self, conn: sqlite3.Connection, record: OutboxRecord, reason: str, at: int) -> None:
        log.error("outbox.parked subject=%s reason=%s", record.subject_id, reason)
        outbox.park(conn, record.seq, reason)
        events.record(
            conn, at=at, kind="outbox.parked", subject=record.subject_id, data={"reason": reason}
        )
