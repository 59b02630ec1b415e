"""Two public Daraja SDKs, as they come from PyPI, against the fake Daraja: every row of push, query and callback, C2B,
refused input, refused tokens. What an SDK makes of an answer is held against the fake's journal."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.daraja import SCENARIOS, phone_for
from hw_fakes.daraja.knobs import VARIANTS
from tests.conftest import need_tool
from tests.hw_fakes.daraja_rows import ASKED, ROWS, Row, failed
from tests.hw_fakes.daraja_shop import PHONE, Shop, open_shop
from tests.sdk.sdk import Sdk, SdkError

NAMES = ("daraja-v3", "mpesakit")
# A client with one CallBackURL, as a merchant configures it once.
CALLBACK = "https://relay.test/g/s/only"
OWN = "/g/s/only"
CONFIRM, VALIDATE = "https://relay.test/g/c/tok", "https://relay.test/g/v/tok"
# Codes that no row of the file has, by script.
MORE_CODES = ("26", "1025", "1031", "1036", "8006", "2", "3", "4", "8", "E3008")


@pytest.fixture(scope="module", params=NAMES)
def process(request: pytest.FixtureRequest) -> Iterator[Sdk]:
    sdk = Sdk(request.param)
    yield sdk
    sdk.close()


@dataclass
class Desk:
    """A merchant who uses an SDK, and Daraja."""

    sdk: Sdk
    shop: Shop

    async def push(self, phone: str, amount: Any = ASKED, callback: str = CALLBACK) -> Any:
        return await self.sdk.do("push", phone=phone, amount=amount, callback=callback)

    async def query(self, checkout: str) -> tuple[str, str]:
        """Return what the SDK says, and what the fake's journal says that it answered."""
        try:
            found = await self.sdk.do("query", checkout=checkout)
        except SdkError as error:
            said = str(error.code)
        else:
            assert found["checkout"] == checkout
            assert found["paid"] is (found["code"] == "0")
            said = found["code"]
        return said, self.shop.fake.entries("query")[-1]["outcome"]

    async def refused(self, what: str, **more: Any) -> SdkError:
        with pytest.raises(SdkError) as caught:
            await self.sdk.do(what, **more)
        return caught.value

    async def refused_push(
        self, phone: str, amount: Any = ASKED, callback: str = CALLBACK
    ) -> SdkError:
        return await self.refused("push", phone=phone, amount=amount, callback=callback)


@pytest.fixture
async def desk(process: Sdk) -> AsyncIterator[Desk]:
    async with open_shop(time_scale=0.005) as shop:
        await shop.register(ConfirmationURL=CONFIRM)
        await process.open(shop.fake.url)
        yield Desk(process, shop)


# What the SDK's error says where the fake's journal has a word for a whole answer.
HTTP_ERRORS = {
    "html": {"daraja-v3": "503", "mpesakit": "HTTP_503"},
    "429": {"daraja-v3": "429", "mpesakit": "HTTP_429"},
    "too early": dict.fromkeys(NAMES, "400.002.02"),
    "pending 500": dict.fromkeys(NAMES, "500.001.1001"),
}


def assert_agrees(desk: Desk, said: str, journal: str) -> None:
    expected = HTTP_ERRORS.get(journal, {}).get(desk.sdk.name, journal)
    assert said == expected


async def assert_callbacks(desk: Desk, codes: tuple[int | str, ...]) -> None:
    """Each message that arrived at the one address, as the SDK parses it."""
    bodies = desk.shop.bodies(OWN)
    assert [body["Body"]["stkCallback"]["ResultCode"] for body in bodies] == list(codes)
    sent = [entry for entry in desk.shop.fake.entries("callback") if entry["kind"] == "stk"]
    assert len(sent) == len(bodies)
    for body, code in zip(bodies, codes, strict=True):
        told = await desk.sdk.do("callback", body=body)
        assert told["code"] == str(code)
        assert told["paid"] is (str(code) == "0")
        assert told["checkout"] == desk.shop.fake.pushes[-1].checkout_id
        if not told["paid"]:
            assert (told["receipt"], told["amount"], told["phone"]) == (None, None, "")
            continue
        (payment,) = desk.shop.fake.payments
        assert (told["receipt"], told["amount"]) == (payment.receipt, float(payment.amount))
        # A masked number is handed on as it came.
        assert told["phone"] in (payment.phone, f"0{payment.phone[3:9]}***")


