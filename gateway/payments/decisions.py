"""What a person decides about payments that M-Pesa left unclear: one money or two, and a customer's reversal."""

from __future__ import annotations

import logging
import sqlite3

from gateway.clock import Clock, micros
from gateway.domain.payment import Alarm, Change, Evidence, Money, Source, Tender, Verdict
from gateway.errors import PaymentSettled, PaymentUnknown
from gateway.payments import twins
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.view import payment_json
from gateway.store import events, payments, payments_shown, refunds
from gateway.store.database import Database
from gateway.store.payments import PaymentRow

log = logging.getLogger(__name__)

SAME_MONEY = "SAME_MONEY"
TWO_PAYMENTS = "TWO_PAYMENTS"
REVERSAL_REPORTED = "REVERSAL_REPORTED"
NOT_REVERSED = "NOT_REVERSED"


class Decisions:
    """The decisions on the payments' page and in the API; each takes a technician's code and a reason."""

    def __init__(self, db: Database, clock: Clock, ledger: Ledger) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger

    async def same_money(
        self, payment_id: str, other_id: str, who: str, reason: str, *, same: bool
    ) -> PaymentRow:
        """Merge two payments that are one money, or record that they are two. PaymentUnknown;
        PaymentSettled when they are not in question (any more)."""

        def write(conn: sqlite3.Connection) -> list[Heard]:
            push, c2b = _pair(conn, payment_id, other_id)
            note = f"{who}: {reason}"
            if same:
                return [self._merge_in(conn, push, c2b, note)]
            return self._apart_in(conn, push, c2b, who, note, reason)

        for heard in await self._db.write(write):
            self._ledger.told(heard)
        found = await self._db.read(lambda conn: payments.by_id(conn, payment_id))
        assert found is not None
        return found

    def _merge_in(
        self, conn: sqlite3.Connection, push: PaymentRow, c2b: PaymentRow, note: str
    ) -> Heard:
        word = Evidence(
            Source.PERSON, Verdict.PAID, code=SAME_MONEY, receipt=c2b.receipt,
            amount_cents=c2b.state.came_cents, payer=c2b.payer, note=note,
        )  # fmt: skip
        heard = self._ledger.hear_in(conn, push, word)
        if heard.row.receipt != c2b.receipt:
            raise PaymentSettled(
                f"Both were used: sale {push.sale_ref} and sale {c2b.sale_ref} have a receipt each. Credit one "
                "of the sales instead.",
                extra={"payment": payment_json(push), "otherPayment": payment_json(c2b)},
            )
        return heard

    def _apart_in(
        self,
        conn: sqlite3.Connection,
        push: PaymentRow,
        c2b: PaymentRow,
        who: str,
        note: str,
        reason: str,
    ) -> list[Heard]:
        at = micros(self._clock.now())
        payments_shown.set_apart(conn, push.id, c2b.id, who, reason, at=at)
        found = []
        for row, other in ((push, c2b), (c2b, push)):
            payments.say(
                conn, row, at=at, source=Source.PERSON, word=TWO_PAYMENTS, changed=True,
                note=f"{note} (not {other.id})",
            )  # fmt: skip
            self._ledger.tell_in(conn, row, Change(row.state, changed=True), at)
            found.append(Heard(row, changed=True, alarm=None))
        return found

    async def reversal(
        self, payment_id: str, who: str, reason: str, *, went_back: bool
    ) -> PaymentRow:
        """A person has looked at M-Pesa's statement: the customer's payment was taken back, or was not."""

        def write(conn: sqlite3.Connection) -> Heard:
            row = _row(conn, payment_id)
            reported = payments_shown.reversal_of(conn, row.id)
            if reported is None:
                raise PaymentSettled(
                    "M-Pesa reports no reversal of this payment that is undecided.",
                    extra={"payment": payment_json(row)},
                )
            at = micros(self._clock.now())
            payments_shown.settle_reversal(
                conn, reported.id, went_back=went_back, who=who, reason=reason, at=at
            )
            note = f"{who}: {reason}"
            if went_back and row.money is Money.PAID and row.tender is not Tender.MERGED:
                word = Evidence(Source.PERSON, Verdict.REFUNDED, note=note)
                return self._ledger.hear_in(conn, row, word)
            payments.say(
                conn, row, at=at, source=Source.PERSON, word=NOT_REVERSED, changed=True, note=note
            )
            self._ledger.tell_in(conn, row, Change(row.state, changed=True), at)
            return Heard(row, changed=True, alarm=None)

        return (await self._ledger.write(write)).row


def report_reversal(
    conn: sqlite3.Connection,
    ledger: Ledger,
    receipts: tuple[str, ...],
    source: Source,
    raw: bytes | None,
    at: int,
) -> PaymentRow | None:
    """Record that M-Pesa reports a payment as taken back, once, with an alarm. Part of the caller's transaction.

    `receipts`: what the report names; the first that is a payment of ours counts. A reversal that the gateway
    has ordered itself is no news. Return the payment, None when it is not known here."""
    row = None
    for receipt in receipts:
        row = row or payments.by_receipt(conn, receipt)
    if row is None:
        if receipts and payments_shown.note_reversal(conn, receipts[0], None, source, at=at):
            data = {"alarm": Alarm.REVERSED, "receipt": receipts[0]}
            events.record(conn, at=at, kind="payment.alarm", data=data)
            log.warning("payment.alarm alarm=%s receipt=%s", Alarm.REVERSED, receipts[0])
        return None
    gone = row.money is Money.REFUNDED or refunds.is_ours(conn, row.id)
    assert row.receipt is not None
    if gone or not payments_shown.note_reversal(conn, row.receipt, row.id, source, at=at):
        return row
    change = Change(row.state, changed=True, alarm=Alarm.REVERSED)
    payments.say(
        conn,
        row,
        at=at,
        source=source,
        word=REVERSAL_REPORTED,
        changed=False,
        alarm=Alarm.REVERSED,
        raw=raw,
    )
    ledger.tell_in(conn, row, change, at)
    return row


def _row(conn: sqlite3.Connection, payment_id: str) -> PaymentRow:
    row = payments.by_id(conn, payment_id)
    if row is None:
        raise PaymentUnknown("There is no such payment.")
    return row


def _pair(
    conn: sqlite3.Connection, payment_id: str, other_id: str
) -> tuple[PaymentRow, PaymentRow]:
    """Return (push, announced payment)."""
    row, other = _row(conn, payment_id), _row(conn, other_id)
    if other.id not in {each.id for each in twins.of(conn, row)}:
        raise PaymentSettled(
            "These two payments are not in question. Look at them again.",
            extra={"payment": payment_json(row), "otherPayment": payment_json(other)},
        )
    return (row, other) if row.kind == "STK" else (other, row)
