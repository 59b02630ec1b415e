"""What the payments' pages and the status show of M-Pesa, read from the store. Phones masked, no names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from gateway.clock import EAT, from_micros, micros
from gateway.domain.payment import OPEN_PUSH, Act, Alarm, Money, Reason, Tender, may
from gateway.money import from_cents
from gateway.ops.logging import masked
from gateway.payments import twins
from gateway.payments.desk import same_money_groups
from gateway.payments.view import payment_json
from gateway.payments.webhooks import GIVEN_UP
from gateway.store import checkouts, events, payment_days, payments, payments_shown, refunds
from gateway.store.checkouts import CheckoutState
from gateway.store.payments import PaymentRow, Word
from gateway.store.payments_shown import Reversal
from gateway.store.refunds import Refund, RefundState

# A page of more is scrolled by nobody.
ROWS_MAX = 50
# An alarm is shown for so long, in microseconds; it stays in its payment's story.
ALARMS_US = 48 * 3_600_000_000
ALARMS: dict[str, str] = {
    Alarm.PAID_AFTER_FAILURE: "It was paid after all: M-Pesa had said that it was not.",
    Alarm.FAILURE_AFTER_PAID: "M-Pesa says now that it was not paid. The money counts as paid; compare with M-Pesa's statement.",
    Alarm.OTHER_AMOUNT: "Another amount came than was asked for.",
    Alarm.OTHER_RECEIPT: "Two M-Pesa receipt numbers for one payment.",
    Alarm.OTHER_SALE: "The money of this payment is used for another sale. Its own sale is not paid by it.",
    Alarm.REVERSED: "M-Pesa reports that the customer's payment was taken back. Look at M-Pesa's statement.",
    Alarm.LATE: "Money came for a sale that was settled without it.",
    Alarm.REFUND_OPEN: "A refund was not done, or nobody knows whether it was. Look at M-Pesa's statement.",
    Alarm.UNRESOLVED: "Nobody has said in 48 hours whether it was paid. A person must close it.",
    Alarm.MALFORMED: "A message that says nothing readable. M-Pesa is asked instead.",
    Alarm.OTHER_REQUEST: "A message to this payment's address that is about another request. It was ignored.",
    Alarm.OTHER_SHORTCODE: "Money that went to another paybill or till than this shop's.",
    Alarm.FORGED: "A message to an address that M-Pesa was never given. It changed nothing.",
    Alarm.UNREADABLE: "A message that the gateway could not work off. Call the technician.",
    Alarm.SETUP: "M-Pesa does not take this shop's set-up. A technician must look.",
}
SOURCES = {
    "TILL": "the till",
    "PUSH": "the request",
    "CALLBACK": "M-Pesa's message",
    "QUERY": "M-Pesa, when asked",
    "C2B": "M-Pesa's till message (C2B)",
    "PULL": "M-Pesa's list (Pull)",
    "STATUS": "M-Pesa's status answer",
    "REVERSAL": "the reversal",
    "PERSON": "a person",
    "CLOCK": "the clock",
    "START": "a restart",
}
SAYS = {
    "SENDING": "The request leaves",
    "ACCEPTED": "M-Pesa has taken the request",
    "NOT_SENT": "Not sent",
    "SEND_LOST": "No answer to the request",
    "PAID": "Paid",
    "NOT_PAID": "Not paid",
    "NO_INFO": "Nothing new",
    "DEADLINE": "Nobody has confirmed in time",
    "NOT_FOUND": "Not in M-Pesa's list",
    "NO_MORE": "Nothing can be learnt any more",
    "CLAIMED": "Taken for a sale",
    "REFUNDED": "The money went back",
    "SALE_WITH_IT": "The sale was signed with it",
    "SALE_WITHOUT_IT": "The sale was settled without it",
    "GIVEN_UP": "The sale was given up",
    "AMOUNT_ACCEPTED": "The amount was accepted",
    "REFUND_ORDERED": "It is to be given back",
    "REFUNDED_BY_HAND": "It was given back by hand",
    "MERGED": "The same money as another payment",
    "TWO_PAYMENTS": "A person has decided: two payments, not the same money",
    "REVERSAL_REPORTED": "M-Pesa reports that it was taken back",
    "NOT_REVERSED": "A person has decided about the reported reversal",
}
REFUNDS = {
    RefundState.ASKED: "ordered",
    RefundState.SENDING: "on its way to M-Pesa",
    RefundState.SENT: "M-Pesa has taken the order",
    RefundState.DONE: "the money went back",
    RefundState.REFUSED: "refused: the money is still here",
    RefundState.UNKNOWN: "nobody has said whether it went back",
}
BANNERS = {
    Money.PAID: "ONLINE",
    Money.REFUNDED: "plain",
    Money.REFUSED: "plain",
    Money.NOT_PAID: "plain",
    Money.UNKNOWN: "SUSPENDED",
}


def figures(conn: sqlite3.Connection) -> dict[str, Any]:
    """Counts for the status; nothing that belongs to a customer."""
    counts = payments.counts(conn)
    unowned = payment_days.unowned_counts(conn)
    last = payments.where(conn, "kind = 'STK' AND money <> 'NEW' ORDER BY seq DESC LIMIT 1")
    refused = _refusal(conn, last[0]) if last else None
    return {
        "open": sum(counts.get(money, 0) for money in OPEN_PUSH),
        "unknown": payment_days.unknown_count(conn),
        "moneyWithoutReceipt": unowned.get(Tender.OPEN, 0) + unowned.get(Tender.REVIEW, 0),
        "refundsDue": unowned.get(Tender.REFUND_DUE, 0),
        "receiptsWithoutMoney": payment_days.unpaid_count(conn),
        "unmatchedMessages": payment_days.unmatched_count(conn),
        "lastRefusal": refused,
    }


def _refusal(conn: sqlite3.Connection, last: PaymentRow) -> str | None:
    """Why M-Pesa does not take requests, by what became of the newest one: the set-up, or the way there."""
    if last.reason in (Reason.CONFIG, Reason.FAILED_CONFIG):
        says = "M-Pesa refused the last request because of this shop's set-up"
    elif last.money is Money.REFUSED and last.reason is Reason.NOT_SENT and last.sent_at is None:
        says = "The last request could not be sent to M-Pesa"
    else:
        return None
    why = [word for word in payments.words(conn, last.id) if word.note and word.changed]
    return masked(f"{says}: {why[-1].note}" if why else says).rstrip(".")


def status(
    on: bool, environment: str, found: dict[str, Any], problems: Iterable[str]
) -> dict[str, Any]:
    """`state`: off, ready, problem; `problems` are sentences of the running parts."""
    refusal = found.pop("lastRefusal")
    # The same reason is not said twice.
    says = [each for each in problems if refusal is None or each not in refusal]
    if on and refusal is not None:
        says.append(refusal)
    state = "off" if not on else "problem" if says else "ready"
    return {"on": on, "environment": environment, "state": state, "problems": says, **found}


def lists(conn: sqlite3.Connection, now: datetime) -> dict[str, Any]:
    """Everything of `/payments`, each list newest first."""
    at = micros(now)
    unowned = payments.unowned(conn, ROWS_MAX * 4)
    open_rows = payments.in_money(conn, tuple(OPEN_PUSH), ROWS_MAX)[::-1]
    nobodys = [row for row in unowned if row.tender is Tender.OPEN and row.till_id is None]
    return {
        "open": _shown(open_rows, at),
        "unknown": _shown(payments.unknown(conn, ROWS_MAX), at),
        "doubtful": _shown(payments.doubtful_receipts(conn, ROWS_MAX), at),
        "backs": [
            {
                "paymentId": each.payment_id,
                "says": REFUNDS[each.state],
                "at": _when(each.updated_at),
                "doubt": each.state is RefundState.UNKNOWN,
            }
            for each in refunds.unsettled(conn)
        ],
        "money": _shown(
            (
                row
                for row in unowned
                if row.tender in (Tender.OPEN, Tender.REVIEW) and row not in nobodys
            ),
            at,
        ),
        "nobodys": _shown(nobodys, at),
        "same": [
            {**_one(row, at), "others": [_one(other, at) for other in others]}
            for row, others in same_money_groups(conn)[:ROWS_MAX]
        ],
        "reversed": [
            _reversal(conn, each, at) for each in payments_shown.reversals(conn, ROWS_MAX)
        ],
        "others": [
            {
                "kind": row.kind or "-",
                "amount": _kes(row.cents),
                "receipt": row.receipt,
                "at": _when(row.paid_at),
            }
            for row in payments_shown.other_rows(conn, at - ALARMS_US, at + ALARMS_US, ROWS_MAX)
        ],
        "refunds": _shown((row for row in unowned if row.tender is Tender.REFUND_DUE), at),
        "receipts": [
            {
                "invoiceId": tender.invoice_id,
                "till": tender.till_id,
                "saleRef": tender.sale_ref,
                "amount": f"{from_cents(tender.amount_cents):,.2f}",
                "reference": tender.reference,
                "at": _when(tender.at),
            }
            for tender in checkouts.unpaid(conn, ROWS_MAX)
        ],
        "alarms": [
            {**_one(row, at), "alarm": alarm_says(alarm), "at": _when(when)}
            for row, alarm, when in payment_days.alarms(conn, at - ALARMS_US, ROWS_MAX)
        ],
        "untold": _untold(conn, at - ALARMS_US),
        "unmatched": payment_days.unmatched_count(conn),
        "last": _shown(payments.where(conn, "1 ORDER BY seq DESC LIMIT 10"), at),
    }


def _kes(cents: int) -> str:
    return f"{from_cents(cents):,.2f}"


def _reversal(conn: sqlite3.Connection, found: Reversal, at: int) -> dict[str, Any]:
    """A payment that M-Pesa reports as taken back; without a payment of ours only its receipt."""
    row = payments.by_id(conn, found.payment_id) if found.payment_id else None
    view = (
        {"id": None, "amount": "", "saleRef": None, "till": None} if row is None else _one(row, at)
    )
    return {
        **view,
        "receipt": found.receipt,
        "by": SOURCES.get(found.source, found.source),
        "at": _when(found.at),
        "signed": row is not None and row.invoice_id is not None,
    }


def _untold(conn: sqlite3.Connection, since: int) -> list[dict[str, Any]]:
    """Tills whose webhook has not taken news within a day: how many, and when the newest was given up."""
    found: dict[str, dict[str, Any]] = {}
    for event in events.newest_of(conn, GIVEN_UP, since, 1000):
        till = found.setdefault(event.till_id or "", {"at": _when(event.at), "count": 0})
        till["count"] += 1
    return [{"till": till, **told} for till, told in found.items()]


def _shown(rows: Iterable[PaymentRow], at: int) -> list[dict[str, Any]]:
    return [_one(row, at) for row in rows][:ROWS_MAX]


def _one(row: PaymentRow, at: int) -> dict[str, Any]:
    """A payment in a cashier's words."""
    shown = payment_json(row, at)
    return {
        "id": row.id,
        "kind": row.kind,
        "amount": f"{from_cents(row.state.came_cents):,.0f}",
        "who": shown["phone"] or "",
        "till": row.till_id,
        "saleRef": row.sale_ref,
        "money": row.money,
        "tender": row.tender,
        "en": shown["sentence"]["en"],
        "sw": shown["sentence"]["sw"],
        "seconds": shown["waitedSeconds"],
        "open": row.money in OPEN_PUSH,
        "at": _when(row.created_at),
    }


