"""Reads a captured slip as a sale, by a shop's patterns; certain or not at all. Pure.

Every line must be accounted for by a pattern, the items must make the total, and the receipt must
have a number. Anything less is not a sale that may be signed without a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from gateway.money import text

Kind = Literal["sale", "not_a_sale", "unread"]


@dataclass(frozen=True, slots=True)
class Patterns:
    """One shop's slips; from settings. Raises re.error when made of bad expressions."""

    item: str
    total: str
    receipt: str
    item_detail: str | None = None
    cash: str | None = None
    ignore: Sequence[str] = ()
    not_a_sale: Sequence[str] = ()
    tax_letters: Mapping[str, str] = field(default_factory=lambda: {"": "B"})
    item_codes: Mapping[str, str] = field(default_factory=dict)
    item_code: str = "KE2NTXU0000001"


@dataclass(frozen=True, slots=True)
class LineReading:
    """One line and what it was taken for (`item`, `total`, ..., or None: nothing fits)."""

    text: str
    role: str | None
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SlipReading:
    """`invoice` is the body of POST /v1/invoices for a sale; `problems` why there is none."""

    kind: Kind
    lines: tuple[LineReading, ...]
    problems: tuple[str, ...]
    invoice: Mapping[str, Any] | None = None
    receipt_no: str | None = None


class Template:
    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        roles = [
            ("item_detail", patterns.item_detail),
            ("total", patterns.total),
            ("receipt", patterns.receipt),
            ("cash", patterns.cash),
            *(("ignore", pattern) for pattern in patterns.ignore),
            # Last: an item's pattern is the most general one, and would take a total for an item.
            ("item", patterns.item),
        ]
        self._roles = [(role, re.compile(pattern)) for role, pattern in roles if pattern]
        self._not_a_sale = [re.compile(pattern) for pattern in patterns.not_a_sale]

    def read(self, lines: Sequence[str]) -> SlipReading:
        """The slip as a sale, as something else, or unread with every reason."""
        readings = tuple(self._role(line) for line in lines if line.strip())
        if any(p.search(line.text) for line in readings for p in self._not_a_sale):
            return SlipReading("not_a_sale", readings, ())
        problems = [f"no pattern fits: {line.text}" for line in readings if line.role is None]
        totals = [line.fields["amount"] for line in readings if line.role == "total"]
        numbers = [line.fields["number"] for line in readings if line.role == "receipt"]
        if len(set(totals)) != 1:
            problems.append("there is no total" if not totals else "there are several totals")
        if len(set(numbers)) != 1:
            problems.append(
                "there is no receipt number" if not numbers else "there are several receipt numbers"
            )
        items = self._items(readings, problems)
        if not items:
            problems.append("there are no items")
        total = _amount(totals[0]) if totals else None
        if total is None and totals:
            problems.append(f"the total is no amount: {totals[0]}")
        summed = sum((item[1] for item in items), Decimal(0))
        if total is not None and items and summed != total:
            problems.append(f"the items make {text(summed)}, the total is {text(total)}")
        if problems or total is None:
            return SlipReading("unread", readings, tuple(problems))
        invoice: dict[str, Any] = {
            "tillReceiptNo": numbers[0],
            "lines": [body for body, _ in items],
            "total": text(total),
        }
        cash = [_amount(line.fields["amount"]) for line in readings if line.role == "cash"]
        if len(cash) == 1 and cash[0] is not None and cash[0] >= total:
            invoice["payments"] = [{"method": "CASH", "amount": text(cash[0])}]
        return SlipReading("sale", readings, (), invoice, numbers[0])

    def _role(self, line: str) -> LineReading:
        for role, pattern in self._roles:
            match = pattern.search(line)
            if match is not None:
                fields = {name: (value or "").strip() for name, value in match.groupdict().items()}
                return LineReading(line, role, fields)
        return LineReading(line, None, {})

    def _items(
        self, readings: Sequence[LineReading], problems: list[str]
    ) -> list[tuple[dict[str, Any], Decimal]]:
        items: list[tuple[dict[str, Any], Decimal]] = []
        for at, line in enumerate(readings):
            if line.role != "item":
                continue
            detail = readings[at + 1] if at + 1 < len(readings) else None
            extra = detail.fields if detail is not None and detail.role == "item_detail" else {}
            made = self._item({**line.fields, **extra})
            if isinstance(made, str):
                problems.append(f"{made}: {line.text}")
            else:
                items.append(made)
        return items

    def _item(self, fields: Mapping[str, str]) -> tuple[dict[str, Any], Decimal] | str:
        amount = _amount(fields.get("amount", ""))
        quantity = _amount(fields.get("quantity") or "1")
        if amount is None or quantity is None or quantity <= 0 or amount < 0:
            return "its amount or quantity cannot be read"
        price = _amount(fields["price"]) if fields.get("price") else amount / quantity
        if price is None or (price * quantity).quantize(Decimal("0.01")) != amount:
            return "price and quantity do not make its amount"
        mark = fields.get("tax", "")
        letter = self._patterns.tax_letters.get(mark)
        if letter is None:
            return f"its tax mark {mark!r} is not in tax_letters"
        name = fields["name"]
        body = {
            "itemCode": self._patterns.item_codes.get(name, self._patterns.item_code),
            "name": name,
            "quantity": f"{quantity.normalize():f}",
            "unitPrice": text(price),
            "taxCode": letter,
        }
        return body, amount


def _amount(raw: str) -> Decimal | None:
    try:
        value = Decimal(raw.replace(",", "").strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else None
