"""The wire to M-Pesa as a script: what the next call is answered with. It stands for the network, so that
a fault can be put exactly between two steps; `hw_fakes/daraja` is the peer over real HTTP."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from datetime import datetime

from gateway.domain.payment import Reason
from gateway.domain.payment_wire import (
    Accepted,
    Ack,
    AckReply,
    Lost,
    PulledRow,
    PullReply,
    PushOrder,
    PushReply,
    QueryReply,
    QueryVerdict,
    Refused,
)

_numbers = itertools.count(1)


def accepted() -> Accepted:
    number = next(_numbers)
    return Accepted(
        f"m-{number}", f"ws_CO_2311202610{number:010d}712345678", b'{"ResponseCode":"0"}'
    )


def answer(verdict: QueryVerdict, code: str | None = None, **more: object) -> QueryReply:
    reasons = {"1032": Reason.CANCELLED, "1037": Reason.FAILED_UNREACHABLE}
    values: dict[str, object] = {"message": "", "raw": b"{}", "reason": reasons.get(code or "")}
    return QueryReply(verdict, code, **{**values, **more})  # type: ignore[arg-type]


PENDING = answer(QueryVerdict.PENDING, "4999")
PAID = answer(QueryVerdict.PAID, "0")
CANCELLED = answer(QueryVerdict.NOT_PAID, "1032")
UNREACHABLE = answer(QueryVerdict.SOFT, "1037")
LIMITED = answer(QueryVerdict.LIMITED)


class ScriptedDaraja:
    """Answers in the order they were put; with none left, the usual one. `held` keeps pushes on the wire."""

    def __init__(self, now_ns: Callable[[], int] = lambda: 0) -> None:
        self._now_ns = now_ns
        self.pushes: deque[PushReply | BaseException] = deque()
        self.queries: deque[QueryReply | BaseException] = deque()
        self.query_always = PENDING
        self.reversals: deque[AckReply] = deque()
        self.rows: list[PulledRow] = []
        self.pull_problem: str | None = None
        self.no_token: Refused | Lost | Exception | None = None
        self.pushed: list[PushOrder] = []
        self.queried: list[tuple[int, str]] = []
        self.reversed: list[tuple[str, int, str, str]] = []
        self.asked_status: list[tuple[str, str]] = []
        self.pulled: list[tuple[datetime, datetime, int]] = []
        self.open_gates: dict[str, asyncio.Event] = {}
        # Called while the push is on the wire, before its answer.
        self.meanwhile: Callable[[PushOrder], object] | None = None

    def hold(self, phone: str) -> asyncio.Event:
        """Pushes to this phone stay on the wire until the event is set."""
        return self.open_gates.setdefault(phone, asyncio.Event())

    async def ready(self) -> Refused | Lost | None:
        if isinstance(self.no_token, Exception):
            raise self.no_token
        return self.no_token

    async def push(self, order: PushOrder) -> PushReply:
        self.pushed.append(order)
        if order.phone in self.open_gates:
            await self.open_gates[order.phone].wait()
        if self.meanwhile is not None:
            result = self.meanwhile(order)
            if asyncio.iscoroutine(result):
                await result
        reply = self.pushes.popleft() if self.pushes else accepted()
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def query(self, checkout_request_id: str) -> QueryReply:
        self.queried.append((self._now_ns(), checkout_request_id))
        reply = self.queries.popleft() if self.queries else self.query_always
        if isinstance(reply, BaseException):
            raise reply
        return reply

    async def pull(self, start: datetime, end: datetime, offset: int) -> PullReply:
        self.pulled.append((start, end, offset))
        if self.pull_problem is not None:
            return PullReply((), self.pull_problem, b"")
        rows = [row for row in self.rows if row.at is None or start <= row.at <= end]
        return PullReply(tuple(rows[offset : offset + 2]), None, b"[]")

    async def reverse(
        self, receipt: str, amount_cents: int, result_url: str, timeout_url: str, remark: str
    ) -> AckReply:
        self.reversed.append((receipt, amount_cents, result_url, timeout_url))
        if self.reversals:
            return self.reversals.popleft()
        number = next(_numbers)
        return Ack(f"AG_{number}", f"o-{number}", b"{}")

    async def status(self, receipt: str, result_url: str, timeout_url: str) -> AckReply:
        self.asked_status.append((receipt, result_url))
        number = next(_numbers)
        return Ack(f"AG_{number}", f"o-{number}", b"{}")

    async def qr(self, amount_cents: int, reference: str, size: int) -> bytes | str:
        return "there is no code here"
