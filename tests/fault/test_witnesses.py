"""Witnesses of a lost answer: the unit's database, its counters, and a store that is an old copy."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.store import events
from gateway.tools import status_text
from hw_fakes.vscu.unit import UnitControl
from tests.support import decisions, unit_database
from tests.support.shop import a_sale, make_settings, open_shop
from tests.support.unit_database import COUNTER_QUERY, SALE_QUERY


def witnessed(shop_dir: Path, unit: UnitControl, **queries: str) -> Any:
    database = {"database": shop_dir / "unit.sqlite", **queries}
    return make_settings(shop_dir, unit.url, unit=database, api={"wait_s": 60})


async def test_the_units_database_gives_the_lost_receipt_back(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = witnessed(shop_dir, unit, database_query=SALE_QUERY)
    sale = a_sale()
    async with open_shop(settings) as shop:
        await unit.knobs(loseAnswers=1)
        doubt = await shop.till().sell("key", sale)
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
    unit_database.write(shop_dir / "unit.sqlite", await unit.journal())
    async with open_shop(settings) as shop:
        reply = await shop.till().sell("key", sale)
        assert (reply.status, reply.json["recovered"]) == (201, True)
        (entry,) = await unit.journal()
        assert reply.json["rcptSign"] == entry["rcptSign"]
        told = await shop.gateway.db.read(lambda conn: events.story(conn, reply.json["invoiceId"]))
        looked = [event.data for event in told if event.kind == "doubt.examined"]
        assert looked[-1]["source"] == "unit's database"
        assert looked[-1]["finding"] == "HoldsIt"


async def found_instead(shop_dir: Path, unit: UnitControl, column: str) -> tuple[Any, Any, Any]:
    """Lose an answer, change what the unit's database holds: (till's answer, sale's state, its story)."""
    settings = witnessed(shop_dir, unit, database_query=SALE_QUERY)
    sale = a_sale(buyer={"pin": "A123456789Z"})
    async with open_shop(settings) as shop:
        await unit.knobs(loseAnswers=1)
        doubt = await shop.till().sell("key", sale)
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
    unit_database.write(shop_dir / "unit.sqlite", await unit.journal())
    with sqlite3.connect(shop_dir / "unit.sqlite") as conn:
        conn.execute(f"UPDATE TRNS_SALES SET {column}")
    async with open_shop(settings) as shop:
        # Answered when the database has been looked at.
        again = await shop.till().sell("key", sale)
        told = await shop.gateway.db.read(lambda conn: events.story(conn, doubt.json["invoiceId"]))
        state = await shop.till().request("GET", f"/v1/invoices/{doubt.json['invoiceId']}")
        if again.json["code"] == "MAYBE_SIGNED":
            # The shop is held, and stays so after a restart.
            other = await shop.till("till-2").sell("other", a_sale())
            assert (other.json["code"], other.json["signed"]) == ("UNIT_AHEAD", "unknown")
    looked = [event.data["reason"] for event in told if event.kind == "doubt.examined"]
    return again, state, looked


@pytest.mark.parametrize(
    "column",
    [
        "REMARK = NULL, TOT_AMT = '1.00'",
        "REMARK = NULL, CUST_TIN = 'A999999999Z'",
        "REMARK = NULL, CUST_TIN = NULL",
        "REMARK = NULL, TRD_INVC_NO = 'ANOTHER'",
        # Equal in everything but the mark: a second gateway's sale of the same second.
        "REMARK = '[01M8Q9Z78XHT8XBCHVWNNZ6K43]'",
    ],
)
async def test_a_row_that_is_another_sale_holds_signing_and_quarantines_the_key(
    unit: UnitControl, shop_dir: Path, column: str
) -> None:
    again, state, looked = await found_instead(shop_dir, unit, column)
    assert (again.status, again.json["code"]) == (409, "MAYBE_SIGNED")
    assert again.json["signed"] == "unknown"
    assert state.json["state"] == "RECEIVED"
    assert any("another sale under invoice number" in reason for reason in looked)
    assert len(await unit.journal()) == 1


@pytest.mark.parametrize(
    "column",
    [
        "CFM_DT = '1'",
        "CFM_DT = NULL, VSDC_RCPT_PBCT_DATE = '20260101120000'",
        "REMARK = NULL, TRD_INVC_NO = NULL",
        "TOT_AMT = '1.00'",
    ],
)
async def test_a_row_that_may_be_another_sale_is_left_to_a_person(
    unit: UnitControl, shop_dir: Path, column: str
) -> None:
    again, state, looked = await found_instead(shop_dir, unit, column)
    assert again.json["code"] == "OUTCOME_UNKNOWN"
    assert state.json["state"] == "IN_DOUBT"
    assert any("may be another one" in reason for reason in looked)
    assert len(await unit.journal()) == 1


