"""KRA's lists as the unit serves them, and the registers it takes: items, stock moves, stock levels.

Paths and fields of etims.md 2.1. Reads are incremental by `lastReqDt`, which the caller keeps
(VSCU spec 2.2, point 3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.clock import compact
from gateway.vscu.client import CallFailed, UnitClient
from gateway.vscu.codes import Proof, proof, words

log = logging.getLogger(__name__)

SUCCESS, EMPTY = "000", "001"


@dataclass(frozen=True, slots=True)
class ListPage:
    """One answer: rows as (key, JSON-ready body), and the watermark to ask with next."""

    rows: list[tuple[str, dict[str, Any]]]
    watermark: str | None


@dataclass(frozen=True, slots=True)
class Registered:
    """The unit took it, or had it already."""


@dataclass(frozen=True, slots=True)
class NotRegistered:
    """Not taken. `final`: it never will be as it is."""

    reason: str
    final: bool


def _by(*fields: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: "-".join(str(row[name]) for name in fields)


def _codes(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Classes with their codes inside them, flattened: one row a code, its class beside it."""
    for part in data["clsList"]:
        for code in part.get("dtlList") or []:
            yield {"cdCls": part["cdCls"], "cdClsNm": part.get("cdClsNm"), **code}


def _rows(name: str) -> Callable[[Mapping[str, Any]], Iterator[dict[str, Any]]]:
    return lambda data: iter(data.get(name) or [])


# List's name in our API: the unit's path, where its rows are, what tells them apart.
LISTS = {
    "codes": ("selectCodes", _codes, _by("cdCls", "cd")),
    "item-classes": ("selectItemsClass", _rows("itemClsList"), _by("itemClsCd")),
    "branches": ("selectBranches", _rows("bhfList"), _by("bhfId")),
    "notices": ("selectNotices", _rows("noticeList"), lambda row: f"{int(row['noticeNo']):012d}"),
    "items": ("selectItems", _rows("itemList"), _by("itemCd")),
    "imports": ("selectImportItems", _rows("itemList"), _by("taskCd", "dclDe", "itemSeq")),
    "purchases": (
        "selectTrnsPurchaseSales",
        _rows("saleList"),
        _by("spplrTin", "spplrBhfId", "spplrInvcNo"),
    ),
    "stock-moves": ("selectStockItems", _rows("stockList"), _by("custTin", "custBhfId", "sarNo")),
}


class UnitLists:
    """Reads and registers through one unit."""

    def __init__(self, client: UnitClient) -> None:
        self._client = client

    async def page(self, name: str, since: str) -> ListPage | str:
        """What changed in a list since the watermark; a str says why it cannot be had now."""
        path, rows_of, key_of = LISTS[name]
        answer = await self._client.call(path, {"lastReqDt": since})
        if isinstance(answer, CallFailed):
            return answer.reason
        if answer.code == EMPTY:
            return ListPage([], None)
        if answer.code != SUCCESS:
            return words(answer.code or "", answer.message)
        rows = []
        try:
            for row in rows_of(answer.data):
                try:
                    rows.append((key_of(row), plain(row)))
                except (KeyError, TypeError, ValueError):
                    # One bad row of KRA's must not stop the list for good.
                    log.warning("reference.row_skipped list=%s row=%.200s", name, row)
        except (KeyError, TypeError, AttributeError) as error:
            return f"the answer cannot be read ({type(error).__name__})"
        return ListPage(rows, compact(answer.result_dt) if answer.result_dt else None)

    async def customer(self, pin: str) -> dict[str, Any] | str | None:
        """The taxpayer of `pin` as KRA knows him, None when it knows none; a str says why not."""
        answer = await self._client.call("selectCustomer", {"custmTin": pin}, timeout_s=5)
        if isinstance(answer, CallFailed):
            return answer.reason
        if answer.code == EMPTY:
            return None
        if answer.code != SUCCESS:
            return words(answer.code or "", answer.message)
        try:
            found = answer.data["custList"]
            return plain(found[0]) if found else None
        except (KeyError, TypeError, IndexError):
            return "the answer cannot be read"

    async def register(self, kind: str, body: bytes) -> Registered | NotRegistered:
        """Send one item, stock move or stock level, exactly these bytes, once."""
        answer = await self._client.post(kind, body)
        if isinstance(answer, CallFailed):
            return NotRegistered(answer.reason, final=False)
        if answer.code == SUCCESS:
            return Registered()
        if answer.code is None:
            return NotRegistered(answer.message, final=answer.status in (400, 404, 405))
        match proof(answer.code):
            case Proof.DUPLICATE:
                return Registered()
            case Proof.REFUSED:
                return NotRegistered(words(answer.code, answer.message), final=True)
            case _:
                return NotRegistered(words(answer.code, answer.message), final=False)


def plain(value: Any) -> Any:
    """JSON-ready: Decimals as text, as everywhere in the API."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(member) for member in value]
    return value
