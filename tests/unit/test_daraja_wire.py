"""What each way of not answering proves about a push, over real sockets: lost, refused or accepted."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.domain.payment import Reason
from gateway.domain.payment_wire import Accepted, Lost, PushOrder, QueryVerdict, Refused
from gateway.mpesa.account import Account
from gateway.mpesa.client import DarajaClient, clean, password
from hw_fakes.ports import free_port
from tests.conftest import need_tool
from tests.support.clock import FakeClock

DATA = Path(__file__).parents[1] / "data/daraja"
KEY, SECRET, PASSKEY = "key-4711", "secret-4712", "passkey-4713"
PHONE = "254708374149"
OURS = "ws_CO_23112026101530417708374149"
ORDER = PushOrder(45000, PHONE, "T07-000123", "POS sale", "https://relay.example.co.ke/s/x")
TOKEN = b'{"access_token":"tok-4714","expires_in":"3599"}'
ACCEPTED = json.dumps(
    {"MerchantRequestID": "m-1", "CheckoutRequestID": OURS, "ResponseCode": "0"}
).encode()
STALE = b'{"requestId":"1","errorCode":"404.001.03","errorMessage":"Invalid Access Token"}'

Peer = Callable[[asyncio.StreamWriter], Awaitable[None]]


def http(status: int, body: bytes, kind: str = "application/json", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"
    return head.encode() + b"\r\n" + body


class Server:
    """Answers each request from its script: tokens from one, the rest from the other; the last repeats."""

    def __init__(self) -> None:
        self.tokens: list[bytes | Peer] = [http(200, TOKEN)]
        self.answers: list[bytes | Peer] = [http(200, ACCEPTED)]
        self.token_requests: list[bytes] = []
        self.requests: list[tuple[bytes, Any]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /oauth/v1/generate?grant_type=client_credentials "):
                script, seen = self.tokens, len(self.token_requests)
                self.token_requests.append(head)
            else:
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                script, seen = self.answers, len(self.requests)
                self.requests.append((head, json.loads(await reader.readexactly(length))))
            answer = script[min(seen, len(script) - 1)]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def account(url: str, **change: Any) -> Account:
    values: dict[str, Any] = {
        "environment": "sandbox", "base_url": url, "shortcode": "174379", "till_number": None,
        "consumer_key": KEY, "consumer_secret": SECRET, "passkey": PASSKEY,
    }  # fmt: skip
    return Account(**(values | change))


@asynccontextmanager
async def daraja(
    timeout_s: float = 10, **change: Any
) -> AsyncIterator[tuple[DarajaClient, Server]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    client = DarajaClient(account(server.url, **change), SystemClock(), timeout_s)
    async with listening, client:
        yield client, server


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def half(writer: asyncio.StreamWriter) -> None:
    writer.write(http(200, ACCEPTED)[:-20])
    await writer.drain()


async def hangs(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def drips(writer: asyncio.StreamWriter) -> None:
    for byte in http(200, ACCEPTED):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def in_pieces(writer: asyncio.StreamWriter) -> None:
    for byte in http(200, ACCEPTED):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)


async def floods(writer: asyncio.StreamWriter) -> None:
    size = 10 * 1024 * 1024
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
    for _ in range(160):
        writer.write(b" " * 65536)
        await writer.drain()


async def test_an_accepted_push_in_many_pieces() -> None:
    async with daraja() as (client, server):
        server.answers = [in_pieces]
        assert await client.push(ORDER) == Accepted("m-1", OURS, ACCEPTED)


@pytest.mark.parametrize(
    "answer",
    [
        reset,
        half,
        floods,
        b"",
        b"\x00\xff\x00\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        http(200, b""),
        http(200, ACCEPTED[:-1]),
        http(200, b"<html>Welcome to the hotel</html>", "text/html"),
        http(502, b"<html>bad gateway</html>", "text/html"),
        http(503, b""),
        http(302, b"", extra="Location: /elsewhere\r\n"),
        http(307, b"", extra="Location: /elsewhere\r\n"),
        http(500, b'{"errorCode":"500.003.1001","errorMessage":"Internal Server Error"}'),
    ],
    ids=lambda answer: answer.__name__ if callable(answer) else str(answer[:40]),
)
async def test_a_push_without_a_clear_word_is_lost_and_not_sent_again(answer: bytes | Peer) -> None:
    async with daraja() as (client, server):
        server.answers = [answer]
        assert isinstance(await client.push(ORDER), Lost)
        assert len(server.requests) == 1
        reply = await client.query(OURS)
        assert reply.verdict is QueryVerdict.NO_INFO


@pytest.mark.parametrize("answer", [hangs, drips])
async def test_a_push_without_a_word_in_time_is_lost(answer: Peer) -> None:
    # Long enough for token and request to get through on a busy machine; a drip takes ten seconds.
    async with daraja(timeout_s=2) as (client, server):
        server.answers = [answer]
        reply = await client.push(ORDER)
        assert isinstance(reply, Lost)
        assert "in time" in reply.message
        assert len(server.requests) == 1


async def test_without_a_connection_nothing_was_sent() -> None:
    client = DarajaClient(account(f"http://127.0.0.1:{free_port()}"), SystemClock(), 5)
    async with client:
        for reply in (await client.ready(), await client.push(ORDER)):
            assert isinstance(reply, Refused)
            assert (reply.reason, reply.code) == (Reason.NOT_SENT, "UNREACHABLE")
        asked = await client.query(OURS)
        # No code: it is asked again when the link is back.
        assert (asked.verdict, asked.code) == (QueryVerdict.NO_INFO, None)
        why = "no connection to M-Pesa (sandbox): it refuses the connection"
        assert client.problem == asked.message == why
        now = datetime.now(UTC)
        assert (await client.pull(now, now, 0)).problem


async def test_a_stranger_with_another_certificate_is_told_nothing(tmp_path: Path) -> None:
    """A hotel's login page, or somebody between: neither token nor push goes there."""
    need_tool("openssl")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listening:
        url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with DarajaClient(account(url), SystemClock(), 5) as client:
            reply = await client.push(ORDER)
    assert isinstance(reply, Refused)
    assert reply.reason is Reason.NOT_SENT
    assert "certificate" in reply.message
    assert (server.token_requests, server.requests) == ([], [])


