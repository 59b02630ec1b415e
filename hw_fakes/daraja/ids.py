"""Numbers as Daraja makes them (daraja.md 2.2): checkout ids with the phone inside, receipts with the date inside."""

from __future__ import annotations

import random
import string
from datetime import datetime

LETTERS = string.ascii_uppercase
# A=10 .. V=31; the days 1 to 9 are themselves.
DAYS = "123456789" + LETTERS
OPAQUE = LETTERS + string.digits


class Ids:
    """Every number once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._given: set[str] = set()

    def _hex(self, length: int) -> str:
        return "".join(self._rng.choice("0123456789abcdef") for _ in range(length))

    def _digits(self, length: int) -> str:
        return str(self._rng.randrange(10 ** (length - 1), 10**length))

    def checkout(self, at: datetime, phone: str) -> str:
        milli = at.microsecond // 1000
        while True:
            made = f"ws_CO_{at:%d%m%Y%H%M%S}{milli:03d}{phone[-9:]}"
            if made not in self._given:
                self._given.add(made)
                return made
            milli = (milli + 1) % 1000

    def merchant_request(self) -> str:
        return f"{self._hex(4)}-{self._hex(4)}-{self._hex(4)}-{self._hex(12)}{self._digits(6)}"

    def request(self) -> str:
        return f"{self._digits(5)}-{self._digits(6)}-1"

    def conversation(self, at: datetime) -> str:
        return f"AG_{at:%Y%m%d}_{self._hex(20)}"

    def receipt(self, at: datetime) -> str:
        while True:
            head = LETTERS[at.year - 2006] + LETTERS[at.month - 1] + DAYS[at.day - 1]
            made = head + "".join(self._rng.choice(OPAQUE) for _ in range(7))
            if made not in self._given:
                self._given.add(made)
                return made

    def token(self) -> str:
        return "".join(self._rng.choice(string.ascii_letters + string.digits) for _ in range(28))
