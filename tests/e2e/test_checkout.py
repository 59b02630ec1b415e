"""A sale that is paid by M-Pesa and signed, end to end: till, gateway, the fake Daraja, the unit's JVM."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.domain.payment import Evidence, Source, Verdict
from gateway.store import checkouts, payments
from hw_fakes.vscu.unit import UnitControl
from tests.support.paid_shop import (
    PEOPLE,
    PaidShop,
    a_paid_sale,
    a_phone,
    mpesa_tender,
    paid_shop,
    problem,
)
from tests.support.shop import a_sale

# A till that asks again soon.
SHORT = {"wait_s": 0.5}


async def test_a_sale_is_asked_for_paid_and_signed_in_one_request(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        sale = a_paid_sale(mpesa_tender(a_phone()))
        first = await shop.till().sell("key-1", sale)
        assert first.status == 201, first.json
        again = await shop.till().sell("key-1", sale)
        checkout = await shop.checkout("key-1")
        (payment,) = shop.fake.payments
        path = f"/v1/payments?saleRef={sale['tillReceiptNo']}"
        (row,) = (await shop.till().request("GET", path)).json["payments"]
        told = [event.data["state"] for event in await shop.events("checkout.changed")]
    assert first.body == again.body
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (checkout.state, checkout.invoice_id) == ("SIGNED", first.json["invoiceId"])
    assert (row["tender"], row["invoiceId"]) == ("COMPLETED_BY_MPESA", first.json["invoiceId"])
    assert row["receipt"] == payment.receipt
    assert told == ["COLLECTING", "READY", "SIGNED"]
    assert len(await unit.journal()) == 1


async def test_a_till_that_waits_is_told_what_to_say_and_the_sale_signs_itself(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT) as shop:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await shop.waiting("key-1", sale)
        assert reply.json["signed"] == "no"
        assert "enter the M-Pesa PIN" in reply.json["detail"]
        assert reply.json["payments"][0]["state"] == "WAITING"
        assert phone not in reply.body.decode()
        assert await unit.journal() == []
        await shop.answer(phone)
        # Nobody asks any more: the till is away.
        await shop.until_checkout("key-1", "SIGNED")
        assert (await shop.sell("key-1", sale)).status == 201
    assert len(await unit.journal()) == 1


async def test_a_split_sale_asks_one_customer_after_the_other(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT) as shop:
        one, two = a_phone(), a_phone()
        cash = {"method": "CASH", "amount": "100.00"}
        sale = a_paid_sale(mpesa_tender(one, "120.00"), mpesa_tender(two, "100.00"), cash)
        await shop.waiting("key-1", sale)
        assert [push.phone for push in shop.fake.pushes] == [one]
        await shop.answer(one)
        await shop.asked(two)
        assert (await shop.waiting("key-1", sale)).json["payments"][0]["state"] == "PAID"
        await shop.answer(two)
        await shop.until_checkout("key-1", "SIGNED")
        reply = await shop.sell("key-1", sale)
        checkout = await shop.checkout("key-1")
        rows = await shop.shop.gateway.db.read(lambda conn: payments.of_checkout(conn, checkout.id))
    assert (reply.status, reply.json["change"]) == (201, "23.00")
    assert [row.tender for row in rows] == ["COMPLETED_BY_MPESA"] * 2
    assert {row.invoice_id for row in rows} == {reply.json["invoiceId"]}


async def test_what_is_not_paid_closes_the_sale_and_the_other_part_is_used_again(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT) as shop:
        one, two = a_phone(), a_phone()
        sale = a_paid_sale(mpesa_tender(one, "150.00"), mpesa_tender(two, "147.00"))
        await shop.waiting("key-1", sale)
        await shop.answer(one)
        await shop.answer(two, "cancel")
        await shop.until_checkout("key-1", "CLOSED")
        failed = await shop.sell("key-1", sale)
        assert problem(failed) == (409, "PAYMENT_FAILED")
        assert failed.json["signed"] == "no"
        assert "cancelled" in failed.json["detail"]
        (reuse,) = failed.json["reuse"]
        assert reuse["amount"] == "150.00"
        assert await unit.journal() == []
        # Without the money that is there the sale is not signed: somebody would forget it.
        cash_only = a_sale(tillReceiptNo=sale["tillReceiptNo"])
        forgot = await shop.sell("key-2", cash_only)
        assert problem(forgot) == (409, "PAYMENT_OPEN")
        cash = {"method": "CASH", "amount": "147.00"}
        tenders = [{k: reuse[k] for k in ("method", "paymentId")}, cash]
        other = a_sale(tillReceiptNo=sale["tillReceiptNo"], tenders=tenders)
        signed = await shop.sell("key-3", other)
        assert signed.status == 201, signed.json
        paid = await shop.payment(reuse["paymentId"])
        again = await shop.sell("key-1", sale)
    assert (paid.tender, paid.invoice_id) == ("COMPLETED_BY_MPESA", signed.json["invoiceId"])
    assert problem(again) == (409, "PAYMENT_FAILED")
    assert again.json["reuse"] == []
    assert len(await unit.journal()) == 1


async def test_nobody_is_asked_for_money_when_the_sale_could_not_be_signed(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        sale = a_paid_sale(mpesa_tender(a_phone()))
        short = await shop.till().sell("bad", a_paid_sale(mpesa_tender(a_phone(), "200.00")))
        assert problem(short) == (422, "INVOICE_INVALID")
        signer = shop.shop.gateway.signer
        signer.blocked = "An earlier sale is being cleared up with the control unit."
        blocked = await shop.till().sell("key-1", sale)
        signer.blocked = None
        assert problem(blocked) == (503, "UNIT_UNAVAILABLE")
        assert blocked.json["signed"] == "no"
        shop.shop.gateway.health.healthy, shop.shop.gateway.health.reason = False, "no keys"
        unready = await shop.till().sell("key-1", sale)
        assert problem(unready) == (503, "UNIT_UNAVAILABLE")
        assert shop.fake.pushes == []
        found = await shop.shop.gateway.db.read(checkouts.all_open)
    assert found == []


async def test_a_key_is_one_sale_whichever_way_it_is_paid(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        till = shop.till()
        await till.sell("plain", a_sale())
        await till.sell("mpesa", a_paid_sale(mpesa_tender(a_phone())))
        replies = [
            await till.sell("plain", a_paid_sale(mpesa_tender(a_phone()))),
            await till.sell("mpesa", a_sale()),
            await till.sell("mpesa", a_paid_sale(mpesa_tender(a_phone()))),
        ]
        assert len(shop.fake.pushes) == 1
    assert [problem(reply) for reply in replies] == [(422, "IDEMPOTENCY_KEY_REUSED")] * 3


async def test_thirty_posts_of_one_sale_ask_once_and_sign_once(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        sale = a_paid_sale(mpesa_tender(a_phone()))
        till = shop.till()
        replies = await asyncio.gather(*(till.sell("key-1", sale) for _ in range(30)))
        assert len(shop.fake.pushes) == 1
    assert {reply.status for reply in replies} == {201}
    assert len({reply.body for reply in replies}) == 1
    assert len(await unit.journal()) == 1


async def test_late_money_of_a_sale_that_was_given_up_or_paid_in_cash_goes_back(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT) as shop:
        till = shop.till()
        for outcome in ("ABANDONED", "PAID_OTHERWISE"):
            phone = a_phone()
            sale = a_paid_sale(mpesa_tender(phone))
            reply = await shop.waiting(outcome, sale)
            path = f"/v1/checkouts/{reply.json['checkoutId']}/close"
            closed = await till.request("POST", path, json={"outcome": outcome})
            assert (closed.status, closed.json["state"]) == (200, "CLOSED")
            again = await till.request("POST", path, json={"outcome": outcome})
            assert again.status == 200
            if outcome == "PAID_OTHERWISE":
                cash = await shop.sell("cash", a_sale(tillReceiptNo=sale["tillReceiptNo"]))
                assert cash.status == 201, cash.json
            await shop.answer(phone)
            payment = await shop.until_payment(reply.json["payments"][0]["paymentId"], money="PAID")
            assert payment.tender == "REFUND_DUE"
            failed = await shop.sell(outcome, sale)
            assert problem(failed) == (409, "PAYMENT_FAILED")
        lists = (await till.request("GET", "/v1/payments/lists")).json
        alarms = [event.data["alarm"] for event in await shop.events("payment.alarm")]
    assert len(lists["refundDue"]) == 2
    assert alarms == ["LATE", "LATE"]
    assert len(await unit.journal()) == 1


async def test_status_unknown_keeps_the_sale_open_and_late_money_completes_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT) as shop:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await shop.waiting("key-1", sale)
        payment_id = reply.json["payments"][0]["paymentId"]
        await shop.ledger.hear(payment_id, Evidence(Source.CLOCK, Verdict.DEADLINE))
        unknown = await shop.waiting("key-1", sale)
        assert unknown.json["detail"].startswith("Status unknown. M-Pesa has not confirmed.")
        assert "failed" not in unknown.json["detail"].lower()
        await shop.answer(phone)
        await shop.until_checkout("key-1", "SIGNED")
        assert (await shop.sell("key-1", sale)).status == 201


async def test_another_amount_waits_for_a_person(unit: UnitControl, shop_dir: Path) -> None:
    async with paid_shop(unit, shop_dir, api=SHORT) as shop:
        phone = a_phone()
        shop.fake.script("wrong_amount", phone=phone)
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await shop.waiting("key-1", sale)
        payment = await shop.until_payment(reply.json["payments"][0]["paymentId"], tender="REVIEW")
        assert "Call the manager" in (await shop.waiting("key-1", sale)).json["detail"]
        path = f"/v1/payments/{payment.id}/accept"
        nobody = await shop.till().request("POST", path, json={"reason": "a few shillings"})
        assert problem(nobody) == (401, "UNKNOWN_TECHNICIAN")
        said = {"reason": "a few shillings", "difference": "CASH"}
        accepted = await shop.shop.technician().request("POST", path, json=said)
        assert accepted.status == 200, accepted.json
        await shop.until_checkout("key-1", "SIGNED")
        assert (await shop.payment(payment.id)).tender == "COMPLETED_BY_MPESA"


async def test_money_that_cannot_be_signed_for_waits_for_a_person(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT) as shop:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await shop.waiting("key-1", sale)
        checkout_id = reply.json["checkoutId"]
        signer = shop.shop.gateway.signer
        signer.blocked = "An earlier sale is being cleared up with the control unit."
        await shop.answer(phone)
        await shop.until_checkout("key-1", "READY")
        # A till cannot close it any more, and the money is nobody else's.
        path = f"/v1/checkouts/{checkout_id}/close"
        late = await shop.till().request("POST", path, json={"outcome": "ABANDONED"})
        assert problem(late) == (409, "PAYMENT_SETTLED")
        told = await shop.sell("key-1", sale)
        assert problem(told) == (503, "UNIT_UNAVAILABLE")
        assert (told.json["signed"], told.json["checkoutId"]) == ("no", checkout_id)
        # Its time is over.
        shop.checkouts.moves.sign_within_us = 0
        await shop.checkouts.sign_now(checkout_id)
        await shop.until(lambda: _has_event(shop, "payment.alarm"))
        lists = (await shop.till().request("GET", "/v1/payments/lists")).json
        assert [one["checkoutId"] for one in lists["unsigned"]] == [checkout_id]
        shop.checkouts.moves.sign_within_us = 60_000_000
        signer.blocked = None
        now = await shop.shop.technician().request("POST", f"/v1/checkouts/{checkout_id}/sign")
        assert now.status == 202
        await shop.until_checkout("key-1", "SIGNED")
        assert (await shop.sell("key-1", sale)).status == 201
    assert len(await unit.journal()) == 1


async def _has_event(shop: PaidShop, kind: str) -> bool:
    return bool(await shop.events(kind))


async def test_a_person_closes_what_cannot_be_signed_and_the_money_goes_back(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api=SHORT) as shop:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        reply = await shop.waiting("key-1", sale)
        signer = shop.shop.gateway.signer
        signer.blocked = "An earlier sale is being cleared up with the control unit."
        await shop.answer(phone)
        await shop.until_checkout("key-1", "READY")
        path = f"/v1/checkouts/{reply.json['checkoutId']}/close"
        closed = await shop.shop.technician().request(
            "POST", path, json={"outcome": "ABANDONED", "reason": "the customer left"}
        )
        assert closed.status == 200, closed.json
        signer.blocked = None
        again = await shop.sell("key-1", sale)
        payment = await shop.payment(reply.json["payments"][0]["paymentId"])
    assert problem(again) == (409, "PAYMENT_FAILED")
    assert payment.tender == "REFUND_DUE"
    assert await unit.journal() == []


async def test_a_sale_that_the_unit_refuses_is_closed_and_its_money_used_in_the_next(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        await unit.knobs(rejectNext=1, rejectCode="913", rejectMessage="Code value error")
        sale = a_paid_sale(mpesa_tender(a_phone()))
        refused = await shop.till().sell("key-1", sale)
        assert problem(refused) == (409, "PAYMENT_FAILED")
        assert "control unit refused" in refused.json["detail"]
        (reuse,) = refused.json["reuse"]
        tender = {"method": "MPESA", "paymentId": reuse["paymentId"]}
        again = a_paid_sale(tender, tillReceiptNo=sale["tillReceiptNo"])
        signed = await shop.till().sell("key-2", again)
        assert signed.status == 201, signed.json
        assert len(shop.fake.pushes) == 1
    assert len(await unit.journal()) == 1