def alarm_says(alarm: str) -> str:
    return ALARMS.get(alarm, alarm)


def story(
    conn: sqlite3.Connection, row: PaymentRow, now: datetime, *, details: bool
) -> dict[str, Any]:
    """One payment and every word about it, in order; notes and raw bodies only with `details`."""
    ordered = refunds.of_payment(conn, row.id)
    # One at a time: what is on its way is not ordered again.
    free = all(each.state is RefundState.REFUSED for each in ordered)
    return {
        "p": _one(row, micros(now)),
        "banner": "WARNING"
        if row.tender in (Tender.REVIEW, Tender.REFUND_DUE)
        else BANNERS.get(row.money, "WARNING"),
        "facts": [(name, value) for name, value in _facts(row) if value],
        "words": [_word(word, details=details) for word in payments.words(conn, row.id)],
        "details": details,
        "may": actions(row, refund=free),
        "sale": _sale(conn, row),
        "refunds": [_refund(each, details=details) for each in ordered],
        "invoiceId": row.invoice_id,
        "mergedInto": row.merged_into,
        "same": [_one(other, micros(now)) for other in twins.of(conn, row)],
        "takenBack": payments_shown.reversal_of(conn, row.id) is not None,
    }


def _refund(refund: Refund, *, details: bool) -> dict[str, Any]:
    return {
        "id": refund.id,
        "how": "by hand" if refund.how == "BY_HAND" else "through M-Pesa",
        "says": REFUNDS[refund.state],
        "doubt": refund.state is RefundState.UNKNOWN,
        "receipt": refund.receipt,
        "at": _when(refund.updated_at, seconds=True),
        "note": f"{refund.who}: {refund.reason}. {refund.says or ''}" if details else "",
    }


