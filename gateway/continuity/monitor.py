"""Keeps the ceiling: hears KRA through the unit on a schedule, and gates every signature.

`gate` is asked by the signer right before the wire; it reads the clocks itself, so the verdict is of
that moment and not of the last tick. Owns the `continuity` row.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

from gateway.clock import Clock, compact, from_micros, iso, micros, wake_or_sleep
from gateway.continuity.pace import Pace, day_start
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
    kra_now_us,
    signed,
)
from gateway.domain.outcome import SaleOutcome
from gateway.errors import ClockFault, NotSetUp, Suspended
from gateway.store import continuity, events, receipts
from gateway.store.database import Database

log = logging.getLogger(__name__)

# While KRA is not heard it is asked again after this long at first and at most, in seconds: a shop
# that is suspended must sell again within a minute of the link's return.
RETRY_FIRST_S = 2.0
RETRY_LAST_S = 60.0
# A checkpoint at least this often, in seconds; what a power cut can lose of the stopwatch, and the
# wall clock makes even that up.
CHECKPOINT_S = 60.0
# The wall clock going this much otherwise than the boot clock is a step, in microseconds.
STEP_US = 2_000_000
# From here on a unit that refuses the socket is taken to have reached its own ceiling.
NEAR_PERCENT = 90


class ContactLike(Protocol):
    @property
    def ok(self) -> bool: ...
    @property
    def kra_time(self) -> datetime | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def code(self) -> str | None: ...
    @property
    def answered(self) -> bool: ...


class KraLink(Protocol):
    async def contact(self) -> ContactLike: ...


class CeilingMonitor:
    """One per gateway. `load` first, then `run` for as long as the daemon lives.

    `on_change` is part of the transaction that records a change, on the store's thread; `on_changed`
    comes after its commit, on the loop.
    """

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        link: KraLink,
        limits: Limits,
        contact_interval_s: float,
        on_contact: Callable[[], None] = lambda: None,
        on_change: Callable[[sqlite3.Connection, CeilingView], None] = lambda conn, view: None,
        on_changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._link = link
        self._limits = limits
        self._interval_s = contact_interval_s
        self._on_contact = on_contact
        self._on_change = on_change
        self._on_changed = on_changed
        self._pace = Pace()
        # Moved on by the loop and by the store's writer thread, so always as one step.
        self._moving = threading.Lock()
        self._at = first_checkpoint(self._reading())
        self._ask = asyncio.Event()
        self._told: tuple[CeilingState, int | None] | None = None
        self._asked = asyncio.Event()
        self.problem = "KRA has not been asked yet"
        # When the last answered contact of this process began, by CLOCK_BOOTTIME: what was signed before it
        # is on KRA's portal after it.
        self.contact_begun_ns: int | None = None
        # When the first one after the last that failed began; None while the last one failed.
        self.contact_since_ns: int | None = None
        # Set at the end of each contact, answered or not.
        self._contact_ended = asyncio.Event()
        # The last contact that failed, until one succeeds.
        self.failed: ContactLike | None = None
        # Set when the unit itself refused as if its 24 hours were over, until KRA is heard again.
        self.unit_says_over = False

    async def first_answer(self, timeout_s: float) -> None:
        """Back when KRA was asked once, with whatever result, or when the time is up."""
        await wake_or_sleep(self._clock, self._asked, timeout_s)

    async def load(self) -> None:
        stored = await self._db.read(continuity.load)
        if stored is not None:
            self._at = stored
        start = micros(day_start(self._clock.now()))
        first, count = await self._db.read(lambda conn: receipts.since(conn, start))
        self._pace = Pace(first, count)

    # --- asked by others ---------------------------------------------------------------------------

    def view(self) -> CeilingView:
        """The ceiling at this very moment."""
        return ceiling(self._move(lambda at: at), self._limits)

    def _move(self, change: Callable[[Checkpoint], Checkpoint]) -> Checkpoint:
        """The stopwatches as of now, changed."""
        with self._moving:
            self._at = change(advance(self._at, self._reading()))
            return self._at

    def gate(self) -> None:
        """Back if a receipt may be signed now. Suspended or ClockFault otherwise."""
        view = self.view()
        if view.state is CeilingState.CLOCK_FAULT:
            raise ClockFault(
                f"The gateway's clock shows {iso(self._clock.now())}, which cannot be right. "
                "Set the clock; until then nothing is signed.",
                retry_after_s=60,
                extra={"signed": "no", "clocks": self.clocks()},
            )
        if view.state is CeilingState.NOT_SET_UP:
            raise NotSetUp(
                "KRA was not reached yet since this gateway was installed. This sale is not signed.",
                retry_after_s=60,
                extra={"signed": "no", "ceiling": self.as_json()},
            )
        if view.state is CeilingState.SUSPENDED:
            raise Suspended(
                "Selling is suspended: KRA has not been heard for "
                f"{_hours(view.limit_us)}. Bring the internet back; selling goes on by itself then.",
                retry_after_s=60,
                extra={"signed": "no", "ceiling": self.as_json()},
            )
        if self.unit_says_over:
            raise Suspended(
                "Selling is suspended: the control unit will not sign without KRA. Bring the "
                "internet back; selling goes on by itself then.",
                retry_after_s=60,
                extra={"signed": "no", "ceiling": self.as_json()},
            )

    def resend_gate(self) -> None:
        """Back if a sale in doubt may be sent again now. Near the ceiling a unit that hangs up has
        perhaps reached its own: then the one resend is kept until KRA is heard."""
        self.gate()
        view = self.view()
        if view.state is not CeilingState.ONLINE and (view.used_percent or 0) >= NEAR_PERCENT:
            raise Suspended("KRA must be heard before this sale is sent again.")

    def heard_from_unit(self, outcome: SaleOutcome) -> None:
        """What the unit said to a sale: its own refusal at the ceiling ends selling here, too.

        Nobody knows how it says so (etims.md 0.3): 894 and 838 while KRA is not heard are taken at
        their word; a refused socket or a bare 503 only near our own limit, since a crash looks alike.
        """
        if not getattr(outcome, "ceiling_hint", False):
            return
        view = self.view()
        by_code = getattr(outcome, "code", None) is not None
        near = (view.used_percent or 0) >= NEAR_PERCENT
        if view.state is not CeilingState.ONLINE and (by_code or near):
            if not self.unit_says_over:
                log.error("ceiling.unit_refuses reason=%s", getattr(outcome, "reason", ""))
            self.unit_says_over = True
        self.contact_soon()

    def record_signed(self, conn: sqlite3.Connection) -> None:
        """Part of the commit of a signed sale: reading B's stopwatch survives a crash."""
        self._pace.signed(micros(self._clock.now()))
        # Each time, not only the first: the transaction of the first may have been rolled back.
        continuity.save(conn, self._move(signed))

    def contact_soon(self) -> None:
        """Ask KRA now instead of at the next heartbeat."""
        self._ask.set()

    async def contact_after(self, boottime_ns: int, timeout_s: float) -> bool:
        """Ask KRA now; return whether a contact that began at or after `boottime_ns` was answered. A contact
        under way may have begun before, so there are two chances."""
        for _ in range(2):
            self._contact_ended.clear()
            self._ask.set()
            await wake_or_sleep(self._clock, self._contact_ended, timeout_s)
            if self.contact_begun_ns is not None and self.contact_begun_ns >= boottime_ns:
                return True
        return False

    def as_json(self) -> dict[str, Any]:
        """The `ceiling` object of answers and of `/v1/status`: state, what is left, and until when."""
        view = self.view()
        state = CeilingState.SUSPENDED if self.unit_says_over and not view.blocks else view.state
        left_us = 0 if state is CeilingState.SUSPENDED else view.left_us
        left_s = None if left_us is None else left_us // 1_000_000
        stops_at = None
        if left_us and state in (CeilingState.OFFLINE, CeilingState.WARNING):
            stops_at = iso(self._clock.now() + timedelta(microseconds=left_us))
        return {
            "state": state,
            "secondsLeft": left_s,
            "limitSeconds": view.limit_us // 1_000_000,
            "usedPercent": view.used_percent,
            "warnStep": view.warn_step,
            "reading": view.rules,
            "receiptsLeft": self._pace.left(micros(self._clock.now()), left_us),
            "stopsAt": stops_at,
        }

    def clocks(self) -> dict[str, str | None]:
        """The three clocks side by side: this machine's, KRA's by its last stamp, and the latest time
        this gateway has ever seen."""
        self.view()
        kra = kra_now_us(self._at)
        return {
            "gateway": iso(self._clock.now()),
            "kra": None if kra is None else iso(from_micros(kra)),
            "latestSeen": iso(from_micros(self._at.high_water_us)),
        }

    # --- the loop ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Hear KRA at once and then on schedule; checkpoint; tell changes of state."""
        pause = RETRY_FIRST_S
        next_contact_us = 0
        wall_us, boot_us = self._reading().wall_us, self._boot_us()
        while True:
            now_us = self._boot_us()
            stepped_us = (self._reading().wall_us - wall_us) - (now_us - boot_us)
            wall_us, boot_us = self._reading().wall_us, now_us
            stepped = abs(stepped_us) > STEP_US
            if stepped:
                # Somebody set the clock: KRA's stamp says whether it is right now.
                log.warning("clock.stepped seconds=%.1f", stepped_us / 1e6)
            if now_us >= next_contact_us or self._ask.is_set() or stepped:
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
            await wake_or_sleep(
                self._clock, self._ask, min(due_s, self._until_change_s(), CHECKPOINT_S)
            )

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
        begun_ns = self._clock.boottime_ns()
        try:
            result = await self._link.contact()
            if result.ok:
                self.contact_begun_ns = begun_ns
                if self.contact_since_ns is None:
                    self.contact_since_ns = begun_ns
            else:
                self.contact_since_ns = None
        finally:
            self._contact_ended.set()
        if not result.ok:
            self.problem, self.failed = result.reason, result
            return False
        self.problem, self.failed = "", None
        self.unit_says_over = False
        kra_us = micros(result.kra_time) if result.kra_time else None
        apart_us = self._limits.clock_apart_us
        now = self._move(lambda at: contacted(at, kra_us=kra_us, apart_us=apart_us))
        stamp = compact(result.kra_time) if result.kra_time else None
        wall_us = now.reading.wall_us
        # As it stands when it is written: a receipt may have been signed meanwhile.
        await self._db.write_soft(
            lambda conn: continuity.save(conn, self._at, contact_at=wall_us, kra_time=stamp)
        )
        self._on_contact()
        return True

    async def _tick(self) -> None:
        view = self.view()
        state = CeilingState.SUSPENDED if self.unit_says_over and not view.blocks else view.state
        if (state, view.warn_step) == self._told:
            await self._db.write_soft(lambda conn: continuity.save(conn, self._at))
            return
        told = (state, view.warn_step)
        before, self._told = self._told, told
        log.warning("ceiling.changed state=%s step=%s before=%s", state, view.warn_step, before)

        def change(conn: sqlite3.Connection) -> None:
            continuity.save(conn, self._at)
            events.record(
                conn,
                at=micros(self._clock.now()),
                kind="ceiling.changed",
                data={
                    "state": state,
                    "before": before[0] if before else None,
                    "warnStep": view.warn_step,
                    "secondsLeft": _seconds(view.left_us),
                },
            )
            self._on_change(conn, view)

        await self._db.write(change)
        self._on_changed()

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
