"""The unit's own SQLite database as a witness: opened read-only, asked with a configured query.

The sister builds keep every signed sale in such a file, answers to lost requests included (etims.md
8.3, ZRA). Whether Kenya's does, and under which names, is not published; so path and query are
settings, without a default. One connection per question: the file belongs to the unit.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

from gateway.vscu.client import StoredAnswer
from gateway.vscu.wire import receipt_data

# The unit writes while we read; then it is asked again at the resolver's next look. Seconds.
BUSY_S = 1.0
# A query that scans a large file must not hold the resolver: SQLite instructions, in thousands.
PROGRESS_LIMIT = 50_000


class UnitDatabase:
    """`sale_query` takes :invcNo and returns columns named as in `saveSales` and its answer:
    rcptNo, totRcptNo, intrlData, rcptSign, vsdcRcptPbctDate, totAmt, and where there are any
    custTin, cfmDt, sdcId, mrcNo. `counter_query` returns the last totRcptNo in its only column."""

    def __init__(self, path: Path, sale_query: str | None, counter_query: str | None) -> None:
        self._path = path
        self._sale_query = sale_query
        self._counter_query = counter_query

    async def read_back(self, invc_no: int) -> StoredAnswer | str | None:
        """The stored sale; None when there is no row; a str when the file cannot tell."""
        if self._sale_query is None:
            return "no query for a sale is configured"
        found = await self._ask(self._sale_query, {"invcNo": invc_no})
        if found is None or isinstance(found, str):
            return found
        data = receipt_data(found)
        if isinstance(data, str):
            return f"the row under invcNo {invc_no} cannot be used: {data}"
        return StoredAnswer(data, found, json.dumps(found, default=str).encode())

    async def last_counter(self) -> int | str:
        """The unit's last totRcptNo (0 for none yet); a str says why it cannot be told."""
        if self._counter_query is None:
            return "no query for the counter is configured"
        found = await self._ask(self._counter_query, {})
        if isinstance(found, str):
            return found
        try:
            value = next(iter((found or {}).values()), None)
            return int(value or 0)
        except ValueError:
            return "the counter is not a number"

    async def _ask(self, query: str, values: dict[str, Any]) -> dict[str, Any] | str | None:
        return await asyncio.to_thread(self._ask_now, query, values)

    def _ask_now(self, query: str, values: dict[str, Any]) -> dict[str, Any] | str | None:
        steps = 0

        def too_long() -> int:
            nonlocal steps
            steps += 1
            return int(steps > PROGRESS_LIMIT)

        try:
            conn = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=BUSY_S)
        except sqlite3.Error as error:
            return f"the unit's database cannot be opened: {error}"
        try:
            conn.row_factory = sqlite3.Row
            conn.execute("PRAGMA query_only = 1")
            conn.set_progress_handler(too_long, 1000)
            row = conn.execute(query, values).fetchone()
            return None if row is None else dict(row)
        except sqlite3.Error as error:
            return f"the unit's database cannot be read: {error}"
        finally:
            conn.close()
