"""What each way of not answering proves, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.clock import SystemClock
from gateway.domain.outcome import Duplicate, NotSent, Refused, Signed, Unknown
from gateway.vscu.client import UnitClient
from gateway.vscu.codes import Proof, proof
from gateway.vscu.wire import receipt_data
from hw_fakes.ports import free_port

Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = {
    "rcptNo": 1, "totRcptNo": 2, "intrlData": "I", "rcptSign": "S",
    "vsdcRcptPbctDate": "20260707114122", "sdcId": "KRACU0300000001", "mrcNo": "WIS",
}  # fmt: skip


@asynccontextmanager
async def unit_that(answers: bytes | Peer, *, timeout_s: float = 30) -> AsyncIterator[UnitClient]:
    """A client to a peer that reads a request and then does as told; after bytes it hangs up. Counts requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                requests.append(await reader.readexactly(length))
                if isinstance(answers, bytes):
                    writer.write(answers)
                    await writer.drain()
                    return
                else:
                    await answers(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = UnitClient(
        base_url=f"http://127.0.0.1:{port}", pin="A000123456B", branch_id="00",
        clock=SystemClock(), answer_timeout_s=timeout_s,
    )  # fmt: skip
    client.requests = requests  # type: ignore[attr-defined]
    async with server, client:
        yield client


def http(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def envelope(code: str, data: object = None) -> bytes:
    value = {"resultCd": code, "resultMsg": "m", "resultDt": "20260707114122", "data": data}
    return http(200, json.dumps(value).encode())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (envelope("000", GOOD), Signed),
        (envelope("00", GOOD), Unknown),
        (envelope("000", None), Unknown),
        (envelope("000", {**GOOD, "rcptSign": ""}), Unknown),
        (envelope("000", {**GOOD, "vsdcRcptPbctDate": "soon"}), Unknown),
        (envelope("000", {**GOOD, "vsdcRcptPbctDate": "00010101000000"}), Unknown),
        (envelope("000", {**GOOD, "rcptNo": 10**20}), Unknown),
        (envelope("000", {**GOOD, "totRcptNo": float("inf")}), Unknown),
        (envelope("910"), Refused),
        (envelope("913"), Refused),
        (envelope("924"), Duplicate),
        (envelope("994"), Duplicate),
        (envelope("899"), Unknown),
        (envelope("894"), Unknown),
        (envelope("838"), Unknown),
        (envelope("901"), Unknown),
        (envelope("777"), Unknown),
        (envelope("836"), NotSent),
        (envelope("E11"), NotSent),
        (http(400, b"{}"), Refused),
        (http(404, b"<html>", "text/html"), NotSent),
        (http(200, b"<html>Log in</html>", "text/html"), Unknown),
        (http(500, b"{}"), Unknown),
        (http(503, b"no", "text/plain"), Unknown),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{half", Unknown),
        (b"nonsense\r\n\r\n", Unknown),
    ],
    ids=str,
)
async def test_what_an_answer_proves(answer: bytes, kind: type) -> None:
    async with unit_that(answer) as client:
        outcome = await client.send_sale(b"{}")
        assert isinstance(outcome, kind), outcome
        assert len(client.requests) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("status", "link"),
    [(503, True), (502, True), (504, True), (429, True), (500, False), (200, False), (302, False)],
)
async def test_http_statuses_of_proxies_and_overload_are_trouble_on_the_link(
    status: int, link: bool
) -> None:
    async with unit_that(http(status, b"<html>", "text/html")) as client:
        outcome = await client.send_sale(b"{}")
    assert isinstance(outcome, Unknown)
    assert outcome.link is link
    assert outcome.ceiling_hint is (status == 503)


async def test_every_sending_is_reported_with_its_outcome() -> None:
    seen: list[object] = []
    async with unit_that(envelope("E11")) as client:
        client.on_outcome = seen.append
        outcome = await client.send_sale(b"{}")
    assert seen == [outcome]


async def test_a_closed_connection_is_unknown_and_nothing_is_sent_twice() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with unit_that(close) as client:
        assert isinstance(await client.send_sale(b"{}"), Unknown)
        assert len(client.requests) == 1  # type: ignore[attr-defined]


async def test_a_kept_connection_that_dies_under_a_sale_is_not_retried() -> None:
    """The second request goes out on the kept connection, which the peer closes unanswered."""
    seen = 0

    async def once(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            writer.write(envelope("000", GOOD))
        else:
            writer.close()

    async with unit_that(once) as client:
        assert isinstance(await client.send_sale(b"{}"), Signed)
        assert isinstance(await client.send_sale(b"{}"), Unknown)
        assert seen == 2


async def test_no_answer_in_time_is_unknown() -> None:
    async def wait(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with unit_that(wait, timeout_s=0.2) as client:
        outcome = await client.send_sale(b"{}")
        assert isinstance(outcome, Unknown)
        assert "in time" in outcome.reason


async def test_nobody_listening_is_not_sent() -> None:
    client = UnitClient(
        base_url=f"http://127.0.0.1:{free_port()}", pin="A", branch_id="00", clock=SystemClock()
    )
    async with client:
        assert isinstance(await client.send_sale(b"{}"), NotSent)
        assert "no connection" in str(await client.healthy())


def test_both_names_of_the_units_time_and_numbers_as_text_are_read() -> None:
    data = {**GOOD, "rcptNo": "7", "sdcId": None}
    data["VSCURcptPbctDate"] = data.pop("vsdcRcptPbctDate")
    read = receipt_data(data)
    assert not isinstance(read, str)
    assert read.rcpt_no == 7
    assert read.sdc_id is None


def test_an_unknown_code_is_ambiguous() -> None:
    assert proof("123") is Proof.AMBIGUOUS
    assert proof("899") is Proof.AMBIGUOUS


async def test_an_answer_that_comes_in_pieces_is_read_whole() -> None:
    """Larger than any one read of a socket: what is there first must not be taken for all."""
    async with unit_that(envelope("000", {**GOOD, "pad": "x" * 3_000_000})) as client:
        outcome = await client.send_sale(b"{}")
    assert isinstance(outcome, Signed)
    assert len(outcome.raw) > 3_000_000
