"""`/v1/payments` over HTTP: pushes by themselves, whose payments are whose, plain sales that name a payment,
what a person decides, and every way to ask wrongly."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.payment import Evidence, Source, Verdict
from hw_fakes.vscu.unit import UnitControl
from tests.support.paid_shop import (
    PEOPLE,
    SHORTCODE,
    PaidShop,
    a_paid_sale,
    a_phone,
    mpesa_tender,
    paid_shop,
    problem,
)
from tests.support.shop import a_sale, make_settings, open_shop

REASON = {"reason": "seen on the statement"}


def mobile_money(amount: str = "297.00", **more: str) -> dict[str, str]:
    return {"method": "MOBILE_MONEY", "amount": amount, **more}


async def test_one_payment_pays_one_of_two_sales_that_name_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        payment = await shop.paid("A")
        tenders = [mobile_money(paymentId=payment.id)]
        by_receipt = [mobile_money(reference=payment.receipt or "")]
        replies = await asyncio.gather(
            *(
                shop.till().sell(f"k{n}", a_sale(payments=tenders if n % 2 else by_receipt))
                for n in range(8)
            )
        )
        after = await shop.payment(payment.id)
    statuses = sorted(problem(r) if r.status != 201 else (201, "") for r in replies)
    assert statuses == [(201, ""), *[(422, "PAYMENT_INVALID")] * 7]
    (signed,) = [reply for reply in replies if reply.status == 201]
    assert (after.tender, after.invoice_id) == ("COMPLETED_BY_MPESA", signed.json["invoiceId"])
    refused = next(reply for reply in replies if reply.status == 422)
    assert refused.json["signed"] == "no"
    assert refused.json["errors"][0]["pointer"] == "/payments/0"
    assert len(await unit.journal()) == 1


async def test_a_sale_with_tenders_and_a_plain_one_share_no_payment(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        payment = await shop.paid("A")
        named = {"method": "MPESA", "paymentId": payment.id}
        replies = await asyncio.gather(
            shop.till().sell("plain", a_sale(payments=[mobile_money(paymentId=payment.id)])),
            shop.till().sell("tenders", a_paid_sale(named)),
        )
    assert sorted(reply.status for reply in replies)[0] == 201
    assert sorted(reply.status for reply in replies)[1] in (409, 422)
    assert len(await unit.journal()) == 1


async def test_a_payment_must_be_paid_this_tills_and_exact(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE) as shop:
        phone = a_phone()
        body = {"saleRef": "B", "amount": "297", "phone": phone}
        asked = await shop.till().request("POST", "/v1/payments/mpesa", key="p", json=body)
        assert asked.status == 202
        name = asked.json["paymentId"]
        unpaid = await shop.till().sell("k1", a_sale(payments=[mobile_money(paymentId=name)]))
        await shop.answer(phone)
        await shop.until_payment(name, money="PAID")
        split = [mobile_money("200.00", paymentId=name), {"method": "CASH", "amount": "97.00"}]
        short = await shop.till().sell("k2", a_sale(payments=split))
        other = shop.till("till-2")
        strange = await other.sell("k3", a_sale(payments=[mobile_money(paymentId=name)]))
        unseen = await other.request("GET", f"/v1/payments/{name}")
        none_such = await other.request("GET", f"/v1/payments/{'0' * 26}")
        listed = (await other.request("GET", "/v1/payments?open=1")).json["payments"]
        # By the sale's own number nothing needs to be named.
        good = await shop.till().sell("k4", a_sale(tillReceiptNo="B", payments=[mobile_money()]))
        assert good.status == 201, good.json
        owner = (await shop.payment(name)).invoice_id
    assert [problem(r) for r in (unpaid, short, strange)] == [(422, "PAYMENT_INVALID")] * 3
    assert "297.00" in short.json["detail"]
    assert problem(unseen) == problem(none_such) == (404, "PAYMENT_UNKNOWN")
    assert unseen.json["detail"] == none_such.json["detail"]
    assert listed == []
    assert owner == good.json["invoiceId"]


async def test_a_prompt_that_is_open_stops_a_plain_sale_until_the_till_decides(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE) as shop:
        till, phone = shop.till(), a_phone()
        body = {"saleRef": "C", "amount": "297.00", "phone": phone}
        asked = await till.request("POST", "/v1/payments/mpesa", key="p", json=body)
        name = asked.json["paymentId"]
        second = await till.request(
            "POST", "/v1/payments/mpesa", key="p2", json={**body, "phone": a_phone()}
        )
        assert problem(second) == (409, "PAYMENT_OPEN")
        sale = a_sale(tillReceiptNo="C")
        stopped = await till.sell("k1", sale)
        assert problem(stopped) == (409, "PAYMENT_OPEN")
        assert (stopped.json["signed"], stopped.json["payment"]["paymentId"]) == ("no", name)
        bad = await till.request(
            "POST", "/v1/invoices", key="k1", json=sale, headers={"Settle-Otherwise": "x"}
        )
        assert problem(bad) == (400, "IDEMPOTENCY_KEY_INVALID")
        decided = await till.request(
            "POST", "/v1/invoices", key="k1", json=sale, headers={"Settle-Otherwise": name}
        )
        assert decided.status == 201, decided.json
        assert (await shop.payment(name)).tender == "COMPLETED_OTHERWISE"
        await shop.answer(phone)
        late = await shop.until_payment(name, money="PAID")
    assert late.tender == "REFUND_DUE"


async def test_a_receipt_whose_money_is_not_known_waits_for_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, mpesa={"c2b": True}) as shop:
        till = shop.till()
        by_cash_sender = [mobile_money(reference="UKP0000001")]
        signed = await till.sell("k1", a_sale(payments=by_cash_sender))
        other = await till.sell("k2", a_sale(payments=[mobile_money(reference="UKP0000002")]))
        assert (signed.status, other.status) == (201, 201)
        lists = (await till.request("GET", "/v1/payments/lists")).json
        assert {one["reference"] for one in lists["receiptWithoutMoney"]} == {
            "UKP0000001", "UKP0000002",
        }  # fmt: skip
        await announce(shop, "UKP0000001", "297.00")

        async def one_is_left() -> bool:
            lists = (await till.request("GET", "/v1/payments/lists")).json
            return [one["reference"] for one in lists["receiptWithoutMoney"]] == ["UKP0000002"]

        await shop.until(one_is_left)
        path = f"/v1/payments/unpaid-receipts/{other.json['invoiceId']}/close"
        assert problem(await till.request("POST", path, json=REASON)) == (
            401,
            "UNKNOWN_TECHNICIAN",
        )
        closed = await shop.shop.technician().request("POST", path, json=REASON)
        assert closed.json["closed"] == 1
        lists = (await till.request("GET", "/v1/payments/lists")).json
    assert lists["receiptWithoutMoney"] == lists["moneyWithoutReceipt"] == []


async def announce(shop: PaidShop, receipt: str, amount: str) -> None:
    """A C2B confirmation as M-Pesa sends it, to the shop's own site."""
    from gateway.mpesa.c2b_token import c2b_token
    from hw_fakes.daraja import PASSKEY

    settings = shop.shop.gateway.settings.mpesa
    message = {
        "TransactionType": "Pay Bill", "TransID": receipt, "TransTime": "20261125140000",
        "TransAmount": amount, "BusinessShortCode": SHORTCODE, "BillRefNumber": "SHOP",
        "InvoiceNumber": "", "OrgAccountBalance": "", "ThirdPartyTransID": "",
        "MSISDN": "2547 ***** 149", "FirstName": "JANE", "MiddleName": "", "LastName": "",
    }  # fmt: skip
    url = f"http://127.0.0.1:{settings.direct_port}/in/c/{c2b_token(PASSKEY, SHORTCODE)}"
    async with shop.shop.session.post(url, data=json.dumps(message)) as answer:
        assert answer.status == 200


