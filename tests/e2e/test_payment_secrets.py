"""Payments leave no secret and no customer where people look: a real daemon with its secrets from
credentials, real payments through relay and Daraja, and then a look into everything it says."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja, phone_for
from hw_fakes.relay import RelayProcess
from tests.support.daemon import Daemon
from tests.support.shop import TECHNICIANS, TOKENS, TillClient

RELAY_SECRET = "secret-of-the-relay-for-shop-1"
CREDENTIAL = "c2VjdXJpdHktY3JlZGVudGlhbC1vZi10aGUtaW5pdGlhdG9y"
SECRETS = {
    "mpesa_consumer_key": KEY,
    "mpesa_consumer_secret": SECRET,
    "mpesa_passkey": PASSKEY,
    "mpesa_security_credential": CREDENTIAL,
    "mpesa_relay_secret": RELAY_SECRET,
}
PAGES = (
    "/",
    "/fragment",
    "/payments",
    "/payments/fragment",
    "/payments/unmatched",
    "/reports",
    "/counter",
)
ENDS_S = 60.0


@dataclass
class Shop:
    daemon: Daemon
    daraja: FakeDaraja
    relay: RelayProcess
    session: aiohttp.ClientSession

    @property
    def till(self) -> TillClient:
        return self.daemon.till(self.session)

    async def ask(self, number: int, phone: str) -> str:
        reply = await self.till.request(
            "POST", "/v1/payments/mpesa", key=f"pay-{number}",
            json={"saleRef": f"POS-{number}", "amount": f"{100 + number}.00", "phone": phone},
        )  # fmt: skip
        assert reply.status == 202, reply.body
        return str(reply.json["paymentId"])

    async def until(self, payment_id: str, *states: str) -> dict[str, Any]:
        async with asyncio.timeout(ENDS_S):
            while True:
                reply = await self.till.request("GET", f"/v1/payments/{payment_id}")
                if reply.json["state"] in states:
                    return dict(reply.json)
                await asyncio.sleep(0.05)


@asynccontextmanager
async def open_daemon(directory: Path, **other: str) -> AsyncIterator[Shop]:
    """`other`: secrets that are not what they should be."""
    credentials = directory / "credentials"
    credentials.mkdir()
    for name, value in (SECRETS | other).items():
        (credentials / f"gateway_{name}").write_text(value + "\n")
    people = "\n".join(f"{name} = {code}" for name, code in TECHNICIANS.items())
    (credentials / "gateway_technician_tokens").write_text(people)
    async with (
        RelayProcess(directory / "relay", gateways={"shop-1": RELAY_SECRET}) as relay,
        FakeDaraja(time_scale=0.05, hosts={"relay.test": relay.url}) as daraja,
        aiohttp.ClientSession() as session,
    ):
        extra = f"""
[mpesa]
environment = "sandbox"
base_url = "{daraja.url}"
shortcode = "174379"
callback_url = "https://relay.test/shop-1"
relay_url = "{relay.url}"
relay_gateway = "shop-1"
initiator = "api-user"
c2b = true
query_every_s = 0.2
same_phone_s = 0
[log]
level = "DEBUG"
"""
        env = {"CREDENTIALS_DIRECTORY": str(credentials)}
        async with Daemon(directory, extra, env) as daemon:
            yield Shop(daemon, daraja, relay, session)


async def command(shop: Shop, *words: str) -> str:
    """What a command of ours prints when a technician has the secrets at hand."""
    env = {
        **os.environ,
        "GATEWAY_TILL_TOKENS": ",".join(f"{till}={token}" for till, token in TOKENS.items()),
        "CREDENTIALS_DIRECTORY": str(shop.daemon.directory / "credentials"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *words, "--config", str(shop.daemon.config), env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode()


class Stream:
    """What comes from an event stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer
        self.got = b""

    async def until(self, count: int, words: bytes) -> str:
        """Everything so far, when this was said so often."""
        async with asyncio.timeout(ENDS_S):
            while self.got.count(words) < count:
                piece = await self._answer.content.readany()
                assert piece, "the stream ended"
                self.got += piece
        return self.got.decode()


@asynccontextmanager
async def stream(
    shop: Shop, path: str, headers: dict[str, str] | None = None
) -> AsyncIterator[Stream]:
    """Open from the moment the daemon has said so."""
    async with shop.session.get(shop.daemon.url + path, headers=headers) as answer:
        assert answer.status == 200
        heard = Stream(answer)
        await heard.until(1, b"retry:")
        yield heard


