"""The status page in a real browser: readable on a phone, live, and nothing from elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path

from playwright.async_api import Browser

from hw_fakes.vscu.unit import UnitControl
from tests.support.browser import PHONE
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop


async def test_the_page_is_live_and_fits_a_phone(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        page = await browser.new_page(viewport=PHONE)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        problems: list[str] = []
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        await page.goto(shop.gateway.url + "/")
        # KRA may be heard only after the page was opened.
        await page.wait_for_selector("h1:text-is('ONLINE')")
        reply = await shop.till().sell("key", a_sale())
        await page.wait_for_selector(f"a[href='/invoices/{reply.json['invoiceId']}']")
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        await page.click(f"a[href='/invoices/{reply.json['invoiceId']}']")
        await page.wait_for_selector("h1:text-is('SIGNED')")
        assert reply.json["rcptSign"] in await page.inner_text("main")
        assert all(url.startswith(shop.gateway.url) for url in asked)
        assert problems == []
        await page.close()


async def test_the_page_works_without_javascript(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await shop.till().sell("key", a_sale())
        context = await browser.new_context(java_script_enabled=False)
        page = await context.new_page()
        await page.goto(shop.gateway.url + "/")
        assert "1/1 NS" in await page.inner_text("main")
        await context.close()


async def test_a_unit_that_does_not_sign_is_said_first(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        for broken, state in ((True, "UNIT_DOWN"), (False, "ONLINE")):
            await unit.knobs(html404=broken)
            status, page = {"state": ""}, ""
            # A look that began before the change may still come to its end after it, also between the two.
            async with asyncio.timeout(20):
                while status["state"] != state or f'class="banner {state}"' not in page:
                    await shop.gateway.watch.look()
                    status = (await shop.till().request("GET", "/v1/status")).json
                    page = (await shop.till().request("GET", "/")).body.decode()
            assert status["sentence"].startswith("Nothing can be sold") == broken


async def test_what_a_till_sent_cannot_become_a_script(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        name = "<script>alert(1)</script>"
        reply = await shop.till().sell("key", a_sale(tillReceiptNo=name))
        story = await shop.till().request("GET", f"/invoices/{reply.json['invoiceId']}")
        assert name.encode() not in story.body
        assert b"&lt;script&gt;" in story.body
        assert "default-src 'none'" in story.headers["Content-Security-Policy"]


async def screenshot(shop: OpenShop, browser: Browser, path: Path) -> None:
    page = await browser.new_page(viewport=PHONE, device_scale_factor=2)
    await page.goto(shop.gateway.url + "/")
    await page.screenshot(path=str(path), full_page=True)
