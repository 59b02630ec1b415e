"""Every row of fake_scenarios.json does what it says: the push's answer, queries, callbacks, C2B, money."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from hw_fakes.daraja import SCENARIOS, FakeDaraja, phone_for
from hw_fakes.daraja.knobs import Knobs
from hw_fakes.daraja.plans import AMOUNT_BASE, PLANS, SUFFIX
from tests.hw_fakes.daraja_rows import ASKED, ROWS
from tests.hw_fakes.daraja_shop import DATA, Shop, open_shop

OWN = "/g/s/tok"
ALL_ROWS = frozenset(SCENARIOS)


# These have a test of their own below.
APART = {"spoofed_callback", "malformed_callback", "oauth_400_empty", "customer_pays_till_directly"}

# What has to be asked within seconds of the fake's world gets longer ones.
SLOWER = {"too_early_query", "rate_limited_query", "double_tap"}


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop(time_scale=0.005) as opened:
        await opened.register()
        yield opened


async def pushed(shop: Shop, scenario: str, **changes: Any) -> tuple[int, Any] | None:
    phone = phone_for(scenario)
    address = "https://relay.test" + OWN
    try:
        return await shop.push(Amount=str(ASKED), PhoneNumber=phone, CallBackURL=address, **changes)
    except aiohttp.ClientError:
        return None


def codes(shop: Shop, path: str = OWN) -> list[Any]:
    return [body["Body"]["stkCallback"]["ResultCode"] for body in shop.bodies(path)]


def test_every_row_is_here() -> None:
    rows = json.loads((DATA.parents[2] / "hw_fakes/daraja/fake_scenarios.json").read_text())[
        "scenarios"
    ]
    assert [row["id"] for row in rows] == list(SCENARIOS)
    assert len(rows) == 46
    assert set(ROWS) | APART == ALL_ROWS == ALL_ROWS & set(PLANS)
    for row in rows:  # the table here says of the money what the file says
        if row["id"] in ROWS and row["money_moves"] is not None:
            assert bool(ROWS[row["id"]].moves) == row["money_moves"], row["id"]
        if (
            row["id"] in ROWS
            and row["callback"] in ("never", "-")
            and row["id"] != "reversal_after_paid"
        ):
            assert ROWS[row["id"]].calls == (), row["id"]


@pytest.mark.parametrize("scenario", ROWS)
async def test_a_row_does_what_it_says(shop: Shop, scenario: str) -> None:
    row = ROWS[scenario]
    fake = shop.fake
    if scenario in SLOWER:
        fake.turn(time_scale=0.5, answer_s=(6, 6))
    answer = await pushed(shop, scenario)
    if scenario == "callback_before_push_response":
        assert len(codes(shop)) == 1
    if row.push is None:
        assert answer is None
    else:
        assert answer is not None
        status, body = answer
        assert (status, body.get("errorCode", body.get("ResponseCode"))) == row.push
    if scenario.startswith("token_"):
        await shop.log_in()
        answer = await pushed(shop, scenario)
        assert answer is not None
        assert answer[0] == 200
    if scenario == "double_tap":
        again = await pushed(shop, scenario)
        assert again is not None
        assert again[0] == 500
    if row.query:
        (push,) = fake.pushes
        while fake.world.busy:
            await shop.query(push.checkout_id)
            if scenario == "rate_limited_query":
                # At once again: refused, whatever the knobs say.
                assert (await shop.query(push.checkout_id))[0] == 429
                await fake.clock.sleep(12)
        await shop.query(push.checkout_id)
        heard = [entry["outcome"] for entry in fake.entries("query")]
        assert set(heard) <= set(row.query)
        assert heard[-1] == row.query[-1]
        ranks = [row.query.index(each) for each in heard if each != "429"]
        assert ranks == sorted(ranks)
        if row.query[0] == "too early":
            assert heard[0] == "too early"
    else:
        await fake.settled()
        assert fake.pushes == []
        assert fake.entries("prompt") == []
    assert codes(shop) == list(row.calls)
    assert [payment.amount for payment in fake.payments] == [row.moves] * bool(row.moves)
    twins = shop.bodies("/g/c/tok")
    assert [twin["TransID"] for twin in twins] == [p.receipt for p in fake.payments] * row.announced
    if row.moves and 0 in row.calls:
        success = next(b for b in shop.bodies(OWN) if b["Body"]["stkCallback"]["ResultCode"] == 0)
        items = success["Body"]["stkCallback"]["CallbackMetadata"]["Item"]
        told = {item["Name"]: item.get("Value") for item in items}
        assert told["Amount"] == row.moves
        assert told["MpesaReceiptNumber"] == fake.payments[0].receipt


async def test_a_forged_callback_comes_from_nobody_s_money(shop: Shop) -> None:
    await pushed(shop, "spoofed_callback")
    await shop.fake.settled()
    (push,) = shop.fake.pushes
    (other_token, first), (own_token, second) = shop.got
    assert other_token.startswith("/g/s/")
    assert other_token != own_token == OWN
    forged = [json.loads(each)["Body"]["stkCallback"] for each in (first, second)]
    assert [each["ResultCode"] for each in forged] == [0, 0]
    assert forged[0]["CheckoutRequestID"] == push.checkout_id != forged[1]["CheckoutRequestID"]
    assert shop.fake.payments == []
    assert (await shop.query(push.checkout_id))[1]["ResultCode"] == "4999"


async def test_a_malformed_callback_says_nothing(shop: Shop) -> None:
    await pushed(shop, "malformed_callback")
    await shop.fake.settled()
    (_, broken), (_, poor) = shop.got
    with pytest.raises(ValueError, match=r"delimiter|Expecting|Unterminated"):
        json.loads(broken)
    assert list(json.loads(poor)["Body"]["stkCallback"]) == ["CheckoutRequestID"]
    assert len(shop.fake.payments) == 1
    (push,) = shop.fake.pushes
    assert (await shop.query(push.checkout_id))[1]["ResultCode"] == "0"


async def test_oauth_may_refuse_with_nothing(shop: Shop) -> None:
    answer = await pushed(shop, "oauth_400_empty")
    assert answer is not None
    assert answer[0] == 404
    assert await shop.log_in() == (400, None)
    assert shop.fake.payments == []
    assert (await shop.log_in())[0] == 200


async def test_a_customer_pays_the_till_by_hand(shop: Shop) -> None:
    await shop.register("5566778", ConfirmationURL="https://relay.test/g/c/till")
    phone = phone_for("customer_pays_till_directly")
    await shop.push(
        BusinessShortCode="600984", PartyB="5566778", PhoneNumber=phone,
        TransactionType="CustomerBuyGoodsOnline", CallBackURL="https://relay.test" + OWN,
    )  # fmt: skip
    await shop.fake.settled()
    assert codes(shop) == [1032]
    (payment,) = shop.fake.payments
    assert (payment.kind, payment.phone, payment.amount) == ("C2B", phone, ASKED)
    assert [notice["TransID"] for notice in shop.bodies("/g/c/till")] == [payment.receipt]


async def test_a_row_is_chosen_by_script_then_number_then_amount(shop: Shop) -> None:
    fake: FakeDaraja = shop.fake
    fake.script("wrong_pin", phone=phone_for("cancel"))
    fake.script("expired", amount=7, times=2)
    plain = "254711000001"
    place = AMOUNT_BASE + 1 + SCENARIOS.index("funds")
    wanted = [
        (phone_for("cancel"), "8", "2001"), (phone_for("cancel"), "8", "1032"),
        (plain, "7", "1019"), (plain, "7", "1019"), (plain, "7", "0"), (plain, str(place), "1"),
    ]  # fmt: skip
    for number, (phone, amount, _) in enumerate(wanted):
        url = f"https://relay.test/g/s/{number}"
        assert (await shop.push(PhoneNumber=phone, Amount=amount, CallBackURL=url))[0] == 200
        await fake.settled()
    assert [push.code for push in fake.pushes] == [code for _, _, code in wanted]


def test_the_page_of_the_fakes_lists_every_number_and_every_knob() -> None:
    page = (DATA.parents[2] / "hw_fakes/README.md").read_text()
    for suffix, name in SUFFIX.items():
        assert f"| {suffix} | `{name}` |" in page
    for name in [*Knobs().told(), *PLANS]:
        assert f"`{name}`" in page, name
