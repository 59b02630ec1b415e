"""When no evidence settles a sale: the person's decision, by API and by page, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.store import events
from gateway.tools import status_text
from hw_fakes.vscu.unit import UnitControl
from tests.support.clock import FakeClock
from tests.support.shop import TECHNICIANS, OpenShop, Reply, a_sale, make_settings, open_shop

# The unit hangs up: nothing here waits for a time-out, and a till hears the end however slow the machine is.
AT_ONCE = {"at_work_s": 0}
PATIENT = {"wait_s": 60}


@asynccontextmanager
async def in_doubt(
    unit: UnitControl, shop_dir: Path, sale: dict[str, Any]
) -> AsyncIterator[tuple[OpenShop, Reply]]:
    """A shop with one sale that the unit signed and nobody heard of."""
    settings = make_settings(shop_dir, unit.url, unit=AT_ONCE, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(loseAnswers=1)
        reply = await shop.till().sell("key", sale)
        assert reply.json["code"] == "OUTCOME_UNKNOWN"
        yield shop, reply


def portal(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the technician reads on KRA's portal about a receipt of the unit's journal."""
    stamp = entry["vsdcRcptPbctDate"]
    time = f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[8:10]}:{stamp[10:12]}:{stamp[12:]}"
    said = {
        "choice": "SIGNED",
        "rcptNo": entry["rcptNo"],
        "totRcptNo": entry["totRcptNo"],
        "rcptSign": entry["rcptSign"],
        "intrlData": entry["intrlData"],
        "scuTime": time,
        "total": "297.00",
    }
    return {**said, **changes}


async def test_the_portals_receipt_settles_the_sale(unit: UnitControl, shop_dir: Path) -> None:
    sale = a_sale()
    async with in_doubt(unit, shop_dir, sale) as (shop, doubt):
        invoice_id = doubt.json["invoiceId"]
        case = await shop.technician().request("GET", f"/v1/invoices/{invoice_id}/decision")
        assert case.json["choices"] == ["SIGNED", "NOT_SIGNED"]
        assert case.json["known"]
        # Reads, the page and the rest of the shop go on meanwhile.
        assert (await shop.till().request("GET", f"/v1/invoices/{invoice_id}")).status == 200
        page = await shop.till().request("GET", "/")
        assert 'class="banner IN_DOUBT"' in page.body.decode()
        status = (await shop.till().request("GET", "/v1/status")).json
        assert (status["state"], status["ceiling"]["state"]) == ("IN_DOUBT", "ONLINE")
        assert status_text(status).startswith("IN_DOUBT: Nothing can be sold")
        (entry,) = await unit.journal()
        settled = await shop.technician().decide(invoice_id, **portal(entry))
        assert (settled.status, settled.json["state"]) == (200, "SIGNED")
        replay = await shop.till().sell("key", sale)
        assert replay.status == 201
        assert replay.json["rcptSign"] == entry["rcptSign"]
        # And the shop sells on.
        assert (await shop.till().request("GET", "/v1/status")).json["state"] == "ONLINE"
        after = await shop.till("till-2").sell("next", a_sale())
        assert (after.status, after.json["invcNo"]) == (201, 2)
        told = await shop.gateway.db.read(lambda conn: events.story(conn, invoice_id))
        (decided,) = [event for event in told if event.kind == "doubt.decided"]
        assert decided.data["who"] == "wanjiru"
        page = await shop.till().request("GET", f"/invoices/{invoice_id}")
        assert b"wanjiru" in page.body
        again = await shop.technician().decide(invoice_id, choice="NOT_SIGNED", reason="typing")
        assert (again.status, again.json["code"]) == (409, "NOT_IN_DOUBT")
    assert len(await unit.journal()) == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"total": "298.00"}, "TOTAL_DIFFERS"),
        ({"scuTime": "2020-01-01T10:00:00"}, "TIME_DIFFERS"),
        ({"sdcId": "KRACU0999999999"}, "OTHER_UNIT"),
        ({"total": "much"}, "AMOUNT_INVALID"),
        ({"scuTime": "yesterday"}, "NOT_A_TIME"),
        ({"rcptSign": "short"}, "SIGNATURE_INVALID"),
        ({"scuTime": "0001-01-01T00:00:00", "despiteTime": "who knows"}, "NOT_A_TIME"),
        ({"scuTime": "9999-12-31T23:59:59-23:59", "despiteTime": "who knows"}, "NOT_A_TIME"),
        ({"rcptNo": "1"}, "WRONG_TYPE"),
        ({"totRcptNo": 10**20}, "OUT_OF_RANGE"),
        ({"surprise": 1}, "UNKNOWN_FIELD"),
        ({"choice": "MAYBE"}, "NOT_ALLOWED"),
    ],
)
async def test_a_receipt_that_is_not_this_sales_is_refused(
    unit: UnitControl, shop_dir: Path, changes: dict[str, Any], code: str
) -> None:
    async with in_doubt(unit, shop_dir, a_sale()) as (shop, doubt):
        (entry,) = await unit.journal()
        said = portal(entry, **changes)
        reply = await shop.technician().decide(doubt.json["invoiceId"], **said)
        assert reply.status == 422
        assert code in {item["code"] for item in reply.json["errors"]}
        state = await shop.till().request("GET", f"/v1/invoices/{doubt.json['invoiceId']}")
        assert state.json["state"] == "IN_DOUBT"


