"""The relay as it is deployed, a real process over real HTTP: what M-Pesa posts is kept, answered and given to
its own gateway only."""

from __future__ import annotations

import asyncio
import re
import secrets
import tomllib
from pathlib import Path
from time import time
from typing import Any

import aiohttp
import pytest

from gateway.errors import ConfigError
from gateway.relay import settings as relay_settings
from gateway.relay.store import FILE_NAME, Incoming, open_store
from tests.conftest import need_tool
from tests.support.relay import a_relay, bodies, until

ROOT = Path(__file__).parents[2]


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
