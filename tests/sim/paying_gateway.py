"""The gateway of the payments' simulation: everything of a sale, and the real desk, push, checks, inbox,
reconciliation, refunds and checkout of one life, over a simulated Daraja and relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from gateway.domain.payment_wire import Lost, Refused
from gateway.domain.payment import Reason
from gateway.mpesa.account import Account
from gateway.mpesa.client import DarajaClient
from gateway.mpesa.wire import Answer, DarajaWire
from gateway import ids
from gateway.errors import GatewayError
from gateway.clock import wake_or_sleep
from gateway.errors import StoreError
from gateway.mpesa.relay_client import Away, RelayClient
from gateway.mpesa_settings import MpesaSettings
from gateway.domain.invoice import Invoice, Payment
from gateway.domain.payment import Act
from gateway.fiscal.intake import Submission
from gateway.payments.checkout import Checkouts
from gateway.payments.checkout_moves import PaidSale
from gateway.payments.checks import Checks
from gateway.payments.desk import Ask, PaymentDesk
from gateway.payments.inbox import Inbox
from gateway.payments.ledger import Ledger
from gateway.payments.push import Pusher
from gateway.payments.refunds import Refunds
from gateway.payments.tenders import Tenders
from gateway.store import payments
from gateway.store.checkouts import CheckoutRow, NewPart
from gateway.store.database import Database
from tests.support.invoices import an_invoice
from tests.sim.daraja import C2B_TOKEN, SHORTCODE, SimDaraja
from tests.sim.gateway import RealGateway
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, SimClock, never

ACCOUNT = Account(
    environment="sandbox", base_url="", shortcode=SHORTCODE, till_number=None, consumer_key="k",
    consumer_secret="s", passkey="p", initiator="sim", security_credential="c",
)  # fmt: skip
ANSWER_S = 30.0


class SimWire(DarajaWire):
    """The real exchange of tokens, tries and refusals, with the simulated Daraja in place of aiohttp."""

    def __init__(self, life: Life, daraja: SimDaraja, clock: SimClock) -> None:
        super().__init__(ACCOUNT, clock, ANSWER_S)
        self._life = life
        self._daraja = daraja

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, limit: int
    ) -> Answer | Refused | Lost:
        world = self._life.world
        await self._life.point()
        if world.happens(self._daraja.trouble / 6):
            return Refused(Reason.NOT_SENT, "UNREACHABLE", "no connection to M-Pesa", b"")
        bearer = headers["Authorization"].removeprefix("Bearer ")
        said = asyncio.ensure_future(
            self._daraja.answer(path, json.loads(body) if body else {}, bearer)
        )
        await asyncio.wait({said}, timeout=ANSWER_S)
        if not self._life.alive:
            await never()
        await self._life.point()
        if not said.done():
            return Lost("M-Pesa did not answer in time")
        answer = said.result()
        if answer is None:
            if world.happens(0.5):
                await asyncio.sleep(ANSWER_S)
            return Lost("M-Pesa's answer was cut off")
        return Answer(*answer, None)


class SimDarajaClient(DarajaClient):
    """The real client over the simulated wire."""

    def __init__(self, life: Life, daraja: SimDaraja, clock: SimClock) -> None:
        super().__init__(ACCOUNT, clock, ANSWER_S)
        self._wire = SimWire(life, daraja, clock)


class SimSigning:
    """A checkout's way to its receipt, as the daemon wires it."""

    def __init__(self, gateway: PayingGateway) -> None:
        self._gateway = gateway

    def possible(self) -> None:
        self._gateway.intake.could_sign()

    async def sign(self, row: CheckoutRow, invoice: Invoice) -> None:
        await self._gateway.intake.submit(
            Submission(
                till_id=row.till_id, idem_key=row.idem_key, body_digest=row.body_digest,
                request=row.request, invoice=invoice, printer=row.printer,
            )
        )  # fmt: skip


