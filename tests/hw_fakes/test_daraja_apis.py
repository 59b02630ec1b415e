"""C2B, Pull, transaction status, reversal, B2C and QR of the fake Daraja, against the captured shapes."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from datetime import timedelta

import aiohttp
import pytest
from PIL import Image

from hw_fakes.daraja.bank import Payment
from tests.hw_fakes.daraja_shop import PHONE, Shop, fixture, message, open_shop, shape


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as opened:
        yield opened


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
    register = data["register"]["request"] | {"ShortCode": "174379"}
    for expected in ("1000", "1001"):
        _, body = await shop.post(data["register"]["path"], register)
        assert shape(body) == shape(data["register"]["response"])
        assert body["ResponseStatus"] == expected
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
