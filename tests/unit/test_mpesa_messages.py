"""M-Pesa's messages in every shape that was collected, and what strangers may send instead."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import EAT
from gateway.domain.payment_wire import PulledRow
from gateway.mpesa import fields
from gateway.mpesa.messages import (
    in_window,
    parse_c2b,
    parse_pull,
    parse_result,
    parse_stk,
    read_pull,
)

DATA = Path(__file__).parents[1] / "data/daraja"
CALLBACKS = DATA / "callbacks"
OURS = "ws_CO_23112026101530417708374149"
ALL = (parse_stk, parse_c2b, parse_result, parse_pull)


def raw(value: Any) -> bytes:
    return json.dumps(value).encode()


def data(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def paid(*items: dict[str, Any], **callback: Any) -> bytes:
    body = {"CheckoutRequestID": OURS, "ResultCode": 0, "CallbackMetadata": {"Item": list(items)}}
    return raw({"Body": {"stkCallback": body | callback}})


RECEIPT = {"Name": "MpesaReceiptNumber", "Value": "UKN0TEST01"}


@pytest.mark.parametrize("path", sorted(CALLBACKS.glob("0_success*")), ids=lambda path: path.stem)
def test_every_shape_of_a_paid_callback(path: Path) -> None:
    result = parse_stk(path.read_bytes())
    assert result is not None
    assert (result.code, result.receipt) == ("0", "UKN0TEST01")
    assert result.amount_cents == (4500 if "wrong_amount" in path.stem else 45000)
    assert result.checkout_request_id == OURS
    assert result.merchant_request_id == "234f-43a9-ae11-d0b0c2dbe930108127"
    assert result.paid_at == datetime(2026, 11, 23, 10, 15, 52, tzinfo=EAT)
    expected = {"0_success_masked_phone": "0722000***", "0_success_reordered_no_phone": None}
    assert result.phone == expected.get(path.stem, "254708374149")


@pytest.mark.parametrize("path", sorted(CALLBACKS.glob("*_failure.json")), ids=lambda p: p.stem)
def test_every_shape_of_a_failed_callback(path: Path) -> None:
    result = parse_stk(path.read_bytes())
    assert result is not None
    assert result.code == path.stem.removesuffix("_failure")
    assert (result.receipt, result.amount_cents, result.phone) == (None, None, None)
    assert result.checkout_request_id == OURS
    assert result.description


@pytest.mark.parametrize("value", data("callbacks/malformed.json"), ids=str)
def test_malformed_callbacks_are_none(value: Any) -> None:
    assert parse_stk(raw(value)) is None


@pytest.mark.parametrize(
    ("amount", "cents"),
    [
        ("450.0", 45000), ("450", 45000), ('"450.00"', 45000), ("0.01", 1), ("1.1", 110),
        ("4.5e2", 45000), ("450.000", 45000), ("249999.99", 24999999), ("1e400", None),
        ("1e-400", None), ("1e999999999999999999999", None), ("NaN", None), ("Infinity", None),
        ("-450.0", None), ("0", None), ("0.00", None), ("450.005", None), ("10000000.01", None),
        ("450.00000000000000000000000000000001", None), ("9" * 5000, None), ("true", None),
        ("null", None), ('""', None), ('"NaN"', None), ('"1,000"', None), ('"4.5e2"', None),
        ('"٤٥٠"', None), ("[450]", None), ('{"a":1}', None),
    ],
)  # fmt: skip
def test_amounts_are_exact_or_none(amount: str, cents: int | None) -> None:
    body = paid({"Name": "Amount", "Value": "HERE"}, RECEIPT).replace(b'"HERE"', amount.encode())
    result = parse_stk(body)
    assert (result and result.amount_cents) == cents
    notice = parse_c2b(b'{"TransID":"UKN0TEST01","TransAmount":%s}' % amount.encode())
    assert (notice and notice.amount_cents) == cents


@pytest.mark.parametrize(
    "items",
    [
        [],
        [RECEIPT],
        [{"Name": "Amount", "Value": 450.0}],
        [RECEIPT, {"Name": "Amount"}],
        [RECEIPT, {"Name": "Amount", "Value": 450}, {"Name": "Amount", "Value": 45}],
        [RECEIPT, RECEIPT | {"Value": "UKN0TEST02"}, {"Name": "Amount", "Value": 450}],
        [{"Name": "MpesaReceiptNumber", "Value": "a b'; --"}, {"Name": "Amount", "Value": 450}],
        [RECEIPT, *[{"Name": "Amount", "Value": 450}] * 200],
    ],
)
def test_a_paid_without_one_amount_and_one_receipt_is_none(items: list[dict[str, Any]]) -> None:
    assert parse_stk(paid(*items)) is None


def test_what_is_said_twice_alike_and_what_is_no_item_does_no_harm() -> None:
    amount = {"Name": "Amount", "Value": 450}
    noise: Any = [7, None, "x", {}, {"Name": 3}, {"Name": {"a": 1}, "Value": 1}]
    result = parse_stk(paid(amount, {"Name": "Amount", "Value": "450.00"}, RECEIPT, *noise))
    assert result is not None
    assert (result.amount_cents, result.receipt) == (45000, "UKN0TEST01")


def test_a_repeated_member_could_be_read_in_two_ways() -> None:
    body = b'{"Body":{"stkCallback":{"CheckoutRequestID":"a","ResultCode":1032,"ResultCode":1}}}'
    assert parse_stk(body) is None


def test_an_id_that_is_none_is_left_out_and_the_token_still_tells() -> None:
    failed = {
        "ResultCode": 1032,
        "CheckoutRequestID": "x" * 65,
        "ResultDesc": "a\nb\x00" + "c" * 999,
    }
    result = parse_stk(raw({"Body": {"stkCallback": failed}}))
    assert result is not None
    assert (result.checkout_request_id, result.merchant_request_id) == (None, None)
    assert result.description.startswith("a b c")
    assert len(result.description) == 200


def test_confirmations_of_paybill_and_till() -> None:
    rows = data("c2b.json")
    notice = parse_c2b(raw(rows["confirmation_paybill"]))
    assert notice is not None
    assert (notice.receipt, notice.amount_cents, notice.shortcode) == ("RKL51ZDR4F", 500, "600966")
    assert (notice.reference, notice.phone) == ("Sample Transaction", "2547 ***** 126")
    assert notice.paid_at == datetime(2023, 11, 21, 12, 13, 25, tzinfo=EAT)
    till = parse_c2b(raw(rows["confirmation_till"]))
    assert till is not None
    assert (till.receipt, till.amount_cents, till.reference) == ("UKN0TEST02", 45000, "")
    assert till.first_name == "JANE"
    numbers = rows["confirmation_till"] | {"BusinessShortCode": 5566778, "BillRefNumber": None,
                                           "TransAmount": 450.0, "TransTime": 20261123101552}  # fmt: skip
    assert parse_c2b(raw(numbers)) == till


def test_a_hashed_number_is_kept_to_be_compared() -> None:
    notice = parse_c2b(raw({"TransID": "UKN0TEST02", "TransAmount": "1.00", "MSISDN": "AB" * 32}))
    assert notice is not None
    assert notice.phone == "ab" * 32
    notice = parse_c2b(raw({"TransID": "UKN0TEST02", "TransAmount": "1.00", "MSISDN": "ab" * 31}))
    assert notice is not None
    assert notice.phone is None


def test_results_of_reversal_and_status_with_their_hazards() -> None:
    reversal = parse_result(raw(data("reversal.json")["result"]))
    assert reversal is not None
    assert (reversal.code, reversal.transaction_id) == ("0", "SKE52PAWR9")
    assert reversal.parameters["OriginalTransactionID"] == "SKC82PACB8"
    assert reversal.parameters["Amount"] == "1"
    assert reversal.originator_id == "dad6-4c34-8787-c8cb963a496d1268232"
    status = parse_result(raw(data("transaction_status.json")["result"]))
    assert status is not None
    assert status.parameters["DebitPartyName"] == "254708374149 - John Doe"
    assert status.parameters["TransactionReason"] == ""
    assert status.parameters["TransactionStatus"] == "Completed"
    failed = parse_result(raw(data("b2c_refund.json")["result_fail_has_no_ResultParameters"]))
    assert failed is not None
    assert (failed.code, failed.parameters) == ("2001", {})


def test_a_result_with_one_parameter_an_array_of_references_and_a_text_code() -> None:
    result = parse_result(
        raw(
            {
                "Result": {
                    "ResultCode": "R000001",
                    "ConversationID": "AG_1",
                    "ResultParameters": {"ResultParameter": {"Key": "Amount", "Value": 2.5}},
                    "ReferenceData": {"ReferenceItem": [{"Key": "a"}, {"Key": "b", "Value": 1}]},
                }
            }
        )
    )
    assert result is not None
    assert (result.code, result.parameters, result.originator_id) == (
        "R000001",
        {"Amount": "2.5"},
        "",
    )
    assert parse_result(raw({"Result": {"ResultCode": 0}})) is None


def test_pulled_rows() -> None:
    query = data("pull.json")["query"]
    rows = parse_pull(raw(query["response"]))
    assert rows is not None
    (row,) = rows
    assert (row.receipt, row.amount_cents, row.phone) == ("yzlyrEsRG1", 16800, "254722000000")
    assert (row.reference, row.kind) == ("37207636392", "c2b-pay-bill-debit")
    assert row.at == datetime(2020, 8, 5, 10, 13, tzinfo=EAT)
    assert parse_pull(raw(query["empty"])) == ()


def test_the_window_that_was_asked_for_tells_what_the_times_of_pull_mean() -> None:
    def at(hour: int) -> PulledRow:
        return PulledRow("UKN0TEST01", 100, None, "", "", datetime(2026, 11, 23, hour, tzinfo=EAT))

    start, end = datetime(2026, 11, 23, 8, tzinfo=EAT), datetime(2026, 11, 23, 16, tzinfo=EAT)
    nairobi, utc = (at(15), at(12)), (at(6), at(12))
    assert in_window(nairobi, start, end, utc=True) == (nairobi, False)
    assert in_window(utc, start, end) == ((at(9), at(15)), True)
    either = (at(12),)
    assert in_window(either, start, end) == (either, False)
    assert in_window(either, start, end, utc=True) == ((at(15),), True)
    neither = (at(1), at(23))
    assert in_window(neither, start, end) == (neither, False)
    no_time = (PulledRow("UKN0TEST01", 100, None, "", "", None),)
    assert in_window(no_time, start, end) == (no_time, False)


def test_a_pulled_row_that_cannot_be_read_hides_no_other_and_proves_no_absence() -> None:
    good = {"transactionId": "UKN0TEST01", "amount": "450.00"}
    bad = {"transactionId": "UKN0TEST02", "amount": "4;50"}
    none = [{"transactionId": "UKN0TEST03", "amount": each} for each in ("-5.00", "0.00", 0, -3)]
    answer = {"ResponseCode": "1000", "Response": [[bad, *none], good]}
    found = read_pull(raw(answer))
    assert found is not None
    assert [row.receipt for row in found[0]] == ["UKN0TEST01"]
    assert found[1] == 1
    assert parse_pull(raw(answer)) is None
    answer["Response"] = [[*none], [good]]
    rows = parse_pull(raw(answer))
    assert rows is not None
    assert len(rows) == 1
    # What is no payment is shown, never counted.
    found = read_pull(raw(answer))
    assert found is not None
    assert [(row.amount_cents, row.is_payment) for row in found.others] == [
        (-500, False), (0, False), (0, False), (-300, False),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [{}, {"ResponseCode": "1000"}, {"ResponseCode": "1000", "Response": {}},
     {"ResponseCode": "500", "Response": [[]]}, {"Response": [[]]}],
)  # fmt: skip
def test_what_is_no_answer_of_pull_proves_no_absence(value: Any) -> None:
    assert parse_pull(raw(value)) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_error(body: bytes) -> None:
    assert [read(body) for read in ALL] == [None] * 4


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["0", "450.00", "UKN0TEST01", "1000", "Amount", "MpesaReceiptNumber"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from("Body stkCallback ResultCode CallbackMetadata Item Name Value TransID TransAmount Result "
                        "ConversationID ResultParameters ResultParameter Key ResponseCode Response "
                        "transactionId amount msisdn trxDate MSISDN TransTime".split()), inner, max_size=6),
    max_leaves=25,
)  # fmt: skip


def wrapped(value: Any) -> list[Any]:
    return [
        value,
        {"Body": {"stkCallback": value}},
        {"Body": {"stkCallback": {"ResultCode": 0, "CallbackMetadata": {"Item": value}}}},
        {"Result": value},
        {"Result": {"ResultCode": value, "ConversationID": "a", "ResultParameters": value}},
        {"TransID": "UKN0TEST01", "TransAmount": value, "MSISDN": value, "TransTime": value},
        {"ResponseCode": "1000", "Response": value},
    ]


@given(JSON)
def test_any_json_is_read_without_an_error(value: Any) -> None:
    for each in wrapped(value):
        body = raw(each)
        results = [read(body) for read in ALL]
        stk, notice = results[0], results[1]
        for found in (stk, notice):
            if found is not None and found.receipt is not None:
                assert 0 < found.amount_cents <= fields.CENTS_MAX


@given(st.integers(1, fields.CENTS_MAX))
def test_cents_of_every_amount_come_back(cents: int) -> None:
    text = f"{cents // 100}.{cents % 100:02d}"
    assert fields.cents(text) == cents
    notice = parse_c2b(f'{{"TransID":"UKN0TEST01","TransAmount":{text}}}'.encode())
    assert notice is not None
    assert notice.amount_cents == cents


def test_deep_large_and_foreign_bodies_are_none() -> None:
    good = paid({"Name": "Amount", "Value": 450}, RECEIPT)
    assert parse_stk(good) is not None
    for body in (
        b"[" * 100_000,
        b'{"a":' * 10_000,
        good + b" " * fields.MESSAGE_MAX_BYTES,
        b"\xef\xbb\xbf" + good,
        good.decode().encode("utf-16"),
        good.replace(b"UKN0TEST01", b"\\ud800"),
    ):
        assert [read(body) for read in ALL] == [None] * 4
