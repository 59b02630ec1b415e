"""What goes to M-Pesa and what comes back, as plain data: the words between the adapter and the policy.

Shapes and codes are Daraja's (daraja.md 2 to 6); amounts are integer cents here, whole shillings there.
Every answer keeps its raw bytes: they are the evidence that is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.domain.payment import Reason


@dataclass(frozen=True, slots=True)
class PushOrder:
    """One STK push. `phone` is 2547.. or 2541.., `amount_cents` whole shillings."""

    amount_cents: int
    phone: str
    account_ref: str
    description: str
    callback_url: str


@dataclass(frozen=True, slots=True)
class Accepted:
    merchant_request_id: str
    checkout_request_id: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """Surely not sent (daraja.md 2.4). `reason` is NOT_SENT (may be sent again), CONFIG or INPUT."""

    reason: Reason
    code: str
    message: str
    raw: bytes
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """No word, or one that says nothing: the phone may ring or not."""

    message: str
    raw: bytes = b""


PushReply = Accepted | Refused | Lost


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of M-Pesa as it came, unread. `origin_id`: the relay's number of it, so that what it
    delivers twice is one; None when it came directly. `kind`: s push, c and v C2B, r and t results."""

    kind: str
    token: str
    raw: bytes
    peer: str
    origin_id: str | None = None


class Mailbox(Protocol):
    """Where messages become durable. StoreError when they do not: then nothing may be acknowledged."""

    async def put(
        self, origin: str, origin_id: str | None, kind: str, token: str, raw: bytes, peer: str
    ) -> None: ...

    async def take(self, epoch: str, upto: int, arrivals: Sequence[Arrival]) -> None:
        """A page of the relay of this epoch, and the number it is read up to, together."""
        ...

    async def cursor(self) -> tuple[str, int]:
        """The epoch and number read up to; ("", 0) before the first page."""
        ...


class QueryVerdict(StrEnum):
    """What an STK query says, closed: whatever is not listed says nothing (daraja.md 4.1)."""

    PAID = "PAID"
    NOT_PAID = "NOT_PAID"
    SOFT = "SOFT"  # counts only when heard twice
    PENDING = "PENDING"
    NO_INFO = "NO_INFO"
    LIMITED = "LIMITED"  # too many questions; ask later


@dataclass(frozen=True, slots=True)
class QueryReply:
    verdict: QueryVerdict
    code: str | None
    reason: Reason | None
    message: str
    raw: bytes
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class StkResult:
    """A callback of a push. `amount_cents` and `receipt` only for code 0; `phone` may be masked or absent."""

    merchant_request_id: str | None
    checkout_request_id: str | None
    code: str
    description: str
    receipt: str | None
    amount_cents: int | None
    phone: str | None
    paid_at: datetime | None


@dataclass(frozen=True, slots=True)
class C2bNotice:
    """A C2B confirmation: money that has come already. `phone` is masked (2547 ***** 149), hashed (64 hex
    digits) or absent; `kind` is "Pay Bill" or "Buy Goods", "" when M-Pesa leaves it out."""

    receipt: str
    amount_cents: int
    shortcode: str
    reference: str
    phone: str | None
    first_name: str
    paid_at: datetime | None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class ApiResult:
    """The asynchronous result of a reversal or a status query. Doubled keys keep their last value."""

    conversation_id: str
    originator_id: str
    code: str
    description: str
    transaction_id: str | None
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class PulledRow:
    """One row of Pull Transactions. `amount_cents` is negative or zero only in rows that are no customer's
    payment (`is_payment`)."""

    receipt: str
    amount_cents: int
    phone: str | None
    reference: str
    kind: str
    at: datetime | None

    @property
    def is_payment(self) -> bool:
        """Return whether a customer paid the shop by this row (`c2b-...-debit`); every other kind is not."""
        kind = self.kind.strip().lower()
        is_debit = kind.startswith("c2b-") and kind.endswith("-debit") and "revers" not in kind
        return is_debit and self.amount_cents > 0

    @property
    def is_reversal(self) -> bool:
        return "revers" in self.kind.lower()


@dataclass(frozen=True, slots=True)
class PullReply:
    """`problem` None: the rows are all there are at this offset. `is_empty`: M-Pesa has said in words of a
    problem that there is no row; behind the first page it is how a list ends."""

    rows: tuple[PulledRow, ...]
    problem: str | None
    raw: bytes
    is_empty: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """An asynchronous order was taken; its result comes later under these ids."""

    conversation_id: str
    originator_id: str
    raw: bytes


AckReply = Ack | Refused | Lost


class Daraja(Protocol):
    """M-Pesa as far as the policy needs it. No call raises for the wire's faults."""

    async def push(self, order: PushOrder) -> PushReply: ...

    async def query(self, checkout_request_id: str) -> QueryReply: ...

    async def pull(self, start: datetime, end: datetime, offset: int) -> PullReply: ...

    async def reverse(
        self, receipt: str, amount_cents: int, result_url: str, timeout_url: str, remark: str
    ) -> AckReply: ...

    async def status(self, receipt: str, result_url: str, timeout_url: str) -> AckReply: ...

    async def qr(self, amount_cents: int, reference: str, size: int) -> bytes | str:
        """PNG bytes, or the sentence why there is none."""
        ...

    async def ready(self) -> Refused | Lost | None:
        """Whether a token is at hand, so that nothing was sent when there is none; None: yes."""
        ...
