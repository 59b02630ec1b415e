"""The store: the INSERT that is the lock, and the rules the database keeps whatever the code does."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.domain.signing import SigningState
from gateway.errors import SchemaNewer, StoreCorrupt, StoreError
from gateway.store import events, invoices, migrate, receipts, unit
from gateway.store.database import FILE_NAME, Database, open_database
from gateway.store.invoices import NewInvoice
from tests.support.book import SENDING
from tests.support.invoices import at_noon


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(tmp_path) as opened:
        await opened.write(lambda conn: unit.ensure(conn, first_invoice_no=1, at=1))
        yield opened


def new(number: int, key: str = "k", **changes: object) -> NewInvoice:
    values = {
        "id": f"{number:026d}", "till_id": "t", "idem_key": key, "body_digest": "0" * 64,
        "label": "NS", "original_id": None, "till_receipt_no": "P", "total_cents": 1,
        "request": b"{}", "document": b"{}", "printer": None, "at": 1,
    }  # fmt: skip
    return NewInvoice(**{**values, **changes})  # type: ignore[arg-type]


async def test_of_many_claims_of_one_key_exactly_one_wins(db: Database) -> None:
    claims = await asyncio.gather(
        *(db.write_soft(lambda conn, n=n: invoices.claim(conn, new(n))) for n in range(1, 101))
    )
    assert sum(claim.won for claim in claims) == 1
    assert len({claim.row.id for claim in claims}) == 1


async def test_the_database_allows_one_open_sale_and_only_the_tables_moves(db: Database) -> None:
    rows = [await db.write(lambda conn, n=n: invoices.claim(conn, new(n, f"k{n}"))) for n in (1, 2)]

    def ahead(number: int) -> None:
        row = rows[number - 1].row
        return db.write(
            lambda conn: invoices.write_ahead(
                conn, row, invc_no=number, unit_request=b"x", sending=SENDING, at=2
            )
        )

    await ahead(1)
    with pytest.raises(sqlite3.IntegrityError, match="one_open"):
        await ahead(2)
    for statement in [
        "UPDATE invoice SET state = 'RECEIVED', invc_no = NULL WHERE state = 'SIGNING'",
        "UPDATE invoice SET invc_no = 9 WHERE state = 'SIGNING'",
        "UPDATE invoice SET unit_request = x'00' WHERE state = 'SIGNING'",
        "UPDATE invoice SET document = x'00'",
        "DELETE FROM invoice",
        "UPDATE unit SET next_invc_no = 0",
        "INSERT INTO invoice (id, till_id, idem_key, body_digest, label, till_receipt_no, "
        "total_cents, request, document, state, created_at, updated_at) VALUES "
        f"('{9:026d}', 't', 'x', '{'0' * 64}', 'NS', 'p', 1, x'', x'', 'SIGNED', 1, 1)",
    ]:
        with pytest.raises(sqlite3.IntegrityError):
            await db.write(lambda conn, sql=statement: conn.execute(sql))
    row = await db.read(invoices.open_row)
    assert row is not None
    assert (row.state, row.invc_no, row.unit_request) == (SigningState.SIGNING, 1, b"x")


async def test_a_failed_transaction_leaves_nothing(db: Database) -> None:
    def half(conn: sqlite3.Connection) -> None:
        events.record(conn, at=1, kind="half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await db.write(half)
    assert await db.read(events.newest_id) == 0


async def test_a_cancelled_write_is_unknown_and_the_store_goes_on(db: Database) -> None:
    task = asyncio.ensure_future(db.write(lambda conn: events.record(conn, at=1, kind="a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await db.write(lambda conn: events.record(conn, at=2, kind="b"))
    kinds = [e.kind for e in await db.read(lambda conn: events.after(conn, 0, None, 9))]
    assert kinds[-1] == "b"


async def test_readers_cannot_write_and_cannot_stay(db: Database) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await db.read(lambda conn: conn.execute("DELETE FROM event"))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT MAX(i) FROM n"
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        await db.read(lambda conn: conn.execute(endless).fetchone())


async def test_a_damaged_page_that_a_reader_finds_stops_the_writer(tmp_path: Path) -> None:
    def fill(conn: sqlite3.Connection) -> None:
        for number in range(500):
            events.record(conn, at=number, kind="filler", data={"text": "x" * 500})

    async with open_database(tmp_path) as db:
        await db.write(fill)
    async with open_database(tmp_path) as db:
        with (tmp_path / FILE_NAME).open("r+b") as file:
            size = file.seek(0, 2)
            for page in range(20, size // 4096):
                file.seek(page * 4096)
                file.write(b"\xff" * 64)
        with pytest.raises(StoreCorrupt):
            await db.read(
                lambda conn: conn.execute("SELECT SUM(LENGTH(data)) FROM event").fetchone()
            )
        with pytest.raises(StoreError):
            await db.write(lambda conn: events.record(conn, at=1, kind="late"))


async def test_a_newer_or_foreign_or_damaged_file_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path):
        pass
    path = tmp_path / FILE_NAME
    with sqlite3.connect(path) as conn:
        conn.execute(f"PRAGMA user_version = {len(migrate.migrations()) + 1}")
    conn.close()
    with pytest.raises(SchemaNewer):
        async with open_database(tmp_path):
            pass
    with sqlite3.connect(path) as conn:
        conn.execute("PRAGMA user_version = 1")
        conn.execute("PRAGMA application_id = 1")
    conn.close()
    with pytest.raises(StoreCorrupt):
        async with open_database(tmp_path):
            pass
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises((StoreCorrupt, StoreError)):
        async with open_database(tmp_path):
            pass


async def test_the_chain_holds_and_a_changed_receipt_breaks_it(db: Database) -> None:
    from gateway.domain.receipt import Receipt

    def sign(conn: sqlite3.Connection, n: int) -> str:
        invoices.claim(conn, new(n, f"k{n}"))
        receipt = Receipt("NS", n, n, n, "S", None, "I", f"R{n}", at_noon())
        return receipts.append(
            conn, invoice_id=f"{n:026d}", receipt=receipt, total_cents=1, how="ANSWER", at=n
        )

    hashes = [await db.write(lambda conn, n=n: sign(conn, n)) for n in (1, 2, 3)]
    rows = await db.read(lambda conn: receipts.recent(conn, 3))
    assert [row.hash for row in reversed(rows)] == hashes
    previous = receipts.GENESIS
    for row in reversed(rows):
        fields = receipts.chained_fields(
            row.invoice_id, row.receipt, row.total_cents, row.how, row.signed_at
        )
        assert row.previous == previous
        assert receipts.chain(previous, fields) == row.hash
        assert receipts.chain(previous, {**fields, "totalCents": 2}) != row.hash
        previous = row.hash
    with pytest.raises(sqlite3.IntegrityError):
        await db.write(lambda conn: conn.execute("UPDATE receipt SET total_cents = 2"))
