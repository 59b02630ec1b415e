"""Listening on an address of the LAN that may come later than the gateway, with limits for who connects."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from typing import Any, cast

from aiohttp import web

from gateway.connection_guard import REFUSED, ConnectionGuard, GuardedHandler, address_key

# ip(7); Python has no name for it.
IP_FREEBIND = 15
BACKLOG = 256
# Connections that are taken in one turn of the loop, so that a flood does not hold up a sale.
ACCEPTS_A_TURN = 32
# Without a free descriptor nothing can be accepted; the kernel keeps the connections. Seconds.
PAUSE_S = 1.0
# A peer that acknowledges nothing, or reads nothing, for so long is gone. Seconds.
UNREAD_MAX_S = 60.0
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


async def listen_at(
    runner: web.AppRunner, host: str, port: int, guard: ConnectionGuard | None = None
) -> None:
    """Serve on host and port, within the limits of `guard`. OSError when the port cannot be used.

    An address of the LAN may come long after the gateway, or never (a dead switch): it is listened on
    all the same, and tills reach it from the moment it is there. Only that way does the gateway come up
    by itself after a power cut, without waiting for a network.
    """
    sock = _early(host, port)
    socks = await _bound(host, port) if sock is None else [sock]
    try:
        await _GuardedSite(runner, socks, guard or ConnectionGuard()).start()
    except OSError:
        for sock in socks:
            sock.close()
        raise


class _GuardedSite(web.BaseSite):
    """A site of aiohttp that accepts by itself: asyncio makes a task and a parser for every connection, and
    logs each failure of `accept` with a trace."""

    def __init__(
        self, runner: web.AppRunner, socks: list[socket.socket], guard: ConnectionGuard
    ) -> None:
        super().__init__(runner)
        self._socks = socks
        self._guard = guard

    @property
    def name(self) -> str:
        return f"http {self._guard.name}"

    async def start(self) -> None:
        await super().start()
        assert self._runner.server is not None
        acceptor = _Acceptor(self._runner.server, self._socks, self._guard)
        acceptor.start()
        # aiohttp wants `sockets` and `close` of it.
        self._server = cast(asyncio.AbstractServer, acceptor)


class _Acceptor:
    """Accept connections for as long as the guard admits them."""

    def __init__(
        self, server: web.Server, socks: list[socket.socket], guard: ConnectionGuard
    ) -> None:
        self._server = server
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Future[None]] = set()
        self._pauses: set[asyncio.TimerHandle] = set()
        # aiohttp has no setting for the class of its handlers.
        self._handler_settings: dict[str, Any] = server._kwargs  # noqa: SLF001
        self.sockets = tuple(socks)

    def start(self) -> None:
        for sock in self.sockets:
            sock.setblocking(False)
            sock.listen(BACKLOG)
        for sock in self.sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def close(self) -> None:
        for pause in self._pauses:
            pause.cancel()
        for sock in self.sockets:
            if sock.fileno() >= 0:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        self.sockets = ()
        self._guard.close()

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                conn, peer = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Of other errors the next connection may be free: a firewall, a peer that went (accept(2)).
                if error.errno in _NO_ROOM:
                    self._pause(sock)
                    return
                self._guard.count("accept_failed", errno.errorcode.get(error.errno or 0, "?"))
                continue
            self._take(conn, peer[0])

    def _take(self, conn: socket.socket, peer: str) -> None:
        conn.setblocking(False)
        # IPv4 peers have no use for the near address: only a /64 is compared with it.
        near = conn.getsockname()[0] if conn.family == socket.AF_INET6 else ""
        address = address_key(peer, near)
        reason = self._guard.refusal(address, conn.fileno())
        if reason is not None:
            self._guard.count(reason, address)
            with contextlib.suppress(OSError):
                conn.send(REFUSED)
            conn.close()
            return
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_MAX_S * 1000))
        handler = self._guard.handler(address, self._server, self._handler_settings)
        opening = asyncio.ensure_future(self._open(conn, handler))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, conn: socket.socket, handler: GuardedHandler) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: handler, conn)
        except OSError:
            self._guard.remove(handler)
            conn.close()

    def _pause(self, sock: socket.socket) -> None:
        self._guard.count("no_descriptor", "-")
        self._guard.make_room()
        self._loop.remove_reader(sock.fileno())

        def resume() -> None:
            self._pauses.discard(handle)
            if sock.fileno() >= 0:
                self._loop.add_reader(sock.fileno(), self._accept, sock)

        handle = self._loop.call_later(PAUSE_S, resume)
        self._pauses.add(handle)


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Bind loopback, all addresses, or a name, which may be several sockets."""
    server = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, host, port, start_serving=False
    )
    try:
        return [socket.socket(fileno=os.dup(one.fileno())) for one in server.sockets]
    finally:
        server.close()


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
