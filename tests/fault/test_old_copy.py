"""A backup is put back, and tills send again what they sold since: never signed a second time."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from gateway import tools
from gateway.errors import SchemaNewer
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.unit_rest import UnitRest, UnitWork
from gateway.settings import Settings
from gateway.store import backup, migrate, unclear_keys
from gateway.store.database import FILE_NAME, open_database
from gateway.store.lost import Carried
from gateway.store.restore import restore
from gateway.store.unclear_keys import SaleName
from hw_fakes.daraja import FakeDaraja
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import UnitControl
from tests.support import decisions, unit_database
from tests.support.clock import FakeClock
from tests.support.paid_shop import a_paid_sale, a_phone, mpesa_settings, mpesa_tender
from tests.support.shop import (
    TECHNICIANS,
    TOKENS,
    OpenShop,
    Reply,
    a_sale,
    make_settings,
    open_shop,
)
from tests.support.unit_database import COUNTER_QUERY


def code(reply: Reply) -> tuple[int, str, str]:
    return reply.status, reply.json["code"], reply.json["signed"]


async def say_next(shop: OpenShop, number: int) -> dict[str, Any]:
    reply = await decisions.number(shop, number)
    assert reply.status == 200, reply.json
    answer: dict[str, Any] = reply.json
    return answer


async def go_back_one_sale(
    settings: Settings, lost: dict[str, Any], *keys: str | None, new_disk: bool = True
) -> Path:
    """Sells one sale, makes a backup, sells `lost` under each key, and puts the backup back: on a new disk,
    or beside the store that it takes the place of."""
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
        made = tools.backup_now(settings, settings.store.directory.parent / "stick")
        for key in keys:
            assert (await shop.till().sell(key, lost)).status == 201
    if new_disk:
        shutil.rmtree(settings.store.directory)
    tools.restore(settings, made.path, unit_keys=False)
    return made.path


@pytest.mark.parametrize("key", ["till1-000002", None], ids=["key", "no key"])
async def test_a_sale_that_only_the_lost_disk_knew_is_not_signed_again(
    unit: UnitControl, shop_dir: Path, key: str | None
) -> None:
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    await go_back_one_sale(settings, lost, key)
    for _ in range(2):  # nobody has answered yet; a restart changes nothing
        async with open_shop(settings) as shop:
            held = await shop.till().sell(key, lost)
            assert code(held) == (503, "UNIT_AHEAD", "unknown")
    async with open_shop(settings) as shop:
        settled = await say_next(shop, 3)
        assert [sale["tillId"] for sale in settled["unclearSales"]] == ["till-1"]
        refused = await shop.till().sell(key, lost)
        assert code(refused) == (409, "MAYBE_SIGNED", "unknown")
        page = (await shop.till().request("GET", "/unit")).body.decode()
        assert "Sales that may have a receipt already" in page
        assert (key or "keyless:") in page
        assert lost["tillReceiptNo"] in page
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell(key, lost))[1] == "MAYBE_SIGNED"
        # What was never sent under the old copy is a sale like any other, also at another till.
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 3
        assert (await shop.till("till-2").sell("till1-000002", a_sale())).status == 201
        with pytest.raises(Exception, match="stays so"):
            await shop.gateway.db.write(lambda conn: conn.execute("DELETE FROM unclear_key"))
    assert [entry["invcNo"] for entry in await unit.journal()] == [1, 2, 3, 4]


async def test_when_nothing_is_missing_what_came_meanwhile_is_sold(
    unit: UnitControl, shop_dir: Path
) -> None:
    settings = make_settings(shop_dir, unit.url)
    await go_back_one_sale(settings, a_sale())
    sale = a_sale()
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("now", sale))[1] == "UNIT_AHEAD"
        assert (await say_next(shop, 2))["unclearSales"] == []
        assert (await shop.till().sell("now", sale)).status == 201
    assert len(await unit.journal()) == 2


@pytest.mark.parametrize(
    ("new_disk", "unit_shows", "said"),
    [
        pytest.param(True, 2, 2, id="the unit has it, whatever number a person says"),
        pytest.param(False, 1, 3, id="the replaced store had it, though the unit agrees"),
    ],
)
async def test_whoever_has_the_lost_sale_outweighs_who_has_not(
    unit: UnitControl, shop_dir: Path, new_disk: bool, unit_shows: int, said: int
) -> None:
    """What is read as the unit's database may be an old copy itself."""
    database = {"database": shop_dir / "unit.sqlite", "database_counter_query": COUNTER_QUERY}
    settings = make_settings(shop_dir, unit.url, unit=database)
    unit_database.write(shop_dir / "unit.sqlite", [])
    lost = a_sale()
    await go_back_one_sale(settings, lost, "lost", new_disk=new_disk)
    unit_database.write(shop_dir / "unit.sqlite", (await unit.journal())[:unit_shows])
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("lost", lost)) == (503, "UNIT_AHEAD", "unknown")
        await say_next(shop, said)
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 2