class SimRelayClient(RelayClient):
    """The real client's rounds, pages and acknowledgements over the simulated relay."""

    def __init__(self, life: Life, daraja: SimDaraja, clock: SimClock, inbox: Inbox) -> None:
        super().__init__(url="", gateway="shop-1", secret="s", clock=clock, mailbox=inbox)
        self._life = life
        self._relay = daraja.relay

    async def run(self) -> None:
        while True:
            try:
                await self._round(None)  # type: ignore[arg-type]
            except (Away, StoreError):
                await self._clock.sleep(2)
            else:
                await wake_or_sleep(self._clock, self._relay.arrived(), 25)

    async def _send(self, session: Any, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """One exchange: the relay may be away, and what it said may be lost."""
        world = self._life.world
        await self._life.point()
        if self._relay.away or world.happens(0.05):
            raise Away("no connection to the relay")
        said = self._relay.answer(method, path, body)
        if world.happens(0.05):
            raise Away("the relay does not answer")
        await self._life.point()
        return 200, said


class PayingGateway(RealGateway):
    """One life of a gateway that sells and is paid by M-Pesa, as the daemon wires it."""

    def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit, daraja: SimDaraja) -> None:
        self.daraja = daraja
        super().__init__(life, disk, sim_unit)
        self.mpesa = MpesaSettings(
            environment="sandbox", shortcode=SHORTCODE, callback_url="https://relay.test/shop-1",
            c2b=True, pull=True, pull_margin_minutes=10, sign_within_minutes=60,
        )  # fmt: skip
        db, clock = self.db, self.clock
        self.desk = PaymentDesk(
            db=db, clock=clock, ledger=self.ledger, settings=self.mpesa, gate=self._gate, pusher=self.pusher
        )
        self.checkouts = Checkouts(
            db=db, clock=clock, ledger=self.ledger, desk=self.desk, tenders=self.tenders,
            signing=SimSigning(self), wait_s=25, sign_within_s=3600,
        )  # fmt: skip

    def wire(self) -> None:
        db, clock = self.db, self.clock
        self.wire_client = self.client_of(SimDarajaClient(self.life, self.daraja, clock))
        self.ledger = self.ledger_of(db, clock)
        self.pusher = Pusher(
            db=db, clock=clock, ledger=self.ledger, daraja=self.wire_client,
            callback_url="https://relay.test/shop-1",
        )  # fmt: skip
        self.checks = Checks(
            db=db, clock=clock, ledger=self.ledger, daraja=self.wire_client, every_s=12, deadline_s=120
        )
        self.pusher.on_sent = self.checks.sent
        self.tenders = Tenders(clock=clock, ledger=self.ledger, prompt_life_s=180, on=True)
        self.hooks.append(self.tenders.on_signed)
        self.may_sign = self.tenders.may_sign
        self.after_commit.append(self.tenders.flush)
        self.inbox = Inbox(db, clock, self.ledger, shortcodes=(SHORTCODE,), c2b_token=C2B_TOKEN)
        self.relay = SimRelayClient(self.life, self.daraja, clock, self.inbox)
        self.refunds = Refunds(
            db=db, clock=clock, ledger=self.ledger, daraja=self.wire_client,
            callback_url="https://relay.test/shop-1",
        )  # fmt: skip
        self.inbox.on_result.append(self.refunds.on_result)

    def client_of(self, client: SimDarajaClient) -> Any:
        """What wrong gateways put something around."""
        return client

    def ledger_of(self, db: Database, clock: SimClock) -> Ledger:
        return Ledger(db, clock)

    async def take_up(self) -> None:
        await self.pusher.recover()
        await self.refunds.recover()

    def loops(self) -> list[Callable[[], Awaitable[None]]]:
        return [
            self.pusher.run, self.checks.run, self.refunds.run, self.checkouts.run, self.inbox.run,
            self.relay.run,
        ]  # fmt: skip

    # --- what tills do: each what a route of the API does, and then the error instead of an answer ----

    async def push(self, till: str, key: str, ref: str, shillings: int, phone: str) -> Said:
        digest = ids.digest([ref, shillings, phone])
        return await _said(self.desk.ask(Ask(till, key, digest, ref, shillings * 100, phone)))

    async def look(self, payment_id: str) -> Said:
        return await _said(self.db.read(lambda conn: payments.by_id(conn, payment_id)))

    async def of_sale(self, till: str, ref: str) -> Said:
        rows = await _said(self.db.read(lambda conn: payments.of_sale(conn, till, ref)))
        return [] if rows is True else rows

    async def sell(self, till: str, key: str, ref: str, tenders: list[Payment]) -> Said:
        """A plain sale, its tenders as the till says they are."""
        invoice = an_invoice(till_receipt_no=ref, payments=tuple(tenders))
        digest = ids.digest([ref, *(f"{t.code}{t.amount}{t.payment_id}" for t in tenders)])
        return await _said(self.intake.submit(Submission(till, key, digest, b"{}", invoice, None)))

    async def sell_asking(self, till: str, key: str, ref: str, cash: int, phones: list[tuple[str, int]]) -> Said:
        """A sale with `tenders`: so much of it from each of these phones, the rest in cash."""
        parts = [Payment("06", Decimal(s), payment_id=f"part {n}") for n, (_, s) in enumerate(phones)]
        tenders = [*parts, *([Payment("01", Decimal(cash))] if cash else [])]
        sale = PaidSale(
            till_id=till, idem_key=key, body_digest=ids.digest([ref, cash, phones]), request=b"{}",
            invoice=an_invoice(till_receipt_no=ref, payments=tuple(tenders)), printer=None,
            parts=tuple(NewPart(s * 100, phone=phone) for phone, s in phones),
        )  # fmt: skip
        return await _said(self.checkouts.sell(sale))

    async def close(self, checkout_id: str, act: Act) -> Said:
        return await _said(self.checkouts.close(checkout_id, act, "till", "sim", person=False))

    async def settle(self, payment_id: str, act: Act) -> Said:
        return await _said(self.ledger.act(payment_id, act, "till", "sim"))


Said = Any


async def _said(work: Awaitable[Any]) -> Said:
    try:
        return await work or True
    except GatewayError as error:
        return error
