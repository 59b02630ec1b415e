"""A shop with a till that only prints: its template, and the till plugged in."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.counter.template import Patterns, Template
from gateway.counter_line import template_of
from gateway.counter_settings import CaptureSettings
from gateway.store import captures
from gateway.store.captures import Captured
from hw_fakes.legacy_till.peer import FakeLegacyTill
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.support.shop import TOKENS, OpenShop, make_settings, open_shop

PATTERNS: dict[str, Any] = {
    "item": r"^(?P<name>\S.*?)  +(?P<amount>[0-9,]+\.[0-9]{2}) ?(?P<tax>[VEZ]?)$",
    "item_detail": r"^ +(?P<quantity>[0-9.]+) [xX] (?P<price>[0-9,]+\.[0-9]{2})$",
    "total": r"^TOTAL +(?P<amount>[0-9,]+\.[0-9]{2})$",
    "receipt": r"^RECEIPT NO +(?P<number>[0-9]+)$",
    "date": r"^(?P<date>[0-9]{2}/[0-9]{2}/[0-9]{4} [0-9]{2}:[0-9]{2})",
    "payment": r"^(?P<method>CASH|M-PESA|CARD) +(?P<amount>[0-9,]+\.[0-9]{2})$",
    "payment_methods": {"CASH": "CASH", "M-PESA": "MOBILE_MONEY", "CARD": "CARD"},
    "ignore": ("^-+$", "^MAMA MBOGA STORES$", r"^CHANGE +[0-9,]+\.[0-9]{2}$", "^THANK YOU"),
    "not_a_sale": ("^X REPORT$", "^NO SALE$"),
    "copies": (r"^\*+ ?(DUPLICATE|REPRINT)",),
    "tax_letters": {"V": "B", "Z": "C", "E": "A", "": "B"},
    "item_codes": {"SODA 500ML": "KE2NTXU0000001"},
    "item_code": "KE2NTXU0000002",
}
# How long a till waits for its printer's word where it must get it. Real seconds.
PATIENT_S = 30.0
# The same till without a date on its slips.
UNDATED: dict[str, Any] = {**PATTERNS, "date": None}


def toml(value: Any) -> str:
    """As a settings file has it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return (
        "[" + ", ".join(map(toml, value)) + "]" if isinstance(value, tuple) else json.dumps(value)
    )


def a_template(**changes: Any) -> Template:
    part = CaptureSettings(port="/dev/null", till="till-1", **{**PATTERNS, **changes})
    return template_of(part)


def patterns(**changes: Any) -> Patterns:
    return Patterns(**{**PATTERNS, **changes})


def settings_for(
    shop_dir: Path, unit_url: str, till: FakeLegacyTill, printer: FakePrinter, **more: Any
) -> Any:
    # A cut ends a slip here: a silence could come in the middle of one on a machine that is busy.
    part = {"port": till.device_path, "till": "till-1", "silence_s": 0, **PATTERNS}
    return make_settings(
        shop_dir,
        unit_url,
        tills=[{"id": name, "printer": "counter"} for name in TOKENS],
        printers={
            "counter": {"port": printer.device_path, "baud": 115200, "columns": 42}
            | more.pop("printer_part", {})
        },
        printing={"stale_minutes": 0},
        captures={"old": part | more.pop("capture", {})},
        **more,
    )


@asynccontextmanager
async def old_till(
    unit: UnitControl, shop_dir: Path, clock: Clock | None = None, **more: Any
) -> AsyncIterator[tuple[OpenShop, FakeLegacyTill, FakePrinter]]:
    async with FakeLegacyTill(wait_s=PATIENT_S) as till, FakePrinter() as printer:
        settings = settings_for(shop_dir, unit.url, till, printer, **more)
        async with open_shop(settings, clock) as shop:
            await until_ready(till)
            yield shop, till, printer


async def until_ready(till: FakeLegacyTill) -> None:
    """The gateway has opened the line and answers as a printer does."""
    await till.find()
    await till.ready()


async def slips_of(shop: OpenShop) -> list[Captured]:
    """Every slip so far, oldest first."""
    rows = await shop.gateway.db.read(lambda conn: captures.newest(conn, 100))
    return rows[::-1]


async def until_slips(shop: OpenShop, *wanted: str, within: float = 30) -> list[Captured]:
    """Waits, by the store's own news, until the captured slips are in these states."""
    rows: list[Captured] = []
    try:
        async with asyncio.timeout(within):
            while True:
                news = asyncio.ensure_future(shop.gateway.db.changed())
                rows = await slips_of(shop)
                if [row.state for row in rows] == list(wanted):
                    news.cancel()
                    return rows
                await asyncio.wait({news}, timeout=5)
                news.cancel()
    except TimeoutError:
        raise AssertionError([(row.id, row.state, row.reason) for row in rows]) from None


def sample_settings(**changes: Any) -> CaptureSettings:
    """The template of config/gateway.toml, as docs/operating/capture.md explains it."""
    text = (Path(__file__).parents[2] / "config/gateway.toml").read_text(encoding="utf-8")
    section = text.split("# [captures.old]\n")[1].split("\n\n")[0]
    values = tomllib.loads("\n".join(line.removeprefix("# ") for line in section.splitlines()))
    # The page's sample names every setting; these two are for other tills than most.
    return CaptureSettings(**{**values, "last_line": None, "code_page": None, **changes})
