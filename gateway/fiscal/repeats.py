"""Recognise the same till receipt under a new key: one till receipt number and body, one fiscal receipt.

A till that loses an answer and makes a new key for its retry would get a second receipt. So each sale takes the
fingerprint of till, receipt number and body by an upsert, in the transaction of its claim and once more in the
transaction of its write-ahead, which decides: sales are written ahead one after the other. A sale that was never
signed holds nothing against another one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from gateway import ids
from gateway.clock import EAT, Clock, from_micros, iso, micros
from gateway.domain.signing import SigningState
from gateway.errors import LikelyRepeat, MaybeSigned
from gateway.fiscal.not_signed import maybe_signed
from gateway.money import from_cents, text
from gateway.store import fingerprints, invoices, unclear_keys
from gateway.store.invoices import InvoiceRow, NewInvoice

# A till without keys, or with a new one, states by this header that the sale is another one than the named.
CONFIRM_HEADER = "Confirm-New-Sale"
# Two instants are never further apart than this.
FOREVER_US = 2**62
# For shops that take no sale without a key: `api.keyless_window_s` is 0 there. Microseconds.
WINDOW_US = 86_400_000_000


class Sale(Protocol):
    """A sale as it is sent, claimed or stored."""

    @property
    def till_id(self) -> str: ...
    @property
    def idem_key(self) -> str: ...
    @property
    def original_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Repeats:
    """The rule for one shop. `reuses_numbers`: tills whose receipt numbers start again within the window."""

    clock: Clock
    window_us: int = WINDOW_US
    reuses_numbers: Collection[str] = ()

    def applies(self, sale: Sale) -> bool:
        """Return whether this sale is looked at: no credit note, which has a rule of its own, and no confirmed sale
        of a till without keys."""
        if sale.original_id is not None or sale.till_id in self.reuses_numbers:
            return False
        return not ids.is_confirmed(sale.idem_key)

    def claim(
        self,
        conn: sqlite3.Connection,
        sale: NewInvoice | InvoiceRow,
        confirms: str | None = None,
        *,
        window_us: int | None = None,
    ) -> InvoiceRow | None:
        """Take the fingerprint for this sale; return the sale that keeps it: signed within the window, quarantined,
        or with an open outcome. Not the one that `confirms` names."""
        if not self.applies(sale):
            return None
        return self.take(
            conn,
            sale.till_id,
            fingerprint(sale.till_receipt_no, sale.body_digest),
            sale.id,
            confirms,
            window_us=window_us,
            came_at=sale.at if isinstance(sale, NewInvoice) else sale.created_at,
        )

    def take(
        self,
        conn: sqlite3.Connection,
        till_id: str,
        mark: str,
        owner: str,
        confirms: str | None = None,
        *,
        window_us: int | None = None,
        came_at: int | None = None,
    ) -> InvoiceRow | None:
        """As `claim`, for an owner that is no invoice yet. `came_at`: when this sale was claimed."""
        if till_id in self.reuses_numbers:
            return None
        within_us = self.window_us if window_us is None else window_us
        now = micros(self.clock.now())
        # Either of the two may be of a wrong clock, which may be set at any moment: an earlier sale is old only if it is old
        # by both, and the mark of this one is the younger of both.
        at, stamp = min(now, came_at or now), max(now, came_at or now)
        before = fingerprints.holder(conn, till_id, mark)
        if before is not None and before.id not in (owner, confirms):
            recent = at - before.created_at <= within_us
            if recent and is_quarantined(conn, before):
                return before
        holder = fingerprints.take(
            conn,
            till_id,
            mark,
            owner,
            at=at,
            stamp=stamp,
            window_us=within_us,
            confirms=confirms,
        )
        return None if holder is None else invoices.by_id(conn, holder)

    def may_sign(
        self, conn: sqlite3.Connection, row: InvoiceRow
    ) -> LikelyRepeat | MaybeSigned | None:
        """Return why this sale must not be signed. Part of the write-ahead's transaction, in which no other sale is
        open."""
        earlier = self.claim(conn, row)
        return None if earlier is None else refusal(earlier)


def is_quarantined(conn: sqlite3.Connection, row: InvoiceRow) -> bool:
    """Return whether an unsigned sale may have a receipt all the same: it was given up while signing was held."""
    return row.state is SigningState.RECEIVED and unclear_keys.may_be_signed(conn, row)


def refusal(earlier: InvoiceRow) -> LikelyRepeat | MaybeSigned:
    """Return the answer for a repeat of a sale that is signed, or may be."""
    if earlier.state is SigningState.SIGNED:
        return likely_repeat(earlier)
    found = maybe_signed()
    found.extra |= {
        "invoiceId": earlier.id,
        "confirmWith": {"header": CONFIRM_HEADER, "value": earlier.id},
    }
    return found


def repeat_window_us(keyless_window_s: float) -> int:
    """Return the window of a shop; one that takes no sale without a key has a day."""
    return int(keyless_window_s * 1_000_000) or WINDOW_US


def fingerprint(till_receipt_no: object, body_digest: str) -> str:
    """Return what two sendings of one till receipt have in common."""
    return ids.digest([till_receipt_no, body_digest])


def likely_repeat(row: InvoiceRow) -> LikelyRepeat:
    """Return the answer for a sale that looks like `row`, which is signed."""
    at = f"{from_micros(row.created_at).astimezone(EAT):%H:%M}"
    return LikelyRepeat(
        f"This looks like a repeat of {at}, same receipt number, same total "
        f"{text(from_cents(row.total_cents))}. Print a copy, or confirm a new sale.",
        extra={
            "invoiceId": row.id,
            "soldAt": iso(from_micros(row.created_at)),
            "total": text(from_cents(row.total_cents)),
            "copy": f"/v1/invoices/{row.id}/copies",
            "confirmWith": {"header": CONFIRM_HEADER, "value": row.id},
        },
    )
