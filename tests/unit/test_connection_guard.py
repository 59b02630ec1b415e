"""What the devices of a network can hold of a listening socket: connections, heads, bodies, lines of the log."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway import emergency
from gateway.api import problem
from gateway.body_share import BodyShare
from gateway.clock import SystemClock
from gateway.connection_guard import LOOPBACK, ConnectionGuard, Limits, address_key, authenticated
from gateway.errors import StoreCorrupt
from gateway.listen import listen_at
from gateway.mpesa.direct import DirectSite
from gateway.relay.server import Relay
from gateway.relay.settings import RelaySettings
from hw_fakes.ports import free_port
from tests.support.relay import until
from tests.support.shop import make_settings
from tests.support.strangers import HALF_A_HEAD, Strangers, answer_of, held, post_head, settled

HERE, THERE, TILL = "127.0.0.2", "127.0.0.3", "127.0.0.4"
# A deadline that no test waits for.
NEVER = 3600.0
SMALL = Limits(per_address=4, total=12, head_s=NEVER, keep_alive_s=NEVER)


@dataclass
class Served:
    guard: ConnectionGuard
    strangers: Strangers
    hold: asyncio.Event

    def session(self, address: str) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        return aiohttp.ClientSession(f"http://127.0.0.1:{self.strangers.port}", connector=connector)


@asynccontextmanager
async def served(limits: Limits = SMALL, share: BodyShare | None = None) -> AsyncIterator[Served]:
    """A server with a route each for: an answer, a token, a request that takes long, a body."""
    hold = asyncio.Event()

    async def plain(request: web.Request) -> web.Response:
        return web.Response(text=request.remote or "")

    async def token(request: web.Request) -> web.Response:
        authenticated(request)
        return web.Response()

    async def slow(request: web.Request) -> web.Response:
        await hold.wait()
        return web.Response()

    async def body(request: web.Request) -> web.Response:
        assert share is not None
        return web.Response(body=await share.read(request))

    app = web.Application(middlewares=[problem.problems])
    for path, handler in (("/", plain), ("/token", token), ("/slow", slow)):
        app.router.add_get(path, handler)
    app.router.add_post("/", plain)
    app.router.add_post("/body", body)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    guard = ConnectionGuard("test", limits)
    await listen_at(runner, "127.0.0.1", 0, guard)
    strangers = Strangers(runner.addresses[0][1])
    try:
        yield Served(guard, strangers, hold)
    finally:
        hold.set()
        strangers.close()
        await runner.cleanup()


# --- how many -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"G", HALF_A_HEAD, b"POST / HTTP/1.1\r\nContent-Le"])
async def test_connections_of_one_address_are_limited(sent: bytes) -> None:
    async with served() as server:
        first = await server.strangers.many(4, HERE, sent)
        await until(lambda: server.guard.open == 4)
        for _ in range(3):
            status, told = await answer_of(await server.strangers.connect(HERE))
            assert (status, told["code"], told["signed"]) == (
                503,
                "TOO_MANY_CONNECTIONS",
                "unknown",
            )
            assert told["retryable"]
        assert all(held(sock) for sock in first)
        assert server.guard.counts["per_address"] == 3
        # Another address is served, and a place that is given back is free.
        async with server.session(TILL) as till, till.get("/") as answer:
            assert await answer.text() == TILL
        first[0].close()
        await until(lambda: server.guard.open == 3)
        again = await server.strangers.connect(HERE)
        await settled([*first[1:], again], 4)


async def test_all_strangers_together_leave_a_reserve_for_who_is_known() -> None:
    limits = Limits(per_address=3, total=12, head_s=NEVER)
    async with served(limits) as server:
        async with server.session(TILL) as till:
            (await till.get("/token")).close()
        for n in range(10, 20):
            await server.strangers.many(3, f"127.0.0.{n}", b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.guard.counts["total"] > 0)
        assert server.guard.open == limits.for_strangers == 9
        async with server.session("127.0.0.30") as stranger, server.session(TILL) as till:
            async with stranger.get("/") as answer:
                assert answer.status == 503
            async with till.get("/") as answer:
                assert answer.status == 200


async def test_a_newcomer_takes_the_place_of_who_holds_many_without_a_request() -> None:
    """Also a till that nobody knows yet: after a restart of the gateway all are new."""
    async with served(Limits(per_address=6, total=12, head_s=NEVER)) as server:
        silent = await server.strangers.many(6, HERE, HALF_A_HEAD)
        silent += await server.strangers.many(3, THERE)
        await settled(silent, 9)
        for n in range(5):
            async with server.session(f"127.0.0.{40 + n}") as till, till.get("/") as answer:
                assert answer.status == 200
        # The one who holds most has paid, oldest first.
        await until(lambda: server.guard.counts["closed_for_another"] >= 1)
        assert not held(silent[0])
        assert all(held(sock) for sock in silent[6:])


async def test_a_kept_connection_of_a_till_outlives_any_number_of_strangers() -> None:
    async with served() as server, server.session(TILL) as till:
        (await till.get("/token")).close()
        for n in range(10, 40):
            await server.strangers.many(5, f"127.0.0.{n}", HALF_A_HEAD)
        for _ in range(3):
            async with till.get("/") as answer:
                assert answer.status == 200
        # One connection did it all: none of the others is the till's.
        assert server.guard.open <= SMALL.for_strangers + 1


async def test_a_known_address_at_its_limit_gives_up_a_head_that_does_not_come() -> None:
    """A stranger on the same machine as a till, or behind the same router."""
    async with served() as server:
        async with server.session(TILL) as till:
            async with till.get("/token"):
                pass
            await server.strangers.many(20, TILL, HALF_A_HEAD)
            async with server.session(TILL) as second, second.get("/") as answer:
                assert answer.status == 200
            async with till.get("/") as answer:
                assert answer.status == 200
            assert server.guard.open <= 4


async def test_a_proxy_is_limited_in_all_only() -> None:
    limits = Limits(per_address=2, total=16, head_s=NEVER, proxies=LOOPBACK)
    async with served(limits) as server:
        await server.strangers.many(12, HERE, HALF_A_HEAD)
        await until(lambda: server.guard.open == 12)
        assert not server.guard.counts


@pytest.mark.parametrize(
    ("peer", "near", "key"),
    [
        ("192.168.1.7", "", "192.168.1.7"),
        ("::ffff:192.168.1.7", "::ffff:192.168.1.1", "192.168.1.7"),
        ("2001:db8:1:2::7", "2001:db8:9::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:aaaa::7", "2001:db8:9::1", "2001:db8:1:2::/64"),
        # Of the shop's own LAN each device for itself.
        ("2001:db8:1:2::7", "2001:db8:1:2::1", "2001:db8:1:2::7"),
        ("fe80::7%eth0", "fe80::1%eth0", "fe80::7"),
        ("::1", "::1", "::1"),
        ("", "", ""),
    ],
)
def test_what_connections_are_counted_by(peer: str, near: str, key: str) -> None:
    assert address_key(peer, near) == key


async def test_an_address_of_ipv6_is_limited_like_any_other() -> None:
    try:
        made = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    made.close()
    runner = web.AppRunner(web.Application())
    await runner.setup()
    guard = ConnectionGuard("six", SMALL)
    await listen_at(runner, "::1", 0, guard)
    port = runner.addresses[0][1]
    strangers = Strangers(port, "::1", lambda: socket.socket(socket.AF_INET6))
    await strangers.many(6, "::1", HALF_A_HEAD)
    await until(lambda: guard.counts["per_address"] == 2)
    assert guard.open == 4
    strangers.close()
    await runner.cleanup()


# --- how long -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\r\n", HALF_A_HEAD])
async def test_a_head_that_does_not_come_is_closed(sent: bytes) -> None:
    async with served(Limits(head_s=0.2, keep_alive_s=NEVER)) as server:
        sock = await server.strangers.connect(HERE, sent)
        await settled([sock], 0)
        await until(lambda: server.guard.open == 0)
        assert server.guard.counts["head_late"] == 1
        if sent:
            status, told = await answer_of(sock)
            assert (status, told["code"], told["signed"]) == (408, "BODY_LATE", "unknown")


@pytest.mark.parametrize("kept", [False, True])
async def test_a_trickle_does_not_extend_the_deadline(kept: bool) -> None:
    """Also on a connection that had a whole request before."""
    async with served(Limits(head_s=0.3, keep_alive_s=NEVER)) as server:
        loop = asyncio.get_running_loop()
        sock = await server.strangers.connect(HERE)
        if kept:
            await loop.sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 200 ")
        await loop.sock_sendall(sock, HALF_A_HEAD)
        with suppress(ConnectionError):
            async with asyncio.timeout(30):
                while held(sock):
                    await loop.sock_sendall(sock, b"a")
                    await asyncio.sleep(0.02)
        await until(lambda: server.guard.open == 0)
        assert server.guard.counts["head_late"] == 1


async def test_a_request_that_takes_long_is_not_a_late_head() -> None:
    async with served(Limits(head_s=0.2)) as server, server.session(TILL) as till:
        asked = asyncio.ensure_future(till.get("/slow"))
        late = await server.strangers.connect(HERE, HALF_A_HEAD)
        await settled([late], 0)
        server.hold.set()
        async with await asked as answer:
            assert answer.status == 200
        # Between two requests a till may think for longer than a head may take.
        other = await server.strangers.connect(HERE, HALF_A_HEAD)
        await settled([other], 0)
        assert server.guard.open == 1
        async with till.get("/") as answer:
            assert answer.status == 200


async def test_a_connection_without_a_request_is_not_kept_for_ever() -> None:
    async with served(Limits(head_s=NEVER, keep_alive_s=0.2)) as server:
        sock = await server.strangers.connect(HERE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server.guard.counts.total() == 0 and server.guard.open == 0)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")


# --- bodies before the sender is known --------------------------------------------------------------------


@pytest.fixture
def share() -> BodyShare:
    return BodyShare(size_max=1024, at_once=3, within_s=NEVER)


async def test_a_body_beyond_the_limit_is_cut(share: BodyShare) -> None:
    async with served(share=share) as server:
        for head in (
            post_head("/body", 1025),
            post_head("/body", 10**12),
            b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n401\r\n"
            + b"a" * 1025,
        ):
            sock = await server.strangers.connect(HERE, head)
            answer = await asyncio.get_running_loop().sock_recv(sock, 65536)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b'"code":"BODY_TOO_LARGE"' in answer
            sock.close()
        async with server.session(TILL) as till, till.post("/body", data=b"b" * 1024) as good:
            assert await good.read() == b"b" * 1024


async def test_half_bodies_have_few_places_and_a_whole_one_needs_none(share: BodyShare) -> None:
    async with served(Limits(per_address=8, total=24), share=share) as server:
        half = post_head("/body", 100) + b"half"
        slow = await server.strangers.many(3, HERE, half)
        fourth = await server.strangers.connect(HERE, half)
        answer = await asyncio.get_running_loop().sock_recv(fourth, 65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"TOO_BUSY"' in answer
        whole = await server.strangers.connect(HERE, post_head("/body", 4) + b"full")
        answer = await asyncio.get_running_loop().sock_recv(whole, 65536)
        assert answer.startswith(b"HTTP/1.1 200 ")
        # Who holds fewer places comes first: the oldest of the others is told so.
        other = await server.strangers.connect(THERE, half)
        answer = await asyncio.get_running_loop().sock_recv(slow[0], 65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        await asyncio.get_running_loop().sock_sendall(other, b"a" * 96)
        answer = await asyncio.get_running_loop().sock_recv(other, 65536)
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_trickle_of_a_body_has_a_deadline() -> None:
    share = BodyShare(size_max=1024, at_once=3, within_s=0.3)
    async with served(share=share) as server:
        sock = await server.strangers.connect(HERE, post_head("/body", 1000))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(30):
            while held(sock):
                await loop.sock_sendall(sock, b"a")
                await asyncio.sleep(0.02)
        assert (await loop.sock_recv(sock, 65536)).startswith(b"HTTP/1.1 408 ")


# --- the log and the descriptors --------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


async def test_a_flood_is_one_line_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Limits(per_address=2, total=12, head_s=1.0)) as server:
        for _ in range(300):
            await answer_of(await server.strangers.connect(HERE)) if server.guard.open >= 2 else (
                await server.strangers.connect(HERE, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            )
    told = [line for line in lines(caplog) if "connections.per_address" in line]
    assert sum(int(line.partition("count=")[2].split()[0]) for line in told) == 298
    assert len(told) < 30
    assert HERE in told[0]


async def test_what_is_no_http_is_counted_and_not_traced(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Limits(head_s=1.0)) as server:
        for sent in (
            b"\x16\x03\x01\x02\x00\x01\n\n",
            b"GET / HTTP/x\r\n\r\n",
            b"GET /\x00 HTTP/1.1\r\n\r\n",
        ) * 20:
            sock = await server.strangers.connect(HERE, sent)
            await settled([sock], 0)
            sock.close()
        await until(lambda: any("connections.malformed" in line for line in lines(caplog)))
        # aiohttp itself says nothing of a TLS hello.
        assert server.guard.counts["malformed"] == 40
    assert len(caplog.records) < 30
    assert not any(record.exc_info for record in caplog.records)


async def test_without_a_descriptor_it_stops_accepting_for_a_moment(
    caplog: pytest.LogCaptureFixture,
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with served(Limits(head_s=NEVER)) as server:
        waiting = server.strangers
        socks = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(4)]
        waiting.made = socks.pop
        taken: list[int] = []
        try:
            highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 40, hard))
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            for _ in range(4):
                await waiting.connect(HERE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: server.guard.counts["no_descriptor"] >= 2)
        finally:
            for number in taken:
                os.close(number)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # Those that the kernel kept are served as soon as there is room.
        for sock in waiting.socks:
            answer = await asyncio.get_running_loop().sock_recv(sock, 65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
    assert not any(record.name == "asyncio" for record in caplog.records)
    assert len(caplog.records) < 30


# --- every listener of the product --------------------------------------------------------------------------


@asynccontextmanager
async def direct(folder: Path, port: int) -> AsyncIterator[None]:
    site = DirectSite(
        clock=SystemClock(), mailbox=_Mailbox(), host="127.0.0.1", port=port,  # type: ignore[arg-type]
        callback_url="https://shop.test/in", limits=SMALL,
    )  # fmt: skip
    async with site:
        yield


class _Mailbox:
    """A mailbox that no message reaches."""

    async def put(self, *_: Any) -> None:
        raise AssertionError("nothing was sent")


@asynccontextmanager
async def relay(folder: Path, port: int) -> AsyncIterator[None]:
    settings = RelaySettings(
        directory=folder / "relay", port=port, connections_per_address=4, connections_max=16,
        head_timeout_s=NEVER / 10, proxies=(),
    )  # fmt: skip
    async with Relay(settings, {"shop-1": b"s" * 24}):
        yield


@asynccontextmanager
async def explaining(folder: Path, port: int) -> AsyncIterator[None]:
    api = {"port": port, "connections_per_address": 4, "connections_max": 16, "head_timeout_s": 300}
    settings = make_settings(folder, "http://127.0.0.1:9", api=api)
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.ensure_future(
        emergency.serve(settings, StoreCorrupt("The store is damaged."), stop, ready.set)
    )
    await ready.wait()
    yield
    stop.set()
    await serving


@pytest.mark.parametrize("listener", [direct, relay, explaining])
async def test_every_listener_has_the_limits(tmp_path: Path, listener: Any) -> None:
    """The tills' API: tests/e2e/test_strangers.py."""
    port = free_port()
    async with listener(tmp_path, port):
        strangers = Strangers(port)
        socks = await strangers.many(9, HERE, HALF_A_HEAD)
        await settled(socks, 4)
        assert (await answer_of(await strangers.connect(HERE)))[0] == 503
        other = await strangers.connect(THERE, HALF_A_HEAD)
        await settled([*socks, other], 5)
        strangers.close()


def test_nothing_listens_without_the_limits() -> None:
    """`listen_at` is the only way to a listening socket."""
    root = Path(__file__).parents[2] / "gateway"
    for path in root.rglob("*.py"):
        if path.name != "listen.py":
            text = path.read_text()
            for word in ("TCPSite", "SockSite", "start_server(", "create_server(", "run_app("):
                assert word not in text, path
