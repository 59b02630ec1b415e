"""A stand-in between gateway and control unit that changes single answers of the unit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

# (how many requests of this path came, the request, the unit's answer) -> the answer that goes on, as an
# object or as exact bytes; None closes the connection without one.
Change = Callable[[int, dict[str, Any], dict[str, Any]], dict[str, Any] | bytes | None]


class UnitProxy:
    """Forwards every request; answers of a path in `changes` go through its function."""

    def __init__(self, unit_url: str) -> None:
        self._unit_url = unit_url
        self._counts: dict[str, int] = {}
        self.changes: dict[str, Change] = {}
        # The first so many requests of a path do not reach the unit; the change makes their answer of {}.
        self.kept: dict[str, int] = {}
        self.url = ""

    def count(self, path: str) -> int:
        return self._counts.get(path, 0)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self._counts[path] = self.count(path) + 1
        body = await request.read()
        if self._counts[path] <= self.kept.get(path, 0):
            raw, status = b"{}", 200
        else:
            raw, status = await self._forward(path, body)
        change = self.changes.get(path)
        if change is not None:
            changed = change(self._counts[path], json.loads(body), json.loads(raw))
            if changed is None:
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            raw = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return web.Response(status=status, body=raw, content_type="application/json")

    async def _forward(self, path: str, body: bytes) -> tuple[bytes, int]:
        headers = {"Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self._unit_url + path, data=body, headers=headers) as answer,
        ):
            return await answer.read(), answer.status


@asynccontextmanager
async def unit_proxy(unit_url: str) -> AsyncIterator[UnitProxy]:
    """Listen on a free port of loopback in front of the unit."""
    proxy = UnitProxy(unit_url)
    app = web.Application()
    app.router.add_route("POST", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield proxy
    finally:
        await runner.cleanup()
