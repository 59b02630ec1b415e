"""The relay as it is deployed, and a gateway that fetches from it: real processes, killed at the worst
moments, over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import pytest

from gateway.clock import SystemClock
from gateway.errors import ConfigError
from gateway.mpesa.c2b_token import c2b_token
from gateway.mpesa.relay_client import RelayClient
from gateway.relay import settings as relay_settings
from gateway.relay.store import FILE_NAME, Incoming, open_store
from gateway.signed import signature
from hw_fakes.relay import RelayProcess
from hw_fakes.vscu.unit import free_port
from tests.conftest import need_tool
from tests.support.box import Box, peak_kb
from tests.support.clock import FakeClock
from tests.support.daemon import Daemon
from tests.support.inbox import C2B, PHONE, SHORTCODE, c2b, open_desk
from tests.support.shop import TOKENS

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


async def until(what: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = what()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


class Peer:
    """What M-Pesa and a gateway say to a relay, each to its own side."""

    def __init__(self, relay: RelayProcess, session: aiohttp.ClientSession) -> None:
        self.relay = relay
        self.session = session

    async def post(self, path: str, body: bytes, **headers: str) -> int:
        async with self.session.post(self.relay.url + path, data=body, headers=headers) as answer:
            if answer.status == 200:
                code = "0" if path.split("/")[2] == "v" else 0
                assert await answer.json() == {"ResultCode": code, "ResultDesc": "Accepted"}
            return answer.status

    def signed(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        gateway: str = "shop-1",
        secret: str | None = None,
        at: int | None = None,
        nonce: str | None = None,
    ) -> dict[str, str]:
        at_text, nonce = str(int(time()) if at is None else at), nonce or secrets.token_urlsafe(18)
        key = (secret or self.relay.secrets[gateway]).encode()
        return {
            "X-Gateway": gateway,
            "X-Time": at_text,
            "X-Nonce": nonce,
            "X-Signature": signature(key, method, path, at_text, nonce, body),
        }

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        **how: Any,
    ) -> tuple[int, Any]:
        async with self.session.request(
            method, self.relay.url + path, data=body or None,
            headers=headers or self.signed(method, path, body, **how),
        ) as answer:  # fmt: skip
            return answer.status, await answer.json()

    async def fetch(self, after: int = 0, epoch: str = "", wait: int = 0, **how: Any) -> Any:
        path = f"/v1/messages?after={after}&epoch={epoch}&wait={wait}"
        status, value = await self.call("GET", path, **how)
        assert status == 200, value
        return value

    async def ack(self, upto: int, epoch: str, **how: Any) -> int:
        body = json.dumps({"upTo": upto, "epoch": epoch}).encode()
        status, _ = await self.call("POST", "/v1/ack", body, **how)
        return status

    async def waiting(self, gateway: str = "shop-1") -> int:
        status, value = await self.call("GET", "/v1/state", gateway=gateway)
        assert status == 200
        return int(value["waiting"])


def bodies(page: Any) -> list[bytes]:
    return [base64.b64decode(item["body"]) for item in page["messages"]]


@asynccontextmanager
async def a_relay(directory: Path, **options: Any) -> AsyncIterator[Peer]:
    async with (
        RelayProcess(directory / "relay", **options) as relay,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_S)) as session,
    ):
        yield Peer(relay, session)


async def test_whatever_mpesa_posts_is_kept_and_answered(tmp_path: Path) -> None:
    async with a_relay(tmp_path) as peer:
        sent = [b'{"Body": {}}', b"", b"\x00\xff no JSON", b"x" * 65_536]
        for body in sent:
            assert await peer.post("/shop-1/s/token-1", body) == 200
        assert (
            await peer.post("/shop-1/c/token-2", b"no gzip", **{"Content-Encoding": "gzip"}) == 200
        )
        page = await peer.fetch()
        assert bodies(page) == [*sent, b"no gzip"]
        first, last = page["messages"][0], page["messages"][-1]
        assert (first["kind"], first["token"], first["peer"]) == ("s", "token-1", "127.0.0.1")
        assert (last["kind"], last["token"]) == ("c", "token-2")
        assert last["id"] == page["next"]
        # Nothing but that, and nothing too large, is taken; none of it gets into the log.
        assert await peer.post("/shop-1/s/token-1", b"x" * 65_537) == 413
        for path in (
            "/shop-2/s/t",
            "/shop-1/z/t",
            "/shop-1/s/",
            "/shop-1/s/%2e%2e",
            "/",
            "/v1/s/t",
        ):
            assert await peer.post(path, b"{}") == 404, path
        for method in ("GET", "PUT", "DELETE"):
            async with peer.session.request(method, f"{peer.relay.url}/shop-1/s/token-1") as answer:
                assert answer.status == 405
        _, state = await peer.call("GET", "/v1/state")
        assert state == {"waiting": 5, "counts": {"stored": 5, "handedOut": 5, "tooLarge": 1}}
        log = peer.relay.log()
        assert "token-1" not in log and "no JSON" not in log
        assert await peer.relay.stop() == 0


async def test_a_flood_is_told_so_and_what_is_stored_stays(tmp_path: Path) -> None:
    more = (
        'flood_per_s = 0.001\nflood_burst = 3\nunlimited = ["192.0.2.0/24"]\npeer = "forwarded"\n'
    )
    gateways = {"shop-1": "s" * 24, "shop-2": "t" * 24}
    async with a_relay(tmp_path, more=more, gateways=gateways) as peer:
        told = [await peer.post("/shop-1/s/t", b"%d" % n) for n in range(5)]
        assert told == [200, 200, 200, 429, 429]
        # Safaricom's own networks are never limited, as the proxy names them; what a sender wrote in
        # front of that is nothing.
        known = {"X-Forwarded-For": "198.51.100.1, 192.0.2.7"}
        assert await peer.post("/shop-1/s/t", b"real", **known) == 200
        forged = {"X-Forwarded-For": "192.0.2.7, 198.51.100.1"}
        assert await peer.post("/shop-1/s/t", b"false", **forged) == 429
        assert await peer.post("/shop-2/s/t", b"other shop") == 200
        page = await peer.fetch()
        assert bodies(page) == [b"0", b"1", b"2", b"real"]
        assert [item["peer"] for item in page["messages"]] == ["", "", "", "192.0.2.7"]


async def test_a_full_share_refuses_and_throws_nothing_unfetched_away(tmp_path: Path) -> None:
    gateways = {"shop-1": "s" * 24, "shop-2": "t" * 24}
    async with a_relay(tmp_path, more="keep_mb = 0.2\n", gateways=gateways) as peer:
        sent = [b"%03d" % n + b"x" * 50_000 for n in range(4)]
        assert [await peer.post("/shop-1/s/t", body) for body in sent] == [200] * 4
        assert await peer.post("/shop-1/s/t", sent[0]) == 503
        assert await peer.post("/shop-2/s/t", sent[0]) == 200
        page = await peer.fetch()
        assert bodies(page) == sent
        # What was fetched makes room, the oldest first.
        assert await peer.ack(page["messages"][0]["id"], page["epoch"]) == 200
        assert await peer.post("/shop-1/s/t", b"new" * 10_000) == 200
        assert bodies(await peer.fetch()) == [*sent[1:], b"new" * 10_000]
        assert "it has not fetched its messages" in peer.relay.log()


async def test_a_waiting_gateway_gets_a_message_at_once(tmp_path: Path) -> None:
    """The answer is there while the poll has most of its minute left."""
    gateways = {"shop-1": "s" * 24, "shop-2": "t" * 24}
    async with a_relay(tmp_path, gateways=gateways) as peer:
        epoch = (await peer.fetch())["epoch"]
        polls = [asyncio.ensure_future(peer.fetch(0, epoch, wait=60)) for _ in range(2)]
        other = asyncio.ensure_future(peer.fetch(0, epoch, wait=60, gateway="shop-2"))
        assert await peer.post("/shop-1/s/t", b"news") == 200
        for page in await asyncio.gather(*polls):
            assert bodies(page) == [b"news"]
        # And a stop keeps nobody waiting.
        assert not other.done()
        assert await peer.relay.stop() == 0
        assert bodies(await other) == []


async def test_who_is_no_gateway_of_it_hears_nothing(tmp_path: Path) -> None:
    gateways = {"shop-1": "s" * 24, "shop-2": "t" * 24}
    async with a_relay(tmp_path, gateways=gateways) as peer:
        await peer.post("/shop-1/s/t", b"secret")
        path = "/v1/messages?after=0&epoch=&wait=0"

        async def refused(code: str, headers: dict[str, str], where: str = path) -> Any:
            status, value = await peer.call("GET", where, headers=headers)
            assert (status, value["code"]) == (401, code)
            return value

        await refused("SIGNATURE", {"X-Gateway": "shop-1"})
        await refused("SIGNATURE", peer.signed("GET", path, secret="t" * 24))
        await refused("SIGNATURE", peer.signed("GET", path, gateway="shop-9", secret="\0" * 32))
        await refused("SIGNATURE", peer.signed("POST", path))
        await refused("SIGNATURE", peer.signed("GET", "/v1/messages?after=1&epoch=&wait=0"))
        await refused("SIGNATURE", peer.signed("GET", path, body=b"x"))
        await refused("SIGNATURE", peer.signed("GET", path, nonce="short"))
        await refused("SIGNATURE", peer.signed("GET", path) | {"X-Gateway": "shop-2"})
        for off in (-400, 400, 31_536_000):
            value = await refused("TIME", peer.signed("GET", path, at=int(time()) + off))
            assert abs(value["serverTime"] - time()) < 60
        once = peer.signed("GET", path)
        assert (await peer.call("GET", path, headers=once))[0] == 200
        await refused("REPLAY", once)
        # Nor after a restart, which has forgotten the nonces.
        kept = peer.signed("GET", path, at=int(time()) - 5)
        await peer.relay.stop()
        await peer.relay.start()
        await refused("TIME", kept)
        assert bodies(await peer.fetch(gateway="shop-2")) == []
        assert bodies(await peer.fetch()) == [b"secret"]


async def test_each_gateway_has_its_own_messages_and_acknowledges_its_own(tmp_path: Path) -> None:
    gateways = {"shop-1": "s" * 24, "shop-2": "t" * 24}
    async with a_relay(tmp_path, gateways=gateways) as peer:
        for n in range(3):
            await peer.post("/shop-1/s/t", b"one-%d" % n)
            await peer.post("/shop-2/s/t", b"two-%d" % n)
        page = await peer.fetch(gateway="shop-1")
        assert bodies(page) == [b"one-0", b"one-1", b"one-2"]
        assert await peer.ack(page["next"], page["epoch"], gateway="shop-1") == 200
        assert await peer.waiting("shop-1") == 0
        assert await peer.waiting("shop-2") == 3
        assert bodies(await peer.fetch(gateway="shop-2")) == [b"two-0", b"two-1", b"two-2"]
        # A gateway that comes back from a backup asks again for what it had.
        assert bodies(await peer.fetch(gateway="shop-1")) == bodies(page)
        assert bodies(await peer.fetch(page["next"], page["epoch"], gateway="shop-1")) == []
        # Numbers of another store say nothing about this one.
        assert len(bodies(await peer.fetch(page["next"], "another", gateway="shop-1"))) == 3
        assert await peer.ack(99, "another", gateway="shop-1") == 409
        wrong = [b"", b"[]", b'{"upTo": "1", "epoch": "x"}', b'{"upTo": true, "epoch": "x"}']
        for body in wrong:
            assert (await peer.call("POST", "/v1/ack", body))[0] == 400, body
        assert (await peer.call("GET", "/v1/messages?after=x&wait=0"))[0] == 400


async def test_killed_between_the_disk_and_the_answer_it_still_has_the_message(
    tmp_path: Path,
) -> None:
    """M-Pesa hears nothing, and may never send it again."""
    strace = need_tool("strace")
    async with a_relay(tmp_path) as peer:
        await peer.post("/shop-1/s/t", b"before")
        await peer.relay.kill()
        # Every fsync takes effect and then does not return: the answer waits for it.
        peer.relay.prefix = [
            strace, "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync",
            "-e", "inject=fdatasync,fsync:delay_exit=60000000",
        ]  # fmt: skip
        await peer.relay.start()
        body = b"paid 450 " + secrets.token_hex(16).encode()
        unanswered = asyncio.ensure_future(peer.post("/shop-1/s/t", body))
        wal = tmp_path / "relay" / "store" / f"{FILE_NAME}-wal"
        await until(lambda: wal.exists() and body in wal.read_bytes())
        assert not unanswered.done()
        await peer.relay.kill()
        with pytest.raises(aiohttp.ClientError):
            await unanswered
        peer.relay.prefix = []
        await peer.relay.start()
        assert bodies(await peer.fetch()) == [b"before", body]


class Held:
    """A connection's way between a gateway and its relay. A request that starts with `hold` goes no
    further; `cut` ends all connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.hold: bytes | None = None
        self.held = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.url = ""

    async def __aenter__(self) -> Held:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            back, onward = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        self._writers.append(onward)
        await asyncio.gather(self._pass(reader, onward, True), self._pass(back, writer, False))

    async def _pass(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, out: bool
    ) -> None:
        try:
            while data := await source.read(65_536):
                if out and self.hold is not None and data.startswith(self.hold):
                    self.held.set()
                    return
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            if not self.held.is_set():
                target.close()


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
            await until(lambda: box.count() == count)
            await until(lambda: _is(peer.waiting, 0))
            grown = peak_kb(peer.relay.pid) - before, peak_kb(box.pid) - start
        # All of it at once would be some 40 MB raw, and 55 more in base64.
        print(f"10,000 messages: relay +{grown[0]} kB, gateway +{grown[1]} kB")
        assert max(grown) < 30_000
        numbers = [raw[:5] for _, _, raw in box.messages()]
        assert numbers == [b"%05d" % n for n in range(count)]


