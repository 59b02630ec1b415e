"""The access token of Daraja: one, shared by everybody, renewed before it ends.

It is fetched by one request at a time however many wait for it. A token that an API refuses is dropped only
while it is still the one in use, so a late refusal of an old token never throws away the new one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.domain.payment import Reason
from gateway.domain.payment_wire import Refused

log = logging.getLogger(__name__)

EARLY_S = 60.0
LIFE_S = 3600.0
_LIFE_MAX_S = 86_400.0
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Fetched:
    """A new token and the seconds it lives."""

    token: str
    life_s: float

    def __repr__(self) -> str:
        return f"Fetched(life_s={self.life_s})"


def life_of(text: str | None) -> float:
    """`expires_in` in seconds: a string as a rule, a number at times, one hour when it is neither."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 9:
        return LIFE_S
    return min(float(text), _LIFE_MAX_S) or LIFE_S


class TokenSource:
    """Hands out the token. `fetch` asks M-Pesa once and never raises for the wire."""

    def __init__(self, fetch: Callable[[], Awaitable[Fetched | Refused]], clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._token: str | None = None
        self._renew_at_ns = 0
        self._ends_at_ns = 0
        self._running: asyncio.Future[str | Refused] | None = None

    async def get(self) -> str | Refused:
        """A token good for now, or why there is none. While a renewal fails, the old one serves until
        its very end."""
        now = self._clock.boottime_ns()
        if self._token is not None and now < self._renew_at_ns:
            return self._token
        if self._running is None:
            self._running = asyncio.ensure_future(self._renew())
        running = self._running
        # Waits without owning: one waiter that is cancelled takes the token from nobody.
        await asyncio.wait({running})
        if running.cancelled():
            return Refused(Reason.NOT_SENT, "CLOSED", "the gateway is stopping", b"")
        found = running.result()
        if isinstance(found, str):
            return found
        alive = self._clock.boottime_ns() < self._ends_at_ns
        return self._token if alive and self._token is not None else found

    def drop(self, token: str) -> None:
        """An API has refused this token; the next `get` fetches another, unless that was done already."""
        if self._token == token:
            self._token = None

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _renew(self) -> str | Refused:
        try:
            found = await self._fetch()
            if isinstance(found, Refused):
                log.warning("no access token of M-Pesa: %s", found.message)
                return found
            life_ns = int(found.life_s * _NS)
            self._token = found.token
            self._ends_at_ns = self._clock.boottime_ns() + life_ns
            # A short-lived one serves at least half its time.
            self._renew_at_ns = self._ends_at_ns - min(int(EARLY_S * _NS), life_ns // 2)
            return found.token
        finally:
            self._running = None
