"""Where the truth about a lost answer can be found: one small class per source.

Each says HoldsIt (with the receipt), HoldsItNot, or CannotTell. A source that cannot tell costs
time; a source that guesses costs a second fiscal receipt. So every doubt ends in CannotTell.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.clock import from_compact
from gateway.domain.invoice import Invoice
from gateway.domain.outcome import (
    Duplicate,
    NotSent,
    Refused,
    SaleOutcome,
    Signed,
    SignedData,
    Unknown,
)
from gateway.errors import GatewayError
from gateway.store.invoices import InvoiceRow

# A receipt signed this long before or after the sale was written ahead is not this sale's: the unit's
# clock and ours may differ a little, a day's difference is another sale. Seconds.
TIME_APART_S = 6 * 3600


@dataclass(frozen=True, slots=True)
class HoldsIt:
    """The unit holds this sale's receipt, and here it is."""

    data: SignedData
    raw: bytes
    reason: str

    def story(self) -> dict[str, Any]:
        return {"reason": self.reason, "rcptNo": self.data.rcpt_no}


@dataclass(frozen=True, slots=True)
class HoldsItNot:
    """The unit certainly does not hold it: the till may send it again, as if for the first time."""

    reason: str

    def story(self) -> dict[str, Any]:
        return {"reason": self.reason}


@dataclass(frozen=True, slots=True)
class CannotTell:
    """No end. `needs_person`: asking again will not change it. `ends_looking`: what this source saw
    makes the sources after it dangerous (a resend of what is known to be signed)."""

    reason: str
    needs_person: bool = False
    ends_looking: bool = False

    def story(self) -> dict[str, Any]:
        return {"reason": self.reason, "needsPerson": self.needs_person}


Finding = HoldsIt | HoldsItNot | CannotTell


class Evidence(Protocol):
    @property
    def name(self) -> str: ...

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding: ...


@dataclass(frozen=True, slots=True)
class StoredSale:
    """What the unit holds under a number: the receipt and what tells whose it is. Cents; `buyer_pin`
    None for a walk-in; `confirmed_at` (cfmDt) None where the source does not say it."""

    data: SignedData
    total_cents: int
    buyer_pin: str | None
    confirmed_at: str | None
    raw: bytes


class ReadingUnit(Protocol):
    async def stored_sale(self, invc_no: int) -> StoredSale | str | None:
        """The sale under `invc_no`, None when the unit says it holds none, a str when it cannot say."""
        ...


class ReadBack:
    """What the unit itself holds under the sale's number: its read-back endpoint, where the build has
    one (ZRA's has; Kenya's is unknown), or its own database file. `name` says which.

    "Not there" may be said too early by a unit that is still signing, so it only sends the resolver
    on to the next source. `at_rest(row)` says when it is the end: the unit has been started anew
    since the bytes were last sent, so nothing of them can still be on its way.
    """

    def __init__(
        self,
        unit: ReadingUnit,
        name: str = "read-back",
        at_rest: Callable[[InvoiceRow], bool] = lambda row: False,
    ) -> None:
        self._unit = unit
        self.name = name
        self._at_rest = at_rest

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding:
        assert row.invc_no is not None
        found = await self._unit.stored_sale(row.invc_no)
        if found is None and self._at_rest(row):
            return HoldsItNot(
                "the unit was started anew since, and holds nothing under this number"
            )
        if found is None:
            return CannotTell("the unit holds nothing under this number yet")
        if isinstance(found, str):
            return CannotTell(found)
        return attach_or_refuse(row, invoice, found)


def attach_or_refuse(row: InvoiceRow, invoice: Invoice, found: StoredSale) -> Finding:
    """HoldsIt only when total, buyer and time are this sale's (a foreign sale was once caught so).
    Where the source does not say what time was sent, the unit's own must be near it."""
    assert row.unit_request is not None
    sent = json.loads(row.unit_request)
    differs = []
    if found.total_cents != row.total_cents:
        differs.append("total")
    if (found.buyer_pin or None) != (sent.get("custTin") or None):
        differs.append("buyer")
    if found.confirmed_at is not None:
        same_time = found.confirmed_at == sent["cfmDt"]
    else:
        apart = found.data.scu_time - from_compact(sent["cfmDt"])
        same_time = abs(apart.total_seconds()) <= TIME_APART_S
    if not same_time:
        differs.append("time")
    if differs:
        return CannotTell(
            f"the unit holds another sale under this number ({', '.join(differs)} differ)",
            needs_person=True,
        )
    return HoldsIt(found.data, found.raw, "found in the unit with the same total, buyer and time")


