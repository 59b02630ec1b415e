"""Where tills and people ask: a push, a look, a decision. Durable before anything is answered.

One open push per phone and per sale (daraja.md 8, rule 2): the INSERT decides, the questions before it
are for the sentence that the cashier gets.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway import ids
from gateway.clock import Clock, from_micros, iso, micros
from gateway.domain.payment import Act, Evidence, Money, Reason, Source, Tender, Verdict
from gateway.errors import (
    FieldError,
    GatewayError,
    KeyReused,
    PaymentInvalid,
    PaymentOpen,
    PaymentReversed,
    PaymentSettled,
    PaymentsOff,
    PaymentTooSoon,
    PaymentUnknown,
)
from gateway.mpesa_settings import MpesaSettings
from gateway.payments import twins
from gateway.payments.checks import Checks
from gateway.payments.decisions import Decisions
from gateway.payments.ledger import Heard, Ledger
from gateway.payments.matching import tight
from gateway.payments.push import TOKEN_BYTES, Pusher
from gateway.payments.questions import Questions
from gateway.payments.refunds import Refunds, refund_json
from gateway.payments.view import payment_json
from gateway.store import events, payments, payments_shown
from gateway.store import refunds as refund_rows
from gateway.store.database import Database
from gateway.store.payments import NewPush, PaymentRow

# M-Pesa refuses the same amount from the same phone within about two minutes (ResultCode 17).
SAME_AMOUNT_S = 120.0
# AccountReference holds 12 characters (daraja.md 2).
REFERENCE_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Ask:
    """A till's request for money. `amount_cents` whole shillings, `phone` as `domain.phone` makes it;
    `body_digest` tells a repeat from another request under the same key."""

    till_id: str
    key: str
    body_digest: str
    sale_ref: str
    amount_cents: int
    phone: str
    checkout_id: str | None = None


class PaymentDesk:
    """`pusher` is None while M-Pesa is not set up; what was paid before can still be looked at."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        ledger: Ledger,
        settings: MpesaSettings,
        gate: Callable[[], None],
        pusher: Pusher | None,
        checks: Checks | None,
        refunds: Refunds,
        questions: Questions,
        look_through: Callable[[], None] = lambda: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ledger = ledger
        self._settings = settings
        # What a till is answered while M-Pesa is off.
        self.off = "M-Pesa is not set up in this shop"
        self._gate = gate
        self._pusher = pusher
        self._checks = checks
        self._refunds = refunds
        self._questions = questions
        decisions = Decisions(db, clock, ledger)
        # What a person decides; see `Decisions`.
        self.same_money = decisions.same_money
        self.reversal = decisions.reversal
        # Reads M-Pesa's own list soon, where there is one.
        self._look_through = look_through

    async def ask(self, ask: Ask) -> PaymentRow:
        """The intent, durably; the push leaves right after. The same key again: the same row, whatever
        has become of it. KeyReused, PaymentsOff, PaymentInvalid, PaymentOpen, PaymentTooSoon (with
        Retry-After), and what the gate says (Suspended, ClockFault)."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        refusal = self._refusal(ask)
        try:
            row, fresh = await self._db.write(lambda conn: self._claim(conn, ask, token, refusal))
        except sqlite3.IntegrityError:
            row, fresh = await self._db.read(lambda conn: self._lost_to(conn, ask)), False
        if fresh:
            assert self._pusher is not None
            self._pusher.take(row.id, token)
            self._ledger.told_of(row)
        return row

    # --- what is known of one, and what a person does with it -----------------------------------------

    async def row(self, payment_id: str) -> PaymentRow:
        """PaymentUnknown when there is none."""
        found = await self._db.read(lambda conn: payments.by_id(conn, payment_id))
        if found is None:
            raise PaymentUnknown("There is no such payment.")
        return found

    async def check(self, payment_id: str) -> PaymentRow:
        """Ask M-Pesa before all others, within its limit, and say what is known then: the answer itself, or
        what was known before when the limit does not let the question leave just now. Of a refund in
        doubt it is asked, too."""
        row = await self.row(payment_id)
        for refund in await self._db.read(lambda conn: refund_rows.of_payment(conn, payment_id)):
            if refund.state is refund_rows.RefundState.UNKNOWN:
                # Settled meanwhile: nothing is left to be asked.
                with contextlib.suppress(PaymentSettled):
                    await self._questions.about_refund(refund.id, "a check")
        if row.money is Money.PAID and row.receipt is not None:
            # A customer may have had it taken back since.
            await self._questions.about_payment(row.id, "a check")
        if self._checks is not None and row.kind == "STK":
            await self._checks.check(payment_id)
            if row.money in (Money.SEND_UNKNOWN, Money.UNKNOWN, Money.NOT_PAID):
                self._look_through()
        return await self.row(payment_id)

    async def look_at_open(self, till_id: str) -> None:
        """A till has come back: look at what it left open, without waiting for the answers."""
        if self._checks is not None:
            rows = await self._db.read(lambda conn: payments.open_of_till(conn, till_id))
            self._checks.nudge(row.id for row in rows)

    async def code(
        self, payment_id: str, receipt: str, who: str, *, vouched: bool = False
    ) -> PaymentRow:
        """See `Questions.code`."""
        return await self._questions.code(payment_id, receipt, who, vouched=vouched)

    async def act(self, payment_id: str, act: Act, who: str, reason: str = "") -> PaymentRow:
        """What a till or a person does with a payment. PaymentUnknown, PaymentSettled."""
        await self.row(payment_id)
        return (await self._ledger.act(payment_id, act, who, reason)).row

    async def not_paid(self, payment_id: str, who: str, reason: str) -> PaymentRow:
        """A person has looked at M-Pesa's books and it was not paid: closes UNKNOWN, and a push whose end
        nobody has told. PaymentSettled for anything else. Money that comes after all still wins."""

        def write(conn: sqlite3.Connection) -> Heard:
            row = payments.by_id(conn, payment_id)
            if row is None:
                raise PaymentUnknown("There is no such payment.")
            if row.money not in (Money.UNKNOWN, Money.SEND_UNKNOWN, Money.WAITING):
                raise PaymentSettled(
                    "This payment is not open any more. Look at it again.",
                    extra={"payment": payment_json(row)},
                )
            note = f"{who}: {reason}" if reason else who
            word = Evidence(Source.PERSON, Verdict.NOT_PAID, reason=Reason.PERSON, note=note)
            return self._ledger.hear_in(conn, row, word)

        return (await self._ledger.write(write)).row

    async def claim(self, payment_id: str, till_id: str, sale_ref: str, who: str) -> PaymentRow:
        """Money that came by itself becomes this sale's. The same claim again changes nothing;
        PaymentSettled when it is another sale's, or was given back."""

        def write(conn: sqlite3.Connection) -> Heard:
            row = payments.by_id(conn, payment_id)
            if row is None:
                raise PaymentUnknown("There is no such payment.")
            if row.kind == "C2B" and (row.till_id, row.sale_ref) == (till_id, sale_ref):
                return Heard(row, changed=False, alarm=None)
            free = row.kind == "C2B" and row.sale_ref is None
            if not free or row.money is not Money.PAID or row.tender is not Tender.OPEN:
                raise PaymentSettled(
                    "This money belongs to another sale already.",
                    extra={"payment": payment_json(row)},
                )
            twins.refuse_if_unclear(conn, row)
            if payments_shown.reversal_of(conn, row.id) is not None:
                raise PaymentReversed(
                    f"M-Pesa reports that this payment ({row.receipt}) was taken back. A manager must look.",
                    extra={"signed": "no", "payment": payment_json(row)},
                )
            return self._ledger.claim_in(conn, row, till_id, sale_ref, who)

        return (await self._ledger.write(write)).row

    async def refund(self, payment_id: str, who: str, reason: str, by_hand: bool) -> PaymentRow:
        """Money back, by reversal or by hand; see `Refunds.order`."""
        await self._refunds.order(payment_id, who, reason, by_hand=by_hand)
        return await self.row(payment_id)

    async def settle_refund(
        self, refund_id: str, done: bool, who: str, reason: str
    ) -> dict[str, Any]:
        """A person says what became of a refund in doubt."""
        return refund_json(await self._refunds.settle(refund_id, done, who, reason))

    def lists(self, conn: sqlite3.Connection) -> dict[str, list[dict[str, Any]]]:
        """What does not agree, each with what a person can do about it: money that came and has no receipt of
        ours, receipts whose money is in doubt, money to be given back, pushes whose end nobody knows."""
        at = micros(self._clock.now())
        groups: dict[str, list[dict[str, Any]]] = {
            "moneyWithoutReceipt": [], "review": [], "refundDue": [], "receiptWithoutMoney": [],
            "unknown": [], "refunds": [], "mayBeSame": [], "reversals": [],
        }  # fmt: skip
        names = {
            Tender.OPEN: "moneyWithoutReceipt",
            Tender.REVIEW: "review",
            Tender.REFUND_DUE: "refundDue",
        }
        for row in payments.unowned(conn):
            groups[names[row.tender]].append(payment_json(row, at))
        groups["receiptWithoutMoney"] = [
            payment_json(row, at) for row in payments.doubtful_receipts(conn)
        ]
        groups["unknown"] = [payment_json(row, at) for row in payments.unknown(conn)]
        for one, others in same_money_groups(conn):
            groups["mayBeSame"].append(
                {**payment_json(one, at), "others": [payment_json(other, at) for other in others]}
            )
        for reversal in payments_shown.reversals(conn):
            known = payments.by_id(conn, reversal.payment_id) if reversal.payment_id else None
            view = {"paymentId": None, "till": None} if known is None else payment_json(known, at)
            reported = {"receipt": reversal.receipt, "reportedAt": iso(from_micros(reversal.at))}
            groups["reversals"].append({**view, **reported, "reportedBy": reversal.source})
        for refund in refund_rows.unsettled(conn):
            groups["refunds"].append({"paymentId": refund.payment_id, **refund_json(refund)})
        return groups

    def note_qr(
        self, conn: sqlite3.Connection, references: set[str], till_id: str, ref: str, cents: int
    ) -> None:
        """Record a QR code, so that a payment that names it is this sale's."""
        at = micros(self._clock.now())
        found = {tight(reference) for reference in references}
        payments_shown.note_qr(conn, found, till_id, ref, cents, at=at)

    # --- one claim ----------------------------------------------------------------------------------

    def _refusal(self, ask: Ask) -> GatewayError | None:
        """Why no new push can be asked for, whatever the store holds."""
        if self._pusher is None:
            return PaymentsOff(f"{self.off}. Take another payment.")
        try:
            check_amount(ask.amount_cents, self._settings.amount_max)
            if not self._settings.push_while_suspended:
                self._gate()
        except GatewayError as error:
            return error
        return None

    def _claim(
        self, conn: sqlite3.Connection, ask: Ask, token: str, refusal: GatewayError | None
    ) -> tuple[PaymentRow, bool]:
        known = payments.by_key(conn, ask.till_id, ask.key)
        if known is not None:
            return _same(known, ask), False
        if refusal is not None:
            raise refusal
        at = micros(self._clock.now())
        self._nothing_open(conn, ask, at)
        self._not_too_soon(conn, ask, at)
        new_id = ids.new_id(at)
        payments.insert_push(
            conn,
            NewPush(
                id=new_id,
                till_id=ask.till_id,
                idem_key=ask.key,
                body_digest=ask.body_digest,
                checkout_id=ask.checkout_id,
                sale_ref=ask.sale_ref,
                amount_cents=ask.amount_cents,
                phone=ask.phone,
                account_ref=new_id[-REFERENCE_LENGTH:],
                token_hash=ids.token_hash(token),
                at=at,
            ),
        )
        row = payments.by_id(conn, new_id)
        assert row is not None
        events.record(
            conn, at=at, kind="payment.changed", subject=new_id, till_id=row.till_id,
            data=payment_json(row),
        )  # fmt: skip
        return row, True

    def _nothing_open(self, conn: sqlite3.Connection, ask: Ask, at: int) -> None:
        since = at - int(self._settings.prompt_life_s * 1e6)
        other = payments.blocking(conn, ask.phone, ask.till_id, ask.sale_ref, since)
        if other is not None:
            raise _open(other)

    def _not_too_soon(self, conn: sqlite3.Connection, ask: Ask, at: int) -> None:
        last = payments.last_push_to(conn, ask.phone)
        if last is None or last.sent_at is None:
            return
        if last.money is Money.REFUSED and last.reason is not Reason.NOT_SENT:
            # M-Pesa did not take the number, the amount or the set-up: the next one is another request.
            return
        # A clock that was set back says nothing of how long ago that was; M-Pesa has its own limit.
        ago_s = max(0.0, (at - last.sent_at) / 1e6) if last.sent_at <= at else float("inf")
        wait_s = self._settings.same_phone_s - ago_s
        if last.amount_cents == ask.amount_cents:
            wait_s = max(wait_s, min(SAME_AMOUNT_S, self._same_amount_s) - ago_s)
        if wait_s > 0:
            seconds = int(wait_s) + 1
            raise PaymentTooSoon(
                f"This phone was asked {int(ago_s)} s ago. Ask again in {seconds} s.",
                retry_after_s=seconds,
                extra={"payment": payment_json(last, at)},
            )

    @property
    def _same_amount_s(self) -> float:
        """Both rules are M-Pesa's; a shop that was told other times sets one, and the other follows."""
        return 2 * self._settings.same_phone_s

    def _lost_to(self, conn: sqlite3.Connection, ask: Ask) -> PaymentRow:
        """The INSERT was refused by an index: the row that stands there."""
        known = payments.by_key(conn, ask.till_id, ask.key)
        if known is not None:
            return _same(known, ask)
        other = payments.blocking(conn, ask.phone, ask.till_id, ask.sale_ref, 0)
        if other is None:
            raise PaymentOpen("An M-Pesa request was open a moment ago. Try again.")
        raise _open(other)


