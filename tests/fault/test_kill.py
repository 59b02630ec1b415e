"""The real daemon with the real JVM, in it or beside it, hit in seven ways under load: what the unit signed
and what the tills received must agree, sale by sale."""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path

import pytest

from hw_fakes.vscu.unit import UnitControl
from tests.fault.kill_modes import HEAD, HOSTS, MODES, life
from tests.support.shop import a_sale, make_settings, open_shop

# So many hits one shop takes in its life; then a new one with another configuration opens.
HITS_OF_A_LIFE = 20


def some_seed() -> int:
    return int(os.environ.get("SEED", random.randrange(1_000_000)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("mode", MODES)
async def test_hit_at_random_moments_it_signs_every_sale_once(
    tmp_path: Path, mode: str, host: str
) -> None:
    seed = some_seed()
    print(f"\nSEED={seed}\n{HEAD}")
    row = await life(tmp_path, mode, host, hits=8, seed=seed)
    print(row)
    assert not row.books.wrong, (row.books.wrong, row.seed)


async def test_a_sale_that_arrives_during_a_stop_is_answered_that_the_gateway_restarts(
    unit: UnitControl, shop_dir: Path
) -> None:
    """Found by an EIO hit: the till was answered that too many sales were waiting."""
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        shop.gateway.signer.stop()
        reply = await shop.till().sell("key", a_sale())
    assert (reply.status, reply.json["code"]) == (503, "SHUTTING_DOWN")
    assert reply.json["signed"] == "no"
    assert await unit.journal() == []


@pytest.mark.torture
@pytest.mark.timeout(36_000)
async def test_torture(tmp_path: Path) -> None:
    """KILLS hits, spread evenly; MODE and HOST choose one of them, to repeat a line of the table."""
    seed = some_seed()
    modes = [mode for mode in MODES if os.environ.get("MODE", mode) == mode]
    hosts = [host for host in HOSTS if os.environ.get("HOST", host) == host]
    kills = int(os.environ.get("KILLS", "1000"))
    share = -(-kills // (len(modes) * len(hosts)))
    wrong: list[str] = []
    hits = 0
    print(f"\n{HEAD}")
    for mode in modes:
        for host in hosts:
            for number, begun in enumerate(range(0, share, HITS_OF_A_LIFE)):
                directory = tmp_path / f"{zlib.crc32(f'{mode}{host}'.encode()):08x}-{number}"
                directory.mkdir()
                count = min(HITS_OF_A_LIFE, share - begun)
                try:
                    row = await life(directory, mode, host, count, seed + number)
                except AssertionError as error:
                    # Stuck, or wrong in mid-life: the other lives are played all the same.
                    wrong.append(f"{mode}, {host}, SEED={seed + number}: {error}")
                    print(f"{mode:<12} {host:<11} {error}", flush=True)
                    continue
                hits += row.hits
                wrong += [f"{mode}, {host}, SEED={row.seed}: {each}" for each in row.books.wrong]
                print(row, flush=True)
    print(f"hits={hits} violations={len(wrong)}")
    assert not wrong, "\n".join(wrong)