async def test_a_customer_who_pays_by_himself_is_claimed_by_one_till(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, mpesa={"c2b": True}) as shop:
        await announce(shop, "UKP0000009", "297.00")

        async def is_there() -> bool:
            return bool((await shop.till().request("GET", "/v1/payments?open=1")).json["payments"])

        await shop.until(is_there)
        (found,) = (await shop.till("till-2").request("GET", "/v1/payments?open=1")).json[
            "payments"
        ]
        path = f"/v1/payments/{found['paymentId']}/claim"
        mine = await shop.till().request("POST", path, json={"saleRef": "D"})
        assert mine.status == 200, mine.json
        assert problem(await shop.till("till-2").request("POST", path, json={"saleRef": "D"})) == (
            404,
            "PAYMENT_UNKNOWN",
        )
        sale = a_sale(tillReceiptNo="D", payments=[mobile_money()])
        assert (await shop.till().sell("k", sale)).status == 201
        assert (await shop.payment(found["paymentId"])).tender == "COMPLETED_BY_MPESA"


async def test_what_a_person_decides_takes_a_technicians_code_and_a_reason(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE) as shop:
        person = shop.shop.technician()
        body = {"saleRef": "E", "amount": "297", "phone": a_phone()}
        asked = await shop.till().request("POST", "/v1/payments/mpesa", key="p", json=body)
        name = asked.json["paymentId"]
        await shop.until_payment(name, money="WAITING")
        await shop.ledger.hear(name, Evidence(Source.CLOCK, Verdict.DEADLINE))
        path = f"/v1/payments/{name}"
        typed = await shop.till().request("POST", f"{path}/code", json={"receipt": "ukp00 00003"})
        assert (typed.status, typed.json["state"]) == (200, "UNKNOWN")
        old = await shop.till().request("POST", f"{path}/code", json={"receipt": "SA10000003"})
        assert "01/01/2024" in old.json["warnings"][0]
        for deed in ("not-paid", "refund", "accept"):
            refused = await shop.till().request("POST", f"{path}/{deed}", json=REASON)
            assert problem(refused) == (401, "UNKNOWN_TECHNICIAN")
        silent = await person.request("POST", f"{path}/not-paid", json={"reason": "x"})
        assert problem(silent) == (422, "PAYMENT_INVALID")
        unpaid = await person.request("POST", f"{path}/not-paid", json=REASON)
        assert unpaid.json["state"] == "NOT_PAID"
        early = await person.request("POST", f"{path}/refund", json={**REASON, "byHand": True})
        assert problem(early) == (409, "PAYMENT_SETTLED")
        vouched = await person.request("POST", f"{path}/code", json={"receipt": "UKP0000003"})
        assert (vouched.json["state"], vouched.json["receipt"]) == ("PAID", "UKP0000003")
        back = await person.request("POST", f"{path}/refund", json={**REASON, "byHand": True})
        assert (back.status, back.json["tender"]) == (202, "REFUNDED")


