"""Checks whether the store is what was written: rows against their digests, tables against their indexes, receipts
against their chain.

SQLite's `quick_check` compares no index with its table, and neither of its checks knows that a byte of a stored
answer has changed. Everything here reads slices, so that it can run beside selling and goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gateway.store import invoices, meta, receipts

# What is checked before the first sale of each start. Rows.
NEWEST = 200
# Tables of few rows that every sale depends on.
SMALL = ("unit", "meta", "continuity")
_WHERE = re.compile(r"\)\s*WHERE\s+(.*)$", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Index:
    """One index: its columns in order (empty for an expression), and its condition if it is partial."""

    name: str
    columns: tuple[str, ...]
    condition: str


def at_start(conn: sqlite3.Connection) -> str | None:
    """Return the first problem among what the next sales depend on. The work does not grow with the store."""
    for table in SMALL:
        problem = integrity(conn, table)
        if problem is not None:
            return problem
    last = _last(conn, "invoice")
    return (
        rows(conn, last - NEWEST, NEWEST)[1]
        or in_indexes(conn, "invoice", last - NEWEST, last)
        or _open_sale(conn, last)
        or _number(conn)
        or _newest_receipts(conn)
    )


def integrity(conn: sqlite3.Connection, table: str | None = None) -> str | None:
    """Return what SQLite's own full check says of one table and its indexes, or of the whole file."""
    part = "" if table is None else f"('{table}')"
    found = conn.execute(f"PRAGMA integrity_check{part}").fetchone()
    return None if found is None or found[0] == "ok" else str(found[0])


def rows(conn: sqlite3.Connection, after: int, limit: int) -> tuple[int | None, str | None]:
    """Compare the next sales with their own digests; return the last row's seq (None: the end) and the problem."""
    digests_after = int(meta.get(conn, meta.DIGESTS_AFTER) or 0)
    return invoices.damaged_after(conn, after, limit, digests_after=digests_after)


def chain(conn: sqlite3.Connection, after: int, limit: int) -> tuple[int | None, str | None]:
    """Compute the hashes of the next receipts again; return the last one's seq (None: the end) and the problem."""
    previous = receipts.hash_at(conn, after)
    last = None
    for row in receipts.after(conn, after, limit):
        last = row.seq
        try:
            fields = receipts.chained_fields(
                row.invoice_id, row.receipt, row.total_cents, row.how, row.signed_at
            )
        except (ValueError, TypeError) as error:
            return last, f"Receipt {row.seq} cannot be read: {error}"
        if previous is not None and row.previous != previous:
            return last, f"Receipt {row.seq} does not follow the one before it."
        if receipts.chain(row.previous, fields) != row.hash:
            return last, f"Receipt {row.seq} is not what was signed."
        previous = row.hash
    return last, None


def in_indexes(conn: sqlite3.Connection, table: str, after: int, until: int) -> str | None:
    """Return the problem when a row of this slice of the table is missing from one of its indexes."""
    for index in indexes(conn, table):
        if not index.columns:
            continue
        same = " AND ".join(f'u."{name}" IS t."{name}"' for name in index.columns)
        where = f"AND ({index.condition})" if index.condition else ""
        found = conn.execute(
            f"""SELECT t.rowid FROM "{table}" AS t NOT INDEXED
                 WHERE t.rowid > ? AND t.rowid <= ? {where}
                   AND NOT EXISTS (SELECT 1 FROM "{table}" AS u INDEXED BY "{index.name}"
                                    WHERE {same} AND u.rowid = t.rowid {where}) LIMIT 1""",
            (after, until),
        ).fetchone()
        if found is not None:
            return f"Row {found[0]} of {table} is missing from the index {index.name}."
    return None


def row_after(conn: sqlite3.Connection, table: str, row: int, limit: int) -> int | None:
    """Return the number of the row that ends the next slice; None at the end of the table."""
    found = conn.execute(
        f'SELECT MAX(n) FROM (SELECT rowid AS n FROM "{table}" NOT INDEXED WHERE rowid > ? ORDER BY rowid LIMIT ?)',
        (row, limit),
    ).fetchone()
    return None if found[0] is None else int(found[0])


