"""Propose a capture template from slips that a technician has marked. Pure.

The proposal is a draft: it is shown with how it reads the slips of the store, and a person puts it into the
configuration. The tax letters are never proposed: only the shop knows which of its marks is which rate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.counter.not_goods import NotGoods
from gateway.counter.slip_reader import LINE_MAX
from gateway.counter.template import Patterns, SlipReading, Template
from gateway.money import ZERO

ROLES = ("item", "item_detail", "total", "receipt", "date", "payment", "vat", "discount", "ignore",
    "not_a_sale", "copies")  # fmt: skip
SINGLE = ("item", "item_detail", "total", "receipt", "date", "payment", "vat", "discount")
# Words of tenders on the slips of tills, and the API's methods.
TENDERS = {"CASH": "CASH", "TASLIMU": "CASH", "M-PESA": "MOBILE_MONEY", "MPESA": "MOBILE_MONEY",
    "AIRTEL MONEY": "MOBILE_MONEY", "CARD": "CARD", "VISA": "CARD", "MASTERCARD": "CARD", "CHEQUE": "BANK_CHECK",
    "CREDIT": "CREDIT"}  # fmt: skip
# Of one slip; a receipt has fewer, and a slip that does not end is no example.
LINES_MAX = 300
_TENDER = "|".join(sorted(map(re.escape, TENDERS), key=len, reverse=True))
_MONEY = r"[0-9][0-9,]*\.[0-9]{2}"
_AT_END = re.compile(
    rf"^(?P<label>.*?\S)(?P<gap> +)-?(?P<amount>{_MONEY})(?P<mark> ?[A-Z*#]{{1,2}})?$"
)
_DETAIL = re.compile(
    rf"^ *(?P<quantity>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>[A-Za-z]{{2,3}})? ?(?P<times>[xX@*]) ?(?P<price>{_MONEY})$"
)
_COLUMNS = re.compile(
    rf"^(?P<name>\S.*?)  +(?P<quantity>[0-9]+(?:\.[0-9]+)?) +(?P<times>[xX@*] *)?(?P<price>{_MONEY})$"
)
_DATE = re.compile(
    r"(?:[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{2,4}|[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[ T]+[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?: ?[AP]M)?)?"
)
_RECEIPT = re.compile(
    r"(?i)^ *(?:RECEIPT|RCPT|INVOICE|INV|BILL|TICKET|SALE|CHECK|TRANS|RISITI)\b[^0-9]*?(?P<number>[0-9][0-9A-Z/-]*) *$"
)
_TOTAL = re.compile(r"(?i)^ *(?:GRAND +)?(?:TOTAL|JUMLA)(?: +DUE| +AMOUNT| +KE?SH?S?\.?)? *:?$")
_VAT = re.compile(r"(?i)\b(?:VAT|TAX|KODI)\b")
_NOT_A_SALE = re.compile(r"(?i)^ *(?:[XZ][ -]?(?:REPORT|READING)|NO SALE) *$")
_COPY = re.compile(r"(?i)\b(?:DUPLICATE|REPRINT|COPY)\b")


@dataclass(frozen=True, slots=True)
class Proposal:
    """Settings of [captures.NAME], and what a person has still to say, a sentence each."""

    settings: Mapping[str, Any]
    open: tuple[str, ...]

    @property
    def template(self) -> Template | None:
        """Return the template of these settings; None while one of its patterns is missing."""
        if any(name not in self.settings for name in ("item", "total", "receipt")):
            return None
        return Template(Patterns(**self.settings))


@dataclass(slots=True)
class Trial:
    """Result of reading slips with a template: counts, and the refused slips with their first reason."""

    sales: int = 0
    not_sales: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reading: SlipReading) -> None:
        if reading.kind == "sale":
            self.sales += 1
        elif reading.kind == "not_a_sale":
            self.not_sales += 1
        else:
            self.refuse(number, reading.problems[0] if reading.problems else "not read")

    def refuse(self, number: int, reason: str) -> None:
        self.refused.append((number, reason))


def lines_of(slips: Iterable[Sequence[str]]) -> list[str]:
    """Return every different line of these slips, in order: a mark on one is a mark on all that are like it."""
    lines = (line.rstrip() for slip in slips for line in slip[:LINES_MAX] if line.strip())
    return list(dict.fromkeys(line for line in lines if len(line) <= LINE_MAX))


def guess(line: str) -> str:
    """Return the role of a line, as far as its form tells; every other line is text to be ignored."""
    if len(line) > LINE_MAX:
        return "ignore"
    if _NOT_A_SALE.search(line):
        return "not_a_sale"
    if _DETAIL.match(line):
        return "item_detail"
    amount = _AT_END.match(line)
    if amount is not None:
        return _guess_of_amount(amount["label"].strip())
    if _RECEIPT.search(line):
        return "receipt"
    if _DATE.search(line):
        return "date"
    return "copies" if _COPY.search(line) else "ignore"


def _guess_of_amount(label: str) -> str:
    if _TOTAL.match(label):
        return "total"
    if re.fullmatch(_TENDER, label.rstrip(" :").upper()):
        return "payment"
    if _VAT.search(label):
        return "vat"
    if re.match(r"(?i)(?:DISCOUNT|DISC|LESS|PUNGUZO)\b", label):
        return "discount"
    columns = _COLUMNS.match(label)
    name = columns["name"] if columns else re.sub(r"^[0-9]{1,3} ?[xX]? +", "", label)
    return "item" if NotGoods().why(name, ZERO, counted=True) is None else "ignore"


def propose(
    slips: Sequence[Sequence[str]],
    roles: Mapping[str, str] | None = None,
    taxes: Mapping[str, str] | None = None,
) -> Proposal:
    """Return a template for these slips. `roles`: what a person says of a line, by its text; the form of
    the line decides else. `taxes`: KRA's letters by the till's marks."""
    by_role: dict[str, list[str]] = {}
    for line in lines_of(slips):
        role = (roles or {}).get(line) or guess(line)
        by_role.setdefault(role, []).append(line)
    found: dict[str, Any] = {}
    open_: list[str] = []
    makers = {
        "item": _item,
        "item_detail": _detail,
        "payment": _payment,
        "receipt": _receipt,
        "date": _date,
        "discount": _discount,
    }
    for role in SINGLE:
        lines = by_role.get(role, [])
        if not lines:
            continue
        made = makers.get(role, _labelled)(lines)
        if made is None:
            open_.append(
                f"No pattern for {role} fits all its lines; the first is: {lines[0].strip()}"
            )
        else:
            found[role] = made
    for role in ("ignore", "not_a_sale", "copies"):
        found[role] = tuple(dict.fromkeys(_text(line) for line in by_role.get(role, [])))
    found["payment_methods"] = _methods(by_role.get("payment", []), open_)
    found["tax_letters"] = _letters(by_role.get("item", []), taxes or {}, open_)
    open_ += [
        f"No line is marked as {role}; mark one with its number."
        for role in ("item", "total", "receipt")
        if role not in by_role
    ]
    return Proposal(found, tuple(open_))


def _item(lines: Sequence[str]) -> str | None:
    parts = [_AT_END.match(line) for line in lines]
    marks = {part["mark"] for part in parts if part is not None and part["mark"]}
    bare = any(part is not None and not part["mark"] for part in parts)
    alternatives = "|".join(sorted({_escaped(mark.strip()) for mark in marks}))
    tax = f" ?(?P<tax>{alternatives}){'?' if bare else ''}" if marks else ""
    gap = "  +" if all(part is not None and len(part["gap"]) > 1 for part in parts) else " +"
    price = rf"(?P<price>{_MONEY})"
    shapes = (
        rf"^(?P<name>\S.*?)  +(?P<quantity>[0-9.]+) +(?:[xX@*] *)?{price} +(?P<amount>{_MONEY}){tax}$",
        rf"^(?P<quantity>[0-9]+) ?[xX]? +(?P<name>\S.*?){gap}(?P<amount>{_MONEY}){tax}$",
        rf"^(?P<name>\S.*?){gap}(?P<amount>{_MONEY}){tax}$",
    )
    return next((shape for shape in shapes if all(re.search(shape, line) for line in lines)), None)


def _detail(lines: Sequence[str]) -> str | None:
    parts = [_DETAIL.match(line) for line in lines]
    units = {part["unit"] for part in parts if part is not None and part["unit"]}
    unit = f" ?(?:{'|'.join(sorted(units))})?" if units else ""
    shape = rf"^ *(?P<quantity>[0-9.]+){unit} ?[xX@*] ?(?P<price>{_MONEY})$"
    return shape if all(re.search(shape, line) for line in lines) else None


def _payment(lines: Sequence[str]) -> str | None:
    labels = {part["label"].strip() for line in lines if (part := _AT_END.match(line))}
    words = "|".join(sorted(map(_escaped, labels), key=len, reverse=True))
    shape = rf"^ *(?P<method>{words}) +(?P<amount>{_MONEY})$"
    return shape if labels and all(re.search(shape, line) for line in lines) else None


def _receipt(lines: Sequence[str]) -> str | None:
    parts = [re.search(r"(?P<number>[0-9][0-9A-Z/-]*) *$", line) for line in lines]
    heads = {line[: part.start()] for line, part in zip(lines, parts, strict=True) if part}
    if None in parts or len(heads) != 1:
        return None
    digits = all(part is not None and part["number"].isdigit() for part in parts)
    return rf"^{_blanks(heads.pop())}(?P<number>{'[0-9]+' if digits else '[0-9A-Z/-]+'}) *$"


def _date(lines: Sequence[str]) -> str | None:
    shapes = set()
    for line in lines:
        part = _DATE.search(line)
        if part is None:
            return None
        form = re.sub(r"[0-9]+", lambda run: f"[0-9]{{{len(run[0])}}}", _escaped(part[0]))
        # A word behind the date, such as a cashier's name, changes.
        end = "" if line[part.end() :].strip() else "$"
        shapes.add(f"^{_blanks(line[: part.start()])}(?P<date>{form}){end}")
    return shapes.pop() if len(shapes) == 1 else None


def _labelled(lines: Sequence[str]) -> str | None:
    """Return a pattern for a label and an amount; other amounts before it may be any."""
    return _shape(lines, "")


def _discount(lines: Sequence[str]) -> str | None:
    return _shape(lines, "-?")


def _shape(lines: Sequence[str], sign: str) -> str | None:
    shapes = set()
    for line in lines:
        part = _AT_END.match(line)
        if part is None:
            return None
        label = _MONEY.join(_blanks(piece) for piece in re.split(_MONEY, part["label"]))
        mark = " ?[A-Z*#]{1,2}" if part["mark"] else ""
        shapes.add(rf"^{label} +{sign}(?P<amount>{_MONEY}){mark}$")
    return shapes.pop() if len(shapes) == 1 else None


def _text(line: str) -> str:
    """Return a pattern for a line of text whose numbers may change; an amount stays an amount."""
    pieces = []
    for piece in re.split(rf"({_MONEY}|[0-9]+)", line.strip()):
        if re.fullmatch(_MONEY, piece):
            pieces.append(_MONEY)
        else:
            pieces.append("[0-9]+" if piece.isdigit() else _blanks(piece))
    rule = re.fullmatch(r"([-=*_.─═])\1{2,}", line.strip())
    return rf"^ *{_escaped(rule[1])}+$" if rule else f"^ *{''.join(pieces)}$"


def _escaped(text: str) -> str:
    """Escape a text without the backslashes that no reader of a pattern needs."""
    return re.escape(text).replace(r"\ ", " ").replace(r"\-", "-")


def _blanks(text: str) -> str:
    """Escape a text; where it has blanks, any number of them may stand."""
    return " +".join(_escaped(piece) for piece in re.split(" +", text))


def _methods(lines: Sequence[str], open_: list[str]) -> dict[str, str]:
    methods = {}
    for line in lines:
        part = _AT_END.match(line)
        label = part["label"].strip() if part else ""
        known = TENDERS.get(label.rstrip(" :").upper())
        if known is None:
            open_.append(f"Write the method of the tender {label!r} into payment_methods.")
        else:
            methods[label] = known
    return methods


def marks_of(lines: Iterable[str]) -> list[str]:
    """Return the till's tax marks of these items; "" for an item without one."""
    return sorted({(part["mark"] or "").strip() for line in lines if (part := _AT_END.match(line))})


def _letters(lines: Sequence[str], taxes: Mapping[str, str], open_: list[str]) -> dict[str, str]:
    marks = set(marks_of(lines))
    for mark in sorted(marks - set(taxes)):
        which = f"the mark {mark!r}" if mark else "an item without a mark"
        open_.append(f"Say which tax letter (A to E) {which} has (--tax {mark}=LETTER).")
    return {mark: taxes[mark] for mark in sorted(marks & set(taxes))}


def to_toml(proposal: Proposal) -> str:
    """Return the settings as lines for a section of the configuration."""
    return "\n".join(
        f"{name} = {_toml(value)}"
        for name, value in proposal.settings.items()
        if value or name == "tax_letters"
    )


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    text = str(value)
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
