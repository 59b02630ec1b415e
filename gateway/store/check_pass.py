"""One pass of the background check over the whole store, in slices, from wherever the last one stopped.

A slice is one short read transaction: some rows against their digests, against every index, against the chain; some
entries of an index against their rows; some keys of the witness against the table.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from gateway.store import invoices, verify, witness
from gateway.store.witness import Claimed, Witness

# Rows or entries of one slice: some 5 ms.
SLICE = 50
# Tables with few rows are checked together in one slice. Steps.
STEPS = 20


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next slice begins: the step of the pass, and the last key of it that is checked."""

    step: int = 0
    after: tuple[object, ...] = ()

    def as_text(self) -> str:
        """Return it as the witness stores it."""
        return json.dumps([self.step, *self.after], default=lambda value: None)


def parse(text: str) -> Position:
    """Return a stored position; the beginning for anything else. An old one does no harm: a pass has no end."""
    try:
        step, *after = json.loads(text)
        return Position(int(step), tuple(after))
    except (ValueError, TypeError):
        return Position()


def advance(
    conn: sqlite3.Connection, beside: Witness | None, at: Position
) -> tuple[Position, str | None]:
    """Check one slice; return where the next one begins (the beginning: the pass is over) and the problem that was
    found. sqlite3.Error, also for damage that SQLite itself finds; witness.WitnessFailed."""
    steps = _steps(conn)
    for _ in range(STEPS):
        if at.step >= len(steps):
            at = Position()
        after, problem = _one_step(conn, beside, steps[at.step], at)
        if after:
            return Position(at.step, after), problem
        at = Position((at.step + 1) % len(steps))
        if problem is not None or at == Position():
            return at, problem
    return at, None


def _one_step(
    conn: sqlite3.Connection, beside: Witness | None, step: tuple[str, str, str], at: Position
) -> tuple[tuple[object, ...], str | None]:
    kind, table, name = step
    known: list[Claimed] = []
    # The witness first: what it knows was committed before this snapshot begins.
    if kind == "witness" and beside is not None and not beside.is_foreign:
        known = beside.after(_row(at), SLICE)
    conn.execute("BEGIN")
    try:
        return _slice(conn, kind, table, name, at, known)
    finally:
        conn.execute("ROLLBACK")


def fill(conn: sqlite3.Connection, beside: Witness) -> bool:
    """Record some older keys that the witness does not have yet; return whether there are more. WitnessFailed."""
    state = beside.state()
    if state is None or beside.is_foreign or state.filled_to >= state.fill_until:
        return False
    rows = [
        witness.claimed(*row)
        for row in invoices.keys_after(conn, state.filled_to, SLICE * 4)
        if row[0] <= state.fill_until
    ]
    beside.fill(rows, rows[-1].seq if rows else state.fill_until)
    return True


def _steps(conn: sqlite3.Connection) -> list[tuple[str, str, str]]:
    steps = [("rows", "invoice", ""), ("chain", "receipt", ""), ("witness", "invoice", "")]
    for table in verify.tables(conn):
        names = [index.name for index in verify.indexes(conn, table) if index.columns]
        if names:
            steps.append(("table", table, ""))
            steps += [("index", table, name) for name in names]
    return steps


def _row(at: Position) -> int:
    return at.after[0] if at.after and isinstance(at.after[0], int) else 0


def _slice(
    conn: sqlite3.Connection, kind: str, table: str, name: str, at: Position, known: list[Claimed]
) -> tuple[tuple[object, ...], str | None]:
    row = _row(at)
    if kind == "rows":
        last, problem = verify.rows(conn, row, SLICE)
        return (() if last is None else (last,)), problem
    if kind == "chain":
        last, problem = verify.chain(conn, row, SLICE)
        return (() if last is None else (last,)), problem
    if kind == "witness":
        problem = next((lost for one in known if (lost := _lost(conn, one)) is not None), None)
        return ((known[-1].seq,) if known else ()), problem
    if kind == "table":
        until = verify.row_after(conn, table, row, SLICE)
        if until is None:
            return (), None
        return (until,), verify.in_indexes(conn, table, row, until)
    index = next(index for index in verify.indexes(conn, table) if index.name == name)
    return verify.of_index(conn, table, index, at.after, SLICE)


def _lost(conn: sqlite3.Connection, known: Claimed) -> str | None:
    """Return the problem when the store lacks a key of the witness, or has another in its row."""
    row = conn.execute(
        "SELECT till_id, idem_key FROM invoice NOT INDEXED WHERE seq = ?", (known.seq,)
    ).fetchone()
    if row is not None and witness.claimed(known.seq, *row) == known:
        return None
    return f"The store has lost row {known.seq}, which its witness knows."
