"""Shops with printers: settings, waiting for what becomes of slips, and what stands on the paper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from gateway.devices import abilities, printer_asked
from gateway.devices import printer as driver
from gateway.settings import Settings
from hw_fakes.printer.paper import Slip
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.support.shop import TOKENS, OpenShop, a_sale, make_settings

FAST = {"stale_minutes": 0, "failover_s": 0}
WITHIN_S = 60.0
PRINTED = ("ORIGINAL", "PRINTED")
UNCONFIRMED = ("ORIGINAL", "UNCONFIRMED")
BLOCKED = ("ORIGINAL", "BLOCKED")
HELD = ("ORIGINAL", "HELD")
SENDING = ("ORIGINAL", "SENDING")


def patience(
    monkeypatch: pytest.MonkeyPatch, *, confirm_s: float = 60.0, real_time_s: float = 10.0
) -> None:
    """How long the driver waits from now on, before it says that a printer did not confirm, or gives no
    answer. The fakes live in the tests' own loop, which a busy machine holds up for longer than a real
    printer takes; a test shortens this only where silence is what it is about."""
    for part in (driver, printer_asked):
        monkeypatch.setattr(part, "CONFIRM_S", confirm_s)
        monkeypatch.setattr(part, "REAL_TIME_S", real_time_s)
    monkeypatch.setattr(abilities, "FIRST_S", max(2.0, real_time_s))


def settings_for(
    shop_dir: Path, unit: UnitControl, ports: dict[str, dict[str, Any]], **more: Any
) -> Settings:
    """Every till on the first printer, unless `tills` says otherwise; no failover or staleness."""
    printing = {**FAST, **more.pop("printing", {})}
    tills = more.pop("tills", dict.fromkeys(TOKENS, next(iter(ports))))
    return make_settings(
        shop_dir,
        unit.url,
        tills=[{"id": till, "printer": printer} for till, printer in tills.items()],
        printers={name: {"baud": 115200, **part} for name, part in ports.items()},
        printing=printing,
        **more,
    )


def long_sale() -> dict[str, Any]:
    """300 lines: more than any printer's buffer holds."""
    lines = [{**a_sale()["lines"][0], "name": f"Item number {n}"} for n in range(300)]
    return a_sale(lines=lines, total=f"{300 * 232}.00")


async def the_job(shop: OpenShop) -> dict[str, Any]:
    """The one job that waits or is asked about."""
    (job,) = (await shop.till().request("GET", "/v1/print-jobs")).json["jobs"]
    assert isinstance(job, dict)
    return job


def one(printer: FakePrinter, **more: Any) -> dict[str, dict[str, Any]]:
    return {"counter": {"port": printer.device_path, **more}}


async def states(shop: OpenShop) -> list[tuple[str, str]]:
    """(kind, state) of every job, oldest first."""
    rows = await shop.gateway.db.read(
        lambda conn: conn.execute("SELECT kind, state FROM print_job ORDER BY id").fetchall()
    )
    return [(row[0], row[1]) for row in rows]


async def until_all(
    shop: OpenShop, fits: Callable[[list[tuple[str, str]]], bool], within: float = WITHIN_S
) -> list[tuple[str, str]]:
    """Waits, by the store's own news, until the jobs are so."""
    found: list[tuple[str, str]] = []
    try:
        async with asyncio.timeout(within):
            while True:
                news = asyncio.ensure_future(shop.gateway.db.changed())
                found = await states(shop)
                if fits(found):
                    news.cancel()
                    return found
                await news
    except TimeoutError:
        raise AssertionError(f"the jobs stayed {found}") from None


async def until(shop: OpenShop, *wanted: tuple[str, str], within: float = WITHIN_S) -> None:
    await until_all(shop, lambda found: found == list(wanted), within)


async def problem_is(shop: OpenShop, part: str, printer: int = 0) -> None:
    """Waits until the status says so."""
    async with asyncio.timeout(WITHIN_S):
        while part not in ((await printers(shop))[printer]["reason"] or ""):
            await asyncio.sleep(0.02)


async def printers(shop: OpenShop) -> list[dict[str, Any]]:
    found = (await shop.till().request("GET", "/v1/status")).json["printing"]["printers"]
    assert isinstance(found, list)
    return found


async def so(fits: Callable[[], object], within: float = WITHIN_S) -> None:
    """Waits until a fake, which lives in this loop, is so."""
    async with asyncio.timeout(within):
        while not fits():
            await asyncio.sleep(0.005)


async def in_step(shop: OpenShop, printer: int = 0) -> None:
    """Waits until the gateway has found the idle printer well, and no question to it is out."""
    worker = shop.gateway.status.workers[printer]
    await so(lambda: worker.printer._in_step)
    # Its thread does one thing after the other: the look that found it so has ended then.
    await worker._submit(lambda: None)


async def begun(printer: FakePrinter) -> None:
    await so(lambda: printer.paper.open.items)


def originals(slips: Iterable[Slip]) -> list[str]:
    """The receipt numbers of slips that are no copies."""
    texts = [slip.text() for slip in slips]
    return [number for text in texts if "COPY" not in text for number in receipt_numbers(text)]


def receipt_numbers(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("CU INVOICE NO.")]
