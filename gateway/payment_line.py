"""Provisional."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from gateway.checkout_line import make_checkouts, make_tenders, start_webhooks
from gateway.clock import Clock
from gateway.fiscal.intake import Intake
from gateway.mpesa.account import account_of
from gateway.mpesa.client import DarajaClient
from gateway.payments.desk import PaymentDesk
from gateway.payments.ledger import Ledger
from gateway.payments.push import Pusher
from gateway.settings import Settings
from gateway.store import payments
from gateway.store.database import Database
from gateway.supervisor import Restart, Supervisor
from gateway.sync.webhook import WebhookWire


class TempDesk(PaymentDesk):
    async def row(self, payment_id):
        return await self._db.read(lambda conn: payments.by_id(conn, payment_id))

    async def check(self, payment_id):
        return await self.row(payment_id)

    async def look_at_open(self, till_id):
        pass

    async def act(self, payment_id, act, who, reason=""):
        return (await self._ledger.act(payment_id, act, who, reason)).row

    def lists(self, conn):
        from gateway.payments.view import payment_json

        names = {"OPEN": "moneyWithoutReceipt", "REVIEW": "review", "REFUND_DUE": "refundDue"}
        out = {n: [] for n in names.values()}
        for row in payments.unowned(conn):
            out[names[row.tender]].append(payment_json(row))
        return out


class PaymentLine:
    def __init__(self, settings: Settings, clock: Clock, db: Database) -> None:
        self.settings, self.clock, self.db = settings, clock, db
        self.ledger = Ledger(db, clock)
        self.tenders = make_tenders(settings, clock, self.ledger)

    async def open(self, stack: AsyncExitStack, intake: Intake, unit_problem: Any) -> None:
        s = self.settings
        self.pusher = None
        if s.mpesa.on:
            client = await stack.enter_async_context(DarajaClient(account_of(s), self.clock))
            self.pusher = Pusher(
                db=self.db, clock=self.clock, ledger=self.ledger, daraja=client,
                callback_url=s.mpesa.callback_url or "",
            )
            from gateway.payments.push import start_words  # noqa: F401

            await self.pusher.recover()
            from gateway.mpesa.c2b_token import c2b_token
            from gateway.mpesa.direct import DirectSite
            from gateway.payments.inbox import Inbox

            assert s.mpesa_passkey and s.mpesa.shortcode
            self.inbox = Inbox(
                self.db, self.clock, self.ledger, shortcodes=[s.mpesa.shortcode],
                c2b_token=c2b_token(s.mpesa_passkey.get_secret_value(), s.mpesa.shortcode),
            )
            if s.mpesa.direct_port:
                await stack.enter_async_context(
                    DirectSite(
                        clock=self.clock, mailbox=self.inbox, host=s.mpesa.direct_host,
                        port=s.mpesa.direct_port, callback_url=s.mpesa.callback_url or "",
                    )
                )
        self.desk = TempDesk(
            db=self.db, clock=self.clock, ledger=self.ledger, settings=s.mpesa,
            gate=intake.could_sign, pusher=self.pusher,
        )
        self.checkouts = make_checkouts(
            s, self.clock, self.db, ledger=self.ledger, desk=self.desk, tenders=self.tenders,
            intake=intake, unit_problem=unit_problem,
        )
        self.wire = await stack.enter_async_context(WebhookWire())

    async def qr(self, a, b, c):
        return "no"

    def start(self, supervisor: Supervisor) -> None:
        if self.pusher:
            supervisor.start("pushes", self.pusher.run, Restart.BACKOFF)
            supervisor.start("inbox", self.inbox.run, Restart.BACKOFF)
        supervisor.start("checkouts", self.checkouts.run, Restart.BACKOFF)
        start_webhooks(self.settings, self.clock, self.db, self.wire, supervisor)
