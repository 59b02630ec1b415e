"""Listening on an address of the LAN that may come later than the gateway."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp import web

# ip(7); Python has no name for it.
IP_FREEBIND = 15


async def listen_at(runner: web.AppRunner, host: str, port: int) -> None:
    """Serve on host and port. OSError when the port cannot be used.

    An address of the LAN may come long after the gateway, or never (a dead switch): it is listened on
    all the same, and tills reach it from the moment it is there. Only that way does the gateway come up
    by itself after a power cut, without waiting for a network.
    """
    sock = _early(host, port)
    if sock is None:
        await web.TCPSite(runner, host, port).start()
        return
    try:
        await web.SockSite(runner, sock).start()
    except OSError:
        sock.close()
        raise


def is_here(host: str) -> bool:
    """Whether this machine has the address now; True for a name."""
    address = _address(host)
    if address is None:
        return True
    with socket.socket(_family(address), socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _early(host: str, port: int) -> socket.socket | None:
    """A bound socket for an address of the LAN; None for loopback, for all addresses and for a name."""
    address = _address(host)
    if address is None or address.is_loopback or address.is_unspecified:
        return None
    sock = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _family(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