async def test_what_was_fetched_goes_after_a_week_and_the_rest_after_a_month(
    tmp_path: Path,
) -> None:
    day = 86_400_000_000
    now = int(time() * 1e6)
    ages = {b"fresh": 1, b"acked-old": 6, b"acked-gone": 8, b"waits": 29, b"lost": 31}
    store = await open_store(tmp_path / "relay" / "store", 1 << 30)
    for body, days in ages.items():
        number = await store.put(Incoming("shop-1", "s", "t", body, "", now - days * day))
        if body.startswith(b"acked"):
            store._conn.execute(
                "UPDATE message SET acked_at = ? WHERE id = ?", (now - days * day, number)
            )
    await store.close()
    async with a_relay(tmp_path) as peer:
        await until(lambda: "relay.forgotten" in peer.relay.log())
        assert bodies(await peer.fetch()) == [b"fresh", b"acked-old", b"waits"]
        assert "relay.expired count=1" in peer.relay.log()


def test_every_setting_of_the_relay_is_in_its_file(tmp_path: Path) -> None:
    text = (ROOT / "config/relay.toml").read_text()
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    settings_only = [line for line in lines if re.match(r"[a-z_]+ = ", line)]
    values = tomllib.loads("\n".join(settings_only))
    assert set(values) == set(relay_settings.RelaySettings.model_fields)
    fields = relay_settings.RelaySettings.model_fields
    shown = relay_settings.RelaySettings(**values)
    for name, field in fields.items():
        if name != "directory":
            assert getattr(shown, name) == field.default, name
    secrets_env = {"RELAY_SECRETS": "shop-1 = " + "s" * 24}
    settings, keys = relay_settings.load(ROOT / "config/relay.toml", secrets_env)
    assert settings.directory == Path("/var/lib/pos-gateway-relay")
    assert keys == {"shop-1": b"s" * 24}
    wrong = {
        "": "no gateway",
        "v1 = " + "s" * 24: "no name for a gateway",
        "shop 1 = " + "s" * 24: "no name for a gateway",
        "shop-1 = short": "fewer than 24",
    }
    for given, said in wrong.items():
        with pytest.raises(ConfigError, match=said):
            relay_settings.load(ROOT / "config/relay.toml", {"RELAY_SECRETS": given})
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "relay_secrets").write_text("# shops\nshop-1 = " + "s" * 24 + "\nshop-2=" + "t" * 24)
    _, keys = relay_settings.load(
        ROOT / "config/relay.toml", {"CREDENTIALS_DIRECTORY": str(folder)}
    )
    assert set(keys) == {"shop-1", "shop-2"}
    bad = tmp_path / "relay.toml"
    bad.write_text('directory = "x"\nport = 99999\nnonsense = 1\n')
    with pytest.raises(ConfigError, match=r"port.*nonsense"):
        relay_settings.load(bad, secrets_env)


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
            events = peer.session.get(f"{daemon.url}/v1/events?after=0", headers=headers)
            async with asyncio.timeout(PATIENCE_S), events as stream:
                async for line in stream.content:
                    if line.startswith(b"data:") and b"UKN0TEST02" in line:
                        break
            assert PHONE.encode() not in line and b"2547*****149" in line
            await until(lambda: _is(peer.waiting, 0))
        assert "UKN0TEST02" not in peer.relay.log()
        assert token not in daemon.log()
