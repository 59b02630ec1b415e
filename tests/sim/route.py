"""A till's request to a route of the API without sockets: the real handler, its answer as (status, bytes)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from aiohttp import web

from gateway.api import problem
from gateway.api.auth import Till, Tills
from gateway.api.build import Defaults
from gateway.api.server import SERVICES
from gateway.domain.invoice import Cashier
from gateway.errors import GatewayError
from gateway.fiscal.intake import Intake
from gateway.store.database import Database

NAMES = [f"{kind}-{n}" for kind in ("till", "desk") for n in range(4)]
TILLS = Tills({name: Till(name, name, None) for name in NAMES}, {n: f"token-{n}" for n in NAMES})
DEFAULTS = Defaults(Cashier("sim", "Sim"), "50202300", "NT", "U", 100)


def app_of(db: Database, intake: Intake) -> dict[Any, Any]:
    """What a route of sales and credit notes finds in its application."""
    return {
        SERVICES: SimpleNamespace(
            db=db, intake=intake, tills=TILLS, defaults=DEFAULTS, printers=frozenset()
        )
    }


class _Headers(dict[str, str]):
    def getall(self, name: str, otherwise: list[str]) -> list[str]:
        return [self[name]] if name in self else otherwise


class Request:
    """As much of an aiohttp request as those routes look at."""

    method = "POST"
    content_type = "application/json"
    # There is no connection below it.
    protocol = None

    def __init__(
        self, app: dict[Any, Any], till: str, key: str, invoice_id: str, body: Any
    ) -> None:
        self.app = app
        self.match_info = {"id": invoice_id}
        self.headers = _Headers({"Authorization": f"Bearer token-{till}", "Idempotency-Key": key})
        self._raw = json.dumps(body).encode()

    async def read(self) -> bytes:
        return self._raw


async def call(
    handler: Callable[[Any], Awaitable[web.StreamResponse]], request: Request, path: str
) -> tuple[int, bytes]:
    """What the till gets; a refusal as the problem that the API's own guard makes of it."""
    try:
        response = await handler(request)
    except GatewayError as error:
        return problem.render(error, path)
    assert isinstance(response, web.Response) and isinstance(response.body, bytes)
    return response.status, response.body
