"""Reads what M-Pesa sends by itself: push callbacks, C2B confirmations, results of reversals, pulled rows.

Each reader takes the raw bytes of a stranger, never raises, and answers None for what is no such message.
Shapes and their drift: daraja.md 3 and 6.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from gateway.domain.payment_wire import ApiResult, C2bNotice, PulledRow, StkResult
from gateway.mpesa import fields
from gateway.mpesa.reading import leniently

# A page of Pull Transactions may hold a busy day.
PULL_MAX_BYTES = 4 * 1024 * 1024
ITEMS_MAX = 100
ROWS_MAX = 20_000
T = TypeVar("T")
# The only words with which 1001 says that nobody has paid; all others are a problem of the set-up: a short
# code that was never registered, a child paybill, a failed read (daraja.md 12).
_NO_TRANSACTIONS = re.compile(
    r"(there (are|were) )?no transactions?( (was|were|are))?( found| available)?( for (this|the) (period|time))?[.!]?",
    re.IGNORECASE,
)
PULLED = "1000"
NOTHING_TO_PULL = "1001"
_PAID = "0"
_EAT_AHEAD = timedelta(hours=3)
# M-Pesa's clock and ours, and seconds that were cut off.
_SLACK = timedelta(minutes=2)


def parse_stk(raw: bytes) -> StkResult | None:
    """A callback of a push. For code 0 the result has both `receipt` and `amount_cents`: a "paid" that
    does not say how much, or under which receipt, proves nothing, so it is none (the query then tells)."""
    callback = fields.member(fields.document(raw), "Body", "stkCallback")
    code = fields.code(fields.member(callback, "ResultCode"))
    if code is None:
        return None
    receipt, amount, phone, paid_at = None, None, None, None
    if code == _PAID:
        items = _named(fields.member(callback, "CallbackMetadata", "Item"), "Name")
        receipt = _one(items, "MpesaReceiptNumber", fields.receipt)
        amount = _one(items, "Amount", fields.cents)
        if receipt is None or amount is None:
            return None
        phone = _one(items, "PhoneNumber", fields.phone)
        paid_at = _one(items, "TransactionDate", fields.compact_time)
    return StkResult(
        merchant_request_id=fields.ident(callback.get("MerchantRequestID")),
        checkout_request_id=fields.ident(callback.get("CheckoutRequestID")),
        code=code,
        description=fields.text(callback.get("ResultDesc")),
        receipt=receipt,
        amount_cents=amount,
        phone=phone,
        paid_at=paid_at,
    )


def parse_c2b(raw: bytes) -> C2bNotice | None:
    """A C2B confirmation, or a validation, which has the same shape (daraja.md 6). `shortcode` is "" and
    the rest empty when M-Pesa leaves it out; receipt and amount are always there."""
    message = leniently(raw)
    if message is None:
        return None
    receipt = fields.receipt(message.get("TransID"))
    amount = fields.cents(message.get("TransAmount"))
    if receipt is None or amount is None:
        return None
    return C2bNotice(
        receipt=receipt,
        amount_cents=amount,
        shortcode=fields.text(message.get("BusinessShortCode"), 16),
        reference=fields.text(message.get("BillRefNumber"), 64),
        phone=fields.phone(message.get("MSISDN")),
        first_name=fields.text(message.get("FirstName"), 64),
        paid_at=fields.compact_time(message.get("TransTime")),
        kind=fields.text(message.get("TransactionType"), 64),
    )


def parse_c2b_reversal(raw: bytes) -> tuple[str, ...]:
    """Return the receipts that a C2B notice of a reversal names, () when it is none. The payment's own
    receipt stands in different members; a payment is known by whichever is one of ours."""
    message = leniently(raw)
    if message is None or "revers" not in fields.text(message.get("TransactionType"), 64).lower():
        return ()
    names = (
        "TransID",
        "BillRefNumber",
        "InvoiceNumber",
        "ThirdPartyTransID",
        "OriginalTransactionID",
    )
    found = (fields.receipt(message.get(name)) for name in names)
    return tuple(dict.fromkeys(receipt for receipt in found if receipt is not None))


def parse_result(raw: bytes) -> ApiResult | None:
    """The result of a reversal or status query (or its time-out, where that has the same shape).
    Parameters as text; a key without a value is ""; of doubled keys the last one counts."""
    result = fields.member(fields.document(raw), "Result")
    code = fields.code(fields.member(result, "ResultCode"))
    conversation = fields.ident(fields.member(result, "ConversationID"))
    originator = fields.ident(fields.member(result, "OriginatorConversationID"))
    if code is None or (conversation is None and originator is None):
        return None
    found = _named(fields.member(result, "ResultParameters", "ResultParameter"), "Key")
    return ApiResult(
        conversation_id=conversation or "",
        originator_id=originator or "",
        code=code,
        description=fields.text(result.get("ResultDesc")),
        transaction_id=fields.receipt(result.get("TransactionID")),
        parameters={name: fields.text(values[-1]) for name, values in found.items()},
    )


def parse_pull(raw: bytes) -> tuple[PulledRow, ...] | None:
    """All rows of an answer of Pull Transactions, () when M-Pesa says there are none. None when it is no
    such answer or any row of it cannot be read: an absence must not be concluded from it."""
    found = read_pull(raw)
    return None if found is None or found.unread or found.problem else found.rows


class Pulled(NamedTuple):
    """An answer of Pull Transactions: the rows with money, how many rows could not be read, why an answer
    without rows is no list (None: it is one), and rows of zero or less."""

    rows: tuple[PulledRow, ...]
    unread: int = 0
    problem: str | None = None
    others: tuple[PulledRow, ...] = ()


def read_pull(raw: bytes) -> Pulled | None:
    """Return what an answer of Pull Transactions holds; None when it is no such answer.

    Times are read as Nairobi's (see `in_window`). The list is nested twice (daraja.md 6); a flat one is
    read as well. 1001 is a list without rows only with the words "no transactions"."""
    answer = fields.document(raw, PULL_MAX_BYTES)
    if answer is None:
        return None
    code = fields.code(answer.get("ResponseCode"))
    listed = answer.get("Response")
    words = fields.text(answer.get("ResponseMessage") or answer.get("ResponseDescription"))
    silent = code == NOTHING_TO_PULL and words and not _NO_TRANSACTIONS.fullmatch(words)
    problem = f"M-Pesa's list (Pull) does not work for this short code: {code} {words}".strip()
    if code == NOTHING_TO_PULL and listed is None:
        return Pulled((), problem=problem if silent else None)
    if code not in (PULLED, NOTHING_TO_PULL) or not isinstance(listed, list):
        return None
    rows: list[PulledRow] = []
    unread = 0
    for entry in listed:
        for row in entry if isinstance(entry, list) else [entry]:
            if len(rows) + unread >= ROWS_MAX:
                return None
            read = _pulled(row)
            if read is not None:
                rows.append(read)
            else:
                unread += 1
    money = tuple(row for row in rows if row.amount_cents > 0)
    others = tuple(row for row in rows if row.amount_cents <= 0)
    return Pulled(money, unread, problem if silent and not rows else None, others)


def in_window(
    rows: tuple[PulledRow, ...], start: datetime, end: datetime, *, utc: bool = False
) -> tuple[tuple[PulledRow, ...], bool]:
    """Rows of a question about `start` to `end`, their times read as Nairobi's or, where only that puts all
    of them into the window, as UTC's. The second value is what they were read as: pass it on as `utc`, it
    decides when both ways fit."""
    as_utc = tuple(row if row.at is None else replace(row, at=row.at + _EAT_AHEAD) for row in rows)

    def fits(read: tuple[PulledRow, ...]) -> bool:
        times = [row.at for row in read if row.at is not None]
        return all(start - _SLACK <= at <= end + _SLACK for at in times)

    if fits(as_utc) != fits(rows):
        utc = fits(as_utc)
    return (as_utc if utc else rows), utc


def _pulled(row: Any) -> PulledRow | None:
    receipt = fields.receipt(fields.member(row, "transactionId"))
    amount = fields.signed_cents(fields.member(row, "amount"))
    if receipt is None or amount is None:
        return None
    phone = fields.phone(row.get("msisdn"))
    if phone is not None and len(phone) == 9 and phone[0] in "17":
        # Pull leaves the country out: 722000000.
        phone = f"254{phone}"
    return PulledRow(
        receipt=receipt,
        amount_cents=amount,
        phone=phone,
        reference=fields.text(row.get("billreference"), 64),
        kind=fields.text(row.get("transactiontype"), 64),
        at=fields.iso_time(row.get("trxDate")),
    )


def _named(entries: Any, key: str) -> dict[str, list[Any]]:
    """`[{"Name": n, "Value": v}, ...]` or one such object -> values by name, in their order. An entry
    without a value counts as None."""
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, list) or len(entries) > ITEMS_MAX:
        return {}
    found: dict[str, list[Any]] = {}
    for entry in entries:
        name = fields.text(fields.member(entry, key), 64)
        if name:
            found.setdefault(name, []).append(entry.get("Value"))
    return found


def _one(items: dict[str, list[Any]], name: str, read: Callable[[Any], T | None]) -> T | None:
    """The one value of that name; None when it is missing, unreadable, or said twice and differently."""
    values = {read(value) for value in items.get(name, [])}
    return values.pop() if len(values) == 1 else None
