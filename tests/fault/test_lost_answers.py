"""The wire between gateway and unit at its worst: never a second receipt, never a lost sale."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from gateway import app
from gateway.store import events
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import ExternalUnit, UnitControl
from tests.support.clock import FakeClock
from tests.support.printers import so
from tests.support.shop import OpenShop, a_sale, make_settings, open_shop

# A till hears the end, however slow the machine is: the unit hangs up, and nothing here waits for a time-out.
PATIENT = {"wait_s": 60}


async def kinds(shop: OpenShop, invoice_id: str) -> list[str]:
    told = await shop.gateway.db.read(lambda conn: events.story(conn, invoice_id))
    return [event.kind for event in told]


async def test_a_lost_answer_is_never_signed_again_and_blocks_until_it_is_settled(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        till = shop.till()
        await unit.knobs(loseAnswers=1)
        sale = a_sale()
        first = await till.sell("lost", sale)
        again = await till.sell("lost", sale)
        other = await shop.till("till-2").sell("other", a_sale())
    assert (first.status, first.json["code"]) == (503, "OUTCOME_UNKNOWN")
    assert (again.status, again.json["code"]) == (503, "OUTCOME_UNKNOWN")
    assert again.json["signed"] == "unknown"
    assert (other.status, other.json["signed"]) == (503, "no")
    assert len(await unit.journal()) == 1
    # A restart changes nothing about it.
    async with open_shop(settings) as shop:
        later = await shop.till().sell("lost", sale)
        assert (later.status, later.json["code"]) == (503, "OUTCOME_UNKNOWN")
        told = await kinds(shop, first.json["invoiceId"])
        assert "invoice.in_doubt" in told
        assert "doubt.examined" in told
    assert len(await unit.journal()) == 1


async def test_nobody_says_that_a_sale_in_doubt_was_not_signed(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A credit note and a copy of it wait until it is known whether there is a receipt."""
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        till = shop.till()
        await unit.knobs(loseAnswers=1)
        first = await till.sell("lost", a_sale())
        assert first.json["code"] == "OUTCOME_UNKNOWN"
        path = f"/v1/invoices/{first.json['invoiceId']}"
        note = {"tillReceiptNo": "CN-1", "reason": "06"}
        told = await till.request("POST", f"{path}/credit-notes", key="note", json=note)
        copy = await till.request("POST", f"{path}/copies")
    for reply in (told, copy):
        assert (reply.status, reply.json["code"]) == (503, "OUTCOME_UNKNOWN")
        assert reply.json["signed"] == "unknown"
        assert "not known yet" in reply.json["detail"]
    assert len(await unit.journal()) == 1


