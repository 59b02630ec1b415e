"""The rules that an operator's decision has to pass, each a small function of evidence.md section 4.

They compare what the operator read on KRA's portal with what this store holds. Every mistake is returned, so
that one try shows all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from gateway.clock import EAT, from_micros
from gateway.errors import FieldError
from gateway.fiscal.identity import TIME_APART_S
from gateway.money import cents, from_cents, text
from gateway.store.invoices import InvoiceRow
from gateway.store.receipts import ReceiptRow

# A portal may show a receipt's time to the minute: a time without seconds stands for the whole minute.
MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class PortalReceipt:
    """A receipt as an operator read it on KRA's portal. `total` in shillings; `scu_time` aware.
    `despite_time`: why this is the sale although the times are far apart (a clock was wrong that day)."""

    rcpt_no: int
    tot_rcpt_no: int
    rcpt_sign: str
    intrl_data: str
    scu_time: datetime
    total: Decimal
    sdc_id: str | None = None
    despite_time: str | None = None


@dataclass(frozen=True, slots=True)
class PartialReceipt:
    """The fields of a `PortalReceipt` that could be read; None where a field has a mistake."""

    tot_rcpt_no: int | None = None
    rcpt_sign: str | None = None
    scu_time: datetime | None = None
    total: Decimal | None = None
    sdc_id: str | None = None
    despite_time: str | None = None


@dataclass(frozen=True, slots=True)
class LastOnPortal:
    """The newest receipt of this control unit on KRA's portal, as an operator read it. `number` 0: the portal
    shows none; `total` in shillings, `time` aware."""

    number: int
    total: Decimal | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Stated:
    """What an operator states with "not signed" or "another sale stands in its place". `searched`: all receipts
    of the day, by total and time, not only by number. `confirmed`: the statement was repeated."""

    reason: str
    last: LastOnPortal
    searched: bool = False
    confirmed: bool = False


def shown_time(at_us: int) -> str:
    """Return an instant in UTC microseconds as the portal shows it: Nairobi time."""
    return f"{from_micros(at_us).astimezone(EAT):%d/%m/%Y %H:%M:%S}"


def copyrow(held: str | None) -> FieldError | None:
    """Refuse to release a sale while store and unit are known to disagree: what the lost store did with it is
    not known."""
    if held is None:
        return None
    says = f"Signing is held: {held}. This sale is settled together with the numbering: decide on the page /unit."
    return FieldError("/choice", "SIGNING_HELD", says)


def contra(duplicate_seen: bool, contradiction: str | None) -> list[FieldError]:
    """Refuse what the control unit itself contradicts."""
    wrong = []
    if duplicate_seen:
        says = (
            "The control unit answered that it has this invoice number already, so the number is used: by this "
            "sale or by another one. Search the portal for both."
        )
        wrong.append(FieldError("/choice", "DUPLICATE_SEEN", says))
    if contradiction is not None:
        says = f"The control unit contradicts this: {contradiction}."
        wrong.append(FieldError("/choice", "CONTRADICTED", says))
    return wrong


def search(stated: Stated, row: InvoiceRow) -> FieldError | None:
    """Demand that the whole day was searched: a lost sale may stand under another invoice number."""
    if stated.searched:
        return None
    total = text(from_cents(row.total_cents))
    says = (
        f"Search all receipts of that day on the portal for the total {total} and the time of this sale. "
        f"To look under invoice number {row.invc_no} only is not enough. Then state it here."
    )
    return FieldError("/searched", "SEARCH_MISSING", says)


def confirmation(stated: Stated, row: InvoiceRow) -> FieldError | None:
    """Demand that the statement is repeated, with its consequence."""
    if stated.confirmed:
        return None
    total, sold = text(from_cents(row.total_cents)), shown_time(row.created_at)
    says = (
        f"You state that KRA has no receipt of {total} KES of {sold}. If it has one, this sale is signed and taxed "
        "twice. Confirm it once more."
    )
    return FieldError("/confirmed", "CONFIRMATION_MISSING", says)


def confirmation_of_other(stated: Stated) -> FieldError | None:
    """Demand that the third choice is repeated: it stops all tills until the numbering is decided."""
    if stated.confirmed:
        return None
    says = (
        "You state that sales are missing in this gateway's store. All tills stop until the numbering is decided "
        "on the page /unit, and this sale is never signed under its key. Confirm it once more."
    )
    return FieldError("/confirmed", "CONFIRMATION_MISSING", says)


def is_known_here(last: LastOnPortal, own: Sequence[ReceiptRow]) -> bool:
    """Return whether the portal's newest receipt is one of `own`.

    By invoice number, total and time; or by one of the unit's own numbers where the time agrees to the second,
    since a portal may show that number instead.
    """
    return any(
        not _differs(last, each)
        and (
            last.number == each.invc_no
            or (last.number in (each.rcpt_no, each.tot_rcpt_no) and last.time == _time(each))
        )
        for each in own
    )


def portal_agrees(
    row: InvoiceRow, own: Sequence[ReceiptRow], last: LastOnPortal
) -> list[FieldError]:
    """Return why the portal's newest receipt does not show that nothing was signed after our own newest.

    `own`: our receipts from the newest back to the newest that is no training or proforma receipt, which a
    portal may not show. A number between ours and this sale's was given up or used before this store.
    """
    assert row.invc_no is not None
    newest = max((each.invc_no for each in own), default=0)
    if last.number >= row.invc_no:
        return [_beyond(row, last)]
    if is_known_here(last, own) or (not own and last.number == 0):
        return []
    if last.number > newest:
        return []
    same = [each for each in own if each.invc_no == last.number]
    if same:
        return _differs(last, same[0])
    says = (
        "The gateway has signed a later receipt than that. Either it is not on the portal yet, or this is not "
        "the portal's newest receipt. Look again."
    )
    return [FieldError("/lastInvcNo", "PORTAL_BEHIND", says)]


def another_sale(
    own: Sequence[ReceiptRow], last: LastOnPortal, *, contradicted: bool
) -> list[FieldError]:
    """Return why the receipt that the operator names is no other sale: this store signed it itself."""
    if contradicted or not (is_known_here(last, own) or last.number == 0):
        return []
    says = (
        "This gateway has that receipt itself, so it is no other sale. Give the receipt that stands in this "
        "sale's place, or say that the portal does not have this sale."
    )
    return [FieldError("/lastInvcNo", "KNOWN_HERE", says)]


def receipt_of_sale(
    row: InvoiceRow,
    seen: PartialReceipt,
    *,
    known_sdc_id: str | None,
    number_taken: bool,
    signature_taken: bool,
) -> list[FieldError]:
    """Return why a receipt on the portal cannot be this sale's. Only the fields that could be read count."""
    wrong = []
    if seen.total is not None and cents(seen.total) != row.total_cents:
        total = text(from_cents(row.total_cents))
        wrong.append(FieldError("/total", "TOTAL_DIFFERS", f"This sale's total is {total}."))
    if seen.scu_time is not None and seen.despite_time is None and _far_apart(row, seen.scu_time):
        sold = shown_time(row.created_at)
        says = f"This sale was made at {sold}. If a clock was wrong then, say why the time differs."
        wrong.append(FieldError("/scuTime", "TIME_DIFFERS", says))
    if seen.sdc_id is None and known_sdc_id is None:
        # It stands on the receipt and in its QR; only the portal shows the first one of a shop.
        says = "Copy the SCU ID from the portal as well: the control unit has not reported its own yet."
        wrong.append(FieldError("/sdcId", "MISSING", says))
    elif seen.sdc_id is not None and known_sdc_id not in (None, seen.sdc_id):
        wrong.append(FieldError("/sdcId", "OTHER_UNIT", f"This shop's unit is {known_sdc_id}."))
    if number_taken:
        says = "Another sale has this total receipt number."
        wrong.append(FieldError("/totRcptNo", "NUMBER_TAKEN", says))
    if signature_taken:
        says = "Another sale has this receipt signature."
        wrong.append(FieldError("/rcptSign", "SIGNATURE_TAKEN", says))
    return wrong


