"""The gateway's own HTTP API, for tills that cannot speak HTTP: as strict, with the same answers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.http import Lookups

# A till on a wire may do what a till on the LAN may, under these paths.
PREFIX = "/v1/"
ANSWER_S = 60.0
_CONTROL = re.compile(r"[^\x20-\x7e]")


@dataclass(frozen=True, slots=True)
class Reply:
    """`raw` as it came, `body` the JSON in it, or None where it is none."""

    status: int
    raw: bytes
    body: Any
    replayed: bool = False


class OwnApi:
    """Speaks as one till, with that till's token."""

    def __init__(self, url: Callable[[], str], token: str) -> None:
        self._url = url
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        confirm: str | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """OSError or aiohttp.ClientError when the API itself cannot be reached (it is starting);
        asyncio.TimeoutError when it does not answer."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=Lookups()),
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            )
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        for name, value in (("Idempotency-Key", key), ("Confirm-New-Sale", confirm)):
            if value is not None:
                # What no header can carry stays unusable, so the API says what is wrong with it.
                headers[name] = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", value)
        async with self._session.request(
            method, self._url() + path, data=body, headers=headers, allow_redirects=False
        ) as answer:
            raw = await answer.read()
            try:
                value = json.loads(raw) if raw else None
            except ValueError:
                raw, value = b"null", None
            return Reply(
                answer.status, raw or b"null", value, "Idempotent-Replayed" in answer.headers
            )

    async def close(self) -> None:
        """A later request opens it again: its owner may be started anew."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
