"""A shop on a network of its own: the real daemon in one namespace, and cloud, Daraja, relay and KRA behind
a veth in another (support/netns.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from hw_fakes.cloud.server import FakeCloud
from hw_fakes.daraja import FakeDaraja
from hw_fakes.daraja.bank import PASSKEY
from hw_fakes.daraja.oauth import KEY, SECRET
from hw_fakes.relay import RelayProcess
from hw_fakes.vscu.kra import FakeKra
from hw_fakes.vscu.unit import UnitControl
from tests.support import netns
from tests.support.authority import make_authority, served_with
from tests.support.daemon import Daemon
from tests.support.mpesa_shop import MpesaTill
from tests.support.netns import Namespace, Network, Passage, network
from tests.support.rough import Rough

# Real seconds until something that must happen is called missing.
PATIENCE_S = 60.0
RELAY_HOST = "relay.test"
NAMES = {
    "cloud.test": netns.CLOUD,
    "daraja.test": netns.DARAJA,
    RELAY_HOST: netns.RELAY,
    "kra.test": netns.KRA,
}


@dataclass(slots=True)
class NetShop:
    net: Network
    daemon: Daemon
    cloud: FakeCloud
    daraja: FakeDaraja
    relay: RelayProcess
    kra: FakeKra
    # Who serves what in the world, by the names above.
    doors: dict[str, Passage]
    # What the box's line to cloud, Daraja and relay is, where it may be a bad one. KRA has a line of its own.
    cable: Rough | None
    # Of a till beside the box, on its own loopback.
    session: aiohttp.ClientSession

    def till(self, name: str = "till-1") -> MpesaTill:
        return MpesaTill(self.session, self.daemon.url, name)

    async def status(self) -> dict[str, Any]:
        reply = await self.till().request("GET", "/v1/status")
        found: dict[str, Any] = reply.json
        return found

    async def ends(self, payment_id: str, *states: str) -> dict[str, Any]:
        """The payment once it is in one of these states."""
        found: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while found.get("state") not in states:
                    found = await self.till().payment(payment_id)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{found}\n{self.daemon.log()[-3000:]}") from None
        return found

    async def until(self, is_so: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The first status of which it is so."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = await self.status()
                    if is_so(found):
                        return found
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{await self.status()}\n{self.daemon.log()[-3000:]}") from None


def sockets_of(where: Namespace) -> aiohttp.TCPConnector:
    """Connections that are made in that namespace, as many as wanted."""
    return aiohttp.TCPConnector(limit=0, socket_factory=lambda info: where.socket(info[1], info[0]))


@asynccontextmanager
async def net_shop(
    directory: Path,
    *,
    paid: bool = True,
    by_name: bool = False,
    kra_by_name: bool = False,
    resolv: str | None = None,
    cloud: str = "",
    mpesa: str = "",
    unit: str = "",
    api: str = "",
    query_every_s: float = 1,
    rough: bool = False,
    start: bool = True,
    extra: str = "",
    env: dict[str, str] | None = None,
    module: str = "gateway",
) -> AsyncIterator[NetShop]:
    """`paid`: with M-Pesa and its relay; `by_name`: everybody but KRA is addressed by name, `kra_by_name`: KRA; `resolv`: what stands in the box's resolv.conf; `cloud`,
    `mpesa`, `unit` and `api`: more lines of their sections; `rough`: over a cable that can lose packets."""
    async with AsyncExitStack() as stack:
        net = stack.enter_context(network())
        names = "IP:10.77.0.10,DNS:cloud.test"
        authority, certificate, key = await asyncio.to_thread(make_authority, directory, names)
        fake_cloud = await stack.enter_async_context(FakeCloud(tls=served_with(certificate, key)))
        daraja = await stack.enter_async_context(FakeDaraja(time_scale=0.02))
        relay = RelayProcess(directory / "relay", more='unlimited = ["127.0.0.0/8"]\n')
        if paid:
            await stack.enter_async_context(relay)
        daraja.turn(hosts={RELAY_HOST: relay.url}, query_limited=False)
        kra = FakeKra()
        await kra.start()
        stack.push_async_callback(kra.stop)
        cable = None
        if rough:
            cable = await stack.enter_async_context(net.rough())
        doors = {}
        for name, address, url in (
            ("cloud", netns.CLOUD, fake_cloud.url),
            ("daraja", netns.DARAJA, daraja.url),
            ("relay", netns.RELAY, relay.url),
            ("kra", netns.KRA, kra.url),
        ):
            target = ("127.0.0.1", int(url.rpartition(":")[2]))
            door = Passage(net.world, address, None, target)
            doors[name] = await stack.enter_async_context(door)
        [(gateway, secret)] = relay.secrets.items()

        def host(name: str, address: str) -> str:
            return f"{f'{name}.test' if by_name else address}:{doors[name].port}"

        settings = f"""[cloud]
url = "https://{host("cloud", netns.CLOUD)}"
ca_file = "{authority}"
backoff_max_s = 0.5
{cloud or "timeout_s = 2"}
[reference]
every_hours = 0
"""
        if paid:
            settings += f"""[mpesa]
environment = "sandbox"
base_url = "http://{host("daraja", netns.DARAJA)}"
shortcode = "600984"
callback_url = "https://{RELAY_HOST}/{gateway}"
relay_url = "http://{host("relay", netns.RELAY)}"
relay_gateway = "{gateway}"
same_phone_s = 0
query_every_s = {query_every_s}
{mpesa or "answer_timeout_s = 2"}
"""
        secrets = {
            "GATEWAY_CLOUD_TOKEN": fake_cloud.token,
            "GATEWAY_MPESA_CONSUMER_KEY": KEY,
            "GATEWAY_MPESA_CONSUMER_SECRET": SECRET,
            "GATEWAY_MPESA_PASSKEY": PASSKEY,
            "GATEWAY_MPESA_RELAY_SECRET": secret,
        }
        daemon = Daemon(directory / "shop", settings + extra, {**secrets, **(env or {})})
        daemon.module = module
        text = daemon.config.read_text()
        text = text.replace("[unit]\n", f"[unit]\n{unit}").replace("[api]\n", f"[api]\n{api}")
        daemon.config.write_text(text)
        kra_url = f"http://kra.test:{doors['kra'].port}" if kra_by_name else doors["kra"].url
        properties = directory / "shop/unit/config/application.properties"
        properties.write_text(properties.read_text() + f"api.external.domain={kra_url}\n")
        file = None
        if resolv is not None:
            file = directory / "resolv.conf"
            file.write_text(resolv)
        daemon.prefix = net.box.prefix(file)
        # The unit's control paths from where the test is.
        control = await stack.enter_async_context(
            Passage(None, "127.0.0.1", net.box, ("127.0.0.1", daemon.unit_port))
        )
        daemon.unit = UnitControl(control.url)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=sockets_of(net.box))
        )
        if start:
            await stack.enter_async_context(daemon)
        yield NetShop(net, daemon, fake_cloud, daraja, relay, kra, doors, cable, session)
