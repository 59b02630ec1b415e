"""Another amount came than was asked for: the receipt says what came, and what became of the difference."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import invoice_json
from gateway.domain.payment import Evidence, Source, Verdict
from gateway.store import invoices
from gateway.store.payments import PaymentRow
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

CASH, MOBILE_MONEY = "01", "06"
ACCEPTED = {"reason": "counted at the till", "difference": "CASH"}


async def came(shop: PaidShop, payment_id: str, cents: int) -> None:
    await shop.until_payment(payment_id, money="WAITING")
    receipt = f"UKP{cents:07d}"
    word = Evidence(Source.CALLBACK, Verdict.PAID, "0", receipt=receipt, amount_cents=cents)
    await shop.ledger.hear(payment_id, word)
    await shop.until_payment(payment_id, tender="REVIEW")


async def accept(shop: PaidShop, payment_id: str, **said: str) -> Any:
    path = f"/v1/payments/{payment_id}/accept"
    return await shop.shop.technician().request("POST", path, json=said)


async def on_the_receipt(shop: PaidShop, invoice_id: str) -> tuple[list[tuple[str, str]], str]:
    row = await shop.shop.gateway.db.read(lambda conn: invoices.by_id(conn, invoice_id))
    assert row is not None
    invoice = invoice_json.from_json(row.document)
    return [(p.code, str(p.amount)) for p in invoice.payments], str(invoice.change)


@pytest.mark.parametrize(
    ("cents", "cash", "receipt", "change", "drawer"),
    [
        (28_700, None, [(MOBILE_MONEY, "287.00"), (CASH, "10.00")], "0", "10.00"),
        (30_700, None, [(MOBILE_MONEY, "307.00")], "10.00", "-10.00"),
        # The customer has cash on the table: the change was 50 and is 43 and 57.
        (9_300, "247.00", [(MOBILE_MONEY, "93.00"), (CASH, "247.00")], "43.00", "204.00"),
        (10_700, "247.00", [(MOBILE_MONEY, "107.00"), (CASH, "247.00")], "57.00", "190.00"),
    ],
)
async def test_the_receipt_says_what_came_and_the_difference_is_cash(
    unit: UnitControl, shop_dir: Path, cents: int, cash: str | None, receipt: Any, change: str, drawer: str
) -> None:  # fmt: skip
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api={"wait_s": 0.3}) as shop:
        tenders = [mpesa_tender(a_phone(), "297.00" if cash is None else "100.00")]
        if cash is not None:
            tenders.append({"method": "CASH", "amount": cash})
        sale = a_paid_sale(*tenders)
        reply = await shop.till().sell("key-1", sale)
        payment_id = reply.json["payments"][0]["paymentId"]
        await came(shop, payment_id, cents)
        # Whoever accepts says how it was settled.
        silent = await accept(shop, payment_id, reason="counted at the till")
        assert problem(silent) == (422, "PAYMENT_INVALID")
        assert silent.json["errors"][0]["pointer"] == "/difference"
        forgiven = await accept(shop, payment_id, **{**ACCEPTED, "difference": "FORGIVEN"})
        assert problem(forgiven) == (422, "PAYMENT_INVALID")
        assert (await accept(shop, payment_id, **ACCEPTED)).status == 200
        await shop.until_checkout("key-1", "SIGNED")
        signed = await shop.till().sell("key-1", sale)
        assert signed.status == 201, signed.json
        found = await on_the_receipt(shop, signed.json["invoiceId"])
        day = (await shop.till().request("GET", "/v1/reports/x")).json
        credit = {"tillReceiptNo": "CN-1", "reason": "06"}
        path = f"/v1/invoices/{signed.json['invoiceId']}/credit-notes"
        async with asyncio.timeout(30):
            # The till of this shop waits for a third of a second only, then it asks again.
            while True:
                back = await shop.till().request("POST", path, key="back", json=credit)
                if back.status not in (202, 503):
                    break
        assert back.status == 201, back.json
        returned, _ = await on_the_receipt(shop, back.json["invoiceId"])
    assert (found[0], float(found[1])) == (receipt, float(change))
    assert signed.json["change"] == f"{float(change):.2f}"
    mobile, total = f"{cents / 100:.2f}", day["payments"]
    assert (total[MOBILE_MONEY], total[CASH]) == (mobile, drawer), day
    assert sum(float(amount) for _, amount in returned) == 297
    assert len(await unit.journal()) == 2


async def test_a_plain_sale_never_says_that_more_came_than_did(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE) as shop:
        sale = a_sale()

        async def paid(key: str, cents: int) -> PaymentRow:
            body = {"saleRef": key, "amount": "297", "phone": a_phone()}
            asked = await shop.till().request("POST", "/v1/payments/mpesa", key=key, json=body)
            await came(shop, asked.json["paymentId"], cents)
            assert (await accept(shop, asked.json["paymentId"], **ACCEPTED)).status == 200
            return await shop.payment(asked.json["paymentId"])

        def tender(row: PaymentRow, amount: str) -> dict[str, str]:
            return {"method": "MOBILE_MONEY", "amount": amount, "paymentId": row.id}

        less = await paid("less", 28_700)
        lie = await shop.till().sell("k1", a_sale(payments=[tender(less, "297.00")]))
        assert problem(lie) == (422, "PAYMENT_INVALID")
        assert "287.00" in lie.json["detail"]
        rest = {"method": "CASH", "amount": "10.00"}
        true = await shop.till().sell("k2", {**sale, "payments": [tender(less, "287.00"), rest]})
        assert true.status == 201, true.json
        more = await paid("more", 30_700)
        asked_for = await shop.till().sell("k3", a_sale(payments=[tender(more, "297.00")]))
        assert asked_for.status == 201, asked_for.json
    assert len(await unit.journal()) == 2
