"""Sandbox sales of the conformance test: fresh numbers, exact bytes, and an account of every receipt.

The unit's receipt counter is the witness: between two receipts of ours it may have moved only by what was
signed for us. `Trial.marker` signs one more sale and returns by how much it moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

import aiohttp

from gateway import ids
from gateway.clock import Clock, micros
from gateway.domain.invoice import (
    Buyer,
    Cashier,
    Invoice,
    Payment,
    ReceiptType,
    SalesType,
    make_line,
)
from gateway.domain.outcome import Duplicate, NotSent, Refused, SaleOutcome, Signed, Unknown
from gateway.domain.tax import LETTERS, RateTable
from gateway.http import Lookups, read_whole
from gateway.vscu.client import UnitClient
from gateway.vscu.wire import ANSWER_MAX_BYTES, decode

# Fresh numbers that one marker may use up before the test gives up.
MARKER_TRIES = 5
# Steps above the first number, where a sandbox unit was in use before.
STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000)
# A receipt that old was signed for an earlier sale of this number.
OLD = timedelta(minutes=10)


class Encode(Protocol):
    """The product's own encoding of a sale."""

    def __call__(
        self, invoice: Invoice, *, invc_no: int, at: datetime, invoice_id: str = ""
    ) -> bytes: ...


class TrialFailed(Exception):
    """The test cannot go on; the message is for the technician."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One request for a sale, and what came back."""

    number: int
    body: bytes
    outcome: SaleOutcome
    took_s: float

    @property
    def code(self) -> str:
        return code_of(self.outcome)


@dataclass(frozen=True, slots=True)
class Moved:
    """Receipts that the unit signed since the last one (`extra`), apart from the marker's own. `failed`: fresh
    sales of that time that got no receipt, which may be among them."""

    extra: int
    failed: tuple[Sending, ...]

    @property
    def unexplained(self) -> int:
        return max(0, self.extra - len(self.failed))


