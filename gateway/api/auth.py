"""Which till is speaking: one bearer token per till, compared without telling by the clock."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from gateway.errors import UnknownTill


@dataclass(frozen=True, slots=True)
class Till:
    """One till of the shop; `printer` is where its receipts come out, None for nowhere."""

    id: str
    name: str
    printer: str | None


class Tills:
    """Tokens are kept as digests only, so that no dump or log of this object shows one."""

    def __init__(self, tills: Mapping[str, Till], tokens: Mapping[str, str]) -> None:
        self._by_digest = [
            (hashlib.sha256(token.encode()).digest(), tills[till_id])
            for till_id, token in tokens.items()
        ]

    def authenticate(self, request: web.Request) -> Till:
        """The till whose token the request carries. UnknownTill otherwise."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnknownTill("This till is not set up: it sent no token. Call the technician.")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, till in self._by_digest:
            if hmac.compare_digest(known, digest):
                found = till
        if found is None:
            raise UnknownTill("This till's token is not known here. Call the technician.")
        return found
