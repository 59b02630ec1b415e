"""Where the truth about a lost answer can be found: one small class per source.

Each says HoldsIt (with the receipt), HoldsItNot, or CannotTell. A source that cannot tell costs
time; a source that guesses costs a second fiscal receipt. So every doubt ends in CannotTell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

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
from gateway.fiscal.identity import Match, StoredSale, whose
from gateway.fiscal.rules import Circumstances, Fact, Verdict, verdict
from gateway.store.invoices import InvoiceRow


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
class OtherSale:
    """The unit has a sale under this number that this store never sent: sales are missing here, or
    something else signs with this unit."""

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


Finding = HoldsIt | HoldsItNot | OtherSale | CannotTell
# Whether every sending of the sale went to an earlier run of the unit.
AtRest = Callable[[InvoiceRow], bool]


class Evidence(Protocol):
    @property
    def name(self) -> str: ...

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding: ...


class ReadingUnit(Protocol):
    async def stored_sale(self, invc_no: int) -> StoredSale | str | None:
        """The sale under `invc_no`, None when the unit says it holds none, a str when it cannot say."""
        ...


class ReadBack:
    """What the unit itself holds under the sale's number: its read-back endpoint, where the build has
    one (ZRA's has; Kenya's is unknown), or its own database file. `name` says which.

    A unit that is still signing shows nothing yet, so an empty answer sends the resolver on to the next
    source. It is the end only when `at_rest(row)`: every sending of this sale went to an earlier run of
    the unit (rule `life`).
    """

    def __init__(
        self,
        unit: ReadingUnit,
        name: str = "read-back",
        at_rest: AtRest = lambda row: False,
    ) -> None:
        self._unit = unit
        self.name = name
        self._at_rest = at_rest

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding:
        assert row.invc_no is not None
        # Asked before the look: nothing that is sent later can be covered by it.
        at_rest = self._at_rest(row)
        found = await self._unit.stored_sale(row.invc_no)
        if isinstance(found, str):
            return CannotTell(found)
        if found is not None:
            return attach_or_refuse(row, found)
        if verdict(Fact.SHOWS_NOTHING, Circumstances(at_rest=at_rest)) is Verdict.NOT_SIGNED:
            return HoldsItNot(
                "the unit was restarted after the last sending, and holds nothing under this number"
            )
        return CannotTell("the unit holds nothing under this number yet")


SHOWN = {
    Match.SAME: Fact.SHOWS_THIS,
    Match.OTHER: Fact.SHOWS_OTHER,
    Match.UNCLEAR: Fact.SHOWS_UNCLEAR,
}


def attach_or_refuse(row: InvoiceRow, found: StoredSale) -> Finding:
    """Return HoldsIt for this sale's receipt, OtherSale for another's (rules `id` and `other`)."""
    match, why = whose(row, found)
    match verdict(SHOWN[match], Circumstances()):
        case Verdict.SIGNED:
            return HoldsIt(found.data, found.raw, f"found in the unit with {why}")
        case Verdict.MISMATCH:
            return OtherSale(
                f"the unit holds another sale under invoice number {row.invc_no} ({why})"
            )
        case _:
            return CannotTell(
                f"the unit holds a sale under this number that may be another one ({why})",
                needs_person=True,
                ends_looking=True,
            )


class CountingUnit(Protocol):
    async def last_counter(self) -> int | str:
        """The unit's last totRcptNo; a str when it cannot say."""
        ...


class Counters:
    """Whether the unit has used up a receipt number since the last sale stored here (etims.md 8.3 c).

    A counter that moved says that something was signed, and by that forbids every resend. One that did
    not move proves that the sale was not signed only when the unit is at rest (rule `count`): a slow
    unit may still be signing.
    """

    name = "counters"

    def __init__(
        self,
        unit: CountingUnit,
        last_stored: Callable[[], Awaitable[int]],
        at_rest: AtRest = lambda row: False,
    ) -> None:
        self._unit = unit
        self._last_stored = last_stored
        self._at_rest = at_rest

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding:
        at_rest = self._at_rest(row)
        counted = await self._unit.last_counter()
        if isinstance(counted, str):
            return CannotTell(counted)
        stored = await self._last_stored()
        # A query that is wrong may well say 0; one that has followed our receipts is right.
        when = Circumstances(at_rest=at_rest and counted > 0)
        fact = Fact.COUNTER_EQUAL if counted == stored else Fact.COUNTER_MOVED
        if verdict(fact, when) is Verdict.NOT_SIGNED:
            return HoldsItNot(
                f"the unit was restarted after the last sending, and its counter stands at {counted}, "
                "as before this sale"
            )
        if counted == stored:
            return CannotTell(f"the unit's counter stands at {counted}, as before this sale")
        if counted == stored + 1:
            reason = f"the unit's counter moved from {stored} to {counted}: something was signed"
        elif counted > stored:
            reason = (
                f"the unit's counter is at {counted}, {counted - stored} past the last receipt "
                "here: something else signs with this unit, or this store is an old copy"
            )
        else:
            reason = (
                f"the unit's counter is at {counted}, behind {stored}, the last receipt here: "
                "the unit's data are an older copy"
            )
        return CannotTell(reason, needs_person=True, ends_looking=True)


