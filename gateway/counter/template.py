"""Reads a captured slip as a sale, by a shop's patterns; certain or not at all. Pure.

Every line must be accounted for by a pattern, the items must make the total, and the receipt must
have a number. Anything less is not a sale that may be signed without a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from gateway.counter.slip_reader import LINE_MAX
from gateway.money import ZERO, parse_amount, parse_quantity, round_amount, text

Kind = Literal["sale", "not_a_sale", "unread"]
# A comma parts thousands only where three digits follow: "1,50" is not read as 150.
_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Patterns:
    """One shop's slips; from settings. Raises re.error when made of bad expressions."""

    item: str
    total: str
    receipt: str
    item_detail: str | None = None
    detail_first: bool = False
    date: str | None = None
    payment: str | None = None
    payment_methods: Mapping[str, str] = field(default_factory=lambda: {"": "CASH"})
    ignore: Sequence[str] = ()
    not_a_sale: Sequence[str] = ()
    copies: Sequence[str] = ()
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
    """`invoice` is the body of POST /v1/invoices for a sale; `problems` why there is none.

    `dated` is what the slip says of its day, as it stands there; `is_copy`: it says it is a copy.
    """

    kind: Kind
    lines: tuple[LineReading, ...]
    problems: tuple[str, ...]
    invoice: Mapping[str, Any] | None = None
    receipt_no: str | None = None
    dated: str | None = None
    is_copy: bool = False