def of_index(
    conn: sqlite3.Connection, table: str, index: Index, after: tuple[object, ...], limit: int
) -> tuple[tuple[object, ...], str | None]:
    """Compare the next entries of an index with the rows that they lead to; return the last entry's key (empty: the
    end) and the problem."""
    names = ", ".join(f'"{name}"' for name in index.columns)
    conditions = [f"({index.condition})"] if index.condition else []
    conditions.append(f'"{index.columns[0]}" IS NOT NULL')
    if after:
        conditions.append(f"({names}, rowid) > ({', '.join('?' * len(after))})")
    entries = conn.execute(
        f"""SELECT {names}, rowid FROM "{table}" INDEXED BY "{index.name}"
             WHERE {" AND ".join(conditions)} ORDER BY {names}, rowid LIMIT ?""",
        (*after, limit),
    ).fetchall()
    for entry in entries:
        row = conn.execute(
            f'SELECT {names}, rowid FROM "{table}" NOT INDEXED WHERE rowid = ?', (entry[-1],)
        ).fetchone()
        if row != entry:
            return (
                entry,
                f"The index {index.name} of {table} leads to row {entry[-1]}, which is another.",
            )
    return (entries[-1] if entries else ()), None


@lru_cache(maxsize=64)
def _described(sql: str, name: str, columns: tuple[str, ...]) -> Index:
    condition = _WHERE.search(sql)
    return Index(name, columns, "" if condition is None else condition[1].strip())


def indexes(conn: sqlite3.Connection, table: str) -> list[Index]:
    """Return the indexes of a table that has row numbers."""
    found = conn.execute(
        "SELECT name, COALESCE(sql, '') FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?",
        (table,),
    ).fetchall()
    described = []
    for name, sql in found:
        info = conn.execute(f'PRAGMA index_xinfo("{name}")').fetchall()
        columns = [row[2] for row in info if row[5]]
        whole = all(column is not None for column in columns)
        described.append(_described(sql, name, tuple(columns) if whole else ()))
    return described


def tables(conn: sqlite3.Connection) -> list[str]:
    """Return the tables that have row numbers, in the order of their names."""
    return [
        str(name)
        for name, sql in conn.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
        if "WITHOUT ROWID" not in sql.upper()
    ]


def whole(conn: sqlite3.Connection) -> str | None:
    """Return the first problem of the whole store: SQLite's own check, every digest, the chain."""
    problem = integrity(conn)
    columns = {row[1] for row in conn.execute("PRAGMA table_info(invoice)")}
    # A store of an older version is checked before it is migrated, and has no digests.
    for check in (rows, chain) if "claim_digest" in columns else (chain,):
        after: int | None = 0
        while problem is None and after is not None:
            after, problem = check(conn, after, 1000)
    return problem


def whole_file(path: Path) -> str | None:
    """Return the first problem of a store that no gateway has open; what SQLite cannot read is one, too."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as conn:
            conn.execute("PRAGMA query_only = 1")
            return whole(conn)
    except (sqlite3.Error, ValueError, TypeError) as error:
        return f"{path.name} cannot be read: {error}"


def _last(conn: sqlite3.Connection, table: str) -> int:
    row = conn.execute(f'SELECT COALESCE(MAX(rowid), 0) FROM "{table}" NOT INDEXED').fetchone()
    return int(row[0])


def _open_sale(conn: sqlite3.Connection, last: int) -> str | None:
    """The open sale is found by an index; a sale in doubt that the index has lost would never be cleared up."""
    states = "state IN ('SIGNING', 'IN_DOUBT')"
    by_table = conn.execute(
        f"SELECT seq FROM invoice NOT INDEXED WHERE seq > ? AND {states}", (last - NEWEST,)
    ).fetchall()
    by_index = conn.execute(
        f"SELECT seq FROM invoice INDEXED BY invoice_one_open WHERE {states} AND seq > ?",
        (last - NEWEST,),
    ).fetchall()
    if by_index != by_table:
        return "The index invoice_one_open and the table invoice show different open sales."
    return None


def _number(conn: sqlite3.Connection) -> str | None:
    row = conn.execute("SELECT next_invc_no FROM unit WHERE id = 1").fetchone()
    used = conn.execute("SELECT MAX(invc_no) FROM invoice").fetchone()[0]
    if used is not None and (row is None or used > row[0]):
        return f"Invoice number {used} is used, and the next one is {row and row[0]}."
    return None


def _newest_receipts(conn: sqlite3.Connection) -> str | None:
    last = _last(conn, "receipt")
    problem = chain(conn, max(0, last - NEWEST), NEWEST)[1]
    problem = problem or in_indexes(conn, "receipt", last - NEWEST, last)
    if problem is not None:
        return problem
    row = conn.execute(
        """SELECT r.seq FROM receipt AS r NOT INDEXED LEFT JOIN invoice AS i ON i.id = r.invoice_id
            WHERE r.seq > ? AND (i.state IS NOT 'SIGNED' OR i.invc_no IS NOT r.invc_no) LIMIT 1""",
        (last - NEWEST,),
    ).fetchone()
    return None if row is None else f"Receipt {row[0]} and its sale do not agree."
