"""The page of one printer: one answer for many slips, the test print, and what a person corrects."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Browser

from gateway.store import events
from hw_fakes.printer.paper import Picture
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.support.browser import PHONE
from tests.support.printers import (
    PRINTED,
    UNCONFIRMED,
    WITHIN_S,
    one,
    patience,
    settings_for,
    so,
    until,
)
from tests.support.shop import TECHNICIANS, a_sale, open_shop

CODE = TECHNICIANS["wanjiru"]


async def test_many_slips_are_answered_at_once_and_a_test_print_shows_both_qrs(
    unit: UnitControl, shop_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter(native_qr=False) as printer:
        printer.confirms, printer.model = False, None
        ports = one(printer, confirm="status")
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            for key in ("one", "two", "three"):
                assert (await shop.till().sell(key, a_sale())).status == 201
            await until(shop, UNCONFIRMED, UNCONFIRMED, UNCONFIRMED)
            page = await browser.new_page(viewport=PHONE)
            await page.goto(shop.gateway.url + "/counter")
            await page.click("text=answer for all at once")
            assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
            await page.fill("form:has([name=last]) input[name=code]", "somebody")
            await page.click("button[value=all-came-out]")
            assert "not known here" in await page.inner_text("[role=alert]")
            await page.fill("form:has([name=last]) input[name=code]", CODE)
            await page.click("button[value=all-came-out]")
            await until(shop, PRINTED, PRINTED, PRINTED)
            told = await shop.gateway.db.read(lambda conn: events.of_kind(conn, "print.decided"))
            assert [event.data["who"] for event in told] == ["wanjiru"] * 3
            await page.fill("input[name=code]", CODE)
            await page.click("button[value=test]")
            slips = await printer.wait_for_slips(4, WITHIN_S)
            assert "TEST PRINT" in slips[-1].text().replace("  ", " ")
            assert any(isinstance(item, Picture) for item in slips[-1].items)
            await page.fill("input[name=code]", CODE)
            await page.click("button[value=qr-native]")
            worker = shop.gateway.status.workers[0]
            await so(lambda: worker.printer.corrected.qr == "native")
            await page.fill("input[name=code]", CODE)
            await page.click("button[value=another]")
            await so(lambda: worker.printer.corrected.qr == "auto")
            await page.close()


async def test_one_answer_by_the_interface_settles_every_slip_up_to_a_number(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience(monkeypatch, confirm_s=1.0)
    async with FakePrinter() as printer:
        printer.confirms = False
        ports = one(printer, confirm="status")
        async with open_shop(settings_for(shop_dir, unit, ports)) as shop:
            till = shop.till()
            for key in ("one", "two"):
                assert (await till.sell(key, a_sale())).status == 201
            await until(shop, UNCONFIRMED, UNCONFIRMED)
            path = "/v1/printers/counter/answer"
            for wrong, pointer in (
                ({"last": 1}, "/cameOut"),
                ({"cameOut": True}, "/last"),
                ({"cameOut": True, "last": "1"}, "/last"),
                ({"cameOut": True, "last": True}, "/last"),
                ({"cameOut": True, "last": 2**63}, "/last"),
                ([], "/cameOut"),
            ):
                refused = await till.request("POST", path, json=wrong)
                assert refused.status == 400
                assert pointer in {error["pointer"] for error in refused.json["errors"]}
            first = await till.request("POST", path, json={"cameOut": True, "last": 1})
            assert (first.status, first.json) == (200, {"answered": 1})
            printer.confirms = True
            rest = await till.request("POST", path, json={"cameOut": False, "last": 99})
            assert rest.json == {"answered": 1}
            await until(shop, PRINTED, ("ORIGINAL", "DROPPED"), ("COPY", "PRINTED"))
            missing = "/v1/printers/none/answer"
            assert (await till.request("POST", missing, json={})).status == 404
