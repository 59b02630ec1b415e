"""Payments by M-Pesa, put together: the wire, the ledger, and everything that asks, listens and looks.

While M-Pesa is not set up there is a ledger and a desk that asks nobody for money; what was paid before can
still be looked at, claimed and given back by hand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import replace

from gateway.checkout_line import make_checkouts, make_tenders, start_webhooks
from gateway.clock import Clock
from gateway.domain.payment import Source
from gateway.domain.payment_wire import PulledRow
from gateway.fiscal.intake import Intake
from gateway.mpesa.account import account_of
from gateway.mpesa.c2b_token import c2b_token
from gateway.mpesa.client import DarajaClient
from gateway.mpesa.direct import DirectSite
from gateway.mpesa.relay_client import RelayClient
from gateway.payments.announced import announced_in
from gateway.payments.checkout import Checkouts
from gateway.payments.checks import Checks
from gateway.payments.desk import PaymentDesk
from gateway.payments.inbox import Inbox
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.push import Pusher, recover_pushes
from gateway.payments.questions import Questions
from gateway.payments.reconcile import Reconciler
from gateway.payments.refunds import Refunds
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.payments import PaymentRow
from gateway.supervisor import Restart, Supervisor
from gateway.sync.webhook import WebhookWire


class PaymentLine:
    """`open` before anything listens, `start` once; `link_is_back` whenever the network was heard."""

    def __init__(
        self, settings: Settings, clock: Clock, db: Database, gate: Callable[[], None]
    ) -> None:
        part = settings.mpesa
        self._db = db
        url = part.callback_url or ""
        shortcodes = frozenset(filter(None, (part.shortcode, part.till_number)))
        self._settings = settings
        self._clock = clock
        self.ledger = Ledger(db, clock)
        self.tenders = make_tenders(settings, clock, self.ledger)
        self.checkouts: Checkouts
        self.webhooks = WebhookWire()
        self.daraja: DarajaClient | None = None
        self.pusher: Pusher | None = None
        self.checks: Checks | None = None
        self.reconciler: Reconciler | None = None
        if part.on:
            self.daraja = DarajaClient(account_of(settings), clock, part.answer_timeout_s)
            self.checks = Checks(
                db=db,
                clock=clock,
                ledger=self.ledger,
                daraja=self.daraja,
                every_s=part.query_every_s,
                deadline_s=part.deadline_s,
            )
            self.pusher = Pusher(
                db=db, clock=clock, ledger=self.ledger, daraja=self.daraja, callback_url=url
            )
            self.pusher.on_sent = self.checks.sent
        if part.on and part.pull:
            assert self.daraja is not None
            self.reconciler = Reconciler(
                db=db,
                clock=clock,
                ledger=self.ledger,
                daraja=self.daraja,
                announce=self._announce,
                margin_s=part.pull_margin_minutes * 60,
                prompt_life_s=part.prompt_life_s,
            )
        asynchronous = self.daraja if part.initiator is not None else None
        self.refunds = Refunds(
            db=db, clock=clock, ledger=self.ledger, daraja=asynchronous, callback_url=url
        )
        self.questions = Questions(
            db=db,
            clock=clock,
            ledger=self.ledger,
            refunds=self.refunds,
            daraja=asynchronous,
            callback_url=url,
            shortcodes=shortcodes,
        )
        self.questions.on_typed = self._look_through
        passkey = settings.mpesa_passkey.get_secret_value() if settings.mpesa_passkey else ""
        self.inbox = Inbox(
            db,
            clock,
            self.ledger,
            shortcodes=shortcodes,
            c2b_token=c2b_token(passkey, part.shortcode or "") if part.on and part.c2b else None,
        )
        self.inbox.on_result += [self.refunds.on_result, self.questions.on_result]
        self.inbox.look_now.append(self._look_now)
        self.relay = self._relay(settings, clock)
        self.direct: DirectSite | None = None
        if part.on and part.direct_port is not None:
            self.direct = DirectSite(
                clock=clock,
                mailbox=self.inbox,
                host=part.direct_host,
                port=part.direct_port,
                callback_url=url,
                limits=replace(settings.api.limits, proxies=part.direct_proxies),
            )
        self.desk = PaymentDesk(
            db=db,
            clock=clock,
            ledger=self.ledger,
            settings=part,
            gate=gate,
            pusher=self.pusher,
            checks=self.checks,
            refunds=self.refunds,
            questions=self.questions,
            look_through=self._look_through,
        )

        self.desk.off = settings.off.get("mpesa", self.desk.off)

    def _announce(self, conn: sqlite3.Connection, row: PulledRow, at: int, raw: bytes) -> Heard:
        return announced_in(conn, self.ledger, row, Source.PULL, at, raw)

    def _relay(self, settings: Settings, clock: Clock) -> RelayClient | None:
        part, secret = settings.mpesa, settings.mpesa_relay_secret
        if not part.on or part.relay_url is None or part.relay_gateway is None or secret is None:
            return None
        return RelayClient(
            url=part.relay_url,
            gateway=part.relay_gateway,
            secret=secret.get_secret_value(),
            clock=clock,
            mailbox=self.inbox,
        )

    def _look_now(self, row: PaymentRow) -> None:
        if self.checks is not None:
            self.checks.nudge([row.id])

    def _look_through(self) -> None:
        if self.reconciler is not None:
            self.reconciler.soon()

    async def open(self, stack: AsyncExitStack) -> None:
        """The wire, and what the last run left on it."""
        if self.daraja is not None:
            await stack.enter_async_context(self.daraja)
        stack.push_async_callback(self.questions.close)
        await recover_pushes(self._db, self.ledger)
        await self.refunds.recover()
        await stack.enter_async_context(self.webhooks)
        if self.direct is not None:
            await stack.enter_async_context(self.direct)

    def connect(self, intake: Intake, unit_problem: Callable[[], str | None]) -> None:
        """The way from money to a receipt, once there is one."""
        self.checkouts = make_checkouts(
            self._settings,
            self._clock,
            self._db,
            ledger=self.ledger,
            desk=self.desk,
            tenders=self.tenders,
            intake=intake,
            unit_problem=unit_problem,
        )

    async def qr(self, amount_cents: int, reference: str, size: int) -> bytes | str:
        """PNG bytes, or the sentence why there is none."""
        if self.daraja is None:
            return "M-Pesa is not set up"
        return await self.daraja.qr(amount_cents, reference, size)

    def start(self, supervisor: Supervisor) -> None:
        # Also while M-Pesa is off: what was paid before is still signed, and told.
        supervisor.start("checkouts", self.checkouts.run, Restart.BACKOFF)
        start_webhooks(self._settings, self._clock, self._db, self.webhooks, supervisor)
        self.start_money(supervisor)

    def start_money(self, supervisor: Supervisor) -> None:
        """What asks for money, hears of it and looks for it; no sale is signed by any of it."""
        if self.pusher is None or self.checks is None:
            return
        supervisor.start("mpesa inbox", self.inbox.run, Restart.BACKOFF)
        if self.relay is not None:
            supervisor.start("relay", self.relay.run, Restart.BACKOFF)
        supervisor.start("pushes", self.pusher.run, Restart.BACKOFF)
        supervisor.start("checks", self.checks.run, Restart.BACKOFF)
        supervisor.start("refunds", self.refunds.run, Restart.BACKOFF)
        if self.reconciler is not None:
            supervisor.start("reconcile", self.reconciler.run, Restart.BACKOFF)

    def link_is_back(self) -> None:
        if self.checks is not None:
            self.checks.link_is_back()
        if self.relay is not None:
            self.relay.link_is_back()

    def problems(self) -> Iterable[str]:
        """Why something does not work just now, in sentences without their stop."""
        parts = (self.daraja, self.checks, self.reconciler, self.relay)
        found = [part.problem for part in parts if part is not None and part.problem is not None]
        return dict.fromkeys(found)