async def test_a_claim_that_the_backup_holds_unsigned_is_unclear_too(
    unit: UnitControl, shop_dir: Path
) -> None:
    quick = {"start_timeout_s": 0.1, "probe_timeout_s": 0.1}
    nowhere = make_settings(shop_dir, f"http://127.0.0.1:{free_port()}", unit=quick)
    settings = make_settings(shop_dir, unit.url)
    sale = a_sale()
    async with open_shop(nowhere) as shop:
        assert code(await shop.till().sell("claimed", sale))[2] == "no"
        made = tools.backup_now(nowhere, None)
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("claimed", sale)).status == 201
    tools.restore(settings, made.path, unit_keys=False)
    async with open_shop(settings) as shop:
        await say_next(shop, 2)
        assert code(await shop.till().sell("claimed", sale)) == (409, "MAYBE_SIGNED", "unknown")
    assert len(await unit.journal()) == 1


async def test_nobody_is_asked_for_money_again(unit: UnitControl, shop_dir: Path) -> None:
    async with FakeDaraja(time_scale=0.01) as fake:
        settings = mpesa_settings(shop_dir, unit.url, fake)
        lost = a_paid_sale(mpesa_tender(a_phone()))
        await go_back_one_sale(settings, lost, "lost")
        (push,) = fake.pushes
        async with open_shop(settings) as shop:
            assert code(await shop.till().sell("lost", lost)) == (503, "UNIT_AHEAD", "unknown")
            await say_next(shop, 3)
            assert code(await shop.till().sell("lost", lost)) == (409, "MAYBE_SIGNED", "unknown")
        assert fake.pushes == [push]
    assert len(await unit.journal()) == 2


async def test_a_key_that_comes_while_the_person_answers_came_before(shop_dir: Path) -> None:
    async with open_database(shop_dir / "store") as db:

        def answered(conn):  # type: ignore[no-untyped-def]
            unclear_keys.note(conn, SaleName("till-1", "early"), at=1)
            unclear_keys.settle(conn)
            unclear_keys.note(conn, SaleName("till-1", "late"), at=2, settled=True)
            unclear_keys.forget(conn)
            return [unclear_keys.is_settled(conn, "till-1", key) for key in ("early", "late", "x")]

        assert await db.write(answered) == [True, True, False]


@pytest.mark.parametrize(
    ("state", "unclear"), [("COLLECTING", True), ("READY", True), ("CLOSED", False)]
)
async def test_a_sale_that_waits_for_its_money_is_quarantined_as_well(
    shop_dir: Path, state: str, unclear: bool
) -> None:
    """It is signed without its till once it is paid, so that its till cannot be asked first."""
    async with open_database(shop_dir / "store") as db:

        def settle(conn):  # type: ignore[no-untyped-def]
            conn.execute(
                "INSERT INTO checkout (id, till_id, idem_key, body_digest, request, document, sale_ref,"
                " total_cents, state, created_at, updated_at)"
                " VALUES (?, 'till-1', 'paid', ?, x'', x'', 'P1', 100, ?, 1, 1)",
                ("I" * 26, "0" * 64, state),
            )
            unclear_keys.settle(conn)
            return unclear_keys.is_settled(conn, "till-1", "paid")

        assert await db.write(settle) is unclear


