"""Slips of the store read once more: with the doubts of their bytes, and with a proposed template."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.counter import learn
from gateway.counter.slip_reader import CapturedSlip, SlipReader
from gateway.store.captures import Captured

# What only a till's commands hold; a file without them is text as an editor saves it.
COMMANDS = (b"\x1b", b"\x1d", b"\x10", b"\x1c")


def slips_in(
    data: bytes, last_line: str | None = None, code_page: str | None = None
) -> list[CapturedSlip]:
    """Return every slip that is in these bytes of a file."""
    if not any(command in data for command in COMMANDS):
        try:
            lines = tuple(line.rstrip() for line in data.decode("utf-8").splitlines())
            return [CapturedSlip(lines, data)] if any(lines) else []
        except UnicodeDecodeError:
            pass  # the till's own code page
    return slips_sent(data, last_line, code_page)


def slips_sent(
    data: bytes, last_line: str | None = None, code_page: str | None = None
) -> list[CapturedSlip]:
    """Return every slip in these bytes as a till sent them."""
    reader = SlipReader(last_line, code_page)
    _, slips = reader.feed(data)
    return slips + reader.end()


def doubts_of(row: Captured, code_page: str | None = None) -> list[str]:
    """Return what the reader did not understand of a stored slip: its bytes are kept."""
    if not row.raw:
        return []
    return [doubt for slip in slips_sent(row.raw, code_page=code_page) for doubt in slip.doubts]


def likely_sales(rows: Sequence[Captured]) -> list[Captured]:
    """The newest three slips that have a total."""
    found = [
        row for row in rows if any(learn.guess(line) == "total" for line in row.text.split("\n"))
    ]
    return list(found[:3]) or list(rows[:1])


def numbered(rows: Sequence[Captured]) -> list[str]:
    """Every different line of these slips, in order: a mark on one is a mark on all that are like it."""
    lines = (line.rstrip() for row in rows for line in row.text.split("\n") if line.strip())
    return list(dict.fromkeys(lines))


def tried(
    proposal: learn.Proposal, rows: Sequence[Captured], code_page: str | None = None
) -> learn.Trial:
    """How the proposal would read these slips."""
    trial = learn.Trial()
    template = proposal.template
    for row in reversed(rows):
        if template is not None:
            doubts = doubts_of(row, code_page)
            trial.add(row.id, template.read(row.text.split("\n"), doubts))
    return trial


def trial_lines(trial: learn.Trial, count: int) -> list[str]:
    """The result of a trial for a person: counts, then each refused slip with its first reason."""
    lines = [
        f"of the newest {count} slips: {trial.sales} read as sales, {trial.not_sales} no sales, "
        f"{len(trial.refused)} refused"
    ]
    return lines + [f"  slip {number} refused: {reason}" for number, reason in trial.refused]
