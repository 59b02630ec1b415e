"""Bound what the devices of a network can hold of a listening socket: connections, and time without a request.

A stranger is a peer address that has presented no valid token lately. Strangers are refused first; an address
that is known keeps its service while they are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import resource
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from gateway.errors import BodyLate, GatewayError, TooManyConnections

log = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOOPBACK: tuple[Network, ...] = (
    ipaddress.IPv4Network("127.0.0.0/8"),
    ipaddress.IPv6Network("::1/128"),
)
# An address stays known for so long after its last valid token. Seconds.
KNOWN_FOR_S = 86_400.0
KNOWN_MAX = 1024
# A request of a stranger that takes longer than this, and is no event stream, may be closed for a newcomer: the
# peer does not read its answer. Seconds.
STRANGER_BUSY_MAX_S = 60.0
# Descriptors that no connection may use: the store, the control unit and the printers need them.
SPARE_DESCRIPTORS = 64
SWEEP_S = 1.0
REPORT_EVERY_MAX_S = 60.0
# The rest of a body that no handler reads is thrown away; a connection in that state is in no request. Seconds.
REST_S = 1.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Connections of one peer address and in all, and how long a peer may keep one without a request. Peers in
    `proxies` stand for many senders, so they have no limit of their own."""

    per_address: int = 64
    total: int = 512
    head_s: float = 10.0
    keep_alive_s: float = 75.0
    proxies: tuple[Network, ...] = ()

    @property
    def for_strangers(self) -> int:
        """Connections that strangers may hold in all; the rest is a reserve for known addresses."""
        return self.total - self.total // 4


def address_key(peer: str, local: str = "") -> str:
    """Return what connections are counted by: the IPv4 address, or the /64 of an IPv6 address.

    Everything on a shop's LAN is in one /64, so an IPv6 peer in the /64 of `local`, the address that it
    connected to, is counted by its whole address.
    """
    address = _parsed(peer)
    if isinstance(address, ipaddress.IPv6Address):
        network = _network64(address)
        near = _parsed(local)
        if isinstance(near, ipaddress.IPv6Address) and near in network:
            return str(address)
        return str(network)
    return str(address) if address is not None else peer


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _network64(address: ipaddress.IPv6Address) -> ipaddress.IPv6Network:
    return ipaddress.IPv6Network((int(address) >> 64 << 64, 64))


