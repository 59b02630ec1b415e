"""`pos-gateway capture`: how the template reads the slips of a till that only prints, line by line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.clock import EAT, from_micros
from gateway.counter.slip_reader import CapturedSlip, SlipReader
from gateway.counter.template import SlipReading, Template
from gateway.counter_line import template_of
from gateway.counter_settings import CaptureSettings
from gateway.errors import ConfigError
from gateway.settings import Settings
from gateway.store import captures
from gateway.store.captures import Captured
from gateway.tools import read_only

ROLE_COLUMNS = 12
TEXT_COLUMNS = 44
# What only a till's commands hold; a file without them is text as an editor saves it.
COMMANDS = (b"\x1b", b"\x1d", b"\x10", b"\x1c")


def chosen(settings: Settings, device: str | None) -> dict[str, CaptureSettings]:
    """The captures that are meant. ConfigError when there is none, or none of this name."""
    if device is None and settings.captures:
        return settings.captures
    if device is None or device not in settings.captures:
        known = ", ".join(settings.captures) or "none"
        raise ConfigError(
            f"There is no such capture; [captures] of the configuration has: {known}."
        )
    return {device: settings.captures[device]}


def stored(settings: Settings, device: str | None, number: int | None, limit: int) -> str:
    """The newest slips of the store, oldest of them first, or one by its number."""
    templates = {name: template_of(part) for name, part in chosen(settings, device).items()}
    with read_only(settings) as conn:
        if number is not None:
            one = captures.by_id(conn, number)
            rows = [one] if one is not None else []
        else:
            rows = captures.newest(conn, limit, device)[::-1]
    if not rows:
        return "no slip was captured yet" if number is None else f"there is no slip {number}"
    return "\n\n".join(_stored(row, templates.get(row.device)) for row in rows)


def from_file(settings: Settings, device: str | None, file: Path) -> tuple[str, bool]:
    """A slip in a file, as the till sends it or as text; whether each is read with certainty."""
    parts = chosen(settings, device)
    if len(parts) > 1:
        raise ConfigError(f"Say which with --device: {', '.join(parts)}.")
    ((name, part),) = parts.items()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    slips = slips_in(data, part.last_line)
    if not slips:
        return f"{file} holds no line of text", False
    template = template_of(part)
    readings = [(slip, template.read(slip.lines, slip.doubts)) for slip in slips]
    texts = [
        f"slip {at} of {len(slips)} in {file.name}, by [captures.{name}]\n{shown(reading, slip.doubts)}"
        for at, (slip, reading) in enumerate(readings, start=1)
    ]
    return "\n\n".join(texts), all(reading.kind != "unread" for _, reading in readings)


def slips_in(data: bytes, last_line: str | None = None) -> list[CapturedSlip]:
    """Every slip that is in these bytes."""
    reader = SlipReader(last_line)
    if not any(command in data for command in COMMANDS):
        try:
            lines = tuple(line.rstrip() for line in data.decode("utf-8").splitlines())
            return [CapturedSlip(lines, data)] if any(lines) else []
        except UnicodeDecodeError:
            pass  # the till's own code page
    _, slips = reader.feed(data)
    return slips + reader.end()


def _stored(row: Captured, template: Template | None) -> str:
    at = f"{from_micros(row.at).astimezone(EAT):%d/%m/%Y %H:%M:%S}"
    head = f"slip {row.id}  {row.device}  {at}  {row.state}"
    head += f": {row.reason}" if row.reason else ""
    head += f"\ninvoice {row.invoice_id}" if row.invoice_id else ""
    if template is None:
        return f"{head}\n{row.text}\n[captures.{row.device}] is not in the configuration"
    # The bytes are kept, so that what the reader did not understand is seen again.
    doubts = [doubt for slip in slips_in(row.raw) for doubt in slip.doubts] if row.raw else []
    return f"{head}\n{shown(template.read(row.text.split(chr(10)), doubts), doubts)}"


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
        return "\n".join([*lines, "= NOT CERTAIN: never signed without a person", *problems])
    number, dated = reading.receipt_no, reading.dated or "no date"
    copy = ", says it is a copy" if reading.is_copy else ""
    total = f"{len(reading.invoice['lines'])} items, {reading.invoice['total']}"
    return "\n".join([*lines, f"= certain: receipt {number}, {dated}, {total}{copy}"])