async def run_row(desk: Desk, scenario: str, row: Row, phone: str) -> None:
    """Push, query until it is over, callbacks and money of one row."""
    fake = desk.shop.fake
    if row.push is None:
        error = await desk.refused_push(phone)
        assert error.status is None
    elif row.push == (200, "1") and desk.sdk.name == "mpesakit":
        assert (await desk.push(phone))["accepted"] is False
    elif row.push[0] != 200:
        assert (await desk.refused_push(phone)).code == row.push[1]
    else:
        made = await desk.push(phone)
        if row.push[1] == "0":
            (entry,) = [e for e in fake.entries("push") if e["outcome"] == "accepted"]
            assert made["checkout"] == entry["checkoutRequestId"]
            assert made["merchant"] == entry["merchantRequestId"]
            assert entry["scenario"] == scenario
    if scenario.startswith("token_"):
        # Neither SDK asks for another token by itself.
        await desk.sdk.open(fake.url)
        await desk.push(phone)
    if row.query:
        (push,) = fake.pushes
        assert_agrees(desk, *(await desk.query(push.checkout_id)))
        await fake.settled()
        if scenario == "rate_limited_query":
            await fake.clock.sleep(12)
        said, journal = await desk.query(push.checkout_id)
        assert_agrees(desk, said, journal)
        assert journal == row.query[-1]
    else:
        await fake.settled()
        assert fake.pushes == []
    await assert_callbacks(desk, row.calls)
    assert [payment.amount for payment in fake.payments] == [row.moves] * bool(row.moves)
    twins = desk.shop.bodies("/g/c/tok")
    assert [t["TransID"] for t in twins] == [p.receipt for p in fake.payments] * row.announced


@pytest.mark.parametrize("scenario", ROWS)
async def test_every_row_reaches_an_sdk(desk: Desk, scenario: str) -> None:
    await run_row(desk, scenario, ROWS[scenario], phone_for(scenario))


@pytest.mark.parametrize("code", MORE_CODES)
async def test_every_other_code_reaches_an_sdk(desk: Desk, code: str) -> None:
    desk.shop.fake.script("cancel", phone=PHONE, code=code)
    row = failed(int(code) if code.isdigit() else code)
    await run_row(desk, "cancel", row, PHONE)


async def test_one_address_and_one_client_reach_every_failure_one_after_the_other(
    desk: Desk,
) -> None:
    fake = desk.shop.fake
    wanted = {
        name: row.query[-1]
        for name, row in ROWS.items()
        if row.push == (200, "0") and not row.moves
    }
    assert len(wanted) >= 11
    for scenario, code in wanted.items():
        made = await desk.push(phone_for(scenario))
        await fake.settled()
        assert (await desk.query(made["checkout"]))[0] == code, scenario
    made = await desk.push(phone_for("ok_fast"))
    await fake.settled()
    assert await desk.query(made["checkout"]) == ("0", "0")
    assert len(fake.payments) == 1
    assert {push.callback_url for push in fake.pushes} == {CALLBACK}
    for scenario in ("funds", "wrong_pin", "ok"):
        fake.script(scenario, phone=PHONE)
        made = await desk.push(PHONE, 7)
        await fake.settled()
        expected = {"funds": "1", "wrong_pin": "2001", "ok": "0"}[scenario]
        assert (await desk.query(made["checkout"]))[0] == expected


@pytest.mark.parametrize("pending", ["4999", "500"])
async def test_still_processing_is_no_answer(desk: Desk, pending: str) -> None:
    desk.shop.fake.turn(default="everything_silent_paid", pending=pending)
    made = await desk.push(PHONE)
    said, journal = await desk.query(made["checkout"])
    assert journal == ("4999" if pending == "4999" else "pending 500")
    assert_agrees(desk, said, journal)


# A body that is no JSON is the web server's to refuse, before any SDK.
@pytest.mark.parametrize("variant", [each for each in VARIANTS if each != "invalid_json"])
async def test_a_callback_in_each_form_is_parsed_or_refused(desk: Desk, variant: str) -> None:
    desk.shop.fake.turn(default="ok_fast", callback_variant=variant)
    await desk.push(PHONE)
    await desk.shop.fake.settled()
    (body,) = desk.shop.bodies(OWN)
    (payment,) = desk.shop.fake.payments
    readable = {"plain", "strings", "masked", "reordered", "balance", "types"}
    if variant in readable:
        told = await desk.sdk.do("callback", body=body)
        assert (told["paid"], told["receipt"]) == (True, payment.receipt)
        assert told["amount"] == ASKED
        return
    try:
        told = await desk.sdk.do("callback", body=body)
    except SdkError:
        return
    # Nothing without a receipt passes for one.
    assert told["receipt"] is None


