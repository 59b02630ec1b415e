"""The tills' side: a till that stands still in the middle of a sale, screens that vanish without a word, and an
address that the router takes away. The others sell on."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import aiohttp

from tests.support import netns
from tests.support.mpesa_shop import MpesaTill
from tests.support.netshop import NetShop, net_shop
from tests.support.relay import until
from tests.support.shop import TOKENS, TillClient, a_sale
from tests.support.strangers import HALF_A_HEAD, Strangers, held, post_head, settled

HASTY = "tests.support.hasty"
PHONE = "192.168.77.100"
ON_LAN = 'host = "0.0.0.0"\n'


def on_lan(shop: NetShop, address: str) -> aiohttp.ClientSession:
    """A till's or a phone's connections, from this address of the shop's LAN."""
    connector = aiohttp.TCPConnector(limit=0, socket_factory=shop.net.till_sockets(address))
    return aiohttp.ClientSession(connector=connector)


def box(shop: NetShop, address: str = netns.BOX_ON_LAN) -> str:
    return f"http://{address}:{shop.daemon.port}"


async def all_sell(shop: NetShop, round_: str) -> None:
    """Eight tills at once, each from its own address."""

    async def one(till: str, address: str) -> None:
        async with on_lan(shop, address) as session:
            reply = await TillClient(session, box(shop), till).sell(f"{till}-{round_}", a_sale())
            assert reply.status == 201, reply.json

    await asyncio.gather(*(one(*each) for each in zip(TOKENS, netns.TILLS, strict=True)))


async def test_screens_that_vanish_give_their_streams_back(tmp_path: Path) -> None:
    api = ON_LAN + "event_streams_per_till = 4\n"
    async with net_shop(tmp_path, paid=False, api=api, module=HASTY) as shop:
        shop.net.floor.run("ip", "addr", "add", f"{PHONE}/24", "dev", "till")
        headers = {"Authorization": f"Bearer {TOKENS['till-1']}"}
        async with on_lan(shop, PHONE) as phone, on_lan(shop, netns.TILLS[0]) as till:

            async def listens(session: aiohttp.ClientSession) -> aiohttp.ClientResponse:
                return await session.get(f"{box(shop)}/v1/events", headers=headers)

            screens = [await listens(phone) for _ in range(4)]
            assert {screen.status for screen in screens} == {200}
            # A screen too many; so it goes on until one of these is gone.
            refused = await listens(till)
            assert refused.status == 429
            refused.close()
            shop.net.till_vanishes(PHONE)
            await all_sell(shop, "gone")

            async def taken() -> bool:
                again = await listens(till)
                again.close()
                return again.status == 200

            await until(taken)
            for screen in screens:
                screen.close()
        await all_sell(shop, "after")


async def test_a_till_that_stands_still_in_a_sale_is_told_and_nothing_is_signed(
    tmp_path: Path,
) -> None:
    """Ten of them, and one that vanishes; the same sale with the same key, whole, is signed once."""
    async with net_shop(tmp_path, paid=False, api=ON_LAN, module=HASTY) as shop:
        sale = a_sale(tillReceiptNo="slow")
        body = json.dumps(sale).encode()
        slow = [await _half_a_sale(shop, body) for _ in range(10)]
        shop.net.floor.run("ip", "addr", "add", f"{PHONE}/24", "dev", "till")
        gone = await _half_a_sale(shop, body, PHONE)
        shop.net.till_vanishes(PHONE)
        await all_sell(shop, "meanwhile")
        for reader, writer in slow:
            answer = await asyncio.wait_for(reader.readuntil(b"}"), 30)
            assert answer.startswith(b"HTTP/1.1 408 "), answer
            assert b'"code":"BODY_LATE"' in answer
            assert b'"signed":"unknown"' in answer
            writer.close()
        assert len(await shop.daemon.unit.journal()) == 8
        async with on_lan(shop, netns.TILLS[0]) as session:
            till = TillClient(session, box(shop))
            assert [(await till.sell("slow", sale)).status for _ in range(2)] == [201, 201]
        assert len(await shop.daemon.unit.journal()) == 9
        # The one that is gone holds nothing here either.
        await until(lambda: PHONE not in shop.net.box.run("ss", "-Htn", "state", "established"))
        gone[1].transport.abort()
        assert await shop.daemon.stop() == 0


async def test_a_stranger_on_the_lan_stops_no_till(tmp_path: Path) -> None:
    """A phone holds as many connections as it is given: with half a head, with nothing, with half a form."""
    async with net_shop(tmp_path, paid=False, api=ON_LAN) as shop:
        shop.net.floor.run("ip", "addr", "add", f"{PHONE}/24", "dev", "till")
        strangers = Strangers(
            shop.daemon.port, netns.BOX_ON_LAN, lambda: shop.net.floor.socket(socket.SOCK_STREAM)
        )
        for sent in (HALF_A_HEAD, b"", post_head("/reports", 1_000_000) + b"a" * 1000):
            await strangers.many(40, PHONE, sent)
        await all_sell(shop, "beside")
        assert sum(held(sock) for sock in strangers.socks) <= 64
        # One that is silent is closed; the phone has its places again, and they cost no till one.
        await settled(strangers.socks, 0)
        await all_sell(shop, "after")
        strangers.close()
        assert len(shop.daemon.log()) < 20_000
        assert await shop.daemon.stop() == 0


async def _half_a_sale(
    shop: NetShop, body: bytes, address: str = netns.TILLS[0]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    made = shop.net.till_sockets(address)((socket.AF_INET, socket.SOCK_STREAM))
    await asyncio.get_running_loop().sock_connect(made, (netns.BOX_ON_LAN, shop.daemon.port))
    reader, writer = await asyncio.open_connection(sock=made)
    head = (
        f"POST /v1/invoices HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {TOKENS['till-1']}\r\n"
        "Content-Type: application/json\r\nIdempotency-Key: slow\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body[: len(body) // 2])
    await writer.drain()
    return reader, writer


async def test_addresses_that_the_router_renews(tmp_path: Path) -> None:
    """Both sides get another address: tills come back on the new one and miss nothing, and what was on a
    connection from the old one is sent on a new connection."""
    # The callback is to come by itself: no question is asked before it.
    async with net_shop(tmp_path, api=ON_LAN, module=HASTY, query_every_s=600) as shop:
        async with on_lan(shop, netns.TILLS[0]) as session:
            till = MpesaTill(session, box(shop))
            till.silence_s = 1.5
            async with till.screen() as screen:
                assert (await till.sell("one", a_sale())).status == 201
                await shop.cloud.wait_for(1, 30)
                await screen.until(lambda: _signed(screen) == 1, "the first sale")
                shop.net.renewed()
                till.url = box(shop, netns.BOX_ON_LAN_AFTER)
                assert (await till.sell("two", a_sale())).status == 201
                await screen.until(lambda: _signed(screen) == 2, "the second sale")
                await shop.cloud.wait_for(2, 30)
                await shop.until(lambda status: status["cloud"]["waiting"] == 0)
                await until(lambda: shop.doors["relay"].peers[-1] == netns.BOX_AFTER)
                assert shop.doors["cloud"].peers[-1] == netns.BOX_AFTER
                payment = await till.push("push", "S-1", "10.00", "254711000001")
                paid = await shop.ends(payment.json["paymentId"], "PAID")
                assert paid["paidBy"] == "CALLBACK"
        assert len({record["invoiceId"] for record in shop.cloud.records}) == 2
        assert len(shop.daraja.pushes) == 1


def _signed(screen: Any) -> int:
    return sum(event.kind == "receipt.signed" for event in screen.events)