def _sale(conn: sqlite3.Connection, row: PaymentRow) -> dict[str, Any] | None:
    """The sale that waits for this money, in words."""
    found = checkouts.open_with(conn, row.id)
    if found is None:
        return None
    ready = found.state is CheckoutState.READY
    until = None if found.sign_until is None else _when(found.sign_until)
    return {"id": found.id, "ready": ready, "reason": found.reason, "until": until}


def _facts(row: PaymentRow) -> list[tuple[str, str | None]]:
    came = None if row.paid_by is None else f"{from_cents(row.state.came_cents):,.2f}"
    return [
        ("Asked for", f"{from_cents(row.amount_cents):,.2f}" if row.kind == "STK" else None),
        ("Came", came),
        ("M-Pesa receipt", row.receipt or ("to follow" if row.paid_by else None)),
        ("By the word of", SOURCES.get(row.paid_by, row.paid_by) if row.paid_by else None),
        ("Came at", None if row.paid_at is None else f"{_when(row.paid_at, seconds=True)}"),
        ("Reason", None if row.reason is None else row.reason.replace("_", " ").lower()),
        ("Sale", f"{row.sale_ref} at {row.till_id}" if row.sale_ref else None),
        ("The sale and it", row.tender.replace("_", " ").lower()),
        ("Looked for again", None if row.next_check_at is None else _when(row.next_check_at, seconds=True)),
    ]  # fmt: skip


