"""Which payment stands behind which MOBILE_MONEY of a sale, and that each pays one sale only.

The question is asked twice, each time inside the signer's own transactions, of which there is one at a
time: at the write-ahead (a sale whose money is not there, or is another's, is not signed) and at the
commit, where the payments get their sale. See docs/internals/payments.md.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from gateway.clock import Clock, micros
from gateway.domain import invoice_json
from gateway.domain.invoice import Invoice, ReceiptType, SalesType
from gateway.domain.payment import OPEN_PUSH, UNSETTLED, Act, Money, Tender
from gateway.errors import (
    FieldError,
    GatewayError,
    PaymentInvalid,
    PaymentOpen,
    PaymentReversed,
    PaymentSettled,
)
from gateway.money import cents, from_cents, text
from gateway.payments import twins
from gateway.payments.checkout_view import checkout_json, real
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.view import payment_json
from gateway.payments.wording import sentence
from gateway.store import checkouts, events, invoices, payments, payments_shown
from gateway.store.checkouts import OPEN_CHECKOUTS, CheckoutState, UnpaidTender
from gateway.store.invoices import InvoiceRow
from gateway.store.payments import PaymentRow

log = logging.getLogger(__name__)

# KRA's code class 07.
MOBILE_MONEY = "06"
# The same cashier's words for every way a sale is refused here.
NOT_SIGNED = {"signed": "no"}
_MAY_STILL_RING = OPEN_PUSH | {Money.UNKNOWN}


class SignedLike(Protocol):
    """A sale at the moment of its commit."""

    @property
    def row(self) -> InvoiceRow: ...
    @property
    def invoice(self) -> Invoice: ...


@dataclass(frozen=True, slots=True)
class Link:
    """One MOBILE_MONEY of an invoice, and the payment behind it, if one is known."""

    position: int
    amount_cents: int
    reference: str | None
    named: bool
    payment: PaymentRow | None


def is_sale(invoice: Invoice) -> bool:
    """Training, proformas and credit notes take no money."""
    return (invoice.sales_type, invoice.receipt_type) == (SalesType.NORMAL, ReceiptType.SALE)


def links(conn: sqlite3.Connection, till_id: str, invoice: Invoice) -> list[Link]:
    """By the payment's id, by the M-Pesa receipt, or (a till that gives neither) the one payment of this
    sale that is there with this amount."""
    found: list[Link] = []
    used: set[str] = set()
    for position, tender in enumerate(invoice.payments):
        amount = cents(tender.amount)
        if tender.code != MOBILE_MONEY or not amount:
            continue
        row = None
        if tender.payment_id is not None:
            row = real(conn, tender.payment_id)
        else:
            if tender.reference is not None:
                row = payments.by_receipt(conn, tender.reference.strip().upper())
            if row is None:
                row = _of_this_sale(
                    conn, till_id, invoice.till_receipt_no, amount, tender.reference
                )
                row = None if row is not None and row.id in used else row
        if row is not None:
            used.add(row.id)
        named = tender.payment_id is not None
        found.append(Link(position, amount, tender.reference, named, row))
    return found


def _of_this_sale(
    conn: sqlite3.Connection, till_id: str, sale_ref: str, amount: int, reference: str | None
) -> PaymentRow | None:
    """Only where there is no choice; with another receipt's number it is not this one."""
    fits = [
        row
        for row in payments.of_sale(conn, till_id, sale_ref)
        if row.money is Money.PAID
        and row.tender is Tender.OPEN
        and amount in (row.amount_cents, row.state.came_cents)
        and (reference is None or row.receipt is None)
    ]
    return fits[0] if len(fits) == 1 else None


def fits(row: PaymentRow, amount_cents: int) -> bool:
    """A receipt never says that more came by M-Pesa than did. It may say what was asked for where more
    came: the rest is the customer's."""
    came = row.state.came_cents
    return amount_cents == came or amount_cents == row.amount_cents < came


