"""Watch the control unit: initialise it once, keep its tax rates, and judge whether it can sign.

Two sources: a probe (`selectCodes`), and the answers to sales. A unit whose memory is full, or that does not
accept this shop's branch, answers every probe well; so a cause that an answer to a sale named stays until a
sale is signed. The unit's restart ends it, too, where it was the unit's own state.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.domain.outcome import Cause, NotSent, Refused, SaleOutcome, Signed, Unknown
from gateway.domain.tax import RateTable
from gateway.fiscal.rates import RatesUnit, TaxRates
from gateway.fiscal.set_up import Failure
from gateway.store import events, meta, unit
from gateway.store.database import Database

log = logging.getLogger(__name__)

# A unit that is starting is asked often, because a shop waits for it; one that runs, now and then.
# Seconds.
STARTING_S = 0.03
RUNNING_S = 10.0
# For so long after a sale was refused for a cause no customer is asked for M-Pesa money; then one more sale
# may try, because only a sale can show that the cause is gone. Seconds.
MONEY_WAITS_S = 300.0
_INIT_KEY = "unit.initialised"
# Members of `data.info` (etims.md 1.5): the last number of the sales' series, and what else shows that the
# unit has signed. Purchases are no sign of that.
_LAST_INVC_NO = ("lastSaleInvcNo", "lastInvcNo")
_SIGNS_OF_USE = ("lastSaleRcptNo", "lastTrainInvcNo", "lastProfrmInvcNo", "lastCopyInvcNo")


@runtime_checkable
class InitialisedLike(Protocol):
    @property
    def already(self) -> bool: ...
    @property
    def info(self) -> Mapping[str, Any] | None: ...


class NotInitialisedLike(Protocol):
    @property
    def reason(self) -> str: ...
    @property
    def code(self) -> str | None: ...
    @property
    def answered(self) -> bool: ...


class WatchedUnit(RatesUnit, Protocol):
    async def healthy(self) -> str | None: ...
    async def initialise(self, serial: str) -> InitialisedLike | NotInitialisedLike: ...


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
        unit_was_used: Callable[[str], Awaitable[None]],
    ) -> None:
        """`unit_was_used`: called with how it is known that the unit has signed before, ahead of everything else."""
        self._db = db
        self._clock = clock
        self._client = client
        self._serial = serial
        self._tell = tell
        self.tax_rates = TaxRates(db=db, clock=clock, client=client)
        self._last: tuple[bool, str | None] | None = None
        self._silent_since_ns: int | None = None
        self._problem: str | None = "not started yet"
        # What an answer to a sale named last, until a sale is signed.
        self.cause: Cause | None = None
        self._cause_at_ns = 0
        self._look_now = asyncio.Event()
        # "000" or "902" once the unit is initialised; until then `failure` is why it is not.
        self.initialised: str | None = None
        self.failure: Failure | None = None
        self._unit_was_used = unit_was_used

    @property
    def rates(self) -> RateTable:
        """Today's tax rates, as the unit last served them."""
        return self.tax_rates.table

    @property
    def silent_s(self) -> float:
        """For how long the unit has not given one usable answer, in seconds."""
        if self._silent_since_ns is None:
            return 0.0
        return (self._clock.boottime_ns() - self._silent_since_ns) / 1e9

    @property
    def may_try(self) -> bool:
        """Return True when the cause that an answer named is old enough for one more paid sale to try."""
        if self._problem is not None or self.cause is None:
            return False
        return (self._clock.boottime_ns() - self._cause_at_ns) / 1e9 >= MONEY_WAITS_S

    async def load(self) -> None:
        await self.tax_rates.load()
        self.initialised = await self._db.read(lambda conn: meta.get(conn, _INIT_KEY))

    def record_outcome(self, outcome: SaleOutcome) -> None:
        """Record what the answer to a sale shows about the unit."""
        match outcome:
            case Signed():
                self.cause = None
            case Refused(cause=cause) | NotSent(cause=cause) | Unknown(cause=cause) if cause:
                self.cause = cause
                self._cause_at_ns = self._clock.boottime_ns()
                if cause.code in ("RATES", "AMOUNTS"):
                    self.tax_rates.read_soon()
                self._look_now.set()
            case NotSent():
                # Not one byte left: the next probe shows it before the till tries again.
                self._look_now.set()
                return
            case _:
                return
        self._publish()

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
            await wake_or_sleep(self._clock, self._look_now, RUNNING_S if healthy else 1.0)
            self._look_now.clear()

    async def look(self) -> bool:
        """One look; true when the unit can sign."""
        problem = await self._client.healthy()
        if self.initialised is None:
            # Before its one initialisation a unit refuses everything; whatever it says, it is tried.
            found = await self._initialise(problem or "")
            problem = problem and found
        if problem is None and self._problem is not None:
            # It was started again, or it is the first look.
            self.tax_rates.read_soon()
            if self.cause is not None and not self.cause.ours:
                self.cause = None
        self._note(problem)
        if problem is None:
            await self.tax_rates.refresh()
        return problem is None

    def _note(self, problem: str | None) -> None:
        self._problem = problem
        if problem is None:
            self._silent_since_ns = None
        elif self._silent_since_ns is None:
            self._silent_since_ns = self._clock.boottime_ns()
        self._publish()

    def _publish(self) -> None:
        reason = self._problem
        if reason is None and self.cause is not None:
            reason = self.cause.sentence
        state = (reason is None, reason)
        if state != self._last:
            level = logging.INFO if reason is None else logging.WARNING
            log.log(level, "unit.changed healthy=%s reason=%s", *state)
            self._last = state
            self._tell(*state)

    async def _initialise(self, problem: str) -> str | None:
        """`selectInitInfo`, once in the life of the device: repeated calls have been seen to damage
        its record at KRA (etims.md 1.5), so any clear answer ends it."""
        result = await self._client.initialise(self._serial)
        if not isinstance(result, InitialisedLike):
            self.failure = Failure(result.reason, result.code, result.answered)
            return f"{problem or 'not initialised'}; initialising: {result.reason}"
        info = dict(result.info or {})
        at = micros(self._clock.now())
        code = "902" if result.already else "000"
        last = max((_number(info.get(name)) for name in _LAST_INVC_NO), default=0)
        used = _used_before(result.already, info, last)
        # Before anything is recorded: from here on no sale may take a number.
        if used is not None:
            await self._unit_was_used(used)

        def record(conn: Any) -> None:
            meta.put(conn, _INIT_KEY, code)
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
        self.initialised, self.failure = code, None
        log.info("unit.initialised already=%s", result.already)
        return await self._client.healthy()


def _used_before(already: bool, info: Mapping[str, Any], last_invc_no: int) -> str | None:
    """Return how it is known that this unit has signed before, None where it is not."""
    if already:
        return "KRA has this control unit as set up before (code 902)"
    if last_invc_no:
        return f"KRA has {last_invc_no} as the last invoice number of this control unit"
    if any(_number(info.get(name)) for name in _SIGNS_OF_USE):
        return "KRA has receipts of this control unit"
    return None


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        return 0
