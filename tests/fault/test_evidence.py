"""Which facts prove what about a sale in doubt: one test for each rule of docs/internals/evidence.md."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.store import events
from hw_fakes.vscu.unit import UnitControl
from tests.hw_fakes.test_vscu import SALE, a_request
from tests.support import unit_database
from tests.support.daemon import Daemon
from tests.support.decisions import number
from tests.support.shop import OpenShop, Reply, a_sale, make_settings, open_shop
from tests.support.unit_database import COUNTER_QUERY
from tests.support.unit_proxy import unit_proxy

PATIENT = {"wait_s": 60}
NOTICES = "/notices/selectNotices"
READ_BACK = {"read_back": True}


async def until_it_ends(shop: OpenShop, key: str, sale: dict[str, Any]) -> Reply:
    """Repeat the key until the answer is final."""
    while True:
        reply = await shop.till().sell(key, sale)
        if reply.json.get("code") != "OUTCOME_UNKNOWN" and reply.status != 202:
            return reply


def begun_daemon(directory: Path, unit_settings: str, **properties: str) -> Daemon:
    daemon = Daemon(directory)
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("resend = true", f"resend = false\n{unit_settings}"))
    slow_down(daemon, **properties)
    return daemon


def slow_down(daemon: Daemon, **properties: str) -> None:
    """Set what the unit does from its next start on."""
    file = daemon.directory / "unit" / "config" / "application.properties"
    names = {f"fake.{name}" for name in properties}
    kept = [line for line in file.read_text().splitlines() if line.split("=")[0] not in names]
    kept += [f"fake.{name}={value}" for name, value in properties.items()]
    file.write_text("\n".join(kept) + "\n")


async def cut_while_signing(daemon: Daemon, session: aiohttp.ClientSession, sale: Any) -> None:
    """Kill gateway and unit while the unit works on the sale `victim`, before it has signed."""
    await daemon.unit.knobs(latencyMs=60_000)
    asking = asyncio.ensure_future(daemon.till(session).sell("victim", sale))
    while not daemon.stored("SIGNING"):
        await asyncio.sleep(0.01)
    await daemon.kill()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_permission_that_was_right_at_the_start_does_not_outlive_the_first_sending(
    tmp_path: Path,
) -> None:
    """V1, rule `life`: an empty read-back proves something about an earlier run's sending only."""
    daemon = begun_daemon(tmp_path, "read_back = true\nanswer_timeout_s = 2", readBack="true")
    sale = a_sale()
    async with aiohttp.ClientSession() as session:
        await daemon.start()
        assert (await daemon.till(session).sell("before", a_sale())).status == 201
        await cut_while_signing(daemon, session, sale)
        slow_down(daemon, latencyMs="6000")
        await daemon.start()
        till = daemon.till(session)
        # Nothing of the earlier run can be signed any more: rightly released.
        reply = await till.sell("victim", sale)
        while reply.json.get("signed") != "no":
            reply = await till.sell("victim", sale)
        # Sent by this run; the unit is slower than the gateway waits, and shows nothing yet.
        while not daemon.stored("IN_DOUBT") and not daemon.stored("SIGNING"):
            reply = await till.sell("victim", sale)
        while reply.status != 201:
            reply = await till.sell("victim", sale)
            assert reply.status == 201 or reply.json["signed"] == "unknown", reply.json
        journal = [
            e for e in await daemon.unit.journal() if e["trdInvcNo"] == sale["tillReceiptNo"]
        ]
        await daemon.stop()
    assert [entry["rcptSign"] for entry in journal] == [reply.json["rcptSign"]]


async def test_an_equal_counter_after_a_restart_proves_that_nothing_was_signed(
    tmp_path: Path,
) -> None:
    """Rule `count`: without a read-back the doubt of a killed sale ends by the unit's counter."""
    file = tmp_path / "unit.sqlite"
    daemon = begun_daemon(
        tmp_path,
        f'database = "{file}"\ndatabase_counter_query = "{COUNTER_QUERY}"',
    )
    sale = a_sale()
    async with aiohttp.ClientSession() as session:
        await daemon.start()
        assert (await daemon.till(session).sell("before", a_sale())).status == 201
        unit_database.write(file, await daemon.unit.journal())
        await cut_while_signing(daemon, session, sale)
        await daemon.start()
        reply = await daemon.till(session).sell("victim", sale)
        while reply.status != 201:
            assert reply.json["signed"] in ("no", "unknown")
            reply = await daemon.till(session).sell("victim", sale)
        assert len(await daemon.unit.journal()) == 2
        await daemon.stop()


