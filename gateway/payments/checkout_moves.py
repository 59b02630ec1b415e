"""The moves of a checkout: each is one transaction that looks at all of it first.

Called by `payments/checkout.py`, on the store's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock, micros
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice
from gateway.domain.payment import Act, Tender
from gateway.domain.signing import OPEN_STATES, SigningState
from gateway.errors import CheckoutUnknown, KeyReused, PaymentInvalid, PaymentOpen, PaymentSettled
from gateway.ids import new_id
from gateway.money import cents
from gateway.payments.checkout_view import Part, PartState, parts_of, real
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.tenders import (
    NOT_SIGNED,
    Tenders,
    open_payment,
    tell_checkout,
    unclear_money,
    wrong_with,
)
from gateway.store import checkouts, invoices
from gateway.store.checkouts import OPEN_CHECKOUTS, CheckoutRow, CheckoutState, NewCheckout, NewPart
from gateway.store.payments import PaymentRow
from gateway.store.unclear_keys import SaleName


@dataclass(frozen=True, slots=True)
class PaidSale:
    """A valid sale with M-Pesa tenders. `invoice` has them as MOBILE_MONEY, in the order of `parts`."""

    till_id: str
    idem_key: str
    body_digest: str
    request: bytes
    invoice: Invoice
    printer: str | None
    parts: tuple[NewPart, ...]
    # The earlier sale that this one is said not to repeat.
    confirms: str | None = None

    @property
    def name(self) -> SaleName:
        invoice = self.invoice
        return SaleName(self.till_id, self.idem_key, invoice.till_receipt_no, cents(invoice.total))


class CheckoutMoves:
    """Moves, without the driving of them."""

    def __init__(
        self, *, clock: Clock, ledger: Ledger, tenders: Tenders, sign_within_s: float
    ) -> None:
        self._clock = clock
        self._ledger = ledger
        self._tenders = tenders
        self.sign_within_us = int(sign_within_s * 1_000_000)
        # (sale, checkout's id): raises when the sale was signed under another key.
        self.refuse_repeat: Callable[[sqlite3.Connection, PaidSale, str], None] = (
            lambda conn, sale, checkout_id: None
        )

    def claim(self, conn: sqlite3.Connection, sale: PaidSale) -> CheckoutRow:
        at = micros(self._clock.now())
        if checkouts.by_key(conn, sale.till_id, sale.idem_key) is None:
            self._may_begin(conn, sale)
        won, row = checkouts.claim(
            conn,
            NewCheckout(
                id=new_id(at),
                till_id=sale.till_id,
                idem_key=sale.idem_key,
                body_digest=sale.body_digest,
                request=sale.request,
                document=invoice_json.to_json(sale.invoice),
                sale_ref=sale.invoice.till_receipt_no,
                total_cents=cents(sale.invoice.total),
                printer=sale.printer,
                parts=sale.parts,
                at=at,
            ),
        )
        if won:
            self.refuse_repeat(conn, sale, row.id)
            tell_checkout(conn, row.id, at)
        return row

    def _may_begin(self, conn: sqlite3.Connection, sale: PaidSale) -> None:
        plain = invoices.by_key(conn, sale.till_id, sale.idem_key)
        if plain is not None:
            raise KeyReused(
                "This key was already used for a different sale. Send the sale with a new key.",
                extra={"invoiceId": plain.id},
            )
        self._no_other(conn, sale.till_id, sale.invoice.till_receipt_no)
        used = set()
        for part in sale.parts:
            if part.payment_id is None:
                continue
            row = real(conn, part.payment_id)
            wrong = "There is no such M-Pesa payment." if row is None else None
            if row is not None:
                wrong = "This M-Pesa payment is in the sale twice." if row.id in used else None
                used.add(row.id)
                if checkouts.open_with(conn, row.id) is not None:
                    raise open_payment(row, "This M-Pesa payment is part of another open sale.")
                held = self._tenders.held(conn, row.id)
                wrong = wrong or (held.detail if held is not None else None)
                wrong = wrong or wrong_with(row, sale.till_id, part.amount_cents, may_come=True)
                unclear = unclear_money(conn, row) if wrong is None else None
                if unclear is not None:
                    raise unclear
            if wrong is not None:
                raise PaymentInvalid(
                    f"{wrong} Nothing was signed.",
                    extra={**NOT_SIGNED, "paymentId": part.payment_id},
                )
        left = self._tenders.left_over(conn, sale.till_id, sale.invoice.till_receipt_no, used)
        if left is not None:
            raise left

    def _no_other(self, conn: sqlite3.Connection, till_id: str, sale_ref: str) -> None:
        """An open checkout of this sale under another key; one that nobody was asked for gives way."""
        for other in checkouts.open_of_sale(conn, till_id, sale_ref):
            if any(part.payment is not None for part in parts_of(conn, other)):
                raise PaymentOpen(
                    "This receipt number waits for M-Pesa under another key. Wait for its end, or close "
                    "it. Nothing was signed.",
                    extra={**NOT_SIGNED, "checkoutId": other.id},
                )
            at = micros(self._clock.now())
            checkouts.move(conn, other, CheckoutState.CLOSED, at=at, reason="REPLACED")
            tell_checkout(conn, other.id, at)

    def close(
        self,
        conn: sqlite3.Connection,
        checkout_id: str,
        act: Act,
        who: str,
        reason: str,
        person: bool,
    ) -> list[Heard]:
        row = found_or_unknown(checkouts.by_id(conn, checkout_id))
        if row.state is CheckoutState.CLOSED:
            return []
        found = parts_of(conn, row)
        paid = all(part.state is PartState.PAID for part in found)
        invoice = invoices.by_key(conn, row.till_id, row.idem_key)
        begun = invoice is not None and invoice.state in (*OPEN_STATES, SigningState.SIGNED)
        if row.state is CheckoutState.SIGNED or begun or (paid and not person):
            raise PaymentSettled(
                "The money is there and the sale is being signed, or is signed. It cannot be closed.",
                extra={"checkoutId": row.id},
            )
        at = micros(self._clock.now())
        why = "ABANDONED" if act is Act.GIVEN_UP else "PAID_OTHERWISE"
        checkouts.move(conn, row, CheckoutState.CLOSED, at=at, reason=why)
        heard = []
        for part in found:
            stays = act is Act.SALE_WITHOUT_IT and part.state is PartState.PAID and not person
            if part.payment is not None and not stays and _is_loose(part.payment):
                heard.append(self._ledger.act_in(conn, part.payment, act, who, reason))
        tell_checkout(conn, row.id, at)
        return heard

    def conclude(self, conn: sqlite3.Connection, checkout_id: str) -> CheckoutRow:
        """READY or CLOSED, in the transaction that looks."""
        row, found = with_parts(conn, checkout_id)
        if row.state is not CheckoutState.COLLECTING:
            return row
        at = micros(self._clock.now())
        states = [part.state for part in found]
        if PartState.FAILED in states:
            checkouts.move(conn, row, CheckoutState.CLOSED, at=at, reason="PAYMENT_FAILED")
        elif all(state is PartState.PAID for state in states):
            until = at + self.sign_within_us
            checkouts.move(conn, row, CheckoutState.READY, at=at, sign_until=until)
        else:
            return row
        tell_checkout(conn, checkout_id, at)
        return found_or_unknown(checkouts.by_id(conn, checkout_id))

    def signed(self, conn: sqlite3.Connection, checkout_id: str) -> bool:
        """The sale has its end; so has the checkout, if its own commit did not say so already."""
        row = found_or_unknown(checkouts.by_id(conn, checkout_id))
        invoice = invoices.by_key(conn, row.till_id, row.idem_key)
        if row.state is not CheckoutState.READY or invoice is None:
            return row.state not in OPEN_CHECKOUTS
        if invoice.state is SigningState.SIGNED:
            self._tenders.settle(conn, invoice, invoice_json.from_json(invoice.document))
            return True
        if invoice.state is not SigningState.REJECTED:
            return False
        at = micros(self._clock.now())
        checkouts.move(
            conn, row, CheckoutState.CLOSED, at=at, reason="UNIT_REFUSED", invoice_id=invoice.id
        )
        tell_checkout(conn, row.id, at)
        return True

    def lost(self, conn: sqlite3.Connection, checkout_id: str) -> bool:
        """READY, but a part is not free any more: closed, unless the unit may have the sale."""
        row, found = with_parts(conn, checkout_id)
        invoice = invoices.by_key(conn, row.till_id, row.idem_key)
        if row.state is not CheckoutState.READY:
            return True
        if invoice is not None and invoice.state is not SigningState.RECEIVED:
            return False
        if all(part.state is PartState.PAID for part in found):
            return False
        at = micros(self._clock.now())
        checkouts.move(conn, row, CheckoutState.CLOSED, at=at, reason="PAYMENT_FAILED")
        tell_checkout(conn, row.id, at)
        return True


def _is_loose(row: PaymentRow) -> bool:
    return row.tender in (Tender.OPEN, Tender.REVIEW)


def found_or_unknown(row: CheckoutRow | None) -> CheckoutRow:
    if row is None:
        raise CheckoutUnknown("There is no checkout with this id.")
    return row


def with_parts(conn: sqlite3.Connection, checkout_id: str) -> tuple[CheckoutRow, list[Part]]:
    row = found_or_unknown(checkouts.by_id(conn, checkout_id))
    return row, parts_of(conn, row)