class CountingUnit(Protocol):
    async def last_counter(self) -> int | str:
        """The unit's last totRcptNo; a str when it cannot say."""
        ...


class Counters:
    """Whether the unit has used up a receipt number since the last sale stored here (etims.md 8.3 c).

    A counter that moved says that the sale was signed, and by that forbids every resend. One that
    did not move says nothing for certain: a slow unit may still be at it.
    """

    name = "counters"

    def __init__(self, unit: CountingUnit, last_stored: Callable[[], Awaitable[int]]) -> None:
        self._unit = unit
        self._last_stored = last_stored

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding:
        counted = await self._unit.last_counter()
        if isinstance(counted, str):
            return CannotTell(counted)
        stored = await self._last_stored()
        if counted == stored:
            return CannotTell(f"the unit's counter stands at {counted}, as before this sale")
        if counted == stored + 1:
            reason = f"the unit's counter moved from {stored} to {counted}: this sale was signed"
        elif counted > stored:
            reason = (
                f"the unit's counter is at {counted}, {counted - stored} past the last receipt "
                "here: somebody else signs with this unit, or this store is an old copy"
            )
        else:
            reason = (
                f"the unit's counter is at {counted}, behind {stored}, the last receipt here: "
                "the unit's data were put back"
            )
        return CannotTell(reason, needs_person=True, ends_looking=True)


# The first sending and one more.
ATTEMPTS_MAX = 2
# Counts a resend of the row (+1 before it, -1 when not one byte left), durably.
Count = Callable[[InvoiceRow, int], Awaitable[None]]


class ResendingUnit(Protocol):
    async def send_sale(self, body: bytes) -> SaleOutcome: ...

    async def healthy(self) -> str | None:
        """None when the unit answers a protocol probe well; else why it does not."""
        ...


class Resend:
    """One deliberate resend of the same bytes under the same invcNo (etims.md 8.3, step a).

    It leans on the unit's own duplicate guard, which rests on one live report for Kenya: so it is
    made once in the life of a doubt, counted durably before it leaves, and only to a unit that has
    just answered a probe. The gate is asked again right before the wire. A duplicate answer says that the unit knows the number, not that it holds
    this sale's receipt, and a full disk answers 899 too.
    """

    name = "resend"

    def __init__(self, unit: ResendingUnit, gate: Callable[[], None], count: Count) -> None:
        self._unit = unit
        self._gate = gate
        self._count = count
        self._said: dict[str, CannotTell] = {}

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding:
        if row.attempts >= ATTEMPTS_MAX:
            return self._said.get(
                row.id, CannotTell("sent again once already, without an end", needs_person=True)
            )
        if (shut := self._shut()) is not None:
            return shut
        problem = await self._unit.healthy()
        if problem is not None:
            return CannotTell(f"the unit does not answer well: {problem}")
        assert row.unit_request is not None
        await self._count(row, 1)
        if (shut := self._shut()) is not None:
            await self._count(row, -1)
            return shut
        outcome = await self._unit.send_sale(row.unit_request)
        match outcome:
            case Signed(data=data, raw=raw):
                return HoldsIt(data, raw, "answered when sent again")
            case Refused(code=code, message=message, by_bytes=False):
                return self._remember(
                    row, f"answered {code} {message}: perhaps because the first sending was taken"
                )
            case Refused(code=code, message=message):
                # The refusal itself is told, and stored, when the till asks again.
                return HoldsItNot(f"refused when sent again: {code} {message}")
            case NotSent(reason=reason):
                await self._count(row, -1)
                return CannotTell(f"could not be sent again: {reason}")
            case Duplicate(code=code, message=message):
                return self._remember(row, f"answered {code} {message}: the number is known to it")
            case Unknown(code=code, reason=reason) if code is not None:
                problem = await self._unit.healthy()
                after = "though it is healthy" if problem is None else f"and then: {problem}"
                return self._remember(row, f"answered {code} ({reason}) {after}")
            case Unknown(reason=reason):
                return self._remember(row, f"no answer to the resend either: {reason}")

    def _shut(self) -> CannotTell | None:
        try:
            self._gate()
        except GatewayError as error:
            return CannotTell(f"nothing may be signed now ({error.code})")
        return None

    def _remember(self, row: InvoiceRow, reason: str) -> CannotTell:
        # One doubt at a time: what an earlier sale's resend said is of no more use.
        self._said = {row.id: CannotTell(reason, needs_person=True)}
        return self._said[row.id]
