"""Whether a receipt can be, and is, the receipt of one certain sale.

Rules `id` and `fresh` of docs/internals/evidence.md: a receipt that the unit gave before, or that
differs from the bytes that were sent, is no answer to this sale.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from gateway.clock import from_compact, from_micros, iso
from gateway.domain.outcome import SignedData
from gateway.store import receipts, unit
from gateway.store.invoices import InvoiceRow

# A receipt signed this long before or after the sale was sent is not taken for this sale's: the unit's
# clock and ours may differ a little, a day's difference is another sale. Seconds.
TIME_APART_S = 6 * 3600
_MARK = re.compile(r"\[([0-9A-Z]{26})\]")
# Fields of saveSales that name a sale. Compared as text where the source has them.
_TEXTS = ("custTin", "trdInvcNo", "salesTyCd", "rcptTyCd", "orgInvcNo", "cfmDt")
_LINE_NUMBERS = ("qty", "prc", "totAmt")


@dataclass(frozen=True, slots=True)
class StoredSale:
    """What the unit holds under a number: the receipt and what tells whose it is. Cents; `buyer_pin`
    None for a walk-in; `confirmed_at` (cfmDt) None where the source does not say it; `fields` as the
    source names them, like those of saveSales."""

    data: SignedData
    total_cents: int
    buyer_pin: str | None
    confirmed_at: str | None
    raw: bytes
    fields: Mapping[str, Any]


class Match(StrEnum):
    """Whose sale a stored receipt is."""

    SAME = "SAME"  # provably this sale's
    OTHER = "OTHER"  # provably another sale's
    UNCLEAR = "UNCLEAR"


def whose(row: InvoiceRow, found: StoredSale) -> tuple[Match, str]:
    """Return whose sale `found` is, with the fields that say so.

    This sale's mark, or its till receipt number with the same total, buyer, lines and time, proves
    that it is this sale. A difference in total, buyer, number, type or lines proves that it is not.
    """
    assert row.unit_request is not None
    sent = json.loads(row.unit_request)
    differs = _differences(row, sent, found)
    mark = _mark(found.fields.get("remark"))
    if mark is not None and _mark(sent.get("remark")) is not None:
        if mark != row.id:
            return Match.OTHER, "its mark is another sale's"
        if not differs:
            return Match.SAME, "the same mark, total, buyer and time"
        return Match.UNCLEAR, f"this sale's mark, but {', '.join(differs)} differ"
    if not differs and mark is None and "remark" in found.fields and _mark(sent.get("remark")):
        # Every field alike, and without our mark: another system's sale of the same second, perhaps.
        return Match.UNCLEAR, "it does not carry this sale's mark"
    if differs == ["time"]:
        return Match.UNCLEAR, "the time differs"
    if differs:
        return Match.OTHER, f"{', '.join(differs)} differ"
    if found.fields.get("trdInvcNo") in (None, ""):
        return Match.UNCLEAR, "the source gives no till receipt number"
    return Match.SAME, "the same till receipt number, total, buyer and time"


def _differences(row: InvoiceRow, sent: Mapping[str, Any], found: StoredSale) -> list[str]:
    differs = []
    if found.total_cents != row.total_cents:
        differs.append("total")
    if (found.buyer_pin or None) != (sent.get("custTin") or None):
        differs.append("buyer")
    for name in _TEXTS:
        if name in ("custTin", "cfmDt") or found.fields.get(name) in (None, ""):
            continue
        if str(found.fields[name]).strip() != str(sent.get(name) or 0).strip():
            differs.append(name)
    if _lines(found.fields.get("itemList"), sent.get("itemList")):
        differs.append("lines")
    if not _same_time(sent, found):
        differs.append("time")
    return differs


def _same_time(sent: Mapping[str, Any], found: StoredSale) -> bool:
    """Where the source does not give the time that was sent, the unit's own must be near it."""
    if found.confirmed_at is not None:
        return bool(found.confirmed_at == sent["cfmDt"])
    apart = found.data.scu_time - from_compact(sent["cfmDt"])
    return abs(apart.total_seconds()) <= TIME_APART_S


def _lines(found: Any, sent: Any) -> bool:
    """Return whether the lines are known to differ."""
    if not isinstance(found, list) or not isinstance(sent, list):
        return False
    if len(found) != len(sent):
        return True
    for theirs, ours in zip(found, sent, strict=True):
        if not isinstance(theirs, dict):
            return False
        code = theirs.get("itemCd")
        if code is not None and str(code) != str(ours.get("itemCd")):
            return True
        if any(_number_differs(theirs.get(name), ours.get(name)) for name in _LINE_NUMBERS):
            return True
    return False


def _number_differs(theirs: Any, ours: Any) -> bool:
    if theirs is None:
        return False
    try:
        return Decimal(str(theirs)) != Decimal(str(ours))
    except InvalidOperation:
        return False


def _mark(remark: Any) -> str | None:
    found = _MARK.findall(remark) if isinstance(remark, str) else []
    return found[-1] if found else None


def not_fresh(conn: sqlite3.Connection, data: SignedData) -> str | None:
    """Return why this receipt cannot be the one of a sale that is open now, or None.

    A receipt that another sale has, one that is not above the last counter, and one of another control
    unit belong to another sale.
    """
    last = receipts.last(conn)
    device = unit.device(conn)
    # An id of the settings is no evidence of another unit: it may be mistyped.
    known = device["own_sdc_id"]
    sdc_id = data.sdc_id or device["sdc_id"]
    if last is not None and sdc_id not in (None, last.sdc_id, known) and known is not None:
        return f"the receipt is of another control unit, {sdc_id}"
    counted = receipts.last_counter(conn)
    if last is not None and sdc_id in (None, last.sdc_id) and data.tot_rcpt_no <= counted:
        return f"the receipt's counter {data.tot_rcpt_no} is not above {counted}, the last one here"
    if receipts.by_signature(conn, data.rcpt_sign) is not None:
        return "another sale has this signature"
    return None


def not_now(row: InvoiceRow, data: SignedData) -> str | None:
    """Return why the answer to a request that has just left cannot carry this receipt, or None."""
    sent = from_micros(row.updated_at)
    if abs((data.scu_time - sent).total_seconds()) > TIME_APART_S:
        return f"the receipt's time, {iso(data.scu_time)}, is far from this sale's"
    return None
