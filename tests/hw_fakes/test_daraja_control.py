"""The fake Daraja's control interface, its process, and the phones as a page in a real browser."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser

from tests.conftest import need_tool
from tests.hw_fakes.daraja_shop import PHONE, Shop, open_shop
from tests.support.browser import PHONE as SCREEN


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with open_shop() as opened:
        yield opened


# Control


async def test_the_control_interface_refuses_what_cannot_be(shop: Shop) -> None:
    for path, body, why in [
        ("/_fake/knobs", {"latency": 1}, "unknown knob latency"),
        ("/_fake/knobs", {"copies": "x"}, "copies cannot be"),
        ("/_fake/knobs", {"timeScale": 0}, "timeScale cannot be"),
        ("/_fake/knobs", {"hosts": {"a.test": "http://192.0.2.1"}}, "is not on this machine"),
        ("/_fake/knobs", {"default": "sunshine"}, "unknown scenario"),
        ("/_fake/knobs", {"answerS": [5, 3]}, "answerS cannot be"),
        ("/_fake/knobs", {"answerS": "ab"}, "answerS cannot be"),
        ("/_fake/knobs", {"hosts": ["a.test"]}, "hosts cannot be"),
        ("/_fake/knobs", {"dropKinds": "stk"}, "dropKinds cannot be"),
        ("/_fake/knobs", {"faults": {"push": "rain"}}, "faults are of"),
        ("/_fake/script", {"scenario": "sunshine"}, "unknown scenario"),
        ("/_fake/script", {"scenario": "ok", "colour": 1}, "a plan has no colour"),
        ("/_fake/answer", {"phone": PHONE, "do": "cancel"}, "no prompt"),
        ("/_fake/pay", {"phone": "0", "number": "174379", "amount": 1}, "phone is"),
    ]:  # fmt: skip
        status, told = await shop.post(path, body)
        assert status == 400, path
        assert why in told["error"]
    assert (await shop.post("/_fake/knobs", b"{"))[0] == 400
    status, state = await shop.post("/_fake/knobs", {"answerS": [3, 45], "copies": 2})
    assert (status, state["knobs"]["answerS"], state["knobs"]["copies"]) == (200, [3, 45], 2)
    body = {"scenario": "cancel", "phone": PHONE, "doneS": 1}
    assert (await shop.post("/_fake/script", body))[0] == 200
    await shop.push()
    await shop.fake.settled()
    _, journal = await shop.get("/_fake/journal")
    assert [e["what"] for e in journal] == [
        "token", "push", "prompt", "outcome", "callback", "callback",
    ]  # fmt: skip
    assert (await shop.get("/_fake/journal?since=5"))[1] == journal[5:]
    paid = await shop.post("/_fake/pay", {"phone": PHONE, "number": "5566778", "amount": 20})
    assert paid[1]["receipt"] == shop.fake.payments[0].receipt
    assert (await shop.post("/_fake/reset", {}))[0] == 200
    _, state = await shop.get("/_fake/state")
    assert (state["pushes"], state["payments"], state["knobs"]["copies"]) == ([], [], 1)


async def test_it_runs_alone() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hw_fakes.daraja", "--port", "0", "--scale", "0.1",
        "--relay", "relay.test=http://127.0.0.1:9", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
        url = line.split()[-1]
        async with aiohttp.ClientSession() as session, session.get(url + "/_fake/state") as answer:
            state = json.loads(await answer.read())
        assert state["knobs"]["hosts"] == {"relay.test": "http://127.0.0.1:9"}
        assert state["knobs"]["default"] == "phone"
        assert len(state["wallets"]) == 3
    finally:
        process.terminate()
        await process.communicate()


async def test_it_serves_https_by_an_authority_that_stays(tmp_path: Path) -> None:
    need_tool("openssl")
    made = []
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hw_fakes.daraja", "--port", "0", "--tls", str(tmp_path / "tls"),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            async with asyncio.timeout(30):
                url = (await process.stdout.readline()).decode().split()[-1]
                await process.stdout.readline()
                told = (await process.stdout.readline()).decode()
            authority = Path(told.removeprefix("trust this authority: ").strip())
            made.append(authority.read_bytes())
            context = ssl.create_default_context(cafile=str(authority))
            # Python 3.13's stricter rules are kept as well.
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            async with aiohttp.ClientSession() as session:
                async with session.get(url + "/_fake/state", ssl=context) as answer:
                    assert answer.status == 200
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await session.get(url + "/_fake/state")
            assert (authority.parent / "ca.key").stat().st_mode & 0o077 == 0
        finally:
            process.terminate()
            await process.communicate()
    assert url.startswith("https://127.0.0.1:")
    assert made[0] == made[1]


# The phone


async def test_a_person_answers_the_prompt(shop: Shop) -> None:
    fake = shop.fake
    # A prompt waits for as long as this test takes to answer it.
    fake.turn(default="phone", rule17_s=0, prompt_life_s=1_000_000)

    async def asked() -> None:
        assert (await shop.push())[0] == 200
        await fake.wait_for(lambda: fake.pushes[-1].prompted)

    for do, pin, code in [
        ("cancel", "", "1032"), ("pin", "0000", "2001"), ("pin", "1234", "0"), ("ignore", "", "1037"),
    ]:  # fmt: skip
        await asked()
        fake.answer(PHONE, do, pin)
        await fake.settled()
        assert fake.pushes[-1].code == code
    fake.turn(prompt_life_s=60)
    await asked()
    await fake.settled()  # nobody answers: the prompt dies
    assert fake.pushes[-1].code == "1037"
    fake.turn(prompt_life_s=1_000_000)
    fake.wallet(PHONE).balance = 449
    await asked()
    fake.answer(PHONE, "pin", "1234")
    await fake.settled()
    assert fake.pushes[-1].code == "1"
    for code in ("2001", "2001", "8006", "8006"):
        await asked()
        fake.answer(PHONE, "pin", "9999")
        await fake.settled()
        assert fake.pushes[-1].code == code
    assert [p.amount for p in fake.payments] == [450]


async def test_the_page_of_the_phones(browser: Browser) -> None:
    async with open_shop(default="phone", prompt_life_s=10_000) as shop:
        page = await browser.new_page(viewport=SCREEN)
        asked: list[str] = []
        problems: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        shop.fake.wallet(PHONE)
        await page.goto(shop.fake.url + "/_fake/phone")
        assert await page.locator(".prompt").count() == 0
        await shop.push(AccountReference="<b>T07</b>")
        await page.wait_for_selector("input[name=pin]")  # it came by itself
        assert "Pay Ksh450 to Daraja Sandbox? Account <b>T07</b>." in " ".join(
            (await page.inner_text(".prompt")).split()
        )
        assert await page.evaluate("document.documentElement.scrollWidth") <= SCREEN["width"]
        await page.fill("input[name=pin]", "1234")
        async with page.expect_navigation():
            await page.click("button.yes")
        await shop.fake.settled()
        (payment,) = shop.fake.payments
        await page.wait_for_selector(f"text={payment.receipt}")
        await page.fill("input[name=amount]", "75")
        await page.select_option("select[name=number]", "5566778")
        await page.click("text=Pay >> nth=-1")
        await page.wait_for_selector("[role=status]")
        assert shop.fake.payments[-1].amount == 75
        assert shop.fake.payments[-1].number == "5566778"
        assert all(url.startswith(shop.fake.url) for url in asked)
        assert problems == []
