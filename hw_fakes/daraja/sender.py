"""The callback engine: what Safaricom posts to a merchant, with everything that can go wrong on the way."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from hw_fakes.daraja.world import World


class Sender:
    """`post` tells what came of it, and journals every try: kind stk, c2b, validation, result or timeout."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def really_at(self, url: str) -> str | None:
        """The loopback address behind a public one, by the knob `hosts`; None for a host nobody knows."""
        parts = urlsplit(url)
        base = self._world.knobs.hosts.get((parts.hostname or "").lower())
        if base is None:
            base = self._world.knobs.hosts.get("*")
        if base is None:
            return None
        return base + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    async def deliver(
        self, kind: str, url: str, body: bytes, copies: int = 1, **facts: Any
    ) -> None:
        """A message with the knobs' delay, jitter, losses, copies and retries."""
        world, knobs = self._world, self._world.knobs
        if wait := knobs.callback_delay_s + world.rng.uniform(0, knobs.jitter_s):
            await world.clock.sleep(wait)
        if knobs.drop_callbacks > 0 or kind in knobs.drop_kinds:
            knobs.drop_callbacks = max(0, knobs.drop_callbacks - 1)
            world.note("callback", kind=kind, url=url, outcome="dropped", **facts)
            return
        count = max(copies, knobs.copies)
        await asyncio.gather(*(self._with_retries(kind, url, body, **facts) for _ in range(count)))

    async def _with_retries(self, kind: str, url: str, body: bytes, **facts: Any) -> None:
        knobs = self._world.knobs
        for attempt in range(1, int(knobs.retries) + 2):
            status, _ = await self.post(
                kind, url, body, knobs.ack_timeout_s, attempt=attempt, **facts
            )
            if status == 200:
                return
            if attempt <= knobs.retries:
                await self._world.clock.sleep(knobs.retry_spacing_s)

    async def post(
        self, kind: str, url: str, body: bytes, timeout: float, **facts: Any
    ) -> tuple[int | None, bytes]:
        """One try: the HTTP status (None: no answer) and the body of the answer."""
        real = self.really_at(url)
        sent_as, headers = in_form(body, self._world.knobs.body_forms.get(kind, "plain"))
        status: int | None = None
        sent = self._world.clock.real()
        answer, outcome = b"", "no such host"
        if real is not None:
            assert self._session is not None
            try:
                async with self._session.post(
                    real,
                    data=sent_as,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(total=timeout),
                    allow_redirects=False,
                ) as reply:
                    status, answer = reply.status, await reply.read()
                    outcome = str(status)
            except asyncio.TimeoutError:
                outcome = "no answer in time"
            except aiohttp.ClientError as error:
                outcome = f"no connection: {type(error).__name__}"
        self._world.note(
            "callback", kind=kind, url=url, outcome=outcome, sentMonotonic=sent,
            body=body.decode(errors="replace"), answer=answer[:2000].decode(errors="replace"),
            **facts,
        )  # fmt: skip
        return status, answer


def in_form(body: bytes, form: str) -> tuple[bytes, dict[str, str]]:
    """Return a message's bytes and head fields in one of knobs.BODY_FORMS. A body that is no JSON stays as it is."""
    headers = {"Content-Type": "application/json"}
    if form == "gzip":
        return gzip.compress(body), {**headers, "Content-Encoding": "gzip"}
    if form == "bom":
        return b"\xef\xbb\xbf" + body, headers
    if form == "utf16":
        return body.decode().encode("utf-16"), headers
    if form == "in_text":
        return json.dumps(body.decode()).encode(), headers
    try:
        value = json.loads(body)
    except ValueError:
        return body, headers
    if form == "form" and isinstance(value, dict):
        flat = {
            name: each if isinstance(each, str) else json.dumps(each)
            for name, each in value.items()
        }
        return urlencode(flat).encode(), {"Content-Type": "application/x-www-form-urlencoded"}
    if form == "lower_keys":
        return json.dumps(_lower(value)).encode(), headers
    name = value.get("FirstName") if isinstance(value, dict) else None
    if isinstance(name, str) and form == "latin1":
        # A letter that Latin-1 writes as one byte, which is no UTF-8.
        value["FirstName"] = name + "\u00c9"
        return json.dumps(value, ensure_ascii=False).encode("latin-1", "replace"), headers
    if isinstance(name, str) and form == "raw_tab":
        value["FirstName"] = name + "\t"
        return json.dumps(value).replace("\\t", "\t").encode(), headers
    return body, headers


def _lower(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _lower(each) for name, each in value.items()}
    return [_lower(each) for each in value] if isinstance(value, list) else value
