"""Find printers that announce themselves on the network (mDNS), where the package zeroconf is installed.

Cheap printers do not announce themselves: `network_finder` finds those. Only a technician's command
imports this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from gateway.clock import Clock

# Raw printing (port 9100), LPD and IPP; the gateway prints by the first only.
RAW = "_pdl-datastream._tcp.local."
SERVICES = (RAW, "_printer._tcp.local.", "_ipp._tcp.local.")
BROWSE_S = 3.0
ASK_MS = 1000
MODEL_MAX = 60


@dataclass(frozen=True, slots=True)
class Announced:
    """A printer that announces itself. `raw_port`: where it takes slips; None where it announces none."""

    address: str
    model: str
    raw_port: int | None = None


async def browse(
    clock: Clock, wait_s: float = BROWSE_S, interfaces: Sequence[str] | None = None
) -> list[Announced] | None:
    """Return the printers that announce themselves in this time; None without the package zeroconf."""
    try:
        from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange
        from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf
    except ImportError:
        return None
    names: set[tuple[str, str]] = set()

    def changed(
        zeroconf: Any, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        if state_change is not ServiceStateChange.Removed:
            names.add((service_type, name))

    where = list(interfaces) if interfaces is not None else InterfaceChoice.All
    link = AsyncZeroconf(interfaces=where, ip_version=IPVersion.V4Only)
    try:
        browser = AsyncServiceBrowser(link.zeroconf, list(SERVICES), handlers=[changed])
        await clock.sleep(wait_s)
        await browser.async_cancel()
        services = [AsyncServiceInfo(kind, name) for kind, name in sorted(names)]
        await asyncio.gather(*(each.async_request(link.zeroconf, ASK_MS) for each in services))
    finally:
        await link.async_close()
    return _by_address(services)


def _by_address(services: Sequence[Any]) -> list[Announced]:
    found: dict[str, Announced] = {}
    for service in services:
        model = _printable((service.properties or {}).get(b"ty") or service.name.encode())
        for address in service.parsed_addresses():
            before = found.get(address, Announced(address, model))
            raw_port = service.port if service.type == RAW else before.raw_port
            found[address] = Announced(address, before.model, raw_port)
    return sorted(found.values(), key=lambda each: IPv4Address(each.address))


def _printable(text: bytes) -> str:
    """Return text of the network as a terminal may show it."""
    decoded = text.decode("utf-8", errors="replace").partition("._")[0]
    return "".join(char for char in decoded if char.isprintable())[:MODEL_MAX]