@pytest.mark.parametrize("lasting", [True, False])
async def test_a_unit_that_may_remember_over_a_restart_is_left_to_a_person(
    tmp_path: Path, lasting: bool
) -> None:
    """A3: without `forgets_on_restart` an empty read-back never proves that nothing was signed."""
    daemon = begun_daemon(tmp_path, "read_back = true", readBack="true")
    if lasting:
        text = daemon.config.read_text()
        daemon.config.write_text(text.replace("forgets_on_restart = true", ""))
    sale = a_sale()
    async with aiohttp.ClientSession() as session:
        await daemon.start()
        assert (await daemon.till(session).sell("before", a_sale())).status == 201
        await cut_while_signing(daemon, session, sale)
        await daemon.start()
        reply = await daemon.till(session).sell("victim", sale)
        while reply.status == 202:
            reply = await daemon.till(session).sell("victim", sale)
        assert reply.json.get("signed", "yes") == ("unknown" if lasting else "no")
        await daemon.stop()


async def test_a_second_gateway_on_the_unit_never_gets_the_first_ones_receipts(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V12 and V13, rules `id` and `other`: both sell the same goods at the same second under one number."""
    one = make_settings(shop_dir / "one", unit.url, unit=READ_BACK, api=PATIENT)
    two = make_settings(shop_dir / "two", unit.url, unit=READ_BACK, api=PATIENT)
    await unit.knobs(readBack=True)
    sale = a_sale(tillReceiptNo="0001")
    async with open_shop(one) as first, open_shop(two) as second:
        # Its empty store beside a used unit is noticed; an operator lets it sell all the same.
        refused = await second.till().sell("early", a_sale())
        assert (refused.json["code"], refused.json["signed"]) == ("EMPTY_STORE", "unknown")
        assert (await number(second, 1)).status == 200
        ours, theirs = await asyncio.gather(
            first.till().sell("a", sale), second.till().sell("a", sale)
        )
        outcomes = sorted([ours, theirs], key=lambda reply: reply.status)
        assert outcomes[0].status == 201
        assert (outcomes[1].status, outcomes[1].json["code"]) == (409, "MAYBE_SIGNED")
        held = first if ours.status == 409 else second
        other = await held.till().sell("b", a_sale())
        assert (other.json["code"], other.json["signed"]) == ("UNIT_AHEAD", "unknown")
    assert len(await unit.journal()) == 1


@pytest.mark.parametrize("answer", ["924", "994", "expected"])
async def test_a_duplicate_of_a_fresh_number_quarantines_the_key_and_holds_signing(
    unit: UnitControl, shop_dir: Path, answer: str
) -> None:
    """R4, V7: a store that lost its newest sales sends a number that the unit has used."""
    newer = make_settings(shop_dir / "newer", unit.url, api=PATIENT)
    async with open_shop(newer) as shop:
        assert (await shop.till().sell("before", a_sale())).status == 201
    settings = make_settings(shop_dir / "old", unit.url, api=PATIENT)
    shutil.copytree(newer.store.directory, settings.store.directory)
    async with open_shop(newer) as shop:
        sale = a_sale()
        lost = await shop.till().sell("LOST", sale)
        assert lost.status == 201
    await unit.knobs(duplicateAnswer=answer)
    async with open_shop(settings) as shop:
        reply = await shop.till().sell("LOST", sale)
        assert (reply.status, reply.json["code"]) == (409, "MAYBE_SIGNED")
        assert reply.json["signed"] == "unknown"
        other = await shop.till("till-2").sell("other", a_sale())
        assert (other.json["code"], other.json["signed"]) == ("UNIT_AHEAD", "unknown")
    # A restart forgets neither the hold nor the key.
    async with open_shop(settings) as shop:
        again = await shop.till().sell("LOST", sale)
        assert again.json["code"] == "MAYBE_SIGNED"
        other = await shop.till("till-2").sell("another", a_sale())
        assert other.json["code"] == "UNIT_AHEAD"
    assert len(await unit.journal()) == 2


async def test_an_answer_with_the_preceding_receipt_is_a_doubt(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V15, R6, rule `fresh`: the unit answers with the receipt of the sale before."""
    kept: list[dict[str, Any]] = []

    def repeated(count: int, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        kept.append(answer)
        return kept[0] if count == 2 else answer

    async with unit_proxy(unit.url) as proxy:
        proxy.changes[SALE] = repeated
        settings = make_settings(shop_dir, proxy.url, unit={"resend": False}, api=PATIENT)
        async with open_shop(settings) as shop:
            first = await shop.till().sell("one", a_sale())
            assert first.status == 201
            second = await shop.till().sell("two", a_sale())
            assert (second.status, second.json["code"]) == (503, "OUTCOME_UNKNOWN")
            told = await shop.gateway.db.read(
                lambda conn: events.story(conn, second.json["invoiceId"])
            )
            (doubt,) = [event.data for event in told if event.kind == "invoice.in_doubt"]
            assert "not above 1" in doubt["reason"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"totRcptNo": 1}, "not above"),
        ({"sdcId": "KRACU0999999999"}, "another control unit"),
        ({"vsdcRcptPbctDate": "20200101120000"}, "time"),
        ({"rcptSign": "FIRST"}, "signature"),
        ({"rcptSign": "A" * 100_000}, "rcptSign"),
        ({"rcptSign": "A\x00B"}, "rcptSign"),
        ({"rcptSign": "A\ud800B"}, "rcptSign"),
        ({"intrlData": "\u202eA"}, "intrlData"),
        ({"totRcptNo": -3}, "totRcptNo"),
    ],
)
async def test_an_answer_that_cannot_be_this_sales_is_a_doubt(
    unit: UnitControl, shop_dir: Path, changes: dict[str, Any], reason: str
) -> None:
    first_sign: list[str] = []

    def changed(count: int, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if count == 1:
            first_sign.append(answer["data"]["rcptSign"])
            return answer
        values = {k: first_sign[0] if v == "FIRST" else v for k, v in changes.items()}
        return {**answer, "data": {**answer["data"], **values}}

    async with unit_proxy(unit.url) as proxy:
        proxy.changes[SALE] = changed
        settings = make_settings(shop_dir, proxy.url, unit={"resend": False}, api=PATIENT)
        async with open_shop(settings) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            second = await shop.till().sell("two", a_sale())
            assert second.json["code"] == "OUTCOME_UNKNOWN"
            told = await shop.gateway.db.read(
                lambda conn: events.story(conn, second.json["invoiceId"])
            )
            (doubt,) = [event.data for event in told if event.kind == "invoice.in_doubt"]
            assert reason in doubt["reason"]


async def test_a_receipt_found_later_that_is_another_sales_is_not_attached(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The resend answers with the receipt of the sale before: it proves nothing about this one."""
    kept: list[dict[str, Any]] = []

    def repeated(count: int, request: dict[str, Any], answer: dict[str, Any]) -> Any:
        kept.append(answer)
        return {1: answer, 2: None}.get(count, kept[0])

    async with unit_proxy(unit.url) as proxy:
        proxy.changes[SALE] = repeated
        settings = make_settings(shop_dir, proxy.url, api=PATIENT)
        async with open_shop(settings) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            second = await shop.till().sell("two", a_sale())
            assert second.json["code"] == "OUTCOME_UNKNOWN"
            while proxy.count(SALE) < 3:
                await shop.till().sell("two", second.json)
            state = await shop.till().request("GET", f"/v1/invoices/{second.json['invoiceId']}")
            assert state.json["state"] == "IN_DOUBT"


@pytest.mark.parametrize("form", ["894", "838", "hang up"])
async def test_the_resend_is_kept_until_the_unit_reaches_kra(
    unit: UnitControl, shop_dir: Path, form: str
) -> None:
    """F2: trouble on the unit's path to KRA, before and after the first sending."""

    def link(count: int, request: dict[str, Any], answer: dict[str, Any]) -> Any:
        if count > 1:
            return answer
        return None if form == "hang up" else {"resultCd": form, "resultMsg": "", "data": None}

    def away(count: int, request: dict[str, Any], answer: dict[str, Any]) -> Any:
        return {**answer, "resultCd": "894", "data": None}

    async with unit_proxy(unit.url) as proxy:
        async with open_shop(make_settings(shop_dir, proxy.url, api=PATIENT)) as shop:
            proxy.changes |= {SALE: link, NOTICES: away}
            proxy.kept[SALE] = 1
            sale = a_sale()
            reply = await shop.till().sell("key", sale)
            assert reply.json["code"] == "OUTCOME_UNKNOWN"
            looks = proxy.count(NOTICES)
            while proxy.count(NOTICES) < looks + 3:
                reply = await shop.till().sell("key", sale)
                assert reply.json["code"] == "OUTCOME_UNKNOWN"
            # The unit was asked three times more whether it reaches KRA, and nothing was sent again.
            assert proxy.count(SALE) == 1
            del proxy.changes[NOTICES]
            reply = await until_it_ends(shop, "key", sale)
            assert (reply.status, reply.json["recovered"]) == (201, True)
            assert proxy.count(SALE) == 2
    assert len(await unit.journal()) == 1


@pytest.mark.parametrize("code", ["910", "834", "893", "934"])
async def test_a_refusal_of_the_resend_proves_nothing_about_the_first_sending(
    unit: UnitControl, shop_dir: Path, code: str
) -> None:
    """V3, rule `bytes`: some builds report a duplicate as a refusal, in words of their own."""

    def refused(count: int, request: dict[str, Any], answer: dict[str, Any]) -> Any:
        if count == 1:
            return None
        return {**answer, "resultCd": code, "resultMsg": "Request parameter error", "data": None}

    async with unit_proxy(unit.url) as proxy:
        proxy.changes[SALE] = refused
        async with open_shop(make_settings(shop_dir, proxy.url, api=PATIENT)) as shop:
            sale = a_sale()
            for _ in range(3):
                reply = await shop.till().sell("key", sale)
                assert reply.json["code"] == "OUTCOME_UNKNOWN"
                assert reply.json["signed"] == "unknown"
            assert proxy.count(SALE) == 2
    assert len(await unit.journal()) == 1


async def test_nothing_is_sent_again_where_the_build_is_not_known_to_refuse_a_repeated_number(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V2, A1: the default. A person decides, and is asked for at once."""
    settings = make_settings(shop_dir, unit.url, unit={"resend": False}, api=PATIENT)
    async with unit_proxy(unit.url) as proxy:
        proxy.changes[SALE] = lambda count, request, answer: None
        settings = make_settings(shop_dir, proxy.url, unit={"resend": False}, api=PATIENT)
        async with open_shop(settings) as shop:
            reply = await shop.till().sell("key", a_sale())
            assert reply.json["code"] == "OUTCOME_UNKNOWN"
            assert "by a person" in reply.json["detail"]
            told = await shop.gateway.db.read(
                lambda conn: events.story(conn, reply.json["invoiceId"])
            )
            looked = [event.data for event in told if event.kind == "doubt.examined"]
            assert [look["needsPerson"] for look in looked] == [True]
            assert proxy.count(SALE) == 1


async def test_something_else_that_signs_with_the_unit_is_detected_and_named(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A2: a gap in the receipt counter holds signing; the receipt itself is good."""
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201
        assert (await unit.post(SALE, a_request(900)))["resultCd"] == "000"
        sale = a_sale()
        beside = await shop.till().sell("two", sale)
        assert beside.status == 201
        held = await shop.till().sell("three", a_sale())
        assert (held.json["code"], held.json["signed"]) == ("UNIT_AHEAD", "unknown")
        assert "something else signs with this unit" in held.json["detail"]
        assert (await shop.till().sell("two", sale)).body == beside.body


async def test_a_receipt_number_and_a_signature_belong_to_one_sale(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The database refuses what the code would have let through."""
    async with open_shop(make_settings(shop_dir, unit.url, api=PATIENT)) as shop:
        assert (await shop.till().sell("one", a_sale())).status == 201

        def double(conn: sqlite3.Connection, column: str) -> None:
            conn.execute(
                """INSERT INTO receipt (invoice_id, label, invc_no, rcpt_no, tot_rcpt_no, sdc_id, intrl_data,
                       rcpt_sign, scu_time, total_cents, how, signed_at, previous, hash)
                   SELECT invoice_id || 'x', label, invc_no + 1, rcpt_no, """
                + (
                    "tot_rcpt_no, sdc_id, 'I', 'other'"
                    if column == "number"
                    else "99, sdc_id, 'I', rcpt_sign"
                )
                + """, scu_time, total_cents, how, signed_at, previous, replace(hash, '0', '1') FROM receipt"""
            )

        for column in ("number", "signature"):
            with pytest.raises(sqlite3.IntegrityError, match=f"another sale has this.*{column}"):
                await shop.gateway.db.write(lambda conn, column=column: double(conn, column))
