"""The fake Daraja: shapes and types as the real one's, refusals, limits, the phone, the other APIs."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
import sys
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import aiohttp
import pytest
from PIL import Image
from playwright.async_api import async_playwright

from hw_fakes.daraja.bank import Payment
from hw_fakes.daraja.clock import EAT
from hw_fakes.daraja.ids import DAYS, LETTERS, Ids
from hw_fakes.daraja.shapes import LOCKED
from tests.conftest import need_tool
from tests.e2e.test_page import FLAGS
from tests.e2e.test_page import PHONE as SCREEN
from tests.hw_fakes.daraja_shop import PHONE, QUERY, Shop, fixture, open_shop, shape


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as opened:
        yield opened


def message(answer: tuple[int, Any]) -> tuple[int, str, str]:
    status, body = answer
    assert set(body) == {"requestId", "errorCode", "errorMessage"}
    return status, body["errorCode"], body["errorMessage"]


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
    fake.turn(default="phone", prompt_life_s=1_000_000)

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
        for number in range(6):
            url = f"https://relay.test/g/s/{number}"
            await shop.push(PhoneNumber=f"25470000000{number}", CallBackURL=url)
        await shop.fake.settled()
        order = [path[-1] for path, _ in shop.got]
        assert sorted(order) == list("012345")
        assert order != sorted(order)


# C2B


async def test_addresses_are_registered_once_and_hear_of_both_kinds_of_payment(shop: Shop) -> None:
    data = fixture("c2b.json")
    bad = await shop.register(ConfirmationURL="https://relay.test/mpesa/c")
    assert message(bad)[2] == "Bad Request - Invalid ConfirmationURL"
    status, body = await shop.register()
    assert (status, shape(body)) == (200, shape(data["register_ok"]))
    status, body = await shop.register()
    assert (status, shape(body)) == (500, shape(data["register_again"]["body"]))
    assert body["errorMessage"] == "Urls are already registered."
    await shop.register("5566778", ConfirmationURL="https://relay.test/g/c/till")
    simulate = {
        "ShortCode": 5566778, "CommandID": "CustomerBuyGoodsOnline", "Amount": 450,
        "Msisdn": int(PHONE), "BillRefNumber": None,
    }  # fmt: skip
    assert (await shop.post("/mpesa/c2b/v2/simulate", simulate))[0] == 200
    await shop.fake.settled()
    (by_hand,) = shop.bodies("/g/c/till")
    assert shape(by_hand) == shape(data["confirmation_till"])
    assert by_hand["TransactionType"] == "Buy Goods"
    assert (by_hand["TransAmount"], by_hand["MSISDN"]) == ("450.00", "2547 ***** 149")
    assert (by_hand["BillRefNumber"], by_hand["BusinessShortCode"]) == ("", "5566778")
    await shop.push()
    await shop.fake.settled()
    (twin,) = shop.bodies("/g/c/tok")
    assert shape(twin) == shape(data["confirmation_paybill"])
    assert twin["TransID"] == shop.fake.pushes[0].receipt
    assert twin["BillRefNumber"] == "T07-000123"
    assert shop.fake.merchants[0].balance == shop.fake.merchants[1].balance == 450


async def test_a_payment_by_hand_is_validated_if_that_is_switched_on(shop: Shop) -> None:
    await shop.register()
    shop.fake.turn(validation=True)
    assert isinstance(await shop.fake.pay(PHONE, "174379", 5, "A1"), Payment)
    shop.says = {"ResultCode": "C2B00012", "ResultDesc": "Rejected"}
    assert await shop.fake.pay(PHONE, "174379", 5, "A1") == "C2B00012"
    shop.says = "nothing"
    assert isinstance(
        await shop.fake.pay(PHONE, "174379", 5, "A1"), Payment
    )  # ResponseType Completed
    await shop.fake.settled()
    validations = shop.bodies("/g/v/tok")
    assert len(validations) == 3
    assert shape(validations[0]) == shape(fixture("c2b.json")["validation"])
    assert validations[0]["OrgAccountBalance"] == ""
    assert len(shop.bodies("/g/c/tok")) == len(shop.fake.payments) == 2
    shop.fake.wallet(PHONE).balance = 4
    assert await shop.fake.pay(PHONE, "174379", 5) == "1"
    assert await shop.fake.pay(PHONE, "1234567", 5) == "SFC_IC0003"


# Pull, status, reversal, B2C, QR


async def test_pull_lists_what_came_in_the_window(shop: Shop) -> None:
    data = fixture("pull.json")
    now = shop.fake.clock.now()
    start, end = (f"{now + timedelta(minutes=m):%Y-%m-%d %H:%M:%S}" for m in (-5, 5))
    status, body = await shop.pull(start, end)
    assert (status, shape(body)) == (200, shape(data["query"]["empty"]))
    assert (body["ResponseCode"], body["Response"]) == ("1001", [[]])
    payments = [await shop.fake.pay(PHONE, "174379", 100 + n, f"R{n}") for n in range(5)]
    await shop.fake.pay(PHONE, "5566778", 7)  # another shop's
    shop.fake.turn(pull_page=2)
    rows = []
    for offset in range(0, 6, 2):
        status, body = await shop.pull(start, end, str(offset))
        assert (body["ResponseCode"], len(body["Response"])) == ("1000", 1)
        rows += body["Response"][0]
    assert shape(body) == shape(data["query"]["response"])
    assert [row["transactionId"] for row in rows] == [
        p.receipt for p in payments if not isinstance(p, str)
    ]
    assert [row["amount"] for row in rows] == [f"{100 + n}.00" for n in range(5)]
    assert rows[0]["msisdn"] == int(PHONE[3:])
    assert (await shop.pull(start, end, "6"))[1]["ResponseCode"] == "1001"
    assert message(await shop.pull(end, start))[2] == "Bad Request - Invalid EndDate"
    shop.fake.turn(clock_offset_s=49 * 3600)  # two days on, they are gone
    assert (await shop.pull(start, end))[1]["ResponseCode"] == "1001"
    register = data["register"]["request"] | {"ShortCode": "174379"}
    for expected in ("1000", "1001"):
        _, body = await shop.post(data["register"]["path"], register)
        assert shape(body) == shape(data["register"]["response"])
        assert body["ResponseStatus"] == expected


async def test_a_status_query_is_answered_at_its_address(shop: Shop) -> None:
    data = fixture("transaction_status.json")
    payment = await shop.fake.pay(PHONE, "174379", 300, "A1")
    assert isinstance(payment, Payment)
    ask = shop.asynchronous(
        "TransactionStatusQuery", TransactionID=payment.receipt, PartyA="174379", IdentifierType="4"
    )
    status, ack = await shop.post(data["path"], ask)
    assert (status, shape(ack)) == (200, shape(data["ack"]))
    await shop.fake.settled()
    (told,) = shop.bodies("/g/r/tok")
    expected = data["result"]
    found, wanted = (
        each["Result"].pop("ResultParameters")["ResultParameter"] for each in (told, expected)
    )
    assert [shape(each) for each in found] == [shape(each) for each in wanted]
    assert [each["Key"] for each in found] == [each["Key"] for each in wanted]
    assert shape(told) == shape(expected)
    assert told["Result"]["ConversationID"] == ack["ConversationID"]
    await shop.post(data["path"], ask | {"TransactionID": "ZZZ0000000"})
    await shop.fake.settled()
    unknown = shop.bodies("/g/r/tok")[-1]["Result"]
    assert unknown["ResultCode"] != 0
    assert "ResultParameters" not in unknown
    wrong = await shop.post(data["path"], ask | {"IdentifierType": "1"})
    assert message(wrong)[2] == "Bad Request - Invalid IdentifierType"


async def test_a_reversal_gives_the_money_back_once(shop: Shop) -> None:
    data = fixture("reversal.json")
    await shop.push()
    await shop.fake.settled()
    (payment,) = shop.fake.payments
    ask = shop.asynchronous(
        "TransactionReversal", TransactionID=payment.receipt, Amount="450", ReceiverParty="174379",
        RecieverIdentifierType="11",
    )  # fmt: skip
    refused = await shop.post(data["path"], ask | {"RecieverIdentifierType": "4"})
    assert message(refused)[2] == "Bad Request - Invalid RecieverIdentifierType"
    before = shop.fake.wallet(PHONE).balance
    codes = []
    for change in ({}, {}, {"TransactionID": "ZZZ0000000"}):
        status, ack = await shop.post(data["path"], ask | change)
        assert (status, shape(ack)) == (200, shape(data["ack"]))
        await shop.fake.settled()
        codes.append(shop.bodies("/g/r/tok")[-1]["Result"]["ResultCode"])
    assert codes == [0, "R000001", "R000002"]
    assert shape(shop.bodies("/g/r/tok")[0]) == shape(data["result"])
    assert shop.fake.wallet(PHONE).balance - before == 450
    back = shop.fake.payments[-1]
    assert (back.kind, back.of, payment.reversed_by) == ("REVERSAL", payment.receipt, back.receipt)
    assert shop.bodies("/g/r/tok")[0]["Result"]["TransactionID"] == back.receipt


async def test_a_reversal_whose_answer_is_lost_or_queue_is_full(shop: Shop) -> None:
    payment = await shop.fake.pay(PHONE, "174379", 300)
    assert isinstance(payment, Payment)
    path = fixture("reversal.json")["path"]
    ask = shop.asynchronous(
        "TransactionReversal", TransactionID=payment.receipt, Amount="300", ReceiverParty="174379",
        RecieverIdentifierType="11",
    )  # fmt: skip
    shop.fake.turn(queue_timeouts=1)
    assert (await shop.post(path, ask))[0] == 200
    await shop.fake.settled()
    assert len(shop.bodies("/g/t/tok")) == 1
    assert payment.reversed_by is None
    shop.fake.turn(initiator_code="2001")
    await shop.post(path, ask)
    await shop.fake.settled()
    assert shop.bodies("/g/r/tok")[-1]["Result"]["ResultCode"] == 2001
    shop.fake.turn(initiator_code="0", faults={"reversal": "lost"})
    with pytest.raises(aiohttp.ClientError):
        await shop.post(path, ask)
    await shop.fake.settled()
    assert payment.reversed_by is not None
    assert len(shop.bodies("/g/r/tok")) == 2


async def test_b2c_has_a_key(shop: Shop) -> None:
    data = fixture("b2c_refund.json")
    await shop.fake.pay(PHONE, "174379", 100)
    ask = data["request"] | {
        "PartyA": "174379", "ResultURL": "https://relay.test/g/r/tok",
        "QueueTimeOutURL": "https://relay.test/g/t/tok",
    }  # fmt: skip
    status, ack = await shop.post(data["path"], ask)
    assert (status, shape(ack)) == (200, shape(data["ack"]))
    assert ack["OriginatorConversationID"] == ask["OriginatorConversationID"]
    status, again = await shop.post(data["path"], ask)
    assert (status, shape(again)) == (500, shape(data["duplicate"]["body"]))
    await shop.fake.settled()
    (told,) = shop.bodies("/g/r/tok")
    assert shape(told) == shape(data["result_ok"])
    await shop.post(data["path"], ask | {"OriginatorConversationID": "r2", "Amount": "1000"})
    await shop.fake.settled()
    failed = shop.bodies("/g/r/tok")[-1]
    assert shape(failed) == shape(data["result_fail_has_no_ResultParameters"])
    assert [p.kind for p in shop.fake.payments] == ["C2B", "B2C"]


async def test_a_qr_code_is_a_picture(shop: Shop) -> None:
    data = fixture("qr.json")
    status, body = await shop.post(data["path"], data["request"])
    assert (status, shape(body)) == (200, shape(data["response"]))
    assert body["ResponseCode"].startswith("AG_")
    picture = Image.open(io.BytesIO(base64.b64decode(body["QRCode"])))
    assert picture.format == "PNG"
    assert 200 <= picture.width <= 300
    wrong = await shop.post(data["path"], data["request"] | {"TrxCode": "XX"})
    assert message(wrong)[2] == "Bad Request - Invalid TrxCode"


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


# Control


async def test_the_control_interface_refuses_what_cannot_be(shop: Shop) -> None:
    for path, body, why in [
        ("/_fake/knobs", {"latency": 1}, "unknown knob latency"),
        ("/_fake/knobs", {"copies": "x"}, "copies cannot be"),
        ("/_fake/knobs", {"timeScale": 0}, "timeScale cannot be"),
        ("/_fake/knobs", {"hosts": {"a.test": "http://192.0.2.1"}}, "is not on this machine"),
        ("/_fake/knobs", {"default": "sunshine"}, "unknown scenario"),
        ("/_fake/knobs", {"answerS": [5, 3]}, "answerS cannot be"),
        ("/_fake/knobs", {"faults": {"push": "rain"}}, "faults are of"),
        ("/_fake/script", {"scenario": "sunshine"}, "unknown scenario"),
        ("/_fake/script", {"scenario": "ok", "colour": 1}, "a plan has no colour"),
        ("/_fake/answer", {"phone": PHONE, "do": "cancel"}, "no prompt"),
        ("/_fake/pay", {"phone": "0", "number": "174379", "amount": 1}, "phone is"),
    ]:  # fmt: skip
        status, told = await shop.post(path, body)
        assert status == 400, path
        assert why in told["error"]
    assert (await shop.post("/_fake/knobs", b"{"))[0] == 400
    status, state = await shop.post("/_fake/knobs", {"answerS": [3, 45], "copies": 2})
    assert (status, state["knobs"]["answerS"], state["knobs"]["copies"]) == (200, [3, 45], 2)
    body = {"scenario": "cancel", "phone": PHONE, "doneS": 1}
    assert (await shop.post("/_fake/script", body))[0] == 200
    await shop.push()
    await shop.fake.settled()
    _, journal = await shop.get("/_fake/journal")
    assert [e["what"] for e in journal] == [
        "token", "push", "prompt", "outcome", "callback", "callback",
    ]  # fmt: skip
    assert (await shop.get("/_fake/journal?since=5"))[1] == journal[5:]
    paid = await shop.post("/_fake/pay", {"phone": PHONE, "number": "5566778", "amount": 20})
    assert paid[1]["receipt"] == shop.fake.payments[0].receipt
    assert (await shop.post("/_fake/reset", {}))[0] == 200
    _, state = await shop.get("/_fake/state")
    assert (state["pushes"], state["payments"], state["knobs"]["copies"]) == ([], [], 1)


async def test_it_runs_alone() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hw_fakes.daraja", "--port", "0", "--scale", "0.1",
        "--relay", "relay.test=http://127.0.0.1:9", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
        url = line.split()[-1]
        async with aiohttp.ClientSession() as session, session.get(url + "/_fake/state") as answer:
            state = json.loads(await answer.read())
        assert state["knobs"]["hosts"] == {"relay.test": "http://127.0.0.1:9"}
        assert state["knobs"]["default"] == "phone"
        assert len(state["wallets"]) == 3
    finally:
        process.terminate()
        await process.communicate()


# The phone


async def test_a_person_answers_the_prompt(shop: Shop) -> None:
    fake = shop.fake
    fake.turn(default="phone", rule17_s=0)

    async def asked() -> None:
        assert (await shop.push())[0] == 200
        await fake.wait_for(lambda: fake.pushes[-1].prompted)

    for do, pin, code in [
        ("cancel", "", "1032"), ("pin", "0000", "2001"), ("pin", "1234", "0"), ("ignore", "", "1037"),
    ]:  # fmt: skip
        await asked()
        fake.answer(PHONE, do, pin)
        await fake.settled()
        assert fake.pushes[-1].code == code
    await asked()
    await fake.settled()  # nobody answers: the prompt dies
    assert fake.pushes[-1].code == "1037"
    fake.wallet(PHONE).balance = 449
    await asked()
    fake.answer(PHONE, "pin", "1234")
    await fake.settled()
    assert fake.pushes[-1].code == "1"
    for code in ("2001", "2001", "8006", "8006"):
        await asked()
        fake.answer(PHONE, "pin", "9999")
        await fake.settled()
        assert fake.pushes[-1].code == code
    assert [p.amount for p in fake.payments] == [450]


async def test_the_page_of_the_phones() -> None:
    chromium = need_tool("chromium")
    async with (
        open_shop(default="phone", prompt_life_s=10_000) as shop,
        async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = await browser.new_page(viewport=SCREEN)
        asked: list[str] = []
        problems: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        shop.fake.wallet(PHONE)
        await page.goto(shop.fake.url + "/_fake/phone")
        assert await page.locator(".prompt").count() == 0
        await shop.push(AccountReference="<b>T07</b>")
        await page.wait_for_selector("input[name=pin]")  # it came by itself
        assert "Pay Ksh450 to Daraja Sandbox? Account <b>T07</b>." in " ".join(
            (await page.inner_text(".prompt")).split()
        )
        assert await page.evaluate("document.documentElement.scrollWidth") <= SCREEN["width"]
        await page.fill("input[name=pin]", "1234")
        await page.click("button.yes")
        await shop.fake.settled()
        (payment,) = shop.fake.payments
        await page.wait_for_selector(f"text={payment.receipt}")
        await page.fill("input[name=amount]", "75")
        await page.select_option("select[name=number]", "5566778")
        await page.click("text=Pay >> nth=-1")
        await page.wait_for_selector("[role=status]")
        assert shop.fake.payments[-1].amount == 75
        assert shop.fake.payments[-1].number == "5566778"
        assert all(url.startswith(shop.fake.url) for url in asked)
        assert problems == []
        await browser.close()
