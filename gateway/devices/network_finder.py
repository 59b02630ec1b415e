"""Find printers on the shop's own network: the addresses beside this machine's that take port 9100.

Runs only when a technician asks. Connects and closes; sends nothing. A printer that has another program's
connection open may refuse, as most take one connection at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from gateway.devices.ports import Roots, text_of

PRINTER_PORT = 9100
CONNECT_S = 0.7
AT_ONCE = 64
# Never more than the 254 neighbours of one address, however large the network is.
PREFIX_MIN = 24
_SIOCGIFCONF, _SIOCGIFNETMASK = 0x8912, 0x891B
_IFREQ_BYTES, _IFREQS_MAX = 40, 64


@dataclass(frozen=True, slots=True)
class Found:
    """A machine that takes connections on the printer port. `hardware`: its MAC, where it is known."""

    address: str
    hardware: str | None
    port: int = PRINTER_PORT

    @property
    def name(self) -> str:
        """Return the port for the settings."""
        return f"socket://{self.address}:{self.port}"


def own_addresses() -> list[IPv4Interface]:
    """Return this machine's addresses in private networks, with their networks."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for name, raw in _configured(asking):
            request = name + struct.pack("=HH4s16x", socket.AF_INET, 0, raw)
            with contextlib.suppress(OSError):
                mask = fcntl.ioctl(asking, _SIOCGIFNETMASK, request)[20:24]
                own = IPv4Interface(f"{IPv4Address(raw)}/{IPv4Address(mask)}")
                if own.ip.is_private and not own.ip.is_loopback and not own.ip.is_link_local:
                    found.append(own)
    return found


def _configured(asking: socket.socket) -> Iterable[tuple[bytes, bytes]]:
    """Yield name and address of every interface that has one."""
    buffer = bytearray(_IFREQ_BYTES * _IFREQS_MAX)
    where = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    answer = fcntl.ioctl(asking, _SIOCGIFCONF, struct.pack("iP", len(buffer), where))
    for start in range(0, struct.unpack("iP", answer)[0], _IFREQ_BYTES):
        yield bytes(buffer[start : start + 16]), bytes(buffer[start + 20 : start + 24])


def neighbours(own: Sequence[IPv4Interface]) -> list[str]:
    """Return the addresses to try: at most 254 beside each of its own, without these."""
    mine = {each.ip for each in own}
    found: dict[IPv4Address, None] = {}
    for each in own:
        network = each.network
        if network.prefixlen < PREFIX_MIN:
            network = IPv4Network((each.ip, PREFIX_MIN), strict=False)
        found |= {host: None for host in network.hosts() if host not in mine}
    return [str(host) for host in found]


async def scan(
    addresses: Sequence[str], roots: Roots = Roots(), port: int = PRINTER_PORT
) -> list[Found]:
    """Return those that take a connection, in the order of `addresses`."""
    free = asyncio.Semaphore(AT_ONCE)

    async def answers(address: str) -> bool:
        async with free:
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, writer = await asyncio.open_connection(address, port)
            except (OSError, TimeoutError):
                return False
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return True

    taken = await asyncio.gather(*(answers(address) for address in addresses))
    hardware = _hardware(roots)
    return [
        Found(address, hardware.get(address), port)
        for address, is_taken in zip(addresses, taken, strict=True)
        if is_taken
    ]


def _hardware(roots: Roots) -> dict[str, str]:
    """Return the hardware address of every neighbour that the kernel has spoken to."""
    rows = [line.split() for line in text_of(roots.proc / "net/arp").splitlines()[1:]]
    return {row[0]: row[3] for row in rows if len(row) > 3 and row[3] != "00:00:00:00:00:00"}