async def test_a_peer_that_is_gone_after_the_token_has_seen_no_push() -> None:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with DarajaClient(account(url), SystemClock(), 5) as client:
        async with listening:
            assert await client.ready() is None
        reply = await client.push(ORDER)
    assert isinstance(reply, Refused)
    assert (reply.reason, reply.code) == (Reason.NOT_SENT, "UNREACHABLE")


@pytest.mark.parametrize(
    "stale",
    [STALE, b'{"errorCode":"400.003.01","errorMessage":"Invalid Access Token"}', b"",
     b'{"fault":{"faultstring":"Invalid Access Token","detail":{"errorcode":"oauth.v2.InvalidAccessToken"}}}'],
)  # fmt: skip
async def test_a_refused_token_is_fetched_anew_once_and_the_push_sent_once_more(
    stale: bytes,
) -> None:
    async with daraja() as (client, server):
        status = 404 if b"404" in stale else 400 if b"400.003" in stale else 401
        server.tokens.append(http(200, b'{"access_token":"tok-new","expires_in":3599}'))
        server.answers = [http(status, stale), http(200, ACCEPTED)]
        assert isinstance(await client.push(ORDER), Accepted)
        assert [b"tok-4714" in head for head, _ in server.requests] == [True, False]
        assert isinstance(await client.push(ORDER), Accepted)
        assert len(server.token_requests) == 2
        assert len(server.requests) == 3


async def test_a_token_that_is_always_refused_ends_after_one_more_try() -> None:
    async with daraja() as (client, server):
        server.answers = [http(404, STALE)]
        reply = await client.push(ORDER)
        assert isinstance(reply, Refused)
        # A fresh token does not help: the set-up's, not the moment's (daraja.md 12).
        assert (reply.reason, reply.code) == (Reason.CONFIG, "404.001.03")
        assert len(server.requests) == len(server.token_requests) == 2


