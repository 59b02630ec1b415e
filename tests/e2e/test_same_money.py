"""One M-Pesa payment at a till (Buy Goods) never signs two sales, whatever came first: over HTTP, with the fake
Daraja, a real control unit, and the page in a browser."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from playwright.async_api import Browser

from gateway.clock import EAT
from gateway.mpesa.c2b_token import c2b_token
from gateway.store import invoices
from hw_fakes.daraja import PASSKEY
from hw_fakes.vscu.unit import UnitControl
from tests.support.browser import PHONE
from tests.support.paid_shop import PaidShop, a_phone, paid_shop, problem
from tests.support.shop import TECHNICIANS, a_sale

TILL = {"shortcode": "600984", "till_number": "5566778", "c2b": True, "query_every_s": 1}


def mobile_money(**more: str) -> list[dict[str, str]]:
    return [{"method": "MOBILE_MONEY", "amount": "297.00", **more}]


async def announce(shop: PaidShop, receipt: str, **changes: Any) -> None:
    """M-Pesa's confirmation of a payment to the till, posted to the gateway's own address."""
    notice = {
        "TransactionType": "Buy Goods", "TransID": receipt,
        "TransTime": f"{datetime.now(EAT):%Y%m%d%H%M%S}", "TransAmount": "297.00",
        "BusinessShortCode": "5566778", "BillRefNumber": "", "MSISDN": None, "FirstName": "JANE",
    } | changes  # fmt: skip
    await post(shop, f"c/{c2b_token(PASSKEY, '600984')}", notice)


async def post(shop: PaidShop, path: str, body: Any) -> None:
    direct = shop.shop.gateway.payments.direct
    assert direct is not None
    url = f"http://127.0.0.1:{direct.port}/in/{path}"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        assert answer.status == 200


async def call_back(shop: PaidShop, phone: str, receipt: str) -> None:
    """The push's own callback says under which receipt it was paid."""
    (sent,) = [p for p in shop.fake.pushes if p.phone == phone]
    token = str(sent.callback_url).rsplit("/", 1)[1]
    items = {"Amount": 297.0, "MpesaReceiptNumber": receipt, "PhoneNumber": int(phone)}
    callback = {
        "ResultCode": 0, "ResultDesc": "ok",
        "CallbackMetadata": {"Item": [{"Name": n, "Value": v} for n, v in items.items()]},
    }  # fmt: skip
    await post(shop, f"s/{token}", {"Body": {"stkCallback": callback}})


async def paid_without_receipt(shop: PaidShop, sale_ref: str) -> tuple[str, str]:
    """(payment, phone): the callback was lost, M-Pesa says "paid" when it is asked."""
    phone = a_phone()
    body = {"saleRef": sale_ref, "amount": "297.00", "phone": phone}
    reply = await shop.till().request("POST", "/v1/payments/mpesa", key=sale_ref, json=body)
    assert reply.status == 202, reply.json
    name = reply.json["paymentId"]

    async def paid() -> bool:
        found = await shop.till().request("POST", f"/v1/payments/{name}/check")
        return bool(found.json["state"] == "PAID")

    await shop.until(paid)
    return name, phone


async def loose(shop: PaidShop, receipt: str) -> str:
    """The payment under this receipt, once the message was read."""

    async def there() -> bool:
        found = (await shop.till("till-2").request("GET", "/v1/payments?open=1")).json["payments"]
        return any(each["receipt"] == receipt for each in found)

    await shop.until(there)
    found = (await shop.till("till-2").request("GET", "/v1/payments?open=1")).json["payments"]
    return str(next(each["paymentId"] for each in found if each["receipt"] == receipt))