def _word(word: Word, *, details: bool) -> dict[str, Any]:
    return {
        "at": _when(word.at, seconds=True),
        "source": SOURCES.get(word.source, word.source),
        "says": SAYS.get(word.word, word.word),
        "code": word.code,
        "money": word.money,
        "tender": word.tender,
        "changed": word.changed,
        "alarm": None if word.alarm is None else alarm_says(word.alarm),
        "note": word.note if details else "",
        "raw": (word.raw or b"").decode(errors="replace") if details else "",
    }


def actions(row: PaymentRow, *, refund: bool) -> dict[str, bool]:
    """Which buttons its page has."""
    state = row.state
    unsettled = row.money in OPEN_PUSH or row.money is Money.UNKNOWN
    without_money = unsettled or row.money is Money.NOT_PAID
    return {
        "check": unsettled or row.money is Money.PAID,
        "code": row.kind == "STK" and (without_money or row.receipt is None) and row.sent_at is not None,
        "other": row.tender is Tender.OPEN and without_money,
        "claim": row.money is Money.PAID and row.tender is Tender.OPEN and row.sale_ref is None,
        "accept": may(state, Act.AMOUNT_ACCEPTED),
        "not_paid": row.money in (Money.UNKNOWN, Money.SEND_UNKNOWN),
        "refund": refund and may(state, Act.REFUND_ORDERED),
    }  # fmt: skip


def of_invoice(conn: sqlite3.Connection, invoice_id: str, now: datetime) -> dict[str, Any]:
    """What paid for a signed sale, and what of it nobody has confirmed."""
    return {
        "pays": _shown(payments.of_invoice(conn, invoice_id), micros(now)),
        "unpaid": [
            {
                "amount": f"{from_cents(tender.amount_cents):,.2f}",
                "reference": tender.reference,
                "open": tender.state == "OPEN",
                "who": tender.who,
                "reason": tender.reason,
            }
            for tender in checkouts.unpaid_of(conn, invoice_id)
        ],
    }


def _when(at_us: int, *, seconds: bool = False) -> str:
    moment = from_micros(at_us).astimezone(EAT)
    return f"{moment:%d/%m %H:%M:%S}" if seconds else f"{moment:%d/%m %H:%M}"


KINDS = {
    "s": "result of a request",
    "c": "payment to the till (C2B)",
    "v": "question before a payment (C2B)",
    "r": "result of a refund or status question",
    "t": "time-out of a refund or status question",
}


def message(received_at: int, kind: str, reason: str, raw: bytes) -> dict[str, str]:
    """One message that belongs to no payment, as it came."""
    return {
        "at": _when(received_at, seconds=True),
        "kind": KINDS.get(kind, kind),
        "reason": alarm_says(reason),
        "raw": raw.decode(errors="replace"),
    }
