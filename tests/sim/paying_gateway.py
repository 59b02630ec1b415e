"""The gateway of the payments' simulation: everything of a sale, and the real desk, push, checks, inbox,
reconciliation, refunds and checkout of one life, over a simulated Daraja and relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from gateway.domain.payment_wire import Lost, Refused
from gateway.domain.payment import Reason
from gateway.mpesa.account import Account
from gateway.mpesa.client import DarajaClient
from gateway.mpesa.wire import Answer, DarajaWire
from tests.sim.daraja import SHORTCODE, SimDaraja
from tests.sim.gateway import RealGateway
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, SimClock, never

ACCOUNT = Account(
    environment="sandbox", base_url="", shortcode=SHORTCODE, till_number=None, consumer_key="k",
    consumer_secret="s", passkey="p", initiator="sim", security_credential="c",
)  # fmt: skip
ANSWER_S = 30.0


class SimWire(DarajaWire):
    """The real exchange of tokens, tries and refusals, with the simulated Daraja in place of aiohttp."""

    def __init__(self, life: Life, daraja: SimDaraja, clock: SimClock) -> None:
        super().__init__(ACCOUNT, clock, ANSWER_S)
        self._life = life
        self._daraja = daraja

    async def _exchange(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, limit: int
    ) -> Answer | Refused | Lost:
        world = self._life.world
        await self._life.point()
        if world.happens(self._daraja.trouble / 6):
            return Refused(Reason.NOT_SENT, "UNREACHABLE", "no connection to M-Pesa", b"")
        bearer = headers["Authorization"].removeprefix("Bearer ")
        said = asyncio.ensure_future(
            self._daraja.answer(path, json.loads(body) if body else {}, bearer)
        )
        await asyncio.wait({said}, timeout=ANSWER_S)
        if not self._life.alive:
            await never()
        await self._life.point()
        if not said.done():
            return Lost("M-Pesa did not answer in time")
        answer = said.result()
        if answer is None:
            if world.happens(0.5):
                await asyncio.sleep(ANSWER_S)
            return Lost("M-Pesa's answer was cut off")
        return Answer(*answer, None)


class SimDarajaClient(DarajaClient):
    """The real client over the simulated wire."""

    def __init__(self, life: Life, daraja: SimDaraja, clock: SimClock) -> None:
        super().__init__(ACCOUNT, clock, ANSWER_S)
        self._wire = SimWire(life, daraja, clock)