def wrong_with(
    row: PaymentRow, till_id: str, amount_cents: int, *, may_come: bool = False
) -> str | None:
    """Why this payment cannot pay so much of a sale of this till, in a sentence; None: it can.
    `may_come`: one that is still waited for will do."""
    if row.tender is Tender.COMPLETED_BY_MPESA and row.till_id not in (None, till_id):
        return (
            f"This M-Pesa payment ({row.receipt or row.id}) has paid for sale {row.sale_ref} at "
            f"{row.till_id} already."
        )
    if row.till_id not in (None, till_id):
        return "This M-Pesa payment belongs to another till."
    if row.tender is Tender.COMPLETED_BY_MPESA:
        return f"This M-Pesa payment ({row.receipt or row.id}) has paid for sale {row.sale_ref} already."
    waits = may_come and (row.tender is Tender.REVIEW or row.money in UNSETTLED)
    if row.money is not Money.PAID and not waits:
        return f"This M-Pesa payment is not paid. {sentence(row.state).en}"
    if row.tender is not Tender.OPEN and not (waits and row.tender is Tender.REVIEW):
        return f"This M-Pesa payment cannot be used. {sentence(row.state).en}"
    if not fits(row, amount_cents):
        came, asked = (text(from_cents(c)) for c in (row.state.came_cents, amount_cents))
        return f"The M-Pesa payment is {came}, the sale says {asked}."
    return None


