"""`pos-gateway check`: every problem of a configuration at once, and what is in force with its source."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from gateway.settings import Problem, Settings, SettingsError, load
from gateway.vscu.jvm import find_java


@dataclass(frozen=True, slots=True)
class Report:
    """`values`: (key, shown value, source) of every setting in force; empty when it cannot be read."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    values: tuple[tuple[str, str, str], ...]


def check(path: Path, env: Mapping[str, str] | None = None) -> Report:
    """Read the configuration as `run` would, and look at the machine as it would need it."""
    notes = [f"SQLite {sqlite3.sqlite_version}"]
    try:
        loaded = load(path, env)
    except SettingsError as error:
        return Report(tuple(error.problems), tuple(notes), ())
    settings = loaded.settings
    problems = _machine(settings, notes)
    values = tuple(
        (key, value, loaded.sources.get(key, "default")) for key, value in _flat(settings)
    )
    return Report(tuple(problems), tuple(notes), values)


def _machine(settings: Settings, notes: list[str]) -> list[Problem]:
    problems = []
    if settings.unit.host == "in-process":
        java = find_java(settings.unit.java_home)
        if java is None:
            problems.append(
                Problem(
                    "unit.java_home",
                    "no Java 16 or newer was found: install one, or the extra 'jre'",
                )
            )
        else:
            notes.append(f"Java {java.version} from {java.source}: {java.home}")
        directory = settings.unit.directory
        if directory is not None and not _writable(directory):
            problems.append(Problem("unit.directory", f"{directory} cannot be written"))
    if not _writable(settings.store.directory):
        problems.append(Problem("store.directory", f"{settings.store.directory} cannot be written"))
    if settings.api.host not in ("127.0.0.1", "::1", "localhost"):
        notes.append(f"api.host is {settings.api.host}: tills on the LAN can reach the gateway")
    else:
        notes.append("api.host is loopback: only tills on this machine can reach the gateway")
    for name, printer in settings.printers.items():
        if printer.port.startswith("/") and not Path(printer.port).exists():
            notes.append(f"printers.{name}.port {printer.port} is not there now")
    return problems + _profiles(settings)


def _profiles(settings: Settings) -> list[Problem]:
    if not settings.printers:
        return []
    # Loaded here only: a gateway that starts to sell does not wait for it.
    from gateway.devices import escpos

    logo = str(settings.receipt.logo) if settings.receipt.logo else None
    problems = []
    for name, printer in settings.printers.items():
        problem = escpos.problem_of(printer.profile, logo)
        if problem is not None:
            problems.append(Problem(f"printers.{name}.profile", problem))
    return problems


def _writable(directory: Path) -> bool:
    """Whether it, or the nearest parent that exists, can be written by this user."""
    at = directory
    while not at.exists() and at != at.parent:
        at = at.parent
    return at.is_dir() and os.access(at, os.W_OK)


def _flat(value: Any, at: str = "") -> list[tuple[str, str]]:
    if isinstance(value, BaseModel):
        names = type(value).model_fields
        return [
            row
            for name in names
            for row in _flat(getattr(value, name), f"{at}.{name}" if at else name)
        ]
    if isinstance(value, dict) and value:
        return [row for name, member in value.items() for row in _flat(member, f"{at}.{name}")]
    if isinstance(value, tuple) and any(isinstance(member, BaseModel) for member in value):
        return [
            row
            for number, member in enumerate(value)
            for row in _flat(member, f"{at}.{getattr(member, 'id', number)}")
        ]
    if isinstance(value, SecretStr):
        return [(at, "(set)")]
    return [(at, "(none)" if value is None else str(value))]


def render(report: Report) -> str:
    """Plain text for a terminal."""
    lines = [f"{key} = {value}    [{source}]" for key, value, source in report.values]
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"PROBLEM {item.key}: {item.message}" for item in report.problems]
    count = len(report.problems)
    lines.append("The configuration is good." if not count else f"{count} problem(s).")
    return "\n".join(lines)
