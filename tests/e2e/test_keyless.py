"""Tills that send no key: one sale a receipt number and body, until the cashier says it is another."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.shop import a_sale, make_settings, open_shop


async def test_a_likely_repeat_is_asked_about(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till = shop.till()
        sale = a_sale()
        first = await till.sell(None, sale)
        again = await till.sell(None, sale)
        assert first.status == 201
        assert (again.status, again.json["code"]) == (409, "LIKELY_REPEAT")
        assert "looks like a repeat of" in again.json["detail"]
        assert "297.00" in again.json["detail"]
        assert again.json["invoiceId"] == first.json["invoiceId"]
        # What the till offers the cashier: a copy, or the word that this is a new sale.
        confirm = {"Confirm-New-Sale": again.json["confirmWith"]["value"]}
        confirmed = await till.request("POST", "/v1/invoices", json=sale, headers=confirm)
        repeated = await till.request("POST", "/v1/invoices", json=sale, headers=confirm)
        assert confirmed.status == 201
        assert confirmed.json["invcNo"] == 2
        assert repeated.body == confirmed.body
        # Another till, another receipt number, another basket: all other sales.
        assert (await shop.till("till-2").sell(None, sale)).status == 201
        assert (await till.sell(None, {**sale, "tillReceiptNo": "other"})).status == 201
    assert len(await unit.journal()) == 4


async def test_keyless_posts_of_one_sale_at_once_are_one_receipt(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        sale = a_sale()
        replies = await asyncio.gather(*(shop.till().sell(None, sale) for _ in range(50)))
        signed = [reply for reply in replies if reply.status == 201]
        assert signed
        assert {reply.body for reply in signed} == {signed[0].body}
        assert {reply.json["code"] for reply in replies if reply.status != 201} <= {"LIKELY_REPEAT"}
    assert len(await unit.journal()) == 1


async def test_a_sale_that_was_not_signed_is_no_repeat(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        await unit.knobs(html404=True)
        sale = a_sale()
        assert (await shop.till().sell(None, sale)).json["signed"] == "no"
        await unit.knobs(html404=False)
        assert (await shop.till().sell(None, sale)).status == 201
    assert len(await unit.journal()) == 1


async def test_a_wrong_clock_makes_no_sale_look_old(unit: UnitControl, shop_dir: Path) -> None:
    """A till retries while the clock is wrong, and again when it is right: still the same sale."""
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    async with open_shop(make_settings(shop_dir, unit.url), clock) as shop:
        till, sale = shop.till(), a_sale()
        assert (await till.sell(None, sale)).status == 201
        for days in (-400, 400):
            clock.step_wall(days=days)
            # Not "not signed": it is.
            assert (await till.sell(None, sale)).json["code"] == "LIKELY_REPEAT"
            assert (await till.sell(None, a_sale())).json["code"] == "CLOCK_FAULT"
            clock.step_wall(days=-days)
            assert (await till.sell(None, sale)).json["code"] == "LIKELY_REPEAT"
    assert len(await unit.journal()) == 1


async def test_a_confirmation_must_name_an_invoice(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        till, sale = shop.till(), a_sale()
        signed = await till.sell(None, sale)
        other = await till.sell(None, a_sale())
        for name in ("yes", "0" * 26, other.json["invoiceId"]):
            headers = {"Confirm-New-Sale": name}
            reply = await till.request("POST", "/v1/invoices", json=sale, headers=headers)
            assert (reply.status, reply.json["code"]) == (400, "IDEMPOTENCY_KEY_INVALID")
        headers = {"Confirm-New-Sale": signed.json["invoiceId"]}
        stranger = shop.till("till-2")
        reply = await stranger.request("POST", "/v1/invoices", json=sale, headers=headers)
        assert (reply.status, reply.json["code"]) == (400, "IDEMPOTENCY_KEY_INVALID")
    assert len(await unit.journal()) == 2


async def test_a_repeat_is_known_when_it_could_not_be_sold_any_more(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The printer that the till names is gone from the settings: what was signed stays signed."""
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    sale = a_sale(printer="bar")
    ports = {"bar": {"port": str(shop_dir / "not-there")}}
    async with open_shop(make_settings(shop_dir, unit.url, printers=ports), clock) as shop:
        first = await shop.till().sell(None, sale)
        confirm = {"Confirm-New-Sale": first.json["invoiceId"]}
        second = await shop.till().request("POST", "/v1/invoices", json=sale, headers=confirm)
        assert (first.status, second.status) == (201, 201)
        await unit.knobs(html404=True)
        unsold = await shop.till().sell(None, a_sale(printer="bar", tillReceiptNo="unsold"))
        assert unsold.json["signed"] == "no"
        await unit.knobs(html404=False)
    async with open_shop(make_settings(shop_dir, unit.url), clock) as shop:
        again = await shop.till().sell(None, sale)
        assert (again.status, again.json["code"]) == (409, "LIKELY_REPEAT")
        assert again.json["invoiceId"] == first.json["invoiceId"]
        replay = await shop.till().request("POST", "/v1/invoices", json=sale, headers=confirm)
        assert (replay.status, replay.body) == (201, second.body)
        # Nothing was signed of these: they hear what is wrong with them.
        for other in (a_sale(printer="bar"), a_sale(printer="bar", tillReceiptNo="unsold")):
            refused = await shop.till().sell(None, other)
            assert (refused.status, refused.json["code"]) == (422, "INVOICE_INVALID")
        stranger = await shop.till("till-2").sell(None, sale)
        assert stranger.json["errors"][0]["code"] == "PRINTER_UNKNOWN"
        # A day later the same receipt number may be another sale.
        clock.pass_time(hours=25)
        assert (await shop.till().sell(None, sale)).json["code"] == "INVOICE_INVALID"
    assert len(await unit.journal()) == 2


async def test_a_shop_may_insist_on_keys(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url, api={"keyless_window_s": 0})
    async with open_shop(settings) as shop:
        reply = await shop.till().sell(None, a_sale())
    assert (reply.status, reply.json["code"]) == (400, "IDEMPOTENCY_KEY_MISSING")