# The first sending and one more.
ATTEMPTS_MAX = 2
# Counts a resend of the row (+1 before it, -1 when not one byte left), durably.
Count = Callable[[InvoiceRow, int], Awaitable[None]]
# Records that the unit called the resend a duplicate.
RecordDuplicate = Callable[[InvoiceRow], Awaitable[None]]


# What the answer to a sending is, as a fact.
FACTS: dict[type[Any], Fact] = {
    Signed: Fact.RECEIPT,
    Refused: Fact.REFUSAL,
    NotSent: Fact.NOT_READY,
    Duplicate: Fact.DUPLICATE,
    Unknown: Fact.NO_PROOF,
}


class ResendingUnit(Protocol):
    async def send_sale(self, body: bytes) -> SaleOutcome: ...

    async def healthy(self) -> str | None:
        """None when the unit answers a protocol probe well; else why it does not."""
        ...

    async def contact(self) -> KraContact:
        """Whether the unit reaches KRA."""
        ...


class NoResend:
    """What stands in place of the resend where the unit is not known to refuse a repeated number."""

    name = "resend"

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding:
        return CannotTell(
            "nothing is sent again: this unit is not known to refuse a repeated number (unit.resend)",
            needs_person=self._alone,
        )


class KraContact(Protocol):
    @property
    def ok(self) -> bool: ...

    @property
    def reason(self) -> str: ...


class Resend:
    """One deliberate resend of the same bytes under the same invcNo (etims.md 8.3, step a).

    It relies on assumption A1: the unit never signs one invcNo twice, and decides that when it signs.
    So it is used only where `unit.resend` says so, once in the life of a doubt, counted durably before
    it leaves, and only to a unit that has just answered a probe. After trouble on the unit's path to
    KRA it waits until the unit reaches KRA. The gate is asked again right before the wire. Whatever is
    answered but a receipt proves nothing about the first sending (rule `bytes`).
    """

    name = "resend"

    def __init__(
        self,
        unit: ResendingUnit,
        gate: Callable[[], None],
        count: Count,
        record_duplicate: RecordDuplicate,
    ) -> None:
        self._unit = unit
        self._gate = gate
        self._count = count
        self._record_duplicate = record_duplicate
        self._said: dict[str, CannotTell] = {}

    async def examine(self, row: InvoiceRow, invoice: Invoice) -> Finding:
        if row.attempts >= ATTEMPTS_MAX:
            return self._said.get(
                row.id, CannotTell("sent again once already, without an end", needs_person=True)
            )
        if (not_now := self._shut() or await self._link_is_down(row)) is not None:
            return not_now
        problem = await self._unit.healthy()
        if problem is not None:
            return CannotTell(f"the unit does not answer well: {problem}")
        assert row.unit_request is not None
        await self._count(row, 1)
        if (shut := self._shut()) is not None:
            await self._count(row, -1)
            return shut
        return await self._judge(row, await self._unit.send_sale(row.unit_request))

    async def _judge(self, row: InvoiceRow, outcome: SaleOutcome) -> Finding:
        fact = FACTS[type(outcome)]
        # Whether the receipt is fresh is asked where it is attached, in the transaction.
        match verdict(fact, Circumstances(first=False)), outcome:
            case Verdict.SIGNED, Signed(data=data, raw=raw):
                return HoldsIt(data, raw, "answered when sent again")
            case Verdict.NUMBER_USED, _:
                await self._record_duplicate(row)
            case Verdict.NOTHING, _:
                pass
            case proven, _:
                raise AssertionError(f"{fact} of a resend proves {proven}")
        return await self._inconclusive(row, outcome)

    async def _inconclusive(self, row: InvoiceRow, outcome: SaleOutcome) -> CannotTell:
        match outcome:
            case NotSent(reason=reason):
                await self._count(row, -1)
                return CannotTell(f"could not be sent again: {reason}")
            case Refused(code=code, message=message):
                return self._remember(
                    row, f"answered {code} {message}: perhaps because the first sending was signed"
                )
            case Duplicate(code=code, message=message):
                return self._remember(row, f"answered {code} {message}: the number is used there")
            case Unknown(code=code, reason=reason) if code is not None:
                problem = await self._unit.healthy()
                after = "though it is healthy" if problem is None else f"and then: {problem}"
                return self._remember(row, f"answered {code} ({reason}) {after}")
            case _:
                reason = getattr(outcome, "reason", "")
                return self._remember(row, f"no answer to the resend either: {reason}")

    async def _link_is_down(self, row: InvoiceRow) -> CannotTell | None:
        if not row.link_trouble:
            return None
        contact = await self._unit.contact()
        if contact.ok:
            return None
        return CannotTell(f"the resend waits until the unit reaches KRA: {contact.reason}")

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