async def test_a_counter_that_moved_forbids_the_resend(unit: UnitControl, shop_dir: Path) -> None:
    """The counter says that the sale is signed: the bytes are not sent again, a person decides."""
    settings = witnessed(shop_dir, unit, database_counter_query=COUNTER_QUERY)
    sale = a_sale()
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
        journal = await unit.journal()
    # What the unit's file will say by the time somebody looks: one more receipt.
    unit_database.write(shop_dir / "unit.sqlite", [*journal, {**journal[0], "totRcptNo": 2}])
    await unit.knobs(loseAnswers=1)
    async with open_shop(settings) as shop:
        # Held first: before any sale, a counter that is ahead is somebody else's receipt.
        held = await shop.till().sell("key", sale)
        assert held.json["code"] == "UNIT_AHEAD"
        unit_database.write(shop_dir / "unit.sqlite", journal)
    async with open_shop(settings) as shop:
        # What was seen once is not unseen: a person has to say so.
        assert (await shop.till().sell("key", sale)).json["code"] == "UNIT_AHEAD"
        reply = await decisions.number(shop, 2, reason="the unit's file was wrong")
        assert reply.status == 200
        unit_database.write(shop_dir / "unit.sqlite", [*journal, {**journal[0], "totRcptNo": 2}])
        doubt = await shop.till().sell("another", a_sale())
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
        told = await shop.gateway.db.read(lambda conn: events.story(conn, doubt.json["invoiceId"]))
        sources = [event.data["source"] for event in told if event.kind == "doubt.examined"]
        assert sources == ["counters"]
        assert "was signed" in told[-1].data["reason"]


async def test_an_unreadable_database_only_costs_a_witness(
    unit: UnitControl, shop_dir: Path
) -> None:
    (shop_dir / "unit.sqlite").write_bytes(b"not a database, by a long way" * 100)
    settings = witnessed(
        shop_dir, unit, database_query=SALE_QUERY, database_counter_query=COUNTER_QUERY
    )
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("key", a_sale())).status == 201


async def test_an_old_copy_of_the_store_does_not_sign(unit: UnitControl, shop_dir: Path) -> None:
    """The disk of yesterday is put back: the unit is ahead, and the gateway sees it by itself."""
    settings = witnessed(shop_dir, unit, database_query=SALE_QUERY)
    unit_database.write(shop_dir / "unit.sqlite", [])
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
    shutil.copytree(shop_dir / "store", shop_dir / "yesterday")
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("two", a_sale())).status == 201
    unit_database.write(shop_dir / "unit.sqlite", await unit.journal())
    shutil.rmtree(shop_dir / "store")
    shutil.copytree(shop_dir / "yesterday", shop_dir / "store")
    third = a_sale()
    for _ in range(2):  # a restart does not wash it off
        async with open_shop(settings) as shop:
            held = await shop.till().sell("three", third)
            assert (held.status, held.json["code"]) == (503, "UNIT_AHEAD")
            assert held.json["signed"] == "unknown"
            status = await shop.till().request("GET", "/v1/status")
            assert "already holds a sale" in status.json["signer"]["hold"]
            # KRA is connected all the while, and that is not what matters.
            assert (status.json["state"], status.json["ceiling"]["state"]) == (
                "UNIT_AHEAD",
                "ONLINE",
            )
            assert "do not agree" in status_text(status.json).splitlines()[0]
            page = (await shop.till().request("GET", "/")).body.decode()
            assert 'class="banner UNIT_AHEAD"' in page
            assert "Selling." not in page
    async with open_shop(settings) as shop:
        page = await shop.till().request("GET", "/unit")
        assert b"Signing is held" in page.body
        refused = await decisions.number(shop, 1, reason="a slip of the finger")
        assert (refused.status, refused.json["errors"][0]["code"]) == (422, "NUMBER_USED")
        settled = await decisions.number(shop, 3, reason="the portal's last invoice is 2")
        told = settled.json
        assert (told["hold"], told["nextInvcNo"], told["lastTotRcptNo"]) == (None, 3, 1)
        reply = await shop.till().sell("four", a_sale())
        assert (reply.status, reply.json["invcNo"]) == (201, 3)
    assert [entry["invcNo"] for entry in await unit.journal()] == [1, 2, 3]


async def test_a_unit_that_was_put_back_does_not_sign(unit: UnitControl, shop_dir: Path) -> None:
    """The unit's folder of yesterday: it would give the numbers of today's receipts once more."""
    settings = witnessed(shop_dir, unit, database_counter_query=COUNTER_QUERY)
    unit_database.write(shop_dir / "unit.sqlite", [])
    third = a_sale()
    async with open_shop(settings) as shop:
        for key in ("one", "two"):
            assert (await shop.till().sell(key, a_sale())).status == 201
    journal = await unit.journal()
    unit_database.write(shop_dir / "unit.sqlite", journal[:1])
    async with open_shop(settings) as shop:
        held = await shop.till().sell("three", third)
        assert (held.status, held.json["code"]) == (503, "UNIT_AHEAD")
        # Here it is the unit that is old: no sale is missing, so this one is certainly not signed.
        assert held.json["signed"] == "no"
        status = await shop.till().request("GET", "/v1/status")
        assert "were put back" in status.json["signer"]["hold"]
    unit_database.write(shop_dir / "unit.sqlite", journal)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("three", third)).status == 201