@dataclass(slots=True)
class Account:
    """The receipts of the test."""

    last: int | None = None
    receipts: dict[int, Signed] = field(default_factory=dict)
    signatures: set[str] = field(default_factory=set)
    # Answers with a receipt that another sale has, or that is not above the last one.
    foreign: list[str] = field(default_factory=list)
    failed: list[Sending] = field(default_factory=list)
    # Every fresh sale without a receipt, for the check of the codes at the end.
    unsigned: list[Sending] = field(default_factory=list)
    # Shortest and usual time from the request to its receipt, and the unit's clock against ours. Seconds.
    took_s: list[float] = field(default_factory=list)
    ahead_s: list[float] = field(default_factory=list)

    def take(self, sending: Sending, now: datetime) -> int | None:
        """Record a fresh sale; return by how much the counter moved past it, None without a receipt."""
        if not isinstance(sending.outcome, Signed):
            self.failed.append(sending)
            self.unsigned.append(sending)
            return None
        data = sending.outcome.data
        if data.rcpt_sign in self.signatures or (
            self.last is not None and data.tot_rcpt_no <= self.last
        ):
            self.foreign.append(
                f"sale {sending.number} was answered with receipt {data.tot_rcpt_no}, which is not new"
            )
            self.failed.append(sending)
            return None
        moved = 0 if self.last is None else data.tot_rcpt_no - self.last - 1
        self.last = data.tot_rcpt_no
        self.signatures.add(data.rcpt_sign)
        self.receipts[sending.number] = sending.outcome
        self.took_s.append(sending.took_s)
        self.ahead_s.append((data.scu_time - now).total_seconds())
        return moved

    @property
    def usual_s(self) -> float:
        ordered = sorted(self.took_s)
        return ordered[len(ordered) // 2] if ordered else 0.0


class Trial:
    """Sends sandbox sales. Use as an async context manager."""

    def __init__(
        self,
        *,
        client: UnitClient,
        url: str,
        encode: Encode,
        clock: Clock,
        rates: RateTable,
        first_number: int,
        timeout_s: float,
        item_class: str,
        units: tuple[str, str],
    ) -> None:
        self.client = client
        self.clock = clock
        self.account = Account()
        self._url = url
        self._encode = encode
        self._rates = rates
        self._next = first_number
        self._timeout_s = timeout_s
        self._item_class = item_class
        self._units = units
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Trial:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True, resolver=Lookups()),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    # --- one sale ----------------------------------------------------------------------------------

    def number(self) -> int:
        self._next += 1
        return self._next - 1

    def body(self, number: int, total: str = "116.00") -> bytes:
        """Return the bytes of a fresh sale as the product would write them."""
        now = self.clock.now()
        invoice_id = ids.new_id(micros(now))
        return self._encode(
            self._invoice(f"TEST-{number}", Decimal(total)),
            invc_no=number,
            at=now,
            invoice_id=invoice_id,
        )

    def _invoice(self, till_receipt_no: str, total: Decimal) -> Invoice:
        line = make_line(
            seq=1, item_code="KE2NTXU0000001", item_class=self._item_class, name="Test of the unit",
            quantity=Decimal(1), unit_price=total, tax_letter="B", rates=self._rates,
            package_unit=self._units[0], quantity_unit=self._units[1],
        )  # fmt: skip
        return Invoice(
            sales_type=SalesType.NORMAL, receipt_type=ReceiptType.SALE,
            till_receipt_no=till_receipt_no, cashier=Cashier("unit-test", "Unit test"),
            buyer=Buyer(), lines=(line,), payments=(Payment("01", total),), change=Decimal("0.00"),
            rates=tuple((letter, self._rates[letter].percent) for letter in LETTERS),
        )  # fmt: skip

    async def send(self, number: int, body: bytes) -> Sending:
        """Send exact bytes once."""
        began = self.clock.boottime_ns()
        outcome = await self.client.send_sale(body)
        return Sending(number, body, outcome, self._since(began))

    async def fresh(self) -> Sending:
        """Send a sale under a number that was never used, and record its receipt."""
        number = self.number()
        sending = await self.send(number, self.body(number))
        self.account.take(sending, self.clock.now())
        return sending

    async def signed(self) -> Sending | None:
        """Send fresh sales until one gets a receipt; None when none does."""
        for _ in range(MARKER_TRIES):
            sending = await self.fresh()
            if sending.number in self.account.receipts:
                return sending
        return None

    async def marker(self) -> Moved | None:
        """Sign one more sale and return how far the counter moved before it; None without a receipt."""
        for _ in range(MARKER_TRIES):
            number = self.number()
            sending = await self.send(number, self.body(number))
            moved = self.account.take(sending, self.clock.now())
            if moved is not None:
                failed, self.account.failed = tuple(self.account.failed), []
                return Moved(moved, failed)
        return None

    async def first(self) -> None:
        """Find a number that this unit has not used. TrialFailed when there is none near."""
        start, said = self._next, ""
        for step in STEPS:
            self._next = start + step
            sending = await self.fresh()
            said = describe(sending.outcome)
            if isinstance(sending.outcome, Signed) and not self._is_old(sending.outcome):
                return
            self.account = Account(unsigned=self.account.unsigned)
            if isinstance(sending.outcome, NotSent) and not sending.outcome.raw:
                break
        raise TrialFailed(
            f"The unit signed no sale under the numbers {start} to {self._next - 1}; its last answer: {said}. "
            "Remove the cause, or give a free number with --first-number."
        )

    def _is_old(self, outcome: Signed) -> bool:
        return abs(outcome.data.scu_time - self.clock.now()) > OLD

    # --- several at once ---------------------------------------------------------------------------

    async def together(self, number: int, body: bytes, count: int) -> list[Sending]:
        """Send the same bytes `count` times, so that the last byte of each leaves at the same moment."""
        waiting = asyncio.Semaphore(0)
        go = asyncio.Event()

        async def one() -> Sending:
            return await self._held(number, body, waiting.release, go)

        async def start() -> None:
            for _ in range(count):
                await waiting.acquire()
            go.set()

        *sendings, _ = await asyncio.gather(*(one() for _ in range(count)), start())
        return [each for each in sendings if each is not None]

    async def cut_off(self, number: int, body: bytes, after_s: float) -> None:
        """Send a sale and close the connection `after_s` after the last byte left."""
        go = asyncio.Event()
        go.set()
        left = asyncio.Event()
        sending = asyncio.ensure_future(self._held(number, body, lambda: None, go, left.set))
        try:
            await left.wait()
            await self.clock.sleep(after_s)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def interrupted(
        self, number: int, body: bytes, after_s: float, interrupt: Callable[[], Awaitable[None]]
    ) -> Sending:
        """Send a sale, call `interrupt` when `after_s` have passed since its last byte left, and return what
        came of the sale."""
        go, left = asyncio.Event(), asyncio.Event()
        go.set()
        sending = asyncio.ensure_future(self._held(number, body, lambda: None, go, left.set))
        try:
            await left.wait()
            await self.clock.sleep(after_s)
            await interrupt()
            return await sending
        finally:
            sending.cancel()

    async def _held(
        self,
        number: int,
        body: bytes,
        ready: Callable[[], object],
        go: asyncio.Event,
        left: Callable[[], None] = lambda: None,
    ) -> Sending:
        assert self._session is not None
        began = self.clock.boottime_ns()

        async def parts() -> AsyncIterator[bytes]:
            nonlocal began
            yield body[:-1]
            ready()
            await go.wait()
            began = self.clock.boottime_ns()
            yield body[-1:]
            left()

        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        timeout = aiohttp.ClientTimeout(total=self._timeout_s, connect=5)
        outcome: SaleOutcome
        try:
            async with self._session.post(
                self._url, data=parts(), headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                raw = await read_whole(response, ANSWER_MAX_BYTES)
                outcome = (
                    Unknown("the answer is too large")
                    if raw is None
                    else self.client.judge(decode(response.status, raw), body)
                )
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            # Nothing waits for a sending that failed before it was ready.
            ready()
            left()
            outcome = Unknown(f"no answer: {type(error).__name__}")
        return Sending(number, body, outcome, self._since(began))

    def _since(self, began_ns: int) -> float:
        return (self.clock.boottime_ns() - began_ns) / 1e9


def code_of(outcome: SaleOutcome) -> str:
    """Return the code of an answer without a receipt, as far as the outcome keeps it."""
    if isinstance(outcome, Refused | Duplicate):
        return outcome.code
    if isinstance(outcome, NotSent) and outcome.raw:
        return decode(200, outcome.raw).code or ""
    if isinstance(outcome, Unknown):
        return outcome.code or ""
    return ""


def describe(outcome: SaleOutcome) -> str:
    """Return an answer in words."""
    match outcome:
        case Signed(data=data):
            return f"receipt {data.tot_rcpt_no}"
        case Refused(message=message) | Duplicate(message=message):
            return message
        case NotSent(reason=reason) | Unknown(reason=reason):
            return reason
