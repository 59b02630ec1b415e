"""Writes the journal out: `journal.jsonl` (chained), `journal.txt` (the receipts as printed, 40 columns)
and `verify.py`, the script that checks the first with nothing but itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from gateway.clock import from_micros, iso
from gateway.journal.verify import Report, verify
from gateway.store import events, receipts
from gateway.store.receipts import ReceiptRow

# Receipts read at a time: a year of a busy shop must not be held in memory.
PAGE = 500
TEXT_COLUMNS = 40
# What explains a gap in the unit's numbers, in the order of the receipts.
NOTES = (
    "unit.counter_gap",
    "unit.ahead",
    "unit.mismatch",
    "unit.numbering_decided",
    "unit.time_went_back",
)

# What became of the paper: each copy with its number, and what a person said of a slip in doubt.
PRINTS = ("print.unconfirmed", "print.copy", "print.decided")

Render = Callable[[sqlite3.Connection, ReceiptRow], str]


def lines(conn: sqlite3.Connection, who: dict[str, Any]) -> Iterator[str]:
    """The journal as JSON lines: a head, receipts with notes and prints before them, an end."""
    yield _line({"type": "journal", "version": 1, **who})
    count, last = 0, receipts.GENESIS
    notes = [e for kind in NOTES + PRINTS for e in events.of_kind(conn, kind)]
    notes.sort(key=lambda event: event.id)
    for row in pages(conn):
        while notes and notes[0].at <= row.signed_at:
            yield _note(notes.pop(0))
        fields = receipts.chained_fields(
            row.invoice_id, row.receipt, row.total_cents, row.how, row.signed_at
        )
        yield _line({"type": "receipt", **fields, "previous": row.previous, "hash": row.hash})
        count, last = count + 1, row.hash
    for note in notes:
        yield _note(note)
    yield _line({"type": "end", "count": count, "hash": last})


def _note(event: events.Event) -> str:
    words = [f"{name}={value}" for name, value in event.data.items()]
    if event.subject is not None:
        words.insert(0, f"invoiceId={event.subject}")
    what = "print" if event.kind in PRINTS else "note"
    text = " ".join([event.kind, *words])
    return _line({"type": what, "at": iso(from_micros(event.at)), "text": text})


def pages(conn: sqlite3.Connection) -> Iterator[ReceiptRow]:
    after = 0
    while rows := receipts.after(conn, after, PAGE):
        yield from rows
        after = rows[-1].seq


def check(conn: sqlite3.Connection, who: dict[str, Any]) -> Report:
    """The same check as the shipped script's, on the store itself."""
    return verify(lines(conn, who))


def export(
    conn: sqlite3.Connection, who: dict[str, Any], directory: Path, render: Render
) -> Report:
    """Write the three files into `directory` (made if need be), and check what was written."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "journal.jsonl"
    with file.open("w", encoding="utf-8") as out:
        out.writelines(f"{line}\n" for line in lines(conn, who))
    with (directory / "journal.txt").open("w", encoding="utf-8") as out:
        for row in pages(conn):
            out.write(f"{render(conn, row)}\n{'=' * TEXT_COLUMNS}\n")
    script = resources.files("gateway.journal").joinpath("verify.py").read_bytes()
    (directory / "verify.py").write_bytes(script)
    with file.open(encoding="utf-8") as written:
        return verify(written)


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
