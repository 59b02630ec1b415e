"""The fake Daraja as the field reports it: rows per push, C2B version 1, Pull without proof, hashed numbers, refusals
that stay, pages of a firewall, reversals by the customer."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from hw_fakes.daraja import phone_for
from hw_fakes.daraja.bank import Payment
from hw_fakes.daraja.sender import in_form
from tests.hw_fakes.daraja_shop import PHONE, Shop, message, open_shop

ONE_ADDRESS = "https://relay.test/g/s/one"
NO_PRODUCT = (
    401, "401.003.01",
    "Error Occurred - Invalid Access Token - Invalid API call as no apiproduct match found",
)  # fmt: skip


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop(time_scale=0.005) as opened:
        yield opened


async def pulled(shop: Shop) -> dict[str, Any]:
    now = shop.fake.clock.now()
    start, end = (f"{now + timedelta(hours=h):%Y-%m-%d %H:%M:%S}" for h in (-1, 1))
    status, body = await shop.pull(start, end)
    assert status == 200
    found: dict[str, Any] = body
    return found


def is_strict_json_object(raw: bytes) -> bool:
    try:
        return isinstance(json.loads(raw.decode()), dict)
    except ValueError:
        return False


async def paid(shop: Shop, amount: int = 450, number: str = "174379") -> Payment:
    payment = await shop.fake.pay(PHONE, number, amount, "T07-1")
    assert isinstance(payment, Payment)
    await shop.fake.settled()
    return payment


# A row counts per push


async def test_one_callback_address_has_every_row(shop: Shop) -> None:
    rows = {
        "ok_fast": "0", "cancel": "1032", "wrong_pin": "2001", "funds": "1", "busy_async": "1001",
        "operator_missing": "SFC_IC0003", "expired": "1019", "push_9999": "9999",
    }  # fmt: skip
    for row in rows:
        answer = await shop.push(PhoneNumber=phone_for(row), CallBackURL=ONE_ADDRESS)
        assert answer[0] == 200
    refused = await shop.push(PhoneNumber=phone_for("busy_sync"), CallBackURL=ONE_ADDRESS)
    assert message(refused)[1] == "500.001.1001"
    await shop.fake.settled()
    assert [push.code for push in shop.fake.pushes] == list(rows.values())
    assert len(shop.fake.payments) == 1


async def test_a_script_counts_per_push_at_one_address(shop: Shop) -> None:
    for scenario, code in [("cancel", "1032"), ("wrong_pin", "2001"), ("ok", "0")]:
        shop.fake.script(scenario, phone=PHONE)
        await shop.push(CallBackURL=ONE_ADDRESS)
        await shop.fake.settled()
        assert shop.fake.pushes[-1].code == code
    assert shop.fake.state()["scripts"] == []


async def test_a_locked_push_leaves_its_script_to_the_next(shop: Shop) -> None:
    shop.fake.turn(default="phone", prompt_life_s=1_000_000, rule17_s=0)
    await shop.push(CallBackURL=ONE_ADDRESS)
    shop.fake.script("cancel", phone=PHONE)
    assert message(await shop.push(CallBackURL=ONE_ADDRESS))[1] == "500.001.1001"
    await shop.fake.wait_for(lambda: shop.fake.pushes[0].prompted)
    shop.fake.answer(PHONE, "pin", "1234")
    await shop.fake.settled()
    assert (await shop.push(CallBackURL=ONE_ADDRESS))[0] == 200
    await shop.fake.settled()
    assert [push.code for push in shop.fake.pushes] == ["0", "1032"]


@pytest.mark.parametrize("row", ["token_expired", "token_replaced"])
async def test_a_token_row_refuses_the_first_of_two_tries_every_time(shop: Shop, row: str) -> None:
    shop.fake.turn(rule17_s=0)
    phone = phone_for(row)
    for _ in range(2):
        for expected in (404, 200):
            await shop.log_in()
            answer = await shop.push(PhoneNumber=phone, CallBackURL=ONE_ADDRESS)
            assert answer[0] == expected
        await shop.fake.settled()
    assert [push.code for push in shop.fake.pushes] == ["0", "0"]
    # Another phone at this address is another attempt.
    await shop.log_in()
    other = await shop.push(PhoneNumber=phone_for(row, lead="25470801"), CallBackURL=ONE_ADDRESS)
    assert other[0] == 404


# C2B, version 1 and version 2


@pytest.mark.parametrize(
    ("knob", "version", "code"),
    [
        ("auto", "v1", None), ("auto", "v2", "0"), ("code", "v1", "0"), ("number", "v1", 0),
        ("zeros", "v2", "00000000"), ("no_code", "v2", None),
    ],
)  # fmt: skip
async def test_a_registration_is_taken_in_each_form(
    shop: Shop, knob: str, version: str, code: str | int | None
) -> None:
    shop.fake.turn(c2b_answer=knob)
    status, body = await shop.register(version=version)
    assert status == 200
    assert "OriginatorCoversationID" in body
    assert body.get("ResponseCode") == code
    assert body["ResponseDescription"].lower() == "success"
    assert ("ConversationID" in body) is (code is None)
    assert shop.fake.merchants[0].c2b_version == version


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_second_registration_is_refused_in_each_form(shop: Shop, version: str) -> None:
    await shop.register(version=version)
    again = await shop.register(version=version)
    assert message(again) == (500, "500.003.1001", "Urls are already registered.")
    shop.fake.turn(c2b_again="200")
    assert await shop.register(version=version) == (
        200,
        {
            "ConversationID": "", "OriginatorCoversationID": "",
            "ResponseDescription": "Validation and Confirmation URLs are already registered",
        },
    )  # fmt: skip
    shop.fake.turn(c2b_again="soap")
    status, body = await shop.register(version=version)
    fault = body["Envelope"]["Body"]["Fault"]
    assert status == 500
    assert "SCO-AddURLVault failed. Reason: ResponseCode 409" in fault["faultstring"]


async def test_a_payment_is_simulated_by_version_1(shop: Shop) -> None:
    await shop.register(version="v1")
    ask = {
        "ShortCode": "174379", "CommandID": "CustomerPayBillOnline", "Amount": "45",
        "Msisdn": PHONE, "BillRefNumber": "T07",
    }  # fmt: skip
    status, body = await shop.post("/mpesa/c2b/v1/simulate", ask)
    assert status == 200
    assert set(body) == {"ConversationID", "OriginatorCoversationID", "ResponseDescription"}
    assert body["ConversationID"].startswith("AG_")
    await shop.fake.settled()
    (notice,) = shop.bodies("/g/c/tok")
    assert notice["MSISDN"] == hashlib.sha256(PHONE.encode()).hexdigest()
    assert (notice["TransAmount"], notice["BillRefNumber"]) == ("45.00", "T07")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("masked", "2547 ***** 149"),
        ("hashed", hashlib.sha256(PHONE.encode()).hexdigest()),
        ("hashed_upper", hashlib.sha256(PHONE.encode()).hexdigest().upper()),
        ("full", PHONE),
        ("null", None),
        ("empty", ""),
    ],
)
async def test_the_payer_is_named_as_the_shop_has_it(
    shop: Shop, form: str, expected: str | None
) -> None:
    await shop.register()
    await shop.register("5566778", ConfirmationURL="https://relay.test/g/c/till")
    shop.fake.turn(msisdn={"174379": form})
    await paid(shop)
    await paid(shop, number="5566778")
    assert [each["MSISDN"] for each in shop.bodies("/g/c/tok")] == [expected]
    assert [each["MSISDN"] for each in shop.bodies("/g/c/till")] == ["2547 ***** 149"]
    shop.fake.turn(msisdn={"*": "absent"})
    await paid(shop, number="5566778")
    assert "MSISDN" not in shop.bodies("/g/c/till")[-1]


@pytest.mark.parametrize("form", ["latin1", "bom", "utf16", "gzip", "form", "raw_tab", "in_text"])
async def test_a_confirmation_is_written_in_other_bytes(shop: Shop, form: str) -> None:
    await shop.register()
    payment = await paid(shop)
    (_, plain), head = shop.got[-1], shop.heads[-1]
    assert head["content-type"] == "application/json"
    shop.fake.turn(body_forms={"c2b": form})
    again = await paid(shop)
    (_, raw), head = shop.got[-1], shop.heads[-1]
    if form == "gzip":  # aiohttp has unpacked it by its head field
        assert head["content-encoding"] == "gzip"
        assert raw == gzip.decompress(in_form(raw, "gzip")[0])
    else:
        assert not is_strict_json_object(raw)
    if form == "form":
        assert head["content-type"] == "application/x-www-form-urlencoded"
        told = {name: each[0] for name, each in parse_qs(raw.decode()).items()}
    else:
        coding = {"latin1": "latin-1", "utf16": "utf-16", "bom": "utf-8-sig"}.get(form, "utf-8")
        told = json.loads(raw.decode(coding), strict=False)
        told = json.loads(told) if form == "in_text" else told
    assert (told["TransID"], json.loads(plain)["TransID"]) == (again.receipt, payment.receipt)
    name = json.loads(plain)["FirstName"]
    assert told["FirstName"] == name + {"latin1": "\u00c9", "raw_tab": "\t"}.get(form, "")


async def test_a_callback_is_written_in_other_bytes(shop: Shop) -> None:
    shop.fake.turn(body_forms={"stk": "lower_keys"}, default="ok_fast")
    await shop.push()
    await shop.fake.settled()
    told = json.loads(shop.got[-1][1])
    assert told["body"]["stkcallback"]["resultcode"] == 0


# Pull


async def test_pull_of_a_shop_that_was_never_registered_proves_nothing(shop: Shop) -> None:
    await paid(shop)
    body = await pulled(shop)
    assert (body["ResponseCode"], body["Response"]) == ("1001", [[]])
    assert body["ResponseMessage"] == "No records found or Organization Name not available"
    shop.fake.turn(pull_registered=["174379"])
    body = await pulled(shop)
    assert (body["ResponseCode"], len(body["Response"][0])) == ("1000", 1)
    shop.fake.turn(pull_fails=["174379"])  # a child paybill
    assert (await pulled(shop))["ResponseCode"] == "1001"
    shop.fake.turn(pull_fails=[], pull_registered=[], pull_must_register=False)
    assert (await pulled(shop))["ResponseCode"] == "1000"


@pytest.mark.parametrize(
    ("form", "told"), [("nested", [[]]), ("flat", []), ("null", None), ("absent", "-")]
)
async def test_a_list_without_rows_has_each_form(shop: Shop, form: str, told: Any) -> None:
    shop.fake.turn(pull_registered=["174379"], pull_empty=form, pull_empty_code="1000")
    body = await pulled(shop)
    assert (body["ResponseCode"], body.get("Response", "-")) == ("1000", told)
    shop.fake.turn(pull_registered=[])
    body = await pulled(shop)
    assert (body["ResponseCode"], body.get("Response", "-")) == ("1001", told)


async def test_pull_has_rows_that_are_no_customer_s_payment(shop: Shop) -> None:
    shop.fake.turn(pull_registered=["174379"])
    payment = await paid(shop, 22_800)
    reversed_one = await paid(shop, 100)
    ask = shop.asynchronous(
        "BusinessPayment", InitiatorName="testapiuser", PartyA="174379", PartyB=PHONE,
        Amount="300",
    )  # fmt: skip
    assert (await shop.post("/mpesa/b2c/v1/paymentrequest", ask))[0] == 200
    await shop.fake.settled()
    back = shop.fake.reverse(reversed_one.receipt)
    swept = shop.fake.settle("174379")
    assert shop.fake.merchants[0].balance == 0
    assert swept.amount == 22_500
    odd = {
        "transactionId": "UKN0000101",
        "amount": "-100.00",
        "transactiontype": "c2b-pay-bill-debit",
    }
    shop.fake.add_rows("174379", odd)
    rows = (await pulled(shop))["Response"][0]
    assert [(row["transactiontype"], row["amount"]) for row in rows] == [
        ("c2b-pay-bill-debit", "22800.00"), ("c2b-pay-bill-debit", "100.00"),
        ("business-payment-to-customer", "300.00"), ("c2b-reversal", "100.00"),
        ("merchant-to-organization-settlement", "22500.00"), ("c2b-pay-bill-debit", "-100.00"),
    ]  # fmt: skip
    assert rows[0]["transactionId"] == payment.receipt
    assert rows[3]["transactionId"] == back.receipt
    assert rows[4]["msisdn"] == 700000000
    assert all("trxDate" in row for row in rows)
    shop.fake.turn(pull_reversals="negative")
    row = (await pulled(shop))["Response"][0][3]
    assert (row["transactiontype"], row["amount"]) == ("c2b-pay-bill-debit", "-100.00")
    shop.fake.turn(pull_reversals="none")
    assert back.receipt not in [row["transactionId"] for row in (await pulled(shop))["Response"][0]]


# A customer who takes the money back


@pytest.mark.parametrize(("how", "amount"), [("positive", "450.00"), ("negative", "-450.00")])
async def test_a_customer_reverses_a_payment(shop: Shop, how: str, amount: str) -> None:
    await shop.register()
    payment = await paid(shop)
    balance = shop.fake.wallet(PHONE).balance
    shop.fake.turn(reversal_notice=how, reversed_status="Reversed")
    status, _ = await shop.post("/_fake/reverse", {"receipt": payment.receipt})
    assert status == 200
    await shop.fake.settled()
    back = shop.fake.payments[-1]
    assert (back.kind, back.of, payment.reversed_by) == ("REVERSAL", payment.receipt, back.receipt)
    assert shop.fake.wallet(PHONE).balance == balance + 450
    notice = shop.bodies("/g/c/tok")[-1]
    assert (notice["TransactionType"], notice["TransID"]) == ("C2B Reversal", back.receipt)
    assert notice["TransAmount"] == amount
    ask = shop.asynchronous(
        "TransactionStatusQuery", TransactionID=payment.receipt, PartyA="174379", IdentifierType="4"
    )
    await shop.post("/mpesa/transactionstatus/v1/query", ask)
    await shop.fake.settled()
    parameters = shop.bodies("/g/r/tok")[-1]["Result"]["ResultParameters"]["ResultParameter"]
    assert {"Key": "TransactionStatus", "Value": "Reversed"} in parameters
    again = await shop.post("/_fake/reverse", {"receipt": payment.receipt})
    assert again[0] == 400
    assert back.receipt in again[1]["error"]


async def test_without_the_knob_a_customer_s_reversal_sends_nothing(shop: Shop) -> None:
    await shop.register()
    payment = await paid(shop)
    shop.fake.reverse(payment.receipt)
    await shop.fake.settled()
    assert len(shop.bodies("/g/c/tok")) == 1


# Refusals that stay, and what stands in front of Daraja


async def test_an_api_without_a_product_stays_refused(shop: Shop) -> None:
    shop.fake.turn(no_product=["push", "c2b/v2"])
    for _ in range(2):
        await shop.log_in()
        assert message(await shop.push()) == NO_PRODUCT
    assert message(await shop.register(version="v2")) == NO_PRODUCT
    assert (await shop.register(version="v1"))[0] == 200
    assert message(await shop.query("ws_CO_1"))[1] == "400.002.02"
    shop.fake.turn(
        no_product=["query", "pull", "c2b", "qr", "status", "reversal", "b2c", "balance"]
    )
    assert message(await shop.query("ws_CO_1")) == NO_PRODUCT
    for path in (
        "/mpesa/c2b/v1/registerurl", "/pulltransactions/v1/query", "/pulltransactions/v1/register",
        "/mpesa/qrcode/v1/generate", "/mpesa/transactionstatus/v1/query",
        "/mpesa/reversal/v1/request", "/mpesa/b2c/v1/paymentrequest",
        "/mpesa/b2c/v3/paymentrequest", "/mpesa/accountbalance/v1/query",
    ):  # fmt: skip
        assert message(await shop.post(path, {"a": "b"})) == NO_PRODUCT
    assert (await shop.push())[0] == 200
    shop.fake.script("push_no_product")
    assert message(await shop.push(PhoneNumber="254708374150")) == NO_PRODUCT
    # A dead token is refused as one: its product is not looked at.
    shop.fake.expire_tokens()
    assert message(await shop.query("x"))[1] == "400.003.01"


@pytest.mark.parametrize("status", [200, 403, 503])
async def test_a_firewall_answers_with_its_page(shop: Shop, status: int) -> None:
    shop.fake.turn(faults=dict.fromkeys(("oauth", "push", "query", "c2b", "pull"), f"waf{status}"))
    for seen, page in [
        await shop.push(), await shop.query("x"), await shop.register(), await shop.pull("", ""),
    ]:  # fmt: skip
        assert seen == status
        assert "Incapsula incident ID" in page
    with pytest.raises(ValueError, match="Expecting value"):
        await shop.log_in()
    assert shop.fake.pushes == []


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429", 429, "policies.ratelimit.SpikeArrestViolation"),
        ("spike500", 500, "policies.ratelimit.SpikeArrestViolation"),
        ("quota429", 429, "policies.ratelimit.QuotaViolation"),
        ("quota500", 500, "policies.ratelimit.QuotaViolation"),
    ],
)
async def test_a_limit_is_said_by_its_code_whatever_the_status(
    shop: Shop, fault: str, status: int, code: str
) -> None:
    shop.fake.turn(faults={"push": fault, "query": fault})
    for answer in (await shop.push(), await shop.query("x")):
        assert answer[0] == status
        assert answer[1]["fault"]["detail"]["errorcode"] == code


async def test_a_conversation_id_is_given_twice(shop: Shop) -> None:
    shop.fake.turn(same_conversation=True)
    acks = []
    for payment in (await paid(shop), await paid(shop)):
        ask = shop.asynchronous(
            "TransactionReversal", TransactionID=payment.receipt, Amount="450",
            ReceiverParty="174379", RecieverIdentifierType="11",
        )  # fmt: skip
        acks.append((await shop.post("/mpesa/reversal/v1/request", ask))[1])
    assert acks[0] == acks[1]
    await shop.fake.settled()
    told = shop.bodies("/g/r/tok")
    assert [each["Result"]["ConversationID"] for each in told] == [acks[0]["ConversationID"]] * 2


async def test_a_balance_comes_at_its_address(shop: Shop) -> None:
    await paid(shop)
    ask = shop.asynchronous("AccountBalance", PartyA="174379", IdentifierType="4")
    status, ack = await shop.post("/mpesa/accountbalance/v1/query", ask)
    assert (status, ack["ResponseCode"]) == (200, "0")
    await shop.fake.settled()
    (told,) = shop.bodies("/g/r/tok")
    named = {
        each["Key"]: each["Value"] for each in told["Result"]["ResultParameters"]["ResultParameter"]
    }
    assert "Utility Account|KES|450.00|450.00|0.00|0.00" in named["AccountBalance"]
    wrong = await shop.post("/mpesa/accountbalance/v1/query", ask | {"IdentifierType": "1"})
    assert message(wrong)[2] == "Bad Request - Invalid IdentifierType"


async def test_b2b_is_not_here_and_says_so(shop: Shop) -> None:
    answer = await shop.post("/mpesa/b2b/v1/paymentrequest", {"a": "b"})
    assert message(answer)[:2] == (404, "404.001.01")


async def test_the_control_interface_refuses_the_new_things_that_cannot_be(shop: Shop) -> None:
    for path, body, why in [
        ("/_fake/knobs", {"noProduct": ["oauth"]}, "noProduct is of"),
        ("/_fake/knobs", {"msisdn": {"174379": "secret"}}, "msisdn is by short code"),
        ("/_fake/knobs", {"msisdn": ["174379"]}, "msisdn cannot be"),
        ("/_fake/knobs", {"bodyForms": {"c2b": "morse"}}, "bodyForms are of"),
        ("/_fake/knobs", {"pullEmpty": "void"}, "pullEmpty cannot be"),
        ("/_fake/knobs", {"pullRegistered": "174379"}, "pullRegistered cannot be"),
        ("/_fake/settle", {"number": "174379"}, "has 0 shillings"),
        ("/_fake/settle", {"number": "1"}, "no shop has the number"),
        ("/_fake/settle", {"number": "174379", "amount": "1"}, "whole shillings"),
        ("/_fake/reverse", {"receipt": "ZZZ0000000"}, "no customer's payment"),
        ("/_fake/rows", {"number": "174379", "rows": [1]}, "list of objects"),
    ]:  # fmt: skip
        status, told = await shop.post(path, body)
        assert status == 400, path
        assert why in told["error"]
    assert (await shop.post("/_fake/rows", {"number": "174379", "rows": [{"a": 1}]}))[0] == 200
    assert (await shop.get("/_fake/state"))[0] == 200
    wallet = {"phone": PHONE, "name": "JOSÉ"}
    assert (await shop.post("/_fake/wallets", wallet))[0] == 200
    assert shop.fake.wallet(PHONE).name == "JOSÉ"
