"""The fake Daraja: tokens, push, query and callbacks with the real one's shapes, types, refusals and limits."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import aiohttp
import pytest

from hw_fakes.daraja.clock import EAT
from hw_fakes.daraja.ids import DAYS, LETTERS, Ids
from hw_fakes.daraja.shapes import LOCKED
from tests.hw_fakes.daraja_shop import PHONE, QUERY, Shop, fixture, message, open_shop, shape


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as opened:
        yield opened


# Tokens


async def test_a_token_has_its_shape_and_its_refusals(shop: Shop) -> None:
    data = fixture("oauth.json")
    status, told = await shop.log_in()
    assert (status, shape(told)) == (200, shape(data["ok"]["body"]))
    assert told["expires_in"] == "3599"
    status, told = await shop.log_in(secret="wrong")
    assert (status, shape(told)) == (400, shape(data["bad_client_credentials"]["body"]))
    assert told["errorCode"] == "400.008.01"
    assert message(await shop.log_in(grant="password"))[1] == "400.008.02"
    shop.fake.turn(oauth_refusal="empty")
    assert await shop.log_in(key="wrong") == (400, None)
    shop.fake.turn(faults={"oauth": "503"})
    assert await shop.log_in() == (503, None)


async def test_a_token_expires_and_may_be_replaced(shop: Shop) -> None:
    assert (await shop.push())[0] == 200
    shop.fake.expire_tokens()
    assert message(await shop.push()) == (404, "404.001.03", "Invalid Access Token")
    assert message(await shop.query("x")) == (400, "400.003.01", "Invalid Access Token")
    await shop.log_in()
    older = shop.token
    await shop.log_in()
    newer, shop.token = shop.token, older
    assert message(await shop.query("x"))[1] == "400.002.02"  # both are good
    shop.fake.turn(token_replaces=True)
    await shop.log_in()
    newest, shop.token = shop.token, newer
    assert message(await shop.query("x"))[1] == "400.003.01"
    shop.token = newest
    assert message(await shop.query("x"))[1] == "400.002.02"
    shop.fake.turn(token_life_s=0)
    await shop.log_in()
    assert message(await shop.query("x"))[1] == "400.003.01"
    shop.token = ""
    assert message(await shop.query("x"))[1] == "404.001.04"


# Push


async def test_a_push_is_answered_queried_and_called_back_in_daraja_s_shapes(shop: Shop) -> None:
    shop.fake.turn(default="phone", prompt_life_s=1_000_000)
    status, told = await shop.push(Amount=450)
    assert (status, shape(told)) == (200, shape(fixture("stk_push.json")["ok"]["body"]))
    assert re.fullmatch(r"ws_CO_\d{14}\d{3}708374149", told["CheckoutRequestID"])
    queries = fixture("stk_query.json")
    pending = await shop.query(told["CheckoutRequestID"])
    assert (pending[0], shape(pending[1])) == (200, shape(queries["pending_4999"]["body"]))
    assert pending[1]["ResultCode"] == "4999"
    await shop.fake.wait_for(lambda: shop.fake.pushes[0].prompted)
    shop.fake.answer(PHONE, "pin", "1234")
    await shop.fake.settled()
    paid = await shop.query(told["CheckoutRequestID"])
    assert shape(paid[1]) == shape(queries["paid"]["body"])
    assert (paid[1]["ResultCode"], paid[1]["CheckoutRequestID"]) == ("0", told["CheckoutRequestID"])
    (called,) = shop.bodies("/g/s/one")
    assert shape(called) == shape(fixture("callbacks/0_success.json"))
    names = {
        i["Name"]: i["Value"] for i in called["Body"]["stkCallback"]["CallbackMetadata"]["Item"]
    }
    (payment,) = shop.fake.payments
    assert names["MpesaReceiptNumber"] == payment.receipt
    assert names["Amount"] == 450.0
    assert type(names["Amount"]) is float
    assert type(names["TransactionDate"]) is int
    assert names["PhoneNumber"] == int(PHONE)


@pytest.mark.parametrize(
    "code", ["1", "17", "1001", "1019", "1025", "1032", "1037", "2001", "SFC_IC0003"]
)
async def test_a_failure_is_word_for_word_as_captured(shop: Shop, code: str) -> None:
    shop.fake.script("cancel", code=code)
    _, told = await shop.push()
    await shop.fake.settled()
    (called,) = shop.bodies("/g/s/one")
    expected = fixture(f"callbacks/{code}_failure.json")["Body"]["stkCallback"]
    seen = called["Body"]["stkCallback"]
    assert "CallbackMetadata" not in seen
    assert (seen["ResultCode"], seen["ResultDesc"]) == (
        expected["ResultCode"],
        expected["ResultDesc"],
    )
    assert shape(seen) == shape(expected)
    assert (await shop.query(told["CheckoutRequestID"]))[1]["ResultCode"] == code


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ("strings", "0_success_string_types"),
        ("masked", "0_success_masked_phone"),
        ("reordered", "0_success_reordered_no_phone"),
        ("balance", "0_success_with_valueless_balance"),
    ],
)
async def test_the_variants_of_a_success_are_as_captured(
    shop: Shop, variant: str, name: str
) -> None:
    shop.fake.script("ok_fast", callbacks=[{"variant": variant}])
    await shop.push()
    await shop.fake.settled()
    (called,) = shop.bodies("/g/s/one")
    expected = fixture(f"callbacks/{name}.json")
    items = [body["Body"]["stkCallback"].pop("CallbackMetadata") for body in (called, expected)]
    assert [shape(i) for i in items[0]["Item"]] == [shape(i) for i in items[1]["Item"]]
    assert [i["Name"] for i in items[0]["Item"]] == [i["Name"] for i in items[1]["Item"]]
    assert shape(called) == shape(expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("BusinessShortCode", "12"), ("BusinessShortCode", None), ("Timestamp", "20261323101530"),
        ("Timestamp", "2026"), ("TransactionType", "CustomerPay"), ("Amount", "0"),
        ("Amount", "4.50"), ("Amount", "250001"), ("Amount", 1.5), ("Amount", True),
        ("PhoneNumber", "0708374149"), ("PhoneNumber", "254208374149"), ("PartyA", "x"),
        ("PartyB", ""), ("CallBackURL", "http://relay.test/x"), ("CallBackURL", "https://local/x"),
        ("CallBackURL", "https://relay.test:99999/x"), ("CallBackURL", "https://re lay.test/x"),
        ("CallBackURL", ""), ("AccountReference", ""), ("AccountReference", "X" * 16),
    ],
)  # fmt: skip
async def test_a_field_that_is_wrong_is_named(shop: Shop, field: str, value: Any) -> None:
    order = shop.order()
    order[field] = value
    answer = await shop.post("/mpesa/stkpush/v1/processrequest", order)
    assert message(answer) == (400, "400.002.02", f"Bad Request - Invalid {field}")
    assert shop.fake.pushes == []
    assert shop.fake.entries("push")[0]["outcome"] == "refused"


async def test_the_other_refusals_of_a_push(shop: Shop) -> None:
    assert message(await shop.push(TransactionDesc=""))[2] == "Bad Request - Invalid Remarks"
    wrong = await shop.push(Password="x")
    assert message(wrong) == (500, "500.001.1001", "[MerchantValidate] - Wrong credentials")
    unknown = await shop.push(BusinessShortCode="999999")
    assert message(unknown) == (500, "500.001.1001", "Merchant does not exist")
    not_json = await shop.post("/mpesa/stkpush/v1/processrequest", b"{")
    assert message(not_json)[2] == "Bad Request - Invalid BusinessShortCode"
    assert message(await shop.post("/mpesa/nowhere", {}))[:2] == (404, "404.001.01")
    assert message(await shop.get("/mpesa/stkpush/v1/processrequest"))[:2] == (405, "405.001")
    shop.fake.turn(faults={"push": "soap"})
    assert "Fault" in (await shop.push())[1]["Envelope"]["Body"]
    shop.fake.turn(faults={"push": "429"})
    status, body = await shop.push()
    assert (status, shape(body)) == (429, shape(fixture("stk_query.json")["rate_limited"]["body"]))
    shop.fake.turn(faults={"push": "html"})
    assert await shop.push() == (503, fixture("stk_query.json")["html_error_page"]["body_text"])
    shop.fake.turn(faults={"push": "empty"})
    assert await shop.push() == (400, None)
    shop.fake.turn(faults={"push": "reset"})
    with pytest.raises(aiohttp.ClientError):
        await shop.push()
    assert shop.fake.payments == []


async def test_a_wrong_product_is_seen_only_later(shop: Shop) -> None:
    till = {"BusinessShortCode": "600984", "TransactionType": "CustomerBuyGoodsOnline"}
    for number, change in enumerate([
        {"PartyB": "5566778"},  # another shop's till, for a paybill
        {"PartyB": "7777777"},  # nobody's
        {**till, "PartyB": "600984"},  # the store number for the till's
        {**till, "PartyB": "5566778"},
    ]):  # fmt: skip
        status, _ = await shop.push(PhoneNumber=f"25470000000{number}", **change)
        assert status == 200
    await shop.fake.settled()
    assert [push.code for push in shop.fake.pushes] == ["2028", "SFC_IC0003", "2028", "0"]
    assert [push.prompted for push in shop.fake.pushes] == [False, False, False, True]
    (payment,) = shop.fake.payments
    assert (payment.number, payment.shortcode, payment.reference) == ("5566778", "600984", "")


# Limits


async def test_one_prompt_on_a_phone_and_the_same_amount_not_at_once(shop: Shop) -> None:
    fake = shop.fake
    fake.turn(default="phone", prompt_life_s=1_000_000, rule17_s=1_000_000)

    async def paid() -> None:
        await fake.wait_for(lambda: fake.pushes[-1].prompted)
        fake.answer(PHONE, "pin", "1234")
        await fake.settled()

    assert (await shop.push())[0] == 200
    assert message(await shop.push()) == (500, "500.001.1001", LOCKED)
    await paid()
    assert (await shop.push())[0] == 200
    await fake.settled()
    assert [push.code for push in fake.pushes] == ["0", "17"]
    fake.turn(rule17_s=0)
    assert (await shop.push())[0] == 200
    await paid()
    assert [push.code for push in fake.pushes] == ["0", "17", "0"]
    assert len(fake.payments) == 2


async def test_queries_have_one_bucket_for_the_whole_app() -> None:
    # Slow enough for the fake's 12 s not to pass between two requests: 12 s are 6 real ones here.
    async with open_shop(time_scale=0.5, query_limited=True, retry_after=True) as shop:
        _, one = await shop.push()
        assert (await shop.query(one["CheckoutRequestID"]))[0] == 200
        status, body = await shop.query(one["CheckoutRequestID"])
        assert (status, body) == (429, fixture("stk_query.json")["rate_limited"]["body"])
        shop.fake.turn(time_scale=0.001)  # 12 s are 12 ms now

        async def asked_again() -> None:
            while (await shop.query(one["CheckoutRequestID"]))[0] == 429:
                pass

        await asyncio.wait_for(asked_again(), 10)
        assert "429" in [entry["outcome"] for entry in shop.fake.entries("query")]


async def test_still_processing_is_said_in_both_ways(shop: Shop) -> None:
    shop.fake.turn(default="everything_silent_paid", pending="500")
    _, one = await shop.push()
    status, body = await shop.query(one["CheckoutRequestID"])
    expected = fixture("stk_query.json")["pending_500"]
    assert (status, shape(body)) == (500, shape(expected["body"]))
    assert body["requestId"] == one["CheckoutRequestID"]
    assert body["errorMessage"] == expected["body"]["errorMessage"]
    shop.fake.turn(too_early_s=100_000)
    early = await shop.query(one["CheckoutRequestID"])
    assert message(early) == (400, "400.002.02", "Bad Request - Invalid CheckoutRequestID")
    assert message(await shop.query("ws_CO_1"))[2] == "Bad Request - Invalid CheckoutRequestID"
    assert message(await shop.post(QUERY, b"["))[1] == "400.002.05"


# Callbacks


async def test_callbacks_are_dropped_doubled_and_tried_again(shop: Shop) -> None:
    shop.fake.turn(drop_callbacks=1, default="ok_fast", rule17_s=0)
    await shop.push()
    await shop.fake.settled()
    assert [e["outcome"] for e in shop.fake.entries("callback")] == ["dropped"]
    shop.fake.turn(copies=3)
    await shop.push()
    await shop.fake.settled()
    assert len(shop.got) == 3
    assert len({body for _, body in shop.got}) == 1
    shop.fake.turn(copies=1, retries=3)
    shop.status = 503
    await shop.push()
    await shop.fake.settled()
    assert [e["attempt"] for e in shop.fake.entries("callback")[-4:]] == [1, 2, 3, 4]
    assert len(shop.got) == 7
    shop.fake.turn(retries=0, hosts={"elsewhere.test": "http://127.0.0.1:9"})
    await shop.push()
    await shop.fake.settled()
    assert shop.fake.entries("callback")[-1]["outcome"] == "no such host"
    assert len(shop.fake.payments) == 4


async def test_every_malformed_body_that_was_captured_can_be_sent(shop: Shop) -> None:
    shop.fake.turn(default="ok_fast", rule17_s=0)
    for variant in (
        "empty",
        "no_callback",
        "missing_fields",
        "no_metadata",
        "stray",
        "list",
        "text",
    ):
        shop.fake.turn(callback_variant=variant)
        await shop.push()
        await shop.fake.settled()
    sent, captured = shop.bodies("/g/s/one"), fixture("callbacks/malformed.json")
    assert [shape(body) for body in sent] == [shape(body) for body in captured]
    sent_at = [entry["sentMonotonic"] for entry in shop.fake.entries("callback")]
    assert sent_at == sorted(sent_at)


async def test_the_order_of_callbacks_can_be_lost() -> None:
    async with open_shop(default="ok_fast", jitter_s=60) as shop:
        # All at once: between pushes that follow each other slowly no callback would overtake another.
        await asyncio.gather(
            *(
                shop.push(
                    PhoneNumber=f"2547000000{number}",
                    CallBackURL=f"https://relay.test/g/s/{number}",
                )
                for number in range(10, 25)
            )
        )
        await shop.fake.settled()
        sent = [push.callback_url.rpartition("/")[2] for push in shop.fake.pushes]
        order = [path.rpartition("/")[2] for path, _ in shop.got]
        assert sorted(order) == sorted(sent) and len(order) == 15
        assert order != sent


# Numbers


def test_receipts_carry_their_date() -> None:
    ids = Ids(random.Random(1))
    for vector, day in fixture_vectors():
        at = datetime.fromisoformat(day).replace(tzinfo=EAT)
        made = ids.receipt(at)
        assert made[:3] == vector[:3]
        assert re.fullmatch(r"[A-Z0-9]{10}", made)
    assert len(LETTERS) == 26
    assert len(DAYS) >= 31
    at = datetime(2026, 11, 23, 10, 15, 30, 417000, EAT)
    assert ids.checkout(at, PHONE) == "ws_CO_23112026101530417708374149"
    assert ids.checkout(at, PHONE) != "ws_CO_23112026101530417708374149"


def fixture_vectors() -> list[tuple[str, str]]:
    """Receipts whose day is known (daraja.md 2.2)."""
    return [
        ("NLJ7RT61SV", "2019-12-19"), ("RKL51ZDR4F", "2023-11-21"), ("SG632NMUAB", "2024-07-06"),
        ("MBN31H462N", "2018-02-23"), ("LGR7OWQX0R", "2017-07-27"),
    ]  # fmt: skip