class Template:
    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        roles = [
            *(("copy", pattern) for pattern in patterns.copies),
            ("item_detail", patterns.item_detail),
            ("total", patterns.total),
            ("receipt", patterns.receipt),
            ("date", patterns.date),
            ("payment", patterns.payment),
            *(("ignore", pattern) for pattern in patterns.ignore),
            # Last: an item's pattern is the most general one, and would take a total for an item.
            ("item", patterns.item),
        ]
        self._roles = [(role, re.compile(pattern)) for role, pattern in roles if pattern]
        self._not_a_sale = [re.compile(pattern) for pattern in patterns.not_a_sale]

    def read(self, lines: Sequence[str], doubts: Sequence[str] = ()) -> SlipReading:
        """The slip as a sale, as something else, or unread with every reason. `doubts`: what the
        reader of its bytes did not understand."""
        readings = tuple(self._role(line) for line in lines if line.strip())
        sale = self._sale(readings, list(doubts))
        rest = tuple(line for line in readings if not self._is_mark(line.text))
        if len(rest) == len(readings):
            return sale
        if sale.kind == "sale" or self._sale(rest, list(doubts)).kind == "sale":
            return SlipReading("unread", readings, ("it reads as a sale and as none",))
        marked = tuple(
            LineReading(line.text, "not_a_sale", {}) if self._is_mark(line.text) else line
            for line in readings
        )
        if doubts:
            return SlipReading("unread", marked, tuple(doubts))
        return SlipReading("not_a_sale", marked, ())

    def _is_mark(self, line: str) -> bool:
        return len(line) <= LINE_MAX and any(mark.search(line) for mark in self._not_a_sale)

    def _sale(self, readings: tuple[LineReading, ...], problems: list[str]) -> SlipReading:
        for line in readings:
            if line.role is None:
                problems.append(f"no pattern fits: {line.text[:LINE_MAX]}")
            elif "\N{REPLACEMENT CHARACTER}" in line.text or _has_control(line.text):
                problems.append(f"it is garbled: {line.text[:LINE_MAX]}")
        totals = _values(readings, ("total",), "amount")
        numbers = _values(readings, ("receipt",), "number")
        dates = _values(readings, ("receipt", "date"), "date")
        _one_only(totals, "total", problems)
        _one_only(numbers, "receipt number", problems)
        if dates or self._patterns.date is not None:
            _one_only(dates, "date", problems)
        items = self._items(readings, problems)
        if not items:
            problems.append("there are no items")
        total = _amount(totals[0]) if totals else None
        if total is None and totals:
            problems.append(f"the total is no amount: {totals[0]}")
        summed = sum((item[1] for item in items), ZERO)
        if total is not None and items and summed != total:
            problems.append(f"the items make {text(summed)}, the total is {text(total)}")
        payments = self._payments(readings, total, problems)
        if problems or total is None:
            return SlipReading("unread", readings, tuple(problems))
        invoice: dict[str, Any] = {
            "tillReceiptNo": numbers[0],
            "lines": [body for body, _ in items],
            "total": text(total),
        }
        if payments:
            invoice["payments"] = payments
        copy = any(line.role == "copy" for line in readings)
        dated = dates[0] if dates else None
        return SlipReading("sale", readings, (), invoice, numbers[0], dated, copy)

    def _role(self, line: str) -> LineReading:
        if len(line) <= LINE_MAX:
            for role, pattern in self._roles:
                match = pattern.search(line)
                if match is not None:
                    found = match.groupdict().items()
                    return LineReading(line, role, {name: (v or "").strip() for name, v in found})
        return LineReading(line, None, {})

    def _items(
        self, readings: Sequence[LineReading], problems: list[str]
    ) -> list[tuple[dict[str, Any], Decimal]]:
        items: list[tuple[dict[str, Any], Decimal]] = []
        used: set[int] = set()
        step = -1 if self._patterns.detail_first else 1
        for at, line in enumerate(readings):
            if line.role != "item":
                continue
            extra: Mapping[str, str] = {}
            beside = at + step
            if 0 <= beside < len(readings) and readings[beside].role == "item_detail":
                extra = readings[beside].fields
                used.add(beside)
            given = {name: value for name, value in line.fields.items() if value}
            made = self._item({**line.fields, **extra, **given})
            if isinstance(made, str):
                problems.append(f"{made}: {line.text}")
            else:
                items.append(made)
        problems += [
            f"it belongs to no item: {line.text}"
            for at, line in enumerate(readings)
            if line.role == "item_detail" and at not in used
        ]
        return items

    def _item(self, fields: Mapping[str, str]) -> tuple[dict[str, Any], Decimal] | str:
        amount = _amount(fields.get("amount", ""))
        quantity = _amount(fields.get("quantity") or "1", parse_quantity)
        if amount is None or quantity is None:
            return "its amount or quantity cannot be read"
        given = fields.get("price")
        price = _amount(given) if given else round_amount(amount / quantity)
        if price is None or round_amount(price * quantity) != amount:
            return "price and quantity do not make its amount"
        mark = fields.get("tax", "")
        letter = self._patterns.tax_letters.get(mark)
        if letter is None:
            return f"its tax mark {mark!r} is not in tax_letters"
        name = fields.get("name", "")
        if not name:
            return "it has no name"
        body = {
            "itemCode": self._patterns.item_codes.get(name, self._patterns.item_code),
            "name": name,
            "quantity": f"{quantity.normalize():f}",
            "unitPrice": text(price),
            "taxCode": letter,
        }
        return body, amount

    def _payments(
        self, readings: Sequence[LineReading], total: Decimal | None, problems: list[str]
    ) -> list[dict[str, str]]:
        payments: list[dict[str, str]] = []
        paid = ZERO
        for line in readings:
            if line.role != "payment":
                continue
            amount = _amount(line.fields["amount"])
            mark = line.fields.get("method", "")
            method = self._patterns.payment_methods.get(mark)
            if amount is None:
                problems.append(f"the payment is no amount: {line.text}")
            elif method is None:
                problems.append(f"{mark!r} is not in payment_methods: {line.text}")
            else:
                payments.append({"method": method, "amount": text(amount)})
                paid += amount
        if payments and total is not None and paid < total:
            problems.append(f"{text(paid)} are paid of {text(total)}")
        return payments


def _values(readings: Sequence[LineReading], roles: Sequence[str], group: str) -> list[str]:
    """What stands in a group, each value once."""
    found = [line.fields.get(group, "") for line in readings if line.role in roles]
    return list(dict.fromkeys(value for value in found if value))


def _one_only(values: Sequence[str], what: str, problems: list[str]) -> None:
    if len(values) != 1:
        problems.append(f"there is no {what}" if not values else f"there are several {what}s")


def _has_control(line: str) -> bool:
    return any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in line)


def _amount(raw: str, parse: Any = parse_amount) -> Decimal | None:
    """An amount as tills print it ("1,250.00"); None for anything that could be read in two ways."""
    plain = raw.replace(",", "") if _THOUSANDS.fullmatch(raw) else raw
    try:
        value: Decimal = parse(plain)
    except ValueError:
        return None
    return value
