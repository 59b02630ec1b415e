"""A receipt is taken from every form of answer in which it can be read without a doubt, and from no other."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.clock import SystemClock, from_compact
from gateway.domain.outcome import SaleOutcome, Signed, Unknown
from gateway.vscu.client import UnitClient
from gateway.vscu.wire import MESSAGE_MAX, decode, receipt_data, stamp_of

STAMP = "20261201014500"
DATA: dict[str, Any] = {
    "rcptNo": 7, "intrlData": "GZGGIZLYTJSSD7YLYLGIIG6FCY", "rcptSign": "TQZMKL57AGBMSTPO",
    "totRcptNo": 9, "vsdcRcptPbctDate": STAMP, "sdcId": "KRACU0300000001", "mrcNo": "WIS01000150",
}  # fmt: skip
ENVELOPE: dict[str, Any] = {
    "resultCd": "000", "resultMsg": "It is succeeded", "resultDt": STAMP, "data": DATA,
}  # fmt: skip
TEXT = json.dumps(ENVELOPE)
GOOD = TEXT.encode()


def outcome(raw: bytes) -> SaleOutcome:
    client = UnitClient(base_url="http://127.0.0.1:9", pin="A", branch_id="00", clock=SystemClock())
    return client.judge(decode(200, raw), b"{}")


def with_data(**changes: Any) -> bytes:
    return json.dumps({**ENVELOPE, "data": {**DATA, **changes}}).encode()


def with_envelope(**changes: Any) -> bytes:
    return json.dumps({**ENVELOPE, **changes}).encode()


TAKEN = {
    "plain": GOOD,
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "blanks and a byte order mark": b"\r\n\t \xef\xbb\xbf\r\n" + GOOD + b" \r\n",
    "NUL behind": GOOD + b"\x00\x00",
    "end of file behind": GOOD + b"\x1a",
    "no-break space": "\u00a0".encode() + GOOD + "\u00a0\u200b".encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 little endian": TEXT.encode("utf-16-le"),
    "UTF-32": TEXT.encode("utf-32"),
    "Latin-1 message": GOOD.replace(b"succeeded", b"r\xe9ussi"),
    "Windows message": GOOD.replace(b"succeeded", b"\x93done\x94"),
    "half a character in the message": GOOD.replace(b"It is", b"\\ud800"),
    "code with a blank behind": with_envelope(resultCd="000 "),
    "code with blanks around": with_envelope(resultCd="\t000\r\n"),
    "numbers as text": with_data(rcptNo="7", totRcptNo=" 9 "),
    "numbers as decimals": GOOD.replace(b'"rcptNo": 7', b'"rcptNo": 7.0').replace(b" 9,", b" 9.00,"),
    "numbers with zeros": with_data(rcptNo="0007", totRcptNo="000000009"),
    "numeric date": with_data(vsdcRcptPbctDate=int(STAMP)),
    "dashed date": with_data(vsdcRcptPbctDate="2026-12-01 01:45:00"),
    "ISO date": with_data(vsdcRcptPbctDate="2026-12-01T01:45:00"),
    "ISO date with offset": with_data(vsdcRcptPbctDate="2026-12-01T01:45:00.000+03:00"),
    "slashed date": with_data(vsdcRcptPbctDate="2026/12/01 01:45:00"),
    "dotted date": with_data(vsdcRcptPbctDate="2026.12.01 01:45:00"),
    "date with a blank": with_data(vsdcRcptPbctDate="20261201 014500"),
    "day first": with_data(vsdcRcptPbctDate="01/12/2026 01:45:00"),
    "month first": with_data(vsdcRcptPbctDate="12-01-2026 01:45:00"),
    "all dates dashed": json.dumps(
        {**ENVELOPE, "resultDt": "2026-12-01 01:45:00",
         "data": {**DATA, "vsdcRcptPbctDate": "01-12-2026 01:45:00"}}
    ).encode(),
    "blanks around the signature": with_data(rcptSign=" TQZMKL57AGBMSTPO\n", sdcId=" KRACU0300000001 "),
    "a member twice, alike": GOOD.replace(b'"rcptNo": 7', b'"rcptNo": 7, "rcptNo": 7'),
    "message null": with_envelope(resultMsg=None),
}  # fmt: skip


@pytest.mark.parametrize("raw", TAKEN.values(), ids=TAKEN)
def test_a_receipt_that_can_be_read_without_a_doubt_is_taken(raw: bytes) -> None:
    found = outcome(raw)
    assert isinstance(found, Signed), found
    assert found.raw == raw
    data = found.data
    assert (data.rcpt_no, data.tot_rcpt_no) == (7, 9)
    assert (data.intrl_data, data.rcpt_sign) == (DATA["intrlData"], DATA["rcptSign"])
    assert (data.sdc_id, data.mrc_no) == (DATA["sdcId"], DATA["mrcNo"])
    assert data.scu_time == from_compact(STAMP)


DOUBTFUL = {
    "empty": b"",
    "blanks": b" \r\n",
    "half": GOOD[:-9],
    "two answers": GOOD + GOOD,
    "text before": b"OK " + GOOD,
    "in a list": b"[" + GOOD + b"]",
    "data as text": with_envelope(data=json.dumps(DATA)),
    "code with a character": with_envelope(resultCd="000x"),
    "code null": with_envelope(resultCd=None),
    "a member twice, differing": GOOD.replace(b'"rcptNo": 7', b'"rcptNo": 6, "rcptNo": 7'),
    "two codes": GOOD.replace(b'"resultCd": "000"', b'"resultCd": "899", "resultCd": "000"'),
    "part of a number": GOOD.replace(b'"rcptNo": 7', b'"rcptNo": 7.5'),
    "truth": with_data(rcptNo=True),
    "number with underscore": with_data(rcptNo="1_000"),
    "number with sign": with_data(rcptNo="+7"),
    "negative": with_data(rcptNo=-7),
    "zero": with_data(totRcptNo=0),
    "number null": with_data(rcptNo=None),
    "number in other digits": with_data(rcptNo="\u0667"),
    "number too large": with_data(rcptNo=2**63),
    "number endless": GOOD.replace(b'"rcptNo": 7', b'"rcptNo": 7e999999'),
    "signature of Latin-1": GOOD.replace(b"TQZM", b"TQZ\xe9"),
    "signature with a blank": with_data(rcptSign="TQZM KL57"),
    "signature with a control character": with_data(rcptSign="TQZM\x07KL57"),
    "signature a list": with_data(rcptSign=["TQZMKL57AGBMSTPO"]),
    "signature blank": with_data(intrlData="  "),
    "signature null": with_data(intrlData=None),
    "id of Latin-1": GOOD.replace(b"KRACU03", b"KRACU\xe93"),
    "id an object": with_data(sdcId={}),
    "date without time": with_data(vsdcRcptPbctDate="2026-12-01"),
    "date without seconds": with_data(vsdcRcptPbctDate="2026-12-01 01:45"),
    "date of UTC": with_data(vsdcRcptPbctDate="2026-11-30T22:45:00Z"),
    "date with mixed marks": with_data(vsdcRcptPbctDate="2026-12/01 01:45:00"),
    "date that is none": with_data(vsdcRcptPbctDate="2026-02-30 01:45:00"),
    "date of two years": with_data(vsdcRcptPbctDate="01/12/26 01:45:00"),
    "milliseconds": with_data(vsdcRcptPbctDate=1796078700000),
    "day or month, far from the answer": json.dumps(
        {**ENVELOPE, "resultDt": "20260601014500",
         "data": {**DATA, "vsdcRcptPbctDate": "01/12/2026 01:45:00"}}
    ).encode(),
    "day or month, no time of the answer": json.dumps(
        {**ENVELOPE, "resultDt": None, "data": {**DATA, "vsdcRcptPbctDate": "01/12/2026 01:45:00"}}
    ).encode(),
    "date null": with_data(vsdcRcptPbctDate=None),
}  # fmt: skip


@pytest.mark.parametrize("raw", DOUBTFUL.values(), ids=DOUBTFUL)
def test_an_answer_that_leaves_a_doubt_is_unknown(raw: bytes) -> None:
    assert isinstance(outcome(raw), Unknown)


def test_ids_that_the_unit_does_not_give_are_none_and_a_database_may_give_floats() -> None:
    for empty in (None, ""):
        read = receipt_data({**DATA, "sdcId": empty, "mrcNo": empty, "rcptNo": 7.0})
        assert not isinstance(read, str)
        assert (read.sdc_id, read.mrc_no, read.rcpt_no) == (None, None, 7)
    assert isinstance(receipt_data({**DATA, "rcptNo": 7.5}), str)


def test_a_day_that_can_be_no_month_is_read_without_the_time_of_the_answer() -> None:
    assert stamp_of("25/12/2026 01:45:00") == from_compact("20261225014500")
    assert stamp_of("12/25/2026 01:45:00") == from_compact("20261225014500")
    assert stamp_of("05/05/2026 01:45:00") == from_compact("20260505014500")
    assert stamp_of(Decimal(STAMP)) == from_compact(STAMP)
    assert stamp_of(True) is None


def test_the_units_text_is_kept_as_it_can_be_stored_and_shown() -> None:
    raw = b'{"resultCd":"899","resultMsg":"a\\u0000\\ud800b\\n c\\u001b[2J' + b"x" * 5000 + b'"}'
    message = decode(200, raw).message
    assert message.startswith("ab c[2Jx")
    assert len(message) == MESSAGE_MAX
    message.encode()
    assert decode(200, b'{"resultCd":899,"resultMsg":null}').code == "899"
    assert decode(200, b'{"resultCd":"e11 ","resultMsg":7}').code == "E11"