async def test_twenty_pushes_whose_token_was_replaced_fetch_one() -> None:
    async with daraja() as (client, server):
        assert await client.ready() is None
        server.tokens.append(http(200, b'{"access_token":"tok-new","expires_in":3599}'))

        async def by_token(writer: asyncio.StreamWriter) -> None:
            head = server.requests[-1][0]
            writer.write(http(200, ACCEPTED) if b"tok-new" in head else http(404, STALE))

        server.answers = [by_token]
        replies = await asyncio.gather(*(client.push(ORDER) for _ in range(20)))
        assert all(isinstance(reply, Accepted) for reply in replies)
        assert len(server.token_requests) == 2


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b'{"errorCode":"400.008.01","errorMessage":"Invalid key-4711"}', Reason.CONFIG),
        (400, b"", Reason.CONFIG),
        (401, b"<html>secret-4712</html>", Reason.CONFIG),
        (404, b"", Reason.CONFIG),
        (302, b"", Reason.CONFIG),
        (429, b"", Reason.NOT_SENT),
        (503, b"", Reason.NOT_SENT),
        (200, b"<html>hotel</html>", Reason.NOT_SENT),
        (200, b'{"access_token":""}', Reason.NOT_SENT),
        (200, b'{"access_token":"a\\r\\nX-Evil: 1","expires_in":"1"}', Reason.NOT_SENT),
        (200, b'{"access_token":"tok-4714"', Reason.NOT_SENT),
    ],
)
async def test_without_a_token_nothing_is_sent_and_no_secret_told(
    status: int, body: bytes, reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with daraja() as (client, server):
        server.tokens = [http(status, body)]
        replies = [await client.ready(), await client.push(ORDER)]
        assert server.requests == []
    for reply in replies:
        assert isinstance(reply, Refused)
        assert reply.reason is reason
        assert "sandbox" in reply.message
    told = f"{caplog.text} {replies}"
    assert not [word for word in (KEY, SECRET, "tok-4714") if word in told]


async def test_what_is_written_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with daraja(initiator="api", security_credential="cred-4715") as (client, server):
        await client.push(ORDER)
        await client.query(OURS)
        server.answers = [http(500, b'{"errorCode":"500.003.02","errorMessage":"Spike %s"}')]
        await client.push(ORDER)
        await client.reverse("UKN0TEST01", 100, "https://a.example/r", "https://a.example/t", "x")
        server.answers = [reset]
        await client.push(ORDER)
        told = caplog.text + repr(client._account)
    assert "2547*****149" in told
    secrets = (PHONE, "708374149", OURS, KEY, SECRET, PASSKEY, "tok-4714", "cred-4715", "Basic ")
    assert not [word for word in secrets if word in told]


async def test_the_body_of_a_push_for_paybill_and_till() -> None:
    vector = json.loads((DATA / "stk_push.json").read_text())
    constants = json.loads((DATA / "public_sandbox_constants.json").read_text())
    clock = FakeClock(datetime(2016, 2, 16, 13, 56, 27, tzinfo=UTC))
    sent = []
    for till in (None, "5566778"):
        server = Server()
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
            url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            who = account(url, passkey=constants["passkey"], till_number=till)
            order = PushOrder(100, PHONE, "T07-000123", "POS sale", "https://relay.example.co.ke/cb/4f1c9a7e0b")  # fmt: skip
            async with DarajaClient(who, clock) as client:
                await client.push(order)
        sent.append(server.requests[0][1])
    assert sent[0] == vector["request_paybill"]
    assert sent[1] == vector["request_paybill"] | {
        "TransactionType": "CustomerBuyGoodsOnline",
        "PartyB": "5566778",
    }


def test_the_password_vector() -> None:
    vector = json.loads((DATA / "stk_push.json").read_text())["password_test_vector"]
    made = password(vector["shortcode"], vector["passkey"], vector["timestamp"])
    assert made == vector["password"]


@pytest.mark.parametrize(
    ("text", "limit", "cleaned"),
    [("T07-000123", 12, "T07-000123"), ("Sale #12 @ Café & Co", 12, "Sale -12 - C"), ("  ", 12, "SALE"),
     ("@#&", 12, "SALE"), ("POS sale, long", 13, "POS sale- lon"), ("ab-------------", 12, "ab"),
     ("مبيعات", 12, "SALE")],
)  # fmt: skip
def test_references_and_descriptions_hold_what_daraja_takes(
    text: str, limit: int, cleaned: str
) -> None:
    assert clean(text, limit, "SALE") == cleaned


@pytest.mark.parametrize(
    ("cents", "phone"),
    [(45050, PHONE), (0, PHONE), (-100, PHONE), (99, PHONE), (100, "0708374149")],
)
async def test_what_cannot_be_asked_for_is_not_sent(cents: int, phone: str) -> None:
    async with daraja() as (client, server):
        reply = await client.push(PushOrder(cents, phone, "a", "b", "https://a.example/s/x"))
        assert isinstance(reply, Refused)
        assert reply.reason is Reason.INPUT
        assert server.requests == []


async def test_a_query_about_another_push_says_nothing() -> None:
    body = {"ResponseCode": "0", "CheckoutRequestID": OURS[:-1] + "0", "ResultCode": "0"}
    async with daraja() as (client, server):
        server.answers = [http(200, json.dumps(body).encode())]
        reply = await client.query(OURS)
        assert reply.verdict is QueryVerdict.NO_INFO
        assert server.requests[0][1]["CheckoutRequestID"] == OURS


async def test_a_limited_query_waits_as_long_as_it_is_told() -> None:
    async with daraja() as (client, server):
        server.answers = [http(429, b"{}", extra="Retry-After: 40\r\n"), http(429, b"")]
        first, second = await client.query(OURS), await client.query(OURS)
        assert (first.verdict, first.retry_after_s) == (QueryVerdict.LIMITED, 40)
        assert (second.verdict, second.retry_after_s) == (QueryVerdict.LIMITED, 12)


async def test_pull_asks_in_nairobi_time_and_tells_what_it_could_not_read() -> None:
    rows = [[{"transactionId": "UKN0TEST01", "amount": "450.00"}, {"transactionId": "?"}]]
    answers = [
        {"ResponseCode": "1000", "Response": rows},
        {"ResponseCode": "1001", "Response": [[]]},
    ]
    async with daraja() as (client, server):
        server.answers = [http(200, json.dumps(each).encode()) for each in answers]
        server.answers.append(http(200, b"<html>"))
        start, end = datetime(2026, 11, 22, 21, tzinfo=UTC), datetime(2026, 11, 23, 6, tzinfo=UTC)
        first, second, third = [await client.pull(start, end, 100) for _ in range(3)]
        sent = server.requests[0][1]
    assert (sent["StartDate"], sent["EndDate"]) == ("2026-11-23 00:00:00", "2026-11-23 09:00:00")
    assert sent["OffSetValue"] == "100"
    assert [row.receipt for row in first.rows] == ["UKN0TEST01"]
    assert first.problem
    assert (second.rows, second.problem) == ((), None)
    assert third.problem


async def test_orders_without_an_initiator_are_not_sent() -> None:
    async with daraja() as (client, server):
        reply = await client.status("UKN0TEST01", "https://a.example/r", "https://a.example/t")
        assert isinstance(reply, Refused)
        assert reply.reason is Reason.CONFIG
        assert server.requests == []


async def test_a_qr_code_is_a_png_or_a_sentence() -> None:
    async with daraja(till_number="5566778", merchant_name="Mama & Co") as (client, server):
        good = b'{"ResponseCode":"AG_1","QRCode":"iVBORw0KGgo="}'
        server.answers = [http(200, good), http(200, b'{"QRCode":"PGh0bWw+"}'), http(200, b'{"QRCode":"*"}'), http(404, STALE)]  # fmt: skip
        first, second, third, fourth = [await client.qr(45000, "T1", 300) for _ in range(4)]
        assert server.requests[0][1]["TrxCode"] == "BG"
        assert server.requests[0][1]["CPI"] == "5566778"
        assert server.requests[0][1]["MerchantName"] == "Mama - Co"
    assert isinstance(first, bytes)
    for words in (second, third, fourth):
        assert isinstance(words, str)
        assert words.startswith("M-Pesa")