PUSH = {"saleRef": "X", "amount": "450.00", "phone": "0712345678"}


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"amount": "0"}, "/amount", "OUT_OF_RANGE"),
        ({"amount": "-5"}, "/amount", "AMOUNT_INVALID"),
        ({"amount": "450.50"}, "/amount", "WHOLE_SHILLINGS"),
        ({"amount": "250001"}, "/amount", "OUT_OF_RANGE"),
        ({"amount": "1e3"}, "/amount", "AMOUNT_INVALID"),
        ({"amount": 450}, "/amount", "WRONG_TYPE"),
        ({"amount": None}, "/amount", "WRONG_TYPE"),
        ({"phone": "0612345678"}, "/phone", "PHONE_INVALID"),
        ({"phone": "071234567"}, "/phone", "PHONE_INVALID"),
        ({"phone": "07123456789"}, "/phone", "PHONE_INVALID"),
        ({"phone": "٠٧١٢٣٤٥٦٧٨"}, "/phone", "PHONE_INVALID"),
        ({"phone": ["0712345678"]}, "/phone", "WRONG_TYPE"),
        ({"saleRef": ""}, "/saleRef", "TEXT_INVALID"),
        ({"saleRef": "x" * 51}, "/saleRef", "TOO_LONG"),
        ({"pin": "1234"}, "/pin", "UNKNOWN_FIELD"),
    ],
)
async def test_a_push_that_is_wrong_asks_nobody(
    shared_shop: PaidShop, change: dict[str, Any], pointer: str, code: str
) -> None:
    reply = await shared_shop.till().request(
        "POST", "/v1/payments/mpesa", key="bad", json={**PUSH, **change}
    )
    assert problem(reply) == (422, "PAYMENT_INVALID")
    assert (pointer, code) in {(e["pointer"], e["code"]) for e in reply.json["errors"]}
    assert shared_shop.fake.pushes == []


@pytest.mark.parametrize(
    ("tenders", "pointer"),
    [
        ([{"method": "MPESA", "amount": "297.00"}], "/tenders/0/phone"),
        ([{"method": "MPESA", "phone": "0712345678"}], "/tenders/0/amount"),
        ([mpesa_tender("0712", "297.00")], "/tenders/0/phone"),
        ([mpesa_tender("0712345678", "297.50")], "/tenders/0/amount"),
        ([mpesa_tender("0712345678", "300.00")], "/tenders"),
        ([mpesa_tender("0712345678", "200.00")], "/tenders"),
        ([mpesa_tender("0712345678", "0")], "/tenders/0/amount"),
        ([{"method": "CASH", "amount": "297.00"}], "/tenders"),
        ([{"method": "CASH", "amount": "297.00", "phone": "0712345678"}], "/tenders/0/phone"),
        ([{"method": "MPESA", "paymentId": "0" * 26}], "/tenders/0/paymentId"),
        ([{"method": "MPESA", "paymentId": "nonsense"}], "/tenders/0/paymentId"),
        (
            [mpesa_tender("0712345678", "97.00"), mpesa_tender("+254712345678", "200.00")],
            "/tenders",
        ),
        ([], "/tenders"),
        ({}, "/tenders"),
        ([{"method": "BITCOIN", "amount": "297.00"}], "/tenders/0/method"),
    ],
)
async def test_tenders_that_are_wrong_ask_nobody(
    shared_shop: PaidShop, tenders: Any, pointer: str
) -> None:
    reply = await shared_shop.till().sell("bad", a_sale(tenders=tenders))
    assert problem(reply) == (422, "INVOICE_INVALID")
    assert pointer in {e["pointer"] for e in reply.json["errors"]}
    assert shared_shop.fake.pushes == []


