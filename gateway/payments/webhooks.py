"""Each till's webhook: what happens to its payments and checkouts, in order, at least once, signed.

The cursor is durable, so a till that was away, and a gateway that was restarted, miss nothing. A till that
does not answer holds up nobody but itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import random
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta

from gateway.clock import Clock, from_micros, iso, micros
from gateway.store import events, meta
from gateway.store.database import Database
from gateway.store.events import Event

log = logging.getLogger(__name__)

KINDS = ("payment.", "checkout.")
# An event's kind, and its subject: all of them are found by it.
GIVEN_UP = "webhook.given_up"
PAGE_ROWS = 200
# Between two attempts, in seconds, each with jitter: first and last.
AGAIN_FIRST_S = 1.0
AGAIN_LAST_S = 60.0
# What a till has not taken by then is no news any more; it asks GET /v1/payments.
TOO_OLD = timedelta(hours=24)
# Looked for so often when nothing wakes it. Seconds.
IDLE_S = 30.0

# (address, body, headers) -> HTTP status; None: no answer.
Post = Callable[[str, bytes, dict[str, str]], Awaitable[int | None]]


def signature(token: str, time: str, body: bytes) -> str:
    """Hex HMAC-SHA256 over the time, a line feed and the body, with the till's own token."""
    return hmac.new(token.encode(), time.encode() + b"\n" + body, hashlib.sha256).hexdigest()


class Webhook:
    """One till's; `run` for as long as the daemon lives."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        till_id: str,
        url: str,
        token: str,
        post: Post,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._db = db
        self._clock = clock
        self._till_id = till_id
        self._url = url
        self._token = token
        self._post = post
        self._jitter = jitter
        self._key = f"webhook.{till_id}"

    async def run(self) -> None:
        last = await self._cursor()
        while True:
            changed = asyncio.ensure_future(self._db.changed())
            try:
                rows = await self._after(last)
                for row in rows:
                    if row.kind.startswith(KINDS):
                        await self._deliver(row)
                        await self._remember(row.id)
                    last = row.id
                if not rows:
                    await asyncio.wait({changed}, timeout=IDLE_S)
            finally:
                changed.cancel()

    async def _after(self, last: int) -> list[Event]:
        return await self._db.read(lambda conn: events.after(conn, last, self._till_id, PAGE_ROWS))

    async def _cursor(self) -> int:
        """Where the last run ended; at the very first, now."""
        known = await self._db.read(lambda conn: meta.get(conn, self._key))
        if known is not None:
            return int(known)
        newest = await self._db.read(events.newest_id)
        await self._remember(newest)
        return newest

    async def _remember(self, event_id: int) -> None:
        # Lost in a power cut: told twice, which a till must bear anyhow.
        await self._db.write_soft(lambda conn: meta.put(conn, self._key, str(event_id)))

    async def _deliver(self, row: Event) -> None:
        body = json.dumps(
            {
                "id": row.id,
                "kind": row.kind,
                "at": iso(from_micros(row.at)),
                "subject": row.subject,
                "data": row.data,
            },
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        pause = AGAIN_FIRST_S
        while True:
            time = str(int(self._clock.now().timestamp()))
            headers = {
                "Content-Type": "application/json",
                "X-Event-Id": str(row.id),
                "X-Time": time,
                "X-Signature": signature(self._token, time, body),
            }
            status = await self._post(self._url, body, headers)
            if status is not None and 200 <= status < 300:
                return
            # Asked after a try: what grew old while the gateway was off, or in a wrong clock, has one.
            if self._clock.now() - from_micros(row.at) >= TOO_OLD:
                await self._give_up(row)
                return
            log.info("webhook.again till=%s event=%s status=%s", self._till_id, row.id, status)
            await self._clock.sleep(pause * (0.5 + self._jitter() / 2))
            pause = min(pause * 2, AGAIN_LAST_S)

    async def _give_up(self, row: Event) -> None:
        """Skipped, with an alarm. It is no event of a payment, so no webhook carries it in its turn."""
        log.error("webhook.given_up till=%s event=%s", self._till_id, row.id)
        at = micros(self._clock.now())
        data = {
            "till": self._till_id,
            "event": row.id,
            "kind": row.kind,
            "about": row.subject,
            "happened": iso(from_micros(row.at)),
        }

        def tell(conn: sqlite3.Connection) -> None:
            events.record(
                conn,
                at=at,
                kind=GIVEN_UP,
                subject=GIVEN_UP,
                till_id=self._till_id,
                data=data,
            )
            meta.put(conn, self._key, str(row.id))

        await self._db.write(tell)
