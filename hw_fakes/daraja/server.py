"""Daraja as one server: the routes of the real one beside the fake's own under /_fake/."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from hw_fakes.daraja.bank import Merchant, Payment, Wallet
from hw_fakes.daraja.c2b import C2b
from hw_fakes.daraja.clock import FakeClock
from hw_fakes.daraja.control import Control
from hw_fakes.daraja.knobs import Knobs, snake
from hw_fakes.daraja.life import Life
from hw_fakes.daraja.movements import Movements
from hw_fakes.daraja.oauth import KEY, SECRET, OAuth
from hw_fakes.daraja.phone import PhonePage
from hw_fakes.daraja.plans import PLANS
from hw_fakes.daraja.pull import Pull
from hw_fakes.daraja.qr import Qr
from hw_fakes.daraja.results import Results
from hw_fakes.daraja.sender import Sender
from hw_fakes.daraja.stk import Stk
from hw_fakes.daraja.tls import serve_tls
from hw_fakes.daraja.world import Push, World


class FakeDaraja:
    """Async context manager on loopback. `url` is the base of Daraja's own paths.

    `time_scale` 0.01: whatever waits takes a hundredth. Keywords beyond the named ones are knobs (knobs.py).
    `now` may replace the wall clock that stamps messages, `clock` all of its time. `tls` is a folder for
    certificates: then `url` is https, and `authority` is the certificate that a client must trust.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        time_scale: float = 1.0,
        seed: int = 1,
        key: str = KEY,
        secret: str = SECRET,
        now: Callable[[], datetime] | None = None,
        clock: FakeClock | None = None,
        tls: Path | None = None,
        **knobs: Any,
    ) -> None:
        self._port, self._host, self._tls = port, host, tls
        self._first = {"time_scale": time_scale, **knobs}
        self._runner: web.AppRunner | None = None
        self.clock = clock or FakeClock(now=now)
        self.knobs = Knobs()
        self.turn(**self._first)
        self.world = World(self.clock, self.knobs, seed)
        self.oauth = OAuth(self.world, key, secret)
        self._sender = Sender(self.world)
        self._c2b = C2b(self.world, self.oauth, self._sender)
        self._stk = Stk(self.world, self.oauth, Life(self.world, self._sender, self._c2b))
        self._results = Results(self.world, self.oauth, self._sender)
        self._pull = Pull(self.world, self.oauth)
        self._movements = Movements(self.world, self._c2b, self._pull)
        self._qr = Qr(self.world, self.oauth)
        self.url = ""
        self.authority: Path | None = None

    async def __aenter__(self) -> FakeDaraja:
        app = web.Application(middlewares=[self._daraja_errors])
        posts = {
            "/mpesa/stkpush/v1/processrequest": self._stk.push,
            "/mpesa/stkpushquery/v1/query": self._stk.query,
            "/mpesa/c2b/v1/registerurl": self._c2b.register,
            "/mpesa/c2b/v2/registerurl": self._c2b.register,
            "/mpesa/c2b/v1/simulate": self._c2b.simulate,
            "/mpesa/c2b/v2/simulate": self._c2b.simulate,
            "/pulltransactions/v1/register": self._pull.register,
            "/pulltransactions/v1/query": self._pull.query,
            "/mpesa/transactionstatus/v1/query": self._results.status,
            "/mpesa/reversal/v1/request": self._results.reversal,
            "/mpesa/b2c/v1/paymentrequest": self._results.b2c,
            "/mpesa/b2c/v3/paymentrequest": self._results.b2c,
            "/mpesa/accountbalance/v1/query": self._results.balance,
            "/mpesa/qrcode/v1/generate": self._qr.generate,
        }
        app.router.add_get("/oauth/v1/generate", self.oauth.generate)
        for path, handler in posts.items():
            app.router.add_post(path, handler)
        Control(self).add_to(app)
        PhonePage(self).add_to(app)
        await self._sender.open()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        context = None
        if self._tls is not None:
            context, self.authority = await asyncio.to_thread(serve_tls, self._tls)
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=context).start()
        self.url = f"{'http' if context is None else 'https'}://{self._host}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.world.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await self._sender.close()

    @web.middleware
    async def _daraja_errors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """A path or a method that Daraja does not have, in its words."""
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            return self.world.error(404, "404.001.01", "Resource not found")
        except web.HTTPMethodNotAllowed:
            return self.world.error(405, "405.001", "Method Not Allowed")
        return answer

    # What a test or the control interface turns.

    def turn(self, **values: Any) -> None:
        """Knobs by name. ValueError for one that is none or cannot be so, and then none is turned."""
        if values.get("default", "ok") not in PLANS:
            raise ValueError(f"unknown scenario {values['default']}")
        self.knobs.turn(**values)
        self.clock.scale = self.knobs.time_scale
        self.clock.offset_s = self.knobs.clock_offset_s

    def turn_json(self, values: dict[str, Any]) -> None:
        self.turn(**{snake(name): value for name, value in values.items()})

    def script(
        self, scenario: str, *, phone: str | None = None, amount: int | None = None, times: int = 1,
        **changes: Any,
    ) -> None:  # fmt: skip
        """The next `times` pushes of this phone and amount (None: any) live through `scenario`.

        `changes` are fields of plans.Plan, for example done_s=0.2 or callbacks=[{"code": "1032"}].
        """
        self.world.plans.script(scenario, phone=phone, amount=amount, times=times, changes=changes)

    async def pay(self, phone: str, number: str, amount: int, reference: str = "") -> Payment | str:
        """A customer pays a till or paybill by hand; the code of the refusal otherwise."""
        return await self._c2b.pay(phone, number, amount, reference)

    def settle(self, number: str, amount: int | None = None) -> Payment:
        """Sweep a shop's balance (or `amount`) to its bank. ValueError if it is not there."""
        return self._movements.settle(number, amount)

    def reverse(self, receipt: str) -> Payment:
        """Reverse a payment as a customer who sent its SMS to 456. ValueError if it cannot be."""
        return self._movements.reverse(receipt)

    def add_rows(self, number: str, *rows: dict[str, Any]) -> None:
        """Give Pull these rows of a shop, as they stand here."""
        self._movements.add_rows(number, list(rows))

    def answer(self, phone: str, do: str, pin: str = "") -> None:
        """The person at the prompt of this phone. ValueError if there is none."""
        if do not in ("pin", "cancel", "ignore"):
            raise ValueError("do is pin, cancel or ignore")
        for push in self.pushes:
            waits = push.answered
            if push.phone == phone and waits is not None and not waits.done():
                waits.set_result({"pin": pin or "-", "cancel": "cancel", "ignore": ""}[do])
                return
        raise ValueError(f"no prompt on {phone}")

    def expire_tokens(self) -> None:
        self.world.tokens.clear()

    def wallet(self, phone: str) -> Wallet:
        return self.world.bank.wallet(phone)

    def reset(self) -> None:
        """As new, the knobs too."""
        self.world.clear()
        fresh = Knobs()
        self.turn(**{**vars(fresh), **self._first})

    # The truth.

    @property
    def journal(self) -> list[dict[str, Any]]:
        return self.world.journal

    @property
    def pushes(self) -> list[Push]:
        return self.world.pushes

    @property
    def payments(self) -> list[Payment]:
        return self.world.bank.payments

    @property
    def merchants(self) -> list[Merchant]:
        return self.world.bank.merchants

    def entries(self, what: str) -> list[dict[str, Any]]:
        """The journal's lines of one kind: token, push, prompt, outcome, payment, callback, query, .."""
        return [entry for entry in self.journal if entry["what"] == what]

    async def wait_for(self, is_so: Callable[[], bool], timeout: float = 30) -> None:
        """Until it is so, looked at after every line of the journal. TimeoutError (real seconds) otherwise."""
        await self.world.wait_for(is_so, timeout)

    async def settled(self, timeout: float = 30) -> None:
        """Until nothing more happens by itself."""
        await self.world.wait_for(lambda: not self.world.busy, timeout)

    def state(self) -> dict[str, Any]:
        world = self.world
        return {
            "now": world.clock.now().isoformat(),
            "pushes": [push.told() for push in world.pushes],
            "payments": [payment.told() for payment in world.bank.payments],
            "wallets": [asdict(wallet) for wallet in world.bank.wallets.values()],
            "merchants": [asdict(merchant) for merchant in world.bank.merchants],
            "scripts": [
                {"scenario": s.plan.name, "phone": s.phone, "amount": s.amount, "times": s.times}
                for s in world.plans.scripts
            ],
            "tokens": len(world.tokens),
            "busy": world.busy,
            "knobs": self.knobs.told(),
        }
