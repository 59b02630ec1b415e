"""Flipped bits in the store: no second receipt, no changed answer, no crash without a page."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway import daemon
from gateway.continuity import store_check
from gateway.continuity.store_check import StoreCheck
from gateway.domain.signing import SigningState
from gateway.errors import StoreCorrupt, StoreError
from gateway.store import check_pass, damage, invoices, unit, verify, witness, witness_start
from gateway.store.check_pass import Position
from gateway.store.database import FILE_NAME, Database, open_database
from gateway.store.invoices import NewInvoice
from hw_fakes.vscu.unit import UnitControl
from tests.support import full_store
from tests.support.clock import FastClock
from tests.support.shop import a_sale, make_settings, open_shop

PAGE = 4096
# B-tree pages by their first byte.
KINDS = {2: "index interior", 5: "table interior", 10: "index leaf", 13: "table leaf"}


def page_of(file: Path, name: str, text: bytes, kind: int) -> int:
    """The offset of `text` in a page of this B-tree and kind."""
    with closing(sqlite3.connect(file)) as conn:
        assert conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert conn.execute("PRAGMA page_size").fetchone()[0] == PAGE
        query = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (root,) = conn.execute(query, (name,)).fetchone()
    body = file.read_bytes()
    pages = [root - 1]
    while pages:
        page = body[pages[0] * PAGE : (pages[0] + 1) * PAGE]
        start = 100 if pages[0] == 0 else 0
        if page[start] == kind and text in page:
            return pages[0] * PAGE + page.index(text)
        if page[start] in (2, 5):
            count = int.from_bytes(page[start + 3 : start + 5], "big")
            cells = [
                int.from_bytes(page[start + 12 + 2 * n : start + 14 + 2 * n], "big")
                for n in range(count)
            ]
            pages += [int.from_bytes(page[cell : cell + 4], "big") - 1 for cell in cells]
            pages.append(int.from_bytes(page[start + 8 : start + 12], "big") - 1)
        del pages[0]
    raise AssertionError(f"{text!r} is in no such page of {name}")


def flip(file: Path, offset: int, bit: int = 0) -> None:
    with file.open("r+b") as out:
        out.seek(offset)
        (byte,) = out.read(1)
        out.seek(offset)
        out.write(bytes([byte ^ (1 << bit)]))


@pytest.fixture
def few_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that looks at the newest five rows: the damage is older, as it mostly is."""
    monkeypatch.setattr(verify, "NEWEST", 5)
    monkeypatch.setattr(witness_start, "NEWEST", 5)


async def sold(unit_url: str, directory: Path, damaged: str) -> dict[str, Any]:
    """Forty sales, a clean stop, and the lowest bit of a byte of the eighth key's index entry flipped."""
    settings = make_settings(directory, unit_url)
    sales = {}
    async with open_shop(settings) as shop:
        for number in range(40):
            key = f"KEY-{number:04d}-abcdefgh"
            sales[key] = a_sale()
            reply = await shop.till().sell(key, sales[key])
            assert reply.status == 201
    file = directory / "store" / FILE_NAME
    flip(file, page_of(file, damaged, b"KEY-0007-abcdefgh", 10) + 5)
    return sales


async def test_one_flipped_bit_in_the_index_of_keys_gives_no_second_receipt(
    unit: UnitControl, shop_dir: Path, few_at_start: None
) -> None:
    """SQLite's quick_check is content with such a store."""
    sales = await sold(unit.url, shop_dir, "sqlite_autoindex_invoice_3")
    with closing(sqlite3.connect(shop_dir / "store" / FILE_NAME)) as conn:
        assert conn.execute("PRAGMA quick_check").fetchone()[0] == "ok"
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        key = "KEY-0007-abcdefgh"
        reply = await shop.till().sell(key, sales[key])
        assert (reply.status, reply.json["code"], reply.json["signed"]) == (
            503,
            "STORE_CORRUPT",
            "unknown",
        )
        # From here on nothing is signed, and the process ends so that the next one explains it.
        reply = await shop.till().sell("another", a_sale())
        assert (reply.status, reply.json["signed"]) == (503, "unknown")
        with pytest.raises(StoreError):
            await asyncio.wait_for(shop.gateway.db.failed(), 30)
    assert len(await unit.journal()) == 40
    # The next start knows it, and does not sign again.
    assert damage.read(shop_dir / "store") is not None
    with pytest.raises(StoreCorrupt, match="KEY-0007-abcdefgh"):
        async with open_shop(make_settings(shop_dir, unit.url)):
            pass


