"""A shop that is paid by M-Pesa, all of it real: the daemon as a process, the relay as a process, the fake
Daraja over HTTP, one control unit, and tills that listen to their events. Time runs faster (support/fast.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from hw_fakes.daraja import FakeDaraja
from hw_fakes.daraja.bank import PASSKEY
from hw_fakes.daraja.oauth import KEY, SECRET
from hw_fakes.relay import RelayProcess
from hw_fakes.vscu.unit import UnitControl
from tests.support.daemon import Daemon
from tests.support.fast import FastClock
from tests.support.shop import TECHNICIANS, Reply, TillClient

SHORTCODE = "600984"
RELAY_HOST = "relay.test"
# Real seconds until something that must happen is called missing.
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    kind: str
    data: dict[str, Any]
    at: float  # time.perf_counter() when the till had it


@dataclass(slots=True)
class Screen:
    """What a till shows: all events since it was switched on, over as many connections as it takes."""

    events: list[Event] = field(default_factory=list)
    connections: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def of(self, payment_id: str) -> list[Event]:
        return [
            e
            for e in self.events
            if e.kind == "payment.changed" and e.data["paymentId"] == payment_id
        ]

    def add(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not is_so():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"no event in time: {what}; {[(e.kind, e.data.get('state')) for e in self.events[-8:]]}"
            ) from None


class MpesaTill(TillClient):
    """One till over HTTP, with its stream of events."""

    # A stream that says nothing for so long is dead, though nobody said so. Seconds.
    silence_s: float | None = None

    async def push(self, key: str, ref: str, amount: str, phone: str) -> Reply:
        body = {"saleRef": ref, "amount": amount, "phone": phone}
        return await self.request("POST", "/v1/payments/mpesa", key=key, json=body)

    async def payment(self, payment_id: str) -> dict[str, Any]:
        reply = await self.request("GET", f"/v1/payments/{payment_id}")
        assert reply.status == 200, reply.json
        found: dict[str, Any] = reply.json
        return found

    async def insist(
        self, method: str, path: str, *, again: tuple[int, ...] = (202, 503), **more: Any
    ) -> Reply:
        """As a till does: the same request again while the gateway is away or says that it goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                    reply = await self.request(method, path, **more)
                    if reply.status not in again:
                        return reply
                await asyncio.sleep(0.05)

    @asynccontextmanager
    async def screen(self) -> AsyncIterator[Screen]:
        """Listens, and comes back with Last-Event-ID whenever the gateway went away."""
        screen = Screen()
        task = asyncio.ensure_future(self._listen(screen))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while screen.connections == 0:
                    await asyncio.sleep(0.01)
            yield screen
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _listen(self, screen: Screen) -> None:
        last: int | None = None
        while True:
            headers = {**self.headers, **({} if last is None else {"Last-Event-ID": str(last)})}
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                async with self._session.get(
                    f"{self.url}/v1/events",
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=None, sock_read=self.silence_s),
                ) as answer:
                    assert answer.status == 200
                    number, kind = 0, ""
                    async for raw in answer.content:
                        line = raw.decode().rstrip("\n")
                        if line.startswith("retry:"):
                            screen.connections += 1
                        elif line.startswith("id: "):
                            last = number = int(line[4:])
                        elif line.startswith("event: "):
                            kind = line[7:]
                        elif line.startswith("data: "):
                            screen.add(
                                Event(number, kind, json.loads(line[6:]), time.perf_counter())
                            )
            await asyncio.sleep(0.02)


