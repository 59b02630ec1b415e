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
import json
import logging
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiohttp import web

from gateway.clock import Clock, SystemClock, from_micros, micros, wake_or_sleep
from gateway.connection_guard import ConnectionGuard, authenticated
from gateway.door import (
    Door,
    NotKept,
    Posted,
    bodies,
    listen,
    message_path,
    not_read,
    peer_of,
    said,
)
from gateway.errors import ConfigError, GatewayError
from gateway.ops.systemd import Notifier
from gateway.relay.auth import Keys, Refusal
from gateway.relay.settings import RelaySettings
from gateway.relay.store import Full, Incoming, Kept, RelayStore, open_store

log = logging.getLogger(__name__)

WAIT_MAX_S = 60.0
POLLS_MAX = 8
TEND_S = 3600.0
DAY_US = 86_400_000_000


@dataclass(slots=True)
class _Side:
    """One gateway: its door for M-Pesa, and who waits for what comes through it."""

    door: Door
    news: asyncio.Event = field(default_factory=asyncio.Event)
    polls: int = 0

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
        self._sides = {name: _Side(self._door(name)) for name in self._keys.names}
        self._store: RelayStore
        self._runner: web.AppRunner | None = None
        self._tender: asyncio.Future[None] | None = None
        self._stopping = False
        self._bodies = bodies()
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
        app.router.add_post(message_path("{gateway:[^/]+}"), self._take)
        try:
            guard = ConnectionGuard("relay", part.limits)
            self._runner = await listen(app, part.host, part.port, guard)
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
        side = self._sides.get(request.match_info["gateway"])
        if side is None:
            raise web.HTTPNotFound
        return await side.door.take(request)

    def _door(self, gateway: str) -> Door:
        part = self._settings

        async def keep(posted: Posted) -> None:
            at = micros(self._clock.now())
            message = Incoming(
                gateway, posted.kind, posted.token, posted.body, posted.peer, received_at=at
            )
            try:
                await self._store.put(message)
            except Full as error:
                raise NotKept(
                    "it has not fetched its messages, and there is no room", 60
                ) from error
            except sqlite3.Error as error:
                self._store_failed(error)
                raise NotKept("the store failed", 5) from error
            self._sides[gateway].wake()

        return Door(
            gateway,
            self._clock,
            keep,
            peer=part.peer,
            flood_per_s=part.flood_per_s,
            flood_burst=part.flood_burst,
            unlimited=part.unlimited,
        )

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
                body = await self._bodies.read(request, peer_of(request, self._settings.peer))
            except GatewayError as error:
                return not_read(error)
            now = self._seconds()
            who = self._keys.check(request.headers, request.method, request.raw_path, body, now)
            if isinstance(who, Refusal):
                log.warning(
                    "relay.refused code=%s peer=%s", who.code, peer_of(request, self._settings.peer)
                )
                return web.json_response({"code": who.code, "serverTime": now}, status=401)
            authenticated(request)
            try:
                return await handler(request, who, body)
            except sqlite3.Error as error:
                self._store_failed(error)
                return said(503, "The store failed")

        return guarded

    async def _messages(self, request: web.Request, gateway: str, _: bytes) -> web.Response:
        after, wait = request.query.get("after", "0"), request.query.get("wait", "0")
        if not (_number(after) and _number(wait)):
            return said(400, "after and wait are whole numbers")
        side = self._sides[gateway]
        # Numbers of a store that is gone mean nothing here.
        start = int(after) if request.query.get("epoch", "") == self._store.epoch else 0
        if side.polls >= POLLS_MAX:
            return said(429, "Too many requests of this gateway wait already")
        side.polls += 1
        try:
            found = await self._wait_for(side, gateway, start, min(float(wait), WAIT_MAX_S))
        finally:
            side.polls -= 1
        side.door.counts["handedOut"] += len(found)
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
            return said(400, 'the body is {"upTo": number, "epoch": text}')
        if type(up_to) is not int or not 0 <= up_to < 2**63:
            return said(400, "upTo is a number of a message")
        if epoch != self._store.epoch:
            return said(409, "That is another relay's number")
        acked = await self._store.ack(gateway, up_to, micros(self._clock.now()))
        self._sides[gateway].door.counts["acked"] += acked
        return web.json_response({"acked": acked})

    async def _state(self, request: web.Request, gateway: str, _: bytes) -> web.Response:
        waiting = await self._store.waiting(gateway)
        return web.json_response(
            {"waiting": waiting, "counts": dict(self._sides[gateway].door.counts)}
        )

    async def _health(self, request: web.Request) -> web.Response:
        if self.failed.is_set():
            return said(503, "The store failed")
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


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


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
