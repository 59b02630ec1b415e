"""Checks a journal of signed receipts with nothing but this file and Python 3: `python3 verify.py journal.jsonl`.

Each receipt's hash is SHA-256(previous hash + newline + its canonical JSON), the first previous hash is
64 zeros. A changed, added or removed receipt breaks the chain; a cut-off end misses the last line, which
states how many there must be. Exit code: 0 in order, 1 not, 2 no such file.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

GENESIS = "0" * 64
FIELDS = (
    "invoiceId", "label", "invcNo", "rcptNo", "totRcptNo", "sdcId", "mrcNo", "intrlData",
    "rcptSign", "scuTime", "totalCents", "how", "signedAt",
)  # fmt: skip


class Report:
    """`errors`: what is wrong. `gaps`: numbers that are missing, with the reason where one is noted."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.gaps: list[str] = []
        self.counts: Counter[str] = Counter()
        self.cents: Counter[str] = Counter()
        self.last_hash = GENESIS
        self.ended = False

    def lines(self) -> list[str]:
        """The report as text."""
        out = []
        for label in sorted(self.counts):
            out.append(f"{label}: {self.counts[label]} receipts, {self.cents[label] / 100:.2f} KES")
        out.append(f"last hash: {self.last_hash}")
        out += [f"gap: {gap}" for gap in self.gaps] or ["no gap in the numbers"]
        out += [f"ERROR: {error}" for error in self.errors] or ["the chain is whole"]
        return out


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def verify(lines: Iterable[str]) -> Report:
    """Read the journal's lines in order. Never raises: what cannot be read is an error of the report."""
    report = Report()
    highest: dict[tuple[str, str], int] = {}
    notes: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        if report.ended:
            report.errors.append(f"line {number}: something follows the end")
            break
        try:
            entry = json.loads(line)
            kind = entry["type"]
            if kind == "receipt":
                _receipt(entry, number, report, highest, notes)
                notes = []
            elif kind == "note":
                notes.append(str(entry["text"]))
            elif kind == "end":
                _end(entry, number, report)
            elif kind not in ("journal", "print"):
                raise ValueError(f"unknown type {kind}")
        except (ValueError, KeyError, TypeError) as error:
            report.errors.append(f"line {number}: cannot be read ({error})")
    if not report.ended:
        report.errors.append("the end is missing: the file was cut off")
    return report


def _receipt(
    entry: dict[str, Any],
    number: int,
    report: Report,
    highest: dict[tuple[str, str], int],
    notes: list[str],
) -> None:
    fields = {name: entry[name] for name in FIELDS}
    digest = hashlib.sha256(entry["previous"].encode() + b"\n" + canonical(fields)).hexdigest()
    where = f"line {number}, receipt {fields['totRcptNo']}"
    if entry["previous"] != report.last_hash:
        report.errors.append(f"{where}: does not follow the receipt before it")
    if digest != entry["hash"]:
        report.errors.append(f"{where}: its contents were changed")
    report.last_hash = entry["hash"]
    report.counts[fields["label"]] += 1
    report.cents[fields["label"]] += int(fields["totalCents"])
    for name in ("totRcptNo", "invcNo"):
        value = int(fields[name])
        key = (str(fields["sdcId"]), name)
        before = highest.get(key, value - 1)
        if value != before + 1:
            missing = f"{name} {before + 1} to {value - 1}" if value > before else f"{name} {value}"
            why = "; ".join(notes) if notes else "no reason is noted"
            again = "" if value > before else " comes again"
            report.gaps.append(f"{missing}{again} ({why})")
            if value <= before:
                report.errors.append(f"{where}: {name} {value} does not rise")
        highest[key] = max(before, value)


def _end(entry: dict[str, Any], number: int, report: Report) -> None:
    report.ended = True
    count = sum(report.counts.values())
    if entry["count"] != count:
        report.errors.append(
            f"line {number}: {entry['count']} receipts are stated, {count} are here"
        )
    if entry["hash"] != report.last_hash:
        report.errors.append(f"line {number}: the last hash is not the one stated")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: python3 verify.py journal.jsonl", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as file:
            report = verify(file)
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror}", file=sys.stderr)
        return 2
    print("\n".join(report.lines()))
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
