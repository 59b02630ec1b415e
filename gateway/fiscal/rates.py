"""Keep the tax rates that sales are calculated with; hold each change until a technician has seen it."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Protocol

from gateway.clock import EAT, Clock, from_micros, iso, micros
from gateway.domain.tax import RateTable, TaxRate
from gateway.store import events, meta, unit
from gateway.store.database import Database

log = logging.getLogger(__name__)

# KRA changes rates seldom and from a day on; one read of all codes is some 170 kB (the fake's list). So they are
# read at the start, whenever the unit is well again, on a new day, after a refusal that names them, and
# else this often. Seconds.
RATES_EVERY_S = 3600.0
# A read that brought nothing is repeated after this time, until KRA answers. Seconds.
RETRY_S = 30.0


class RatesLike(Protocol):
    @property
    def rates(self) -> Mapping[str, TaxRate]: ...
    @property
    def problems(self) -> Sequence[str]: ...


class RatesUnit(Protocol):
    async def tax_rates(self) -> RatesLike | None: ...


class TaxRates:
    """Tax rates of one gateway. Call `load` first, then `refresh` whenever the unit answers its probe."""

    def __init__(self, *, db: Database, clock: Clock, client: RatesUnit) -> None:
        self._db = db
        self._clock = clock
        self._client = client
        self._tried_at_ns: int | None = None
        self._read_at_ns: int | None = None
        self._read_on: date | None = None
        # Today's rates, as the unit last served them.
        self.table: RateTable = {}
        # Sentence parts about rows of the unit's list that are not used.
        self.problems: tuple[str, ...] = ()

    async def load(self) -> None:
        self.table = await self._db.read(unit.load_rates)

    def read_soon(self) -> None:
        """Make the next `refresh` read, whatever the last one brought."""
        self._read_at_ns = self._tried_at_ns = None

    async def refresh(self) -> None:
        """Read the rates if they are due."""
        if not self._due():
            return
        now_ns = self._tried_at_ns = self._clock.boottime_ns()
        read = await self._client.tax_rates()
        if read is None:
            return
        self._read_at_ns, self._read_on = now_ns, self._today()
        if tuple(read.problems) != self.problems:
            self.problems = tuple(read.problems)
            log.warning("unit.rates_refused %s", "; ".join(self.problems) or "none")
        await self._apply(read.rates)

    async def seen(self, who: str) -> int:
        """Record that `who` has seen the changes; return how many there were."""
        at = micros(self._clock.now())

        def record(conn: sqlite3.Connection) -> int:
            waiting = changes(conn)
            if waiting:
                meta.remove(conn, meta.RATE_CHANGES)
                events.record(
                    conn, at=at, kind="unit.rates_seen", data={"who": who, "changes": waiting}
                )
            return len(waiting)

        return await self._db.write(record)

    def _due(self) -> bool:
        now_ns = self._clock.boottime_ns()
        if self._tried_at_ns is None:
            return True
        if now_ns - self._tried_at_ns < RETRY_S * 1e9:
            return False
        if self._read_at_ns is None or self._read_on != self._today():
            return True
        return now_ns - self._read_at_ns >= RATES_EVERY_S * 1e9

    def _today(self) -> date:
        return self._clock.now().astimezone(EAT).date()

    async def _apply(self, served: Mapping[str, TaxRate]) -> None:
        merged = {**self.table, **served}
        if merged == self.table:
            return
        at = micros(self._clock.now())
        changed = [
            {"letter": letter, "before": f"{old.percent:f}", "after": f"{rate.percent:f}", "at": at}
            for letter, rate in sorted(served.items())
            if (old := self.table.get(letter)) is not None and old.percent != rate.percent
        ]

        def save(conn: sqlite3.Connection) -> None:
            unit.save_rates(conn, merged, at=at)
            if changed:
                meta.put(conn, meta.RATE_CHANGES, json.dumps([*changes(conn), *changed]))
                for change in changed:
                    events.record(conn, at=at, kind="unit.rate_changed", data=change)

        await self._db.write(save)
        log.warning("unit.rates_read %s", {r.letter: str(r.percent) for r in merged.values()})
        self.table = merged


def changes(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the changes that no technician has seen yet, the oldest first."""
    stored = meta.get(conn, meta.RATE_CHANGES)
    return list(json.loads(stored)) if stored else []


def changes_as_json(conn: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the same with times for people."""
    return [{**change, "at": iso(from_micros(change["at"]))} for change in changes(conn)]
