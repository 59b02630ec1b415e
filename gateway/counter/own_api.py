"""The gateway's own HTTP API, for tills that cannot speak HTTP: as strict, with the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

# A till on a wire may do what a till on the LAN may, under these paths.
PREFIX = "/v1/"
ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is the answer's JSON, or None where it is none."""

    status: int
    body: Any
    replayed: bool = False


class OwnApi:
    """Speaks as one till, with that till's token."""

    def __init__(self, url: Callable[[], str], token: str) -> None:
        self._url = url
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, method: str, path: str, *, key: str | None = None, body: bytes | None = None
    ) -> Reply:
        """OSError or aiohttp.ClientError when the API itself cannot be reached (it is starting)."""
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        async with self._session.request(
            method, self._url() + path, data=body, headers=headers, allow_redirects=False
        ) as answer:
            raw = await answer.read()
            try:
                value = json.loads(raw) if raw else None
            except ValueError:
                value = None
            return Reply(answer.status, value, "Idempotent-Replayed" in answer.headers)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