@pytest.mark.parametrize("key", ["till1-000002", None], ids=["key", "no key"])
async def test_nothing_else_that_stops_selling_makes_it_not_signed(
    unit: UnitControl, shop_dir: Path, key: str | None
) -> None:
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    await go_back_one_sale(settings, lost, key)
    clock = FakeClock(datetime.now(UTC))
    async with open_shop(settings, clock) as shop:
        assert code(await shop.till().sell(key, lost)) == (503, "UNIT_AHEAD", "unknown")
        # What was sent before this start is over by then.
        await clock.advance(seconds=1)
        await say_next(shop, 3)
        await clock.advance(seconds=1)
        clock.step_wall(days=-400)
        assert (await shop.till().sell("new", a_sale())).json["code"] == "CLOCK_FAULT"
        assert code(await shop.till().sell(key, lost)) == (409, "MAYBE_SIGNED", "unknown")
    assert len(await unit.journal()) == 2


@pytest.mark.parametrize("key", ["till1-000002", None], ids=["key", "no key"])
async def test_a_sale_that_first_comes_after_the_answer_is_known_from_the_replaced_store(
    unit: UnitControl, shop_dir: Path, key: str | None
) -> None:
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    await go_back_one_sale(settings, lost, key, new_disk=False)
    async with open_shop(settings) as shop:
        status = (await shop.till().request("GET", "/v1/status")).json
        assert "had 1 receipt more, up to invoice number 2" in status["signer"]["hold"]
        reply = await decisions.number(shop, 2)
        assert (reply.status, reply.json["errors"][0]["message"]) == (422, "It must be 3 or more.")
        settled = await say_next(shop, 3)
        (sale,) = settled["unclearSales"]
        assert sale["key"].startswith(key or "keyless:")
        assert (sale["tillReceiptNo"], sale["total"]) == (lost["tillReceiptNo"], "297.00")
        assert code(await shop.till().sell(key, lost)) == (409, "MAYBE_SIGNED", "unknown")
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 3
    assert len(await unit.journal()) == 3


