"""A unit that does not sign: the till, the page and the status name the cause, and no key is lost."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FastClock
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop


async def status_of(shop: OpenShop) -> dict[str, Any]:
    reply = await shop.till().request("GET", "/v1/status")
    assert isinstance(reply.json, dict)
    return reply.json


async def until_state(shop: OpenShop, state: str) -> dict[str, Any]:
    """The status when its state is this; a look that began before a change may end after it."""
    async with asyncio.timeout(30):
        while (status := await status_of(shop))["state"] != state:
            await shop.gateway.watch.look()
    return status


async def page_of(shop: OpenShop, path: str = "/") -> str:
    return (await shop.till().request("GET", path)).body.decode()


# F1, F3: code, text, what the till is answered. On a plain sale without a buyer.
REFUSALS = [
    ("910", "Request parameter error [<salesDt>] must be a valid date", "CLOCK"),
    ("910", "Request parameter error [<cfmDt>]", "CLOCK"),
    ("910", "Request parameter error [<bhfId>] is not valid", "BRANCH"),
    ("910", "Request parameter error [<taxRtB>] must be 14", "RATES"),
    ("910", "Request parameter error [<regrNm>]", "CASHIER"),
    ("910", "Request parameter error [<receipt><trdeNm>]", "RECEIPT_TEXT"),
    (
        "834",
        "SalesType and ReceiptType must be NS-NR-TS-TR-CS-CR-PS check your inputs",
        "SALE_TYPE",
    ),
    ("913", "Code value error [<itemList><pkgUnitCd>]", "ITEM_DEFAULTS"),
    ("910", "Request parameter error [<trdInvcNo>]", None),
    ("913", "Code value error [<itemList><taxTyCd>]", None),
    ("910", "Item already exists [itemCd]", None),
    ("883", "Purchase already used", None),
]


async def test_a_refusal_of_what_the_gateway_fills_in_keeps_the_key_and_is_named(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till, other = shop.till(), shop.till("till-2")
        for at, (code, text, cause) in enumerate(REFUSALS):
            await unit.knobs(rejectNext=1, rejectCode=code, rejectMessage=text)
            sale = a_sale()
            reply = await till.sell(f"key-{at}", sale)
            status = await status_of(shop)
            assert reply.json["signed"] == "no", text
            assert reply.json["unitCode"] == code
            if cause is None:
                assert (reply.status, reply.json["code"]) == (422, "UNIT_REFUSED"), text
                assert status["state"] == "ONLINE"
            else:
                assert (reply.status, reply.json["code"]) == (503, "UNIT_NOT_READY"), text
                assert reply.json["cause"] == status["unit"]["cause"] == cause
                assert reply.json["retryable"]
                assert "Correct it" not in reply.json["detail"]
                # A claimed sale keeps the rates that it was calculated with; only then a new one helps.
                assert ("new sale" in reply.json["detail"]) == (cause == "RATES")
                assert status["state"] == "UNIT_REFUSES"
                assert not status["unit"]["healthy"]
                assert status["unit"]["reason"] in status["sentence"]
                assert "Selling" not in status["sentence"]
                assert 'class="banner UNIT_REFUSES"' in await page_of(shop)
                # A probe that goes well is no proof: only a sale is.
                await shop.gateway.watch.look()
                assert (await status_of(shop))["unit"]["cause"] == cause
                assert (await till.sell(f"key-{at}", sale)).status == 201
            # No refusal stops the other tills.
            assert (await other.sell(f"other-{at}", a_sale())).status == 201
            assert (await status_of(shop))["unit"]["cause"] is None
            assert (await status_of(shop))["state"] == "ONLINE"


async def test_after_midnight_a_unit_that_compares_in_utc_costs_no_key(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = FastClock(1, datetime(2026, 11, 23, 22, 0, tzinfo=UTC))  # 01:00 in Nairobi
    await unit.knobs(
        utcCompare=True, clockOffsetSeconds=round(clock.now().timestamp() - time.time())
    )
    async with open_shop(make_settings(shop_dir, unit.url), clock) as shop:
        sale = a_sale()
        reply = await shop.till().sell("night", sale)
        assert (reply.status, reply.json["code"], reply.json["cause"]) == (
            503, "UNIT_NOT_READY", "CLOCK",
        )  # fmt: skip
        assert "03:00" in reply.json["detail"]
        assert "03:00" in (await status_of(shop))["sentence"]
        await unit.knobs(utcCompare=False)
        assert (await shop.till().sell("night", sale)).status == 201
        assert (await status_of(shop))["state"] == "ONLINE"
        assert len(await unit.journal()) == 1


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "930",
            "The specified invoice could not be found. Please verify [orgInvcNo] and try again",
        ),
        ("910", "Request parameter error [<orgInvcNo>]"),
        ("931", "Original invoice number does not exist"),
        ("934", "Invoice already has a credit note"),
    ],
)
async def test_a_refused_credit_note_stops_nobody(
    unit: UnitControl, shop_dir: Path, code: str, text: str
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        sold = (await till.sell("sale", a_sale())).json["invoiceId"]
        await unit.knobs(rejectNext=1, rejectCode=code, rejectMessage=text)
        note = {"tillReceiptNo": "C1", "reason": "06"}
        path = f"/v1/invoices/{sold}/credit-notes"
        refused = await till.request("POST", path, key="note", json=note)
        assert (refused.status, refused.json["code"], refused.json["signed"]) == (
            422, "UNIT_REFUSED", "no",
        )  # fmt: skip
        assert (await shop.till("till-2").sell("next", a_sale())).status == 201
        taken = await till.request("POST", path, key="note-2", json=note)
        assert taken.status == 201, taken.json


NOT_READY = {
    "836": "SEQUENCE", "891": "KRA_ADDRESS", "892": "KEYS", "E11": "MEMORY_FULL", "11": "MEMORY_FULL",
}  # fmt: skip


async def test_each_code_of_a_unit_that_is_not_ready_is_named_everywhere(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        till = shop.till()
        for code, cause in NOT_READY.items():
            await unit.knobs(notReady=code)
            sale = a_sale()
            for _ in range(2):
                reply = await till.sell(f"key-{code}", sale)
                assert (reply.status, reply.json["code"], reply.json["signed"]) == (
                    503, "UNIT_NOT_READY", "no",
                )  # fmt: skip
                assert reply.json["cause"] == cause
                assert code in reply.json["detail"]
                assert "does not answer" not in reply.json["detail"]
            await shop.gateway.watch.look()
            status = await status_of(shop)
            assert (status["state"], status["unit"]["healthy"]) == ("UNIT_DOWN", False)
            assert status["unit"]["cause"] == cause
            assert code in status["sentence"]
            assert "Selling" not in status["sentence"]
            assert code in await page_of(shop)
            assert "pos_gateway_unit_healthy" in await page_of(shop, "/metrics")
            await unit.knobs(notReady="")
            assert (await till.sell(f"key-{code}", sale)).status == 201
            assert (await status_of(shop))["state"] == "ONLINE"


async def test_a_restarted_unit_is_no_longer_called_full(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await unit.knobs(memoryFull=True)
        assert (await shop.till().sell("key", a_sale())).json["cause"] == "MEMORY_FULL"
        assert not shop.gateway.watch.may_try
        await unit.knobs(memoryFull=False, html404=True)
        async with asyncio.timeout(30):
            while "404" not in str((await status_of(shop))["unit"]["reason"]):
                await shop.gateway.watch.look()
        await unit.knobs(html404=False)
        await until_state(shop, "ONLINE")


async def test_every_form_of_answer_gives_its_receipt(unit: UnitControl, shop_dir: Path) -> None:
    forms = ["bom", "blanks", "nul", "utf16", "latin1", "codeBlank", "codeNumber", "numbersText", "dashed",
             "slashed", "dayFirst", "isoOffset"]  # fmt: skip
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        for form in forms:
            await unit.knobs(answerForm=form)
            reply = await shop.till().sell(form, a_sale())
            assert reply.status == 201, (form, reply.json)
            entry = (await unit.journal())[-1]
            assert reply.json["rcptSign"].replace("-", "") == entry["rcptSign"]
            assert reply.json["rcptNo"] == entry["rcptNo"]


async def test_a_change_of_a_rate_is_shown_until_a_technician_has_seen_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    await unit.knobs(taxRates="B=14,E=null,C=-16")
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        shown = (await status_of(shop))["unit"]
        assert (shown["taxRates"]["B"], shown["taxRates"]["E"]) == ("14", "8")
        assert shown["taxRates"]["C"] == "0"
        [change] = shown["rateChanges"]
        assert (change["letter"], change["before"], change["after"]) == ("B", "16", "14")
        assert sorted(text.split()[1] for text in shown["rateProblems"]) == ["C", "E"]
        assert "from 16 % to <b>14 %</b>" in await page_of(shop)
        assert "letter E" in await page_of(shop)
        sold = await shop.till().sell("key", a_sale())
        assert sold.status == 201
        path = "/v1/unit/rates/seen"
        assert (await shop.till().request("POST", path)).status == 401
        wrong = await shop.till().request("POST", "/unit/rates", data={"code": "wrong"})
        assert wrong.status == 401
        assert "became" in await page_of(shop, "/unit")
        form = {"code": "code-of-wanjiru"}
        assert (await shop.till().request("POST", "/unit/rates", data=form)).status == 200
        assert "became" not in await page_of(shop, "/unit")
        assert (await status_of(shop))["unit"]["rateChanges"] == []
        assert (await shop.technician().request("POST", path)).json == {"changes": 0}


async def test_a_refusal_about_rates_reads_them_at_once(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await unit.knobs(
            taxRates="B=14", rejectNext=1, rejectCode="910",
            rejectMessage="Request parameter error [<taxRtB>] must be 14",
        )  # fmt: skip
        sale = a_sale()
        assert (await shop.till().sell("key", sale)).json["cause"] == "RATES"
        async with asyncio.timeout(30):
            while (await status_of(shop))["unit"]["taxRates"]["B"] != "14":
                await asyncio.sleep(0.02)
        # The sale keeps the rate that it was calculated with; a new one has the new rate.
        assert (await shop.till().sell("new", a_sale())).status == 201


@pytest.mark.parametrize("given", [None, "KRACU0300000077"])
async def test_a_unit_without_an_id_gets_the_one_of_the_settings(
    unit: UnitControl, shop_dir: Path, given: str | None
) -> None:
    await unit.knobs(noIds=True)
    ids = {} if given is None else {"sdc_id": given, "mrc_no": "WIS00000077"}
    settings = make_settings(shop_dir, unit.url)
    settings = settings.model_copy(update={"unit": settings.unit.model_copy(update=ids)})
    async with open_shop(settings) as shop:
        sold = await shop.till().sell("key", a_sale())
        assert sold.json["cuInvoiceNo"] == f"{given or 'UNKNOWN'}/1"
        assert (await status_of(shop))["unit"]["sdcId"] == given
        # What the unit gives itself comes first, from then on.
        await unit.knobs(noIds=False)
        assert (await shop.till().sell("own", a_sale())).json["cuInvoiceNo"] == "KRACU0300000001/2"
        assert (await status_of(shop))["unit"]["sdcId"] == "KRACU0300000001"