def _far_apart(row: InvoiceRow, scu_time: datetime) -> bool:
    apart_s = abs((scu_time - from_micros(row.updated_at)).total_seconds())
    earlier_s = (from_micros(row.created_at) - scu_time).total_seconds()
    return min(apart_s, abs(earlier_s)) > TIME_APART_S


def _beyond(row: InvoiceRow, last: LastOnPortal) -> FieldError:
    ours = last.total is not None and cents(last.total) == row.total_cents
    if ours and last.number == row.invc_no:
        says = (
            "The portal shows this sale's invoice number and total: enter it as this sale's receipt. If it is "
            "another customer's, choose that another sale stands in its place."
        )
        return FieldError("/lastInvcNo", "PORTAL_SHOWS_THIS_SALE", says)
    says = (
        f"The portal shows a receipt that this gateway does not have, under number {last.number}. Choose that "
        "another sale stands in this sale's place."
    )
    return FieldError("/lastInvcNo", "PORTAL_SHOWS_ANOTHER_SALE", says)


def _differs(last: LastOnPortal, own: ReceiptRow) -> list[FieldError]:
    wrong = []
    if last.total is None or abs(cents(last.total)) != abs(own.total_cents):
        says = (
            "The gateway's own receipt of this number has another total. Look at the portal again."
        )
        wrong.append(FieldError("/lastTotal", "TOTAL_DIFFERS", says))
    if last.time is None or not _same_time(last.time, _time(own)):
        says = (
            "The gateway's own receipt of this number has another time. Look at the portal again."
        )
        wrong.append(FieldError("/lastTime", "TIME_DIFFERS", says))
    return wrong


def _same_time(shown: datetime, signed: datetime) -> bool:
    if shown.second == 0:
        return 0 <= (signed - shown).total_seconds() < MINUTE_S
    return shown == signed


def _time(own: ReceiptRow) -> datetime:
    return own.receipt.scu_time