async def test_what_the_first_of_two_restored_copies_knew_is_not_forgotten(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The backup is put back once more before anybody has answered; and again after it."""
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    made = await go_back_one_sale(settings, lost, "lost", new_disk=False)
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("lost", lost))[1] == "UNIT_AHEAD"
    tools.restore(settings, made, unit_keys=False)
    async with open_shop(settings) as shop:
        await say_next(shop, 3)
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
        after = a_sale()
        assert (await shop.till().sell("after", after)).json["invcNo"] == 3
    tools.restore(settings, made, unit_keys=False)
    async with open_shop(settings) as shop:
        await say_next(shop, 4)
        for key, sale in (("lost", lost), ("after", after)):
            assert code(await shop.till().sell(key, sale))[1] == "MAYBE_SIGNED"
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 4
    assert len(await unit.journal()) == 4


async def test_a_kill_between_the_answer_and_its_effect_changes_nothing(
    unit: UnitControl, shop_dir: Path
) -> None:
    """What a person answered is in the store before anything else knows it."""
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    await go_back_one_sale(settings, lost, "lost", new_disk=False)
    async with open_shop(settings):
        pass
    async with open_database(settings.store.directory) as db:
        # The daemon is gone right after the commit of the answer.
        clock = FakeClock()
        rest = UnitRest(clock, UnitWork(90, True, True, "this one"), decisions.Link(clock))
        watch = AheadWatch(db=db, clock=clock, rest=rest)
        await watch.settle_by_person(3, "wanjiru", "the portal")
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
        assert (await shop.till().sell("new", a_sale())).json["invcNo"] == 3
    assert len(await unit.journal()) == 3


@pytest.mark.parametrize("damage", ["sales", "keys", "all"])
async def test_a_damaged_store_gives_what_can_be_read_of_it(
    unit: UnitControl, shop_dir: Path, damage: str
) -> None:
    settings = make_settings(shop_dir, unit.url)
    lost = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
        made = tools.backup_now(settings, None)
        assert (await shop.till().sell("lost", lost)).status == 201
    damage_store(settings.store.directory / FILE_NAME, damage)
    carried = tools.restore(settings, made.path, unit_keys=False)["carried"]
    if damage == "all":
        assert carried == Carried(whole=False)
    else:
        assert carried == Carried(sales=1, receipts=1)
    async with open_shop(settings) as shop:
        if damage == "all":
            # Only what comes before the answer is known then.
            assert code(await shop.till().sell("lost", lost))[1] == "UNIT_AHEAD"
        # A number that stands in a damaged store may be any; the witness knows the last one.
        await say_next(shop, 3)
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 2


def damage_store(file: Path, damage: str) -> None:
    """Overwrites the page where the table of sales begins, or its index of keys, or everything."""
    if damage == "all":
        file.write_bytes(b"\xff" * file.stat().st_size)
        return
    name = {"sales": "invoice", "keys": "sqlite_autoindex_invoice_3"}[damage]
    with closing(sqlite3.connect(file)) as conn:
        assert conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        size = conn.execute("PRAGMA page_size").fetchone()[0]
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = conn.execute(query, (name,)).fetchone()
        keys = conn.execute("PRAGMA index_info(sqlite_autoindex_invoice_3)").fetchall()
        assert [row[2] for row in keys] == ["till_id", "idem_key"]
    with file.open("r+b") as out:
        out.seek((page - 1) * size)
        out.write(b"\xff" * size)


async def test_a_unit_that_was_put_back_too_proves_nothing(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A new machine: store and unit's folder come from the backup, and agree about what both have lost."""
    folder = shop_dir / "unit"
    folder.mkdir()
    (folder / "device.key").write_text("the unit's key")
    known = {
        "directory": folder,
        "database": folder / "unit.sqlite",
        "database_counter_query": COUNTER_QUERY,
    }
    settings = make_settings(shop_dir, unit.url, unit=known)
    unit_database.write(folder / "unit.sqlite", [])
    lost = a_sale()
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
        unit_database.write(folder / "unit.sqlite", await unit.journal())
        made = tools.backup_now(settings, shop_dir / "stick")
        assert (await shop.till().sell("lost", lost)).status == 201
    shutil.rmtree(folder)
    shutil.rmtree(settings.store.directory)
    tools.restore(settings, made.path, unit_keys=True)
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("lost", lost)) == (503, "UNIT_AHEAD", "unknown")
        status = (await shop.till().request("GET", "/v1/status")).json
        assert "only KRA's portal shows" in status["signer"]["hold"]
        await say_next(shop, 3)
        assert code(await shop.till().sell("lost", lost))[1] == "MAYBE_SIGNED"
    assert len(await unit.journal()) == 2


async def test_a_backup_of_an_older_version_is_brought_up_and_of_a_newer_one_refused(
    shop_dir: Path,
) -> None:
    at = datetime(2026, 7, 7, 9, tzinfo=UTC)
    old, here = shop_dir / "old", shop_dir / "here"
    old.mkdir()
    with closing(sqlite3.connect(old / FILE_NAME)) as conn:
        for number, _, sql in migrate.migrations()[:1]:
            conn.executescript(f"{sql}; PRAGMA user_version = {number};")
        conn.execute(f"PRAGMA application_id = {migrate.APPLICATION_ID}")
    async with open_database(here):
        pass
    made = backup.make(old, None, shop_dir / "stick", at)
    assert restore(made.path, here, None, at)["receipts"] == 0
    with closing(sqlite3.connect(here / FILE_NAME)) as conn:
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        assert version == len(migrate.migrations())
    with closing(sqlite3.connect(old / FILE_NAME)) as conn:
        conn.execute("PRAGMA user_version = 9999")
    newer = backup.make(old, None, shop_dir / "stick", at + timedelta(hours=1))
    before = (here / FILE_NAME).read_bytes()
    with pytest.raises(SchemaNewer):
        restore(newer.path, here, None, at + timedelta(hours=2))
    assert (here / FILE_NAME).read_bytes() == before


