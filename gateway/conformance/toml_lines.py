"""Write single settings of one section into a TOML file, and leave everything else in it as it is."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.conformance.findings import toml_value

_SECTION = re.compile(r"\s*\[")


class NotWritten(Exception):
    """The file was left as it was; the message is for the technician."""


def write(path: Path, section: str, values: Mapping[str, Any]) -> None:
    """Set `values` in `[section]` of the file, which is made where there is none. NotWritten."""
    try:
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        before = tomllib.loads(old)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NotWritten(f"{path} cannot be read: {error}") from error
    new = edited(old, section, values)
    wanted = {**before, section: {**before.get(section, {}), **values}}
    if _parsed(new) != wanted:
        raise NotWritten(f"{path} is written in a way that cannot be changed here.")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as out:
            if path.exists():
                found = path.stat()
                os.fchmod(out.fileno(), found.st_mode & 0o7777)
                os.fchown(out.fileno(), found.st_uid, found.st_gid)
            out.write(new)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NotWritten(f"{path} cannot be written: {error.strerror}") from error


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None


def edited(text: str, section: str, values: Mapping[str, Any]) -> str:
    """Return the text with each value on its line: where the key stands, where it stands commented out, or
    at the end of the section."""
    lines = text.splitlines()
    start = _header(lines, section)
    if start is None:
        lines += ([""] if lines else []) + [f"[{section}]"]
        start = len(lines) - 1
    for name, value in values.items():
        end = _end(lines, start)
        line = f"{name} = {toml_value(value)}"
        at = _line_of(lines, start + 1, end, rf"\s*{name}\s*=")
        if at is None:
            at = _line_of(lines, start + 1, end, rf"#\s*{name}\s*=")
        if at is None:
            lines.insert(end, line)
        else:
            lines[at] = line + _comment(lines[at])
    return "\n".join(lines) + "\n"


def _header(lines: list[str], section: str) -> int | None:
    return _line_of(lines, 0, len(lines), rf"\s*\[{re.escape(section)}\]\s*(#.*)?$")


def _line_of(lines: list[str], start: int, end: int, pattern: str) -> int | None:
    form = re.compile(pattern)
    return next((at for at in range(start, end) if form.match(lines[at])), None)


def _end(lines: list[str], start: int) -> int:
    """Return where the section's own lines end, before the blank lines that part it from the next."""
    end = start + 1
    while end < len(lines) and not _SECTION.match(lines[end]):
        end += 1
    while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].startswith("# [")):
        end -= 1
    return end


def _comment(line: str) -> str:
    """Return the remark behind a setting. A "#" inside of a text is none."""
    bare = line.lstrip("# ")
    match = re.search(r"""=\s*(?:\[[^\]]*\]|"[^"]*"|'[^']*'|[^#"']*?)\s*(#.*)$""", bare)
    return f"   {match[1]}" if match else ""