def same_money_groups(conn: sqlite3.Connection) -> list[tuple[PaymentRow, list[PaymentRow]]]:
    """Return each announced payment that no sale was signed with, with the pushes that it may be."""
    rows = [row for row in payments.unowned(conn) if row.kind == "C2B"]
    used = [
        other
        for row in payments.unowned(conn)
        if row.kind == "STK" and row.receipt is None
        for other in twins.of(conn, row)
    ]
    by_id = {row.id: row for row in (*rows, *used)}
    return [(row, found) for row in by_id.values() if (found := twins.of(conn, row))]


def check_amount(amount_cents: int, maximum: int) -> None:
    """Whole shillings, 1 to `maximum` (daraja.md 2). PaymentInvalid; never rounded."""
    says = None
    if amount_cents % 100:
        says = "must be whole shillings: M-Pesa takes no cents"
    elif not 1 <= amount_cents // 100 <= maximum:
        says = f"must be from 1 to {maximum} shillings"
    if says is not None:
        raise PaymentInvalid(
            f"The amount {says}.", errors=[FieldError("/amount", "INVALID", f"{says}")]
        )


def _same(known: PaymentRow, ask: Ask) -> PaymentRow:
    if known.body_digest != ask.body_digest:
        raise KeyReused(
            "This key was used for another payment. Every payment needs a key of its own.",
            extra={"paymentId": known.id},
        )
    return known


def _open(other: PaymentRow) -> PaymentOpen:
    view: dict[str, Any] = payment_json(other)
    return PaymentOpen(
        "An M-Pesa request is open for this sale or phone already. Wait for its end.",
        extra={"payment": view, "paymentId": other.id},
    )
