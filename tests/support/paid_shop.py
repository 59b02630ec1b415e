"""A shop that is paid by M-Pesa: the gateway with its own site for M-Pesa's messages, and the fake Daraja
that calls it back over HTTP. A second of the fake's is a hundredth."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.payments.checkout import Checkouts
from gateway.payments.ledger import Ledger
from gateway.settings import Settings
from gateway.store import checkouts, events, payments
from gateway.store.checkouts import CheckoutRow
from gateway.store.events import Event
from gateway.store.payments import PaymentRow
from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.mpesa import answered, prompted
from tests.support.shop import OpenShop, Reply, TillClient, a_sale, make_settings, open_shop

SHORTCODE = "174379"
# Real seconds until something that must happen is called missing.
PATIENCE_S = 30.0
# Knobs: a person answers each prompt, and has all day.
PEOPLE: dict[str, Any] = {"default": "phone", "prompt_life_s": 1_000_000}
_phones = itertools.count(1)


def a_phone() -> str:
    """A customer who has not been asked before; 254711 says nothing about how it will go."""
    return f"254711{next(_phones):06d}"


def mpesa_tender(phone: str, amount: str = "297.00") -> dict[str, str]:
    return {"method": "MPESA", "phone": phone, "amount": amount}


def a_paid_sale(*tenders: dict[str, str], **changes: Any) -> dict[str, Any]:
    """297.00 in all."""
    return a_sale(tenders=list(tenders), **changes)


def mpesa_settings(shop_dir: Path, unit_url: str, fake: FakeDaraja, **sections: Any) -> Settings:
    port = free_port()
    fake.turn(hosts={"shop.test": f"http://127.0.0.1:{port}"})
    part = {
        "environment": "sandbox",
        "base_url": fake.url,
        "shortcode": SHORTCODE,
        "callback_url": "https://shop.test/in",
        "direct_host": "127.0.0.1",
        "direct_port": port,
        "same_phone_s": 0,
        "query_every_s": 600,
        **sections.pop("mpesa", {}),
    }
    return make_settings(
        shop_dir, unit_url, mpesa=part, mpesa_consumer_key=KEY, mpesa_consumer_secret=SECRET,
        mpesa_passkey=PASSKEY, **sections,
    )  # fmt: skip


@dataclass(slots=True)
class PaidShop:
    shop: OpenShop
    fake: FakeDaraja

    @property
    def ledger(self) -> Ledger:
        return self.shop.gateway.payments.ledger

    @property
    def checkouts(self) -> Checkouts:
        return self.shop.gateway.payments.checkouts

    def till(self, name: str = "till-1") -> TillClient:
        return self.shop.till(name)

    async def sell(self, key: str, sale: dict[str, Any], till: str = "till-1") -> Reply:
        """As a till does: the same again while it is told to wait."""
        async with asyncio.timeout(PATIENCE_S):
            while (reply := await self.till(till).sell(key, sale)).status == 202:
                pass
        return reply

    async def waiting(self, key: str, sale: dict[str, Any], till: str = "till-1") -> Reply:
        """The sale waits for its customer, who has been asked; what the till is told."""
        asked = False
        async with asyncio.timeout(PATIENCE_S):
            while not asked:
                reply = await self.till(till).sell(key, sale)
                assert problem(reply) == (202, "PAYMENT_WAITING"), reply.json
                states = [payment["state"] for payment in reply.json["payments"]]
                asked = bool(states) and not {"NEW", "SENDING"} & set(states)
        return reply

    async def payment(self, payment_id: str) -> PaymentRow:
        row = await self.shop.gateway.db.read(lambda conn: payments.by_id(conn, payment_id))
        assert row is not None
        return row

    async def checkout(self, key: str, till: str = "till-1") -> CheckoutRow:
        row = await self.shop.gateway.db.read(lambda conn: checkouts.by_key(conn, till, key))
        assert row is not None
        return row

    async def events(self, kind: str) -> list[Event]:
        return await self.shop.gateway.db.read(lambda conn: events.of_kind(conn, kind))

    async def until(self, condition: Callable[[], Awaitable[bool]], within: float = 60) -> None:
        """Waits, by the store's own news."""
        async with asyncio.timeout(within):
            while True:
                news = asyncio.ensure_future(self.shop.gateway.db.changed())
                try:
                    if await condition():
                        return
                    await asyncio.wait({news}, timeout=1)
                finally:
                    news.cancel()

    async def until_payment(self, payment_id: str, **wanted: str) -> PaymentRow:
        async def is_so() -> bool:
            row = await self.payment(payment_id)
            return all(getattr(row, name) == value for name, value in wanted.items())

        await self.until(is_so)
        return await self.payment(payment_id)

    async def until_checkout(self, key: str, state: str, till: str = "till-1") -> CheckoutRow:
        async def is_so() -> bool:
            db = self.shop.gateway.db
            row = await db.read(lambda conn: checkouts.by_key(conn, till, key))
            return row is not None and row.state == state

        await self.until(is_so)
        return await self.checkout(key, till)

    async def paid(self, sale_ref: str, amount: str = "297.00", till: str = "till-1") -> PaymentRow:
        """A push by itself, paid."""
        body = {"saleRef": sale_ref, "amount": amount, "phone": a_phone()}
        reply = await self.till(till).request(
            "POST", "/v1/payments/mpesa", key=f"pay {sale_ref}".replace(" ", "-"), json=body
        )
        assert reply.status == 202, reply.json
        return await self.until_payment(reply.json["paymentId"], money="PAID")

    async def asked(self, phone: str) -> None:
        """The prompt stands on this phone."""
        await prompted(self.fake, phone)

    async def answer(self, phone: str, do: str = "pin") -> None:
        """The customer at the prompt (with PEOPLE); back when M-Pesa has taken it."""
        await answered(self.fake, phone, do)


@asynccontextmanager
async def paid_shop(
    unit: UnitControl,
    shop_dir: Path,
    *,
    clock: Clock | None = None,
    knobs: dict[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[PaidShop]:
    """`knobs` of the fake; `mpesa` and other sections of the settings."""
    async with FakeDaraja(time_scale=0.01, **(knobs or {})) as fake:
        settings = mpesa_settings(shop_dir, unit.url, fake, **sections)
        async with open_shop(settings, clock) as shop:
            yield PaidShop(shop, fake)


async def tell_the_unit(unit: UnitControl, clock: FakeClock) -> None:
    """The unit lives by the true time of a clock that a test drives."""
    await unit.knobs(clockOffsetSeconds=round(clock.true.timestamp() - time.time()))


def problem(reply: Reply) -> tuple[int, str]:
    return reply.status, reply.json["code"]
