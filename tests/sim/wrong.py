"""Ways in which gateways of this field sign a sale twice, small, so that the simulation can show
that it finds them. Never used for anything else."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from gateway.domain.outcome import Signed
from gateway.vscu.sale import sale_body
from gateway.vscu.wire import encode
from tests.sim.gateway import FORM, RealGateway
from tests.sim.unit import SimClient, SimUnit
from tests.sim.world import Disk, Life, SimClock, never
from tests.support.invoices import an_invoice

_TABLES = """
    CREATE TABLE IF NOT EXISTS wrong_sale (key TEXT PRIMARY KEY, body BLOB);
    CREATE TABLE IF NOT EXISTS wrong_number (number INTEGER PRIMARY KEY AUTOINCREMENT)"""


class _Wrong:
    held = False
    ready = False

    def __init__(self, life: Life, disk: Disk, unit: SimUnit) -> None:
        self.clock = SimClock(life)
        self.client = SimClient(life, unit, self.clock)
        self.db = disk.open(life)

    async def run(self) -> None:
        for statement in _TABLES.split(";"):
            await self.db.write(lambda conn, sql=statement: conn.execute(sql))  # type: ignore[misc]
        self.ready = True
        await never()

    async def person(self) -> None:
        return

    async def credit(self, till: str, key: str, invoice_id: str, body: Any) -> tuple[int, bytes]:
        """Takes nothing back: its mistake shows with sales."""
        return 422, b"{}"

    async def find(self, key: str) -> tuple[bytes | None] | None:
        def select(conn: sqlite3.Connection) -> tuple[bytes | None] | None:
            return conn.execute("SELECT body FROM wrong_sale WHERE key = ?", (key,)).fetchone()

        return await self.db.read(select)

    async def sign(self, key: str, refused: bool) -> bytes | None:
        """A fresh number, and what the unit says; None when there is no receipt to be had."""
        invoice = an_invoice(till_receipt_no=key, remark="refused" if refused else None)
        insert = "INSERT INTO wrong_number DEFAULT VALUES"
        number = await self.db.write(lambda conn: conn.execute(insert).lastrowid)
        body = encode(sale_body(FORM, invoice, int(number or 0), self.clock.now(), 1))
        outcome = await self.client.send_sale(body)
        if not isinstance(outcome, Signed):
            return None
        return json.dumps({"rcptSign": outcome.data.rcpt_sign}).encode()


class SelectThenInsert(_Wrong):
    """Asks whether the sale is there, and inserts it when it is signed."""

    async def submit(
        self,
        till: str,
        key: str,
        *,
        refused: bool = False,
        keyless: bool = False,
        idem_key: str = "",
    ) -> tuple[int, bytes]:
        found = await self.find(key)
        if found is not None:
            return 201, found[0] or b""
        body = await self.sign(key, refused)
        if body is None:
            return (422 if refused else 503), b"{}"
        insert = "INSERT OR REPLACE INTO wrong_sale VALUES (?, ?)"
        await self.db.write(lambda conn: conn.execute(insert, (key, body)))
        return 201, body


class DeletePlaceholder(_Wrong):
    """Inserts a placeholder first, and deletes it "so that the till can try again"."""

    async def submit(
        self,
        till: str,
        key: str,
        *,
        refused: bool = False,
        keyless: bool = False,
        idem_key: str = "",
    ) -> tuple[int, bytes]:
        insert = "INSERT INTO wrong_sale VALUES (?, NULL) ON CONFLICT DO NOTHING"
        won = await self.db.write(lambda conn: conn.execute(insert, (key,)).rowcount)
        if not won:
            found = await self.find(key)
            if found is None or found[0] is None:
                return 503, b"{}"
            return 201, found[0]
        body = await self.sign(key, refused)
        if body is None:
            delete = "DELETE FROM wrong_sale WHERE key = ?"
            await self.db.write(lambda conn: conn.execute(delete, (key,)))
            return (422 if refused else 503), b"{}"
        update = "UPDATE wrong_sale SET body = ? WHERE key = ?"
        await self.db.write(lambda conn: conn.execute(update, (body, key)))
        return 201, body


class NewKeyNewSale(RealGateway):
    """Takes a till that makes a new key for its retry for one that sells twice."""

    reuses_numbers = frozenset(f"till-{number}" for number in range(10))
