"""Whether a captured slip is a sale of its own, or one that was printed before. Pure.

A till that only prints has no keys: what tells one sale from another is its number, what the slip says
of its day, and what was sold. Numbers may start again each day, and a reprint may come after midnight;
where that leaves two answers, a person is asked (docs/operating/capture.md has the table).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from urllib.parse import quote

from gateway import ids
from gateway.clock import EAT, from_micros
from gateway.counter.template import SlipReading
from gateway.store.captures import Captured


@dataclass(frozen=True, slots=True)
class New:
    """A sale of its own, to be sold under this key."""

    key: str


@dataclass(frozen=True, slots=True)
class Again:
    """`earlier` printed once more: a copy once that is signed. It is `unsigned` when it went to the
    list without a receipt: then this slip takes its place."""

    earlier: Captured
    unsigned: bool


@dataclass(frozen=True, slots=True)
class Unclear:
    reason: str


Identity = New | Again | Unclear


def content_of(reading: SlipReading) -> str:
    """A digest of what was sold, whatever else stands on the slip."""
    invoice = reading.invoice or {}
    return ids.digest([invoice.get("lines"), invoice.get("total")])


def day_of(at: int) -> date:
    """The shop's day of an instant (UTC microseconds)."""
    return from_micros(at).astimezone(EAT).date()


def key_of(receipt_no: str, dated: str | None, at: int) -> str:
    """One key per number and day, whatever the reprint looks like. May be too long to be used."""
    return f"capture:{quote(receipt_no, safe='')}:{quote(dated or day_of(at).isoformat(), safe='')}"


def identify(
    reading: SlipReading, total_cents: int, at: int, earlier: Sequence[Captured]
) -> Identity:
    """`earlier`: slips of the same till and number, newest first."""
    assert reading.receipt_no is not None
    key = key_of(reading.receipt_no, reading.dated, at)
    if not ids.is_key(key):
        return Unclear("its number or date is too long")
    content, day = content_of(reading), day_of(at)
    # A reprint's own row says nothing more than the row of the slip it repeats.
    known = [
        (slip, slip.content == content if slip.content else slip.total_cents == total_cents)
        for slip in earlier
        if not slip.reprint
    ]
    if reading.is_copy:
        return _copied(reading, known)
    for slip, alike in known:
        if reading.dated is not None and slip.dated == reading.dated:
            return _again(slip) if alike else _other(slip)
    for slip, alike in known:
        same_day = day_of(slip.at) == day
        if reading.dated is not None and slip.dated is not None:
            if alike and same_day:
                return Unclear(f"it is like slip {slip.id} of today but for its date or time")
        elif same_day:
            return _again(slip) if alike else _other(slip)
        elif alike:
            return Unclear(
                f"slip {slip.id} of {day_of(slip.at):%d/%m/%Y} has the same number and items: "
                "a reprint, or another sale"
            )
    return New(key)


def _copied(reading: SlipReading, known: Sequence[tuple[Captured, bool]]) -> Identity:
    """It says itself that it was printed before: on whatever day, best of a sale that was signed."""
    found = [
        slip
        for slip, alike in known
        if alike and (slip.dated == reading.dated or None in (slip.dated, reading.dated))
    ]
    for slip in sorted(found, key=lambda slip: slip.state not in ("SIGNED", "WAITING")):
        return _again(slip)
    return Unclear("it says it is a copy, of a sale that is not known here")


def _again(slip: Captured) -> Identity:
    if slip.state == "DISMISSED":
        return Unclear(f"it is slip {slip.id} again, which was dismissed")
    if slip.state == "SIGNED" and slip.content is None:
        return Unclear(f"a person sold slip {slip.id} under this number and total")
    if slip.state == "UNREAD" and (slip.idem_key is None or slip.taken):
        return Unclear(f"it is slip {slip.id} again, which waits for a person")
    return Again(slip, unsigned=slip.state == "UNREAD")


def _other(slip: Captured) -> Unclear:
    return Unclear(f"slip {slip.id} has the same number with other items")
