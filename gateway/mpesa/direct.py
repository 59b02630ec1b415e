"""The site of its own for M-Pesa's messages, where a public name leads to this box: nothing else is served
there, so the tills' API is never public. A TLS proxy stands in front; M-Pesa takes https addresses only."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web

from gateway.clock import Clock
from gateway.connection_guard import ConnectionGuard, Limits
from gateway.domain.payment_wire import Mailbox
from gateway.door import Door, NotKept, Posted, listen, message_path
from gateway.errors import ConfigError, StoreError

RETRY_AFTER_S = 5


class DirectSite:
    """Async context manager; `port` once it listens (0 takes a free one). The paths are those below
    `callback_url`, with its own path in front of them or without, as the proxy leaves them."""

    def __init__(
        self,
        *,
        clock: Clock,
        mailbox: Mailbox,
        host: str,
        port: int,
        callback_url: str,
        limits: Limits | None = None,
    ) -> None:
        self._mailbox = mailbox
        self._host = host
        self._wanted = port
        self._below = urlsplit(callback_url).path.rstrip("/")
        self._guard = ConnectionGuard("direct", limits)
        self._door = Door("direct", clock, self._keep)
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def counts(self) -> dict[str, int]:
        """Messages stored, refused, too large, and beyond the flood's limit, since the start."""
        return dict(self._door.counts)

    async def __aenter__(self) -> DirectSite:
        app = web.Application()
        for below in {"", self._below}:
            app.router.add_post(message_path(*filter(None, below.split("/"))), self._door.take)
        try:
            self._runner = await listen(app, self._host, self._wanted, self._guard)
        except OSError as error:
            raise ConfigError(
                f"mpesa.direct_port {self._wanted} on {self._host} cannot be used: {error.strerror}"
            ) from error
        self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _keep(self, posted: Posted) -> None:
        try:
            await self._mailbox.put(
                "DIRECT", None, posted.kind, posted.token, posted.body, posted.peer
            )
        except StoreError as error:
            raise NotKept(error.code, RETRY_AFTER_S) from error
