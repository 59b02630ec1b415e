"""M-Pesa's side of a server, the same for the relay and for a gateway with a public name.

One POST is one message: read whole and raw, kept by whoever owns the door, and answered when it is on the
disk, whatever is in it. M-Pesa waits some seconds and may never send it again (daraja.md 5). Nothing of a
message is looked into or logged.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from aiohttp import web

from gateway.body_share import BodyShare
from gateway.clock import Clock
from gateway.connection_guard import ConnectionGuard, Network
from gateway.errors import GatewayError
from gateway.listen import listen_at

log = logging.getLogger(__name__)

BODY_MAX_BYTES = 64 * 1024
# Who needs longer for 64 KiB holds a connection open on purpose.
BODY_MAX_S = 15.0
# A message is about 1 KiB and comes at once: what is awaited longer is slow on purpose.
BODIES_AT_ONCE = 32
# s push, c and v C2B confirmation and validation, r and t results and time-outs.
KINDS = frozenset("scvrt")
ACCEPTED = {"ResultCode": 0, "ResultDesc": "Accepted"}
# A validation's answer has its code as text (daraja.md 6); every payment is accepted.
VALID = {"ResultCode": "0", "ResultDesc": "Accepted"}
FLOOD_PER_S = 20.0
FLOOD_BURST = 200
# Safaricom's addresses as far as they are known (daraja.md 5): never limited, never relied upon.
SAFARICOM = (ipaddress.IPv4Network("196.201.212.0/22"),)
# A token of ours has 32 or 40 characters.
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True, slots=True)
class Posted:
    """One message as it came. `peer`: the sender's address as far as it is known."""

    kind: str
    token: str
    body: bytes
    peer: str


class NotKept(Exception):
    """It could not be kept: the sender is told 503, and may try again after so many seconds."""

    def __init__(self, reason: str, retry_after_s: int) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Door:
    """For one owner of messages: how much strangers may send, and what happened. `keep` returns when the
    message is on the disk."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        keep: Callable[[Posted], Awaitable[None]],
        *,
        peer: Literal["connection", "forwarded"] = "connection",
        flood_per_s: float = FLOOD_PER_S,
        flood_burst: int = FLOOD_BURST,
        unlimited: Sequence[Network] = SAFARICOM,
    ) -> None:
        self._name = name
        self._clock = clock
        self._keep = keep
        self._peer = peer
        self._per_s = flood_per_s
        self._burst = flood_burst
        self._unlimited = tuple(unlimited)
        self._tokens = float(flood_burst)
        self._at_ns = clock.boottime_ns()
        self._bodies = bodies()
        self.counts: Counter[str] = Counter()

    async def take(self, request: web.Request) -> web.Response:
        """The answer to M-Pesa: 200 once it is kept; 404, 408, 413, 429 or 503 when it is not."""
        kind, token = request.match_info["kind"], request.match_info["token"]
        if kind not in KINDS or not _TOKEN.fullmatch(token):
            raise web.HTTPNotFound
        peer = peer_of(request, self._peer)
        if not self._may_send(peer):
            self.counts["flooded"] += 1
            return said(429, "Too many messages", retry_after_s=5)
        try:
            body = await self._bodies.read(request, peer)
        except GatewayError as error:
            if error.status == 413:
                self.counts["tooLarge"] += 1
                log.warning("door.too_large owner=%s kind=%s peer=%s", self._name, kind, peer)
            return not_read(error)
        try:
            await self._keep(Posted(kind, token, body, peer))
        except NotKept as error:
            self.counts["refused"] += 1
            log.error("door.not_kept owner=%s kind=%s reason=%s", self._name, kind, error)
            return said(503, "Not stored", retry_after_s=error.retry_after_s)
        self.counts["stored"] += 1
        return web.json_response(VALID if kind == "v" else ACCEPTED)

    def _may_send(self, peer: str) -> bool:
        """A bucket of tokens for all strangers together."""
        if any(ipaddress.ip_address(peer) in network for network in self._unlimited if peer):
            return True
        now_ns = self._clock.boottime_ns()
        gained = (now_ns - self._at_ns) / 1e9 * self._per_s
        self._tokens, self._at_ns = min(self._burst, self._tokens + gained), now_ns
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def message_path(*below: str) -> str:
    """Return the route of a message below these segments. A proxy that joins addresses carelessly doubles a
    slash or leaves one at the end; the token says whose message it is, so both are taken."""
    segments = (*below, "{kind:[^/]+}", "{token:[^/]+}")
    return "".join(f"/{{slash{n}:/*}}{each}" for n, each in enumerate(segments)) + "{end:/*}"


def peer_of(request: web.Request, where: Literal["connection", "forwarded"]) -> str:
    """The sender's address, "" when there is none. Of X-Forwarded-For only the last one is the proxy's own
    word; what stands before it, anybody may have written."""
    text = request.remote or ""
    if where == "forwarded":
        text = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def bodies() -> BodyShare:
    """Return the bounds of bodies whose sender is not known."""
    return BodyShare(size_max=BODY_MAX_BYTES, at_once=BODIES_AT_ONCE, within_s=BODY_MAX_S)


def not_read(error: GatewayError) -> web.Response:
    """Return the response to a body that was not read."""
    text = {408: "The body did not come", 413: "Too large"}.get(error.status, error.title)
    return said(error.status, text, retry_after_s=error.retry_after_s)


def said(status: int, text: str, retry_after_s: int | None = None) -> web.Response:
    """A sentence as JSON."""
    headers = None if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response({"message": text}, status=status, headers=headers)


async def listen(
    app: web.Application, host: str, port: int, guard: ConnectionGuard
) -> web.AppRunner:
    """Serves `app`: nothing is unpacked (a body is kept as it came), and no path is logged (it holds a
    token). OSError when the port cannot be used; the caller cleans the runner up."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, auto_decompress=False)
    await runner.setup()
    try:
        await listen_at(runner, host, port, guard)
    except OSError:
        await runner.cleanup()
        raise
    return runner