class MpesaDaemon(Daemon):
    """The daemon on a fast clock, with an external unit, so that its next life begins at once."""

    def __init__(
        self, directory: Path, unit: UnitControl, clock: FastClock, mpesa: str, env: dict[str, str]
    ) -> None:
        codes = ",".join(f"{name}={code}" for name, code in TECHNICIANS.items())
        secrets = {
            "GATEWAY_MPESA_CONSUMER_KEY": KEY,
            "GATEWAY_MPESA_CONSUMER_SECRET": SECRET,
            "GATEWAY_MPESA_PASSKEY": PASSKEY,
            "GATEWAY_MPESA_SECURITY_CREDENTIAL": "c2VjcmV0",
            "GATEWAY_TECHNICIAN_TOKENS": codes,
        }
        super().__init__(directory, mpesa, {**secrets, **clock.environment(), **env})
        self.module = "tests.support.fast"
        text = self.config.read_text()
        before, after = text.split("[unit]\n")
        _, after = after.split("serial = ", 1)
        self.config.write_text(
            f'{before}[unit]\nhost = "external"\nurl = "{unit.url}"\n'
            f"start_timeout_s = {30 * clock.speed}\nserial = {after}"
        )


@dataclass(slots=True)
class MpesaShop:
    """Everything of one shop. `kill` and `start` are the daemon's."""

    clock: FastClock
    fake: FakeDaraja
    relay: RelayProcess
    daemon: MpesaDaemon
    session: aiohttp.ClientSession
    unit: UnitControl

    def till(self, name: str = "till-1") -> MpesaTill:
        return MpesaTill(self.session, self.daemon.url, name)

    def technician(self) -> TillClient:
        person = MpesaTill(self.session, self.daemon.url)
        person.headers = {"Authorization": f"Bearer {TECHNICIANS['wanjiru']}"}
        return person

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """What the store holds, also while the daemon is dead."""
        path = self.daemon.directory / "store/gateway.db"
        conn = sqlite3.connect(path, timeout=10)
        conn.row_factory = sqlite3.Row
        try:
            return [dict(row) for row in conn.execute(sql, values)]
        finally:
            conn.close()

    def row(self, payment_id: str) -> dict[str, Any]:
        (found,) = self.rows("SELECT * FROM payment WHERE id = ?", payment_id)
        return found

    async def until(
        self, is_so: Callable[[], Any], what: str, patience_s: float = PATIENCE_S
    ) -> Any:
        """Waits for something in the store or the fake; what it was in the end."""
        end = time.monotonic() + patience_s
        while True:
            found = is_so()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"not in time: {what}\n{self.daemon.log()[-3000:]}")
            await asyncio.sleep(0.03)

    async def until_money(self, payment_id: str, *states: str) -> dict[str, Any]:
        def there() -> dict[str, Any] | None:
            row = self.row(payment_id)
            return row if row["money"] in states else None

        found: dict[str, Any] = await self.until(
            there, f"{payment_id} in {states}: {self.row(payment_id)['money']}"
        )
        return found


@asynccontextmanager
async def open_mpesa_shop(
    directory: Path,
    unit: UnitControl,
    *,
    speed: float = 20.0,
    relay: bool = True,
    settings: str = "",
    **knobs: Any,
) -> AsyncIterator[MpesaShop]:
    """`speed`: how many seconds go by in one; `settings`: more lines for [mpesa]; `knobs`: the fake's."""
    clock = FastClock(time.time(), speed)
    await unit.knobs(clockRate=speed)
    async with (
        FakeDaraja(time_scale=1 / speed, now=clock.now, pull_registered=(SHORTCODE,)) as fake,
        RelayProcess(directory / "relay", more='unlimited = ["127.0.0.0/8"]\n') as keeper,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        fake.turn(hosts={RELAY_HOST: keeper.url}, query_limited=False, **knobs)
        (name, secret), *_ = keeper.secrets.items()
        section = f"""[mpesa]
environment = "sandbox"
base_url = "{fake.url}"
shortcode = "{SHORTCODE}"
callback_url = "https://{RELAY_HOST}/{name}"
"""
        if relay:
            section += f'relay_url = "{keeper.url}"\nrelay_gateway = "{name}"\n'
        env = {"GATEWAY_MPESA_RELAY_SECRET": secret} if relay else {}
        daemon = MpesaDaemon(directory / "shop", unit, clock, section + settings, env)
        async with daemon:
            yield MpesaShop(clock, fake, keeper, daemon, session, unit)
