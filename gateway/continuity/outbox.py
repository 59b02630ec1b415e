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
# So many records refused one after the other, for the same reason and none taken: no longer their fault.
IN_A_ROW = 5
# While the cloud is in doubt each round asks about twice as many, up to this: a long run of bad records
# must not keep what stands behind it for ever, and a metered link must not carry the backlog in vain.
ROUND_MAX = 40

Refused = list[tuple[OutboxRecord, str]]


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
        # Refused since the cloud last took one; while it is in doubt, since the last back-off.
        self._in_a_row: Refused = []
        self._doubted = False
        self._round = IN_A_ROW
        # Refused in the round that ended the last doubt: parked if the cloud refuses them once more.
        self._asked_again: set[int] = set()

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
                if self._in_a_row and self._doubted:
                    # Everything that waits has been tried.
                    self._in_a_row.clear()
                    pause = await self._back_off(pause)
                else:
                    await wake_or_sleep(self._clock, self._wake, self._interval_s)
                continue
            result = await self._send(batch)
            if isinstance(result, NotTaken):
                if result.poison and len(batch) > 1:
                    # Made smaller until the one bad record stands alone.
                    self.problem, limit = result.reason, len(batch) // 2
                    continue
                if not result.poison:
                    self.problem = result.reason
                    await self._count([record.seq for record in batch])
                    log.warning("outbox.not_taken reason=%s", result.reason)
                    pause = await self._back_off(pause, result.retry_after_s)
                    continue
                result = Acknowledged((), ((batch[0].seq, result.reason),))
            ours = {record.seq: record for record in batch}
            taken = [seq for seq in result.taken if seq in ours]
            refused = [(ours[seq], reason) for seq, reason in result.refused if seq in ours]
            if taken:
                await self._took(taken, refused)
            elif not refused:
                self.problem = "the cloud answered without a word on our records"
                await wake_or_sleep(self._clock, self._wake, self._interval_s)
                continue
            elif not await self._parked(refused):
                limit = 1
                pause = await self._back_off(pause)
                continue
            limit = self._batch_records if taken else 1
            if not self._doubted:
                pause = BACKOFF_FIRST_S

    async def _back_off(self, pause: float, named_s: float | None = None) -> float:
        """Full jitter; a server that names its own time is heard. Returns the next pause, in seconds."""
        self._backing_off = True
        nap = named_s or pause * random.random()  # noqa: S311
        await wake_or_sleep(self._clock, self._wake, nap)
        self._backing_off = False
        return min(pause * 2, self._backoff_max_s)

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
        """While the cloud is in doubt, one record after the other."""
        after = self._in_a_row[-1][0].seq if self._doubted and self._in_a_row else 0
        limit = 1 if self._doubted else limit
        return await self._db.read(
            lambda conn: outbox.next_batch(conn, limit, self._batch_bytes, after=after)
        )

    async def _count(self, seqs: list[int]) -> None:
        await self._db.write_soft(lambda conn: outbox.count_attempt(conn, seqs))

    async def _took(self, taken: list[int], refused: Refused) -> None:
        """The cloud can tell good from bad again. What it refused on the way may have come before it was
        mended, so it is asked once more, and parked then."""
        if self._doubted:
            log.warning("outbox.taken_again refused=%d", len(self._in_a_row))
            self._asked_again = {record.seq for record, _ in self._in_a_row}
        self._in_a_row, self._doubted, self.problem = [], False, None
        self._round = IN_A_ROW
        self._flow.moved(self._clock.boottime_ns(), len(taken) + len(refused))

        # Soft on purpose: a power cut forgets it at worst, and the cloud knows duplicates.
        def settle(conn: sqlite3.Connection) -> None:
            at = micros(self._clock.now())
            outbox.mark_stored(conn, taken, at=at)
            for record, reason in refused:
                self._park(conn, record, reason, at)

        await self._db.write_soft(settle)

    async def _parked(self, refused: Refused) -> bool:
        """Nothing was taken. False when so many in a row were refused for the same reason that it is the
        cloud's fault: then they all wait, until it takes one again."""
        known = {record.seq for record, _ in refused} & self._asked_again
        for record, reason in refused:
            if record.seq in known:
                continue
            if not self._doubted and self._in_a_row and self._in_a_row[-1][1] != reason:
                self._in_a_row = []
            self._in_a_row.append((record, reason))
        row = self._in_a_row
        fault = len(row) >= self._round
        if self._doubted:
            # A record is parked only beside one that is taken.
            if fault:
                self._in_a_row, self._round = [], min(self._round * 2, ROUND_MAX)
            return not fault
        self.problem = None
        kept = [record.seq for record, _ in row] if fault else []
        if fault:
            reason = row[-1][1]
            self.problem = f"the cloud refuses every record ({reason}); all are kept and sent again"
            log.error("outbox.doubted reason=%s", reason)
            self._in_a_row, self._doubted = [], True
            self._asked_again = set()

        def settle(conn: sqlite3.Connection) -> None:
            at = micros(self._clock.now())
            for record, reason in refused:
                if record.seq not in kept:
                    self._park(conn, record, reason, at)
            outbox.wait_again(conn, kept)

        await self._db.write(settle)
        self._asked_again -= known
        return not fault

    def _park(self, conn: sqlite3.Connection, record: OutboxRecord, reason: str, at: int) -> None:
        log.error("outbox.parked subject=%s reason=%s", record.subject_id, reason)
        outbox.park(conn, record.seq, reason)
        events.record(
            conn, at=at, kind="outbox.parked", subject=record.subject_id, data={"reason": reason}
        )
