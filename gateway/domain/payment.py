"""A payment by M-Pesa as two truths: what M-Pesa did with the money, and what the till did with it. Pure.

Money that was paid stays paid. Everything short of that is soft: a late word that money moved always
wins over an earlier word that it did not, and the contradiction is an alarm for a person to see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from gateway.errors import IllegalTransition


class Money(StrEnum):
    """What M-Pesa did."""

    NEW = "NEW"  # the intent is durable; not one byte of the push has left
    SENDING = "SENDING"  # the push may be on the wire
    REFUSED = "REFUSED"  # surely not sent
    SEND_UNKNOWN = "SEND_UNKNOWN"  # no answer to the push: the phone may ring or not
    WAITING = "WAITING"  # M-Pesa has taken the request; the customer is asked
    PAID = "PAID"  # absolute: leaves only when the money goes back
    NOT_PAID = "NOT_PAID"  # as far as anybody knows; soft
    UNKNOWN = "UNKNOWN"  # nobody has said anything in time; looked for during 48 hours
    REFUNDED = "REFUNDED"


class Tender(StrEnum):
    """What the till did with it: every paid shilling has an owner in here."""

    OPEN = "OPEN"
    COMPLETED_BY_MPESA = "COMPLETED_BY_MPESA"
    COMPLETED_OTHERWISE = "COMPLETED_OTHERWISE"
    ABANDONED = "ABANDONED"
    REVIEW = "REVIEW"  # another amount came than was asked for; a person decides
    REFUND_DUE = "REFUND_DUE"
    REFUNDED = "REFUNDED"
    MERGED = "MERGED"  # the same shilling is another payment's: its twin by C2B


class Source(StrEnum):
    """Who said it."""

    TILL = "TILL"
    PUSH = "PUSH"
    CALLBACK = "CALLBACK"
    QUERY = "QUERY"
    C2B = "C2B"
    PULL = "PULL"
    STATUS = "STATUS"
    REVERSAL = "REVERSAL"
    PERSON = "PERSON"
    CLOCK = "CLOCK"
    START = "START"


class Verdict(StrEnum):
    """What it means for the money."""

    SENDING = "SENDING"
    ACCEPTED = "ACCEPTED"
    NOT_SENT = "NOT_SENT"
    SEND_LOST = "SEND_LOST"
    PAID = "PAID"
    NOT_PAID = "NOT_PAID"
    NO_INFO = "NO_INFO"
    DEADLINE = "DEADLINE"
    NOT_FOUND = "NOT_FOUND"  # M-Pesa's own list of the time holds no such payment
    NO_MORE = "NO_MORE"  # nothing can be learnt any more; a person must close it
    REFUNDED = "REFUNDED"


class Reason(StrEnum):
    """Why there is no money, in the classes that a cashier's sentence goes by (daraja.md 3.1, 2.4)."""

    CANCELLED = "CANCELLED"
    FAILED_FUNDS = "FAILED_FUNDS"
    FAILED_LIMIT = "FAILED_LIMIT"
    FAILED_PIN = "FAILED_PIN"
    FAILED_BUSY = "FAILED_BUSY"
    FAILED_EXPIRED = "FAILED_EXPIRED"
    FAILED_RETRYABLE = "FAILED_RETRYABLE"
    FAILED_UNREACHABLE = "FAILED_UNREACHABLE"
    FAILED_CONFIG = "FAILED_CONFIG"
    FAILED = "FAILED"  # a code that nobody has seen before
    NOT_SENT = "NOT_SENT"  # refused before M-Pesa acted; may be sent again
    CONFIG = "CONFIG"  # the shop's set-up; a technician's
    INPUT = "INPUT"  # the cashier's: number or amount
    SEND_LOST = "SEND_LOST"
    NOT_FOUND = "NOT_FOUND"
    PERSON = "PERSON"
    REFUND_ORDERED = "REFUND_ORDERED"  # paid as asked, and a person gives it back


class Alarm(StrEnum):
    """What a person must see; nothing of it is settled silently."""

    PAID_AFTER_FAILURE = "PAID_AFTER_FAILURE"
    FAILURE_AFTER_PAID = "FAILURE_AFTER_PAID"
    OTHER_AMOUNT = "OTHER_AMOUNT"
    OTHER_RECEIPT = "OTHER_RECEIPT"
    OTHER_SALE = "OTHER_SALE"  # the money of a request was used, or claimed, for another sale
    REVERSED = "REVERSED"  # M-Pesa reports that the customer's payment was taken back
    LATE = "LATE"  # money for a sale that was settled without it
    SETUP = "SETUP"
    REFUND_OPEN = "REFUND_OPEN"  # a refund was refused, or nobody knows whether it was done
    UNRESOLVED = "UNRESOLVED"  # nobody has said anything in 48 hours
    MALFORMED = "MALFORMED"  # a message about this payment that says nothing readable
    OTHER_REQUEST = "OTHER_REQUEST"  # the right address, but M-Pesa's number of another request
    OTHER_SHORTCODE = "OTHER_SHORTCODE"  # money that came to somebody else's paybill or till
    FORGED = "FORGED"  # a message to an address that was never given to M-Pesa
    UNREADABLE = "UNREADABLE"  # a message that the gateway could not work off


