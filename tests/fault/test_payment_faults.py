"""Faults around payments that are nobody's own part: a thousand open at once, two gateways on one shortcode,
a relay whose answers are cut short."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway import ids
from gateway.clock import SystemClock, micros
from gateway.domain.payment import Evidence, Money, Source, Tender, Verdict
from gateway.mpesa.relay_client import RelayClient
from gateway.store import payments
from gateway.store.payments import NewPush
from tests.support.inbox import C2B, c2b, open_desk, stk
from tests.support.payments import Bench, open_bench

OPEN = 1000


async def leave_open(bench: Bench, count: int) -> None:
    """So many pushes that M-Pesa has taken, as an outage leaves them; one transaction."""
    at = micros(bench.clock.now())

    def write(conn: Any) -> None:
        for number in range(count):
            new = NewPush(
                id=ids.new_id(at + number * 1000), till_id="till-1", idem_key=f"k{number}", body_digest="0" * 64,
                checkout_id=None, sale_ref=f"S-{number}", amount_cents=10_000, phone=f"2547{number:08d}",
                account_ref=f"R-{number}", token_hash=ids.token_hash(f"t{number}"), at=at,
            )  # fmt: skip
            payments.insert_push(conn, new)
            row = payments.by_id(conn, new.id)
            assert row is not None
            word = Evidence(Source.PUSH, Verdict.SENDING)
            row = bench.ledger.hear_in(conn, row, word, sent_at=at, next_check_at=at).row
            word = Evidence(Source.PUSH, Verdict.ACCEPTED, checkout_request_id=f"ws_CO_{number}")
            bench.ledger.hear_in(conn, row, word)

    await bench.db.write(write)


async def test_a_thousand_open_payments_are_asked_about_within_the_limit(tmp_path: Path) -> None:
    async with open_bench(tmp_path) as bench:
        await leave_open(bench, OPEN)
        bench.start(bench.checks.run)
        minutes = 4
        await bench.pass_s(minutes * 60)
        asked = [at for at, _ in bench.wire.queried]
        every = bench.settings.query_every_s
        assert minutes * 60 / every / 2 < len(asked) <= minutes * 60 / every + 1
        assert min(b - a for a, b in itertools.pairwise(asked)) >= every * 1e9 * 0.999
        # The deadline waits for no question, and no push is sent again.
        counts = await bench.db.read(payments.counts)
        assert dict(counts) == {Money.UNKNOWN: OPEN}
        assert not bench.wire.pushed
        assert bench.checks.in_hand <= 1


async def test_two_gateways_on_one_shortcode_take_no_money_of_the_others_pushes(
    tmp_path: Path,
) -> None:
    """A shop with two boxes and one paybill: the C2B confirmation of the one's push reaches the other, too.
    It is no push's there; it is listed as money without an owner, and completes nothing by itself."""
    async with open_desk(tmp_path / "a") as mine, open_desk(tmp_path / "b") as other:
        theirs = await other.push(request="ws_CO_1", phone="254712000001")
        own = await mine.push(request="ws_CO_2", reference="MINE")
        raw = stk("ws_CO_2", receipt="UKN0TEST07")
        # A mistake in the relay's set-up: the other one's callback arrives here as well.
        await other.message("s", mine.tokens[own], raw)
        other.clock.pass_time(seconds=61)
        await other.inbox.work()
        assert [message.state for message in await other.messages()] == ["UNMATCHED"]
        await mine.callback(own, raw)
        assert (await mine.row(own)).money is Money.PAID
        await other.message("c", C2B, c2b(other.clock, "UKN0TEST07", reference="MINE"))
        assert (await other.row(theirs)).money is Money.WAITING
        found = await other.by_receipt("UKN0TEST07")
        assert found is not None
        assert (found.kind, found.tender, found.sale_ref) == ("C2B", Tender.OPEN, None)


class CutShort:
    """A relay whose pages lose their end on the way, until it is told otherwise."""

    def __init__(self) -> None:
        self.cut = True
        self.pages = 0
        self.acks: list[int] = []

    async def messages(self, request: web.Request) -> web.StreamResponse:
        self.pages += 1
        after = int(request.query["after"])
        body = base64.b64encode(b'{"Body":{}}').decode()
        page = {
            "epoch": "e", "next": 1,
            "messages": [{"id": 1, "kind": "s", "token": "t", "peer": "p", "receivedAt": 0, "body": body}] if after < 1 else [],
        }  # fmt: skip
        raw = json.dumps(page).encode()
        if self.cut:
            return web.Response(body=raw[: len(raw) // 2], content_type="application/json")
        if after >= 1:
            await asyncio.sleep(0.02)
        return web.Response(body=raw, content_type="application/json")

    async def ack(self, request: web.Request) -> web.Response:
        self.acks.append((await request.json())["upTo"])
        return web.json_response({})


@asynccontextmanager
async def serving(relay: CutShort) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/v1/messages", relay.messages)
    app.router.add_post("/v1/ack", relay.ack)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_page_that_was_cut_short_is_not_acknowledged_and_comes_again(
    tmp_path: Path,
) -> None:
    relay = CutShort()
    async with serving(relay) as url, open_desk(tmp_path) as desk:
        client = RelayClient(
            url=url, gateway="shop-1", secret="s" * 32, clock=SystemClock(), mailbox=desk.inbox
        )
        running = asyncio.ensure_future(client.run())
        try:
            async with asyncio.timeout(20):
                while relay.pages < 2:
                    await asyncio.sleep(0.01)
                assert relay.acks == [] and await desk.messages() == []
                assert client.problem == "what answered is not the relay"
                relay.cut = False
                while not relay.acks:
                    await asyncio.sleep(0.01)
            assert len(await desk.messages()) == 1
        finally:
            running.cancel()
            await asyncio.wait({running})


@pytest.mark.parametrize("where", ["epoch", "token", "peer"])
async def test_a_page_that_the_store_cannot_hold_ends_no_loop(where: str, tmp_path: Path) -> None:
    """Half a character is valid JSON and no text that can be stored."""
    sent: list[bytes] = []

    class Poisoned(CutShort):
        async def messages(self, request: web.Request) -> web.Response:
            reply = await super().messages(request)
            assert isinstance(reply.body, bytes)
            sent.append(reply.body)
            if len(sent) > 2:
                return reply
            page = json.loads(reply.body)
            holder = page if where == "epoch" else page["messages"][0]
            holder[where] = "\ud800"
            return web.Response(body=json.dumps(page).encode(), content_type="application/json")

    relay = Poisoned()
    relay.cut = False
    async with serving(relay) as url, open_desk(tmp_path) as desk:
        client = RelayClient(
            url=url, gateway="shop-1", secret="s" * 32, clock=SystemClock(), mailbox=desk.inbox
        )
        running = asyncio.ensure_future(client.run())
        try:
            async with asyncio.timeout(30):
                while not relay.acks and not running.done():
                    await asyncio.sleep(0.01)
            assert not running.done()
            assert len(sent) > 2
            assert len(await desk.messages()) == 1
        finally:
            running.cancel()
            await asyncio.wait({running})
