"""What the witness adds to a sale: claim, write-ahead and commit with it and without, by turns.

python -m tests.bench.witness [sales]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gateway.domain.signing import SigningEvent
from gateway.store import invoices, unit
from gateway.store.database import Database, open_database, run_on
from gateway.store.invoices import NewInvoice
from gateway.store.witness import StoreConnection
from tests.support.book import SENDING


async def one_sale(db: Database, new: NewInvoice) -> float:
    begun = time.perf_counter()
    row = (await db.write_soft(lambda conn: invoices.claim(conn, new))).row

    def ahead(conn):  # type: ignore[no-untyped-def]
        number = unit.next_invc_no(conn)
        invoices.write_ahead(
            conn, row, invc_no=number, unit_request=b"u" * 800, sending=SENDING, at=1
        )
        return invoices.by_id(conn, row.id)

    sent = await db.write(ahead)
    assert sent is not None

    def commit(conn):  # type: ignore[no-untyped-def]
        invoices.settle_signed(
            conn, sent, event=SigningEvent.ANSWERED, unit_answer=b"a" * 200, answer_status=201, answer=b"a" * 900,
            at=1,
        )  # fmt: skip
        unit.use_up(conn, sent.invc_no or 0, at=1)

    await db.write(commit)
    return (time.perf_counter() - begun) * 1000


async def main(count: int) -> None:
    new = NewInvoice(
        id="", till_id="till-1", idem_key="", body_digest="d" * 64, label="NS", original_id=None,
        till_receipt_no="1", total_cents=1, request=b"r" * 300, document=b"d" * 1000, printer=None, at=1,
    )  # fmt: skip
    times: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as directory:
        async with open_database(Path(directory)) as db:
            await db.write(lambda conn: unit.ensure(conn, first_invoice_no=1, at=1))
            beside = db.witness

            def use(conn, witnessed: bool) -> None:  # type: ignore[no-untyped-def]
                assert isinstance(conn, StoreConnection)
                conn.witness = beside if witnessed else None

            for number in range(count):
                witnessed = number % 2 == 0
                await run_on(db._writer, lambda conn, w=witnessed: use(conn, w))  # type: ignore[misc]
                sale = replace(new, id=f"{number:026d}", idem_key=f"key-{number}")
                times[witnessed].append(await one_sale(db, sale))
            await run_on(db._writer, lambda conn: use(conn, True))
    for witnessed, name in ((False, "without"), (True, "with")):
        found = sorted(times[witnessed])
        print(
            f"{name:8} p50 {statistics.median(found):.3f} ms  p99 {found[len(found) * 99 // 100]:.3f} ms"
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000))
