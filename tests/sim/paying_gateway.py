"""The gateway of the payments' simulation: everything of a sale, and the real desk, push, checks, inbox,
reconciliation, refunds and checkout of one life, over a simulated Daraja and relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from gateway import ids
from gateway.clock import wake_or_sleep
from gateway.domain.invoice import Payment
from gateway.domain.payment import Act, Reason
from gateway.domain.payment_wire import Lost, Refused
from gateway.errors import GatewayError, StoreError
from gateway.fiscal.intake import Submission
from gateway.mpesa.account import account_of
from gateway.mpesa.relay_client import Away, RelayClient
from gateway.mpesa.wire import Answer, DarajaWire
from gateway.payment_line import PaymentLine
from gateway.payments.checkout_moves import PaidSale
from gateway.payments.desk import Ask, same_money_groups
from gateway.payments.inbox import Inbox
from gateway.payments.push import recover_pushes
from gateway.settings import Settings
from gateway.store import payments, refunds
from gateway.store.checkouts import NewPart
from gateway.supervisor import Supervisor
from tests.sim.daraja import SimDaraja
from tests.sim.daraja_words import SHORTCODE
from tests.sim.gateway import RealGateway
from tests.sim.unit import BRANCH, PIN, SimUnit
from tests.sim.world import Disk, Life, SimClock, never
from tests.support.invoices import an_invoice

ANSWER_S = 30.0


class SimWire(DarajaWire):
    """The real exchange of tokens, tries and refusals, with the simulated Daraja in place of aiohttp."""

    def __init__(self, life: Life, daraja: SimDaraja, clock: SimClock) -> None:
        super().__init__(account_of(SETTINGS), clock, ANSWER_S)
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


SETTINGS = Settings(
    branch={"pin": PIN, "branch_id": BRANCH, "trade_name": "SIM"},
    unit={"host": "external", "url": "http://127.0.0.1:1", "serial": "sim"},
    store={"directory": "/nowhere"},
    tills=[{"id": f"till-{n}"} for n in range(3)],
    till_tokens={f"till-{n}": f"token-of-till-number-{n}" for n in range(3)},
    mpesa={
        "environment": "sandbox", "shortcode": SHORTCODE, "callback_url": "https://relay.test/shop-1",
        "c2b": True, "pull": True, "pull_margin_minutes": 10, "sign_within_minutes": 60,
        "initiator": "sim",
    },
    mpesa_consumer_key="k", mpesa_consumer_secret="s", mpesa_passkey="p", mpesa_security_credential="c",
)  # fmt: skip


class PayingGateway(RealGateway):
    """One life of a gateway that sells and is paid by M-Pesa: the daemon's own `PaymentLine`, with the
    simulated wires under its Daraja client and its relay client."""

    def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit, daraja: SimDaraja) -> None:
        self.daraja = daraja
        super().__init__(life, disk, sim_unit)
        self.line.connect(self.intake, lambda: None)

    def wire(self) -> None:
        self.line = PaymentLine(SETTINGS, self.clock, self.db, self._gate)
        line = self.line
        assert line.daraja is not None
        self.over(SimWire(self.life, self.daraja, self.clock))
        line.relay = SimRelayClient(self.life, self.daraja, self.clock, line.inbox)
        self.hooks.append(line.tenders.on_signed)
        self.may_sign = line.tenders.may_sign
        self.after_commit.append(line.tenders.flush)

    def over(self, wire: SimWire) -> None:
        """Wrong gateways put something around the wire."""
        assert self.line.daraja is not None
        self.line.daraja._wire = wire

    async def take_up(self) -> None:
        await recover_pushes(self.db, self.line.ledger)
        await self.line.refunds.recover()

    def loops(self) -> list[Callable[[], Awaitable[None]]]:
        return [self._line]

    async def _line(self) -> None:
        supervisor = Supervisor(self.clock)
        self.line.start(supervisor)
        raise AssertionError(await supervisor.failed())

    async def person(self) -> None:
        """Also the manager, who looks at the lists: money back, another amount taken, refunds in doubt."""
        await super().person()
        rows = await _said(self.db.read(payments.unowned))
        for row in [] if rows is True or isinstance(rows, GatewayError) else rows:
            if row.tender == "REFUND_DUE" and row.receipt is not None:
                await _said(self.line.desk.refund(row.id, "manager", "not needed", False))
            elif row.tender == "REVIEW":
                await _said(self.line.desk.act(row.id, Act.REFUND_ORDERED, "manager", "less came"))
        for refund in await self.db.read(refunds.unsettled):
            if refund.state == "UNKNOWN":
                row = await self.db.read(
                    lambda conn, of=refund: payments.by_id(conn, of.payment_id)
                )
                done = any(m.receipt == row.receipt and m.reversed for m in self.daraja.journal)
                await _said(
                    self.line.desk.settle_refund(refund.id, done, "manager", "M-Pesa's books")
                )

        await self._decides()

    async def _decides(self) -> None:
        """Payments that may be the same money: the manager has M-Pesa's statement, and not always time."""
        groups = await _said(self.db.read(same_money_groups))
        for c2b, pushes in [] if groups is True or isinstance(groups, GatewayError) else groups:
            for push in pushes:
                if self.life.world.happens(0.3):
                    moved = next(m for m in self.daraja.journal if m.receipt == c2b.receipt)
                    found = None if moved.token is None else self.daraja.row_of(moved.token)
                    same = found is not None and found[0] == push.id
                    await _said(
                        self.line.desk.same_money(c2b.id, push.id, "manager", "looked", same=same)
                    )

    # --- what tills do: each what a route of the API does, and then the error instead of an answer ----

    async def push(self, till: str, key: str, ref: str, shillings: int, phone: str) -> Said:
        digest = ids.digest([ref, shillings, phone])
        return await _said(self.line.desk.ask(Ask(till, key, digest, ref, shillings * 100, phone)))

    async def look(self, payment_id: str) -> Said:
        return await _said(self.db.read(lambda conn: payments.by_id(conn, payment_id)))

    async def of_sale(self, till: str, ref: str) -> Said:
        rows = await _said(self.db.read(lambda conn: payments.of_sale(conn, till, ref)))
        return [] if rows is True or isinstance(rows, GatewayError) else rows

    async def sell(self, till: str, key: str, ref: str, tenders: list[Payment]) -> Said:
        """A plain sale, its tenders as the till says they are."""
        invoice = an_invoice(till_receipt_no=ref, payments=tuple(tenders))
        digest = ids.digest([ref, *(f"{t.code}{t.amount}{t.payment_id}" for t in tenders)])
        return await _said(self.intake.submit(Submission(till, key, digest, b"{}", invoice, None)))

    async def sell_asking(
        self, till: str, key: str, ref: str, cash: int, phones: list[tuple[str, int]]
    ) -> Said:
        """A sale with `tenders`: so much of it from each of these phones, the rest in cash."""
        parts = [
            Payment("06", Decimal(s), payment_id=f"part {n}") for n, (_, s) in enumerate(phones)
        ]
        tenders = [*parts, *([Payment("01", Decimal(cash))] if cash else [])]
        sale = PaidSale(
            till_id=till, idem_key=key, body_digest=ids.digest([ref, cash, phones]), request=b"{}",
            invoice=an_invoice(till_receipt_no=ref, payments=tuple(tenders)), printer=None,
            parts=tuple(NewPart(s * 100, phone=phone) for phone, s in phones),
        )  # fmt: skip
        return await _said(self.line.checkouts.sell(sale))

    async def loose(self) -> Said:
        """Payments that came by themselves and are no sale's."""
        rows = await _said(self.db.read(payments.unowned))
        return (
            []
            if rows is True or isinstance(rows, GatewayError)
            else [r for r in rows if r.kind == "C2B" and r.sale_ref is None]
        )

    async def claim(self, payment_id: str, till: str, ref: str) -> Said:
        return await _said(self.line.desk.claim(payment_id, till, ref, "till"))

    async def close(self, checkout_id: str, act: Act) -> Said:
        return await _said(self.line.checkouts.close(checkout_id, act, "till", "sim", person=False))

    async def settle(self, payment_id: str, act: Act) -> Said:
        return await _said(self.line.desk.act(payment_id, act, "till", "sim"))


Said = Any


async def _said(work: Awaitable[Any]) -> Said:
    try:
        return await work or True
    except GatewayError as error:
        return error
