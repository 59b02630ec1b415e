"""The number of an M-Pesa receipt: ten letters and digits, of which the first three tell the day. Pure."""

from __future__ import annotations

import re
from datetime import date

_FORM = re.compile(r"[A-Z]{1}[A-L][1-9A-V][A-Z0-9]{7}", re.ASCII)
_YEAR_OF_A = 2006
_DAYS = "123456789ABCDEFGHIJKLMNOPQRSTUV"


def day_of(receipt: str) -> date | None:
    """The day in Nairobi on which it was made (daraja.md 2.2: seen, not promised, so good for a question
    and for no refusal). None: it does not tell."""
    if _FORM.fullmatch(receipt) is None:
        return None
    year, month = _YEAR_OF_A + ord(receipt[0]) - ord("A"), ord(receipt[1]) - ord("A") + 1
    try:
        return date(year, month, _DAYS.index(receipt[2]) + 1)
    except ValueError:
        return None