class Tenders:
    """`may_sign` and `on_signed` are called by the signer's transactions, on the store's thread;
    `flush` on the loop after a commit."""

    def __init__(self, *, clock: Clock, ledger: Ledger, prompt_life_s: float, on: bool) -> None:
        self._clock = clock
        self._ledger = ledger
        self._prompt_life_us = int(prompt_life_s * 1_000_000)
        self._on = on
        self._heard: deque[Heard] = deque()

    def flush(self) -> None:
        """Tell the ledger's hooks what the commits have changed."""
        while self._heard:
            self._ledger.told(self._heard.popleft())

    # --- before the wire --------------------------------------------------------------------------

    def may_sign(
        self, conn: sqlite3.Connection, row: InvoiceRow, invoice: Invoice
    ) -> GatewayError | None:
        """The last look at the money, in the transaction of the write-ahead; a refusal means that
        nothing was sent. PaymentInvalid, PaymentSettled or PaymentOpen."""
        if not is_sale(invoice):
            return None
        own = checkouts.by_key(conn, row.till_id, row.idem_key)
        if own is not None and own.state is not CheckoutState.READY:
            return PaymentSettled(
                "This sale was closed. Nothing was signed.",
                extra={**NOT_SIGNED, "checkoutId": own.id},
            )
        found = links(conn, row.till_id, invoice)
        wrong = self._wrong_links(conn, row, found)
        if wrong is not None or own is not None:
            # A checkout was looked at when it began; money that came besides is given back, not waited for.
            return wrong
        used = {link.payment.id for link in found if link.payment is not None}
        return self.left_over(conn, row.till_id, row.till_receipt_no, used)

    def _wrong_links(
        self, conn: sqlite3.Connection, row: InvoiceRow, found: list[Link]
    ) -> GatewayError | None:
        seen: set[str] = set()
        for link in found:
            wrong = None
            if link.payment is None:
                wrong = "There is no such M-Pesa payment." if link.named else None
            elif link.payment.id in seen:
                wrong = "This M-Pesa payment is in the sale twice."
            else:
                seen.add(link.payment.id)
                wrong = wrong_with(link.payment, row.till_id, link.amount_cents)
            if wrong is not None:
                where = FieldError(f"/payments/{link.position}", "PAYMENT_NOT_USABLE", wrong)
                return PaymentInvalid(
                    f"{wrong} Nothing was signed.", errors=[where], extra=NOT_SIGNED
                )
            unclear = None if link.payment is None else unclear_money(conn, link.payment)
            if unclear is not None:
                return unclear
            if link.payment is not None:
                other = checkouts.open_with(conn, link.payment.id)
                if other is not None and other.idem_key != row.idem_key:
                    return open_payment(
                        link.payment, "This M-Pesa payment is part of another open sale."
                    )
        return None

    def left_over(
        self, conn: sqlite3.Connection, till_id: str, sale_ref: str, used: set[str]
    ) -> PaymentOpen | None:
        """Money of this very sale that it does not use: on a phone right now, or come already."""
        now = micros(self._clock.now())
        for other in payments.of_sale(conn, till_id, sale_ref):
            if other.id in used or other.tender not in (Tender.OPEN, Tender.REVIEW):
                continue
            if other.money is Money.PAID:
                return open_payment(
                    other,
                    "The customer has paid by M-Pesa for this sale. Use that payment, or close it.",
                )
            age = now - (other.sent_at or other.created_at)
            if other.money in _MAY_STILL_RING and age < self._prompt_life_us:
                return open_payment(
                    other, "The customer may still pay this sale by M-Pesa. Wait for the end of it."
                )
        return None

    # --- in the receipt's transaction ---------------------------------------------------------------

    def on_signed(self, conn: sqlite3.Connection, sale: SignedLike) -> None:
        """The commit hook. It never undoes a receipt: a rule that is broken in here is an alarm. A store that
        cannot be written (disk full) is neither: the whole commit waits for it, as without payments."""
        if not is_sale(sale.invoice):
            return
        try:
            with checkouts.attempt(conn):
                self.settle(conn, sale.row, sale.invoice)
        except (GatewayError, payments.Conflict, sqlite3.IntegrityError, AssertionError) as error:
            log.critical("tender.not_settled invoice=%s error=%s", sale.row.id, error)
            events.record(
                conn, at=micros(self._clock.now()), kind="payment.alarm", subject=sale.row.id,
                till_id=sale.row.till_id,
                data={"alarm": "NOT_SETTLED", "invoiceId": sale.row.id, "reason": str(error)},
            )  # fmt: skip

    def settle(self, conn: sqlite3.Connection, row: InvoiceRow, invoice: Invoice) -> None:
        """Payments and checkout of a signed sale; doing it again changes nothing."""
        at = micros(self._clock.now())
        # A payment that the sale names and that turned out to be another amount stays a manager's question.
        named = set()
        for link in links(conn, row.till_id, invoice):
            payment = link.payment
            if payment is not None:
                named.add(payment.id)
            if payment is not None and payment.invoice_id == row.id:
                continue
            if payment is not None and wrong_with(payment, row.till_id, link.amount_cents) is None:
                self._pays(conn, payment, row)
            elif self._on:
                checkouts.note_unpaid(
                    conn, invoice_id=row.id, position=link.position, till_id=row.till_id,
                    sale_ref=row.till_receipt_no, amount_cents=link.amount_cents,
                    reference=link.reference.strip().upper() if link.reference else None, at=at,
                )  # fmt: skip
        for other in payments.of_sale(conn, row.till_id, row.till_receipt_no):
            if other.id not in named and other.tender in (Tender.OPEN, Tender.REVIEW):
                self._heard.append(
                    self._ledger.act_in(conn, other, Act.SALE_WITHOUT_IT, row.till_id, row.id)
                )
        self._checkouts_of(conn, row, at)

    def _pays(self, conn: sqlite3.Connection, payment: PaymentRow, row: InvoiceRow) -> None:
        fields: dict[str, str] = {"invoice_id": row.id}
        if payment.till_id is None:
            fields |= {"till_id": row.till_id, "sale_ref": row.till_receipt_no}
        self._heard.append(
            self._ledger.act_in(conn, payment, Act.SALE_WITH_IT, row.till_id, row.id, **fields)
        )

    def _checkouts_of(self, conn: sqlite3.Connection, row: InvoiceRow, at: int) -> None:
        own = checkouts.by_key(conn, row.till_id, row.idem_key)
        if own is not None and own.state in OPEN_CHECKOUTS:
            checkouts.move(conn, own, CheckoutState.SIGNED, at=at, invoice_id=row.id)
            tell_checkout(conn, own.id, at)
        for other in checkouts.open_of_sale(conn, row.till_id, row.till_receipt_no):
            if other.state is CheckoutState.COLLECTING and other.idem_key != row.idem_key:
                checkouts.move(conn, other, CheckoutState.CLOSED, at=at, reason="PAID_OTHERWISE")
                tell_checkout(conn, other.id, at)

    # --- money for a receipt that had none ----------------------------------------------------------

    def may_have_receipt(self, conn: sqlite3.Connection, payment_id: str) -> bool:
        """Whether `find_its_receipt` would find one; for a read."""
        return self._its_receipt(conn, payment_id) is not None

    def find_its_receipt(self, conn: sqlite3.Connection, payment_id: str) -> None:
        """Money that came for a sale signed before it was known: its receipt has waited for it."""
        found = self._its_receipt(conn, payment_id)
        if found is None:
            return
        row, tender, sale = found
        at = micros(self._clock.now())
        checkouts.close_unpaid(
            conn, tender, who="gateway", reason="the money is there", at=at, payment_id=row.id
        )
        self._pays(conn, row, sale)

    def _its_receipt(
        self, conn: sqlite3.Connection, payment_id: str
    ) -> tuple[PaymentRow, UnpaidTender, InvoiceRow] | None:
        row = real(conn, payment_id)
        if row is None or row.money is not Money.PAID or row.tender is not Tender.OPEN:
            return None
        if checkouts.open_with(conn, row.id) is not None or unclear_money(conn, row) is not None:
            return None
        amounts = sorted({row.amount_cents, row.state.came_cents})
        tender = checkouts.unpaid_for(
            conn, receipt=row.receipt, till_id=row.till_id, sale_ref=row.sale_ref, amounts=amounts
        )
        sale = None if tender is None else invoices.by_id(conn, tender.invoice_id)
        if tender is None or sale is None or row.till_id not in (None, sale.till_id):
            return None
        return row, tender, sale

    # --- what nobody may move meanwhile -------------------------------------------------------------

    def held(self, conn: sqlite3.Connection, payment_id: str) -> GatewayError | None:
        """Why a person or a till may not settle this payment now: a sale with it is at the unit, or is
        about to be."""
        ready = checkouts.open_with(conn, payment_id)
        busy = ready is not None and ready.state is CheckoutState.READY
        if not busy and not self.at_unit(conn, payment_id):
            return None
        return PaymentSettled("The sale with this payment is being signed. Wait for its end.")

    def at_unit(self, conn: sqlite3.Connection, payment_id: str) -> bool:
        """Return whether the open sale, which may be signed at any moment, names this payment."""
        open_sale = invoices.open_row(conn)
        if open_sale is None:
            return False
        invoice = invoice_json.from_json(open_sale.document)
        return any(
            link.payment is not None and link.payment.id == payment_id
            for link in links(conn, open_sale.till_id, invoice)
        )


def unclear_money(conn: sqlite3.Connection, row: PaymentRow) -> GatewayError | None:
    """Return why money that has come cannot be used yet: it may be another payment's, or taken back."""
    other = twins.in_the_way(conn, row)
    if other is not None:
        return twins.refusal(row, other)
    if payments_shown.reversal_of(conn, row.id) is None:
        return None
    return PaymentReversed(
        f"M-Pesa reports that this payment ({row.receipt}) was taken back. A manager must look. Nothing "
        "was signed.",
        extra={**NOT_SIGNED, "paymentId": row.id, "payment": payment_json(row)},
    )


def open_payment(row: PaymentRow, why: str) -> PaymentOpen:
    return PaymentOpen(
        f"{why} Nothing was signed.", extra={**NOT_SIGNED, "payment": payment_json(row)}
    )


def tell_checkout(conn: sqlite3.Connection, checkout_id: str, at: int) -> None:
    """`checkout.changed`, on the till's stream."""
    row = checkouts.by_id(conn, checkout_id)
    assert row is not None
    events.record(
        conn, at=at, kind="checkout.changed", subject=row.id, till_id=row.till_id,
        data=checkout_json(conn, row, at),
    )  # fmt: skip
