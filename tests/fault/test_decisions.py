"""When no evidence settles a sale: the person's decision, by API and by page, and what it refuses."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser
from pydantic import ValidationError

from gateway.store import events, invoices
from gateway.tools import status_text
from hw_fakes.vscu.unit import ExternalUnit, UnitControl
from tests.support import unit_database
from tests.support.browser import PHONE
from tests.support.clock import FakeClock
from tests.support.decisions import codes, decide, number, portal_time, statement
from tests.support.shop import TECHNICIANS, OpenShop, Reply, a_sale, make_settings, open_shop
from tests.support.unit_database import COUNTER_QUERY

# The unit hangs up: nothing here waits for a time-out, and a till gets the end however slow the machine is.
PATIENT = {"wait_s": 60}


@asynccontextmanager
async def in_doubt(
    unit: UnitControl, shop_dir: Path, sale: dict[str, Any]
) -> AsyncIterator[tuple[OpenShop, Reply]]:
    """A shop with one sale that the unit signed and nobody heard of."""
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(loseAnswers=1)
        reply = await shop.till().sell("key", sale)
        assert reply.json["code"] == "OUTCOME_UNKNOWN"
        yield shop, reply


def portal(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What the technician reads on KRA's portal about a receipt of the unit's journal."""
    said = {
        "choice": "SIGNED",
        "rcptNo": entry["rcptNo"],
        "totRcptNo": entry["totRcptNo"],
        "rcptSign": entry["rcptSign"],
        "intrlData": entry["intrlData"],
        "scuTime": portal_time(entry),
        "total": "297.00",
    }
    return {**said, **changes}


async def test_the_portals_receipt_settles_the_sale(unit: UnitControl, shop_dir: Path) -> None:
    sale = a_sale()
    async with in_doubt(unit, shop_dir, sale) as (shop, doubt):
        invoice_id = doubt.json["invoiceId"]
        case = await shop.technician().request("GET", f"/v1/invoices/{invoice_id}/decision")
        assert case.json["choices"] == ["SIGNED", "NOT_SIGNED", "OTHER_SALE_THERE"]
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
        again = await shop.technician().decide(invoice_id, **statement(entry))
        assert (again.status, again.json["code"]) == (409, "NOT_IN_DOUBT")
        assert again.json["signed"] == "yes"
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
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
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
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(diskFull=True)
        sale = a_sale()
        doubt = await shop.till().sell("key", sale)
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
        await unit.knobs(diskFull=False)
        empty = await shop.technician().decide(doubt.json["invoiceId"], choice="NOT_SIGNED")
        pointers = {error["pointer"] for error in empty.json["errors"]}
        assert {"/reason", "/lastInvcNo"} <= pointers
        said = await decide(shop, doubt.json["invoiceId"], **statement(None))
        assert said.json["state"] == "RECEIVED"
        assert "must send receipt" in said.json["next"]
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
        said = await decide(shop, first.json["invoiceId"], **statement(None))
        assert (said.status, said.json["code"]) == (409, "NOT_IN_DOUBT")
        reply = await shop.till().sell("key", sale)
        assert (reply.status, reply.json["recovered"]) == (201, True)
        await unit.knobs(latencyMs=0)
        assert (await shop.till().sell("next", a_sale())).status in (201, 202)
    journal = await unit.journal()
    assert len({entry["trdInvcNo"] for entry in journal}) == len(journal)


