"""M-Pesa's codes: the closed tables against the collected data, and what every unknown thing means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.payment import Reason, Verdict
from gateway.domain.payment_wire import Accepted, Ack, Lost, QueryVerdict, Refused
from gateway.mpesa import codes

DATA = Path(__file__).parents[1] / "data/daraja"
RESULT_CODES = json.loads((DATA / "result_codes.json").read_text())["codes"]
SYNC = json.loads((DATA / "sync_errors.json").read_text())
QUERY = json.loads((DATA / "stk_query.json").read_text())
OURS = "ws_CO_23112026101530417708374149"


def raw(body: Any) -> bytes:
    return b"" if body is None else json.dumps(body).encode()


def answer(**change: Any) -> bytes:
    body = {"ResponseCode": "0", "CheckoutRequestID": OURS, "ResultCode": "0", "ResultDesc": "ok"}
    return raw({name: value for name, value in (body | change).items() if value is not None})


@pytest.mark.parametrize("row", RESULT_CODES, ids=lambda row: row["code"])
def test_every_collected_result_code_has_its_class(row: dict[str, Any]) -> None:
    expected = {
        "PAID": (Verdict.PAID, None),
        "PENDING": (Verdict.NO_INFO, None),
        "SANDBOX_ONLY": (Verdict.NOT_PAID, Reason.FAILED),
    }.get(row["outcome"])
    if expected is None:
        expected = (Verdict.NOT_PAID, Reason(row["outcome"]))
        assert codes.reason_of(row["code"]) is expected[1]
    else:
        assert codes.reason_of(row["code"]) is None
    assert codes.callback_word(row["code"]) == expected


def test_an_unknown_code_is_a_failure_in_a_callback_and_nothing_in_a_query() -> None:
    assert codes.callback_word("7777") == (Verdict.NOT_PAID, Reason.FAILED)
    assert codes.query_verdict(200, answer(ResultCode="7777"), OURS).verdict is QueryVerdict.NO_INFO


@pytest.mark.parametrize(
    ("name", "verdict", "reason"),
    [
        ("paid", QueryVerdict.PAID, None),
        ("pending_4999", QueryVerdict.PENDING, None),
        ("pending_500", QueryVerdict.PENDING, None),
        ("unknown_or_too_early", QueryVerdict.NO_INFO, None),
        ("cancelled", QueryVerdict.NOT_PAID, Reason.CANCELLED),
        ("unreachable", QueryVerdict.SOFT, Reason.FAILED_UNREACHABLE),
        ("insufficient", QueryVerdict.NOT_PAID, Reason.FAILED_FUNDS),
        ("wrong_pin", QueryVerdict.NOT_PAID, Reason.FAILED_PIN),
        ("expired", QueryVerdict.NOT_PAID, Reason.FAILED_EXPIRED),
        ("sandbox_bad_debt", QueryVerdict.NO_INFO, None),
        ("unrecognised", QueryVerdict.NO_INFO, None),
        ("rate_limited", QueryVerdict.LIMITED, None),
        ("html_error_page", QueryVerdict.NO_INFO, None),
    ],
)
def test_collected_query_answers(name: str, verdict: QueryVerdict, reason: Reason | None) -> None:
    row = QUERY[name]
    body = row["body_text"].encode() if "body_text" in row else raw(row["body"])
    reply = codes.query_verdict(row["http"], body, OURS)
    assert (reply.verdict, reply.reason, reply.raw) == (verdict, reason, body)
    assert (reply.retry_after_s == 12) == (verdict is QueryVerdict.LIMITED)


FINAL = "1 2 3 4 8 17 26 1001 1019 1025 1031 1032 2001 2028 8006 SFC_IC0003".split()


@pytest.mark.parametrize("code", [row["code"] for row in RESULT_CODES])
def test_a_query_ends_only_with_the_codes_that_are_allowed_to(code: str) -> None:
    verdict = codes.query_verdict(200, answer(ResultCode=code), OURS).verdict
    expected = {"0": "PAID", "4999": "PENDING", "1036": "SOFT", "1037": "SOFT", "9999": "SOFT"}
    assert verdict == expected.get(code, "NOT_PAID" if code in FINAL else "NO_INFO")


@pytest.mark.parametrize(
    "body",
    [
        answer(CheckoutRequestID="ws_CO_23112026101530417708374140"),
        answer(CheckoutRequestID=None),
        answer(ResponseCode="1"),
        answer(ResponseCode=None),
        answer(ResultCode=None),
        answer(ResultCode=""),
        answer(ResultCode=False),
        answer(ResultCode=[0]),
        answer()[:-1],
        answer().replace(b'"ResultCode": "0"', b'"ResultCode": "1032", "ResultCode": "0"'),
        b"[" + answer() + b"]",
        b"",
    ],
)
def test_a_paid_that_is_not_surely_about_this_push_says_nothing(body: bytes) -> None:
    assert codes.query_verdict(200, body, OURS).verdict is QueryVerdict.NO_INFO


@pytest.mark.parametrize("status", [201, 302, 400, 404, 500, 503])
def test_a_paid_counts_only_with_status_200(status: int) -> None:
    assert codes.query_verdict(status, answer(), OURS).verdict is QueryVerdict.NO_INFO


@pytest.mark.parametrize("words", ["[MerchantValidate] - Wrong credentials", "Internal error", ""])
def test_another_500_001_1001_does_not_say_that_it_is_pending(words: str) -> None:
    body = raw({"errorCode": "500.001.1001", "errorMessage": words})
    assert codes.query_verdict(500, body, OURS).verdict is QueryVerdict.NO_INFO


@pytest.mark.parametrize("code", ["500.003.02", "500.003.03"])
def test_a_busy_system_is_asked_later(code: str) -> None:
    reply = codes.query_verdict(500, raw({"errorCode": code, "errorMessage": "?"}), OURS, "30")
    assert (reply.verdict, reply.retry_after_s) == (QueryVerdict.LIMITED, 30)


def test_numbers_and_wording_of_a_query_drift() -> None:
    assert codes.query_verdict(200, answer(ResultCode=0, ResponseCode=0), OURS).verdict == "PAID"
    still = answer(ResultCode="5001", ResultDesc="The transaction is STILL under processing")
    assert codes.query_verdict(200, still, OURS).verdict is QueryVerdict.PENDING
    contradicting = answer(ResultCode="0", ResultDesc="still being processed")
    assert codes.query_verdict(200, contradicting, OURS).verdict is QueryVerdict.PENDING


@given(st.integers(100, 599), st.binary(max_size=200))
def test_no_bytes_make_a_query_paid_or_raise(status: int, body: bytes) -> None:
    assert codes.query_verdict(status, body, OURS).verdict in ("NO_INFO", "LIMITED")
    assert not isinstance(codes.push_reply(status, body), Accepted)
    assert not isinstance(codes.ack_reply(status, body), Ack)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 12), ("5", 5), ("0", 1), ("99999", 3600), ("-1", 12), ("nan", 12), ("Wed, 21 Oct", 12)],
)
def test_how_long_a_limit_asks_to_wait(header: str | None, seconds: float) -> None:
    assert codes.query_verdict(429, b"", OURS, header).retry_after_s == seconds


@pytest.mark.parametrize(
    "row",
    [row for row in SYNC["push"] if row["http"] is not None],
    ids=lambda row: str((row["body"] or {}).get("errorMessage", row["http"])),
)
def test_every_collected_refusal_has_its_class(row: dict[str, Any]) -> None:
    body = raw(row["body"])
    reply = codes.push_reply(row["http"], body)
    assert reply.raw == body
    if row["class"] == "AMBIGUOUS":
        assert isinstance(reply, Lost)
    else:
        assert isinstance(reply, Refused)
        assert reply.reason == row["class"]
    refetched = "Invalid Access Token" in str(row["body"])
    assert codes.token_refused(row["http"], body) == refetched


def test_a_busy_phone_is_left_alone_for_a_minute() -> None:
    body = {"errorCode": "500.001.1001", "errorMessage": "Unable to lock subscriber, a transaction"}
    reply = codes.push_reply(500, raw(body))
    assert isinstance(reply, Refused)
    assert (reply.reason, reply.retry_after_s) == (Reason.NOT_SENT, 60)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"errorCode": "500.001.1001", "errorMessage": "The transaction is being processed"}),
        (500, {"errorCode": "500.001.1001", "errorMessage": "Internal server error"}),
        (500, {"errorCode": "500.001.1001"}),
        (500, {"errorCode": "500.009.77", "errorMessage": "?"}),
        (500, None),
        (400, None),
        (403, None),
        (302, None),
        (200, None),
        (200, {}),
        (200, []),
        (200, {"ResponseCode": "0"}),
        (200, {"ResponseCode": "0", "CheckoutRequestID": ""}),
        (200, {"ResponseCode": "0", "CheckoutRequestID": "x" * 65}),
        (200, {"CheckoutRequestID": OURS}),
        (200, {"errorCode": "400.002.02", "errorMessage": "Bad Request - Invalid Amount"}),
        (400, {"errorCode": "500.003.1001", "errorMessage": "Internal Server Error"}),
        (500, {"errorCode": "400.009.01", "errorMessage": "new"}),
    ],
)
def test_what_does_not_surely_refuse_a_push_leaves_it_open(status: int, body: Any) -> None:
    assert isinstance(codes.push_reply(status, raw(body)), Lost)


def test_half_an_acceptance_leaves_it_open() -> None:
    whole = raw({"ResponseCode": "0", "MerchantRequestID": "m-1", "CheckoutRequestID": OURS})
    assert codes.push_reply(200, whole) == Accepted("m-1", OURS, whole)
    for cut in range(len(whole)):
        assert isinstance(codes.push_reply(200, whole[:cut]), Lost)


def test_a_200_with_another_response_code_is_a_refusal() -> None:
    reply = codes.push_reply(200, raw({"ResponseCode": "1", "ResponseDescription": "Rejected"}))
    assert isinstance(reply, Refused)
    assert (reply.reason, reply.code, reply.message) == (Reason.NOT_SENT, "1", "Rejected")


def test_a_refusal_that_is_not_in_the_list_is_the_set_ups() -> None:
    reply = codes.push_reply(400, raw({"errorCode": "400.009.01", "errorMessage": "new"}))
    assert isinstance(reply, Refused)
    assert reply.reason is Reason.CONFIG


@pytest.mark.parametrize("name", ["reversal", "transaction_status", "b2c_refund"])
def test_an_order_that_was_taken(name: str) -> None:
    ack = json.loads((DATA / f"{name}.json").read_text())["ack"]
    reply = codes.ack_reply(200, raw(ack))
    assert isinstance(reply, Ack)
    assert reply.conversation_id == ack["ConversationID"]
    assert reply.originator_id == ack["OriginatorConversationID"]


def test_a_reversal_that_met_an_internal_error_may_have_been_done() -> None:
    body = {"errorCode": "500.001.1001", "errorMessage": "Internal server error"}
    assert isinstance(codes.ack_reply(500, raw(body)), Lost)
