"""Keeps the ceiling: hears KRA through the unit on a schedule, and gates every signature.

`gate` is asked by the signer right before the wire; it reads the clocks itself, so the verdict is of
that moment and not of the last tick. Owns the `continuity` row.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from gateway.clock import Clock, compact, iso, micros
from gateway.domain.ceiling import (
    HOUR_US,
    CeilingState,
    CeilingView,
    Checkpoint,
    ClockReading,
    Limits,
    advance,
    ceiling,
    contacted,
    first_checkpoint,
    signed,
)
from gateway.errors import ClockFault, Suspended
from gateway.store import continuity, events
from gateway.store.database import Database

log = logging.getLogger(__name__)

# While KRA is not heard it is asked again after this long at first and at most, in seconds: a shop
# that is suspended must sell again within a minute of the link's return.
RETRY_FIRST_S = 2.0
RETRY_LAST_S = 60.0
# A checkpoint at least this often, in seconds; what a power cut can lose of the stopwatch, and the
# wall clock makes even that up.
CHECKPOINT_S = 60.0


class ContactLike(Protocol):
    @property
    def ok(self) -> bool: ...
    @property
    def kra_time(self) -> datetime | None: ...
    @property
    def reason(self) -> str: ...


class KraLink(Protocol):
    async def contact(self) -> ContactLike: ...


class CeilingMonitor:
    """One per gateway. `load` first, then `run` for as long as the daemon lives."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        link: KraLink,
        limits: Limits,
        contact_interval_s: float,
        max_clock_ahead_s: float,
        on_contact: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._link = link
        self._limits = limits
        self._interval_s = contact_interval_s
        self._max_ahead_s = max_clock_ahead_s
        self._on_contact = on_contact
        self._at = first_checkpoint(self._reading())
        self._ask = asyncio.Event()
        self._told: CeilingState | None = None
        self._asked = asyncio.Event()
        self.problem = "KRA has not been asked yet"
        # Set when the unit itself refused as if its 24 hours were over, until KRA is heard again.
        self.unit_says_over = False

    async def first_answer(self, timeout_s: float) -> None:
        """Back when KRA was asked once, with whatever result, or when the time is up."""
        asked = asyncio.ensure_future(self._asked.wait())
        nap = asyncio.ensure_future(self._clock.sleep(timeout_s))
        try:
            await asyncio.wait({asked, nap}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            nap.cancel()

    async def load(self) -> None:
        stored = await self._db.read(continuity.load)
        if stored is not None:
            self._at = stored

    # --- asked by others ---------------------------------------------------------------------------

    def view(self) -> CeilingView:
        """The ceiling at this very moment."""
        self._at = advance(self._at, self._reading())
        return ceiling(self._at, self._limits)

    def gate(self) -> None:
        """Back if a receipt may be signed now. Suspended or ClockFault otherwise."""
        view = self.view()
        if view.state is CeilingState.CLOCK_FAULT:
            raise ClockFault(
                f"The gateway's clock shows {iso(self._clock.now())}, which is in its own past. "
                "Set the clock right; until then nothing is signed.",
                retry_after_s=60,
                extra={"signed": "no"},
            )
        if view.state is CeilingState.SUSPENDED or self.unit_says_over:
            raise Suspended(
                "Selling is suspended: KRA has not been heard for "
                f"{_hours(view.limit_us)}. Bring the internet back; selling goes on by itself then.",
                retry_after_s=60,
                extra={"signed": "no", "ceiling": self.as_json()},
            )

    def record_signed(self, conn: sqlite3.Connection) -> None:
        """Part of the commit of a signed sale: reading B's stopwatch survives a crash."""
        now = signed(advance(self._at, self._reading()))
        if now.unsent_age_us == 0:
            continuity.save(conn, now)
        self._at = now

    def contact_soon(self) -> None:
        """Ask KRA now instead of at the next heartbeat."""
        self._ask.set()

    def as_json(self) -> dict[str, Any]:
        """The `ceiling` object of answers and of `/v1/status`."""
        view = self.view()
        state = CeilingState.SUSPENDED if self.unit_says_over and not view.blocks else view.state
        return {
            "state": state,
            "secondsLeft": None if view.left_us is None else view.left_us // 1_000_000,
            "limitSeconds": view.limit_us // 1_000_000,
            "usedPercent": view.used_percent,
            "warnStep": view.warn_step,
            "reading": view.rules,
        }

    # --- the loop ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hear KRA at once and then on schedule; checkpoint; tell changes of state."""
        pause = RETRY_FIRST_S
        next_contact_us = 0
        while True:
            now_us = self._boot_us()
            if now_us >= next_contact_us or self._ask.is_set():
                self._ask.clear()
                if await self._contact():
                    pause = RETRY_FIRST_S
                    wait_s = self._interval_s
                else:
                    # Full jitter on the upper half, so that a street of shops does not ask in step.
                    wait_s = pause * (0.5 + random.random() / 2)  # noqa: S311 - no secret
                    pause = min(pause * 2, RETRY_LAST_S, self._interval_s)
                next_contact_us = self._boot_us() + int(wait_s * 1_000_000)
            await self._tick()
            self._asked.set()
            due_s = max(0.05, (next_contact_us - self._boot_us()) / 1_000_000)
            await self._wait(min(due_s, self._until_change_s(), CHECKPOINT_S))

    def _until_change_s(self) -> float:
        """Seconds to the next moment at which the state may change by time alone."""
        view = self.view()
        if view.left_us is None:
            return 1.0
        steps = [view.left_us]
        age_us = view.limit_us - view.left_us
        steps += [view.limit_us * step // 100 - age_us for step in self._limits.warn_percent]
        if view.contact_age_us is not None:
            steps.append(self._limits.online_us - view.contact_age_us)
        ahead = [step for step in steps if step > 0]
        return max(0.05, min(ahead, default=60_000_000) / 1_000_000)

    async def _contact(self) -> bool:
        result = await self._link.contact()
        if not result.ok:
            self.problem = result.reason
            return False
        self.problem = ""
        self.unit_says_over = False
        rebase = self._agrees(result.kra_time)
        now = contacted(advance(self._at, self._reading()), rebase=rebase)
        self._at = now
        stamp = compact(result.kra_time) if result.kra_time else None
        wall_us = now.reading.wall_us
        await self._db.write_soft(
            lambda conn: continuity.save(conn, now, contact_at=wall_us, kra_time=stamp)
        )
        self._on_contact()
        return True

    def _agrees(self, kra_time: datetime | None) -> bool:
        if kra_time is None:
            return False
        apart_s = abs((self._clock.now() - kra_time).total_seconds())
        return apart_s <= self._max_ahead_s

    async def _tick(self) -> None:
        view = self.view()
        at = self._at
        if view.state is self._told:
            await self._db.write_soft(lambda conn: continuity.save(conn, at))
            return
        before, self._told = self._told, view.state
        log.warning("ceiling.changed state=%s before=%s", view.state, before)

        def change(conn: sqlite3.Connection) -> None:
            continuity.save(conn, at)
            events.record(
                conn,
                at=micros(self._clock.now()),
                kind="ceiling.changed",
                data={"state": view.state, "before": before, "secondsLeft": _seconds(view.left_us)},
            )

        await self._db.write(change)

    async def _wait(self, seconds: float) -> None:
        ask = asyncio.ensure_future(self._ask.wait())
        nap = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({ask, nap}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ask.cancel()
            nap.cancel()

    def _reading(self) -> ClockReading:
        clock = self._clock
        return ClockReading(micros(clock.now()), clock.boottime_ns(), clock.boot_id())

    def _boot_us(self) -> int:
        return self._clock.boottime_ns() // 1000

    @property
    def checkpoint(self) -> Checkpoint:
        return self._at


def _hours(limit_us: int) -> str:
    hours = limit_us / HOUR_US
    return f"{hours:g} hours"


def _seconds(value_us: int | None) -> int | None:
    return None if value_us is None else value_us // 1_000_000
