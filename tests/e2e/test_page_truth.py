"""A page never shows as current what nobody has confirmed: not while the gateway is dead, silent, or replaced by
something else that answers at its address."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Browser, Page

from hw_fakes.vscu.unit import UnitControl
from tests.support.daemon import Daemon
from tests.support.relay import until
from tests.support.shop import a_sale, make_settings, open_shop

PHONE = {"width": 390, "height": 844}
GREY = "rgb(74, 85, 96)"
COLOUR = "getComputedStyle(document.querySelector('.banner')).backgroundColor"
ICON = "decodeURIComponent(document.getElementById('icon').href)"
LIVE = ("/", "/counter", "/payments")


async def holds(page: Page, claim: str) -> None:
    """Wait until an expression is true (`wait_for_function` needs what the pages' policy forbids)."""

    async def asked() -> bool:
        return bool(await page.evaluate(claim))

    await until(asked)


async def is_grey(page: Page) -> None:
    """Wait until the page says, in banner, title and icon, that its state is not confirmed."""
    await holds(page, f"document.title.startsWith('No answer since') && {COLOUR} === '{GREY}'")
    assert GREY in await page.evaluate(ICON)
    top = await page.inner_text(".banner")
    assert "No answer since" in top
    assert "may be wrong" in top


async def is_current(page: Page, title: str) -> None:
    await holds(page, f"document.title.includes('{title}') && !document.querySelector('.stale')")
    assert await page.evaluate(COLOUR) != GREY
    assert GREY not in await page.evaluate(ICON)


async def test_a_dead_gateway_turns_every_page_grey_until_it_is_back(
    shop_dir: Path, browser: Browser
) -> None:
    async with Daemon(shop_dir) as daemon, aiohttp.ClientSession() as session:
        reply = await daemon.till(session).sell("key", a_sale())
        others = ("/reports", "/unit", f"/invoices/{reply.json['invoiceId']}")
        context = await browser.new_context(viewport=PHONE)
        pages = {}
        for path in (*LIVE, *others):
            pages[path] = await context.new_page()
            await pages[path].goto(daemon.url + path)
        await is_current(pages["/"], "ONLINE · TEST TRADERS LTD")
        await daemon.kill()
        for page in pages.values():
            await is_grey(page)
        assert "ONLINE" in await pages["/"].inner_text(".banner .sentence")
        # It counts up.
        before = await pages["/"].inner_text(".banner span")
        await holds(
            pages["/"], f"document.querySelector('.banner span').textContent !== '{before}'"
        )
        await daemon.start()
        await is_current(pages["/"], "ONLINE · TEST TRADERS LTD")
        await is_current(pages["/counter"], "Counter")
        assert await pages["/"].inner_text("h1") == "ONLINE"
        # A page of one moment does not know what happened since.
        for path in others:
            await pages[path].wait_for_selector("a:text-is('Load this page again')")
            assert await pages[path].evaluate(COLOUR) == GREY
            await pages[path].click("a:text-is('Load this page again')")
            await is_current(pages[path], "")
        await context.close()


async def test_a_gateway_that_hangs_is_noticed(shop_dir: Path, browser: Browser) -> None:
    """Its connections stay open and it answers nothing: as a cable that was pulled, or a Wi-Fi that is gone."""
    async with Daemon(shop_dir) as daemon:
        page = await browser.new_page(viewport=PHONE)
        await page.goto(daemon.url + "/")
        await is_current(page, "ONLINE")
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            await is_grey(page)
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        await is_current(page, "ONLINE")
        await page.close()


@asynccontextmanager
async def impostor(answer: web.Response, port: int) -> AsyncIterator[None]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=answer.status, text=answer.text, content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield
    await runner.cleanup()


@pytest.mark.parametrize("status", [200, 404, 500, 503])
async def test_whoever_else_answers_there_confirms_nothing(
    unit: UnitControl, shop_dir: Path, browser: Browser, status: int
) -> None:
    """The login page of a network, another machine at this address, a proxy without the gateway behind it."""
    page = await browser.new_page(viewport=PHONE)
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        port = shop.gateway.port
        await page.goto(shop.gateway.url + "/")
        await is_current(page, "ONLINE")
    login = web.Response(
        status=status, text='<header class="banner ONLINE"><h1>ONLINE</h1></header>'
    )
    async with impostor(login, port):
        await is_grey(page)
    await page.close()


async def test_the_title_follows_the_state(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        page = await browser.new_page(viewport=PHONE)
        await page.goto(shop.gateway.url + "/")
        await is_current(page, "ONLINE · TEST TRADERS LTD")
        good = await page.evaluate(ICON)
        await unit.knobs(html404=True)
        await shop.gateway.watch.look()
        await holds(page, "document.title === 'UNIT DOWN · TEST TRADERS LTD'")
        assert await page.evaluate(ICON) != good
        await page.close()


async def test_a_page_without_a_stream_asks_in_silence(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    settings = make_settings(shop_dir, unit.url, api={"event_streams_per_address": 1})
    async with open_shop(settings) as shop:
        taken = await shop.session.get(shop.gateway.url + "/live")
        assert taken.status == 200
        page = await browser.new_page(viewport=PHONE)
        refused = asyncio.get_running_loop().create_future()

        def look(response: object) -> None:
            if response.url.endswith("/live") and not refused.done():  # type: ignore[attr-defined]
                refused.set_result(response.status)  # type: ignore[attr-defined]

        page.on("response", look)
        # Every text that the page ever shows in its banner and footer.
        await page.add_init_script(
            "window.seen = new Set(); setInterval(() => { for (const one of document.querySelectorAll("
            "'.banner, #link')) window.seen.add(one.innerText); }, 20)"
        )
        await page.goto(shop.gateway.url + "/")
        async with asyncio.timeout(30):
            assert await refused == 429
        reply = await shop.till().sell("key", a_sale())
        await page.wait_for_selector(f"a[href='/invoices/{reply.json['invoiceId']}']")
        seen = await page.evaluate("[...window.seen].join('|')")
        assert "answer" not in seen
        taken.close()
        await page.close()


async def test_without_javascript_the_page_loads_itself_again(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        context = await browser.new_context(java_script_enabled=False, viewport=PHONE)
        page = await context.new_page()
        await page.goto(shop.gateway.url + "/")
        reply = await shop.till().sell("key", a_sale())
        # Nothing but the page itself can bring this.
        await page.wait_for_selector(f"a[href='/invoices/{reply.json['invoiceId']}']")
        for path in LIVE:
            text = (await shop.till().request("GET", path)).body.decode()
            assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in text
        await context.close()
