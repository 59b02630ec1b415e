"""A gateway that fetches from its relay: real processes, killed at the worst moments, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from gateway.clock import SystemClock
from gateway.mpesa.c2b_token import c2b_token
from gateway.mpesa.relay_client import BACKOFF_LAST_S, RelayClient
from gateway.relay.store import Incoming, open_store
from hw_fakes.ports import free_port
from tests.support.box import Box, peak_kb
from tests.support.clock import FakeClock
from tests.support.daemon import Daemon
from tests.support.inbox import C2B, PHONE, SHORTCODE, c2b, open_desk
from tests.support.relay import PATIENCE_S, Held, a_relay, until
from tests.support.shop import TOKENS


async def test_a_gateway_killed_between_its_disk_and_the_acknowledgement_has_it_once(
    tmp_path: Path,
) -> None:
    async with a_relay(tmp_path) as peer, Held(peer.relay.port) as way:
        box = Box(tmp_path / "box", way.url, "shop-1", peer.relay.secrets["shop-1"])
        async with box:
            await peer.post(f"/shop-1/v/{C2B}", b"first")
            await until(lambda: box.count() == 1)
            await until(lambda: _is(peer.waiting, 0))
            way.hold = b"POST /v1/ack"
            await peer.post(f"/shop-1/v/{C2B}", b"second")
            async with asyncio.timeout(PATIENCE_S):
                await way.held.wait()
            # On the box's disk, and the relay does not know.
            assert [raw for _, _, raw in box.messages()] == [b"first", b"second"]
            assert await peer.waiting() == 1
            await box.kill()
            way.hold = None
            way.cut()
            await box.start()
            await until(lambda: _is(peer.waiting, 0))
            await peer.post(f"/shop-1/v/{C2B}", b"third")
            await until(lambda: box.count() == 3)
            await until(lambda: all(state == "DONE" for _, state, _ in box.messages()))
            assert [raw for _, _, raw in box.messages()] == [b"first", b"second", b"third"]


async def _is(what: Callable[[], Awaitable[int]], value: int) -> bool:
    return await what() == value


async def test_a_gateway_whose_answer_is_lost_on_the_way_asks_again(tmp_path: Path) -> None:
    """The page is given out and the line is cut: at least once, never less."""
    async with a_relay(tmp_path) as peer, Held(peer.relay.port) as way:
        box = Box(tmp_path / "box", way.url, "shop-1", peer.relay.secrets["shop-1"])
        async with box:
            for n in range(20):
                await peer.post(f"/shop-1/v/{C2B}", b"%d" % n)
                way.cut()
            await until(lambda: box.count() == 20)
            assert [raw for _, _, raw in box.messages()] == [b"%d" % n for n in range(20)]
            await until(lambda: _is(peer.waiting, 0))


async def test_what_came_while_the_gateway_was_down_is_there_when_it_comes_up(
    tmp_path: Path,
) -> None:
    """And a gateway whose clock is a year wrong, either way, learns the relay's."""
    year = 31_536_000
    gateways = {"shop-1": "s" * 24, "shop-2": "t" * 24}
    async with a_relay(tmp_path, gateways=gateways) as peer:
        for name in gateways:
            for n in range(3):
                await peer.post(f"/{name}/v/{C2B}", f"{name}-{n}".encode())
        boxes = [
            Box(tmp_path / name, peer.relay.url, name, secret, ahead)
            for (name, secret), ahead in zip(gateways.items(), (year, -year), strict=True)
        ]
        async with boxes[0], boxes[1]:
            for name, box in zip(gateways, boxes, strict=True):
                await until(lambda: box.count() == 3)
                assert [raw for _, _, raw in box.messages()] == [
                    f"{name}-{n}".encode() for n in range(3)
                ]
                await until(lambda: _is(lambda: peer.waiting(name), 0))


async def test_a_relay_that_was_down_is_found_again_and_says_so(tmp_path: Path) -> None:
    async with open_desk(tmp_path / "box") as desk, a_relay(tmp_path) as peer:
        client = RelayClient(
            url=peer.relay.url, gateway="shop-1", secret=peer.relay.secrets["shop-1"],
            clock=SystemClock(), mailbox=desk.inbox,
        )  # fmt: skip
        run = asyncio.ensure_future(client.run())
        assert client.problem is not None
        await until(lambda: client.problem is None)
        assert client.last_contact_us is not None
        await peer.relay.kill()
        await until(lambda: client.problem is not None)
        assert client.problem is not None and "no connection" in client.problem
        await peer.relay.start()
        await peer.post(f"/shop-1/v/{C2B}", b"after")
        client.link_is_back()
        await until(lambda: client.problem is None)
        await until(lambda: client.fetched == 1)
        run.cancel()
        await asyncio.wait({run})


async def test_a_link_that_is_back_ends_the_waiting(tmp_path: Path) -> None:
    """On a clock that stands still no back-off ever ends by itself."""
    async with open_desk(tmp_path / "box") as desk, a_relay(tmp_path) as peer:
        await peer.relay.kill()
        client = RelayClient(
            url=peer.relay.url, gateway="shop-1", secret=peer.relay.secrets["shop-1"],
            clock=desk.clock, mailbox=desk.inbox,
        )  # fmt: skip
        run = asyncio.ensure_future(client.run())
        await until(lambda: client.problem is not None and "no connection" in client.problem)
        await peer.relay.start()
        client.link_is_back()
        await until(lambda: client.problem is None)
        # The clock of this test stands in another year, too.
        assert client.clock_offset_s != 0
        run.cancel()
        await asyncio.wait({run})


