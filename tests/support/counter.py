"""What tests of the counter's devices share: the devices' list, a weight, a till's event stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gateway.store import events
from gateway.store.events import Event
from tests.support.shop import OpenShop, Reply


async def problem_of(shop: OpenShop, name: str) -> str | None:
    """Why the device does not work, as the devices' list says."""
    devices = (await shop.till().request("GET", "/v1/devices")).json["devices"]
    return next(device["problem"] for device in devices if device["name"] == name)


async def device_is(shop: OpenShop, name: str, part: str | None, timeout: float = 30) -> None:
    """Waits until the device works (None), or its problem has this in it."""
    async with asyncio.timeout(timeout):
        while True:
            problem = await problem_of(shop, name)
            if problem is None if part is None else part in (problem or ""):
                return
            await asyncio.sleep(0.02)


async def until_event(shop: OpenShop, kind: str) -> Event:
    """The first event of this kind, once it is in the store."""
    async with asyncio.timeout(30):
        while True:
            news = asyncio.ensure_future(shop.gateway.db.changed())
            found = await shop.gateway.db.read(lambda conn: events.of_kind(conn, kind))
            if found:
                news.cancel()
                return found[0]
            await news


async def weigh(shop: OpenShop, till: str = "till-1", name: str = "pan") -> Reply:
    return await shop.till(till).request("GET", f"/v1/devices/{name}/weight")


class EventStream:
    """A till's event stream, as it comes."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._news = asyncio.Event()

    def add(self, kind: str, data: dict[str, Any]) -> None:
        self.events.append((kind, data))
        self._news.set()

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.events if name == kind]

    async def wait_for(self, kind: str, count: int, timeout: float = 30) -> list[dict[str, Any]]:
        """The events of this kind, when there are so many."""
        async with asyncio.timeout(timeout):
            while len(self.of(kind)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(kind)


@asynccontextmanager
async def listening(shop: OpenShop, till: str) -> AsyncIterator[EventStream]:
    """Open from the moment the gateway has said so."""
    client = shop.till(till)
    heard = EventStream()

    async def follow(lines: Any) -> None:
        kind = ""
        async for raw in lines:
            text = raw.decode().rstrip("\n")
            if text.startswith("event: "):
                kind = text[7:]
            elif text.startswith("data: "):
                heard.add(kind, json.loads(text[6:]))

    async with client._session.get(client.url + "/v1/events", headers=client.headers) as answer:
        assert answer.status == 200
        assert (await answer.content.readline()).startswith(b"retry:")
        task = asyncio.ensure_future(follow(answer.content))
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.wait({task})