def raw_response(error: GatewayError) -> bytes:
    """Return a whole HTTP response for a request that was not read."""
    body = json.dumps(error.members(""), separators=(",", ":")).encode()
    head = (
        f"HTTP/1.1 {error.status} {error.title}\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: {error.retry_after_s or 1}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


# Whether an earlier sending was signed is not looked up for a request that was not read.
REFUSED = raw_response(
    TooManyConnections(
        "The gateway has too many connections at this moment, so this request was not read. Send it again "
        "with the same key in a few seconds.",
        retry_after_s=5,
        extra={"signed": "unknown"},
    )
)
_LATE = raw_response(
    BodyLate(
        "The request did not come whole in time, and nothing was done for it. Send it again with the same key.",
        extra={"signed": "unknown"},
    )
)


class GuardedHandler(RequestHandler):
    """One connection. aiohttp has a deadline for an idle connection, but none for the head of a request."""

    __slots__ = ("address", "busy_since", "guard", "head_since", "opened_at", "sent", "stream_end")

    def __init__(
        self, guard: ConnectionGuard, address: str, server: web.Server, settings: dict[str, Any]
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **settings)
        self.guard = guard
        self.address = address
        self.opened_at = loop.time()
        # When the head that is awaited began; None during a request and on a kept connection without a byte.
        self.head_since: float | None = self.opened_at
        self.busy_since: float | None = None
        # Of an event stream: completes when the peer goes.
        self.stream_end: asyncio.Future[None] | None = None
        self.sent = False

    @property
    def is_waiting(self) -> bool:
        """True between requests, and while a head is still on its way."""
        return self._waiter is not None

    @property
    def is_dropping(self) -> bool:
        """True while the rest of a body that no handler wants is read."""
        since = self.opened_at if self.busy_since is None else self.busy_since
        answered = not self._request_in_progress and not self._messages
        return answered and self._loop.time() - since > REST_S

    def data_received(self, data: bytes) -> None:
        heads, waiting = self._request_count, self.is_waiting
        super().data_received(data)
        now = self._loop.time()
        if self._request_count != heads:
            self.head_since, self.busy_since = None, now
        elif waiting and data:
            self.sent = True
            if self.head_since is None:
                self.head_since = now

    def connection_lost(self, exc: BaseException | None) -> None:
        self.guard.remove(self)
        if self.stream_end is not None and not self.stream_end.done():
            self.stream_end.set_result(None)
        super().connection_lost(exc)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Count heads that are no HTTP: one line each, with a trace, would let any device fill the disk."""
        if isinstance(kw.get("exc_info"), HttpProcessingError):
            self.guard.count("malformed", self.address)
        else:
            super().log_exception(*args, **kw)

    def close_late(self, now: float) -> None:
        """Close the connection if its head has not come whole in time."""
        late = self.head_since is not None and now - self.head_since > self.guard.limits.head_s
        if not late or not self.is_waiting or self.transport is None:
            return
        self.guard.count("head_late", self.address)
        if self.sent:
            self.transport.write(_LATE)
        self.force_close()

    def drop(self) -> None:
        """Close the connection at once, whatever has not been sent."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()


class ConnectionGuard:
    """The connections of one listening socket (or of the few that one service listens on)."""

    def __init__(self, name: str = "http", limits: Limits | None = None) -> None:
        self.name = name
        self.limits = limits or Limits()
        # What was refused and closed since the start, by kind.
        self.counts: Counter[str] = Counter()
        self._open: dict[str, dict[GuardedHandler, None]] = {}
        self._in_all = 0
        self._known: dict[str, float] = {}
        self._report = _Report(name)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """Connections that are held now."""
        return self._in_all

    def handler(self, address: str, server: web.Server, settings: dict[str, Any]) -> GuardedHandler:
        """Return the protocol of a connection that was admitted; it is counted from now on."""
        settings = {**settings, "keepalive_timeout": self.limits.keep_alive_s}
        made = GuardedHandler(self, address, server, settings)
        self._open.setdefault(address, {})[made] = None
        self._in_all += 1
        self._start_timer()
        return made

    def remove(self, handler: GuardedHandler) -> None:
        """Stop counting a connection. Idempotent."""
        mine = self._open.get(handler.address, {})
        if handler not in mine:
            return
        del mine[handler]
        self._in_all -= 1
        if not mine:
            del self._open[handler.address]

    # --- who may connect ------------------------------------------------------------------------------

    def refusal(self, address: str, descriptor: int) -> str | None:
        """Return why a new connection is refused, or None. To admit it, another one may be closed: one
        without a request, of an address that holds more. `descriptor`: the number of the new socket, which
        the kernel takes as low as it can."""
        known = self.is_known(address)
        mine = self._open.get(address, {})
        at_limit = len(mine) >= self.limits.per_address and not self._is_proxy(address)
        if at_limit and not (known and self._close_one([address])):
            return "per_address"
        reason = self._full(known, descriptor)
        if reason is None or self._close_one(self._heavier_than(len(mine))):
            return None
        return reason

    def know(self, address: str) -> None:
        """Record that this address has presented a valid token."""
        self._known.pop(address, None)
        self._known[address] = asyncio.get_running_loop().time()
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def is_known(self, address: str) -> bool:
        """Return True if the address has presented a valid token lately."""
        at = self._known.get(address)
        return at is not None and asyncio.get_running_loop().time() - at < KNOWN_FOR_S

    def make_room(self) -> None:
        """Close some connections without a request: the process has no descriptor left."""
        for _ in range(8):
            if not self._close_one(self._heavier_than(0)):
                return

    def _is_proxy(self, address: str) -> bool:
        if not self.limits.proxies:
            return False
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self.limits.proxies)

    def _full(self, known: bool, descriptor: int) -> str | None:
        limit = self.limits.total if known else self.limits.for_strangers
        if self._in_all >= limit:
            return "total"
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        spare = min(SPARE_DESCRIPTORS, soft // 4)
        if soft != resource.RLIM_INFINITY and descriptor >= soft - (spare // 2 if known else spare):
            return "descriptors"
        return None

    def _heavier_than(self, count: int) -> Iterable[str]:
        """Return the addresses that hold the most connections, more than `count`."""
        most = max((len(held) for held in self._open.values()), default=0)
        if most <= count:
            return ()
        return [address for address, held in self._open.items() if len(held) == most]

    def _close_one(self, addresses: Iterable[str]) -> bool:
        """Close the oldest connection of these addresses that is in no request."""
        oldest: GuardedHandler | None = None
        for address in addresses:
            known = self.is_known(address)
            for handler in self._open[address]:
                if self._is_idle(handler, known):
                    if oldest is None or handler.opened_at < oldest.opened_at:
                        oldest = handler
                    break
        if oldest is None:
            return False
        self.count("closed_for_another", oldest.address)
        self.remove(oldest)
        oldest.drop()
        return True

    @staticmethod
    def _is_idle(handler: GuardedHandler, known: bool) -> bool:
        if handler.is_waiting:
            # A till's kept connection is its service.
            return handler.head_since is not None if known else True
        if known or handler.stream_end is not None or handler.busy_since is None:
            return False
        busy_s = asyncio.get_running_loop().time() - handler.busy_since
        return handler.is_dropping or busy_s > STRANGER_BUSY_MAX_S

    # --- every second ---------------------------------------------------------------------------------

    def count(self, kind: str, address: str) -> None:
        """Count what was refused or closed; the log gets a line with the number now and then."""
        self.counts[kind] += 1
        self._report.add(kind, address)
        self._start_timer()

    def _start_timer(self) -> None:
        if self._timer is None:
            pause_s = min(SWEEP_S, self.limits.head_s / 2)
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for held in list(self._open.values()):
            for handler in list(held):
                handler.close_late(now)
        self._report.write(now)
        if self._in_all or self._report.pending:
            self._start_timer()

    def close(self) -> None:
        """Stop the timer and log what is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._report.write(float("inf"))


class _Report:
    """One log line for each kind: at most one a second, and one a minute while it goes on."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pending: dict[str, tuple[int, str]] = {}
        # By kind: when the next line may come, and the pause after that line.
        self._pace: dict[str, tuple[float, float]] = {}

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def add(self, kind: str, address: str) -> None:
        count, _ = self._pending.get(kind, (0, ""))
        self._pending[kind] = (count + 1, address)

    def write(self, now: float) -> None:
        for kind in list(self._pending):
            at, pause_s = self._pace.get(kind, (0.0, SWEEP_S))
            if now < at:
                continue
            if now - at > REPORT_EVERY_MAX_S:
                pause_s = SWEEP_S
            count, address = self._pending.pop(kind)
            log.warning(
                "connections.%s listener=%s count=%d last=%s", kind, self._name, count, address
            )
            self._pace[kind] = (now + pause_s, min(pause_s * 2, REPORT_EVERY_MAX_S))


def peer_key(request: web.Request) -> str:
    """Return what this request's peer is counted by."""
    handler = request.protocol
    if isinstance(handler, GuardedHandler):
        return handler.address
    return address_key(request.remote or "")


def authenticated(request: web.Request) -> None:
    """Record that the peer of this request has presented a valid token."""
    handler = request.protocol
    if isinstance(handler, GuardedHandler):
        handler.guard.know(handler.address)


def stream_end(request: web.Request) -> asyncio.Future[None]:
    """Record that this request is an event stream, which may last. Return what completes when the peer goes."""
    handler = request.protocol
    end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if isinstance(handler, GuardedHandler):
        handler.stream_end = end
    return end
