"""The real daemon killed at each step of a sale that is paid by M-Pesa: one prompt, one receipt, and every
shilling with an owner."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja
from hw_fakes.ports import free_port
from tests.support.daemon import Daemon
from tests.support.paid_shop import PEOPLE, SHORTCODE, a_paid_sale, a_phone, mpesa_tender
from tests.support.shop import Reply, a_sale

STEPS = ("asked", "paid while away", "ready", "at the unit", "signed")


def daemon_for(directory: Path, fake: FakeDaraja) -> Daemon:
    port = free_port()
    fake.turn(hosts={"shop.test": f"http://127.0.0.1:{port}"})
    extra = f"""
[backup]
every_hours = 0
[reference]
every_hours = 0
[mpesa]
environment = "sandbox"
base_url = "{fake.url}"
shortcode = "{SHORTCODE}"
callback_url = "https://shop.test/in"
direct_host = "127.0.0.1"
direct_port = {port}
same_phone_s = 0
query_every_s = 0.1
"""
    env = {
        "GATEWAY_MPESA_CONSUMER_KEY": KEY,
        "GATEWAY_MPESA_CONSUMER_SECRET": SECRET,
        "GATEWAY_MPESA_PASSKEY": PASSKEY,
    }
    return Daemon(directory, extra, env)


class Store:
    """The daemon's file, read from outside."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "store" / "gateway.db"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        conn = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        try:
            return conn.execute(sql).fetchall()
        finally:
            conn.close()

    async def until(self, sql: str, wanted: Any) -> None:
        async with asyncio.timeout(30):
            while self.rows(sql) != [(wanted,)]:
                await asyncio.sleep(0.005)


async def asked(fake: FakeDaraja, phone: str) -> None:
    await fake.wait_for(
        lambda: any(
            p.phone == phone and p.answered is not None and not p.answered.done()
            for p in fake.pushes
        ),
        20,
    )


async def insist(daemon: Daemon, session: aiohttp.ClientSession, sale: dict[str, Any]) -> Reply:
    """As a till does: the same key until there is an end."""
    async with asyncio.timeout(40):
        while True:
            reply = await daemon.till(session).sell("key-1", sale)
            if reply.status not in (202, 503):
                return reply


@pytest.mark.parametrize("step", STEPS)
async def test_a_kill_at_any_step_leaves_one_receipt_and_money_with_an_owner(
    shop_dir: Path, step: str
) -> None:
    async with FakeDaraja(time_scale=0.01, query_limited=False, **PEOPLE) as fake:
        daemon = daemon_for(shop_dir, fake)
        store, phone = Store(shop_dir), a_phone()
        sale = a_paid_sale(mpesa_tender(phone))
        async with daemon, aiohttp.ClientSession() as session:
            posts = [asyncio.ensure_future(daemon.till(session).sell("key-1", sale))]
            await asked(fake, phone)
            await store.until("SELECT money FROM payment", "WAITING")
            if step == "at the unit":
                await daemon.unit.knobs(latencyMs=60_000)
            if step == "ready":
                # Another till's sale is at the unit when the money comes: the paid one stands in line.
                await daemon.unit.knobs(latencyMs=60_000)
                other = asyncio.ensure_future(daemon.till(session, "till-2").sell("o", a_sale()))
                posts.append(other)
                await store.until("SELECT state FROM invoice", "SIGNING")
            if step in ("asked", "paid while away"):
                await daemon.kill()
            if step != "asked":
                fake.answer(phone, "pin", fake.wallet(phone).pin)
            match step:
                case "paid while away":
                    # The callback finds nobody.
                    await fake.settled()
                case "ready":
                    await store.until("SELECT state FROM checkout", "READY")
                    await daemon.kill()
                case "at the unit":
                    await store.until("SELECT state FROM invoice", "SIGNING")
                    await daemon.kill()
                case "signed":
                    await store.until("SELECT state FROM checkout", "SIGNED")
                    await daemon.kill()
            # Their gateway is gone; what they got is not asked.
            await asyncio.gather(*posts, return_exceptions=True)
            await daemon.start()
            if step == "asked":
                await asked(fake, phone)
                fake.answer(phone, "pin", fake.wallet(phone).pin)
            # Nobody asks: the sale comes to its end by itself.
            await store.until("SELECT state FROM checkout", "SIGNED")
            reply = await insist(daemon, session, sale)
            again = await insist(daemon, session, sale)
            journal = await daemon.unit.journal()
    assert reply.status == 201, reply.json
    assert reply.body == again.body
    assert [e["trdInvcNo"] for e in journal].count(sale["tillReceiptNo"]) == 1
    assert len(fake.pushes) == 1
    assert store.rows("SELECT money, tender, invoice_id FROM payment") == [
        ("PAID", "COMPLETED_BY_MPESA", reply.json["invoiceId"])
    ]
