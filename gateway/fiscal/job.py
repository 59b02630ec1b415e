"""What passes between intake and signer: a job, its answer, and how the sale on the wire ended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.domain.invoice import Invoice
from gateway.errors import GatewayError
from gateway.store.invoices import InvoiceRow


@dataclass(frozen=True, slots=True)
class Answer:
    """What a till gets: HTTP status and exact body bytes."""

    status: int
    body: bytes
    replayed: bool = False


@dataclass(slots=True, eq=False)
class Job:
    """One invoice that somebody waits for. Ends once, with an Answer or with an error."""

    invoice_id: str
    done: asyncio.Future[Answer | GatewayError]
    waiters: int = 0
    begun: bool = False

    def finish(self, result: Answer | GatewayError) -> None:
        if not self.done.done():
            self.done.set_result(result)


@dataclass(frozen=True, slots=True)
class Begun:
    """A sale that is written ahead: what goes on the wire next."""

    row: InvoiceRow
    invoice: Invoice
    body: bytes


@dataclass(slots=True)
class Settlement:
    """How the sale that was on the wire ended: applied in a transaction, then published."""

    apply: Callable[[sqlite3.Connection], None]
    publish: Callable[[], None] = field(default=lambda: None)
