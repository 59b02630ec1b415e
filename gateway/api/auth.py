"""Who is speaking: one bearer token per till and per technician, compared without telling by the clock."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from gateway.connection_guard import authenticated
from gateway.errors import UnknownTechnician, UnknownTill

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Till:
    """One till of the shop; `printer` is where its receipts come out, None for nowhere."""

    id: str
    name: str
    printer: str | None


class Tokens:
    """Names by token, kept as digests only, so that no dump or log of this object shows one."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._names = [(_digest(token), name) for name, token in tokens.items()]

    def name_of(self, token: str) -> str | None:
        digest = _digest(token.strip())
        found = None
        for known, name in self._names:
            if hmac.compare_digest(known, digest):
                found = name
        return found


class Tills:
    def __init__(self, tills: Mapping[str, Till], tokens: Mapping[str, str]) -> None:
        self._tills = dict(tills)
        self._tokens = Tokens(tokens)
        self._sent: set[str] = set()

    def silent(self) -> list[str]:
        """Return the tills that have sent nothing to be signed or asked for since the start."""
        return sorted(set(self._tills) - self._sent)

    def known(self, till_id: str) -> Till | None:
        return self._tills.get(till_id)

    def name_of(self, token: str) -> str | None:
        """The id of the till that has this token, None for nobody's."""
        return self._tokens.name_of(token) if token else None

    def authenticate(self, request: web.Request) -> Till:
        """The till whose token the request carries. UnknownTill otherwise."""
        token = bearer(request)
        if token is None:
            raise UnknownTill("This till is not set up: it sent no token. Call the technician.")
        name = self._tokens.name_of(token)
        if name is None:
            raise UnknownTill("This till's token is not known here. Call the technician.")
        if request.method == "POST":
            self._sent.add(name)
        authenticated(request)
        return self._tills[name]


class Technicians:
    """People who may decide what no till may: their names end up in the story."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = Tokens(tokens)
        self._any = bool(tokens)

    def authenticate(self, request: web.Request) -> str:
        """The name of the technician whose token the request carries. UnknownTechnician otherwise."""
        name = self.check(bearer(request) or "")
        authenticated(request)
        return name

    def name_of(self, request: web.Request) -> str | None:
        """The same without a refusal, for what a till may ask, too."""
        return self._tokens.name_of(bearer(request) or "")

    def check(self, token: str) -> str:
        if not self._any:
            raise UnknownTechnician(
                "No technician is set up: put a name and a code into GATEWAY_TECHNICIAN_TOKENS."
            )
        name = self._tokens.name_of(token) if token else None
        if name is None:
            log.warning("technician.refused")
            raise UnknownTechnician("The technician's code is missing or not known here.")
        return name


def bearer(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
