"""The cloud's receiving side of the outbox protocol (README.md), in memory, with knobs.

Idempotent by kind and invoice id: the same digest again is a duplicate, another one is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import ssl
from typing import Any

from aiohttp import web

BODY_MAX_BYTES = 8 * 1024 * 1024
KNOBS: dict[str, Any] = {
    "latencyMs": 0,
    "status5xx": 0,  # so many next batches are answered 503
    "dropAfterCommit": 0,  # so many next batches are stored and then not answered
    "reorderAcks": False,
    "rejectNext": 0,  # so many next records are refused
    "rejectInvoices": [],  # these are refused as often as they come
    "badRequestFor": [],  # a batch with one of these is answered 400 as a whole
    "badRequest": False,  # every batch is answered 400
    "captive": False,  # everything is answered 200 with a login page
    "down": False,  # connections are closed without an answer
}


class FakeCloud:
    """Async context manager on a free loopback port. `records` holds what is stored, in order."""

    def __init__(
        self, *, token: str | None = None, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.token = token or secrets.token_urlsafe(16)
        self.records: list[dict[str, Any]] = []
        self.deliveries: dict[str, int] = {}
        self.values: dict[str, Any] = {name: value for name, value in KNOBS.items()}
        self.url = ""
        # The last batch and the answer to it, as JSON values.
        self.last: tuple[Any, Any] | None = None
        self._port = port
        self._tls = tls
        self._by_id: dict[tuple[str, str], str] = {}
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> FakeCloud:
        app = web.Application(client_max_size=BODY_MAX_BYTES)
        app.router.add_post("/v1/gateways/{gateway}/receipts", self._receipts)
        app.router.add_get("/_fake/journal", self._journal)
        app.router.add_post("/_fake/knobs", self._knobs)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls).start()
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def knobs(self, **values: Any) -> None:
        for name, value in values.items():
            if name not in KNOBS:
                raise ValueError(f"unknown knob {name}")
            self.values[name] = value

    async def wait_for(self, count: int, timeout: float) -> None:
        """Back when so many records are stored. TimeoutError otherwise."""
        async with asyncio.timeout(timeout):
            while len(self.records) < count:
                self._changed.clear()
                await self._changed.wait()

    def _take(self, name: str) -> bool:
        left = int(self.values[name])
        if left > 0:
            self.values[name] = left - 1
        return left > 0

    async def _receipts(self, request: web.Request) -> web.StreamResponse:
        fault = await self._fault(request)
        if fault is not None:
            return fault
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"code": "UNAUTHORIZED"}, status=401)
        try:
            body = json.loads(await request.read())
            batch, records = body["batch"], body["records"]
            ids = [record["invoiceId"] for record in records]
        except (ValueError, KeyError, TypeError):
            return web.json_response({"code": "BAD_REQUEST"}, status=400)
        spoilt = any(invoice in self.values["badRequestFor"] for invoice in ids)
        if spoilt or self.values["badRequest"]:
            return web.json_response({"code": "BAD_REQUEST"}, status=400)
        results = [self._store(record) for record in records]
        self._changed.set()
        if self._take("dropAfterCommit"):
            return self._hang_up(request)
        if self.values["reorderAcks"]:
            results.reverse()
        answer = {"batch": batch, "results": results}
        self.last = (body, answer)
        return web.json_response(answer)

    async def _fault(self, request: web.Request) -> web.StreamResponse | None:
        await asyncio.sleep(self.values["latencyMs"] / 1000)
        if self.values["down"]:
            return self._hang_up(request)
        if self.values["captive"]:
            page = "<html><title>Welcome</title><form>Log in to use the Wi-Fi</form></html>"
            return web.Response(text=page, content_type="text/html")
        if self._take("status5xx"):
            return web.json_response({"code": "BUSY"}, status=503, headers={"Retry-After": "1"})
        return None

    def _hang_up(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=500)

    def _store(self, record: dict[str, Any]) -> dict[str, Any]:
        invoice, kind = record["invoiceId"], record["kind"]
        self.deliveries[invoice] = self.deliveries.get(invoice, 0) + 1
        answer = {"seq": record["seq"], "invoiceId": invoice}
        payload = json.dumps(
            record["payload"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        digest = hashlib.sha256(payload.encode()).hexdigest()
        if digest != record["sha256"]:
            return {**answer, "status": "refused", "code": "DIGEST", "message": "digest differs"}
        known = self._by_id.get((kind, invoice))
        if known is not None:
            if known == digest:
                return {**answer, "status": "duplicate"}
            return {**answer, "status": "refused", "code": "CONFLICT", "message": "other content"}
        if invoice in self.values["rejectInvoices"] or self._take("rejectNext"):
            return {**answer, "status": "refused", "code": "REJECTED", "message": "by a knob"}
        self._by_id[kind, invoice] = digest
        self.records.append(record)
        return {**answer, "status": "stored"}

    async def _journal(self, request: web.Request) -> web.Response:
        return web.json_response({"records": self.records, "deliveries": self.deliveries})

    async def _knobs(self, request: web.Request) -> web.Response:
        try:
            self.knobs(**await request.json())
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(self.values)
