"""Which push of ours an announced payment belongs to, when no receipt says so. Pure.

For C2B confirmations and rows of Pull Transactions (daraja.md 6, end): a paybill's reference equals ours
but for letter case and blanks; or, for a till, which has none, the amount, the payer's number as far as it is
shown (whole, masked, or as its SHA-256), and a quarter of an hour. One candidate or none: money that two pushes could have brought is a person's to give away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from gateway.clock import micros
from gateway.domain.payment import Money
from gateway.domain.payment_wire import C2bNotice, PulledRow
from gateway.store.payments import PaymentRow

SECOND_US = 1_000_000
# M-Pesa's clock and this one may be apart by so much before a payment looks older than its push.
APART_US = 120 * SECOND_US
# Without a reference: a prompt lives some minutes, and a message may be late (daraja.md 6: 15 min).
ECHO_US = 15 * 60 * SECOND_US
# With one: as long as evidence is looked for (daraja.md 8).
REFERENCE_US = 48 * 3600 * SECOND_US
# The push has left and no end of it is known, or only that it was paid and not under which receipt.
_LIKELY = frozenset({Money.SENDING, Money.SEND_UNKNOWN, Money.WAITING, Money.UNKNOWN, Money.PAID})
# M-Pesa said that it was not paid; softly, so money may still be its.
_SAID_UNPAID = frozenset({Money.NOT_PAID})
_SHOWN_MIN = 3
_HASHED = re.compile(r"[0-9a-f]{64}")


def match(
    notice: C2bNotice | PulledRow, candidates: Sequence[PaymentRow], now: datetime
) -> PaymentRow | None:
    """The one push that this money is for, or None. `candidates` without a receipt; the others are never
    matched here, their receipt says whose they are.

    A push that was said to be unpaid is looked at only when no other fits: after a refused attempt it is
    the next one for the same sale that is paid, as a rule.
    """
    paid_at = notice.paid_at if isinstance(notice, C2bNotice) else notice.at
    at_us = micros(paid_at or now)
    for states in (_LIKELY, _SAID_UNPAID):
        fitting = [row for row in candidates if row.money in states and _fits(notice, row, at_us)]
        if fitting:
            return fitting[0] if len(fitting) == 1 else None
    return None


def _fits(notice: C2bNotice | PulledRow, row: PaymentRow, at_us: int) -> bool:
    if row.kind != "STK" or row.receipt is not None or row.merged_into is not None:
        return False
    if row.amount_cents != notice.amount_cents or row.paid_cents not in (None, notice.amount_cents):
        return False
    since_us = at_us - (row.sent_at or row.created_at)
    if same_reference(notice.reference, row.account_ref):
        return -APART_US <= since_us <= REFERENCE_US
    if notice.reference.strip() and not is_buy_goods(notice.kind):
        return False
    return (
        -APART_US <= since_us <= ECHO_US
        and row.phone is not None
        and same_phone(row.phone, notice.phone)
    )


def same_reference(shown: str | None, ours: str | None) -> bool:
    """Return whether a customer or M-Pesa has named our reference: in any letter case, with any blanks."""
    return bool(shown and ours) and tight(shown) == tight(ours)


def tight(reference: str | None) -> str:
    """Return a reference as it is compared."""
    return "".join((reference or "").split()).casefold()


def is_buy_goods(kind: str) -> bool:
    """Return whether this is a payment to a till ("Buy Goods", "c2b-buy-goods-debit"): its payer types no
    reference, so one that is not ours was filled in by M-Pesa and says nothing."""
    return "buy" in kind.lower()


def is_pay_bill(kind: str) -> bool:
    """Return whether this is a payment to a paybill: one for a push of ours always has our reference."""
    return "pay" in kind.lower() and "bill" in kind.lower()


def same_phone(ours: str, shown: str | None) -> bool:
    """Return whether a number that M-Pesa shows, whole, masked (`2547 ***** 149`, `0722000***`) or hashed,
    can be ours. False when too little of it is shown to tell."""
    return says_of_phone(ours, shown) is True


def other_phone(ours: str, shown: str | None) -> bool:
    """Return whether a number that M-Pesa shows is surely another one. A hash that fits no known form of ours
    proves nothing: what was hashed is not documented."""
    return says_of_phone(ours, shown) is False


def says_of_phone(ours: str, shown: str | None) -> bool | None:
    """True: it can be ours; False: it is another; None: too little is shown."""
    if shown is None:
        return None
    text = shown.strip().lower()
    if _HASHED.fullmatch(text):
        return True if text in hashes_of(ours) else None
    text = text.replace(" ", "").removeprefix("+").replace("x", "*")
    if text.startswith("0"):
        text = f"254{text[1:]}"
    if len(text) != len(ours):
        return None
    if not all(theirs in ("*", mine) for mine, theirs in zip(ours, text, strict=True)):
        return False
    return True if len(text.replace("*", "")) >= _SHOWN_MIN + len("254") else None


@lru_cache(maxsize=4096)
def hashes_of(phone: str) -> frozenset[str]:
    """Return the SHA-256 of every way in which 2547.. is written."""
    local = phone.removeprefix("254")
    forms = (phone, f"+{phone}", f"0{local}", local)
    return frozenset(hashlib.sha256(form.encode()).hexdigest() for form in forms)
