"""The counter's and the reports' pages in a real browser, by the people who use them on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page

from gateway.store import captures, events
from gateway.store.captures import NewSlip
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.support.browser import PHONE
from tests.support.printers import patience, states, until
from tests.support.shop import (
    TECHNICIANS,
    TOKENS,
    a_sale,
    in_the_morning,
    make_settings,
    open_shop,
)

CODE = TECHNICIANS["wanjiru"]


def settings_for(shop_dir: Path, unit: UnitControl, printer: FakePrinter, **more: Any) -> Any:
    return make_settings(
        shop_dir,
        unit.url,
        tills=[{"id": till, "printer": "counter"} for till in TOKENS],
        printers={"counter": {"port": printer.device_path, "baud": 115200, **more}},
        reports={"printer": "counter"},
        scales={"butchery": {"port": str(shop_dir / "not plugged in")}},
    )


async def fits(page: Page) -> None:
    assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


async def test_a_cashier_is_asked_whether_a_slip_came_out_and_answers(
    unit: UnitControl, shop_dir: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakePrinter() as printer:
        # A printer that is set to confirm and does not: every original ends in doubt.
        printer.confirms = False
        patience(monkeypatch, confirm_s=1.0)
        async with open_shop(settings_for(shop_dir, unit, printer, confirm="status")) as shop:
            page = await browser.new_page(viewport=PHONE)
            problems: list[str] = []
            page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            await page.goto(shop.gateway.url + "/counter")
            assert "Nothing waits" in await page.inner_text("main")
            # It is live: the question appears by itself, on both pages.
            await shop.till().sell("one", a_sale())
            await page.wait_for_selector("text=Did it come out?")
            shown = await page.inner_text("main")
            for words in ("s on the wire", printer.device_path, "butchery scale does not work"):
                assert words in shown
            await fits(page)
            assert problems == []
            await page.goto(shop.gateway.url + "/")
            await page.click("text=Look at the counter")
            await page.click("text=Receipt 1/1 NS")
            await fits(page)
            await page.fill("input[name=code]", "somebody")
            await page.click("button[value=lost]")
            assert "not known here" in await page.inner_text("[role=alert]")
            assert await states(shop) == [("ORIGINAL", "UNCONFIRMED")]
            await page.fill("input[name=code]", CODE)
            await page.click("button[value=lost]")
            await page.wait_for_selector("text=Copy no. 1 of 1/1 NS")
            await until(shop, ("ORIGINAL", "DROPPED"), ("COPY", "UNCONFIRMED"))
            # The copy did come out, says the cashier with the till's own code.
            await page.goto(shop.gateway.url + "/slips/2")
            await page.fill("input[name=code]", TOKENS["till-2"])
            await page.click("button[value=came-out]")
            assert await page.inner_text("h1") == "PRINTED"
            told = await shop.gateway.db.read(lambda c: events.of_kind(c, "print.decided"))
            assert [(e.data["said"], e.data["who"]) for e in told] == [
                ("lost", "wanjiru"),
                ("came-out", "till-2"),
            ]
            # An old tab: the question was answered meanwhile.
            late = await shop.till().request(
                "POST", "/slips/1", data={"said": "lost", "code": CODE}
            )
            assert late.status == 409
            assert b"not waiting for that any more" in late.body
            assert all(url.startswith(shop.gateway.url) for url in asked)
            await page.close()
        texts = [slip.text() for slip in await printer.wait_for_slips(2, 30)]
    assert len(texts) == 2
    assert "COPY" not in texts[0]
    assert "COPY" in texts[1]
    assert "1/1 CS" in texts[1]


async def test_held_slips_come_out_at_a_tap_or_never_without_javascript(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with FakePrinter() as printer:
        settings = settings_for(shop_dir, unit, printer)
        settings = settings.model_copy(
            update={"printing": settings.printing.model_copy(update={"stale_minutes": 0.0001})}
        )
        printer.open_cover()
        async with open_shop(settings) as shop:
            for number in (1, 2):
                await shop.till().sell(f"key-{number}", a_sale())
            await until(shop, ("ORIGINAL", "BLOCKED"), ("ORIGINAL", "QUEUED"))
            context = await browser.new_context(java_script_enabled=False, viewport=PHONE)
            page = await context.new_page()
            await page.goto(shop.gateway.url + "/counter")
            assert "cover" in await page.inner_text("main")
            printer.close_cover()
            await until(shop, ("ORIGINAL", "HELD"), ("ORIGINAL", "HELD"))
            # A page of its own: the first one loads itself again when it likes.
            page = await context.new_page()
            await page.goto(shop.gateway.url + "/counter")
            await fits(page)
            await page.click("text=Receipt 1/1 NS")
            await page.fill("input[name=code]", CODE)
            await page.click("button[value=drop]")
            assert await page.inner_text("h1") == "DROPPED"
            await page.goto(shop.gateway.url + "/slips/2")
            await page.fill("input[name=code]", CODE)
            await page.click("button[value=release]")
            await until(shop, ("ORIGINAL", "DROPPED"), ("ORIGINAL", "PRINTED"))
            await context.close()
        (slip,) = printer.paper.slips
    assert "2/2 NS" in slip.text()


async def test_the_day_is_looked_at_and_closed_on_a_phone_without_javascript(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    clock = await in_the_morning(unit)
    async with FakePrinter() as printer:
        async with open_shop(settings_for(shop_dir, unit, printer), clock) as shop:
            await shop.till().sell("one", a_sale())
            context = await browser.new_context(java_script_enabled=False, viewport=PHONE)
            page = await context.new_page()
            await page.goto(shop.gateway.url + "/reports")
            # The takings are for who works here.
            assert "297" not in await page.content()
            await fits(page)
            look, close, deposit = (page.locator("form").nth(n) for n in range(3))
            await deposit.locator("[name=amount]").fill("5000.00")
            await deposit.locator("[name=code]").fill(TOKENS["till-1"])
            await deposit.locator("button").click()
            assert "It is noted." in await page.inner_text("main")
            await look.locator("[name=code]").fill(CODE)
            await look.locator("button[value=x]").click()
            shown = await page.inner_text("main")
            for words in ("X report 1", "Sales (NS): 1", "297.00", "5,000.00", "200.00"):
                assert words in shown
            await fits(page)
            await look.locator("[name=code]").fill(CODE)
            await look.locator("[name=printer]").select_option("counter")
            await look.locator("button[value=plu]").click()
            assert "Bottled soda 500ml (KE2NTXU0000001) 2 x 116.00 B" in await page.inner_text(
                "main"
            )
            await fits(page)
            await close.locator("[name=code]").fill("somebody")
            await close.locator("button").click()
            assert "not known here" in await page.inner_text("[role=alert]")
            await close.locator("[name=code]").fill(CODE)
            await close.locator("button").click()
            assert "The day is closed: Z report 1" in await page.inner_text("main")
            await fits(page)
            await close.locator("[name=code]").fill(CODE)
            await close.locator("button").click()
            assert "closed already, as Z report 1" in await page.inner_text("[role=alert]")
            await look.locator("[name=code]").fill(CODE)
            await look.locator("button[value=z]").click()
            assert "Z report 1" in await page.inner_text("main")
            closed = await shop.gateway.db.read(lambda c: events.of_kind(c, "day.closed"))
            assert [event.data["who"] for event in closed] == ["wanjiru"]
            printed = await shop.gateway.db.read(lambda c: events.of_kind(c, "print.report"))
            assert [(e.data["report"], e.data["who"]) for e in printed] == [("PLU", "wanjiru")]
            await context.close()
            slips = await printer.wait_for_slips(3, 30)
    assert ["Z DAILY REPORT" in slip.text() for slip in slips].count(True) == 1


async def test_what_stands_on_a_captured_slip_is_shown_with_a_code_only(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        text = "MAMA MBOGA\n<script>alert(1)</script>\nTOTAL 350.00"
        await shop.gateway.db.write(
            lambda conn: captures.add(
                conn,
                NewSlip(
                    device="old till",
                    till_id="till-1",
                    raw=b"x",
                    text=text,
                    state="UNREAD",
                    reason="the total is not the sum of the items",
                    at=1_800_000_000_000_000,
                ),
            )
        )
        page = await browser.new_page(viewport=PHONE)
        await page.goto(shop.gateway.url + "/counter")
        await page.click("text=Look at it")
        assert "MBOGA" not in await page.content()
        await page.fill("input[name=code]", CODE)
        await page.click("button")
        assert "<script>alert(1)</script>" in await page.inner_text("pre")
        await fits(page)
        await page.fill("input[name=reason]", "a test print")
        await page.fill("input[name=code]", CODE)
        await page.click("button")
        assert "No slip waits" in await page.inner_text("main")
        settled = await shop.gateway.db.read(lambda c: events.of_kind(c, "capture.settled"))
        assert [e.data["reason"] for e in settled] == ["wanjiru: a test print"]
        await page.close()


FORMS = [
    ("/slips/1", {"said": "release"}),
    ("/reports", {"do": "close"}),
    ("/reports", {"do": "x"}),
    ("/reports", {"do": "deposit", "amount": "1.00"}),
    ("/captured", {}),
    ("/captured/learn", {"slips": "1"}),
    ("/captured/1", {"reason": "because I say so"}),
]


async def test_no_form_does_anything_without_a_code(unit: UnitControl, shop_dir: Path) -> None:
    """There is no session, so another page cannot make a browser send one of these."""
    async with FakePrinter() as printer:
        printer.open_cover()
        async with open_shop(settings_for(shop_dir, unit, printer)) as shop:
            await shop.till().sell("one", a_sale())
            before = await shop.gateway.db.read(events.newest_id)
            for path, fields in FORMS:
                reply = await shop.till().request("POST", path, data=fields)
                assert (path, reply.status) == (path, 401)
                assert b"297" not in reply.body or path == "/slips/1"
            kinds = {
                event.kind
                for event in await shop.gateway.db.read(lambda c: events.after(c, before, None, 99))
            }
            assert kinds <= {"print.blocked"}
            odd = [
                ("/slips/1", {"said": "eat", "code": CODE}, 400),
                ("/slips/1", {"said": "came-out", "code": CODE}, 409),
                ("/slips/99", {"said": "drop", "code": CODE}, 404),
                ("/slips/x", {"said": "drop", "code": CODE}, 404),
                ("/reports", {"do": "z", "number": "7", "code": CODE}, 404),
                ("/reports", {"do": "plu", "day": "yesterday", "code": CODE}, 400),
                ("/reports", {"do": "plu", "day": "9999-12-31", "code": CODE}, 400),
                ("/reports", {"do": "deposit", "amount": "-5", "code": CODE}, 422),
                ("/reports", {"code": CODE}, 400),
                ("/captured/1", {"reason": "because", "code": CODE}, 404),
            ]
            for path, fields, status in odd:
                reply = await shop.till().request("POST", path, data=fields)
                assert (path, fields, reply.status) == (path, fields, status)