async def test_a_sale_is_not_declared_unsigned_while_the_unit_may_be_at_work(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V4 and V5: neither before the unit had its time, nor before KRA was reached after that."""
    clock = FakeClock()
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    settings = make_settings(shop_dir, unit.url, unit={"at_work_s": 90}, api=PATIENT)
    async with open_shop(settings, clock) as shop:
        await unit.knobs(diskFull=True)
        doubt = await shop.till().sell("key", a_sale())
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
        invoice_id = doubt.json["invoiceId"]
        soon = await shop.technician().decide(invoice_id, **statement(None))
        assert (soon.status, codes(soon)) == (422, {"TOO_SOON"})
        assert soon.json["signed"] == "unknown"
        assert "Decide after 09:01:30" in soon.json["errors"][0]["message"]
        await unit.knobs(diskFull=False, upstream="offline")
        # The hand that sets the clock does not end the unit's work.
        clock.step_wall(seconds=120)
        assert codes(await shop.technician().decide(invoice_id, **statement(None))) == {"TOO_SOON"}
        clock.step_wall(seconds=-120)
        await clock.advance(seconds=91)
        away = await shop.technician().decide(invoice_id, **statement(None))
        assert codes(away) == {"KRA_NOT_REACHED"}
        assert "bring the internet back" in away.json["errors"][0]["message"]
        page = (await shop.till().request("GET", f"/invoices/{invoice_id}")).body.decode()
        assert "KRA has not been reached since 09:01:30" in page
        assert "It was not signed" not in page
        await unit.knobs(upstream="online")
        # A look at the portal that came before KRA was reached counts for nothing.
        done = await decide(shop, invoice_id, **statement(None))
        assert (done.status, done.json.get("state")) == (200, "RECEIVED"), done.json
    assert await unit.journal() == []


async def test_what_the_portal_shows_is_entered_at_once(unit: UnitControl, shop_dir: Path) -> None:
    settings = make_settings(shop_dir, unit.url, unit={"at_work_s": 3600}, api=PATIENT)
    async with open_shop(settings) as shop:
        await unit.knobs(loseAnswers=1)
        doubt = await shop.till().sell("key", a_sale())
        (entry,) = await unit.journal()
        found = await shop.technician().decide(doubt.json["invoiceId"], **portal(entry))
        assert found.status == 200, found.json


@pytest.mark.parametrize("at_work_s", [0, -1, "0"])
def test_a_unit_without_any_time_to_work_is_refused(shop_dir: Path, at_work_s: object) -> None:
    with pytest.raises(ValidationError, match="at_work_s"):
        make_settings(shop_dir, "http://127.0.0.1:1", unit={"at_work_s": at_work_s})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"confirmed": False}, {"CONFIRMATION_MISSING"}),
        ({"searched": False}, {"SEARCH_MISSING"}),
        ({"searched": False, "confirmed": False}, {"SEARCH_MISSING", "CONFIRMATION_MISSING"}),
        ({"lastInvcNo": 0}, {"PORTAL_BEHIND"}),
        ({"lastTotal": "298.00"}, {"TOTAL_DIFFERS"}),
        ({"lastTime": "2026-01-01T10:00:00"}, {"TIME_DIFFERS"}),
        (
            {"lastTotal": "1.00", "lastTime": "2026-01-01T10:00", "confirmed": False},
            {"TOTAL_DIFFERS", "TIME_DIFFERS", "CONFIRMATION_MISSING"},
        ),
        # The lost sale itself, and one that this store does not have.
        ({"lastInvcNo": 2}, {"PORTAL_SHOWS_THIS_SALE"}),
        ({"lastInvcNo": 2, "lastTotal": "5.00"}, {"PORTAL_SHOWS_ANOTHER_SALE"}),
        ({"lastInvcNo": 3}, {"PORTAL_SHOWS_ANOTHER_SALE"}),
        ({"lastInvcNo": "many", "lastTotal": "x", "lastTime": "y", "reason": "abc"},
         {"WRONG_TYPE", "AMOUNT_INVALID", "NOT_A_TIME", "TOO_FEW"}),
        ({"lastTotal": None, "lastTime": None}, {"MISSING"}),
        ({"lastInvcNo": -1}, {"OUT_OF_RANGE"}),
        ({"lastTime": "9999-12-31T23:59:59-23:59"}, {"NOT_A_TIME"}),
    ],
)  # fmt: skip
async def test_not_signed_needs_evidence_from_the_portal(
    unit: UnitControl, shop_dir: Path, changes: dict[str, Any], expected: set[str]
) -> None:
    """N6, V7 and V7b: a guess with five letters releases nothing, by page or API."""
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
        (entry,) = await unit.journal()
        await unit.knobs(loseAnswers=1)
        doubt = await shop.till().sell("key", a_sale())
        reply = await decide(shop, doubt.json["invoiceId"], **statement(entry, **changes))
        assert (reply.status, codes(reply)) == (422, expected)
        assert reply.json["signed"] == "unknown"
        state = await shop.till().request("GET", f"/v1/invoices/{doubt.json['invoiceId']}")
        assert state.json["state"] == "IN_DOUBT"
    assert len(await unit.journal()) == 2


async def test_a_decision_that_the_counter_contradicts_is_refused(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V6: the operator overlooked the receipt, and the unit's counter has moved."""
    file = shop_dir / "unit.sqlite"
    part = {"database": file, "database_counter_query": COUNTER_QUERY}
    unit_database.write(file, [])
    async with open_shop(make_settings(shop_dir, unit.url, unit=part, api=PATIENT)) as shop:
        await unit.knobs(loseAnswers=1)
        doubt = await shop.till().sell("key", a_sale())
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
        (entry,) = await unit.journal()
        unit_database.write(file, [entry])
        invoice_id = doubt.json["invoiceId"]
        reply = await decide(shop, invoice_id, **statement(None))
        assert (reply.status, codes(reply)) == (422, {"CONTRADICTED"})
        # A receipt beyond the counter cannot be this sale's either.
        ahead = await decide(shop, invoice_id, **portal(entry, totRcptNo=9))
        assert codes(ahead) == {"CONTRADICTED"}
        assert (await decide(shop, invoice_id, **portal(entry))).json["state"] == "SIGNED"


async def test_a_duplicate_answer_to_the_resend_forbids_not_signed(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        await unit.knobs(diskFull=True)
        sale = a_sale()
        doubt = await shop.till().sell("key", sale)
        invoice_id = doubt.json["invoiceId"]
        row = await shop.gateway.db.read(lambda conn: invoices.by_id(conn, invoice_id))
        assert row is not None
        await shop.gateway.db.write(lambda conn: invoices.record_duplicate(conn, row))
        reply = await decide(shop, invoice_id, **statement(None))
        assert (reply.status, codes(reply)) == (422, {"DUPLICATE_SEEN"})
        # The number is used by a sale that nobody here knows: there is still a way on.
        other = await decide(shop, invoice_id, **statement(None, choice="OTHER_SALE_THERE"))
        assert other.status == 200, other.json
        assert (await shop.till().sell("key", sale)).json["code"] == "MAYBE_SIGNED"
        assert (await shop.till().sell("next", a_sale())).json["code"] == "UNIT_AHEAD"


async def lose_the_newest(unit: UnitControl, shop_dir: Path, count: int) -> tuple[Any, list[Any]]:
    """A store whose newest transactions are gone without a trace: (settings, the sales that it lost)."""
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    lost = [a_sale() for _ in range(count)]
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
    shutil.copytree(settings.store.directory, shop_dir / "copy")
    async with open_shop(settings) as shop:
        for number, sale in enumerate(lost):
            assert (await shop.till().sell(f"lost-{number}", sale)).status == 201
    shutil.rmtree(settings.store.directory)
    (shop_dir / "copy").rename(settings.store.directory)
    return settings, lost


async def test_another_sale_in_its_place_holds_signing_and_quarantines_the_key(
    unit: UnitControl, shop_dir: Path
) -> None:
    """R4, V7, V7b and V8: the log's tail is lost and nothing notices it; no answer frees a lost key."""
    settings, (first, second) = await lose_the_newest(unit, shop_dir, 2)
    async with open_shop(settings) as shop:
        # The unit loses the bytes, so that not even a duplicate code says anything.
        await unit.knobs(diskFull=True, swallowAnswers=0)
        doubt = await shop.till().sell("lost-1", second)
        invoice_id = doubt.json["invoiceId"]
        # Another till with a lost sale asks while the line is busy.
        waiting = await shop.till("till-2").sell("lost-0", first)
        assert waiting.status == 503
        await unit.knobs(diskFull=False)
        newest = (await unit.journal())[-1]
        assert newest["invcNo"] == 3
        # Whoever looks under invoice number 2 only finds another sale; the newest one says it as well.
        refused = await decide(shop, invoice_id, **statement(newest))
        assert codes(refused) == {"PORTAL_SHOWS_ANOTHER_SALE"}
        unconfirmed = statement(newest, choice="OTHER_SALE_THERE", confirmed=False)
        assert codes(await decide(shop, invoice_id, **unconfirmed)) == {"CONFIRMATION_MISSING"}
        reported = await decide(shop, invoice_id, **statement(newest, choice="OTHER_SALE_THERE"))
        assert reported.json["state"] == "RECEIVED"
        assert "never signed under its key" in reported.json["next"]
        status = (await shop.till().request("GET", "/v1/status")).json
        assert (status["state"], "another sale" in status["signer"]["hold"]) == ("UNIT_AHEAD", True)
        page = (await shop.till().request("GET", f"/invoices/{invoice_id}")).body.decode()
        assert "What to do next" in page
    async with open_shop(settings) as shop:  # a restart does not end the hold
        assert (await shop.till().sell("lost-1", second)).json["code"] == "MAYBE_SIGNED"
        assert (await shop.till("till-2").sell("lost-0", first)).json["signed"] == "unknown"
        assert (await number(shop, 4)).status == 200
        for till, key, sale in (("till-1", "lost-1", second), ("till-2", "lost-0", first)):
            reply = await shop.till(till).sell(key, sale)
            assert (reply.json["code"], reply.json["signed"]) == ("MAYBE_SIGNED", "unknown")
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 4
    assert len(await unit.journal()) == 4


@pytest.mark.parametrize("key", ["lost-0", None], ids=["key", "no key"])
async def test_a_numbering_decision_that_skips_numbers_quarantines_claimed_keys(
    unit: UnitControl, shop_dir: Path, key: str | None
) -> None:
    """R4 and V8: signing is not held, and the sale was claimed and called "not signed"."""
    settings = make_settings(shop_dir, unit.url, api=PATIENT)
    sale = a_sale()
    async with open_shop(settings) as shop:
        await unit.knobs(diskFull=True)
        doubt = await shop.till("till-2").sell("open", a_sale())
        busy = await shop.till().sell(key, sale)
        assert busy.json["signed"] == "no"
        await unit.knobs(diskFull=False)
        released = await decide(shop, doubt.json["invoiceId"], **statement(None))
        assert released.json["state"] == "RECEIVED"
        # The tills are asked for even though nothing holds signing.
        silent = await number(shop, 5, silentTills=[])
        assert codes(silent) == {"TILLS_SILENT"}
        assert (await number(shop, 5)).json["nextInvcNo"] == 5
        again = await shop.till().sell(key, sale)
        assert (again.json["code"], again.json["signed"]) == ("MAYBE_SIGNED", "unknown")
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 5
    later = FakeClock(datetime.now(UTC) + timedelta(days=2))
    await unit.knobs(clockOffsetSeconds=2 * 86_400)
    async with open_shop(settings, later) as shop:
        # Beyond the window of a till without keys it is a new row, and the same sale.
        assert (await shop.till().sell(key, sale)).json["code"] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 1


async def test_a_sale_in_the_line_is_quarantined_as_well(unit: UnitControl, shop_dir: Path) -> None:
    """R4: the lost sale was sent again before the decision, and had its place in the line."""
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        await unit.knobs(latencyMs=3000)
        asked = [
            asyncio.create_task(shop.till(till).sell("key", a_sale()))
            for till in ("till-1", "till-2")
        ]
        while shop.gateway.signer.waiting == 0:
            await asyncio.sleep(0.01)
        skipped = await number(shop, 9)
        assert skipped.json["nextInvcNo"] == 9
        replies = sorted(await asyncio.gather(*asked), key=lambda reply: reply.status)
        assert replies[0].status == 201
        assert replies[1].json["code"] == "MAYBE_SIGNED"
        await unit.knobs(latencyMs=0)
    assert [entry["invcNo"] for entry in await unit.journal()] == [1]


async def test_a_receipt_of_our_own_is_no_other_sale(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
        (entry,) = await unit.journal()
        await unit.knobs(diskFull=True)
        doubt = await shop.till().sell("key", a_sale())
        said = statement(entry, choice="OTHER_SALE_THERE")
        reply = await decide(shop, doubt.json["invoiceId"], **said)
        assert (reply.status, codes(reply)) == (422, {"KNOWN_HERE"})
        assert (await shop.till().request("GET", "/v1/status")).json["signer"]["hold"] is None


async def test_every_mistake_of_a_receipt_is_named_at_once(
    unit: UnitControl, shop_dir: Path
) -> None:
    """N35: in the words of the form, and never "nothing was signed"."""
    async with in_doubt(unit, shop_dir, a_sale()) as (shop, doubt):
        (entry,) = await unit.journal()
        said = portal(entry, rcptSign="abcd", total="298.00", scuTime="2020-01-01T10:00:00")
        reply = await shop.technician().decide(doubt.json["invoiceId"], **said)
        assert codes(reply) == {"SIGNATURE_INVALID", "TOTAL_DIFFERS", "TIME_DIFFERS"}
        assert "the sale stays in doubt" in reply.json["detail"]
        assert b"Nothing was signed" not in reply.body
        assert b"despiteTime" not in reply.body
        messages = [error["message"] for error in reply.json["errors"]]
        assert any(message.startswith("Receipt signature must be") for message in messages)


async def test_the_form_keeps_what_was_typed_and_asks_before_it_decides(
    unit: UnitControl, shop_dir: Path, browser: Browser
) -> None:
    """N6, N7, N35 and N37, on a phone."""
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
        (entry,) = await unit.journal()
        await unit.knobs(diskFull=True)
        sale = a_sale()
        doubt = await shop.till().sell("key", sale)
        await unit.knobs(diskFull=False)
        invoice_id = doubt.json["invoiceId"]
        page = await browser.new_page(viewport=PHONE)
        address = f"{shop.gateway.url}/invoices/{invoice_id}"
        await page.goto(address)
        while await page.locator("[name=searched]").count() == 0:
            await page.goto(address)
        assert "Bottled soda 500ml" in await page.inner_text("#decide")
        form = page.locator("form:has([value=NOT_SIGNED])")
        await form.locator("[name=lastInvcNo]").fill("1")
        await form.locator("[name=lastTotal]").fill("298.00")
        await form.locator("[name=lastTime]").fill(portal_time(entry))
        await form.locator("[name=reason]").fill("searched the whole day")
        await form.locator("[name=searched]").check()
        await form.locator("[name=code]").fill("wrong")
        await form.locator("button").click()
        assert "code is missing or not known" in await page.inner_text("#mistakes")
        assert await form.locator("[name=lastTotal]").input_value() == "298.00"
        assert await form.locator("[name=searched]").is_checked()
        assert await form.locator("[name=code]").input_value() == ""
        await form.locator("[name=code]").fill(TECHNICIANS["wanjiru"])
        await form.locator("button").click()
        assert "another total" in await page.inner_text("#mistakes")
        assert await form.locator("[name=reason]").input_value() == "searched the whole day"
        await form.locator("[name=lastTotal]").fill("297.00")
        await form.locator("[name=code]").fill(TECHNICIANS["wanjiru"])
        await form.locator("button").click()
        # Nothing is decided before the consequence was read.
        assert "signed and taxed twice" in await page.inner_text("#confirm")
        shown = await shop.till().request("GET", f"/v1/invoices/{invoice_id}")
        assert shown.json["state"] == "IN_DOUBT"
        assert await page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        await page.fill("#confirm [name=code]", TECHNICIANS["wanjiru"])
        await page.click("#confirm button")
        await page.wait_for_url(address)
        assert "must send receipt" in await page.inner_text("#next")
        assert (await shop.till().sell("key", sale)).status == 201
        await page.close()
    assert len(await unit.journal()) == 2


async def test_without_a_known_bound_only_a_restart_ends_the_units_work(
    unit_process: ExternalUnit, unit: UnitControl, shop_dir: Path
) -> None:
    """Rule `rest`: the gateway itself has to see that an external unit was down."""
    clock = FakeClock()
    offset = round(clock.now().timestamp() - time.time())
    await unit.knobs(clockOffsetSeconds=offset)
    part = {"at_work_bounded": False}
    async with open_shop(make_settings(shop_dir, unit.url, unit=part, api=PATIENT), clock) as shop:
        await unit.knobs(diskFull=True)
        doubt = await shop.till().sell("key", a_sale())
        invoice_id = doubt.json["invoiceId"]
        await clock.advance(hours=1)
        refused = await shop.technician().decide(invoice_id, **statement(None))
        assert codes(refused) == {"UNIT_NOT_RESTARTED"}
        assert "Stop the unit" in refused.json["errors"][0]["message"]
        unit_process.kill()
        # The first look may only find its old connection broken.
        while "no connection" not in (shop.gateway.health.reason or ""):
            await shop.gateway.watch.look()
        await unit_process.start()
        await unit.knobs(clockOffsetSeconds=offset + 3600)
        done = await decide(shop, invoice_id, **statement(None))
        assert (done.status, done.json.get("state")) == (200, "RECEIVED"), done.json


@pytest.mark.parametrize(
    ("host", "bounded", "expected"),
    [
        ("in-process", None, True),
        ("in-process", False, False),
        ("external", None, False),
        ("external", True, True),
    ],
)
def test_an_external_units_work_has_no_known_bound_by_default(
    shop_dir: Path, host: str, bounded: bool | None, expected: bool
) -> None:
    part = {"host": host, "at_work_bounded": bounded}
    settings = make_settings(shop_dir, "http://127.0.0.1:1", unit=part)
    assert settings.unit.work_is_bounded is expected
