"""Refusals that stay, limits, firewalls and the forms of C2B's registration: over real sockets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway import mpesa_tools
from gateway.clock import SystemClock
from gateway.domain.payment import Act, Money, PaymentState, Reason, Tender, acted
from gateway.domain.payment_wire import Accepted, Ack, Lost, QueryVerdict, Refused
from gateway.mpesa import codes
from gateway.mpesa.direct import DirectSite
from gateway.payments.wording import sentence
from tests.support.inbox import open_desk
from tests.support.shop import make_settings
from tests.unit.test_daraja_wire import ORDER, OURS, Server, daraja, http

PRODUCT = (
    b'{"requestId":"1","errorCode":"401.003.01","errorMessage":"Error Occurred - Invalid Access Token - '
    b'Invalid API call as no apiproduct match found"}'
)
PAGE = (
    b'<html><head><META NAME="ROBOTS"></head><body><iframe src="/_Incapsula_Resource?x">Request unsuccessful. '
    b"Incapsula incident ID: 1</iframe></body></html>"
)


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def apigee(code: str, words: str = "Spike arrest violation. Allowed rate : 5pm") -> bytes:
    return raw({"fault": {"faultstring": words, "detail": {"errorcode": code}}})


# --- M4: a token that is refused for good ------------------------------------------------------------------

STAYS = [
    (401, PRODUCT), (404, PRODUCT), (400, PRODUCT), (403, PRODUCT),
    (401, raw({"errorCode": "401.002.01", "errorMessage": "Error Occurred - Invalid Access Token"})),
    (404, raw({"errorCode": "404.001.03", "errorMessage": "Invalid Access Token"})),
    (400, raw({"errorCode": "400.003.01", "errorMessage": "Invalid Access Token"})),
    (401, apigee("keymanagement.service.InvalidAPICallAsNoApiProductMatchFound", "Invalid API call")),
    (403, apigee("oauth.v2.InvalidApiKeyForGivenResource", "Invalid API key")),
    (500, apigee("steps.oauth.v2.InvalidAccessToken", "Invalid access token")),
    (401, b""),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), STAYS)
async def test_a_fresh_token_that_is_refused_is_the_set_ups(status: int, body: bytes) -> None:
    async with daraja(initiator="api", security_credential="c") as (client, server):
        server.answers = [http(status, body)]
        reply = await client.push(ORDER)
        assert isinstance(reply, Refused)
        assert reply.reason is Reason.CONFIG
        assert len(server.requests) == len(server.token_requests) == 2
        assert client.problem is not None
        order = await client.reverse(
            "UKN0000001", 100, "https://a.example/r", "https://a.example/t", "x"
        )
        assert isinstance(order, Refused) and order.reason is Reason.CONFIG
        query = await client.query(OURS)
        assert query.verdict is QueryVerdict.NO_INFO


async def test_a_token_that_died_is_fetched_once_and_no_problem() -> None:
    async with daraja() as (client, server):
        server.answers.insert(0, http(401, PRODUCT))
        assert isinstance(await client.push(ORDER), Accepted)
        assert client.problem is None


# --- M9: something in front --------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", [PAGE, b"", b"Forbidden", b'{"message":"Forbidden"}', b"[]"])
async def test_a_refusal_without_a_word_of_daraja_is_not_the_keys(status: int, body: bytes) -> None:
    async with daraja() as (client, server):
        server.tokens = [http(status, body, "text/html")]
        reply = await client.ready()
        assert isinstance(reply, Refused)
        assert codes.BLOCKED in reply.message
        assert "consumer key" not in reply.message
        server.tokens = [http(200, b'{"access_token":"t","expires_in":"3599"}')]
        server.answers = [http(status, body, "text/html")]
        pushed = await client.push(ORDER)
        assert not isinstance(pushed, Accepted)
        assert codes.BLOCKED in pushed.message
        # 403 may have come on the way back; a token that is not taken has surely stopped the request.
        assert isinstance(pushed, Lost if status == 403 else Refused)


@pytest.mark.parametrize("status", [401, 403])
async def test_keys_that_daraja_refuses_are_still_called_so(status: int) -> None:
    async with daraja() as (client, server):
        server.tokens = [http(status, raw({"errorCode": "400.008.01", "errorMessage": "Invalid"}))]
        reply = await client.ready()
        assert isinstance(reply, Refused)
        assert "consumer key and secret" in reply.message


# --- M10: Apigee's limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 403, 429, 500, 503])
@pytest.mark.parametrize(
    "code",
    ["policies.ratelimit.SpikeArrestViolation", "policies.ratelimit.QuotaViolation", "Policies.RateLimit.X"],
)  # fmt: skip
def test_a_limit_is_one_whatever_status_it_has(code: str, status: int) -> None:
    body = apigee(code)
    for reply in (codes.push_reply(status, body, "7"), codes.ack_reply(status, body, "7")):
        assert isinstance(reply, Refused)
        assert (reply.reason, reply.retry_after_s) == (Reason.NOT_SENT, 7)
    query = codes.query_verdict(status, body, OURS)
    assert (query.verdict, query.retry_after_s) == (QueryVerdict.LIMITED, codes.LIMITED_S)


def test_another_fault_of_apigee_leaves_a_push_open() -> None:
    assert isinstance(codes.push_reply(500, apigee("messaging.adaptors.http.flow.X")), Lost)
    assert isinstance(codes.push_reply(503, apigee("policies.concurrentratelimit.X")), Lost)


# --- M5: C2B's registration ----------------------------------------------------------------------------------

SUCCESSES = [
    {"ConversationID": "", "OriginatorCoversationID": "", "ResponseDescription": "success"},
    {"ConversationID": "", "OriginatorCoversationID": "o", "ResponseDescription": "Success"},
    {"OriginatorCoversationID": "o", "ResponseCode": "0", "ResponseDescription": "success"},
    {"OriginatorCoversationID": "o", "ResponseCode": 0, "ResponseDescription": "success"},
    {"OriginatorCoversationID": "o", "ResponseCode": "00", "ResponseDescription": "Success"},
    {"OriginatorCoversationID": "o", "ResponseCode": "00000000", "ResponseDescription": "Accept"},
    {"OriginatorConversationID": "o", "ResponseCode": 0.0, "ResponseDescription": "ok"},
    {"ResponseCode": "", "ResponseDescription": "Success"},
]
BEFORE = [
    (500, {"errorCode": "500.003.1001", "errorMessage": "Urls are already registered."}),
    (400, {"errorCode": "400.003.02", "errorMessage": "URLs already registered"}),
    (200, {"OriginatorCoversationID": "", "ResponseDescription": "Validation and Confirmation URLs are already registered"}),
    (200, {"ResponseCode": "1", "ResponseDescription": "Urls are already registered"}),
    (200, {"ResponseCode": "0", "ResponseDescription": "Short Code already Registered"}),
    (500, {"errorCode": "500.003.1001", "errorMessage": "Duplicate notification info"}),
]  # fmt: skip
SOAP = {
    "Envelope": {"encodingStyle": "x", "Body": {"Fault": {
        "faultcode": "soap:Server", "faultactor": {},
        "faultstring": "Execution of ServiceCallout SCO-AddURLVault failed. Reason: ResponseCode 409 is treated as error",
        "detail": {"source": {"errorcode": "steps.servicecallout.ExecutionFailed"}}}}}
}  # fmt: skip
URLS = ("https://a.example/c/x", "https://a.example/v/x")


def paths(server: Server) -> list[str]:
    return [head.split(b" ")[1].decode() for head, _ in server.requests]


@pytest.mark.parametrize("version", ["v1", "v2", "auto"])
@pytest.mark.parametrize("body", SUCCESSES, ids=str)
async def test_each_form_of_success_is_one(body: dict[str, Any], version: str) -> None:
    async with daraja() as (client, server):
        server.answers = [http(200, raw(body))]
        assert isinstance(await client.register_c2b(*URLS, version), Ack)
        first = "v1" if version == "v1" else "v2"
        assert paths(server) == [f"/mpesa/c2b/{first}/registerurl"]


@pytest.mark.parametrize(("status", "body"), BEFORE, ids=str)
async def test_each_form_of_registered_before_is_one(status: int, body: dict[str, Any]) -> None:
    async with daraja() as (client, server):
        server.answers = [http(status, raw(body))]
        reply = await client.register_c2b(*URLS)
        assert isinstance(reply, Refused)
        assert mpesa_tools.is_registered_before(reply)


async def test_an_app_with_the_other_product_is_registered_by_v1() -> None:
    async with daraja() as (client, server):
        server.answers = [http(401, PRODUCT), http(401, PRODUCT), http(200, raw(SUCCESSES[0]))]
        assert isinstance(await client.register_c2b(*URLS), Ack)
        assert paths(server) == ["/mpesa/c2b/v2/registerurl"] * 2 + ["/mpesa/c2b/v1/registerurl"]
    async with daraja() as (client, server):
        server.answers = [http(404, raw({"errorCode": "404.001.01", "errorMessage": "Resource not found"})),
                          http(200, raw(SUCCESSES[0]))]  # fmt: skip
        assert isinstance(await client.register_c2b(*URLS), Ack)
    async with daraja() as (client, server):
        server.answers = [http(401, PRODUCT)]
        reply = await client.register_c2b(*URLS)
        assert isinstance(reply, Refused)
        assert "v2: 401.003.01" in reply.message and "v1: 401.003.01" in reply.message
        assert not mpesa_tools.is_registered_before(reply)


async def test_a_setting_names_the_version() -> None:
    async with daraja() as (client, server):
        server.answers = [http(401, PRODUCT)]
        assert isinstance(await client.register_c2b(*URLS, "v2"), Refused)
        assert set(paths(server)) == {"/mpesa/c2b/v2/registerurl"}


async def test_a_soap_fault_is_shown_in_its_words() -> None:
    async with daraja() as (client, server):
        server.answers = [http(500, raw(SOAP))]
        reply = await client.register_c2b(*URLS)
        assert not isinstance(reply, Ack)
        assert "SCO-AddURLVault failed" in reply.message


async def test_an_unreadable_answer_is_no_success() -> None:
    for status, body in (
        (200, b"<html>"),
        (200, b"{}"),
        (200, b'{"ResponseDescription":"failed"}'),
        (500, b""),
    ):
        assert not isinstance(codes.registration_reply(status, body), Ack)


@pytest.mark.parametrize("code", ["0", 0, "00", "00000000", 0.0, "0.0"])
def test_a_push_that_was_taken_is_never_called_refused(code: Any) -> None:
    body = raw({"ResponseCode": code, "MerchantRequestID": "m-1", "CheckoutRequestID": OURS})
    assert isinstance(codes.push_reply(200, body), Accepted)


# --- `pos-gateway mpesa check` -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pull", "good", "words"),
    [
        (http(200, raw({"ResponseCode": "1001", "ResponseMessage": "No records found or Organization Name not available", "Response": [[]]})),
         False, "Organization Name not available"),
        (http(403, PAGE, "text/html"), False, codes.BLOCKED),
        (http(500, raw({"RequestID": "1", "ResponseCode": "500", "ResponseMessage": "Failed"})), False, "500"),
        (http(200, raw({"ResponseCode": "1000", "Response": [[]]})), True, "proves nothing"),
        (http(200, raw({"ResponseCode": "1000", "Response": [[{"transactionId": "UKN0000001", "amount": "5.00",
                        "transactiontype": "c2b-pay-bill-debit"}]]})), True, "1 rows"),
    ],
)  # fmt: skip
async def test_check_looks_at_pull(pull: bytes, good: bool, words: str, tmp_path: Path) -> None:
    invalid = raw(
        {"errorCode": "400.002.02", "errorMessage": "Bad Request - Invalid CheckoutRequestID"}
    )
    async with daraja() as (_, server):
        server.answers = [http(400, invalid), pull]
        part = {
            "environment": "sandbox", "base_url": server.url, "shortcode": "174379",
            "callback_url": "https://relay.test/shop-1", "pull": True,
        }  # fmt: skip
        settings = make_settings(
            tmp_path, "http://127.0.0.1:1", mpesa=part, mpesa_consumer_key="k", mpesa_consumer_secret="s",
            mpesa_passkey="p",
        )  # fmt: skip
        lines: list[str] = []
        assert await mpesa_tools.check(settings, SystemClock(), lines.append) is good
    assert any("Pull Transactions" in line and words in line for line in lines), lines


# --- M11, M12: sentences -------------------------------------------------------------------------------------

PAID = PaymentState(Money.PAID, Tender.OPEN, 45_000, None, 45_000, "UKN0000001", None)


def test_cents_are_said_where_there_are_any() -> None:
    other = replace(PAID, tender=Tender.REVIEW, paid_cents=45_050)
    assert sentence(other).en == "The customer paid 450.50, not 450. Call the manager."
    assert "450.50" in sentence(other).sw
    large = replace(PAID, tender=Tender.REVIEW, amount_cents=145_000, paid_cents=123_456)
    assert sentence(large).en == "The customer paid 1,234.56, not 1,450. Call the manager."


def test_a_refund_that_was_ordered_is_not_called_late() -> None:
    for tender in (Tender.OPEN, Tender.COMPLETED_BY_MPESA, Tender.REVIEW):
        ordered = acted(replace(PAID, tender=tender), Act.REFUND_ORDERED).state
        assert "settled without it" not in sentence(ordered).en
        assert "UKN0000001" in sentence(ordered).en and "Refund due" in sentence(ordered).en
    late = acted(PAID, Act.SALE_WITHOUT_IT).state
    assert "settled without it" in sentence(late).en
    # What came too late stays so when its refund is ordered.
    assert "settled without it" in sentence(acted(late, Act.REFUND_ORDERED).state).en


# --- M13: addresses of the direct port -----------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/in"])
async def test_slashes_too_many_lose_no_message(below: str, tmp_path: Path) -> None:
    async with open_desk(tmp_path) as desk:
        site = DirectSite(
            clock=desk.clock, mailbox=desk.inbox, host="127.0.0.1", port=0,
            callback_url=f"https://shop.test{below}",
        )  # fmt: skip
        async with site, aiohttp.ClientSession() as session:
            host = f"http://127.0.0.1:{site.port}"

            async def status(method: str, path: str) -> int:
                from yarl import URL

                url = URL(f"{host}{path}", encoded=True)
                async with session.request(method, url, data=b"{}") as answer:
                    return answer.status

            token = "a" * 32
            for path in ("/s/{}", "//s/{}", "/s//{}", "/s/{}/", "//s//{}//"):
                assert await status("POST", below + path.format(token)) == 200, path
            assert len(await desk.messages()) == 5
            for path in ("/s", "/s/", "/x/{}", "/s/{}/more", "/{}"):
                assert await status("POST", below + path.format(token)) == 404, path
            for method in ("GET", "HEAD", "PUT", "DELETE"):
                assert await status(method, below + f"/s/{token}") == 405, method
            assert len(await desk.messages()) == 5