async def test_a_body_that_cannot_be_taken_is_not_called_unsigned_by_a_damaged_index(
    unit: UnitControl, shop_dir: Path, few_at_start: None
) -> None:
    """The same till sends the signed sale again with a mistake in it: the key alone says that it is signed."""
    await sold(unit.url, shop_dir, "sqlite_autoindex_invoice_3")
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        reply = await shop.till().sell("KEY-0007-abcdefgh", a_sale(total="1.00"))
        assert (reply.status, reply.json["code"]) == (503, "STORE_CORRUPT")
        assert reply.json["signed"] == "unknown"


async def test_the_newest_rows_are_compared_with_their_indexes_at_the_start(
    unit: UnitControl, shop_dir: Path
) -> None:
    await sold(unit.url, shop_dir, "sqlite_autoindex_invoice_3")
    with pytest.raises(StoreCorrupt, match="sqlite_autoindex_invoice_3"):
        async with open_database(shop_dir / "store"):
            pass


async def test_the_background_check_finds_what_no_sale_has_met(
    tmp_path: Path, few_at_start: None
) -> None:
    file = full_store.make(tmp_path, 300)
    flip(file, page_of(file, "sqlite_autoindex_invoice_3", full_store.key_of(7).encode(), 10) + 5)
    async with open_database(tmp_path) as db:
        checking = asyncio.ensure_future(StoreCheck(db, FastClock(1000)).run())
        with pytest.raises(StoreError, match="sqlite_autoindex_invoice_3"):
            await asyncio.wait_for(db.failed(), 60)
        checking.cancel()
        with pytest.raises(StoreError):
            await db.write(lambda conn: None)


