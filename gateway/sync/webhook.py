"""One POST to a till's webhook: the wire, without any policy."""

from __future__ import annotations

import asyncio

import aiohttp

from gateway.http import Lookups

# A till that takes longer is asked again later. Seconds.
TIMEOUT_S = 10.0


class WebhookWire:
    """Use as an async context manager; `post` never raises for the wire's faults."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> WebhookWire:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Lookups()), timeout=self._timeout
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> int | None:
        """The HTTP status; None without an answer. A redirect is an answer, and not followed."""
        assert self._session is not None
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError):
            return None
