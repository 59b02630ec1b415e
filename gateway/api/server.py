"""The aiohttp application: what every route shares, and the table of routes."""

from __future__ import annotations

import sqlite3
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from gateway.api.auth import Technicians, Till, Tills
from gateway.api.build import Defaults
from gateway.api.problem import problems
from gateway.clock import Clock
from gateway.counter.display import CustomerDisplay
from gateway.counter.scale import Scale
from gateway.devices.channel import Tap
from gateway.domain.payment import Act
from gateway.domain.tax import RateTable
from gateway.errors import PaymentsOff, TooManyWaiting
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.days import Days
from gateway.fiscal.decision import Decisions
from gateway.fiscal.intake import Intake
from gateway.payments.checkout import Checkouts
from gateway.payments.desk import Ask
from gateway.printing.spooler import PrinterWorker
from gateway.store.database import Database
from gateway.store.payments import PaymentRow

if TYPE_CHECKING:
    from gateway.api.reference import ReferenceDesk


class Counter(Protocol):
    """What stands on the counter, by name (`counter_line.py`)."""

    @property
    def displays(self) -> Mapping[str, CustomerDisplay]: ...
    @property
    def scales(self) -> Mapping[str, Scale]: ...
    @property
    def taps(self) -> Mapping[str, Tap]: ...
    def worker(self, name: str) -> PrinterWorker | None: ...
    def as_json(self) -> list[dict[str, Any]]: ...


class PaymentActions(Protocol):
    """What tills and people may do about a payment (`payments/desk.py`). There also while M-Pesa is off: what
    was paid before can still be looked at."""

    async def ask(self, ask: Ask) -> PaymentRow: ...
    async def check(self, payment_id: str) -> PaymentRow: ...
    async def look_at_open(self, till_id: str) -> None: ...
    async def code(
        self, payment_id: str, receipt: str, who: str, *, vouched: bool = False
    ) -> PaymentRow: ...
    async def act(self, payment_id: str, act: Act, who: str, reason: str = "") -> PaymentRow: ...
    async def not_paid(self, payment_id: str, who: str, reason: str) -> PaymentRow: ...
    async def claim(self, payment_id: str, till_id: str, sale_ref: str, who: str) -> PaymentRow: ...
    async def refund(self, payment_id: str, who: str, reason: str, by_hand: bool) -> PaymentRow: ...
    async def settle_refund(
        self, refund_id: str, done: bool, who: str, reason: str
    ) -> dict[str, Any]: ...
    async def same_money(
        self, payment_id: str, other_id: str, who: str, reason: str, *, same: bool
    ) -> PaymentRow: ...
    async def reversal(
        self, payment_id: str, who: str, reason: str, *, went_back: bool
    ) -> PaymentRow: ...
    def note_qr(
        self, conn: sqlite3.Connection, references: set[str], till_id: str, ref: str, cents: int
    ) -> None: ...
    def lists(self, conn: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]: ...


@dataclass(frozen=True, slots=True)
class Mpesa:
    """M-Pesa beside the single payments."""

    on: bool
    # Shillings.
    amount_max: int
    checkouts: Checkouts
    # (cents, reference, pixels) -> PNG, or the sentence why there is none.
    qr: Callable[[int, str, int], Awaitable[bytes | str]]
    # Why it is off although it is set up.
    off: str | None = None

    def need_on(self) -> None:
        """PaymentsOff while M-Pesa is not set up."""
        if not self.on:
            why = self.off or "M-Pesa is not set up in this shop"
            raise PaymentsOff(f"{why}. Take another payment.")


class StreamShares:
    """Places for event streams. Pages, which anybody on the LAN may open, take none of a till's."""

    def __init__(self, *, pages: int = 32, per_address: int = 4, per_till: int = 4) -> None:
        self._pages = pages
        self._per_address = per_address
        self._per_till = per_till
        self._open: Tally[tuple[str, str]] = Tally()
        self._pages_open = 0

    @contextmanager
    def place(self, *, till_id: str | None, address: str) -> Iterator[None]:
        """Hold one place: the till's, or without `till_id` a page's. TooManyWaiting when there is none."""
        key = ("page", address) if till_id is None else ("till", till_id)
        limit = self._per_address if till_id is None else self._per_till
        page = till_id is None
        if self._open[key] >= limit or (page and self._pages_open >= self._pages):
            raise TooManyWaiting(
                "Too many screens are listening. Close some; selling goes on without them.",
                retry_after_s=30,
            )
        self._open[key] += 1
        self._pages_open += page
        try:
            yield
        finally:
            self._pages_open -= page
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


@dataclass(frozen=True, slots=True)
class Services:
    """What the routes work with; made by `app.py`, tests make their own of real parts."""

    db: Database
    clock: Clock
    intake: Intake
    tills: Tills
    technicians: Technicians
    decisions: Decisions
    ahead: AheadWatch
    printers: frozenset[str]
    rates: Callable[[], RateTable]
    # (who) -> how many changes of tax rates that person has seen now.
    rates_seen: Callable[[str], Awaitable[int]]
    defaults: Defaults
    status: Callable[[], Awaitable[Mapping[str, Any]]]
    stop_streams: Callable[[], bool]
    # (invoice, printer, who asks) -> the print job.
    copy: Callable[[str, str, str], Awaitable[int]]
    reference: ReferenceDesk
    # Wakes everything that works off what a commit left: spools, outbox.
    wake: Callable[[], None]
    days: Days
    counter: Counter
    payments: PaymentActions
    mpesa: Mpesa
    streams: StreamShares = field(default_factory=StreamShares)


SERVICES: web.AppKey[Services] = web.AppKey("services", Services)


def services(request: web.Request) -> Services:
    return request.app[SERVICES]


def till_of(request: web.Request) -> Till:
    return services(request).tills.authenticate(request)


def make_app(parts: Services, *, body_limit_bytes: int) -> web.Application:
    """The application; `app.py` gives it a runner. No route is open without a till's token but the
    read-only status ones."""
    # Imported here because the route modules import this one for `services`.
    from gateway.api import (
        captures,
        decisions,
        devices,
        events,
        invoices,
        payment_report,
        payments,
        reference,
        reports,
        status,
    )

    app = web.Application(middlewares=[problems], client_max_size=body_limit_bytes)
    app[SERVICES] = parts
    for module in (
        invoices,
        payment_report,
        payments,
        decisions,
        reference,
        reports,
        devices,
        captures,
        events,
        status,
    ):
        module.register(app)
    return app
