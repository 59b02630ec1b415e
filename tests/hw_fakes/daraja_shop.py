"""A merchant before the fake Daraja: asks over real HTTP, and takes what is posted to its https addresses."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja

DATA = Path(__file__).parents[1] / "data/daraja"
STAMP = "20261123101530"
PUSH = "/mpesa/stkpush/v1/processrequest"
QUERY = "/mpesa/stkpushquery/v1/query"
PHONE = "254708374149"
SCALE = 0.01  # of a real second


def fixture(name: str) -> Any:
    return json.loads((DATA / name).read_text())


def shape(value: Any) -> Any:
    """Keys and types, without the values; a list is known by its first element."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value)


def message(answer: tuple[int, Any]) -> tuple[int, str, str]:
    status, body = answer
    assert set(body) == {"requestId", "errorCode", "errorMessage"}
    return status, body["errorCode"], body["errorMessage"]


class Shop:
    def __init__(self, fake: FakeDaraja, session: aiohttp.ClientSession) -> None:
        self.fake = fake
        self._session = session
        self.token = ""
        # Path and body of whatever Daraja posted, in order.
        self.got: list[tuple[str, bytes]] = []
        self.heads: list[dict[str, str]] = []
        self.says: Any = {"ResultCode": 0, "ResultDesc": "Accepted"}
        self.status = 200

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request.path, await request.read()))
        self.heads.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response(self.says, status=self.status)

    def bodies(self, path: str) -> list[Any]:
        return [json.loads(body) for where, body in self.got if where == path]

    async def log_in(
        self, key: str = KEY, secret: str = SECRET, grant: str = "client_credentials"
    ) -> tuple[int, Any]:
        basic = base64.b64encode(f"{key}:{secret}".encode()).decode()
        async with self._session.get(
            f"{self.fake.url}/oauth/v1/generate?grant_type={grant}",
            headers={"Authorization": f"Basic {basic}"},
        ) as answer:
            raw = await answer.read()
            told = json.loads(raw) if raw else None
        if answer.status == 200:
            self.token = told["access_token"]
        return answer.status, told

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        """The answer as JSON, as text if it is none, None if it is empty."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self._session.post(
            self.fake.url + path, data=raw, headers={"Authorization": f"Bearer {self.token}"}
        ) as answer:
            text = await answer.text()
            try:
                return answer.status, json.loads(text) if text else None
            except ValueError:
                return answer.status, text

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._session.get(self.fake.url + path) as answer:
            return answer.status, await answer.json()

    def order(self, **changes: Any) -> dict[str, Any]:
        """A push of 450 shillings to the sandbox's paybill."""
        shortcode = changes.get("BusinessShortCode", "174379")
        stamp = changes.get("Timestamp", STAMP)
        phone = changes.get("PhoneNumber", PHONE)
        password = base64.b64encode(f"{shortcode}{PASSKEY}{stamp}".encode()).decode()
        return {
            "BusinessShortCode": shortcode, "Password": password, "Timestamp": stamp,
            "TransactionType": "CustomerPayBillOnline", "Amount": "450", "PartyA": phone,
            "PartyB": shortcode, "PhoneNumber": phone, "CallBackURL": "https://relay.test/g/s/one",
            "AccountReference": "T07-000123", "TransactionDesc": "POS sale", **changes,
        }  # fmt: skip

    async def push(self, **changes: Any) -> tuple[int, Any]:
        return await self.post(PUSH, self.order(**changes))

    async def query(self, checkout_id: str) -> tuple[int, Any]:
        order = self.order()
        head = {name: order[name] for name in ("BusinessShortCode", "Password", "Timestamp")}
        return await self.post(QUERY, {**head, "CheckoutRequestID": checkout_id})

    async def register(
        self, shortcode: str = "174379", version: str = "v2", **changes: Any
    ) -> tuple[int, Any]:
        body = {
            "ShortCode": shortcode, "ResponseType": "Completed",
            "ConfirmationURL": "https://relay.test/g/c/tok",
            "ValidationURL": "https://relay.test/g/v/tok", **changes,
        }  # fmt: skip
        return await self.post(f"/mpesa/c2b/{version}/registerurl", body)

    async def pull(self, start: str, end: str, offset: str = "0") -> tuple[int, Any]:
        body = {"ShortCode": "174379", "StartDate": start, "EndDate": end, "OffSetValue": offset}
        return await self.post("/pulltransactions/v1/query", body)

    def asynchronous(self, command: str, **changes: Any) -> dict[str, Any]:
        """The head of a status query or a reversal."""
        return {
            "Initiator": "testapiuser", "SecurityCredential": "c2VjcmV0", "CommandID": command,
            "ResultURL": "https://relay.test/g/r/tok", "QueueTimeOutURL": "https://relay.test/g/t/tok",
            "Remarks": "OK", **changes,
        }  # fmt: skip


@asynccontextmanager
async def open_shop(**knobs: Any) -> AsyncIterator[Shop]:
    """The fake at a hundredth of its time and without the query limit, a merchant logged in."""
    app = web.Application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    # With `tls` the shop itself asks without looking at the certificate: its tests are about SDKs.
    connector = aiohttp.TCPConnector(ssl=False) if "tls" in knobs else None
    async with aiohttp.ClientSession(connector=connector) as session:
        fake = FakeDaraja(**{"time_scale": SCALE, "query_limited": False, **knobs})
        shop = Shop(fake, session)
        app.router.add_post("/{path:.*}", shop.take)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            async with fake:
                fake.turn(hosts={"relay.test": f"http://127.0.0.1:{runner.addresses[0][1]}"})
                assert (await shop.log_in())[0] == 200
                yield shop
                assert fake.entries("bug") == []
        finally:
            await runner.cleanup()
