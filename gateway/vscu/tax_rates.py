"""Read tax rates from `selectCodes.data`: class 04, `userDfnCd1` is the percent (etims.md 5.2).

Each row is judged alone: a row that cannot be read without a doubt is refused and named, the others count.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.domain.tax import LETTERS, TaxRate

# Up to 100, with the two decimals that taxRtA to taxRtE can carry.
_PERCENT = re.compile(r"0*(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,2}0*)?)")
_NAME_MAX = 60


@dataclass(frozen=True, slots=True)
class RatesRead:
    """The good rows by letter, and a sentence part for every row that was refused or is missing."""

    rates: Mapping[str, TaxRate]
    problems: tuple[str, ...]


def tax_rates_of(data: Any) -> RatesRead | None:
    """Return the rates in `data`, None where it has no list of class 04 at all."""
    rows = _rows(data)
    if rows is None:
        return None
    found: dict[str, TaxRate] = {}
    problems: list[str] = []
    spoilt: set[str] = set()
    for row in rows:
        rate = _rate(row)
        if isinstance(rate, str):
            problems.append(rate)
            spoilt.add(_text(row.get("cd")) if isinstance(row, dict) else "")
        elif rate is not None:
            before = found.setdefault(rate.letter, rate)
            if before.percent != rate.percent:
                problems.append(f"letter {rate.letter} is listed with two different rates")
                spoilt.add(rate.letter)
    good = {letter: rate for letter, rate in found.items() if letter not in spoilt}
    problems += [
        f"letter {letter} is not in the list"
        for letter in LETTERS
        if letter not in good and letter not in spoilt
    ]
    return RatesRead(good, tuple(problems))


def _rows(data: Any) -> list[Any] | None:
    classes = data.get("clsList") if isinstance(data, dict) else None
    for each in classes if isinstance(classes, list) else ():
        if isinstance(each, dict) and _text(each.get("cdCls")) in ("04", "4"):
            rows = each.get("dtlList")
            return rows if isinstance(rows, list) and rows else None
    return None


def _rate(row: Any) -> TaxRate | str | None:
    """Return the rate of a row, why it is refused, or None for a row that is not in use."""
    if not isinstance(row, dict):
        return "a row is not an object"
    letter = _text(row.get("cd"))
    if _text(row.get("useYn")) == "N":
        return None
    if letter not in LETTERS:
        return f"letter {letter[:5] or 'without a name'} is not known to this gateway"
    given = row.get("userDfnCd1")
    text = f"{given:f}" if isinstance(given, Decimal) and given.is_finite() else _text(given)
    if not _PERCENT.fullmatch(text):
        return f"letter {letter} has no rate between 0 and 100 ({text[:20] or 'empty'})"
    name = _text(row.get("cdNm"))[:_NAME_MAX] or letter
    short = _text(row.get("userDfnCd2"))[:_NAME_MAX] or name
    return TaxRate(letter, Decimal(text), name, short)


def _text(value: Any) -> str:
    """Return a member as plain text; "" for null and for what is neither text nor a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Decimal)):
        return ""
    return "".join(char for char in str(value) if char.isprintable()).strip()