@pytest.mark.parametrize("row", ["spoofed_callback", "malformed_callback", "oauth_400_empty"])
async def test_the_rows_apart(desk: Desk, row: str) -> None:
    fake, phone = desk.shop.fake, phone_for(row)
    if row == "oauth_400_empty":
        assert (await desk.refused_push(phone)).code == "404.001.03"
        await desk.sdk.open(fake.url)
        error = await desk.refused_push(phone)
        assert (
            error.code
            == {"daraja-v3": "400", "mpesakit": "AUTH_INVALID_CREDENTIALS"}[desk.sdk.name]
        )
        assert fake.pushes == []
        return
    made = await desk.push(phone)
    await fake.settled()
    said, journal = await desk.query(made["checkout"])
    assert said == journal == {"spoofed_callback": "4999", "malformed_callback": "0"}[row]
    assert len(fake.payments) == (row == "malformed_callback")


async def test_a_customer_pays_by_hand_and_the_sdk_reads_it(desk: Desk) -> None:
    phone = phone_for("customer_pays_till_directly")
    made = await desk.push(phone)
    await desk.shop.fake.settled()
    assert (await desk.query(made["checkout"]))[0] == "1032"
    (payment,) = desk.shop.fake.payments
    (notice,) = desk.shop.bodies("/g/c/tok")
    assert (payment.kind, notice["TransID"]) == ("C2B", payment.receipt)


def test_every_row_of_the_file_is_tried() -> None:
    apart = {
        "spoofed_callback", "malformed_callback", "oauth_400_empty", "customer_pays_till_directly",
    }  # fmt: skip
    assert set(ROWS) | apart == set(SCENARIOS)


# Refusals


@pytest.mark.parametrize(
    ("fault", "codes"),
    [
        ("no_product", ("401.003.01", "401.003.01")),
        ("waf403", ("403", "HTTP_403")),
        ("waf503", ("503", "HTTP_503")),
        ("waf200", (None, "REQUEST_FAILED")),
        ("spike500", ("500", "HTTP_500")),
        ("429", ("429", "HTTP_429")),
        ("busy", ("500.003.02", "500.003.02")),
        ("soap", ("500", "HTTP_500")),
        ("empty", ("400", "HTTP_400")),
        ("reset", (None, "REQUEST_FAILED")),
    ],
)
async def test_whatever_stands_before_daraja_is_an_error(
    desk: Desk, fault: str, codes: tuple[str | None, str]
) -> None:
    expected = dict(zip(NAMES, codes, strict=True))[desk.sdk.name]
    for family in ("push", "query"):
        desk.shop.fake.turn(faults={family: fault})
        error = (
            await desk.refused_push(PHONE)
            if family == "push"
            else await desk.refused("query", checkout="ws_CO_1")
        )
        assert error.code == expected, (family, error)
        assert desk.shop.fake.entries(family)[-1]["outcome"] == f"fault {fault}"
    assert desk.shop.fake.pushes == []


@pytest.mark.parametrize(
    ("amount", "daraja_v3", "mpesakit"),
    [
        (0, "INVALID_AMOUNT", "400.002.02"),
        (-5, "INVALID_AMOUNT", "400.002.02"),
        ("abc", "INVALID_AMOUNT", None),
        (250_001, "AMOUNT_EXCEEDS_LIMIT", "400.002.02"),
    ],
)
async def test_an_amount_that_cannot_be_is_refused(
    desk: Desk, amount: Any, daraja_v3: str, mpesakit: str | None
) -> None:
    error = await desk.refused_push(PHONE, amount)
    assert error.code == {"daraja-v3": daraja_v3, "mpesakit": mpesakit}[desk.sdk.name]
    refused = desk.shop.fake.entries("push")
    if error.code == "400.002.02":
        assert error.message == "Bad Request - Invalid Amount"
        assert [entry["outcome"] for entry in refused] == ["refused"]
    else:
        assert refused == []
    assert desk.shop.fake.pushes == []


@pytest.mark.parametrize("phone", ["254208374149", "0712", "x"])
async def test_a_number_that_cannot_be_is_refused(desk: Desk, phone: str) -> None:
    error = await desk.refused_push(phone)
    if desk.sdk.name == "daraja-v3":
        assert error.code == "INVALID_PHONE"
    elif phone.startswith("254"):
        assert error.message == "Bad Request - Invalid PhoneNumber"
    else:
        assert error.kind == "ValidationError"
    assert desk.shop.fake.pushes == []


