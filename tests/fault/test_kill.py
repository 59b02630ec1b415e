"""The real daemon with the real JVM in it, killed under load: what the unit signed and what the tills
were told must agree, sale by sale."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import aiohttp
import pytest

from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, a_sale

GIVE_UP = (aiohttp.ClientError, ConnectionError, TimeoutError)


async def work(daemon: Daemon, name: str, told: dict[str, bytes], stop: asyncio.Event) -> None:
    """A till that retries every sale with its key until it is told the receipt."""
    timeout = aiohttp.ClientTimeout(total=5)
    number = 0
    async with aiohttp.ClientSession(timeout=timeout) as session:
        till = daemon.till(session, name)
        while not stop.is_set():
            number += 1
            key, sale = f"{name}-{number}", a_sale(tillReceiptNo=f"{name}-{number}")
            while key not in told:
                try:
                    reply = await till.sell(key, sale)
                except GIVE_UP:
                    await asyncio.sleep(0.01)  # the daemon is down; a till waits, too
                    continue
                if reply.status == 201:
                    told[key] = reply.body
                else:
                    assert reply.status in (202, 503), reply.body
                    await asyncio.sleep(0.01)


async def torture(directory: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    # The fake unit reads back what it signed, so every doubt can end without a person.
    daemon = Daemon(directory, extra="")
    text = daemon.config.read_text().replace("[store]", "read_back = true\n[store]")
    daemon.config.write_text(text)
    config = directory / "unit" / "config" / "application.properties"
    config.write_text(config.read_text() + "fake.readBack=true\n")
    told: dict[str, bytes] = {}
    stop = asyncio.Event()
    await daemon.start()
    tills = [asyncio.ensure_future(work(daemon, name, told, stop)) for name in TOKENS]
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.02, 0.5))  # at a random moment of the load
        await daemon.kill()
        await daemon.start()
    stop.set()
    async with asyncio.timeout(120):  # every till hears the end of its sale, without a person
        await asyncio.gather(*tills)
    journal = await daemon.unit.journal()
    numbers = [entry["trdInvcNo"] for entry in journal]
    assert len(numbers) == len(set(numbers)), f"a sale was signed twice (seed {seed})"
    assert set(numbers) == set(told), f"told and signed differ (seed {seed})"
    signed = {entry["trdInvcNo"]: entry for entry in journal}
    async with aiohttp.ClientSession() as session:
        for key, body in told.items():
            assert signed[key]["rcptSign"].encode() in body
            name = key.rpartition("-")[0]
            again = await daemon.till(session, name).sell(key, a_sale(tillReceiptNo=key))
            assert again.body == body
    invc = [entry["invcNo"] for entry in journal]
    assert invc == sorted(invc)
    assert [entry["totRcptNo"] for entry in journal] == list(range(1, len(journal) + 1))
    assert await daemon.stop() == 0
    print(f"kills={kills} sales={len(told)} seed={seed}")


@pytest.mark.timeout(900)
async def test_killed_at_random_moments_it_signs_every_sale_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(1_000_000)))
    await torture(tmp_path, kills=100, seed=seed)


@pytest.mark.torture
@pytest.mark.timeout(36_000)
async def test_torture(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(1_000_000)))
    await torture(tmp_path, kills=int(os.environ.get("KILLS", "1000")), seed=seed)
