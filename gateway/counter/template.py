"""Read a captured slip as a sale, by a shop's patterns; certain or not at all. Pure.

Every line must be accounted for by a pattern, no item may be a tax, a balance or a charge, the items must
make the total and the VAT that the slip shows, and the receipt must have a number. Anything less is not a
sale that may be signed without a person.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from gateway.counter.not_goods import NotGoods
from gateway.counter.slip_reader import LINE_MAX
from gateway.domain.tax import DEFAULT_RATES, RateTable, tax_of
from gateway.money import CENT, ZERO, parse_amount, parse_quantity, round_amount, text

Kind = Literal["sale", "not_a_sale", "unread"]
# A comma parts thousands only where three digits follow: "1,50" is not read as 150.
# Stands for a slip without text.
PICTURE = re.compile(r"\[[^\]]*\]")
# An amount that a pattern for a line without one leaves over.
_AMOUNT = re.compile(r"\d[.,]\d\d(?!\d)")
# Lines that hold no article: what such a pattern does not cover of its line must be no amount.
_BESIDE = ("ignore", "copy", "date", "receipt")
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
    discount: str | None = None
    vat: str | None = None
    goods: Sequence[str] = ()
    not_goods: Sequence[str] = ()
    tax_letters: Mapping[str, str] = field(default_factory=dict)
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


@dataclass(frozen=True, slots=True)
class _Item:
    """One line of the invoice, and what it adds to the total."""

    body: dict[str, Any]
    amount: Decimal


class Template:
    """`rates`: KRA's tax rates, which the slip's own VAT is compared with."""

    def __init__(self, patterns: Patterns, rates: RateTable = DEFAULT_RATES) -> None:
        self._patterns = patterns
        self.rates = rates
        self._not_goods = NotGoods(patterns.not_goods, patterns.goods)
        roles = [
            *(("copy", pattern) for pattern in patterns.copies),
            ("item_detail", patterns.item_detail),
            ("total", patterns.total),
            ("receipt", patterns.receipt),
            ("date", patterns.date),
            ("payment", patterns.payment),
            ("vat", patterns.vat),
            ("discount", patterns.discount),
            *(("ignore", pattern) for pattern in patterns.ignore),
            # Last: an item's pattern is the most general one, and would take a total for an item.
            ("item", patterns.item),
        ]
        self._roles = [(role, re.compile(pattern)) for role, pattern in roles if pattern]
        self._not_a_sale = [re.compile(pattern) for pattern in patterns.not_a_sale]

    def read(self, lines: Sequence[str], doubts: Sequence[str] = ()) -> SlipReading:
        """Return the slip as a sale, as something else, or unread with every reason. `doubts`: what the
        reader of its bytes did not understand."""
        readings = tuple(self._role(line) for line in lines if line.strip())
        if doubts and all(PICTURE.fullmatch(line.text) for line in readings):
            return SlipReading("unread", readings, tuple(doubts))
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
        summed = sum((item.amount for item in items), ZERO)
        if total is not None and items and summed != total:
            problems.append(f"the items make {text(summed)}, the total is {text(total)}")
        self._check_vat(readings, items, problems)
        payments = self._payments(readings, total, problems)
        if problems or total is None:
            return SlipReading("unread", readings, tuple(problems))
        invoice: dict[str, Any] = {
            "tillReceiptNo": numbers[0],
            "lines": [item.body for item in items],
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
                if match is None or (role in _BESIDE and _AMOUNT.search(_outside(match, line))):
                    continue
                found = match.groupdict().items()
                return LineReading(line, role, {name: (v or "").strip() for name, v in found})
        return LineReading(line, None, {})

    def _items(self, readings: Sequence[LineReading], problems: list[str]) -> list[_Item]:
        items: list[_Item] = []
        used: set[int] = set()
        # Where the item above ends, for a discount that stands below it.
        below = -1
        last_discount = None
        for at, line in enumerate(readings):
            if line.role == "discount":
                if at == below and items:
                    items[-1], last_discount = _reduced(items[-1], line, problems), line
                else:
                    problems.append(f"a discount that belongs to no item: {line.text}")
            if line.role != "item":
                continue
            extra: Mapping[str, str] = {}
            beside = at - 1 if self._patterns.detail_first else at + 1
            if 0 <= beside < len(readings) and readings[beside].role == "item_detail":
                extra = readings[beside].fields
                used.add(beside)
            below = max(at, beside if beside in used else at) + 1
            given = {name: value for name, value in line.fields.items() if value}
            made = self._item({**line.fields, **extra, **given})
            if isinstance(made, str):
                problems.append(f"{made}: {line.text}")
            else:
                items.append(made)
                last_discount = None
        if last_discount is not None and len({item.body["taxCode"] for item in items}) > 1:
            # With one tax rate both are the same sale.
            problems.append(f"a discount of one item or of the whole sale: {last_discount.text}")
        problems += [
            f"it belongs to no item: {line.text}"
            for at, line in enumerate(readings)
            if line.role == "item_detail" and at not in used
        ]
        return items

    def _item(self, fields: Mapping[str, str]) -> _Item | str:
        amount = _amount(fields.get("amount", ""))
        quantity = _amount(fields.get("quantity") or "1", parse_quantity)
        if amount is None or quantity is None:
            return "its amount or quantity cannot be read"
        given = fields.get("price")
        price = _amount(given) if given else round_amount(amount / quantity)
        if price is None or round_amount(price * quantity) != amount:
            return "price and quantity do not make its amount"
        name = fields.get("name", "")
        if not name:
            return "it has no name"
        counted = bool(fields.get("quantity"))
        why = self._not_goods.why(name, amount, counted=counted)
        if why is None and name in self._patterns.tax_letters:
            why = f"{name!r} is a tax mark"
        if why is not None:
            return why
        mark = fields.get("tax", "")
        letter = self._patterns.tax_letters.get(mark)
        if letter is None:
            return f"its tax mark {mark!r} is not in tax_letters"
        body = {
            "itemCode": self._patterns.item_codes.get(name, self._patterns.item_code),
            "name": name,
            "quantity": f"{quantity.normalize():f}",
            "unitPrice": text(price),
            "taxCode": letter,
        }
        return _Item(body, amount)

    def _check_vat(
        self, readings: Sequence[LineReading], items: Sequence[_Item], problems: list[str]
    ) -> None:
        """Compare the VAT that the slip shows with the VAT of its items."""
        shown: dict[str | None, Decimal] = {}
        lines = [line for line in readings if line.role == "vat"]
        for line in lines:
            amount = _amount(line.fields.get("amount", ""))
            mark = line.fields.get("tax") if "tax" in line.fields else None
            letter = None if mark is None else self._patterns.tax_letters.get(mark)
            if amount is None or (mark is not None and letter is None):
                problems.append(f"the VAT cannot be read: {line.text}")
                return
            shown[letter] = shown.get(letter, ZERO) + amount
        for letter, amount in shown.items():
            taxed = [item for item in items if letter in (None, item.body["taxCode"])]
            by_letter: dict[str, Decimal] = {}
            for item in taxed:
                code = str(item.body["taxCode"])
                by_letter[code] = by_letter.get(code, ZERO) + item.amount
            tax = sum(
                (tax_of(gross, self.rates[c].percent) for c, gross in by_letter.items()), ZERO
            )
            # A till may round each line.
            if abs(tax - amount) > CENT * max(1, len(taxed)):
                of = f" of {letter}" if letter else ""
                problems.append(
                    f"the VAT{of} of the items is {text(tax)}, the slip says {text(amount)}: {lines[0].text}"
                )

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


def _reduced(item: _Item, line: LineReading, problems: list[str]) -> _Item:
    """Take the discount below an item off that item."""
    discount = _amount(line.fields.get("amount", ""))
    if discount is None or discount > item.amount or "discountAmount" in item.body:
        problems.append(f"the discount cannot be read: {line.text}")
        return item
    return _Item({**item.body, "discountAmount": text(discount)}, item.amount - discount)


def _outside(match: re.Match[str], line: str) -> str:
    """Return the part of a line that its pattern does not cover."""
    return line[: match.start()] + "\n" + line[match.end() :]


def _values(readings: Sequence[LineReading], roles: Sequence[str], group: str) -> list[str]:
    """Return the values of a group, each once."""
    found = [line.fields.get(group, "") for line in readings if line.role in roles]
    return list(dict.fromkeys(value for value in found if value))


def _one_only(values: Sequence[str], what: str, problems: list[str]) -> None:
    if len(values) != 1:
        problems.append(f"there is no {what}" if not values else f"there are several {what}s")


def _has_control(line: str) -> bool:
    return any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in line)


def _amount(raw: str, parse: Any = parse_amount) -> Decimal | None:
    """Return an amount as tills print it ("1,250.00"); None for anything that could be read in two ways."""
    plain = raw.replace(",", "") if _THOUSANDS.fullmatch(raw) else raw
    try:
        value: Decimal = parse(plain)
    except ValueError:
        return None
    return value