async def test_a_keyless_sale_in_doubt_stays_one_sale_however_long_that_takes(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A day later its till asks again: not another sale, and not "not signed"."""
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings, clock) as shop:
        await unit.knobs(loseAnswers=1)
        sale = a_sale()
        selling = asyncio.ensure_future(shop.till().sell(None, sale))
        await so(lambda: shop.gateway.signer.in_doubt)
        while not selling.done():
            await clock.advance(seconds=1)
        first = await selling
        assert first.json["signed"] == "unknown"
        clock.pass_time(hours=25)
        again = await shop.till().sell(None, sale)
        assert (again.status, again.json["signed"]) == (503, "unknown")
        assert again.json["invoiceId"] == first.json["invoiceId"]
    assert len(await unit.journal()) == 1


@pytest.mark.parametrize("code", ["883", "934"])
async def test_a_refusal_that_the_first_sending_may_have_caused_proves_nothing(
    unit: UnitControl, shop_dir: Path, code: str
) -> None:
    """Signed, not heard, sent again: "the purchase code is used", "it was credited already"."""
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(loseAnswers=1)
        # The second sending is held, as while a person decides, until the refusal waits for it.
        async with shop.gateway.signer._resolver.looking:
            selling = asyncio.ensure_future(shop.till().sell("key", a_sale()))
            await so(lambda: shop.gateway.signer.in_doubt)
            await unit.knobs(rejectNext=1, rejectCode=code, rejectMessage="no")
        reply = await selling
        assert reply.json["code"] == "OUTCOME_UNKNOWN"
        assert (await unit.state())["knobs"]["rejectNext"] == 0
        other = await shop.till("till-2").sell("other", a_sale())
        assert (other.status, other.json["signed"]) == (503, "no")
        status = await shop.till().request("GET", "/v1/status")
        assert "by a person" in status.json["signer"]["blocked"]
    assert len(await unit.journal()) == 1


async def test_the_answer_is_swallowed_six_times(unit: UnitControl, shop_dir: Path) -> None:
    """The field's most common defect: signed, not heard, sent again. `make bench` has the time."""
    settings = make_settings(shop_dir, unit.url, unit={"read_back": True}, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(readBack=True, swallowAnswers=6)
        sale = a_sale()
        first, second = await asyncio.gather(
            shop.till().sell("key", sale), shop.till().sell("key", sale)
        )
        while first.status != 201:
            assert first.json["signed"] == "unknown"
            first = await shop.till().sell("key", sale)
        while second.status != 201:
            second = await shop.till().sell("key", sale)
    assert first.body == second.body
    assert first.json["recovered"] is True
    (entry,) = await unit.journal()
    assert entry["rcptSign"] == first.json["rcptSign"]


@pytest.mark.parametrize("answer", ["899", "924", "994", "expected"])
async def test_no_way_of_saying_duplicate_signs_again(
    unit: UnitControl, shop_dir: Path, answer: str
) -> None:
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(loseAnswers=1, duplicateAnswer=answer)
        sale = a_sale()
        for _ in range(3):
            reply = await shop.till().sell("key", sale)
            assert reply.json["code"] == "OUTCOME_UNKNOWN"
    assert len(await unit.journal()) == 1


async def test_the_bytes_are_sent_again_once_and_no_more(unit: UnitControl, shop_dir: Path) -> None:
    """Not even a restart earns a second resend."""
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    sale = a_sale()
    await unit.knobs(swallowAnswers=4)
    for _ in range(3):
        async with open_shop(settings) as shop:
            reply = await shop.till().sell("key", sale)
            assert reply.json["code"] == "OUTCOME_UNKNOWN"
            status = await shop.till().request("GET", "/v1/status")
            assert "by a person" in status.json["signer"]["blocked"]
    assert (await unit.state())["knobs"]["swallowAnswers"] == 2


async def test_a_sale_the_unit_never_got_is_signed_by_the_one_resend(
    unit: UnitControl, shop_dir: Path
) -> None:
    """899 without a signature (a full disk): not taken for a duplicate, settled when the disk is
    free again, by the same bytes under the same number."""
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(malformedAnswers=0, html404=False)
        await unit.knobs(rejectNext=1, rejectCode="999", rejectMessage="unknown error")
        reply = await shop.till().sell("key", a_sale())
    assert reply.status == 201, reply.json
    assert reply.json["recovered"] is True
    (entry,) = await unit.journal()
    assert entry["rcptSign"] == reply.json["rcptSign"]
    assert entry["invcNo"] == 1


async def test_a_full_disk_at_the_unit_is_not_taken_for_a_signature(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(diskFull=True)
        reply = await shop.till().sell("key", a_sale())
    assert (reply.status, reply.json["code"]) == (503, "OUTCOME_UNKNOWN")
    assert await unit.journal() == []


async def test_a_unit_that_is_not_there_costs_nothing(shop_dir: Path) -> None:
    """Nothing listens: the sale is certainly not signed, the till hears it at once, and the same key
    signs it when the unit is back."""
    port = free_port()
    directory = shop_dir / "unit"
    directory.mkdir()
    sale = a_sale()
    async with ExternalUnit(directory, port) as unit:
        settings = make_settings(shop_dir, unit.url)
        async with open_shop(settings) as shop:
            assert (await shop.till().sell("warm", a_sale())).status == 201
            unit.kill()
            down = await shop.till().sell("key", sale)
            assert (down.status, down.json["code"]) == (503, "UNIT_UNAVAILABLE")
            assert down.json["signed"] == "no"
            assert down.headers["Retry-After"] == "5"
            await unit.restart()
            up = await shop.till().sell("key", sale)
            assert up.status == 201
            assert up.json["invcNo"] == 2
        assert [e["invcNo"] for e in await unit.journal()] == [1, 2]


async def test_a_unit_that_dies_after_its_commit(shop_dir: Path) -> None:
    directory = shop_dir / "unit"
    directory.mkdir()
    async with ExternalUnit(directory) as unit:
        settings = make_settings(shop_dir, unit.url, api=PATIENT)
        async with open_shop(settings) as shop:
            await unit.knobs(dieAfterCommit=True)
            reply = await shop.till().sell("key", a_sale())
            assert reply.json["code"] in ("OUTCOME_UNKNOWN", "STILL_SIGNING")
            await unit.restart()
            assert len(await unit.journal()) == 1


async def test_a_unit_that_dies_before_its_commit_signs_once_after_it(shop_dir: Path) -> None:
    directory = shop_dir / "unit"
    directory.mkdir()
    async with ExternalUnit(directory) as unit:
        settings = make_settings(shop_dir, unit.url, api=PATIENT)
        async with open_shop(settings) as shop:
            await unit.knobs(dieBeforeCommit=True)
            sale = a_sale()
            first = await shop.till().sell("key", sale)
            assert first.status in (202, 503)
            await unit.restart()
            while (again := await shop.till().sell("key", sale)).status != 201:
                assert again.status in (202, 503)
            assert again.json["recovered"] is True
            assert len(await unit.journal()) == 1


async def test_the_first_till_of_a_shop_is_not_told_suspended_because_kra_is_slow(
    unit: UnitControl, shop_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if KRA took four seconds, in less time.
    monkeypatch.setattr(app, "FIRST_CONTACT_S", 0.05)
    await unit.knobs(upstreamLatencyMs=300)
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        await unit.knobs(upstreamLatencyMs=0)
        assert (await shop.till().sell("key", a_sale())).status == 201


async def test_html_from_the_units_port_is_not_a_receipt(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url)
    async with open_shop(settings) as shop:
        await unit.knobs(html404=True)
        sale = a_sale()
        reply = await shop.till().sell("key", sale)
        assert (reply.status, reply.json["code"]) == (503, "UNIT_UNAVAILABLE")
        await unit.knobs(html404=False)
        assert (await shop.till().sell("key", sale)).status == 201
    assert len(await unit.journal()) == 1


async def test_a_truncated_answer_is_in_doubt(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(malformedAnswers=1)
        reply = await shop.till().sell("key", a_sale())
    assert reply.json["code"] == "OUTCOME_UNKNOWN"
    assert len(await unit.journal()) == 1