class Act(StrEnum):
    """What a till or a person did with a payment."""

    SALE_WITH_IT = "SALE_WITH_IT"
    SALE_WITHOUT_IT = "SALE_WITHOUT_IT"
    GIVEN_UP = "GIVEN_UP"
    AMOUNT_ACCEPTED = "AMOUNT_ACCEPTED"
    REFUND_ORDERED = "REFUND_ORDERED"
    REFUNDED_BY_HAND = "REFUNDED_BY_HAND"
    MERGED = "MERGED"


# A push that may still make a phone ring: no second one beside it (daraja.md 8, rule 2).
OPEN_PUSH = frozenset({Money.NEW, Money.SENDING, Money.SEND_UNKNOWN, Money.WAITING})
# Not known to have ended: evidence is still looked for.
UNSETTLED = OPEN_PUSH | {Money.UNKNOWN}
_SETUP = (Reason.CONFIG, Reason.FAILED_CONFIG)


@dataclass(frozen=True, slots=True)
class Evidence:
    """One word about one payment. Amounts in cents; `payer` masked; `reason` for everything but PAID.
    `alarm`: what a person must see of a word that says nothing (NO_INFO)."""

    source: Source
    verdict: Verdict
    code: str | None = None
    reason: Reason | None = None
    receipt: str | None = None
    amount_cents: int | None = None
    merchant_request_id: str | None = None
    checkout_request_id: str | None = None
    payer: str | None = None
    note: str = ""
    alarm: Alarm | None = None


@dataclass(frozen=True, slots=True)
class PaymentState:
    """What the rules look at. `paid_cents` and `receipt` are None until somebody has told them: a query
    says that the money came, not how much nor under which receipt (daraja.md 0.3)."""

    money: Money
    tender: Tender
    amount_cents: int
    reason: Reason | None = None
    paid_cents: int | None = None
    receipt: str | None = None
    paid_by: Source | None = None
    # The other sale that the money of a merged payment was used for, in words.
    used_for: str | None = None

    @property
    def came_cents(self) -> int:
        """How much came, as far as told; only for money that did."""
        return self.amount_cents if self.paid_cents is None else self.paid_cents


@dataclass(frozen=True, slots=True)
class Change:
    """The state after a word, and what a person must see of it."""

    state: PaymentState
    changed: bool
    alarm: Alarm | None = None


def after(now: PaymentState, word: Evidence) -> Change:
    """The state after one word of evidence. IllegalTransition for what only a programmer can cause."""
    match word.verdict:
        case Verdict.SENDING:
            if now.money is not Money.NEW:
                raise IllegalTransition(f"a push is sent once; this payment is {now.money}")
            return _moved(now, Money.SENDING)
        case Verdict.ACCEPTED:
            return _moved(now, Money.WAITING) if now.money is Money.SENDING else _same(now)
        case Verdict.NOT_SENT:
            return _not_sent(now, word)
        case Verdict.SEND_LOST:
            if now.money is Money.SENDING:
                return _moved(now, Money.SEND_UNKNOWN, Reason.SEND_LOST)
            return _same(now)
        case Verdict.PAID:
            return _paid(now, word)
        case Verdict.NOT_PAID:
            return _not_paid(now, word)
        case Verdict.NOT_FOUND:
            if now.money is Money.UNKNOWN:
                return _moved(now, Money.NOT_PAID, Reason.NOT_FOUND)
            return _same(now)
        case Verdict.DEADLINE:
            if now.money in (Money.WAITING, Money.SEND_UNKNOWN):
                return _moved(now, Money.UNKNOWN, now.reason)
            return _same(now)
        case Verdict.NO_MORE:
            return _same(now, Alarm.UNRESOLVED if now.money is Money.UNKNOWN else None)
        case Verdict.REFUNDED:
            return _refunded(now)
        case Verdict.NO_INFO:
            return _same(now, word.alarm)


def _same(now: PaymentState, alarm: Alarm | None = None) -> Change:
    return Change(now, changed=False, alarm=alarm)


def _moved(
    now: PaymentState, money: Money, reason: Reason | None = None, alarm: Alarm | None = None
) -> Change:
    return Change(replace(now, money=money, reason=reason), changed=True, alarm=alarm)


def _not_sent(now: PaymentState, word: Evidence) -> Change:
    setup = Alarm.SETUP if word.reason in _SETUP else None
    match now.money:
        case Money.NEW | Money.SENDING:
            return _moved(now, Money.REFUSED, word.reason or Reason.NOT_SENT, setup)
        case Money.PAID | Money.REFUNDED:
            # The customer was faster than the refusal, which was therefore none.
            return _same(now, Alarm.FAILURE_AFTER_PAID)
        case _:
            return _same(now, setup)


