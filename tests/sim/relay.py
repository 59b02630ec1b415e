"""The relay of the simulation: at least once, and away by now and then."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any

from tests.sim.world import World


class Relay:
    """Keeps what came until the gateway has it; at least once, and away by now and then."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.messages: list[tuple[str, str, bytes]] = []
        self._away_until_s = 0.0
        self._arrived = asyncio.Event()

    @property
    def away(self) -> bool:
        now = self.world.loop.time()
        if now >= self._away_until_s and self.world.happens(0.01):
            self._away_until_s = now + self.world.chance.choice((5, 60, 400))
            self.world.trace("the relay is away")
        return not self.world.quiet and now < self._away_until_s

    def post(self, kind: str, token: str, raw: bytes) -> bool:
        """False: it was away, and Daraja does not come back (daraja.md 5)."""
        if self.away:
            self.world.trace(f"a message of kind {kind} finds no relay")
            return False
        self.messages.append((kind, token, raw))
        self._arrived.set()
        return True

    def arrived(self) -> asyncio.Event:
        """Set when the next message comes: the long poll."""
        self._arrived.clear()
        return self._arrived

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """Pages in order; now and then from the start again, as after a restart of its own."""
        if method == "POST":
            return {}
        after = int(re.findall(r"after=(\d+)", path)[0])
        if self.world.happens(0.05):
            after = self.world.chance.randint(0, after)
        page = self.messages[after : after + 20]
        return {
            "epoch": "sim",
            "next": after + len(page),
            "messages": [
                {
                    "id": after + n, "kind": kind, "token": token, "peer": "196.201.214.200",
                    "body": base64.b64encode(raw).decode(),
                }
                for n, (kind, token, raw) in enumerate(page, 1)
            ],
        }  # fmt: skip
