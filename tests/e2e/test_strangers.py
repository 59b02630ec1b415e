"""Devices on the LAN without a token, against the real daemon: they cost little, and no till waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from hw_fakes.vscu.unit import UnitControl
from tests.support.daemon import Daemon
from tests.support.relay import until
from tests.support.shop import TOKENS, TillClient, a_sale, make_settings, open_shop
from tests.support.strangers import HALF_A_HEAD, Strangers, held, post_head, settled

PAGES_WITH_FORMS = ("/reports", "/captured", "/payments/unmatched", "/unit")
HUNG_UP = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)


@asynccontextmanager
async def till_at(daemon: Daemon, address: str, till: str = "till-1") -> AsyncIterator[TillClient]:
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with aiohttp.ClientSession(connector=connector) as session:
        yield TillClient(session, daemon.url, till)


def rss_mb(pid: int, field: str = "VmRSS") -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise AssertionError(field)


async def test_form_bodies_of_strangers_cost_no_memory(shop_dir: Path) -> None:
    """622 bodies of 990 kB made the kernel end the gateway at 768 MB; without a limit RSS rose by 1 MB each."""
    async with Daemon(shop_dir) as daemon:
        async with till_at(daemon, "127.0.0.1") as till:
            assert (await till.sell("before", a_sale())).status == 201
        before = rss_mb(daemon.pid)
        strangers = Strangers(daemon.port)
        loop = asyncio.get_running_loop()
        body = b"a" * 990_000
        answers = []
        for n in range(622):
            path = PAGES_WITH_FORMS[n % len(PAGES_WITH_FORMS)]
            sock = await strangers.connect(f"127.0.0.{2 + n // 50}", post_head(path, 1_000_000))
            # As much as the gateway takes; it closes in the middle.
            sending = asyncio.ensure_future(loop.sock_sendall(sock, body))
            answers.append((sock, sending))
        await asyncio.wait({sending for _, sending in answers}, timeout=5)
        for sock, sending in answers:
            sending.cancel()
        await asyncio.wait({sending for _, sending in answers})
        for _, sending in answers:
            assert (
                sending.cancelled()
                or sending.exception() is None
                or isinstance(sending.exception(), ConnectionError)
            )
        assert rss_mb(daemon.pid, "VmHWM") - before < 100
        told = set()
        for sock, _ in answers:
            try:
                told.add(sock.recv(65536)[:12])
            except OSError:
                continue
        assert told <= {b"HTTP/1.1 413", b"HTTP/1.1 503", b""}
        assert b"HTTP/1.1 413" in told
        async with till_at(daemon, "127.0.0.1") as till:
            assert (await till.sell("after", a_sale())).status == 201
        strangers.close()
        assert len(daemon.log()) < 100_000


async def test_half_sent_forms_do_not_keep_a_technician_from_the_page(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        strangers = Strangers(shop.gateway.port)
        half = post_head("/reports", 200) + b"code=x"
        first = await strangers.many(8, "127.0.0.2", half)
        ninth = await strangers.connect("127.0.0.2", half)
        await settled([ninth], 0)
        answer = ninth.recv(65536)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"TOO_BUSY"' in answer
        assert b'"signed":"unknown"' in answer
        assert all(held(sock) for sock in first)
        # A form that comes in two pieces, from somebody else.
        body = b"code=wrong&do=x"
        form = await strangers.connect("127.0.0.9", post_head("/reports", len(body)))
        await until(lambda: sum(held(sock) for sock in first) == 7)
        await asyncio.get_running_loop().sock_sendall(form, body)
        await settled([form], 0)
        assert form.recv(65536).startswith(b"HTTP/1.1 401 ")
        strangers.close()


async def test_half_sent_heads_do_not_stop_a_till(shop_dir: Path) -> None:
    """More than all places, from ten addresses; a till with a kept connection and one that is new."""
    daemon = Daemon(shop_dir)
    text = daemon.config.read_text()
    daemon.config.write_text(text.replace("[api]\n", "[api]\nhead_timeout_s = 3\n"))
    async with daemon, till_at(daemon, "127.0.0.1") as kept:
        assert (await kept.sell("one", a_sale())).status == 201
        strangers = Strangers(daemon.port)
        for n in range(10):
            await strangers.many(70, f"127.0.0.{10 + n}", HALF_A_HEAD)
        sold = [await kept.sell(f"kept-{n}", a_sale()) for n in range(3)]
        async with till_at(daemon, "127.0.0.2", "till-2") as new:
            sold += [await new.sell(f"new-{n}", a_sale()) for n in range(3)]
        assert [reply.status for reply in sold] == [201] * 6
        # The heads that do not come are closed, all of them.
        await settled(strangers.socks, 0)
        strangers.close()
        assert "out of system resource" not in daemon.log()
        assert len(daemon.log()) < 20_000


async def test_few_descriptors_are_kept_for_the_tills(shop_dir: Path) -> None:
    """`prlimit --nofile`: far below what the limits allow."""
    daemon = Daemon(shop_dir)
    daemon.prefix = ["prlimit", "--nofile=110", "--"]
    async with daemon, till_at(daemon, "127.0.0.1") as kept:
        assert (await kept.sell("one", a_sale())).status == 201
        strangers = Strangers(daemon.port)
        for n in range(6):
            await strangers.many(50, f"127.0.0.{10 + n}", HALF_A_HEAD)
        for n in range(3):
            assert (await kept.sell(f"kept-{n}", a_sale())).status == 201
        async with till_at(daemon, "127.0.0.2", "till-2") as new:
            reply = await new.sell("new", a_sale())
            assert reply.status == 201 or reply.json["code"] == "TOO_MANY_CONNECTIONS"
        strangers.close()
        async with till_at(daemon, "127.0.0.3", "till-3") as after:

            async def sells() -> bool:
                try:
                    return (await after.sell("after", a_sale())).status == 201
                except HUNG_UP:
                    return False

            await until(sells)
        assert "connections.descriptors" in daemon.log()
        assert "out of system resource" not in daemon.log()
        assert len(daemon.log()) < 20_000
        assert await daemon.stop() == 0


async def test_streams_of_pages_take_none_of_a_tills(unit: UnitControl, shop_dir: Path) -> None:
    async with open_shop(make_settings(shop_dir, unit.url)) as shop:
        headers = {till: {"Authorization": f"Bearer {token}"} for till, token in TOKENS.items()}
        events = shop.gateway.url + "/v1/events"
        live, sessions = [], []
        for n in range(16):
            connector = aiohttp.TCPConnector(limit=0, local_addr=(f"127.0.0.{2 + n}", 0))
            sessions.append(aiohttp.ClientSession(connector=connector))
            live += [await sessions[-1].get(shop.gateway.url + "/live") for _ in range(5)]
        assert [answer.status for answer in live[:5]] == [200] * 4 + [429]
        assert [answer.status for answer in live].count(200) == 32
        for till in TOKENS:
            streams = [await shop.session.get(events, headers=headers[till]) for _ in range(5)]
            assert [stream.status for stream in streams] == [200] * 4 + [429]
            told = await streams[4].json(content_type=None)
            assert told["code"] == "TOO_MANY_WAITING"
            for stream in streams:
                stream.close()
        # Pages that are gone have given their places back.
        for session in sessions:
            await session.close()

        async def free() -> bool:
            again = await shop.session.get(shop.gateway.url + "/live")
            again.close()
            return again.status == 200

        await until(free)