def _not_paid(now: PaymentState, word: Evidence) -> Change:
    reason = word.reason or Reason.FAILED
    setup = Alarm.SETUP if reason in _SETUP else None
    match now.money:
        case Money.SENDING | Money.SEND_UNKNOWN | Money.WAITING | Money.UNKNOWN:
            return _moved(now, Money.NOT_PAID, reason, setup)
        case Money.PAID | Money.REFUNDED:
            return _same(now, Alarm.FAILURE_AFTER_PAID)
        case _:
            return _same(now)


def _paid(now: PaymentState, word: Evidence) -> Change:
    if now.money in (Money.PAID, Money.REFUNDED):
        return _told_more(now, word)
    surprise = now.money in (Money.NEW, Money.REFUSED, Money.NOT_PAID)
    alarm = Alarm.PAID_AFTER_FAILURE if surprise else None
    state = replace(
        now,
        money=Money.PAID,
        reason=None,
        receipt=word.receipt,
        paid_cents=word.amount_cents,
        paid_by=word.source,
    )
    if now.tender in (Tender.COMPLETED_OTHERWISE, Tender.ABANDONED):
        return Change(replace(state, tender=Tender.REFUND_DUE), changed=True, alarm=Alarm.LATE)
    if now.tender is Tender.OPEN and state.came_cents != now.amount_cents:
        return Change(replace(state, tender=Tender.REVIEW), changed=True, alarm=Alarm.OTHER_AMOUNT)
    return Change(state, changed=True, alarm=alarm)


def _told_more(now: PaymentState, word: Evidence) -> Change:
    """Money that is there already, or was: the receipt's number and the amount may be news."""
    if word.receipt is not None and now.receipt is not None and word.receipt != now.receipt:
        return _same(now, Alarm.OTHER_RECEIPT)
    if None not in (word.amount_cents, now.paid_cents) and word.amount_cents != now.paid_cents:
        # The same receipt and another amount than before: what was told first stays.
        return _same(now, Alarm.OTHER_AMOUNT)
    receipt = now.receipt or word.receipt
    paid_cents = word.amount_cents if now.paid_cents is None else now.paid_cents
    state = replace(now, receipt=receipt, paid_cents=paid_cents)
    if state == now:
        return _same(now)
    alarm = None
    if now.paid_cents is None and state.came_cents != now.amount_cents:
        alarm = Alarm.OTHER_AMOUNT
        if now.tender is Tender.OPEN:
            state = replace(state, tender=Tender.REVIEW)
    return Change(state, changed=True, alarm=alarm)


def _refunded(now: PaymentState) -> Change:
    if now.money is Money.REFUNDED or now.tender is Tender.MERGED:
        # A merged payment's money is the other's, and so is what became of it.
        return _same(now)
    if now.money is not Money.PAID:
        raise IllegalTransition(f"only paid money goes back; this payment is {now.money}")
    state = replace(now, money=Money.REFUNDED, tender=Tender.REFUNDED)
    return Change(state, changed=True)


def acted(now: PaymentState, act: Act) -> Change:
    """The state after the till or a person did something. IllegalTransition where it cannot be done;
    whoever lets a person do it asks `may` first."""
    tender = _tender_after(now, act)
    if tender is None:
        raise IllegalTransition(f"{act} is not possible: {now.money}, {now.tender}")
    # The reason tells money that is given back from money that came too late.
    reason = Reason.REFUND_ORDERED if act is Act.REFUND_ORDERED else now.reason
    late = now.tender is Tender.REFUND_DUE
    state = replace(now, tender=tender, reason=now.reason if late else reason)
    alarm = Alarm.LATE if tender is Tender.REFUND_DUE and act is Act.SALE_WITHOUT_IT else None
    return Change(state, changed=state != now, alarm=alarm)


def may(now: PaymentState, act: Act) -> bool:
    """Whether `acted` would do it."""
    return _tender_after(now, act) is not None


def _tender_after(now: PaymentState, act: Act) -> Tender | None:
    paid = now.money is Money.PAID
    match act:
        case Act.SALE_WITH_IT:
            return Tender.COMPLETED_BY_MPESA if paid and now.tender is Tender.OPEN else None
        case Act.SALE_WITHOUT_IT | Act.GIVEN_UP:
            if now.tender is Tender.OPEN:
                settled = Tender.ABANDONED if act is Act.GIVEN_UP else Tender.COMPLETED_OTHERWISE
                return Tender.REFUND_DUE if paid else settled
            return Tender.REFUND_DUE if now.tender is Tender.REVIEW else now.tender
        case Act.AMOUNT_ACCEPTED:
            return Tender.OPEN if paid and now.tender is Tender.REVIEW else None
        case Act.REFUND_ORDERED:
            owned = (Tender.OPEN, Tender.REVIEW, Tender.COMPLETED_BY_MPESA, Tender.REFUND_DUE)
            return Tender.REFUND_DUE if paid and now.tender in owned else None
        case Act.REFUNDED_BY_HAND:
            return Tender.REFUNDED if paid and now.tender is Tender.REFUND_DUE else None
        case Act.MERGED:
            # Also what was to be given back: the other one owns that shilling.
            loose = (Tender.OPEN, Tender.REVIEW, Tender.REFUND_DUE)
            return Tender.MERGED if paid and now.tender in loose else None
