"""Money and the ceiling: no prompt while selling is suspended, and what becomes of money that comes then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.paid_shop import (
    PEOPLE,
    PaidShop,
    a_paid_sale,
    a_phone,
    mpesa_tender,
    paid_shop,
    problem,
    tell_the_unit,
)
from tests.support.printers import so
from tests.support.shop import Reply, a_sale


class Suspending:
    """A shop whose link to KRA is cut; its clock is the test's, and the unit's follows."""

    def __init__(self, unit: UnitControl, clock: FakeClock, shop: PaidShop) -> None:
        self.unit, self.clock, self.shop = unit, clock, shop

    async def cut(self) -> None:
        await tell_the_unit(self.unit, self.clock)
        await self.clock.advance(seconds=1)
        await self.unit.knobs(upstream="offline", ceilingReading="off")
        assert (await self.shop.sell("first", a_sale(), "till-2")).status == 201

    async def suspend(self) -> None:
        """A day and a little later; what sleeps meanwhile sleeps on."""
        self.clock.pass_time(hours=24, minutes=10)
        await tell_the_unit(self.unit, self.clock)
        status = (await self.shop.till().request("GET", "/v1/status")).json
        assert status["state"] == "SUSPENDED"

    async def contact(self) -> None:
        """KRA is heard again; that takes real time, in which the clock stands still."""
        await self.unit.knobs(upstream="online")
        monitor = self.shop.shop.gateway.monitor
        monitor.contact_soon()
        await so(lambda: not monitor.view().blocks)

    async def pass_s(self, seconds: float) -> None:
        await self.clock.advance(seconds=seconds)
        await tell_the_unit(self.unit, self.clock)

    async def waiting(self, sale: dict[str, Any], phone: str) -> Reply:
        """A sale whose prompt stands on the phone."""
        reply = await self.shop.waiting("key-1", sale)
        await self.shop.asked(phone)
        return reply

    async def listed(self) -> list[dict[str, Any]]:
        lists = (await self.shop.till().request("GET", "/v1/payments/lists")).json
        return list(lists["unsigned"])


@asynccontextmanager
async def suspending(
    unit: UnitControl, shop_dir: Path, **sections: Any
) -> AsyncIterator[Suspending]:
    clock = FakeClock()
    await tell_the_unit(unit, clock)
    sections.setdefault("api", {"wait_s": 0.5})
    async with paid_shop(unit, shop_dir, clock=clock, knobs=PEOPLE, **sections) as shop:
        made = Suspending(unit, clock, shop)
        await made.cut()
        yield made


async def test_while_selling_is_suspended_nobody_is_asked_for_money(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with suspending(unit, shop_dir) as here:
        await here.suspend()
        till, body = here.shop.till(), {"saleRef": "A", "amount": "297", "phone": a_phone()}
        sale = await till.sell("key-1", a_paid_sale(mpesa_tender(a_phone())))
        push = await till.request("POST", "/v1/payments/mpesa", key="push-1", json=body)
        assert problem(sale) == problem(push) == (503, "SUSPENDED")
        assert sale.json["signed"] == "no"
        assert here.shop.fake.journal == []
        # Nothing is kept of it either: the same key is a new sale when selling goes on.
        assert await here.shop.checkouts.begun("till-1", "key-1") is None
    assert len(await unit.journal()) == 1


async def test_a_shop_may_choose_to_be_paid_while_it_is_suspended(
    unit: UnitControl, shop_dir: Path
) -> None:
    mpesa = {"push_while_suspended": True}
    async with suspending(unit, shop_dir, mpesa=mpesa) as here:
        await here.suspend()
        one, two = a_phone(), a_phone()
        body = {"saleRef": "A", "amount": "297", "phone": one}
        push = await here.shop.till().request("POST", "/v1/payments/mpesa", key="p", json=body)
        assert push.status == 202, push.json
        await here.shop.asked(one)
        sale = a_paid_sale(mpesa_tender(two))
        await here.waiting(sale, two)
        await here.shop.answer(two)
        await here.shop.until_checkout("key-1", "READY")
        told = await here.shop.sell("key-1", sale)
        assert problem(told) == (503, "SUSPENDED")
        assert (told.json["signed"], len(await unit.journal())) == ("no", 1)
        await here.contact()
        assert (await here.shop.sell("key-1", sale)).status == 201
    assert len(await unit.journal()) == 2


async def paid_too_late(here: Suspending, sale: dict[str, Any], phone: str) -> Reply:
    """The prompt went out in time, the money comes when nothing may be signed any more."""
    reply = await here.waiting(sale, phone)
    await here.suspend()
    await here.shop.answer(phone)
    await here.shop.until_checkout("key-1", "READY")
    assert len(await here.unit.journal()) == 1
    (line,) = await here.listed()
    assert line["checkoutId"] == reply.json["checkoutId"]
    return reply


async def test_money_that_came_while_suspended_is_signed_for_by_itself_after_contact(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with suspending(unit, shop_dir) as here:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await paid_too_late(here, sale, phone)
        await here.pass_s(60)
        assert (await here.shop.checkout("key-1")).state == "READY"
        await here.contact()

        # Nobody asks: the till is away. The longest pause between two attempts is 15 s; it may begin only now,
        # since an attempt takes real time.
        async def signed() -> bool:
            await here.pass_s(16)
            return (await here.shop.checkout("key-1")).state == "SIGNED"

        await here.shop.until(signed)
        checkout = await here.shop.checkout("key-1")
        payment = await here.shop.payment(reply.json["payments"][0]["paymentId"])
        assert await here.listed() == []
        assert await here.shop.events("payment.alarm") == []
        assert (await here.shop.sell("key-1", sale)).status == 201
    assert (payment.tender, payment.invoice_id) == ("COMPLETED_BY_MPESA", checkout.invoice_id)
    assert len(await unit.journal()) == 2


async def unsigned(here: Suspending, sale: dict[str, Any], phone: str) -> Reply:
    """Its time for signing by itself is over, KRA comes back after it."""
    reply = await paid_too_late(here, sale, phone)
    until = (await here.shop.checkout("key-1")).sign_until
    assert until is not None
    async with asyncio.timeout(60):
        while not await here.shop.events("payment.alarm"):
            # An attempt takes real time, in which the clock goes on here.
            await here.pass_s(10)
    assert here.clock.now().timestamp() >= until / 1e6
    (alarm,) = await here.shop.events("payment.alarm")
    assert (alarm.data["alarm"], alarm.subject) == ("UNSIGNED", reply.json["checkoutId"])
    await here.contact()
    await here.pass_s(120)
    # Behind a person's back nothing is signed any more: the customer may have been given his money.
    assert (await here.shop.checkout("key-1")).state == "READY"
    assert len(await here.unit.journal()) == 1
    (line,) = await here.listed()
    assert (line["checkoutId"], line["state"]) == (reply.json["checkoutId"], "READY")
    page = (await here.shop.till().request("GET", "/payments")).body.decode()
    assert "Money came, no receipt" in page and sale["tillReceiptNo"] in page
    return reply


async def test_after_its_time_a_person_signs_it(unit: UnitControl, shop_dir: Path) -> None:
    async with suspending(unit, shop_dir) as here:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await unsigned(here, sale, phone)
        path = f"/v1/checkouts/{reply.json['checkoutId']}/sign"
        assert (await here.shop.shop.technician().request("POST", path)).status == 202
        await here.shop.until_checkout("key-1", "SIGNED")
        assert (await here.shop.sell("key-1", sale)).status == 201
    assert len(await unit.journal()) == 2


async def test_after_its_time_a_person_gives_the_money_back(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with suspending(unit, shop_dir) as here:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await unsigned(here, sale, phone)
        technician, why = here.shop.shop.technician(), {"reason": "the customer has left"}
        path = f"/v1/checkouts/{reply.json['checkoutId']}/close"
        closed = await technician.request("POST", path, json={"outcome": "ABANDONED", **why})
        assert closed.status == 200, closed.json
        payment_id = reply.json["payments"][0]["paymentId"]
        assert (await here.shop.payment(payment_id)).tender == "REFUND_DUE"
        path = f"/v1/payments/{payment_id}/refund"
        back = await technician.request("POST", path, json={"byHand": True, **why})
        assert back.status == 202, back.json
        assert (await here.shop.payment(payment_id)).tender == "REFUNDED"
        again = await here.shop.sell("key-1", sale)
    assert problem(again) == (409, "PAYMENT_FAILED")
    assert len(await unit.journal()) == 1
