"""Words of lines that have an amount and are no article: taxes, balances, rounding, voids, charges. Pure.

Such a line in a sale would be signed as goods. A shop that sells an article of such a name names it in
`goods`; other words of its till go into `not_goods`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from gateway.money import round_amount

# Anywhere in the name, as whole words; a letter after the word ("CHARGER", "CASHEW") makes another word.
ANYWHERE = (
    # Taxes and totals.
    "VAT", r"V\.A\.T\.?", "TAX", "TAXES", "TAXABLE", "VATABLE", "ZERO[ -]?RATED", "EXEMPT(?:ED)?", "LEVY",
    "LEVIES", "EXCISE", "GST", "KODI", "USHURU", "TOTAL", "TOTALS", "SUB[ -]?TOTAL", "JUMLA", "AMOUNT",
    "AMT", "TURNOVER",
    # The answers that were owed before.
    "BALANCE", "BAL", "B/F", "BBF", "C/F", "BROUGHT", "CARRIED", "FORWARD", "ARREARS", "OUTSTANDING",
    "DEBT", "DEBTOR", "CREDIT", "DEBIT", "LOAN", "DUE", "OWED", "OWING", "PREVIOUS", "OPENING", "CLOSING",
    "DEPOSIT", "ADVANCE", "SALIO", "DENI", "AMANA", "PREPAID", "PREPAYMENT",
    # Rounding.
    "ROUNDING", "ROUNDED", "ROUND[ -]?(?:OFF|UP|DOWN)", "RND", "ADJ", "ADJUST", "ADJUSTED", "ADJUSTMENT",
    # Voids and returns.
    "VOID", "VOIDED", "CANCEL", "CANCELLED", "CANCELED", "CANCELLATION", "CORRECTION", "CORRECT",
    "REVERSED", "REVERSAL", "RETURN", "RETURNS", "RETURNED", "REFUND", "REFUNDED", "DELETED", "REMOVED",
    "MAREJESHO", "EXCHANGE", "NEGATIVE",
    # Discounts.
    "DISCOUNT", "DISCOUNTS", "DISCOUNTED", "DSCNT", "DISCT", "COUPON", "VOUCHER", "PUNGUZO", "REDUCTION",
    "REBATE", "SAVING", "SAVINGS", "SAVED", "LOYALTY", "REDEEMED", "PROMO", "PROMOTION", "GIFT CARD",
    # Charges.
    "CHARGE", "CHARGES", "CHRG", "SURCHARGE", "FEE", "FEES", "COST", "COSTS", "COMMISSION", "GRATUITY",
    "TXN", "TRANSACTION", "INTEREST", "PENALTY", "RIBA", "ADA", "GHARAMA", "DELIVERY", "TRANSPORT",
    # Payments.
    "PAID", "PAYMENT", "PAYMENTS", "PAYABLE", "PAY", "TENDER", "TENDERED", "TEND", "CHEQUE", "M-?PESA",
    "AIRTEL MONEY", "MASTERCARD", "TASLIMU", "MALIPO", "CHENJI", "BAKI", "RECEIVED", "CHANGE",
)  # fmt: skip
# At the beginning of a name only: "MOSQUITO NET" and "SIM CARD" are goods.
FIRST = (
    "NET", "GROSS", "DISC", r"DISC\.", "LESS", "CASH", "CARD", "VISA", "POINTS?", "DUTY", "TIPS?$", "ROUND$",
    "SERVICE$", r"SERVICE\b.*%", "SUM$", "MINUS", "REV", r"(?:NO\.? OF )?ITEMS?$", "BONUS", "STAMP DUTY",
    "[A-E]$", r"[A-Z]\b.*%", "[A-Z] ?[:=]", "TILL", "FLOAT", r"\*", "-",
)  # fmt: skip
# A rate of VAT is no part of an article's name.
_RATE = re.compile(r"(?<![\d.])(?:16|14|8|0)(?:\.0+)? ?%")
# An amount, or a number in a column of its own, stands where a name should.
_AMOUNT = re.compile(r"(?<![\d.])\d[\d,]*\.\d\d(?!\w|\.\d)")
_COLUMN = re.compile(r"  +[\d@xX*]")
_TIMES = re.compile(r"(\d+(?:\.\d+)?) ?([xX*@]) ?(\d+(?:\.\d+)?)(?!\w)")
_FOR = re.compile(r"(?<!\w)\d+ ?FOR ?\d", re.IGNORECASE)
_COUNT = re.compile(r"\d{1,3}(?:\.\d+)? ?[xX*@]? +\S")


class NotGoods:
    """Tell which names are no article's. `goods`: patterns of names that are goods all the same."""

    def __init__(self, words: Sequence[str] = (), goods: Sequence[str] = ()) -> None:
        own = [re.escape(word.strip()) for word in words if word.strip()]
        anywhere = "|".join([*ANYWHERE, *own])
        first = "|".join(FIRST)
        self._pattern = re.compile(
            rf"(?<![\w-])(?:{anywhere})(?![\w'])|^(?:{first})(?!\w)", re.IGNORECASE
        )
        self._goods = [re.compile(pattern) for pattern in goods]

    def why(self, name: str, amount: Decimal, *, counted: bool) -> str | None:
        """Return why this line is not taken for an article. `counted`: its quantity is read elsewhere."""
        if any(pattern.search(name) for pattern in self._goods):
            return None
        word = self._pattern.search(name) or _RATE.search(name)
        if word is not None:
            return f"{word.group().strip()!r} is no article; if it is one here, name it in goods"
        if _AMOUNT.search(name) or _COLUMN.search(name) or _FOR.search(name):
            return "there is a number in its name that the item's pattern does not read"
        times = _TIMES.search(name)
        if times is not None:
            product = round_amount(Decimal(times.group(1)) * Decimal(times.group(3)))
            if product == amount or times.group(2) == "@":
                return "its quantity is in its name; the item's pattern must read it"
        if not counted and _COUNT.match(name):
            return (
                "its name begins with a number that may be its quantity; if not, name it in goods"
            )
        return None
