"""The relay's two sides: M-Pesa posts, gateways fetch by long poll.

    POST /{gateway}/{kind}/{token}   kind s (push), c and v (C2B), r and t (results)
    GET  /v1/messages?after=N&epoch=E&wait=25     signed (auth.py)
    POST /v1/ack {"upTo": N, "epoch": E}          signed
    GET  /v1/state                                signed: what waits, and the counters
    GET  /healthz

A message is answered when it is on the disk, whatever is in it: M-Pesa waits some seconds and may never
send it again (daraja.md 5). It is never looked into and never logged. Every message reaches its gateway at
least once; `epoch` tells a gateway that the relay's numbers have started anew.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import logging
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from gateway.clock import Clock, SystemClock, from_micros, micros, wake_or_sleep
from gateway.errors import ConfigError
from gateway.ops.systemd import Notifier
from gateway.relay.auth import Keys, Refusal
from gateway.relay.settings import RelaySettings
from gateway.relay.store import Full, Incoming, Kept, RelayStore, open_store

log = logging.getLogger(__name__)

BODY_MAX_BYTES = 64 * 1024
# The request line and a token of ours (32 characters) with room.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
KINDS = frozenset("scvrt")
# M-Pesa's own patience is about 5 s; who needs longer for 64 KiB holds a connection open on purpose.
BODY_MAX_S = 15.0
WAIT_MAX_S = 60.0
POLLS_MAX = 8
TEND_S = 3600.0
DAY_US = 86_400_000_000
ACCEPTED = {"ResultCode": 0, "ResultDesc": "Accepted"}


@dataclass(slots=True)
class _Bucket:
    """So many at once, and so many a second after that."""

    tokens: float
    at_ns: int

    def take(self, now_ns: int, per_s: float, burst: int) -> bool:
        self.tokens = min(burst, self.tokens + (now_ns - self.at_ns) / 1e9 * per_s)
        self.at_ns = now_ns
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class _Side:
    """One gateway: who waits for it, and what happened."""

    bucket: _Bucket
    news: asyncio.Event = field(default_factory=asyncio.Event)
    polls: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def wake(self) -> None:
        self.news.set()
        self.news = asyncio.Event()


class Relay:
    """Async context manager; `url` once it listens. `failed` is set when only a restart can help."""

    def __init__(
        self, settings: RelaySettings, secrets: dict[str, bytes], clock: Clock | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._keys = Keys(secrets, self._seconds())
        now_ns = self._clock.boottime_ns()
        self._sides = {
            name: _Side(_Bucket(float(settings.flood_burst), now_ns)) for name in self._keys.names
        }
        self._store: RelayStore
        self._runner: web.AppRunner | None = None
        self._tender: asyncio.Future[None] | None = None
        self._stopping = False
        self.failed = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> Relay:
        part = self._settings
        try:
            self._store = await open_store(part.directory, int(part.keep_mb * 1024 * 1024))
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"The store in {part.directory} cannot be used: {error}") from error
        app = web.Application()
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/v1/messages", self._signed(self._messages))
        app.router.add_post("/v1/ack", self._signed(self._ack))
        app.router.add_get("/v1/state", self._signed(self._state))
        app.router.add_post("/{gateway}/{kind}/{token}", self._take)
        # A body is kept as it came, so nothing is unpacked; a path holds a token, so none is logged.
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=2.0, auto_decompress=False
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, part.host, part.port).start()
        except OSError as error:
            await self.__aexit__()
            raise ConfigError(f"port {part.port} on {part.host}: {error.strerror}") from error
        host = "127.0.0.1" if part.host in ("0.0.0.0", "::") else part.host  # noqa: S104  compared
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        self._tender = asyncio.ensure_future(self._tend())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopping = True
        for side in self._sides.values():
            side.wake()
        if self._tender is not None:
            self._tender.cancel()
            await asyncio.wait({self._tender})
        if self._runner is not None:
            await self._runner.cleanup()
        await self._store.close()

    def _seconds(self) -> int:
        return micros(self._clock.now()) // 1_000_000

    # --- M-Pesa's side ----------------------------------------------------------------------------

    async def _take(self, request: web.Request) -> web.Response:
        gateway, kind, token = (request.match_info[name] for name in ("gateway", "kind", "token"))
        side = self._sides.get(gateway)
        if side is None or kind not in KINDS or not _TOKEN.fullmatch(token):
            raise web.HTTPNotFound
        peer = self._peer(request)
        if not self._may_send(side, peer):
            side.counts["flooded"] += 1
            return _said(429, "Too many messages", {"Retry-After": "5"})
        try:
            async with asyncio.timeout(BODY_MAX_S):
                body = await read_body(request)
        except asyncio.TimeoutError:
            return _said(408, "The body did not come")
        if body is None:
            side.counts["tooLarge"] += 1
            log.warning("relay.too_large gateway=%s kind=%s peer=%s", gateway, kind, peer)
            return _said(413, "Too large")
        message = Incoming(gateway, kind, token, body, peer, micros(self._clock.now()))
        try:
            await self._store.put(message)
        except Full:
            side.counts["refused"] += 1
            log.error("relay.full gateway=%s: it has not fetched its messages", gateway)
            return _said(503, "Full", {"Retry-After": "60"})
        except sqlite3.Error as error:
            side.counts["refused"] += 1
            self._store_failed(error)
            return _said(503, "Not stored", {"Retry-After": "5"})
        side.counts["stored"] += 1
        side.wake()
        return web.json_response(ACCEPTED)

    def _may_send(self, side: _Side, peer: str) -> bool:
        part = self._settings
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            address = None
        if address is not None and any(address in network for network in part.unlimited):
            return True
        return side.bucket.take(self._clock.boottime_ns(), part.flood_per_s, part.flood_burst)

    def _peer(self, request: web.Request) -> str:
        """The sender's address. Of X-Forwarded-For only the last is the proxy's own word."""
        if self._settings.peer == "forwarded":
            last = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
            try:
                return str(ipaddress.ip_address(last))
            except ValueError:
                return ""
        return request.remote or ""

    def _store_failed(self, error: sqlite3.Error) -> None:
        name = getattr(error, "sqlite_errorname", "") or type(error).__name__
        log.error("relay.store_failed error=%s", name)
        if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
            # What SQLite believes after a failed fsync is not what the disk holds: start afresh.
            self.failed.set()

    # --- the gateways' side -----------------------------------------------------------------------

    def _signed(
        self, handler: Callable[[web.Request, str, bytes], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            try:
                async with asyncio.timeout(BODY_MAX_S):
                    body = await read_body(request)
            except asyncio.TimeoutError:
                return _said(408, "The body did not come")
            if body is None:
                return _said(413, "Too large")
            now = self._seconds()
            who = self._keys.check(request.headers, request.method, request.raw_path, body, now)
            if isinstance(who, Refusal):
                log.warning("relay.refused code=%s peer=%s", who.code, self._peer(request))
                return web.json_response({"code": who.code, "serverTime": now}, status=401)
            try:
                return await handler(request, who, body)
            except sqlite3.Error as error:
                self._store_failed(error)
                return _said(503, "The store failed")

        return guarded

    async def _messages(self, request: web.Request, gateway: str, _: bytes) -> web.Response:
        after, wait = request.query.get("after", "0"), request.query.get("wait", "0")
        if not (_number(after) and _number(wait)):
            return _said(400, "after and wait are whole numbers")
        side = self._sides[gateway]
        # Numbers of a store that is gone mean nothing here.
        start = int(after) if request.query.get("epoch", "") == self._store.epoch else 0
        if side.polls >= POLLS_MAX:
            return _said(429, "Too many requests of this gateway wait already")
        side.polls += 1
        try:
            found = await self._wait_for(side, gateway, start, min(float(wait), WAIT_MAX_S))
        finally:
            side.polls -= 1
        side.counts["handedOut"] += len(found)
        return web.json_response(
            {
                "epoch": self._store.epoch,
                "messages": [_as_json(item) for item in found],
                "next": found[-1].id if found else start,
            }
        )

    async def _wait_for(self, side: _Side, gateway: str, after: int, wait_s: float) -> list[Kept]:
        """At once if something is there; else when something comes, or empty when the time is over."""
        until_ns = self._clock.boottime_ns() + int(wait_s * 1e9)
        while True:
            news = side.news
            found = await self._store.page(gateway, after)
            left_s = (until_ns - self._clock.boottime_ns()) / 1e9
            if found or left_s <= 0 or self._stopping:
                return found
            await wake_or_sleep(self._clock, news, left_s)

    async def _ack(self, request: web.Request, gateway: str, body: bytes) -> web.Response:
        try:
            value = json.loads(body)
            up_to, epoch = value["upTo"], value["epoch"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return _said(400, 'the body is {"upTo": number, "epoch": text}')
        if type(up_to) is not int or not 0 <= up_to < 2**63:
            return _said(400, "upTo is a number of a message")
        if epoch != self._store.epoch:
            return _said(409, "That is another relay's number")
        acked = await self._store.ack(gateway, up_to, micros(self._clock.now()))
        self._sides[gateway].counts["acked"] += acked
        return web.json_response({"acked": acked})

    async def _state(self, request: web.Request, gateway: str, _: bytes) -> web.Response:
        waiting = await self._store.waiting(gateway)
        return web.json_response({"waiting": waiting, "counts": dict(self._sides[gateway].counts)})

    async def _health(self, request: web.Request) -> web.Response:
        if self.failed.is_set():
            return _said(503, "The store failed")
        return web.json_response({"ok": True})

    # --- what grows must end ----------------------------------------------------------------------

    async def _tend(self) -> None:
        part = self._settings
        while True:
            now = micros(self._clock.now())
            try:
                done, lost = await self._store.forget(
                    now - int(part.acked_days * DAY_US), now - int(part.unacked_days * DAY_US)
                )
                if lost:
                    log.error("relay.expired count=%d: nobody has fetched them in time", lost)
                if done:
                    log.info("relay.forgotten count=%d: fetched long ago", done)
            except sqlite3.Error as error:
                self._store_failed(error)
            await self._clock.sleep(TEND_S)


def _as_json(item: Kept) -> dict[str, object]:
    return {
        "id": item.id,
        "kind": item.kind,
        "token": item.token,
        "receivedAt": from_micros(item.received_at).isoformat(),
        "peer": item.peer,
        "body": base64.b64encode(item.body).decode(),
    }


def _said(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"message": text}, status=status, headers=headers)


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


async def read_body(request: web.Request) -> bytes | None:
    """The whole body, raw; None when it is larger than BODY_MAX_BYTES."""
    if request.content_length is not None and request.content_length > BODY_MAX_BYTES:
        return None
    pieces, size = [], 0
    async for piece in request.content.iter_any():
        size += len(piece)
        if size > BODY_MAX_BYTES:
            return None
        pieces.append(piece)
    return b"".join(pieces)


async def run(settings: RelaySettings, secrets: dict[str, bytes]) -> int:
    """The process: until SIGTERM or SIGINT (0), or until its store has failed (1)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    notifier = Notifier()
    async with Relay(settings, secrets) as relay:
        log.info("relay.ready url=%s gateways=%d", relay.url, len(secrets))
        notifier.ready()
        waits = {asyncio.ensure_future(event.wait()) for event in (stop, relay.failed)}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        notifier.stopping()
        return 1 if relay.failed.is_set() else 0
