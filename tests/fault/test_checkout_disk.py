"""The real daemon killed between two writes of a paid sale, on the disk's side: from one sync on nothing that
is written is answered any more, so exactly what was written until then is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hw_fakes.daraja import FakeDaraja
from tests.conftest import need_tool
from tests.fault.test_checkout_crash import Store, asked, daemon_for, insist
from tests.support.daemon import Daemon
from tests.support.paid_shop import PEOPLE, a_paid_sale, a_phone, mpesa_tender
from tests.support.shop import a_sale

LEFT = """SELECT (SELECT state FROM checkout), (SELECT money FROM payment),
    (SELECT COUNT(*) FROM invoice WHERE till_id = 'till-1')"""


@asynccontextmanager
async def stuck(daemon: Daemon, first: int) -> AsyncIterator[None]:
    """The disk answers no sync from the `first` of each thread on (the store writes on one); the daemon is
    killed in it."""
    strace = await asyncio.create_subprocess_exec(
        need_tool("strace"), "-f", "-p", str(daemon.pid), "-o", "/dev/null",
        "-e", "trace=fdatasync,fsync",
        "-e", f"inject=fdatasync,fsync:delay_exit=60000000:when={first}+",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert strace.stderr is not None
    try:
        async with asyncio.timeout(20):
            said = b""
            while b"attached" not in said:
                line = await strace.stderr.readline()
                assert line, said.decode()
                said += line
        yield
    finally:
        # First this, so that no instruction runs when strace lets it go.
        os.kill(daemon.pid, signal.SIGKILL)
        if strace.returncode is None:
            strace.kill()
        await strace.wait()
        await daemon.kill()


def on_disk(directory: Path, copy: Path) -> tuple[Any, ...]:
    """What a start would find there now."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in ("gateway.db", "gateway.db-wal"):
        shutil.copy(directory / "store" / name, copy / name)
    conn = sqlite3.connect(copy / "gateway.db")
    try:
        return tuple(conn.execute(LEFT).fetchone())
    finally:
        conn.close()


async def until_left(directory: Path, copy: Path, wanted: tuple[Any, ...]) -> None:
    async with asyncio.timeout(30):
        while on_disk(directory, copy) != wanted:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("step", "first", "left"),
    [
        # The claim is on the disk, and the till waits.
        ("claimed", 1, ("COLLECTING", None, 0)),
        # The intent is, and nothing was sent.
        ("intended", 2, ("COLLECTING", "NEW", 0)),
        # M-Pesa's message is the first sync after the customer's PIN, PAID the second.
        ("paid", 2, ("COLLECTING", "PAID", 0)),
        ("ready", 3, ("READY", "PAID", 0)),
    ],
)
async def test_killed_between_two_writes_there_is_one_receipt_and_the_same_key_goes_on(
    shop_dir: Path, tmp_path: Path, step: str, first: int, left: tuple[Any, ...]
) -> None:
    async with FakeDaraja(time_scale=0.01, query_limited=False, **PEOPLE) as fake:
        daemon = daemon_for(shop_dir, fake)
        # No question to M-Pesa writes anything meanwhile.
        text = daemon.config.read_text().replace("query_every_s = 0.1", "query_every_s = 600")
        daemon.config.write_text(text)
        store, phone, copy = Store(shop_dir), a_phone(), tmp_path / "copy"
        sale = a_paid_sale(mpesa_tender(phone))
        async with daemon, aiohttp.ClientSession() as session:
            # The file has its first pages: from here on each write is one sync.
            assert (await daemon.till(session, "till-2").sell("o", a_sale())).status == 201
            early = step in ("claimed", "intended")
            if early:
                async with stuck(daemon, first):
                    post = asyncio.ensure_future(daemon.till(session).sell("key-1", sale))
                    await until_left(shop_dir, copy, left)
            else:
                post = asyncio.ensure_future(daemon.till(session).sell("key-1", sale))
                await asked(fake, phone)
                await store.until("SELECT money FROM payment", "WAITING")
                async with stuck(daemon, first):
                    fake.answer(phone, "pin", fake.wallet(phone).pin)
                    await until_left(shop_dir, copy, left)
            await asyncio.gather(post, return_exceptions=True)
            # It stood still there: nothing came after it.
            assert on_disk(shop_dir, copy) == left
            await daemon.start()
            if step == "claimed":
                # Nobody is asked by itself: the till may have taken cash meanwhile.
                assert store.rows("SELECT state FROM checkout") == [("COLLECTING",)]
                assert fake.pushes == []
                post = asyncio.ensure_future(insist(daemon, session, sale))
                await asked(fake, phone)
                fake.answer(phone, "pin", fake.wallet(phone).pin)
                await post
            if step == "intended":
                # What never left is refused, and the sale with it: a new sale asks anew.
                await store.until("SELECT state FROM checkout", "CLOSED")
                failed = await insist(daemon, session, sale)
                assert (failed.status, failed.json["code"]) == (409, "PAYMENT_FAILED")
                assert (failed.json["signed"], fake.pushes) == ("no", [])
                assert store.rows("SELECT money FROM payment") == [("REFUSED",)]
                assert len(await daemon.unit.journal()) == 1
                return
            # Of what was paid: nobody asks, the sale comes to its end by itself.
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
