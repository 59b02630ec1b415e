"""Fetches M-Pesa's messages from the relay: outbound only, so a box behind NAT needs no address.

One long poll at a time; a page is acknowledged when it and the cursor are on the disk. What is delivered
twice is one message by the relay's number. The relay's clock is the one that signatures are checked by; this
box's may be wrong by years, so the difference is learnt from a refusal.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import random
import secrets
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.domain.payment_wire import Arrival, Mailbox
from gateway.door import KINDS
from gateway.errors import StoreError
from gateway.http import NO_NAMES, Lookups, read_whole, why_not
from gateway.signed import signature

log = logging.getLogger(__name__)

WAIT_S = 25
CONNECT_S = 10
# So long after the relay's own waiting nothing more has come: there is no connection any more.
SILENT_S = 15
# A full page over the slowest link that is of any use.
PAGE_S = 300
BACKOFF_FIRST_S = 0.5
BACKOFF_LAST_S = 60.0
# A page is at most 1 MB of bodies, in base64 with its frame.
PAGE_MAX_BYTES = 4 * 1024 * 1024


class Away(Exception):
    """No usable answer; the text says why, for the status page."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the relay handed out: `upto` is its number to acknowledge."""

    epoch: str
    upto: int
    arrivals: tuple[Arrival, ...]


class RelayClient:
    """`run` for as long as the daemon lives. `problem` is None while messages can come."""

    def __init__(
        self, *, url: str, gateway: str, secret: str, clock: Clock, mailbox: Mailbox
    ) -> None:
        self._url = url.rstrip("/")
        self._gateway = gateway
        self._secret = secret.encode()
        self._clock = clock
        self._mailbox = mailbox
        self._wake = asyncio.Event()
        self._lookups = Lookups()
        # Seconds to add to this box's clock to have the relay's.
        self._offset_s = 0
        # The last acknowledged (epoch, number); asked for again after a start, which is harmless.
        self._acked: tuple[str, int] | None = None
        self.problem: str | None = "the relay has not been reached yet"
        # When the relay last answered, UTC microseconds by this box's clock.
        self.last_contact_us: int | None = None
        self.fetched = 0

    @property
    def clock_offset_s(self) -> int:
        """How far this box's clock is behind the relay's, as learnt; 0 while nobody has complained."""
        return self._offset_s

    def link_is_back(self) -> None:
        """The network answered elsewhere: try now instead of waiting a back-off out."""
        self._wake.set()

    async def run(self) -> None:
        pause = BACKOFF_FIRST_S
        connector = aiohttp.TCPConnector(resolver=self._lookups)
        async with aiohttp.ClientSession(connector=connector) as session:
            while True:
                self._wake.clear()
                try:
                    await self._round(session)
                except Exception as error:  # whatever the relay sends, the next round is tried
                    reason = _why(error)
                    if reason != self.problem:
                        log.warning("relay.away reason=%s", reason)
                    self.problem = reason
                    # Half of it is chance, so that all shops do not come back at once.
                    nap = pause * (0.5 + random.random() / 2)  # noqa: S311
                    await wake_or_sleep(self._clock, self._wake, nap)
                    pause = min(pause * 2, BACKOFF_LAST_S)
                    continue
                pause = BACKOFF_FIRST_S

    async def _round(self, session: aiohttp.ClientSession) -> None:
        """One page into the store, then its acknowledgement. While there is a problem the relay is asked
        without waiting, so that the end of the problem is known at once."""
        epoch, after = await self._mailbox.cursor()
        wait = WAIT_S if self.problem is None else 0
        page = await self._fetch(session, epoch, after, wait)
        if page.arrivals or (page.epoch, page.upto) != (epoch, after):
            await self._mailbox.take(page.epoch, page.upto, page.arrivals)
        self.fetched += len(page.arrivals)
        if self._acked != (page.epoch, page.upto):
            body = json.dumps({"upTo": page.upto, "epoch": page.epoch}).encode()
            await self._call(session, "POST", "/v1/ack", body)
            self._acked = (page.epoch, page.upto)
        if self.problem is not None:
            log.info("relay.reached gateway=%s", self._gateway)
        self.problem = None

    async def _fetch(
        self, session: aiohttp.ClientSession, epoch: str, after: int, wait: int
    ) -> Page:
        path = f"/v1/messages?after={after}&epoch={epoch}&wait={wait}"
        value = await self._call(session, "GET", path, b"")
        try:
            return _page(value)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise Away("what answered is not the relay") from None

    async def _call(
        self, session: aiohttp.ClientSession, method: str, path: str, body: bytes
    ) -> Any:
        """The JSON of a 200. Once more when the relay says that this box's clock is wrong."""
        for last in (False, True):
            status, value = await self._send(session, method, path, body)
            self.last_contact_us = micros(self._clock.now())
            if status == 200:
                return value
            code = value.get("code") if isinstance(value, dict) else None
            if status == 401 and code == "TIME" and not last and self._learn(value):
                continue
            if status == 401 and code == "SIGNATURE":
                raise Away("the relay refuses this gateway: look at its name and its secret")
            raise Away(f"the relay answered HTTP {status}")
        raise AssertionError

    def _learn(self, value: dict[str, Any]) -> bool:
        theirs = value.get("serverTime")
        if type(theirs) is not int or not 0 < theirs < 2**40:
            return False
        self._offset_s = theirs - self._seconds()
        log.warning("relay.clock offset_s=%d: this box's clock is not the relay's", self._offset_s)
        return True

    async def _send(
        self, session: aiohttp.ClientSession, method: str, path: str, body: bytes
    ) -> tuple[int, Any]:
        # As long as it may wait: with a problem it is asked without.
        wait = WAIT_S if self.problem is None else 0
        time = str(self._seconds() + self._offset_s)
        nonce = secrets.token_urlsafe(18)
        headers = {
            "X-Gateway": self._gateway,
            "X-Time": time,
            "X-Nonce": nonce,
            "X-Signature": signature(self._secret, method, path, time, nonce, body),
        }
        try:
            async with session.request(
                method,
                self._url + path,
                data=body or None,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=PAGE_S, connect=CONNECT_S, sock_read=wait + SILENT_S
                ),
            ) as response:
                raw = await read_whole(response, PAGE_MAX_BYTES)
                return response.status, _json(raw)
        except asyncio.TimeoutError:
            if self._lookups.hang:
                raise Away(f"no connection to the relay: {NO_NAMES}") from None
            raise Away("the relay does not answer") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Away(f"no connection to the relay: {why_not(error)}") from None

    def _seconds(self) -> int:
        return micros(self._clock.now()) // 1_000_000


