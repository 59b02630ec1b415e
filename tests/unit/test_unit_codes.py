"""Result codes of the unit: what each proves about the sale that was sent, and whose fault a refusal is.

Every code of etims.md 3.2 with its published text (ZRA's table for 930 to 935) and with other texts.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.domain.outcome import Duplicate, NotSent, Refused, SaleOutcome, Unknown
from gateway.vscu.client import UnitClient
from gateway.vscu.codes import Proof, meaning, proof
from gateway.vscu.refusal import Filled, fields_in
from gateway.vscu.wire import Answer, encode

FILLED = Filled("A000000000D", "CASH", "42294957", "NT", "U", "gateway")
ZERO = Decimal("0.00")
LINE: dict[str, Any] = {
    "itemSeq": 1, "itemCd": "KE1", "itemNm": "Item", "itemClsCd": "42294957", "bcd": None,
    "pkgUnitCd": "NT", "qtyUnitCd": "U", "taxTyCd": "B",
}  # fmt: skip
SALE: dict[str, Any] = {
    "invcNo": 7, "orgInvcNo": 0, "trdInvcNo": "R1", "custTin": None, "custNm": None, "remark": None,
    "rcptTyCd": "S", "regrId": "gateway", "modrId": "gateway",
    "receipt": {"custTin": None, "custMblNo": None}, "itemList": [LINE],
}  # fmt: skip
NOTE: dict[str, Any] = {**SALE, "orgInvcNo": 3, "rcptTyCd": "R", "rfdRsnCd": "06"}
BUYER: dict[str, Any] = {"custTin": "P051234567X", "custNm": "BUYER LTD"}


def outcome(code: str, message: str, body: dict[str, Any] = SALE, **settings: Any) -> SaleOutcome:
    """The outcome of an answer with this code and text to this request."""
    client = UnitClient(
        base_url="http://127.0.0.1:9", pin="A", branch_id="00", clock=SystemClock(),
        filled=FILLED, **settings,
    )  # fmt: skip
    answer = Answer(200, b"raw", code, message, None, None)
    return client.judge(answer, encode(body))


def verdict(found: SaleOutcome) -> str:
    """One word for an outcome: what the till and the page learn from it."""
    match found:
        case Refused(cause=None):
            return "refused"
        case Refused(cause=cause) | NotSent(cause=cause) if cause is not None:
            return cause.code
        case Duplicate():
            return "duplicate"
        case Unknown(link=link):
            return "link" if link else "unknown"
    raise AssertionError(found)


PUBLISHED = [
    ("801", "There is no data to retransmit.", "unknown"),
    ("802", "There is data that has not been transferred. After transfer is possible.", "link"),
    ("803", "This is a report that transfer is complete.", "unknown"),
    ("804", "There is no data to send for the report.", "unknown"),
    ("805", "Corresponding retransmission data exists.", "unknown"),
    ("834", "SalesType and ReceiptType must be NS-NR-TS-TR-CS-CR-PS check your inputs", "SALE_TYPE"),
    ("836", "Your Sequences have been altered, Connect to ZRA API to get Sequences.", "SEQUENCE"),
    ("838", "Connection to API is not established: check connection.", "link"),
    ("881", "Purchase code is mandatory", "refused"),
    ("882", "Purchase code is invalid", "refused"),
    ("883", "Purchase already used", "refused"),
    ("891", "An error occurred while Request URL is created.", "KRA_ADDRESS"),
    ("892", "An error occurred while Request Header data is created.", "KEYS"),
    ("893", "An error occurred while Request Body data is created.", "REQUEST"),
    ("894", "An error regarding server communication occurred.", "link"),
    ("895", "An error regarding unallowed Request Method occurred.", "REQUEST"),
    ("896", "An error regarding Request Status occurred.", "link"),
    ("899", "An error regarding Client occurred.", "unknown"),
    ("900", "There is no Header information", "link"),
    ("901", "It is not valid device", "link"),
    ("902", "This device is installed", "unknown"),
    ("903", "Only VSCU device can be verified.", "link"),
    ("904", "", "link"),
    ("905", "Only OSCU device can be verified", "link"),
    ("906", "", "link"),
    ("910", "Request parameter error", "refused"),
    ("911", "There is no request full text", "REQUEST"),
    ("912", "There is a request Method error", "REQUEST"),
    ("913", "Code value error among request parameters.", "refused"),
    ("921", "Sales or sales invoice data which is declared cannot be received.", "unknown"),
    ("922", "Sales invoice data can be received after receiving the sales data.", "unknown"),
    ("924", "CIS Invoice number already exists.", "duplicate"),
    ("990", "The maximum number of views are exceeded.", "link"),
    ("991", "There is an error during registration", "link"),
    ("992", "There is an error during modification", "link"),
    ("993", "There is an error during deletion", "link"),
    ("994", "There is an overlapped Data", "duplicate"),
    ("995", "There is no downloaded file", "unknown"),
    ("996", "", "link"),
    ("999", "There is an unknown error. Please ask the administrator.", "link"),
    ("E04", "Device/Branch not found", "link"),
    ("E11", "VSCU memory full", "MEMORY_FULL"),
    ("11", "memory full", "MEMORY_FULL"),
    ("12", "duplicate invoice", "unknown"),
    ("20", "server error", "link"),
    ("90", "internet error", "link"),
    ("96", "system error", "link"),
    ("99", "unknown error", "link"),
    ("777", "no code of any table", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text", "expected"), PUBLISHED)
def test_each_published_code_and_text_has_its_verdict(code: str, text: str, expected: str) -> None:
    assert verdict(outcome(code, text)) == expected


@pytest.mark.parametrize(("code", "text", "expected"), PUBLISHED)
def test_words_about_numbers_do_not_change_the_verdict_of_a_code_with_a_meaning(
    code: str, text: str, expected: str
) -> None:
    if code in ("893", "910", "913"):
        return  # the text says what is wrong
    for more in (
        "invoice number", "already", "overlap", "expected value", "orgInvcNo", "trdInvcNo 7 already exists",
        "the original invoice number 7 exists already", "Invc No: 3 is invalid, use the expected value: 4",
    ):  # fmt: skip
        assert verdict(outcome(code, f"{text} {more}")) == expected, more


CREDIT = [
    ("930", "The specified invoice could not be found. Please verify [orgInvcNo] and try again"),
    ("931", "The credit note amount exceeds the original invoice amount for item:"),
    ("932", "The item specified in the credit note does not exist on the original invoice. [itemCd]"),
    ("933", "The credit note exceeds the original invoice"),
    ("934", "The quantity specified in the credit note exceeds the quantity in the original invoice."),
    ("935", "The credit note contains information that does not match the original invoice data"),
    ("931", "Original invoice number does not exist"),
    ("934", "Invoice already has a credit note"),
    ("934", "Invoice number 3 already has a credit note"),
    ("934", "Invoice No 3 is already reversed"),
    ("930", "orgInvcNo 3 already credited"),
    ("935", "The invoice number exists already with other data"),
    ("910", "Request parameter error [<orgInvcNo>]"),
    ("910", "[<orgInvcNo>] is invalid, use the expected value: 3"),
    ("910", "ORG_INVC_NO already used"),
    ("910", "Original Invoice Number: 3 already credited"),
    ("910", "The original sale's invoice number exists already"),
    ("910", "Credit note for invoice number 3 already exists"),
    ("910", "trdInvcNo already exists"),
    ("913", "Code value error [<rfdRsnCd>]"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "text"), CREDIT)
def test_a_refused_credit_note_is_no_duplicate(code: str, text: str) -> None:
    found = outcome(code, text, NOTE)
    assert verdict(found) == "refused"
    assert isinstance(found, Refused)
    # 930 to 935 may come from the note's own first sending; 910 and its like cannot.
    assert found.by_bytes == (code == "910")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("910", "Request parameter error [<trdInvcNo>]"),
        ("910", "trader invoice number already exists"),
        ("910", "Trader's invoice no. 7 is already used"),
        ("910", "customer invoice number already used"),
        ("910", "Reference invoice number already exists"),
        ("910", "Purchase order number already used"),
        ("910", "Item already exists"),
        ("910", "There is overlapped data in the item list"),
        ("910", "use the expected value"),
        ("910", "Invc No: 3 is invalid, use the expected value: 4"),
        ("910", "The invoice no longer accepts this item"),
        ("910", "Invoice number 7: wrong value [<itemNm>]"),
        ("910", "Invoice number 7, line 1: [itemCd] already exists with another name"),
        ("910", "The ItemCd isn't made up of correct QtyUnitCd for this invoice number [itemCd]"),
        ("913", "Code value error [<pmtTyCd>]"),
        ("883", "Purchase code of invoice number 7 is wrong"),
    ],
)
def test_a_refusal_about_another_field_is_no_duplicate(code: str, text: str) -> None:
    assert verdict(outcome(code, text, {**SALE, "remark": "x"})) == "refused"


@pytest.mark.parametrize("body", [SALE, NOTE], ids=["sale", "credit note"])
@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("910", "Invc No: 7 is invalid, use the expected value: 8"),
        ("910", "Invc No: 7 is invalid, use the expected value: 7"),
        ("910", "Invc No: is invalid, use the expected value: 8"),
        ("910", "INVC_NO 7 already exists"),
        ("910", "Request parameter error [<invcNo>]"),
        ("910", "CIS Invoice number already exists."),
        ("910", "The invoice number is already used"),
        ("910", "Invoice number 7 exists already, the original invoice is 3"),
        ("910", "Invoice number: 7 is a duplicate"),
        ("910", "The invoice with number 7 already exists"),
        ("910", "INVC NO 7 INVALID, EXPECTED VALUE 8"),
        ("910", "invalid invoice no (7). Expected 8"),
        ("910", "Invoice 7 is already registered"),
        ("910", "This invoice was already received"),
        ("910", "Duplicate invoice"),
        ("893", "Invc No: 7 is invalid, use the expected value: 8"),
        ("913", "Invc No: 7 is invalid, use the expected value: 8"),
        ("931", "Invc No: 7 is invalid, use the expected value: 8"),
        ("835", "Invc No: 7 is invalid, use the expected value: 8"),
    ],
)
def test_the_sentence_about_the_number_of_this_very_sale_is_a_duplicate(
    code: str, text: str, body: dict[str, Any]
) -> None:
    settings = {"refused_codes": ("835",)} if code == "835" else {}
    assert verdict(outcome(code, text, body, **settings)) == "duplicate"


def test_a_credit_note_is_not_to_be_rung_up_again_for_the_rates_of_its_sale() -> None:
    for body, again in ((SALE, True), (NOTE, False)):
        found = outcome("910", "Request parameter error [<taxRtB>] must be 14", body)
        assert isinstance(found, Refused)
        assert found.cause is not None
        assert (found.cause.code, "new sale" in found.cause.sentence) == ("RATES", again)


def test_a_unit_that_expects_a_lower_number_has_never_had_this_one() -> None:
    assert verdict(outcome("910", "Invc No: 7 is invalid, use the expected value: 5")) == "NUMBER"


OURS = [
    *[(name, "CLOCK") for name in ("salesDt", "cfmDt", "stockRlsDt", "rfdDt", "cnclDt", "cnclReqDt")],
    *[(name, "BRANCH") for name in ("tin", "bhfId")],
    *[(f"taxRt{letter}", "RATES") for letter in "ABCDE"],
    *[(f"{name}{x}", "AMOUNTS") for x in "ABCDE" for name in ("taxblAmt", "taxAmt")],
    *[(name, "AMOUNTS") for name in ("totTaxblAmt", "totTaxAmt", "totItemCnt", "itemList><taxAmt")],
    *[(name, "CASHIER") for name in ("regrId", "regrNm", "modrId", "modrNm")],
    *[(name, "RECEIPT_TEXT") for name in ("receipt", "receipt><rptNo", "receipt><trdeNm", "receipt><adrs")],
    *[(name, "RECEIPT_TEXT") for name in ("receipt><topMsg", "receipt><btmMsg", "receipt><custMblNo")],
    *[(name, "SALE_TYPE") for name in ("salesTyCd", "rcptTyCd")],
    ("salesSttsCd", "SALE_STATUS"), ("prchrAcptcYn", "REQUEST"), ("remark", "REQUEST"),
    ("custTin", "WALK_IN"), ("custNm", "WALK_IN"), ("receipt><custTin", "WALK_IN"),
    ("itemList><pkgUnitCd", "ITEM_DEFAULTS"), ("itemList><qtyUnitCd", "ITEM_DEFAULTS"),
    ("itemList><itemClsCd", "ITEM_DEFAULTS"), ("itemList><isrccCd", "REQUEST"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "cause"), OURS)
def test_a_field_that_the_gateway_fills_is_never_the_tills_fault(field: str, cause: str) -> None:
    for code, text in (
        ("910", f"Request parameter error [<{field}>]"),
        ("910", f"[{field}] is not valid"),
        ("913", f"Code value error [<{field}>]"),
        ("893", f"An error occurred while Request Body data is created. [{field}]"),
    ):
        found = outcome(code, text)
        assert verdict(found) == cause, text
        assert isinstance(found, Refused)
        assert found.cause is not None
        assert found.cause.ours


@pytest.mark.parametrize(
    "field",
    [
        *("trdInvcNo", "orgInvcNo", "pmtTyCd", "rfdRsnCd", "totAmt", "itemList"),
        *(
            "itemList><itemCd",
            "itemList><itemNm",
            "itemList><qty",
            "itemList><pkg",
            "itemList><prc",
        ),
        *("itemList><splyAmt", "itemList><dcRt", "itemList><dcAmt", "itemList><taxTyCd"),
    ],
)
def test_a_field_that_the_till_gave_is_refused_for_good(field: str) -> None:
    for code in ("910", "913"):
        assert verdict(outcome(code, f"Request parameter error [<{field}>]")) == "refused"


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("custTin", BUYER),
        ("custNm", BUYER),
        ("remark", {"remark": "x"}),
        ("regrId", {"regrId": "jane"}),
        ("modrNm", {"modrId": "jane"}),
        ("receipt><custMblNo", {"receipt": {"custMblNo": "0712345678"}}),
        ("itemList><pkgUnitCd", {"itemList": [LINE, {**LINE, "pkgUnitCd": "UNT"}]}),
        ("itemList><itemClsCd", {"itemList": [{**LINE, "itemClsCd": "1"}]}),
        ("itemList><bcd", {"itemList": [{**LINE, "bcd": "600"}]}),
    ],
)
def test_who_filled_a_field_is_decided_by_what_was_sent(field: str, given: dict[str, Any]) -> None:
    text = f"Request parameter error [<{field}>]"
    assert verdict(outcome("910", text)) != "refused"
    assert verdict(outcome("910", text, {**SALE, **given})) == "refused"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("910", "Request parameter error [<salesDt>] must be a valid date and should not exceeding 180 days "
                "behind or future dates.", "CLOCK"),
        ("910", "salesDt must be a valid date", "CLOCK"),
        ("910", "SALESDT IS WRONG", "CLOCK"),
        ("910", "Sales date cannot be in the future", "CLOCK"),
        ("910", "Request parameter error [<bhfId>] is not valid", "BRANCH"),
        ("910", "Invalid branch", "BRANCH"),
        ("910", "The taxpayer's PIN is not registered", "BRANCH"),
        ("910", "TIN is not valid", "BRANCH"),
        ("910", "Request parameter error [<taxRtB>] must be 14", "RATES"),
        ("910", "Tax rate for B is 14", "RATES"),
        ("910", "Wrong Amount computation at totAmt", "AMOUNTS"),
        ("910", "[taxRtB] and [taxAmtB] do not match", "RATES"),
        ("910", "[taxRtB] does not go with [taxTyCd]", "refused"),
        ("910", "Tax type B rate mismatch", "RATES"),
        ("910", "Clock skew: server time differs", "CLOCK"),
        ("910", "The date is before the previous sale", "CLOCK"),
        ("910", "Invoice number is required", "REQUEST"),
        ("910", "Discount rate must be a whole number", "refused"),
        ("910", "Quantity must be greater than zero", "refused"),
        ("910", "Invalid customer TIN was provided", "WALK_IN"),
        ("884", "Invalid customer TPIN was provided", "WALK_IN"),
    ],
)  # fmt: skip
def test_texts_of_refusals_are_read_for_their_cause(code: str, text: str, expected: str) -> None:
    assert verdict(outcome(code, text)) == expected


def test_a_remark_that_is_only_the_gateways_mark_is_not_the_tills() -> None:
    text = "Request parameter error [<remark>]"
    for remark in (None, "[01M8QM5M83219TF1XJ0FPC81V0]"):
        assert verdict(outcome("910", text, {**SALE, "remark": remark})) == "REQUEST"
    marked = {**SALE, "remark": "table 4 [01M8QM5M83219TF1XJ0FPC81V0]"}
    assert verdict(outcome("910", text, marked)) == "refused"


def test_a_buyers_pin_that_the_till_gave_is_the_tills() -> None:
    with_buyer = {**SALE, **BUYER}
    assert verdict(outcome("884", "Invalid customer TIN was provided", with_buyer)) == "refused"
    assert verdict(outcome("910", "TIN is not valid", with_buyer)) == "refused"
    walk_in = {**SALE, "custTin": "A000000000D", "custNm": "CASH"}
    assert verdict(outcome("884", "Invalid customer TIN was provided", walk_in)) == "WALK_IN"


def test_a_request_that_cannot_be_read_back_is_judged_by_its_code_alone() -> None:
    client = UnitClient(base_url="http://127.0.0.1:9", pin="A", branch_id="00", clock=SystemClock())
    for body in (b"", b"{}", b"[1]", b"\xff", b'{"invcNo":"7"}'):
        for code, kind in (
            ("910", Refused),
            ("931", Refused),
            ("924", Duplicate),
            ("E11", NotSent),
        ):
            found = client.judge(Answer(200, b"", code, "invoice", None, None), body)
            assert isinstance(found, kind), (body, code)


def test_every_code_of_the_table_has_words_and_934_speaks_of_the_quantity() -> None:
    for code, _, _ in PUBLISHED:
        if code not in ("777", "12", "20", "90", "96", "99"):
            assert meaning(code), code
    assert "quantity" in str(meaning("934"))
    assert "amount" in str(meaning("931"))
    assert "not on the original" in str(meaning("932"))
    assert "not found" in str(meaning("930"))
    assert "already" not in " ".join(
        str(meaning(code)) for code in ("930", "931", "932", "933", "934")
    )


def test_the_lists_of_codes_are_settings_of_a_build() -> None:
    assert proof("910", refused_codes=()) is Proof.AMBIGUOUS
    assert proof("E11", not_ready_codes=()) is Proof.AMBIGUOUS
    assert proof("921", refused_codes=("921",)) is Proof.REFUSED
    assert proof("837", not_ready_codes=("837",)) is Proof.NOT_READY
    found = outcome("837", "Please restart me", not_ready_codes=("837",))
    assert isinstance(found, NotSent)
    assert found.cause is not None
    assert "Please restart me" in found.cause.sentence


def test_fields_are_found_in_texts_and_plain_words_are_not_fields() -> None:
    assert fields_in("[<itemList><pkgUnitCd>]") == ("pkgUnitCd",)
    assert fields_in("[<receipt>]") == ("receipt",)
    assert fields_in("the receipt and the qty of the remark") == ()
    assert fields_in("'tin' is wrong, BHFID too") == ("tin", "bhfId")
