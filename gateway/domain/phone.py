"""Phone numbers that M-Pesa can ask for money: 2547.. and 2541.., twelve digits. Pure."""

from __future__ import annotations

import re

# Safaricom's ranges grow, so the first digit decides and no list of prefixes (daraja.md 2).
_NUMBER = re.compile(r"(?:\+?254|0)([17][0-9]{8})", re.ASCII)
# What people write between the digits.
_BETWEEN = re.compile(r"[ \-().]")


def normal_phone(text: str) -> str | None:
    """`0712 345 678`, `+254712345678`, `254712345678` -> `254712345678`. None: no such number, and none is
    guessed (a number with a digit too few is somebody else's)."""
    found = _NUMBER.fullmatch(_BETWEEN.sub("", text.strip()))
    return f"254{found[1]}" if found else None