async def test_an_address_that_is_no_https_is_refused_by_daraja(desk: Desk) -> None:
    for address in ("http://relay.test/x", "https://local/x", ""):
        error = await desk.refused_push(PHONE, callback=address)
        assert error.code == "400.002.02"
        assert "Bad Request - Invalid CallBackURL" in error.message


async def test_a_second_prompt_on_a_phone_is_refused(desk: Desk) -> None:
    desk.shop.fake.turn(default="phone", prompt_life_s=1_000_000)
    await desk.push(PHONE)
    error = await desk.refused_push(PHONE)
    assert error.code == "500.001.1001"
    assert "Unable to lock subscriber" in error.message


async def test_a_token_is_refused(desk: Desk) -> None:
    sdk, fake = desk.sdk, desk.shop.fake
    await sdk.open(fake.url, secret="wrong")
    error = await desk.refused_push(PHONE)
    assert error.code == {"daraja-v3": "400", "mpesakit": "400.008.01"}[sdk.name]
    assert "Invalid Authentication passed" in error.message
    assert fake.entries("token")[-1]["outcome"] == "refused"
    fake.turn(oauth_refusal="empty")
    error = await desk.refused_push(PHONE)
    assert error.code == {"daraja-v3": "400", "mpesakit": "AUTH_INVALID_CREDENTIALS"}[sdk.name]
    for fault in ("waf403", "waf503", "503", "429", "reset"):
        fake.turn(faults={"oauth": fault})
        await sdk.open(fake.url)
        assert await desk.refused_push(PHONE)
        assert fake.entries("token")[-1]["outcome"] == f"fault {fault}"
    assert fake.pushes == []
    fake.turn(faults={})
    await sdk.open(fake.url)
    await desk.push(PHONE)
    fake.expire_tokens()
    checkout = fake.pushes[-1].checkout_id
    assert (await desk.refused("query", checkout=checkout)).code == "400.003.01"
    assert (await desk.refused_push(PHONE)).code == "404.001.03"


# C2B


async def test_addresses_are_registered_by_version_1(process: Sdk) -> None:
    async with open_shop() as shop:
        await process.open(shop.fake.url)
        desk = Desk(process, shop)
        addresses = {"confirmation": CONFIRM, "validation": VALIDATE}
        if process.name == "daraja-v3":
            told = await process.do("register", **addresses)
            assert told == {
                "ConversationID": "", "OriginatorCoversationID": "", "ResponseDescription": "success",
            }  # fmt: skip
        else:
            # Version 1's success has no ResponseCode, and this SDK wants one: it takes a success for a failure.
            error = await desk.refused("register", **addresses)
            assert error.kind == "ValidationError"
            assert "ResponseCode" in error.message
        registered = shop.fake.merchants[0].registered
        assert registered is not None
        assert registered["ConfirmationURL"] == CONFIRM
        assert shop.fake.merchants[0].c2b_version == "v1"
        shop.fake.turn(one_shot=False)
        for form in ("code", "zeros", "number"):
            shop.fake.turn(c2b_answer=form)
            told = await process.do("register", **addresses)
            assert str(told["ResponseCode"]).strip("0") == ""
            assert told.get("taken", True) is True


@pytest.mark.parametrize("how", ["500", "200", "soap"])
async def test_a_second_registration_is_refused(desk: Desk, how: str) -> None:
    desk.shop.fake.turn(c2b_again=how)
    addresses = {"confirmation": CONFIRM, "validation": VALIDATE}
    if how == "200" and desk.sdk.name == "daraja-v3":
        told = await desk.sdk.do("register", **addresses)
        assert "already registered" in told["ResponseDescription"]
    else:
        error = await desk.refused("register", **addresses)
        if how == "500":
            assert error.code == "500.003.1001"
            assert "already registered" in error.message
    assert desk.shop.fake.entries("c2b")[-1]["outcome"] == "already registered"


async def test_a_registration_is_refused(desk: Desk) -> None:
    bad = {"confirmation": "https://relay.test/mpesa/c", "validation": VALIDATE}
    error = await desk.refused("register", **bad)
    assert error.code == "400.002.02"
    assert "Bad Request - Invalid ConfirmationURL" in error.message
    desk.shop.fake.turn(no_product=["c2b/v1"])
    error = await desk.refused("register", confirmation=CONFIRM, validation=VALIDATE)
    assert error.code == "401.003.01"


