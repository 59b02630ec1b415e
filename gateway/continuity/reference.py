"""Keeps KRA's lists up to date in the store, and brings what the shop registers to KRA.

A list's watermark moves in the transaction that stores its rows, so a crash reads some again and
misses none. Both loops wait for the unit and never hold a sale up.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from gateway.clock import Clock, compact, micros, wake_or_sleep
from gateway.store import events, reference, registrations
from gateway.store.database import Database
from gateway.store.registrations import Registration
from gateway.vscu.client import FIRST_WATERMARK
from gateway.vscu.lists import LISTS, ListPage, NotRegistered, Registered

log = logging.getLogger(__name__)

# Rows a transaction, so that a sale's commit never waits for a whole list.
CHUNK_ROWS = 200
# A list longer than this is a unit that does not hear `lastReqDt`.
PAGES_MAX = 500
RETRY_S = 300.0
SEND_RETRY_FIRST_S, SEND_RETRY_LAST_S = 1.0, 300.0
# A registration that the unit neither takes nor refuses so often is set aside, so that the rest flows.
ATTEMPTS_MAX = 50


class ListSource(Protocol):
    async def page(self, name: str, since: str) -> ListPage | str: ...


class Register(Protocol):
    async def register(self, kind: str, body: bytes) -> Registered | NotRegistered: ...


class ReferenceReader:
    """Reads every list once in `every_s`; at once when KRA is heard again after a failure."""

    def __init__(self, *, db: Database, clock: Clock, source: ListSource, every_s: float) -> None:
        self._db = db
        self._clock = clock
        self._source = source
        self._every_s = every_s
        self._wake = asyncio.Event()
        # List by list, why it could not be read; empty while all is well.
        self.problems: dict[str, str] = {}

    def link_is_back(self) -> None:
        if self.problems:
            self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            for name in LISTS:
                await self.refresh(name)
            pause = RETRY_S if self.problems else self._every_s
            await wake_or_sleep(self._clock, self._wake, pause)

    async def refresh(self, name: str) -> None:
        """Read one list to its end."""
        for _ in range(PAGES_MAX):
            since = await self._since(name)
            page = await self._source.page(name, since)
            if isinstance(page, str):
                if name not in self.problems:
                    log.warning("reference.not_read list=%s reason=%s", name, page)
                self.problems[name] = page
                return
            self.problems.pop(name, None)
            forward = page.watermark is not None and page.watermark > since
            changed = await self._store(name, page, page.watermark if forward else since)
            if not changed or not forward:
                return
        self.problems[name] = "the list has no end"

    async def _since(self, name: str) -> str:
        known = await self._db.read(lambda conn: reference.state(conn, name))
        if known is None:
            return FIRST_WATERMARK
        tomorrow = compact(self._clock.now() + timedelta(days=1))
        # A watermark of a day to come was written by a wrong clock, and would hide all news.
        return known.watermark if known.watermark < tomorrow else FIRST_WATERMARK

    async def _store(self, name: str, page: ListPage, watermark: str | None) -> int:
        """How many rows are new or other than before."""
        at = micros(self._clock.now())
        changed = 0
        assert watermark is not None
        chunks = [page.rows[i : i + CHUNK_ROWS] for i in range(0, len(page.rows), CHUNK_ROWS)]
        for number, rows in enumerate(chunks or [[]], start=1):
            last = number >= len(chunks)

            def store(
                conn: sqlite3.Connection,
                rows: Sequence[tuple[str, dict[str, object]]] = rows,
                last: bool = last,
            ) -> int:
                moved = reference.put(conn, name, rows, at=at)
                if last:
                    reference.mark(conn, name, watermark, at=at)
                return moved

            changed += await self._db.write_soft(store)
        return changed


class RegistrationSender:
    """Drains the queue to the unit, one at a time, in order."""

    def __init__(self, *, db: Database, clock: Clock, register: Register) -> None:
        self._db = db
        self._clock = clock
        self._register = register
        self._wake = asyncio.Event()
        self._pausing = False
        self.problem: str | None = None

    def notify(self) -> None:
        if not self._pausing:
            self._wake.set()

    def link_is_back(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        pause = SEND_RETRY_FIRST_S
        while True:
            self._wake.clear()
            row = await self._db.read(registrations.following)
            if row is None:
                self.problem = None
                await self._wake.wait()
                continue
            result = await self._register.register(row.kind, row.body)
            if await self._settle(row, result):
                pause = SEND_RETRY_FIRST_S
                continue
            self._pausing = True
            await wake_or_sleep(self._clock, self._wake, pause)
            self._pausing = False
            pause = min(pause * 2, SEND_RETRY_LAST_S)

    async def _settle(self, row: Registration, result: Registered | NotRegistered) -> bool:
        at = micros(self._clock.now())
        if isinstance(result, Registered):
            await self._db.write(lambda c: self._end(c, row, "DONE", None, at))
            return True
        self.problem = result.reason
        if result.final or row.attempts + 1 >= ATTEMPTS_MAX:
            log.error("registration.refused id=%s reason=%s", row.id, result.reason)
            await self._db.write(lambda c: self._end(c, row, "REFUSED", result.reason, at))
            return True
        await self._db.write_soft(
            lambda conn: registrations.count_attempt(conn, row.seq, result.reason)
        )
        return False

    def _end(
        self, conn: sqlite3.Connection, row: Registration, state: str, reason: str | None, at: int
    ) -> None:
        registrations.settle(conn, row.seq, state, reason, at=at)
        events.record(
            conn,
            at=at,
            kind="registration.settled",
            subject=row.id,
            till_id=row.till_id,
            data={"kind": row.kind, "subject": row.subject, "state": state, "reason": reason},
        )
