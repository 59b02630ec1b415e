"""Slips of the store read once more: with the doubts of their bytes, and with a proposed template."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.counter import learn
from gateway.counter.slip_reader import TOO_LONG, CapturedSlip, SlipReader
from gateway.store.captures import Captured

# Bytes that only a till's commands hold; a file without them is text as an editor saves it.
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
    """Return the newest three slips that look like sales, or the newest slip."""
    found = [row for row in rows if _is_likely_sale(row)]
    return found[:3] or list(rows[:1])


def _is_likely_sale(row: Captured) -> bool:
    if TOO_LONG in (row.reason or ""):
        return False
    roles = {learn.guess(line) for line in learn.lines_of([row.text.split("\n")])}
    return {"item", "total"} <= roles and "not_a_sale" not in roles


def numbered(rows: Sequence[Captured]) -> list[str]:
    """Return the lines of these slips, as a technician marks them by their numbers."""
    return learn.lines_of(row.text.split("\n") for row in rows)


def tried(
    proposal: learn.Proposal, rows: Sequence[Captured], code_page: str | None = None
) -> learn.Trial:
    """Read these slips with the proposal."""
    trial = learn.Trial()
    template = proposal.template
    for row in reversed(rows):
        if template is None or TOO_LONG in (row.reason or ""):
            trial.refuse(row.id, row.reason or "the template has no item, total or receipt")
        else:
            doubts = doubts_of(row, code_page)
            trial.add(row.id, template.read(row.text.split("\n"), doubts))
    return trial


def trial_lines(trial: learn.Trial, count: int) -> list[str]:
    """Return the result of a trial for a person: counts, then each refused slip with its reason."""
    lines = [
        f"of the newest {count} slips: {trial.sales} read as sales, {trial.not_sales} no sales, "
        f"{len(trial.refused)} refused"
    ]
    return lines + [f"  slip {number} refused: {reason}" for number, reason in trial.refused]