async def test_a_receipt_that_another_sale_has_is_refused(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url, unit=AT_ONCE, api=PATIENT)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
        await unit.knobs(loseAnswers=1)
        doubt = await shop.till().sell("key", a_sale())
        first, _ = await unit.journal()
        reply = await shop.technician().decide(doubt.json["invoiceId"], **portal(first))
    assert {item["code"] for item in reply.json["errors"]} == {"NUMBER_TAKEN", "SIGNATURE_TAKEN"}


async def test_declared_not_signed_it_is_signed_when_the_till_asks_again(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url, unit=AT_ONCE, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(diskFull=True)
        sale = a_sale()
        doubt = await shop.till().sell("key", sale)
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
        await unit.knobs(diskFull=False)
        empty = await shop.technician().decide(doubt.json["invoiceId"], choice="NOT_SIGNED")
        assert empty.json["errors"][0]["pointer"] == "/reason"
        said = await shop.technician().decide(
            doubt.json["invoiceId"], choice="NOT_SIGNED", reason="the portal does not have it"
        )
        assert said.json["state"] == "RECEIVED"
        assert (await shop.till().sell("key", sale)).status == 201
    assert len(await unit.journal()) == 1


@pytest.mark.parametrize("code", ["wrong", "token-of-till-number-1"])
async def test_only_a_technician_decides(unit: UnitControl, shop_dir: Path, code: str) -> None:
    async with in_doubt(unit, shop_dir, a_sale()) as (shop, doubt):
        path = f"/v1/invoices/{doubt.json['invoiceId']}/decision"
        for method in ("GET", "POST"):
            reply = await shop.technician(code).request(method, path, json={})
            assert (reply.status, reply.json["code"]) == (401, "UNKNOWN_TECHNICIAN")


async def test_the_page_takes_the_decision_too(unit: UnitControl, shop_dir: Path) -> None:
    async with in_doubt(unit, shop_dir, a_sale()) as (shop, doubt):
        path = f"/invoices/{doubt.json['invoiceId']}"
        page = await shop.till().request("GET", path)
        assert b"A person must decide" in page.body
        (entry,) = await unit.journal()
        form = {name: str(value) for name, value in portal(entry).items()}
        wrong = await shop.till().request("POST", path + "/decision", data={**form, "code": "x"})
        assert wrong.status == 401
        assert b"technician&#39;s code is missing" in wrong.body
        form["code"] = TECHNICIANS["wanjiru"]
        done = await shop.till().request("POST", path + "/decision", data=form)
        assert done.status == 200
        assert b"SIGNED" in done.body
        assert b"A person must decide" not in done.body


async def test_the_first_receipt_of_a_shop_is_not_settled_without_its_scu_id(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The unit was initialised elsewhere and its one-shot answer is gone: nobody here knows its id."""
    sale = a_sale()
    async with in_doubt(unit, shop_dir, sale) as (shop, doubt):
        scu = (await shop.till().request("GET", "/v1/status")).json["unit"]["sdcId"]
        await shop.gateway.db.write(lambda conn: conn.execute("UPDATE unit SET sdc_id = NULL"))
        path = f"/invoices/{doubt.json['invoiceId']}"
        assert b'name="sdcId"' in (await shop.till().request("GET", path)).body
        (entry,) = await unit.journal()
        bare = await shop.technician().decide(doubt.json["invoiceId"], **portal(entry))
        assert bare.status == 422
        (wrong,) = bare.json["errors"]
        assert (wrong["pointer"], wrong["code"]) == ("/sdcId", "MISSING")
        form = {**portal(entry), "sdcId": scu, "code": TECHNICIANS["wanjiru"]}
        done = await shop.till().request(
            "POST", path + "/decision", data={name: str(value) for name, value in form.items()}
        )
        assert done.status == 200
        replay = await shop.till().sell("key", sale)
        assert replay.json["cuInvoiceNo"] == f"{scu}/{entry['rcptNo']}"
        page = await shop.till().request("GET", path)
        assert b'name="sdcId"' not in page.body


async def test_a_shop_without_technicians_says_so(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url, technician_tokens={})
    values = {**settings.model_dump(), "technician_tokens": {}}
    async with open_shop(type(settings)(**values)) as shop:
        reply = await shop.technician().request("GET", "/v1/unit/numbering")
    assert reply.status == 401
    assert "GATEWAY_TECHNICIAN_TOKENS" in reply.json["detail"]


async def test_a_decision_waits_for_a_resend_on_its_way(unit: UnitControl, shop_dir: Path) -> None:
    """Somebody says "not signed" while the bytes are out once more, and the unit signs them."""
    settings = make_settings(shop_dir, unit.url, api={"wait_s": 0.1})
    sale = a_sale()
    async with open_shop(settings) as shop:
        await unit.knobs(rejectNext=1, rejectCode="899", rejectMessage="", latencyMs=2000)
        first = await shop.till().sell("key", sale)
        path = f"/v1/invoices/{first.json['invoiceId']}"
        # From then on the one resend is on its way, and signed when it comes.
        while (await shop.till().request("GET", path)).json["state"] in ("RECEIVED", "SIGNING"):
            pass
        said = await shop.technician().decide(
            first.json["invoiceId"], choice="NOT_SIGNED", reason="not on the portal"
        )
        assert (said.status, said.json["code"]) == (409, "NOT_IN_DOUBT")
        reply = await shop.till().sell("key", sale)
        assert (reply.status, reply.json["recovered"]) == (201, True)
        await unit.knobs(latencyMs=0)
        assert (await shop.till().sell("next", a_sale())).status in (201, 202)
    journal = await unit.journal()
    assert len({entry["trdInvcNo"] for entry in journal}) == len(journal)


async def test_nobody_declares_a_sale_unsigned_while_the_unit_may_be_at_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    settings = make_settings(shop_dir, unit.url, unit={"at_work_s": 90}, api=PATIENT)
    async with open_shop(settings, clock) as shop:
        await unit.knobs(loseAnswers=1)
        doubt = await shop.till().sell("key", a_sale())
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
        invoice_id = doubt.json["invoiceId"]
        said = {"choice": "NOT_SIGNED", "reason": "not on the portal yet"}
        soon = await shop.technician().decide(invoice_id, **said)
        assert (soon.status, soon.json["errors"][0]["code"]) == (422, "TOO_SOON")
        assert "decide after 09:01:30" in soon.json["detail"]
        # What the portal shows by then can be said at once.
        (entry,) = await unit.journal()
        found = await shop.technician().decide(invoice_id, **portal(entry))
        assert found.status == 200, found.json

        await unit.knobs(loseAnswers=1)
        later = await shop.till().sell("later", a_sale())
        await clock.advance(seconds=91)
        done = await shop.technician().decide(later.json["invoiceId"], **said)
        assert (done.status, done.json["state"]) == (200, "RECEIVED")