async def test_a_wrong_secret_and_a_stranger_in_the_relays_place_are_named(tmp_path: Path) -> None:
    from aiohttp import web

    async def login(request: web.Request) -> web.Response:
        return web.Response(text="<html>Welcome to the hotel</html>", content_type="text/html")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", login)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hotel = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with open_desk(tmp_path / "box") as desk, a_relay(tmp_path) as peer:
        for url, said in ((peer.relay.url, "its name and its secret"), (hotel, "not the relay")):
            client = RelayClient(
                url=url,
                gateway="shop-1",
                secret="wrong" * 8,
                clock=SystemClock(),
                mailbox=desk.inbox,
            )
            run = asyncio.ensure_future(client.run())
            await until(lambda: said in (client.problem or ""))
            run.cancel()
            await asyncio.wait({run})
        assert await desk.inbox.cursor() == ("", 0)
    await runner.cleanup()


async def test_a_relay_that_starts_anew_is_read_from_its_beginning(tmp_path: Path) -> None:
    secret = "s" * 24
    async with open_desk(tmp_path / "box") as desk:
        for life in ("one", "two"):
            gateways = {"shop-1": secret}
            async with a_relay(tmp_path / life, gateways=gateways) as peer:
                client = RelayClient(
                    url=peer.relay.url, gateway="shop-1", secret=secret, clock=SystemClock(),
                    mailbox=desk.inbox,
                )  # fmt: skip
                run = asyncio.ensure_future(client.run())
                for n in range(2):
                    await peer.post(f"/shop-1/v/{C2B}", f"{life}-{n}".encode())
                await until(lambda: client.fetched == 2)
                run.cancel()
                await asyncio.wait({run})
        raws = [message.raw for message in await desk.messages()]
        assert raws == [b"one-0", b"one-1", b"two-0", b"two-1"]


@pytest.mark.timeout(600)
async def test_a_backlog_of_ten_thousand_is_fetched_in_bounded_memory(tmp_path: Path) -> None:
    count, body = 10_000, b"x" * 4_000
    store = await open_store(tmp_path / "relay" / "store", 1 << 30)
    await asyncio.gather(
        *(store.put(Incoming("shop-1", "v", C2B, b"%05d" % n + body, "", 1)) for n in range(count))
    )
    await store.close()
    # Received in 1970: without this the relay would take them for forgotten.
    async with a_relay(tmp_path, more="unacked_days = 36500\n") as peer:
        before = peak_kb(peer.relay.pid)
        async with Box(
            tmp_path / "box", peer.relay.url, "shop-1", peer.relay.secrets["shop-1"]
        ) as box:
            start = peak_kb(box.pid)
            # As long as it takes, while it goes on: each five hundred has a patience of its own.
            for part in range(500, count + 1, 500):
                await until(lambda part=part: box.count() >= part)
            await until(lambda: _is(peer.waiting, 0))
            grown = peak_kb(peer.relay.pid) - before, peak_kb(box.pid) - start
        assert box.count() == count
        # All of it at once would be some 40 MB raw, and 55 more in base64.
        print(f"10,000 messages: relay +{grown[0]} kB, gateway +{grown[1]} kB")
        assert max(grown) < 30_000
        numbers = [raw[:5] for _, _, raw in box.messages()]
        assert numbers == [b"%05d" % n for n in range(count)]


@pytest.mark.timeout(300)
async def test_a_whole_gateway_hears_of_money_that_came_while_it_was_killed(tmp_path: Path) -> None:
    """`pos-gateway run` and `pos-gateway relay`, both killed between the customer's payment and its event."""
    passkey = "p" * 64
    token = c2b_token(passkey, SHORTCODE)
    async with a_relay(tmp_path) as peer:
        daemon = Daemon(
            tmp_path / "gateway",
            extra=f"""
[mpesa]
environment = "sandbox"
base_url = "http://127.0.0.1:{free_port()}"
shortcode = "{SHORTCODE}"
callback_url = "https://relay.test/shop-1"
relay_url = "{peer.relay.url}"
relay_gateway = "shop-1"
c2b = true
""",
            env={
                "GATEWAY_MPESA_CONSUMER_KEY": "key",
                "GATEWAY_MPESA_CONSUMER_SECRET": "secret",
                "GATEWAY_MPESA_PASSKEY": passkey,
                "GATEWAY_MPESA_RELAY_SECRET": peer.relay.secrets["shop-1"],
            },
        )
        async with daemon:
            await daemon.kill()
            notice = c2b(FakeClock(), "UKN0TEST02")
            assert await peer.post(f"/shop-1/c/{token}", notice) == 200
            await peer.relay.kill()
            await daemon.start()
            await peer.relay.start()
            headers = {"Authorization": f"Bearer {TOKENS['till-1']}"}
            # It began while the relay was down, so its next try may be a whole back-off away.
            patience_s = BACKOFF_LAST_S + PATIENCE_S
            limit = aiohttp.ClientTimeout(total=patience_s)
            events = peer.session.get(
                f"{daemon.url}/v1/events?after=0", headers=headers, timeout=limit
            )
            async with asyncio.timeout(patience_s), events as stream:
                async for line in stream.content:
                    if line.startswith(b"data:") and b"UKN0TEST02" in line:
                        break
            assert PHONE.encode() not in line and b"2547*****149" in line
            await until(lambda: _is(peer.waiting, 0))
        assert "UKN0TEST02" not in peer.relay.log()
        assert token not in daemon.log()
