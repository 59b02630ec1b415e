"""Watches the control unit: initialises it once, reads its tax rates, and knows whether it can sign."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from gateway.clock import Clock, micros
from gateway.domain.tax import RateTable, TaxRate
from gateway.store import events, meta, unit
from gateway.store.database import Database

log = logging.getLogger(__name__)

# A unit that is starting is asked often, because a shop waits for it; one that runs, now and then.
# Seconds.
STARTING_S = 0.03
RUNNING_S = 10.0
RATES_EVERY_S = 6 * 3600.0
_INIT_KEY = "unit.initialised"


class InitialisedLike(Protocol):
    @property
    def already(self) -> bool: ...
    @property
    def info(self) -> Mapping[str, Any] | None: ...


class WatchedUnit(Protocol):
    async def healthy(self) -> str | None: ...
    async def initialise(self, serial: str) -> InitialisedLike | str: ...
    async def tax_rates(self) -> dict[str, TaxRate] | None: ...


class UnitWatch:
    """`first_look` once at start, then `run` for as long as the daemon lives."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        client: WatchedUnit,
        serial: str,
        tell: Callable[[bool, str | None], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._client = client
        self._serial = serial
        self._tell = tell
        self._rates: RateTable = {}
        self._rates_at_ns: int | None = None
        self._last: tuple[bool, str | None] | None = None
        self._silent_since_ns: int | None = None

    @property
    def rates(self) -> RateTable:
        """Today's tax rates, as the unit last served them."""
        return self._rates

    @property
    def silent_s(self) -> float:
        """For how long the unit has not given one usable answer, in seconds."""
        if self._silent_since_ns is None:
            return 0.0
        return (self._clock.boottime_ns() - self._silent_since_ns) / 1e9

    async def load(self) -> None:
        self._rates = await self._db.read(unit.load_rates)

    async def first_look(self, timeout_s: float) -> bool:
        """Ask until it can sign, or the time is up; the daemon starts either way."""
        end_ns = self._clock.boottime_ns() + int(timeout_s * 1e9)
        while not await self.look():
            if self._clock.boottime_ns() >= end_ns:
                return False
            await self._clock.sleep(STARTING_S)
        return True

    async def run(self) -> None:
        while True:
            healthy = await self.look()
            await self._clock.sleep(RUNNING_S if healthy else 1.0)

    async def look(self) -> bool:
        """One look; true when the unit can sign."""
        problem = await self._client.healthy()
        if problem is not None and not await self._db.read(lambda conn: meta.get(conn, _INIT_KEY)):
            # Before its one initialisation a unit refuses everything; whatever it says, it is tried.
            problem = await self._initialise(problem)
        elif problem is None and not await self._db.read(lambda c: meta.get(c, _INIT_KEY)):
            await self._initialise("")
        if problem is None:
            await self._refresh_rates()
        self._note(problem)
        return problem is None

    def _note(self, problem: str | None) -> None:
        if problem is None:
            self._silent_since_ns = None
        elif self._silent_since_ns is None:
            self._silent_since_ns = self._clock.boottime_ns()
        state = (problem is None, problem)
        if state != self._last:
            level = logging.INFO if problem is None else logging.WARNING
            log.log(level, "unit.changed healthy=%s reason=%s", *state)
            self._last = state
            self._tell(*state)

    async def _initialise(self, problem: str) -> str | None:
        """`selectInitInfo`, once in the life of the device: repeated calls have been seen to damage
        its record at KRA (etims.md 1.5), so any clear answer ends it."""
        result = await self._client.initialise(self._serial)
        if isinstance(result, str):
            return f"{problem or 'not initialised'}; initialising: {result}"
        info = dict(result.info or {})
        at = micros(self._clock.now())
        last = max((_number(info.get(k)) for k in ("lastSaleInvcNo", "lastInvcNo")), default=0)

        def record(conn: Any) -> None:
            meta.put(conn, _INIT_KEY, "902" if result.already else "000")
            unit.remember_device(
                conn,
                sdc_id=info.get("sdcId"),
                mrc_no=info.get("mrcNo"),
                info=json.dumps(info, default=str).encode() if info else None,
                last_invc_no=last or None,
                at=at,
            )
            events.record(conn, at=at, kind="unit.initialised", data={"already": result.already})

        await self._db.write(record)
        log.info("unit.initialised already=%s", result.already)
        return await self._client.healthy()

    async def _refresh_rates(self) -> None:
        now_ns = self._clock.boottime_ns()
        if self._rates_at_ns is not None and now_ns - self._rates_at_ns < RATES_EVERY_S * 1e9:
            return
        rates = await self._client.tax_rates()
        if rates is None:
            return
        self._rates_at_ns = now_ns
        merged = {**self._rates, **rates}
        if merged != self._rates:
            at = micros(self._clock.now())
            await self._db.write(lambda conn: unit.save_rates(conn, merged, at=at))
            log.info("unit.rates_read %s", {r.letter: str(r.percent) for r in merged.values()})
        self._rates = merged


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