async def test_a_whole_store_passes_again_and_again(
    tmp_path: Path, few_at_start: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its witness is complete after the first pass."""
    monkeypatch.setattr(store_check, "PASS_S", 0.1)
    full_store.make(tmp_path, 700)
    async with open_database(tmp_path) as db:
        check = StoreCheck(db, FastClock(1000))
        running = asyncio.ensure_future(check.run())
        async with asyncio.timeout(60):
            while check.passes < 2:
                assert not running.done()
                await asyncio.sleep(0.01)
        running.cancel()
        assert db.broken is None
        assert db.witness is not None
    beside = witness.open_file(tmp_path / witness.FILE_NAME)
    assert [row.seq for row in beside.after(0, 1000)] == list(range(1, 701))
    beside.close()


# --- the note of a damage -----------------------------------------------------------------------------


async def test_a_false_alarm_ends_by_itself_when_the_whole_store_is_whole(tmp_path: Path) -> None:
    """A bit that flipped in memory is no damage of the store."""
    full_store.make(tmp_path, 20)
    damage.note(tmp_path, "a row was read wrongly once")
    with pytest.raises(StoreCorrupt, match="read wrongly"):
        async with open_database(tmp_path):
            pass
    assert daemon._is_whole(tmp_path)
    async with open_database(tmp_path) as db:
        assert db.noticed is None
    assert damage.read(tmp_path) is None


async def test_a_damaged_store_stays_stopped(tmp_path: Path) -> None:
    file = full_store.make(tmp_path, 20)
    flip(file, page_of(file, "sqlite_autoindex_invoice_3", full_store.key_of(7).encode(), 10) + 5)
    damage.note(tmp_path, "found")
    assert not daemon._is_whole(tmp_path)
    assert damage.read(tmp_path) == "found"


async def test_a_sale_that_is_gone_without_a_trace_is_quarantined(
    tmp_path: Path, few_at_start: None
) -> None:
    """A lost write takes row and index entries together: the store is whole in itself, and the witness knows more."""
    file = full_store.make(tmp_path, 20)
    await filled(tmp_path)
    with closing(sqlite3.connect(file)) as conn, conn:
        conn.execute("DROP TRIGGER invoice_stays")
        conn.execute("DELETE FROM invoice WHERE seq = 7")
        conn.execute("DROP TRIGGER receipt_is_kept")
    new = a_claim(7)
    async with open_database(tmp_path) as db:
        with pytest.raises(StoreCorrupt):
            await db.write_soft(lambda conn: invoices.claim(conn, new))
    damage.note(tmp_path, damage.CHECKED)
    async with open_database(tmp_path) as db:
        assert db.noticed is not None
        assert "1 sale" in db.noticed
    # The hold is not settled: it is noticed again.
    async with open_database(tmp_path) as db:
        assert db.noticed is not None


# --- random bits in every kind of page -----------------------------------------------------------------


def a_claim(number: int) -> NewInvoice:
    return NewInvoice(
        id=f"{number:026d}", till_id="till-1", idem_key=full_store.key_of(number), body_digest=f"{number:064x}",
        label="NS", original_id=None, till_receipt_no=f"POS-{number:06d}", total_cents=29700,
        request=b"r", document=b"r", printer=None, at=1,
    )  # fmt: skip


async def filled(directory: Path) -> None:
    """Let the witness get every key."""
    async with open_database(directory) as db:
        assert db.witness is not None
        beside = db.witness.once_more()
        while await db.read(lambda conn: check_pass.fill(conn, beside)):
            pass
        beside.close()


def kinds(file: Path) -> Iterator[tuple[str, int]]:
    body = file.read_bytes()
    free = set()
    page = int.from_bytes(body[32:36], "big")
    while page:
        start = (page - 1) * PAGE
        count = int.from_bytes(body[start + 4 : start + 8], "big")
        free |= {page - 1} | {
            int.from_bytes(body[start + 8 + 4 * n : start + 12 + 4 * n], "big") - 1
            for n in range(count)
        }
        page = int.from_bytes(body[start : start + 4], "big")
    yield "header", 0
    for number in range(1, len(body) // PAGE):
        kind = "free" if number in free else KINDS.get(body[number * PAGE], "overflow")
        yield kind, number


COUNT = 150


async def trial(directory: Path) -> str:
    """What a shop gets of this store: where the damage was found, or that it did no harm."""
    try:
        async with open_database(directory) as db:
            for number in range(1, COUNT + 1):
                await _asked_again(db, number)
            await _new_sale(db)
            return await _passed(db)
    except StoreError as error:
        return "start" if "checked" not in str(error) else "pass"


async def _asked_again(db: Database, number: int) -> None:
    key = full_store.key_of(number)
    claimed = await db.write_soft(lambda conn: invoices.claim(conn, a_claim(number)))
    assert not claimed.won, f"{key} is signed again"
    read = await db.read(lambda conn: invoices.by_key(conn, "till-1", key))
    for row in (claimed.row, read):
        assert row is not None
        assert (row.state, row.answer_status) == (SigningState.SIGNED, 201)
        assert row.answer == full_store.answer_of(number, 1500), f"another answer for {key}"


async def _new_sale(db: Database) -> None:
    new = replace(a_claim(9000), idem_key="a new one", till_receipt_no="new")
    claimed = await db.write_soft(lambda conn: invoices.claim(conn, new))
    assert claimed.won
    # A number that is used already would be refused by the unit at best.
    assert await db.read(unit.next_invc_no) > COUNT


async def _passed(db: Database) -> str:
    assert db.witness is not None
    beside = db.witness.once_more()
    at: Position | None = None
    try:
        while at != Position():
            at, problem = await db.read(
                lambda conn, at=at: _slice(conn, beside, at or Position())  # type: ignore[misc]
            )
            if problem is not None:
                return "pass"
    finally:
        beside.close()
    return "nothing"


def _slice(
    conn: sqlite3.Connection, beside: witness.Witness, at: Position
) -> tuple[Position, str | None]:
    # `read` has begun a transaction; a slice begins its own.
    conn.execute("ROLLBACK")
    try:
        return check_pass.advance(conn, beside, at)
    finally:
        conn.execute("BEGIN")


@pytest.mark.timeout(240)
async def test_no_flipped_bit_signs_twice_or_changes_an_answer(
    tmp_path: Path, few_at_start: None
) -> None:
    chance = random.Random(20261201)
    whole = tmp_path / "whole"
    file = full_store.make(whole, COUNT, blob=1500)
    with closing(sqlite3.connect(file)) as conn, conn:
        conn.execute("CREATE TABLE gone (body BLOB)")
        conn.executemany("INSERT INTO gone VALUES (?)", [(b"x" * 9000,)] * 10)
        conn.execute("DROP TABLE gone")
    await filled(whole)
    with closing(sqlite3.connect(file)) as conn:
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages: dict[str, list[int]] = {}
    for kind, page in kinds(file):
        pages.setdefault(kind, []).append(page)
    assert set(pages) == {*KINDS.values(), "overflow", "free", "header"}
    results: Counter[tuple[str, str]] = Counter()
    for kind, numbers in pages.items():
        for number in range(8):
            place = tmp_path / f"{kind}-{number}"
            shutil.copytree(whole, place)
            offset = chance.choice(numbers) * PAGE + chance.randrange(
                100 if kind == "header" else PAGE
            )
            flip(place / FILE_NAME, offset, chance.randrange(8))
            try:
                results[kind, await trial(place)] += 1
            except AssertionError as error:
                raise AssertionError(f"{kind}: byte {offset}: {error}") from error
            shutil.rmtree(place)
    found = {kind for (kind, what), count in results.items() if what != "nothing" and count}
    assert {"table leaf", "overflow"} <= found, results
    assert all(what == "nothing" for kind, what in results if kind == "free"), results
