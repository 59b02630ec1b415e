"""The watch over the control unit, put together: its health for the pages, and what paid sales wait for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gateway.clock import Clock
from gateway.fiscal.unit_watch import UnitWatch
from gateway.settings import Settings
from gateway.status.views import UnitHealth
from gateway.store import unit
from gateway.store.database import Database
from gateway.vscu.client import UnitClient


async def watch_unit(
    settings: Settings,
    clock: Clock,
    db: Database,
    client: UnitClient,
    unit_was_used: Callable[[str], Awaitable[None]],
) -> tuple[UnitHealth, UnitWatch]:
    """Return the unit's health and the loaded watch that keeps it; the client reports outcomes to it."""
    part = settings.unit
    await db.write(lambda conn: unit.assume_ids(conn, sdc_id=part.sdc_id, mrc_no=part.mrc_no))
    health = UnitHealth()

    def record(healthy: bool, reason: str | None) -> None:
        health.healthy, health.reason, health.cause = healthy, reason, watch.cause

    watch = UnitWatch(
        db=db,
        clock=clock,
        client=client,
        serial=part.serial,
        tell=record,
        unit_was_used=unit_was_used,
    )
    await watch.load()
    client.on_outcome = watch.record_outcome
    health.rate_problems = lambda: watch.tax_rates.problems
    return health, watch


def money_waits_for(health: UnitHealth, watch: UnitWatch) -> str | None:
    """Return why no customer is asked for money at present, None when there is no reason."""
    if health.healthy or watch.may_try:
        return None
    return health.reason or "not started yet"
