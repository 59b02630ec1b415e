"""Word of a sale goes from the store's thread to the display's loop, and cannot undo a receipt."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

from gateway.counter.display import CustomerDisplay
from gateway.counter_line import CounterLine
from gateway.devices.channel import LineSettings
from gateway.fiscal.ports import SignedSale
from gateway.store import receipts, unit
from gateway.store.database import open_database
from gateway.supervisor import Supervisor
from tests.support.book import Book
from tests.support.clock import FakeClock
from tests.support.invoices import an_invoice
from tests.support.shop import make_settings

POLE = {"pole": {"port": "/dev/not-plugged-in", "till": "till-1"}}
IDLE = ["KARIBU", ""]


class WatchedDisplay(CustomerDisplay):
    """Remembers on whose thread it was called."""

    threads: tuple[int, ...] = ()

    def show_sale(self, total: str, change: str) -> None:
        self.threads += (threading.get_ident(),)
        super().show_sale(total, change)


async def test_a_display_is_never_called_from_the_stores_thread(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = make_settings(tmp_path, "http://127.0.0.1:1", displays=POLE)
    pole = WatchedDisplay("pole", LineSettings("/dev/none"), "cd5220", 20, "KARIBU", clock)
    in_commit: list[int] = []
    async with open_database(tmp_path / "store") as db:
        counter = CounterLine(settings, clock, db)
        counter.displays = {"pole": pole}
        supervisor, book = Supervisor(clock), Book(clock)

        def sell(conn: sqlite3.Connection, how: str = "ANSWER") -> None:
            invoice = an_invoice()
            row = book.begin(conn, invoice)
            book.sign(conn, row)
            signed = receipts.by_invoice(conn, row.id)
            assert signed is not None
            sale = SignedSale(row, invoice, signed.receipt, "", row.created_at, how)
            counter.show_sale(conn, sale)
            in_commit.append(threading.get_ident())

        await db.write(lambda conn: unit.ensure(conn, first_invoice_no=1, at=1))
        await db.write(sell)  # before the counter has begun: nobody is told, nothing fails
        counter.start(supervisor)
        await db.write(lambda conn: sell(conn, "EVIDENCE"))
        await asyncio.sleep(0)
        assert (pole.threads, pole.lines) == ((), IDLE)
        await db.write(sell)
        await asyncio.sleep(0)
        assert in_commit[-1] != threading.get_ident()
        assert pole.threads == (threading.get_ident(),)
        assert pole.lines[0].split()[0] == "TOTAL"
        await supervisor.drain()
        ended = asyncio.new_event_loop()
        ended.close()
        counter._loop = ended
        # The gateway ends while a sale is committed: the receipt is what counts.
        await db.write(sell)
        assert await db.read(receipts.last_counter) == 4
