"""The same till receipt under a new key: a till that lost an answer and makes a new key gets no second receipt."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.store import invoices, unclear_keys
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.paid_shop import PEOPLE, a_paid_sale, a_phone, mpesa_tender, paid_shop
from tests.support.shop import OpenShop, Reply, a_sale, make_settings, open_shop

LIKELY = (409, "LIKELY_REPEAT")


def named(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.json.get("code")


async def confirmed(shop: OpenShop, key: str | None, sale: dict[str, Any], earlier: str) -> Reply:
    return await shop.till().request(
        "POST", "/v1/invoices", key=key, json=sale, headers={"Confirm-New-Sale": earlier}
    )


@pytest.mark.parametrize(
    ("first", "second"), [("one", "two"), (None, "two"), ("one", None)], ids=str
)
async def test_the_same_receipt_under_another_key_is_a_likely_repeat(
    first: str | None, second: str | None, unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    sale = a_sale()
    async with open_shop(settings) as shop:
        signed = await shop.till().sell(first, sale)
        assert signed.status == 201
        for _ in range(2):
            again = await shop.till().sell(second, sale)
            assert named(again) == LIKELY
            assert again.json["invoiceId"] == signed.json["invoiceId"]
            assert again.json["confirmWith"] == {
                "header": "Confirm-New-Sale",
                "value": signed.json["invoiceId"],
            }
    async with open_shop(settings) as shop:
        assert named(await shop.till().sell(second, sale)) == LIKELY
        # The till's own key gives its own answer as ever.
        if first is not None:
            assert (await shop.till().sell(first, sale)).body == signed.body
    assert len(await unit.journal()) == 1


async def test_a_person_may_say_that_it_is_another_sale_once_for_each_earlier_one(
    unit: UnitControl, shop_dir: Path
) -> None:
    sale = a_sale()
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        first = (await shop.till().sell("one", sale)).json["invoiceId"]
        second = await confirmed(shop, "two", sale, first)
        assert second.status == 201 and second.json["invoiceId"] != first
        assert (await confirmed(shop, "two", sale, first)).body == second.body
        assert (await shop.till().sell("two", sale)).body == second.body
        # Its answer was lost, too, and the till makes one more key.
        third = await confirmed(shop, "three", sale, first)
        assert named(third) == LIKELY
        assert third.json["invoiceId"] == second.json["invoiceId"]
        assert (await confirmed(shop, "three", sale, second.json["invoiceId"])).status == 201
        other = (await shop.till().sell("other", a_sale())).json["invoiceId"]
        for wrong in ("yes", "0" * 26, other):
            reply = await confirmed(shop, "four", sale, wrong)
            assert named(reply) == (400, "IDEMPOTENCY_KEY_INVALID")
    assert len(await unit.journal()) == 4


async def test_what_differs_is_another_sale(unit: UnitControl, shop_dir: Path) -> None:
    sale = a_sale()
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        assert (await shop.till().sell("one", sale)).status == 201
        assert (await shop.till("till-2").sell("two", sale)).status == 201
        assert (await shop.till().sell("three", {**sale, "tillReceiptNo": "x"})).status == 201
        assert (await shop.till().sell("four", {**sale, "remark": "x"})).status == 201
    assert len(await unit.journal()) == 4


async def test_an_unsigned_sale_holds_nothing_against_a_new_key_and_is_a_repeat_afterwards(
    unit: UnitControl, shop_dir: Path
) -> None:
    sale = a_sale()
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await unit.knobs(html404=True)
        assert (await shop.till().sell("one", sale)).json["signed"] == "no"
        await unit.knobs(html404=False)
        assert (await shop.till().sell("two", sale)).status == 201
        # The first key comes after all: it was never signed, and is not signed now.
        assert named(await shop.till().sell("one", sale)) == LIKELY
        await unit.knobs(rejectNext=1, rejectCode="884", rejectMessage="Invalid customer TIN")
        refused = a_sale(buyer={"pin": "P051234567X"})
        assert (await shop.till().sell("r1", refused)).status == 422
        assert (await shop.till().sell("r2", refused)).status == 201
    assert len(await unit.journal()) == 2


async def test_a_quarantined_sale_keeps_a_new_key_until_a_person_confirms_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    """What a numbering decision has given up may have a receipt that is not known here."""
    sale = a_sale()
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await unit.knobs(html404=True)
        assert (await shop.till().sell("one", sale)).json["signed"] == "no"
        await unit.knobs(html404=False)
        db = shop.gateway.db
        row = await db.read(lambda conn: invoices.by_key(conn, "till-1", "one"))
        assert row is not None
        names = unclear_keys.names_of(row)
        await db.write(lambda conn: unclear_keys.quarantine(conn, names, at=row.created_at))
        other = await shop.till().sell("two", sale)
        assert named(other) == (409, "MAYBE_SIGNED")
        assert other.json["confirmWith"] == {"header": "Confirm-New-Sale", "value": row.id}
        assert await unit.journal() == []
        assert (await confirmed(shop, "two", sale, row.id)).status == 201
    assert len(await unit.journal()) == 1


async def test_both_keys_at_once_are_one_receipt(unit: UnitControl, shop_dir: Path) -> None:
    sale = a_sale()
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await unit.knobs(latencyMs=300)
        replies = await asyncio.gather(
            *(shop.till().sell(f"key-{n}", sale) for n in range(8)), shop.till().sell(None, sale)
        )
        told = [named(reply) for reply in replies if reply.status != 201]
        assert set(told) <= {LIKELY, (202, "STILL_SIGNING")}
        for n in range(8):
            again = await shop.till().sell(f"key-{n}", sale)
            assert again.status == 201 or named(again) == LIKELY
    assert len(await unit.journal()) == 1


async def test_a_sale_in_doubt_keeps_a_new_key_waiting(unit: UnitControl, shop_dir: Path) -> None:
    sale = a_sale()
    settings = make_settings(shop_dir, unit.url, unit={"answer_timeout_s": 1}, api={"wait_s": 3})
    async with open_shop(settings) as shop:
        await unit.knobs(swallowAnswers=2)
        doubt = await shop.till().sell("one", sale)
        assert named(doubt) == (503, "OUTCOME_UNKNOWN")
        other = await shop.till().sell("two", sale)
        assert named(other) in ((503, "OUTCOME_UNKNOWN"), (202, "STILL_SIGNING"))
        assert other.json["signed"] == "unknown"
    assert len(await unit.journal()) == 1


async def test_a_till_may_reuse_its_numbers_and_after_the_window_all_may(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    settings = make_settings(
        shop_dir,
        unit.url,
        api={"keyless_window_s": 3600},
        tills=[{"id": "till-1"}, {"id": "till-2", "reuses_numbers": True}],
        till_tokens={
            "till-1": "token-of-till-number-1", "till-2": "token-of-till-number-2",
        },
    )  # fmt: skip
    sale = a_sale()
    async with open_shop(settings, clock) as shop:
        for key in ("one", "two"):
            assert (await shop.till("till-2").sell(key, sale)).status == 201
        assert (await shop.till().sell("one", sale)).status == 201
        assert named(await shop.till().sell("two", sale)) == LIKELY
        clock.pass_time(hours=2)
        assert (await shop.till().sell("two", sale)).status == 201
        # A clock that was set ahead makes no sale look old.
        clock.step_wall(days=400)
        assert named(await shop.till().sell("three", sale)) == LIKELY
    assert len(await unit.journal()) == 4


async def test_a_shop_that_insists_on_keys_has_the_rule_as_well(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url, api={"keyless_window_s": 0})
    sale = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", sale)).status == 201
        assert named(await shop.till().sell("two", sale)) == LIKELY


async def test_a_credit_note_is_no_repeat(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        note = {"tillReceiptNo": "C", "reason": "06"}
        for key in ("one", "two"):
            sold = (await till.sell(key, a_sale())).json["invoiceId"]
            path = f"/v1/invoices/{sold}/credit-notes"
            assert (await till.request("POST", path, key=f"c-{key}", json=note)).status == 201


async def test_money_is_not_asked_for_a_sale_that_was_signed_under_another_key(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with paid_shop(unit, shop_dir, knobs=PEOPLE, api={"wait_s": 1}) as shop:
        phone = a_phone()
        sale = a_paid_sale(mpesa_tender(phone, "297.00"))
        await shop.waiting("one", sale)
        await shop.answer(phone)
        await shop.until_checkout("one", "SIGNED")
        first = (await shop.sell("one", sale)).json["invoiceId"]
        again = await shop.sell("two", sale)
        assert named(again) == LIKELY and again.json["invoiceId"] == first
        assert len(shop.fake.pushes) == 1
    assert len(await unit.journal()) == 1