async def test_other_ways_to_ask_wrongly(shared_shop: PaidShop) -> None:
    till = shared_shop.till()
    tender = mpesa_tender("0712345678")
    both = a_sale(tenders=[tender], payments=[{"method": "CASH", "amount": "297.00"}])
    replies = {
        "both": await till.sell("k", both),
        "proforma": await till.sell("k", a_sale(tenders=[tender], type="PROFORMA")),
        "no key": await till.sell(None, a_sale(tenders=[tender])),
        "push without key": await till.request("POST", "/v1/payments/mpesa", json=PUSH),
        "card": await till.sell(
            "k", a_sale(payments=[{"method": "CARD", "amount": "297.00", "paymentId": "0" * 26}])
        ),
        "which": await till.request("GET", "/v1/payments"),
        "id": await till.request("GET", "/v1/payments/none"),
        "checkout": await till.request("GET", "/v1/checkouts/none"),
        "outcome": await till.request(
            "POST", f"/v1/checkouts/{'0' * 26}/close", json={"outcome": "LOST"}
        ),
        "invoice": await shared_shop.shop.technician().request(
            "POST", "/v1/payments/unpaid-receipts/none/close", json=REASON
        ),
    }
    assert {name: problem(reply) for name, reply in replies.items()} == {
        "both": (422, "INVOICE_INVALID"),
        "proforma": (422, "INVOICE_INVALID"),
        "no key": (400, "IDEMPOTENCY_KEY_MISSING"),
        "push without key": (400, "IDEMPOTENCY_KEY_MISSING"),
        "card": (422, "INVOICE_INVALID"),
        "which": (400, "QUERY_INVALID"),
        "id": (404, "PAYMENT_UNKNOWN"),
        "checkout": (404, "CHECKOUT_UNKNOWN"),
        "outcome": (404, "CHECKOUT_UNKNOWN"),
        "invoice": (404, "INVOICE_UNKNOWN"),
    }
    assert shared_shop.fake.pushes == []


@pytest.fixture
async def shared_shop(unit: UnitControl, shop_dir: Path) -> Any:
    async with paid_shop(unit, shop_dir) as shop:
        yield shop


async def test_without_mpesa_nobody_is_asked_and_plain_sales_go_on(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        off = await till.sell("k1", a_sale(tenders=[mpesa_tender("0712345678")]))
        push = await till.request("POST", "/v1/payments/mpesa", key="p", json=PUSH)
        plain = await till.sell("k1", a_sale(payments=[mobile_money(reference="UKP0000001")]))
        lists = (await till.request("GET", "/v1/payments/lists")).json
    assert problem(off) == problem(push) == (409, "PAYMENTS_OFF")
    assert plain.status == 201
    assert lists["receiptWithoutMoney"] == []


async def test_a_till_that_comes_back_gets_what_it_missed_at_once(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE) as shop:
        newest = (await shop.events("unit.initialised"))[-1].id
        till, phone = shop.till(), a_phone()
        body = {"saleRef": "F", "amount": "297.00", "phone": phone}
        asked = await till.request("POST", "/v1/payments/mpesa", key="p", json=body)
        payment = await shop.until_payment(asked.json["paymentId"], money="WAITING")
        await shop.answer(phone)
        await shop.until_payment(payment.id, money="PAID")
        headers = {**till.headers, "Last-Event-ID": str(newest)}
        states = []
        async with shop.shop.session.get(f"{till.url}/v1/events", headers=headers) as stream:
            async for line in stream.content:
                if line.startswith(b"data: ") and payment.id.encode() in line:
                    states.append(json.loads(line[6:])["state"])
                if states and states[-1] == "PAID":
                    break
    assert states == ["NEW", "SENDING", "WAITING", "PAID"]


async def test_a_qr_code_for_the_customers_display(unit: UnitControl, shop_dir: Path) -> None:
    async with paid_shop(unit, shop_dir) as shop:
        till = shop.till()
        body = {"amount": "450", "reference": "POS-1"}
        made = await till.request("POST", "/v1/payments/qr", json=body)
        bad = await till.request("POST", "/v1/payments/qr", json={**body, "reference": "A/B"})
    assert made.status == 200, made.json
    assert base64.b64decode(made.json["png"]).startswith(b"\x89PNG")
    assert problem(bad) == (422, "PAYMENT_INVALID")
