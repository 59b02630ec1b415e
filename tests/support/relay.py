"""The relay as a process, what M-Pesa and a gateway say to it, and the line between them."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import aiohttp

from gateway.signed import signature
from hw_fakes.relay import RelayProcess

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
