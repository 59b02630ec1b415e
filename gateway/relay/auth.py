"""Who may fetch messages: one HMAC-SHA256 per request, with a time window and a nonce against replay.

`gateway/signed.py` says what is signed. A gateway's clock may be wrong by years, so a refusal for the time
names the relay's own; nobody else learns anything from it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.signed import signature

WINDOW_S = 300
# A gateway asks some times a minute; this is room for a backlog fetched as fast as it goes.
NONCES_MAX = 20_000
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not heard: `TIME` (look at the server's and sign anew) or `SIGNATURE`."""

    code: str


@dataclass(slots=True)
class _Nonces:
    """Seen within the window, by gateway: nonce -> when it may be forgotten, in seconds."""

    seen: dict[str, int] = field(default_factory=dict)

    def take(self, nonce: str, now: int) -> bool:
        """False when it was there, or when there are too many to tell."""
        if nonce in self.seen:
            return False
        if len(self.seen) >= NONCES_MAX:
            self.seen = {name: until for name, until in self.seen.items() if until >= now}
            if len(self.seen) >= NONCES_MAX:
                return False
        self.seen[nonce] = now + 2 * WINDOW_S
        return True


class Keys:
    """The gateways of this relay. `started`: a request signed before it may be one whose nonce this
    process has never seen, so it is asked to be signed anew. Seconds of Unix time."""

    def __init__(self, secrets: Mapping[str, bytes], started: int) -> None:
        self._secrets = dict(secrets)
        self._nonces = {name: _Nonces() for name in secrets}
        self._started = started

    def __contains__(self, gateway: object) -> bool:
        return gateway in self._secrets

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._secrets)

    def check(
        self, headers: Mapping[str, str], method: str, path_query: str, body: bytes, now: int
    ) -> str | Refusal:
        """The gateway's name, or why it is not heard. The signature is looked at before anything else, so
        that a stranger learns nothing about names or nonces."""
        gateway = headers.get("X-Gateway", "")
        time, nonce = headers.get("X-Time", ""), headers.get("X-Nonce", "")
        secret = self._secrets.get(gateway, b"\0" * 32)
        wanted = signature(secret, method, path_query, time, nonce, body)
        right = hmac.compare_digest(
            wanted.encode(), headers.get("X-Signature", "").encode(errors="replace")
        )
        if not right or gateway not in self._secrets or not _NONCE.fullmatch(nonce):
            return Refusal("SIGNATURE")
        if not re.fullmatch(r"[0-9]{1,12}", time):
            return Refusal("TIME")
        # The machine's clock was set back: what is signed by the new time must be heard.
        self._started = min(self._started, now)
        if abs(int(time) - now) > WINDOW_S or int(time) < self._started:
            return Refusal("TIME")
        if not self._nonces[gateway].take(nonce, now):
            return Refusal("REPLAY")
        return gateway
