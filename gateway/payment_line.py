"""Payments by M-Pesa, put together: the wire, the ledger, and everything that asks, listens and looks.

While M-Pesa is not set up there is a ledger and a desk that asks nobody for money; what was paid before can
still be looked at, claimed and given back by hand.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

from gateway.clock import Clock
from gateway.mpesa.account import account_of
from gateway.mpesa.client import DarajaClient
from gateway.payments.checks import Checks
from gateway.payments.desk import PaymentDesk
from gateway.payments.ledger import Ledger
from gateway.payments.push import Pusher, recover_pushes
from gateway.payments.questions import Questions
from gateway.payments.reconcile import Announce, Reconciler
from gateway.payments.refunds import Refunds
from gateway.settings import Settings
from gateway.store import payments
from gateway.store.database import Database
from gateway.supervisor import Restart, Supervisor


class PaymentLine:
    """`open` before anything listens, `start` once; `link_is_back` whenever the network was heard."""

    def __init__(
        self, settings: Settings, clock: Clock, db: Database, gate: Callable[[], None]
    ) -> None:
        part = settings.mpesa
        self._part = part
        self._db = db
        url = part.callback_url or ""
        self.ledger = Ledger(db, clock)
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
                announce=self._announce(),
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
            shortcodes=frozenset({part.shortcode or "", part.till_number or ""}),
        )
        self.questions.on_typed = self._look_through
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

    def _announce(self) -> Announce:
        raise NotImplementedError

    def _look_through(self) -> None:
        if self.reconciler is not None:
            self.reconciler.soon()

    async def open(self, stack: AsyncExitStack) -> None:
        """The wire, and what the last run left on it."""
        if self.daraja is not None:
            await stack.enter_async_context(self.daraja)
        await recover_pushes(self._db, self.ledger)
        await self.refunds.recover()

    def start(self, supervisor: Supervisor) -> None:
        if self.pusher is None or self.checks is None:
            return
        supervisor.start("pushes", self.pusher.run, Restart.BACKOFF)
        supervisor.start("checks", self.checks.run, Restart.BACKOFF)
        supervisor.start("refunds", self.refunds.run, Restart.BACKOFF)
        if self.reconciler is not None:
            supervisor.start("reconcile", self.reconciler.run, Restart.BACKOFF)

    def link_is_back(self) -> None:
        if self.checks is not None:
            self.checks.link_is_back()

    def status(self, conn: sqlite3.Connection) -> dict[str, Any]:
        """The part of `/v1/status` about M-Pesa; no phone, no id of a request."""
        problems = [part.problem for part in (self.checks, self.reconciler) if part is not None]
        counts = payments.counts(conn)
        return {
            "configured": self._part.on,
            "environment": self._part.environment,
            "open": sum(number for state, number in counts.items() if state != "UNKNOWN"),
            "unknown": counts.get("UNKNOWN", 0),
            "unowned": payments.count_unowned(conn),
            "nextQuestionSeconds": None if self.checks is None else round(self.checks.pause_s()),
            "problem": next((text for text in problems if text is not None), None),
        }