async def copy_with_an_open_sale(
    unit: UnitControl, shop_dir: Path, **part: Any
) -> tuple[Settings, dict[str, Any]]:
    """A store that was copied while a sale was in doubt, and restored after that sale was declared unsigned and
    rung up under a new key: (settings, the open sale)."""
    settings = make_settings(shop_dir, unit.url, unit=part, api={"wait_s": 60})
    sale = a_sale()
    async with open_shop(settings) as shop:
        await unit.knobs(diskFull=True)
        doubt = await shop.till().sell("open", sale)
        assert doubt.json["code"] == "OUTCOME_UNKNOWN"
        made = tools.backup_now(settings, shop_dir / "stick")
        await unit.knobs(diskFull=False)
        said = decisions.statement(None)
        assert (await decisions.decide(shop, doubt.json["invoiceId"], **said)).status == 200
        assert (await shop.till().sell("new-key", {**sale, "tillReceiptNo": "AGAIN"})).status == 201
    shutil.rmtree(settings.store.directory)
    tools.restore(settings, made.path, unit_keys=False)
    return settings, sale


async def test_the_open_sale_of_a_copy_is_never_sent_again(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V9: not by the resolver after the numbering decision, and no operator releases it before."""
    settings, sale = await copy_with_an_open_sale(unit, shop_dir)
    async with open_shop(settings) as shop:
        held = await shop.till().sell("open", sale)
        assert held.json["signed"] == "unknown"
        assert shop.gateway.status.ahead.is_copy
        invoice_id = held.json["invoiceId"]
        (entry,) = await unit.journal()
        refused = await decisions.decide(shop, invoice_id, **decisions.statement(entry))
        assert decisions.codes(refused) >= {"SIGNING_HELD"}
        assert "decide on the page /unit" in refused.json["errors"][0]["message"]
        await say_next(shop, 2)
        assert code(await shop.till().sell("open", sale)) == (409, "MAYBE_SIGNED", "unknown")
        case = await shop.technician().request("GET", f"/v1/invoices/{invoice_id}/decision")
        assert (case.json["state"], case.json["choices"]) == ("RECEIVED", [])
        assert "never signed under its key" in case.json["next"]
        assert (await shop.till().sell("after", a_sale())).json["invcNo"] == 2
    async with open_shop(settings) as shop:
        assert code(await shop.till().sell("open", sale))[1] == "MAYBE_SIGNED"
    assert [entry["trdInvcNo"] for entry in await unit.journal()].count(sale["tillReceiptNo"]) == 0


async def test_an_equal_counter_does_not_end_the_hold_of_a_copy_with_an_open_sale(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V10: the counter agrees, because the database that is read is as old as the copy."""
    file = shop_dir / "unit.sqlite"
    unit_database.write(file, [])
    part = {"database": file, "database_counter_query": COUNTER_QUERY}
    settings, _ = await copy_with_an_open_sale(unit, shop_dir, **part)
    async with open_shop(settings) as shop:
        reply = await shop.till().sell("next", a_sale())
        assert code(reply) == (503, "UNIT_AHEAD", "unknown")
    assert len(await unit.journal()) == 1


async def test_an_equal_counter_ends_the_hold_only_when_the_unit_is_at_rest(
    unit: UnitControl, shop_dir: Path
) -> None:
    """V11: an external unit may still be signing what was sent before the restore."""
    file = shop_dir / "unit.sqlite"
    part = {"database": file, "database_counter_query": COUNTER_QUERY, "at_work_s": 90}
    settings = make_settings(shop_dir, unit.url, unit=part)
    clock = FakeClock(datetime.now(UTC))
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
        made = tools.backup_now(settings, shop_dir / "stick")
    unit_database.write(file, await unit.journal())
    shutil.rmtree(settings.store.directory)
    tools.restore(settings, made.path, unit_keys=False)
    sale = a_sale()
    async with open_shop(settings, clock) as shop:
        assert code(await shop.till().sell("now", sale)) == (503, "UNIT_AHEAD", "unknown")
        status = (await shop.till().request("GET", "/v1/status")).json
        assert "compared again" in status["signer"]["hold"]
        await clock.advance(seconds=91)
        async with asyncio.timeout(60):
            while (await shop.till().sell("now", sale)).status != 201:
                await clock.advance(seconds=1)
    assert len(await unit.journal()) == 2


async def test_the_numbering_waits_for_the_unit_and_for_every_till(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A7: a key that comes first after the decision is not recognised, so each till is asked for."""
    settings = make_settings(shop_dir, unit.url, unit={"at_work_s": 90})
    lost = a_sale()
    await go_back_one_sale(settings, lost, "lost")
    clock = FakeClock(datetime.now(UTC))
    async with open_shop(settings, clock) as shop:
        assert code(await shop.till("till-2").sell("lost", lost))[1] == "UNIT_AHEAD"
        soon = await shop.technician().request(
            "POST", "/v1/unit/numbering", json={"nextInvcNo": 3, "reason": "the portal"}
        )
        assert decisions.codes(soon) == {"TOO_SOON", "TILLS_SILENT"}
        assert soon.json["signed"] == "unknown"
        await clock.advance(seconds=91)
        shown = (await shop.technician().request("GET", "/v1/unit/numbering")).json
        assert shown["silentTills"] == [f"till-{n}" for n in (1, 3, 4, 5, 6, 7, 8)]
        page = (await shop.till().request("GET", "/unit")).body.decode()
        assert 'value="till-1"' in page and 'value="till-2"' not in page
        some = await decisions.number(shop, 3, silentTills=["till-1", "till-3"])
        assert decisions.codes(some) == {"TILLS_SILENT"}
        assert "till-4, till-5" in some.json["errors"][0]["message"]
        # A till that sends something in time needs no statement.
        await shop.till().sell("kept-too", a_sale())
        rest = [f"till-{n}" for n in (3, 4, 5, 6, 7, 8)]
        form = [("nextInvcNo", "3"), ("reason", "as the portal shows it")]
        form += [("silentTills", till) for till in rest]
        wrong = await shop.till().request("POST", "/unit", data=FormData([*form, ("code", "x")]))
        assert (wrong.status, wrong.body.count(b" checked")) == (401, 6)
        assert b'value="as the portal shows it"' in wrong.body
        good = FormData([*form, ("code", TECHNICIANS["wanjiru"])])
        done = await shop.till().request("POST", "/unit", data=good)
        assert (done.status, b"The unit and this store agree" in done.body) == (200, True)
        assert code(await shop.till("till-2").sell("lost", lost))[1] == "MAYBE_SIGNED"


@pytest.mark.parametrize("seen", [True, False], ids=["the unit has it", "only a backup"])
async def test_a_numbering_decision_without_kra_is_refused(
    unit: UnitControl, shop_dir: Path, seen: bool
) -> None:
    """The portal does not show what is still in the unit."""
    settings = make_settings(shop_dir, unit.url)
    await go_back_one_sale(settings, a_sale(), *(["lost"] if seen else []))
    await unit.knobs(upstream="offline")
    async with open_shop(settings) as shop:
        said = {"nextInvcNo": 3, "reason": "the portal", "silentTills": sorted(TOKENS)}
        async with asyncio.timeout(60):
            found: set[str] = set()
            while "KRA_NOT_REACHED" not in found:
                reply = await shop.technician().request("POST", "/v1/unit/numbering", json=said)
                found = decisions.codes(reply)
                assert found <= {"TOO_SOON", "KRA_NOT_REACHED"}
        await unit.knobs(upstream="online")
        await say_next(shop, 3)