def _why(error: Exception) -> str:
    """Return why a round failed; what the store cannot hold (half a character in a name) is the relay's fault."""
    if isinstance(error, Away):
        return str(error)
    if isinstance(error, StoreError):
        return f"the store: {error}"
    log.error("relay.fault", exc_info=error)
    return f"what the relay sent cannot be taken: {type(error).__name__}"


def _json(raw: bytes | None) -> Any:
    try:
        return json.loads(raw or b"")
    except (ValueError, RecursionError):
        # A hotel's login page answers, too.
        return None


def _page(value: Any) -> Page:
    """KeyError, TypeError, ValueError for what is no page of the relay's."""
    epoch, upto = value["epoch"], value["next"]
    if type(epoch) is not str or type(upto) is not int or not 0 <= upto < 2**63:
        raise ValueError
    arrivals = []
    for item in value["messages"]:
        if item["kind"] not in KINDS:
            # Not one of those that this version asks for; the relay keeps it for a week.
            log.error("relay.unknown_kind id=%s", item["id"])
            continue
        raw = base64.b64decode(item["body"], validate=True)
        origin = f"{epoch}:{int(item['id'])}"
        arrivals.append(Arrival(item["kind"], str(item["token"]), raw, str(item["peer"]), origin))
    return Page(epoch, upto, tuple(arrivals))
