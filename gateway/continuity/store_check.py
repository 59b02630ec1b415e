"""Checks the store all day beside selling, and keeps the witness complete; stops signing when they disagree.

A start checks only what the next sales depend on: a whole check takes minutes where a shop has sold for years. After
an unclean stop SQLite's own check of every table comes first; then slice follows slice, pass follows pass.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from gateway.clock import Clock
from gateway.errors import StoreCorrupt
from gateway.store import check_pass, verify, witness
from gateway.store.check_pass import Position
from gateway.store.database import Connection, Database, open_reader, run_on
from gateway.store.sqlite_errors import is_damage
from gateway.store.witness import Witness, WitnessFailed

log = logging.getLogger(__name__)
T = TypeVar("T")

# After the start, between two slices, and between two passes. Seconds.
FIRST_S = 2.0
PAUSE_S = 0.5
PASS_S = 3600.0
# The position is stored, and the witness's log moved into its file, so often. Slices.
KEEP_EVERY = 100


class StoreCheck:
    """`run` for as long as the daemon lives."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._witness: Witness | None = None
        # Passes that were completed since the start.
        self.passes = 0

    async def run(self) -> None:
        """Check until something is found, which ends the process."""
        await self._clock.sleep(FIRST_S)
        conn = await open_reader(self._db.path)
        try:
            await self._run(conn)
        except StoreCorrupt:
            self._db.fail()
            # The process ends now; nothing more is read here.
            await asyncio.get_running_loop().create_future()
        finally:
            await conn.interrupt()
            await conn.close()
            if self._witness is not None:
                self._witness.close()

    async def _run(self, conn: Connection) -> None:
        await self._on(conn, self._open_witness)
        if self._db.was_running:
            for table in await self._on(conn, verify.tables):
                self._judge(await self._on(conn, lambda c, t=table: verify.integrity(c, t)))  # type: ignore[misc]
                await self._clock.sleep(PAUSE_S)
            log.info("store.checked after=an unclean stop")
        while await self._on(conn, self._fill):
            await self._clock.sleep(PAUSE_S)
        at = await self._on(conn, self._position)
        slices = 0
        while True:
            at, problem = await self._on(conn, lambda c, at=at: self._advance(c, at))  # type: ignore[misc]
            self._judge(problem)
            slices += 1
            over = at == Position()
            self.passes += int(over)
            if over or slices % KEEP_EVERY == 0:
                await self._on(conn, lambda _, at=at: self._keep(at))  # type: ignore[misc]
            await self._clock.sleep(PASS_S if over else PAUSE_S)

    async def _on(self, conn: Connection, fn: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await run_on(conn, fn)
        except UnicodeDecodeError as error:
            raise self._db.report_damage(str(error)) from error
        except sqlite3.Error as error:
            if is_damage(error):
                raise self._db.report_damage(str(error)) from error
            raise

    def _judge(self, problem: str | None) -> None:
        if problem is not None:
            raise self._db.report_damage(problem)

    # --- on the connection's thread -------------------------------------------------------------------

    def _open_witness(self, _: sqlite3.Connection) -> None:
        if self._db.witness is not None:
            try:
                self._witness = self._db.witness.once_more()
            except WitnessFailed as error:
                log.error("store.witness_failed reason=%s", error)

    def _fill(self, conn: sqlite3.Connection) -> bool:
        return self._safely(lambda beside: check_pass.fill(conn, beside), False)

    def _position(self, _: sqlite3.Connection) -> Position:
        return check_pass.parse(self._safely(Witness.position, ""))

    def _keep(self, at: Position) -> None:
        def keep(beside: Witness) -> None:
            beside.remember(at.as_text())
            beside.checkpoint()

        self._safely(keep, None)

    def _advance(self, conn: sqlite3.Connection, at: Position) -> tuple[Position, str | None]:
        try:
            return check_pass.advance(conn, self._witness, at)
        except WitnessFailed as error:
            # It proves nothing about the store; the next start makes a new one.
            log.error("store.witness_damaged reason=%s", error)
            self._witness = None
            return at, None

    def _safely(self, fn: Callable[[Witness], T], otherwise: T) -> T:
        if self._witness is None:
            return otherwise
        try:
            return fn(self._witness)
        except witness.WitnessFailed as error:
            log.error("store.witness_failed reason=%s", error)
            return otherwise
