"""What the signer needs from outside, as Protocols it defines itself: the unit, the ceiling, hooks."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from gateway.domain.invoice import Invoice
from gateway.domain.outcome import SaleOutcome
from gateway.domain.receipt import Receipt
from gateway.errors import GatewayError
from gateway.store.invoices import InvoiceRow
from gateway.store.unclear_keys import SaleName


class SalesUnit(Protocol):
    """The control unit as far as a sale goes."""

    async def send_sale(self, body: bytes) -> SaleOutcome:
        """Hand over one sale, once; never resends by itself, never raises for the wire's faults."""
        ...


class SaleEncoder(Protocol):
    """Invoice + number + time -> the exact bytes of a saveSales request. `invoice_id` marks it."""

    def __call__(
        self, invoice: Invoice, *, invc_no: int, at: datetime, invoice_id: str = ""
    ) -> bytes: ...


class MismatchSink(Protocol):
    """Where it is recorded that the unit has sales which this store lacks (fiscal/ahead.py)."""

    def mismatch(self, conn: sqlite3.Connection, row: InvoiceRow, reason: str) -> None:
        """Store the signing hold and quarantine the sale's key, inside the caller's transaction."""
        ...

    def counter_gap(self, conn: sqlite3.Connection, reason: str) -> None:
        """Store the signing hold alone, inside the caller's transaction."""
        ...

    def mismatch_published(self, reason: str) -> None:
        """Put the stored hold in force, after the commit."""
        ...


@dataclass(frozen=True, slots=True)
class SignedSale:
    """One sale at the moment of its commit, as hooks see it."""

    row: InvoiceRow
    invoice: Invoice
    receipt: Receipt
    chain_hash: str
    at_us: int
    how: str


# Raises the reason why nothing may be signed right now (Suspended, ClockFault), or returns.
Gate = Callable[[], None]
# (sale, when it came by CLOCK_BOOTTIME) of one without a receipt here: raises why it must not be begun
# (UnitAhead, MaybeSigned).
MayBegin = Callable[[SaleName, int], Awaitable[None]]
# Asked in the transaction of the write-ahead, of which there is one at a time: why this sale must not be
# signed (its money is another sale's, or is still asked for), or None.
MaySign = Callable[[sqlite3.Connection, InvoiceRow, Invoice], GatewayError | None]
# Run inside the committing transaction: outbox, print queue, the ceiling's stopwatch.
CommitHook = Callable[[sqlite3.Connection, SignedSale], None]
# Run after it, on the loop: wake whoever drains those queues. Must not raise.
AfterCommit = Callable[[], None]
# An error -> (HTTP status, body bytes), the form in which a refusal is stored and replayed.
RenderProblem = Callable[[GatewayError, str], tuple[int, bytes]]
# Extra members of a till's answer at the moment of commit (the `ceiling` object).
AnswerExtras = Callable[[], dict[str, Any]]
