"""Printers fail at random while tills sell: no sale waits, no slip is lost, none is an original twice."""

from __future__ import annotations

import asyncio
import collections
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.devices import printer as driver
from gateway.devices import printer_asked
from hw_fakes.printer.paper import Slip
from hw_fakes.printer.peer import FakePrinter, Wire
from hw_fakes.vscu.unit import UnitControl
from tests.support.printers import receipt_numbers, settings_for, until_all
from tests.support.shop import TOKENS, OpenShop, a_sale, open_shop

# What a printer misses while it starts again, at the least: so long is its power off. Seconds.
BOOT_S = 0.5
# A sale that waited for paper would wait for as long as the paper does.
SALE_MAX_S = 30.0


@dataclass(frozen=True)
class Fault:
    name: str
    begin: Callable[[FakePrinter], object]
    end: Callable[[FakePrinter], object]


def drizzle(printer: FakePrinter) -> None:
    printer.wire.noise, printer.wire.lose_answers = 0.2, 0.05


def dry(printer: FakePrinter) -> None:
    printer.wire.noise = printer.wire.lose_answers = 0.0


FAULTS = [
    Fault("paper", FakePrinter.remove_paper, FakePrinter.load_paper),
    Fault("short roll", lambda p: p.load_paper(150), FakePrinter.load_paper),
    Fault("cover", FakePrinter.open_cover, FakePrinter.close_cover),
    Fault("cutter", FakePrinter.jam_cutter, lambda p: p.jam_cutter(False)),
    Fault("cable", FakePrinter.unplug, FakePrinter.plug),
    Fault("power", FakePrinter.power_off, FakePrinter.power_on),
    Fault("wire", drizzle, dry),
    Fault("silence", lambda p: setattr(p, "silent", True), lambda p: setattr(p, "silent", False)),
    Fault("stall", FakePrinter.stall, FakePrinter.resume),
    Fault("link", FakePrinter.reset_link, lambda p: None),
]


async def trouble(printer: FakePrinter, chance: random.Random, stop: asyncio.Event) -> None:
    """One fault after the other at one printer, each for a while; well again at the end."""
    while not stop.is_set():
        await asyncio.sleep(chance.uniform(0.1, 1.5))
        fault = chance.choice(FAULTS)
        fault.begin(printer)
        await asyncio.sleep(chance.uniform(BOOT_S, 2.0))
        fault.end(printer)


async def sell(
    shop: OpenShop, name: str, chance: random.Random, stop: asyncio.Event
) -> dict[str, str]:
    """Receipt numbers by invoice; every sale is told its own at once, whatever the printers do."""
    told: dict[str, str] = {}
    while not stop.is_set():
        async with asyncio.timeout(SALE_MAX_S):
            reply = await shop.till(name).sell(f"{name}-{len(told)}", a_sale())
        assert reply.status == 201
        told[reply.json["invoiceId"]] = reply.json["cuInvoiceNo"]
        await asyncio.sleep(chance.uniform(0.5, 2.0))
    return told


async def storm(shop_dir: Path, unit: UnitControl, seed: int, seconds: float) -> None:
    chance = random.Random(seed)
    links = {name: shop_dir / name for name in ("one", "two")}

    one = FakePrinter(wire=Wire(baud=115200), seed=seed, link=links["one"], speed_mm_s=1500)
    two = FakePrinter(wire=Wire(baud=57600), seed=seed + 1, link=links["two"], asb=0x0F)
    three = FakePrinter(seed=seed + 2, tcp_port=0, buffer_bytes=1024, speed_mm_s=1500)
    async with one, two, three:
        ports = {
            "one": {"port": str(links["one"]), "failover": ["three"], "confirm": "process-id"},
            "two": {"port": str(links["two"]), "baud": 57600, "failover": ["one", "three"]},
            "three": {"port": three.device_path},
        }
        printing = {"failover_s": 1.0}
        tills = dict(zip(TOKENS, ["one", "two", "three"] * 3, strict=False))
        settings = settings_for(shop_dir, unit, ports, tills=tills, printing=printing)
        async with open_shop(settings) as shop:
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, stop.set)
            faults = [trouble(printer, chance, stop) for printer in (one, two, three)]
            sellers = [sell(shop, name, chance, stop) for name in TOKENS]
            done, _ = await asyncio.gather(asyncio.gather(*sellers), asyncio.gather(*faults))
            told = {key: value for part in done for key, value in part.items()}
            ended = {"PRINTED", "UNCONFIRMED"}
            await until_all(shop, lambda jobs: all(state in ended for _, state in jobs), 90)
            rows = await shop.gateway.db.read(
                lambda conn: conn.execute(
                    "SELECT invoice_id, state FROM print_job WHERE kind = 'ORIGINAL'"
                ).fetchall()
            )
    assert sorted(sale for sale, _ in rows) == sorted(told), f"a slip was lost (seed {seed})"
    papers = [printer.paper for printer in (one, two, three)]
    whole = collections.Counter(n for p in papers for s in p.slips for n in numbers_of(s))
    torn = collections.Counter(
        n for p in papers for s in [*p.scraps, p.open] for n in numbers_of(s)
    )
    for sale, state in rows:
        number = told[sale]
        assert whole[number] + torn[number] <= 1, f"{number} is out twice (seed {seed})"
        assert state != "PRINTED" or whole[number] == 1, f"{number} is not out (seed {seed})"
    states = collections.Counter(state for _, state in rows)
    print(f"seed={seed} sales={len(told)} {dict(states)}")
    # The storm must leave something to print, or it has shown nothing.
    assert states["PRINTED"] > len(told) // 4


def numbers_of(slip: Slip) -> list[str]:
    """More than one where a slip broke off and the next one came out on the same paper."""
    return [line.rpartition(" ")[2] for line in receipt_numbers(slip.text())]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubt after two seconds where a shop waits for eight: more of it in the same time."""
    monkeypatch.setattr(driver, "CONFIRM_S", 2.0)
    monkeypatch.setattr(printer_asked, "CONFIRM_S", 2.0)


@pytest.mark.usefixtures("hasty")
async def test_whatever_the_printers_do_every_slip_is_accounted_for(
    unit: UnitControl, shop_dir: Path
) -> None:
    seed = int(os.environ.get("SEED", random.randrange(1_000_000)))
    await storm(shop_dir, unit, seed, 8)


@pytest.mark.torture
@pytest.mark.timeout(36_000)
@pytest.mark.usefixtures("hasty")
async def test_torture_of_printers(unit: UnitControl, shop_dir: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(1_000_000)))
    for number in range(int(os.environ.get("STORMS", "20"))):
        folder = shop_dir / str(number)
        folder.mkdir()
        await unit.reset()  # each storm is a shop of its own
        await storm(folder, unit, seed + number, 60)
