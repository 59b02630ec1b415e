"""Tax letters A to E and the split of a VAT-inclusive amount.

Rates come from the unit's `selectCodes` class 04 (`userDfnCd1`), never from this file in service:
petrol moved to 8 % and bread is exempt, and both were changed by KRA, not by a release. DEFAULT_RATES
are what a gateway uses before the unit has ever answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from gateway.money import ZERO, round_amount

LETTERS = ("A", "B", "C", "D", "E")


@dataclass(frozen=True, slots=True)
class TaxRate:
    """One row of code class 04: letter, percent, KRA's name and the short form printed on lines."""

    letter: str
    percent: Decimal
    name: str
    short: str


RateTable = Mapping[str, TaxRate]

DEFAULT_RATES: dict[str, TaxRate] = {
    "A": TaxRate("A", Decimal(0), "A-Exempt", "A-EX"),
    "B": TaxRate("B", Decimal(16), "B-VAT 16%", "B-16%"),
    "C": TaxRate("C", Decimal(0), "C-Zero Rated", "TAX C"),
    "D": TaxRate("D", Decimal(0), "D-Non VAT", "TAX D"),
    "E": TaxRate("E", Decimal(8), "E-VAT 8%", "E-8%"),
}


def tax_of(gross: Decimal, percent: Decimal) -> Decimal:
    """Tax inside a VAT-inclusive line total, half up to the cent (etims.md 5.6, KRA samples).

    On the line total, never per unit times quantity: 7 x 33.33 at 16 % is 32.18, not 32.20.
    """
    if percent == 0:
        return ZERO
    return round_amount(gross * percent / (100 + percent))


@dataclass(frozen=True, slots=True)
class LetterTotal:
    """Sums of one tax letter over an invoice: gross = net + tax, in shillings."""

    letter: str
    percent: Decimal
    gross: Decimal
    net: Decimal
    tax: Decimal