async def test_a_push_and_its_unnamed_confirmation_sign_one_sale(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with paid_shop(
        unit, shop_dir, mpesa=TILL, knobs={"default": "lost_callback_paid"}
    ) as shop:
        push, phone = await paid_without_receipt(shop, "SALE-A")
        salted = hashlib.sha256(f"salt{phone}".encode()).hexdigest()
        await announce(shop, "UKU0000001", MSISDN=salted)
        twin = await loose(shop, "UKU0000001")
        other = shop.till("till-2")
        claim = {"saleRef": "SALE-B"}
        first = await other.request("POST", f"/v1/payments/{twin}/claim", json=claim)
        assert problem(first) == (409, "PAYMENT_MAY_BE_SAME")
        assert (first.json["signed"], first.json["otherPaymentId"]) == ("no", push)
        assert "SALE-A" in first.json["detail"]
        # Neither by its receipt nor by its id.
        for n, named in enumerate(({"reference": "UKU0000001"}, {"paymentId": twin})):
            sale = a_sale(tillReceiptNo=f"B{n}", payments=mobile_money(**named))
            reply = await other.sell(f"b{n}", sale)
            assert problem(reply) == (409, "PAYMENT_MAY_BE_SAME"), reply.json
            assert reply.json["signed"] == "no"
        # The sale that asked for the money has it.
        own = a_sale(tillReceiptNo="SALE-A", payments=mobile_money(paymentId=push))
        assert (await shop.till().sell("own", own)).status == 201
        again = await other.request("POST", f"/v1/payments/{twin}/claim", json=claim)
        assert problem(again) == (409, "PAYMENT_MAY_BE_SAME")
        figures = (await shop.till().request("GET", "/v1/payments/report")).json["shop"]
        assert figures["paid"] == {"number": 1, "amount": "297.00"}
        assert figures["mayBeSame"] == {"number": 1, "amount": "297.00"}
        table = await shop.till().request("GET", "/v1/payments/report?format=csv")
        assert "MAY_BE_SAME" in str(table.body)
        lists = (await shop.till().request("GET", "/v1/payments/lists")).json
        assert [each["paymentId"] for each in lists["mayBeSame"]] == [twin]
        # A till's own word is not enough; a manager decides on the page.
        decision = {"otherPaymentId": push, "same": True, "reason": "statement"}
        refused = await other.request("POST", f"/v1/payments/{twin}/same", json=decision)
        assert refused.status == 401
        page = await browser.new_page(viewport=PHONE)
        await page.goto(f"{shop.till().url}/payments")
        heading = page.get_by_role("heading", name="May be the same money")
        assert await heading.count() == 1
        await page.goto(f"{shop.till().url}/payments/{twin}")
        form = page.locator("form", has=page.locator("button[value=same]"))
        await form.locator("[name=reason]").fill("one of 297 on the statement")
        await form.locator("[name=code]").fill(TECHNICIANS["wanjiru"])
        await form.locator("button[value=same]").click()
        await page.wait_for_url(f"**/payments/{twin}")
        merged = await shop.payment(twin)
        assert (merged.tender, merged.merged_into) == ("MERGED", push)
        assert (await shop.payment(push)).receipt == "UKU0000001"
    assert len(await unit.journal()) == 1


async def test_money_that_another_sale_used_is_named_and_pays_no_second_one(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(
        unit, shop_dir, mpesa=TILL, knobs={"default": "lost_callback_paid"}
    ) as shop:
        phone = a_phone()
        body = {"saleRef": "SALE-A", "amount": "297.00", "phone": phone}
        asked = await shop.till().request("POST", "/v1/payments/mpesa", key="a", json=body)
        push = asked.json["paymentId"]
        await shop.until_payment(push, money="WAITING")
        # The confirmation comes first; a cashier gives it to SALE-B, which is signed.
        await announce(shop, "UKU0000002")
        twin, other = await loose(shop, "UKU0000002"), shop.till("till-2")
        claimed = await other.request(
            "POST", f"/v1/payments/{twin}/claim", json={"saleRef": "SALE-B"}
        )
        assert claimed.status == 200, claimed.json
        sale_b = a_sale(tillReceiptNo="SALE-B", payments=mobile_money(paymentId=twin))
        assert (await other.sell("b", sale_b)).status == 201

        async def paid() -> bool:
            found = await shop.till().request("POST", f"/v1/payments/{push}/check")
            return bool(found.json["state"] == "PAID")

        await shop.until(paid)
        own = a_sale(tillReceiptNo="SALE-A", payments=mobile_money(paymentId=push))
        refused = await shop.till().sell("a1", own)
        assert problem(refused) == (409, "PAYMENT_MAY_BE_SAME")
        assert "SALE-B" in refused.json["detail"]
        tenders = a_sale(tillReceiptNo="SALE-A", tenders=[{"method": "MPESA", "paymentId": push}])
        assert problem(await shop.till().sell("a2", tenders)) == (409, "PAYMENT_MAY_BE_SAME")
        # The callback says whose money it was after all.
        await call_back(shop, phone, "UKU0000002")
        await shop.until_payment(push, tender="MERGED")
        shown = (await shop.till().request("GET", f"/v1/payments/{push}")).json
        assert "SALE-B at till-2" in shown["sentence"]["en"]
        alarms = [each.data["alarm"] for each in await shop.events("payment.alarm")]
        assert alarms == ["OTHER_SALE"]
        for n, sale in enumerate((own, tenders)):
            reply = await shop.till().sell(f"late{n}", sale)
            assert reply.status in (409, 422), reply.json
            assert "SALE-B" in reply.json["detail"], json.dumps(reply.json)
    assert len(await unit.journal()) == 1


async def test_a_callback_while_the_other_sale_is_at_the_unit_takes_no_money_from_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(
        unit, shop_dir, mpesa=TILL, knobs={"default": "lost_callback_paid"}
    ) as shop:
        phone = a_phone()
        body = {"saleRef": "SALE-A", "amount": "297.00", "phone": phone}
        asked = await shop.till().request("POST", "/v1/payments/mpesa", key="a", json=body)
        push = asked.json["paymentId"]
        await shop.until_payment(push, money="WAITING")
        await announce(shop, "UKU0000003")
        twin, other = await loose(shop, "UKU0000003"), shop.till("till-2")
        claim = {"saleRef": "SALE-B"}
        assert (await other.request("POST", f"/v1/payments/{twin}/claim", json=claim)).status == 200
        await unit.knobs(latencyMs=3_000)
        sale_b = a_sale(tillReceiptNo="SALE-B", payments=mobile_money(paymentId=twin))
        selling = asyncio.ensure_future(other.sell("b", sale_b))

        async def at_unit() -> bool:
            db = shop.shop.gateway.db
            return await db.read(invoices.open_row) is not None

        await shop.until(at_unit)
        await call_back(shop, phone, "UKU0000003")
        merged = await shop.until_payment(push, tender="MERGED")
        assert merged.merged_into == twin
        await unit.knobs(latencyMs=0)
        reply = await selling
        if reply.status == 202:
            reply = await shop.sell("b", sale_b, "till-2")
        assert reply.status == 201, reply.json
        assert (await shop.payment(twin)).tender == "COMPLETED_BY_MPESA"
        alarms = [each.data["alarm"] for each in await shop.events("payment.alarm")]
        assert alarms == ["OTHER_SALE"]
        own = a_sale(tillReceiptNo="SALE-A", payments=mobile_money(paymentId=push))
        refused = await shop.till().sell("a1", own)
        assert problem(refused) == (422, "PAYMENT_INVALID")
        assert "SALE-B" in refused.json["detail"]
    assert len(await unit.journal()) == 1
