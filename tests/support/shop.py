"""A shop for tests: settings, a till that speaks HTTP, sales to send."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from gateway.app import Gateway, open_gateway
from gateway.clock import Clock
from gateway.settings import Settings
from hw_fakes.vscu.unit import BRANCH, PIN, SERIAL, UnitControl
from tests.support.clock import FastClock

TOKENS = {f"till-{n}": f"token-of-till-number-{n}" for n in range(1, 9)}
TECHNICIANS = {"wanjiru": "code-of-wanjiru"}
_numbers = itertools.count(1)


def make_settings(directory: Path, unit_url: str, **sections: Any) -> Settings:
    """A shop of eight tills on an external unit; `sections` replace or add whole sections."""
    values: dict[str, Any] = {
        "branch": {
            "pin": PIN,
            "branch_id": BRANCH,
            "trade_name": "TEST TRADERS LTD",
            "address": "TEST PLAZA, NAIROBI",
        },
        # `pos-gateway unit-test` proves both of the fake unit.
        # What was sent before a start or a decision is over at once, so that no test waits for it.
        "unit": {
            "host": "external",
            "url": unit_url,
            "serial": SERIAL,
            "resend": True,
            "forgets_on_restart": True,
            "at_work_s": 0.01,
            "at_work_bounded": True,
            "upload_s": 0,
        },
        "store": {"directory": directory / "store", "ballast_mb": 0},
        "backup": {"every_hours": 0},
        "reference": {"every_hours": 0},
        # All tills of a test have one address.
        "api": {"port": 0, "connections_per_address": 512, "connections_max": 1024},
        "tills": [{"id": till} for till in TOKENS],
        "till_tokens": TOKENS,
        "technician_tokens": TECHNICIANS,
    }
    for name, section in sections.items():
        if isinstance(section, dict) and isinstance(values.get(name), dict):
            values[name] = {**values[name], **section}
        else:
            values[name] = section
    return Settings(**values)


def a_sale(**changes: Any) -> dict[str, Any]:
    """A valid sale of two lines; 297.00 in all."""
    sale: dict[str, Any] = {
        "tillReceiptNo": f"POS-{next(_numbers):06d}",
        "lines": [
            {
                "itemCode": "KE2NTXU0000001",
                "name": "Bottled soda 500ml",
                "quantity": "2",
                "unitPrice": "116.00",
                "taxCode": "B",
            },
            {
                "itemCode": "KE2NTXU0000002",
                "name": "Ordinary bread 400g",
                "quantity": "1",
                "unitPrice": "65.00",
                "taxCode": "A",
            },
        ],
        "total": "297.00",
    }
    sale.update(changes)
    return sale


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    json: Any
    headers: Any


class TillClient:
    """One till over real HTTP."""

    def __init__(self, session: aiohttp.ClientSession, url: str, till: str = "till-1") -> None:
        self._session = session
        self.url = url
        self.headers = {"Authorization": f"Bearer {TOKENS[till]}"}

    async def sell(self, key: str | None, sale: dict[str, Any]) -> Reply:
        return await self.request("POST", "/v1/invoices", key=key, json=sale)

    async def request(
        self, method: str, path: str, *, key: str | None = None, **more: Any
    ) -> Reply:
        headers = {**self.headers, **more.pop("headers", {})}
        if key is not None:
            headers["Idempotency-Key"] = key
        async with self._session.request(
            method, self.url + path, headers=headers, **more
        ) as answer:
            body = await answer.read()
            value = None
            if "json" in answer.content_type:
                value = await answer.json(content_type=None)
            return Reply(answer.status, body, value, answer.headers)


class Technician(TillClient):
    """A technician with a code, over the same HTTP."""

    def __init__(self, session: aiohttp.ClientSession, url: str, code: str | None = None) -> None:
        super().__init__(session, url)
        self.headers = {"Authorization": f"Bearer {code or TECHNICIANS['wanjiru']}"}

    async def decide(self, invoice_id: str, **said: Any) -> Reply:
        return await self.request("POST", f"/v1/invoices/{invoice_id}/decision", json=said)


@dataclass(slots=True)
class OpenShop:
    gateway: Gateway
    session: aiohttp.ClientSession

    def till(self, name: str = "till-1") -> TillClient:
        return TillClient(self.session, self.gateway.url, name)

    def technician(self, code: str | None = None) -> Technician:
        return Technician(self.session, self.gateway.url, code)


async def in_the_morning(unit: UnitControl) -> FastClock:
    """A clock at its usual pace, of a day that does not end while a test looks at it. The unit lives by it."""
    clock = FastClock(1)
    await unit.knobs(clockOffsetSeconds=round(clock.now().timestamp() - time.time()))
    return clock


@asynccontextmanager
async def open_shop(settings: Settings, clock: Clock | None = None) -> AsyncIterator[OpenShop]:
    """The gateway and a session for its tills (as many connections as wanted)."""
    async with (
        open_gateway(settings, clock) as gateway,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        yield OpenShop(gateway, session)
