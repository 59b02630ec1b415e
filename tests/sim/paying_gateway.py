"""The gateway of the payments' simulation: everything of a sale, and the real desk, push, checks, inbox,
reconciliation, refunds and checkout of one life, over a simulated Daraja and relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from gateway.domain.payment_wire import Lost, Refused
from gateway.domain.payment import Reason
from gateway.mpesa.account import Account
from gateway.mpesa.client import DarajaClient
from gateway.mpesa.wire import Answer, DarajaWire
from gateway import ids
from gateway.errors import GatewayError
from gateway.mpesa_settings import MpesaSettings
from gateway.payments.checks import Checks
from gateway.payments.desk import Ask, PaymentDesk
from gateway.payments.ledger import Ledger
from gateway.payments.push import Pusher
from gateway.store import payments
from gateway.store.payments import PaymentRow
from tests.sim.daraja import SHORTCODE, SimDaraja
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


class PayingGateway(RealGateway):
    """One life of a gateway that sells and is paid by M-Pesa, as the daemon wires it."""

    ledger_type = Ledger

    def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit, daraja: SimDaraja) -> None:
        self.daraja = daraja
        super().__init__(life, disk, sim_unit)
        self._settings = MpesaSettings(
            environment="sandbox", shortcode=SHORTCODE, callback_url="https://relay.test/shop-1",
            c2b=True, pull=True, pull_margin_minutes=10,
        )  # fmt: skip
        part, db, clock = self._settings, self.db, self.clock
        self.desk = PaymentDesk(
            db=db, clock=clock, ledger=self.ledger, settings=part, gate=self._gate, pusher=self.pusher
        )

    def wire(self) -> None:
        db, clock = self.db, self.clock
        self.wire_client = self.client_of(SimDarajaClient(self.life, self.daraja, clock))
        self.ledger = self.ledger_type(db, clock)
        self.pusher = Pusher(
            db=db, clock=clock, ledger=self.ledger, daraja=self.wire_client,
            callback_url="https://relay.test/shop-1",
        )  # fmt: skip
        self.checks = Checks(
            db=db, clock=clock, ledger=self.ledger, daraja=self.wire_client, every_s=12, deadline_s=120
        )
        self.pusher.on_sent = self.checks.sent

    def client_of(self, client: SimDarajaClient) -> SimDarajaClient:
        """What wrong gateways put themselves around."""
        return client

    async def take_up(self) -> None:
        await self.pusher.recover()

    def loops(self) -> list[Callable[[], Awaitable[None]]]:
        return [self.pusher.run, self.checks.run]

    # --- what tills do ------------------------------------------------------------------------------

    async def push(self, till: str, key: str, ref: str, shillings: int, phone: str) -> Any:
        """What `POST /v1/payments/mpesa` does: the payment, or (code, sentence) of a refusal."""
        digest = ids.digest([ref, shillings, phone])
        try:
            return await self.desk.ask(Ask(till, key, digest, ref, shillings * 100, phone))
        except GatewayError as error:
            return error

    async def look(self, payment_id: str) -> PaymentRow | None:
        return await self.db.read(lambda conn: payments.by_id(conn, payment_id))
