"""What every part of the fake shares: clock, knobs, bank, plans, journal, tokens, and the tasks that run."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiohttp import web

from hw_fakes.daraja import bank as banks
from hw_fakes.daraja import shapes
from hw_fakes.daraja.clock import FakeClock
from hw_fakes.daraja.ids import Ids
from hw_fakes.daraja.knobs import Knobs
from hw_fakes.daraja.plans import Plan, Plans


@dataclass(eq=False)
class Push:
    """One STK push that was accepted, and where it has got to. `code` is set with the outcome."""

    merchant_id: str
    checkout_id: str
    shortcode: str
    party_b: str
    till: bool
    phone: str
    amount: int
    reference: str
    description: str
    callback_url: str
    plan: Plan
    at: datetime
    began: float
    prompted: bool = False
    code: str | None = None
    receipt: str | None = None
    last_query: float | None = None
    queries: int = 0
    called: asyncio.Event = field(default_factory=asyncio.Event)
    # What the person at the page did: a PIN, or `cancel`.
    answered: asyncio.Future[str] | None = None

    @property
    def open(self) -> bool:
        return self.code is None

    def told(self) -> dict[str, Any]:
        return {
            "merchantRequestId": self.merchant_id, "checkoutRequestId": self.checkout_id,
            "shortcode": self.shortcode, "partyB": self.party_b, "phone": self.phone,
            "amount": self.amount, "reference": self.reference, "callbackUrl": self.callback_url,
            "scenario": self.plan.name, "prompted": self.prompted, "code": self.code,
            "receipt": self.receipt, "queries": self.queries, "at": self.at.isoformat(),
        }  # fmt: skip


class World:
    def __init__(self, clock: FakeClock, knobs: Knobs, seed: int) -> None:
        self.clock = clock
        self.knobs = knobs
        self._seed = seed
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.clear()

    def clear(self) -> None:
        """As new: whatever runs is cancelled. The knobs stay."""
        for task in self._tasks:
            task.cancel()
        self.rng = random.Random(self._seed)
        self.ids = Ids(self.rng)
        self.bank = banks.usual()
        self.plans = Plans()
        self.pushes: list[Push] = []
        self.journal: list[dict[str, Any]] = []
        # token -> the real second in which it dies
        self.tokens: dict[str, float] = {}
        self.conversations: dict[str, str] = {}
        # The pair that the knob sameConversation repeats.
        self.first_ids: tuple[str, str] | None = None
        self.query_tokens: float | None = None
        self.query_at = 0.0
        self.last_push = float("-inf")

    def note(self, what: str, **facts: Any) -> None:
        """A line of the journal."""
        entry = {"n": len(self.journal), "at": self.clock.now().isoformat(), "what": what, **facts}
        self.journal.append(entry)
        self._changed.set()

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.note("bug", error=repr(error))
        self._changed.set()

    @property
    def busy(self) -> bool:
        """Something is still to happen by itself: a prompt, a callback."""
        return bool(self._tasks)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for(self, is_so: Callable[[], bool], timeout: float) -> None:
        """Until it is so; looked at after every change. TimeoutError otherwise."""
        async with asyncio.timeout(timeout):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    def push_of(self, checkout_id: str) -> Push | None:
        return next((push for push in self.pushes if push.checkout_id == checkout_id), None)

    def error(self, http: int, code: str, message: str) -> web.Response:
        return shapes.error(self.ids.request(), http, code, message)

    def invalid(self, field_name: str) -> web.Response:
        return self.error(400, "400.002.02", f"Bad Request - Invalid {field_name}")

    def spike(self, wait_s: float) -> web.Response:
        headers = {"Retry-After": str(int(wait_s) + 1)} if self.knobs.retry_after else None
        return web.json_response(shapes.SPIKE, status=429, headers=headers)

    def lacks_product(self, *apis: str) -> web.Response | None:
        """Return 401.003.01 if the knob noProduct names one of these APIs, else None."""
        if not set(apis) & set(self.knobs.no_product):
            return None
        self.note("token", outcome="no product", api=apis[-1])
        return self.error(401, "401.003.01", shapes.NO_PRODUCT)

    def fault(self, name: str, request: web.Request) -> web.StreamResponse:
        """One of knobs.FAULTS as an answer. `lost` differs from reset where the work was done (results.py)."""
        if name in ("reset", "lost"):
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        errors = {
            "500": (500, "500.003.1001", "Internal Server Error"),
            "busy": (500, "500.003.02", "System is busy. Please try again in few minutes."),
            "spike": (500, "500.003.02", "Error Occurred: Spike Arrest Violation"),
            "quota": (500, "500.003.03", "Error Occurred: Quota Violation"),
        }
        if name in errors:
            return self.error(*errors[name])
        if name == "soap":
            return web.json_response(shapes.SOAP, status=500)
        if name == "429":
            return self.spike(12)
        if name == "no_product":
            return self.error(401, "401.003.01", shapes.NO_PRODUCT)
        if name in shapes.LIMITS:
            status, body = shapes.LIMITS[name]
            return web.json_response(body, status=status)
        if name.startswith("waf"):
            return web.Response(status=int(name[3:]), text=shapes.WAF, content_type="text/html")
        if name == "html":
            return shapes.html()
        return web.Response(status=503 if name == "503" else 400)