async def test_a_payment_is_simulated_and_confirmed(process: Sdk) -> None:
    async with open_shop(c2b_answer="code") as shop:
        await process.open(shop.fake.url)
        await process.do("register", confirmation=CONFIRM, validation=VALIDATE)
        for form, payer in {
            "auto": hashlib.sha256(PHONE.encode()).hexdigest(), "masked": "2547 ***** 149",
            "full": PHONE, "null": None, "absent": None,
        }.items():  # fmt: skip
            shop.fake.turn(msisdn={"174379": form})
            told = await process.do("simulate", phone=PHONE, amount=45, reference="T07")
            assert told["ResponseCode"] == "0"
            await shop.fake.settled()
            payment, body = shop.fake.payments[-1], shop.bodies("/g/c/tok")[-1]
            assert body["TransID"] == payment.receipt
            assert body.get("MSISDN") == payer
            if process.name != "mpesakit":
                continue  # daraja-v3 has no model of a confirmation
            if payer is None:
                with pytest.raises(SdkError, match="MSISDN"):
                    await process.do("confirmation", body=body)
                continue
            assert await process.do("confirmation", body=body) == {
                "receipt": payment.receipt, "amount": 45.0, "payer": payer, "reference": "T07",
                "number": "174379",
            }  # fmt: skip
        assert len(shop.fake.payments) == 5
        journal = [e for e in shop.fake.entries("callback") if e["kind"] == "c2b"]
        assert [e["receipt"] for e in journal] == [p.receipt for p in shop.fake.payments]


async def test_a_paid_push_is_announced_by_c2b_as_well(desk: Desk) -> None:
    await desk.push(phone_for("c2b_and_callback"))
    await desk.shop.fake.settled()
    (payment,) = desk.shop.fake.payments
    (twin,) = desk.shop.bodies("/g/c/tok")
    assert twin["TransID"] == payment.receipt
    (called,) = desk.shop.bodies(OWN)
    assert (await desk.sdk.do("callback", body=called))["receipt"] == payment.receipt
    if desk.sdk.name == "mpesakit":
        told = await desk.sdk.do("confirmation", body=twin)
        assert (told["receipt"], told["amount"]) == (payment.receipt, float(ASKED))


async def test_balance_and_payout(desk: Desk) -> None:
    result = "https://relay.test/g/r/tok"
    await desk.push(PHONE)
    await desk.shop.fake.settled()
    told = await desk.sdk.do("balance", result=result)
    assert told["ConversationID"] == desk.shop.fake.entries("balance")[0]["conversationId"]
    await desk.shop.fake.settled()
    assert desk.shop.bodies("/g/r/tok")[0]["Result"]["ResultCode"] == 0
    if desk.sdk.name == "daraja-v3":
        told = await desk.sdk.do("b2c", phone=PHONE, amount=100, result=result)
        assert told["conversation"] == desk.shop.fake.entries("b2c")[0]["conversationId"]
        await desk.shop.fake.settled()
        assert desk.shop.fake.payments[-1].kind == "B2C"


# https


@pytest.mark.parametrize("name", NAMES)
async def test_an_sdk_with_an_https_host_built_in(tmp_path: Path, name: str) -> None:
    need_tool("openssl")
    async with open_shop(time_scale=0.005, tls=tmp_path / "tls") as shop:
        assert shop.fake.url.startswith("https://")
        authority = shop.fake.authority
        stranger, trusting = Sdk(name), Sdk(name, authority)
        try:
            # Without the authority nothing is sent: an SDK checks the certificate.
            await stranger.open(shop.fake.url, built_in=True)
            tokens = len(shop.fake.entries("token"))
            if name == "daraja-v3":  # mpesakit waits and tries again three times
                error = await Desk(stranger, shop).refused_push(PHONE)
                assert "CERTIFICATE_VERIFY_FAILED" in error.message
            assert len(shop.fake.entries("token")) == tokens
            await trusting.open(shop.fake.url, built_in=True)
            desk = Desk(trusting, shop)
            for scenario, code in (("cancel", "1032"), ("ok_fast", "0")):
                made = await desk.push(phone_for(scenario))
                await shop.fake.settled()
                assert await desk.query(made["checkout"]) == (code, code)
            (payment,) = shop.fake.payments
            told = await trusting.do("callback", body=shop.bodies(OWN)[-1])
            assert told["receipt"] == payment.receipt
        finally:
            stranger.close()
            trusting.close()
