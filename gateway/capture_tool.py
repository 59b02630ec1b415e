"""`pos-gateway capture`: how the template reads the slips of a till that only prints, line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gateway.clock import EAT, from_micros
from gateway.counter import learn
from gateway.counter.slip_advice import next_step
from gateway.counter.slip_trial import (
    doubts_of,
    likely_sales,
    numbered,
    slips_in,
    trial_lines,
    tried,
)
from gateway.counter.template import SlipReading
from gateway.counter_line import template_of
from gateway.counter_settings import CaptureSettings
from gateway.domain.tax import LETTERS
from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.store import captures
from gateway.store.captures import Captured
from gateway.tools import read_only

ROLE_COLUMNS = 12
TEXT_COLUMNS = 44
# Slips of the store that a proposed template is tried on.
LEARN_SLIPS = 100


def chosen(settings: Settings, device: str | None) -> dict[str, CaptureSettings]:
    """Return the chosen captures. ConfigError when there is none, or none of this name."""
    if device is None and settings.captures:
        return settings.captures
    if device is None or device not in settings.captures:
        known = ", ".join(settings.captures) or "none"
        raise ConfigError(
            f"There is no such capture; [captures] of the configuration has: {known}."
        )
    return {device: settings.captures[device]}


def stored(settings: Settings, device: str | None, number: int | None, limit: int) -> str:
    """Return the newest slips of the store, oldest of them first, or one by its number."""
    parts = chosen(settings, device)
    with read_only(settings) as conn:
        if number is not None:
            one = captures.by_id(conn, number)
            rows = [one] if one is not None else []
        else:
            rows = captures.newest(conn, limit, device)[::-1]
    if not rows:
        return "no slip was captured yet" if number is None else f"there is no slip {number}"
    return "\n\n".join(_stored(row, parts.get(row.device)) for row in rows)


def from_file(settings: Settings, device: str | None, file: Path) -> tuple[str, bool]:
    """Read a slip in a file, as the till sends it or as text; return whether each is read with certainty."""
    parts = chosen(settings, device)
    if len(parts) > 1:
        raise ConfigError(f"Say which with --device: {', '.join(parts)}.")
    ((name, part),) = parts.items()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    slips = slips_in(data, part.last_line, part.code_page)
    if not slips:
        return f"{file} holds no line of text", False
    template = template_of(part)
    readings = [(slip, template.read(slip.lines, slip.doubts)) for slip in slips]
    texts = [
        f"slip {at} of {len(slips)} in {file.name}, by [captures.{name}]\n{shown(reading, slip.doubts)}"
        for at, (slip, reading) in enumerate(readings, start=1)
    ]
    return "\n\n".join(texts), all(reading.kind != "unread" for _, reading in readings)


def _stored(row: Captured, part: CaptureSettings | None) -> str:
    at = f"{from_micros(row.at).astimezone(EAT):%d/%m/%Y %H:%M:%S}"
    head = f"slip {row.id}  {row.device}  {at}  {row.state}"
    head += f": {row.reason}" if row.reason else ""
    head += f"\ninvoice {row.invoice_id}" if row.invoice_id else ""
    if part is None:
        return f"{head}\n{row.text}\n[captures.{row.device}] is not in the configuration"
    doubts = doubts_of(row, part.code_page)
    reading = template_of(part).read(row.text.split("\n"), doubts)
    return f"{head}\n{shown(reading, doubts)}"


def learned(
    settings: Settings,
    device: str | None,
    numbers: Sequence[int],
    *,
    roles: Mapping[int, str],
    taxes: Mapping[str, str],
    limit: int = LEARN_SLIPS,
) -> tuple[str, bool]:
    """Propose a template from these slips (without any: the newest three sales), and try it on the newest
    slips. Return the text, and whether all of these slips are read. `roles`: by line number."""
    code_page = settings.captures[device].code_page if device in settings.captures else None
    with read_only(settings) as conn:
        rows = captures.newest(conn, limit, device)
        marked = [row for number in numbers if (row := captures.by_id(conn, number))]
    if len(marked) < len(numbers) or not rows:
        return "there is no such slip; pos-gateway capture --last 20 shows what there is", False
    marked = marked or likely_sales(rows)
    if len({row.device for row in rows}) > 1:
        raise ConfigError(
            f"Say which with --device: {', '.join(sorted({r.device for r in rows}))}."
        )
    lines = numbered(marked)
    unknown = [number for number in roles if not 1 <= number <= len(lines)]
    if unknown or not lines:
        return f"there is no line {unknown[0] if unknown else 1} on these slips", False
    said = {lines[number - 1]: role for number, role in roles.items()}
    proposal = learn.propose([row.text.split("\n") for row in marked], said, taxes)
    text = [f"from slip {', '.join(str(row.id) for row in marked)} of {marked[0].device}"]
    text += [
        f"{at:4} {said.get(line) or learn.guess(line):{ROLE_COLUMNS}}{line}"
        for at, line in enumerate(lines, start=1)
    ]
    text += ["", f"[captures.{marked[0].device}]", learn.to_toml(proposal), ""]
    text += [f"? {sentence}" for sentence in proposal.open]
    trial = tried(proposal, rows, code_page)
    text += trial_lines(trial, len(rows))
    own = tried(proposal, marked, code_page)
    return "\n".join(text), own.sales == len(marked)


def slip_numbers(words: Sequence[str]) -> list[int]:
    """Return the numbers of slips on the command line."""
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) < 16):
            raise ConfigError(f"{word} is no number of a slip.")
    return [int(word) for word in words]


def line_roles(words: Sequence[str]) -> dict[int, str]:
    """Return the roles of `--mark LINE=ROLE`."""
    roles = {}
    for word in words:
        number, _, role = word.partition("=")
        if not (number.isascii() and number.isdigit()) or role not in learn.ROLES:
            raise ConfigError(
                f"--mark {word}: write the number of a line, = and one of {', '.join(learn.ROLES)}."
            )
        roles[int(number)] = role
    return roles


def tax_letters(words: Sequence[str]) -> dict[str, str]:
    """Return the letters of `--tax MARK=LETTER`."""
    letters = {}
    for word in words:
        mark, sign, letter = word.rpartition("=")
        if not sign or letter not in LETTERS:
            raise ConfigError(f"--tax {word}: write the till's mark, = and a letter from A to E.")
        letters[mark] = letter
    return letters


def shown(reading: SlipReading, doubts: Sequence[str] = ()) -> str:
    """Each line with its role and fields, and what it comes to."""
    lines = []
    for line in reading.lines:
        fields = " ".join(f"{name}={value}" for name, value in line.fields.items() if value)
        role = line.role or "???"
        lines.append(f"  {role:{ROLE_COLUMNS}}{line.text:{TEXT_COLUMNS}}{fields}".rstrip())
    lines += [f"  doubt       {doubt}" for doubt in doubts]
    if reading.kind == "not_a_sale":
        return "\n".join([*lines, "= not a sale: printed as it is"])
    if reading.invoice is None:
        problems = [f"! {problem}" for problem in reading.problems]
        step = next_step("; ".join(reading.problems))
        problems += [f"> {step}"] if step else []
        return "\n".join([*lines, "= NOT CERTAIN: never signed without a person", *problems])
    number, dated = reading.receipt_no, reading.dated or "no date"
    copy = ", says it is a copy" if reading.is_copy else ""
    total = f"{len(reading.invoice['lines'])} items, {reading.invoice['total']}"
    return "\n".join([*lines, f"= certain: receipt {number}, {dated}, {total}{copy}"])