async def live(shop: Shop) -> str:
    """What anybody on the LAN hears while something happens to a payment."""
    async with stream(shop, "/live") as heard:
        payment_id = await shop.ask(9, phone_for("ok_fast"))
        await shop.until(payment_id, "PAID")
        # NEW, SENDING, and PAID at least.
        return await heard.until(3, b"event: payment.changed")


async def test_no_secret_and_no_customer_in_anything_it_says(tmp_path: Path) -> None:
    """At DEBUG, which has every line of the other levels in it."""
    async with open_daemon(tmp_path) as shop:
        phones = [phone_for("ok"), phone_for("cancel"), phone_for("malformed_callback")]
        ids = [await shop.ask(number, phone) for number, phone in enumerate(phones)]
        paid = await shop.until(ids[0], "PAID")
        await shop.until(ids[1], "NOT_PAID")
        await shop.until(ids[2], "PAID", "NOT_PAID")
        # A stranger guesses an address, with a phone number in what he sends.
        forged = b'{"Body":{"stkCallback":{"CheckoutRequestID":"ws_CO_1","MSISDN":"254700000042"}}}'
        async with shop.session.post(f"{shop.relay.url}/shop-1/s/a-guess", data=forged) as answer:
            assert answer.status == 200
        # A refund, so that the security credential is on the wire.
        refund = await shop.till.request(
            "POST", f"/v1/payments/{ids[0]}/refund", json={"reason": "broken bottle"},
            headers={"Authorization": f"Bearer {TECHNICIANS['wanjiru']}"},
        )  # fmt: skip
        assert refund.status == 202, refund.body
        await shop.until(ids[0], "REFUNDED")

        till = dict(shop.till.headers)
        places = [*PAGES, *(f"/payments/{each}" for each in ids), "/v1/status", "/metrics"]
        places += ["/v1/payments?open=1", "/v1/payments/lists", "/v1/payments/report"]
        places += ["/v1/payments/report?format=csv", *(f"/v1/payments/{each}" for each in ids)]
        said = {path: (await shop.till.request("GET", path)).body.decode() for path in places}
        said["/live"] = await live(shop)
        async with stream(shop, "/v1/events", {**till, "Last-Event-ID": "0"}) as heard:
            said["/v1/events"] = await heard.until(1, b'"REFUNDED"')
        for words in (("check",), ("status", "--json"), ("status",), ("journal", "verify")):
            said[" ".join(words)] = await command(shop, *words)
        await shop.daemon.stop()
        said["the log"] = shop.daemon.log()
        said["the relay's log"] = shop.relay.log()

        # They were looked at where they would stand: masked, they are there.
        assert "2547*****" in said["/payments"]
        assert paid["phone"] in said["/v1/events"]
        assert "push" in said["the log"]
        # The page is told that something happened, not what.
        assert "event: payment.changed" in said["/live"]
        assert "paymentId" not in said["/live"]
        assert "(set)" in said["check"]

        pushes = shop.daraja.world.pushes
        assert len(pushes) == 4
        hidden = dict(SECRETS)
        hidden["basic"] = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
        # The password changes every second; its beginning, shortcode and passkey, does not.
        hidden["password"] = base64.b64encode(f"174379{PASSKEY}".encode()).decode()[:60]
        hidden |= {f"access token {n}": each for n, each in enumerate(shop.daraja.world.tokens)}
        for number, push in enumerate(pushes):
            hidden[f"request {number}"] = push.checkout_id
            hidden[f"address {number}"] = push.callback_url.rsplit("/", 1)[1]
            hidden[f"phone {number}"] = push.phone[3:]
        hidden["the stranger's number"] = "700000042"
        found = [
            (what, where)
            for what, value in hidden.items()
            for where, text in said.items()
            if value in text
        ]
        assert found == []


async def test_a_refused_key_is_told_without_the_key(tmp_path: Path) -> None:
    async with open_daemon(tmp_path, mpesa_consumer_secret="of-another-app") as shop:
        payment_id = await shop.ask(1, phone_for("ok"))
        view = await shop.until(payment_id, "REFUSED")
        assert view["reason"] == "CONFIG"
        status = (await shop.till.request("GET", "/v1/status")).json["mpesa"]
        assert status["state"] == "problem"
        assert any("set-up" in says or "key" in says for says in status["problems"])
        told = [shop.daemon.log(), str(status)]
        told += [(await shop.till.request("GET", p)).body.decode() for p in ("/", "/payments")]
        for secret in (KEY, "of-another-app"):
            assert not any(secret in text for text in told)
