"""The fake's own routes: scripts, knobs, journal, state, payments by hand, reset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hw_fakes.daraja import checks
from hw_fakes.daraja.bank import Payment

if TYPE_CHECKING:
    from hw_fakes.daraja.server import FakeDaraja


class Control:
    def __init__(self, fake: FakeDaraja) -> None:
        self._fake = fake

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/_fake/journal", self._journal)
        app.router.add_get("/_fake/state", self._state)
        app.router.add_post("/_fake/knobs", self._knobs)
        app.router.add_post("/_fake/script", self._script)
        app.router.add_post("/_fake/pay", self._pay)
        app.router.add_post("/_fake/settle", self._settle)
        app.router.add_post("/_fake/reverse", self._reverse)
        app.router.add_post("/_fake/rows", self._rows)
        app.router.add_post("/_fake/tokens/expire", self._expire)
        app.router.add_post("/_fake/wallets", self._wallet)
        app.router.add_post("/_fake/answer", self._answer)
        app.router.add_post("/_fake/reset", self._reset)

    async def _journal(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdigit()):
            return _refused("since must be a number")
        return web.json_response(self._fake.journal[int(since) :])

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(self._fake.state())

    async def _knobs(self, request: web.Request) -> web.Response:
        return await self._told(request, self._fake.turn_json)

    async def _script(self, request: web.Request) -> web.Response:
        def do(body: dict[str, Any]) -> None:
            scenario = body.pop("scenario", "")
            phone, amount = body.pop("phone", None), body.pop("amount", None)
            times = body.pop("times", 1)
            if (
                type(times) is not int
                or times < 1
                or (amount is not None and type(amount) is not int)
            ):
                raise ValueError("times and amount are whole numbers")
            self._fake.script(str(scenario), phone=phone, amount=amount, times=times, **body)

        return await self._told(request, do)

    async def _pay(self, request: web.Request) -> web.Response:
        """A customer pays the number by hand: {phone, number, amount, reference}."""
        body = await checks.read_body(request) or {}
        phone, shillings = checks.text(body, "phone"), checks.amount(checks.text(body, "amount"))
        if not checks.PHONE.fullmatch(phone) or shillings is None:
            return _refused("phone is 2547.. or 2541.., amount whole shillings")
        done = await self._fake.pay(
            phone, checks.text(body, "number"), shillings, checks.text(body, "reference")
        )
        if isinstance(done, Payment):
            return web.json_response(done.told())
        return web.json_response({"error": "not paid", "code": done}, status=409)

    async def _expire(self, request: web.Request) -> web.Response:
        self._fake.expire_tokens()
        return web.json_response({})

    async def _settle(self, request: web.Request) -> web.Response:
        """Move a shop's balance to its bank: {number, amount}; without an amount all of it."""

        def do(body: dict[str, Any]) -> None:
            amount = body.get("amount")
            if amount is not None and type(amount) is not int:
                raise ValueError("amount is whole shillings")
            self._fake.settle(checks.text(body, "number"), amount)

        return await self._told(request, do)

    async def _reverse(self, request: web.Request) -> web.Response:
        """Reverse a payment for a customer who sent its SMS to 456: {receipt}."""

        def do(body: dict[str, Any]) -> None:
            self._fake.reverse(checks.text(body, "receipt"))

        return await self._told(request, do)

    async def _rows(self, request: web.Request) -> web.Response:
        """Add rows to Pull as they stand here: {number, rows}."""

        def do(body: dict[str, Any]) -> None:
            rows = body.get("rows")
            if not isinstance(rows, list):
                raise ValueError("rows is a list of objects")
            self._fake.add_rows(checks.text(body, "number"), *rows)

        return await self._told(request, do)

    async def _wallet(self, request: web.Request) -> web.Response:
        """{phone, balance, pin, name}"""

        def do(body: dict[str, Any]) -> None:
            if not checks.PHONE.fullmatch(checks.text(body, "phone")):
                raise ValueError("phone is 2547.. or 2541..")
            wallet = self._fake.wallet(checks.text(body, "phone"))
            if type(body.get("balance", 0)) is not int:
                raise ValueError("balance is whole shillings")
            wallet.balance = body.get("balance", wallet.balance)
            wallet.pin = str(body.get("pin", wallet.pin))
            wallet.name = str(body.get("name", wallet.name))

        return await self._told(request, do)

    async def _answer(self, request: web.Request) -> web.Response:
        """The customer at the prompt: {phone, do: pin|cancel|ignore, pin}"""

        def do(body: dict[str, Any]) -> None:
            self._fake.answer(
                checks.text(body, "phone"), checks.text(body, "do"), checks.text(body, "pin")
            )

        return await self._told(request, do)

    async def _reset(self, request: web.Request) -> web.Response:
        self._fake.reset()
        return web.json_response({})

    async def _told(self, request: web.Request, do: Any) -> web.Response:
        body = await checks.read_body(request)
        if body is None:
            return _refused("the body must be a JSON object")
        try:
            do(body)
        except (ValueError, TypeError) as error:
            return _refused(str(error))
        return web.json_response(json.loads(json.dumps(self._fake.state())))


def _refused(why: str) -> web.Response:
    return web.json_response({"error": why}, status=400)
