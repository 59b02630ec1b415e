"""`pos-gateway check`: every problem of a configuration at once, and what is in force with its source."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from gateway.check_ports import check_listeners
from gateway.check_service import check_service
from gateway.devices import ports
from gateway.listen import is_here
from gateway.settings import Problem, Settings
from gateway.settings_file import SettingsError, load
from gateway.vscu.jvm import find_java


@dataclass(frozen=True, slots=True)
class Report:
    """`values`: (key, shown value, source) of every setting in force; empty when it cannot be read.
    `warnings` do not keep the gateway from starting; they will cost somebody a visit."""

    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    values: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...] = ()


def check(
    path: Path,
    env: Mapping[str, str] | None = None,
    roots: ports.Roots = ports.Roots(),
    system: Path = Path("/"),
) -> Report:
    """Read the configuration as `run` would, and look at the machine as it would need it."""
    notes = [f"SQLite {sqlite3.sqlite_version}"]
    try:
        loaded = load(path, env, by_hand=True)
    except SettingsError as error:
        return Report(tuple(error.problems), tuple(notes), ())
    settings = loaded.settings
    warnings: list[str] = []
    problems = _machine(settings, notes, warnings) + _ports(settings, notes, warnings, roots)
    problems += check_listeners(settings, notes)
    problems += check_service(settings, loaded.sources, notes, warnings, system)
    _mpesa(settings, notes, warnings)
    _evidence(settings, notes, warnings)
    values = tuple((key, value, _source(key, loaded.sources)) for key, value in _flat(settings))
    return Report(tuple(problems), tuple(notes), values, tuple(warnings))


def _source(key: str, sources: dict[str, str]) -> str:
    """Where a value came from; a table of secrets has one source for all its lines."""
    return sources.get(key) or sources.get(key.partition(".")[0], "default")


def _machine(settings: Settings, notes: list[str], warnings: list[str]) -> list[Problem]:
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
        if not is_here(settings.api.host):
            warnings.append(
                f"api.host: this machine does not have the address {settings.api.host} now; tills "
                "reach the gateway once it does"
            )
    else:
        notes.append("api.host is loopback: only tills on this machine can reach the gateway")
    return problems + _profiles(settings)


def _evidence(settings: Settings, notes: list[str], warnings: list[str]) -> None:
    """Say what a lost answer of the control unit costs with these settings."""
    unit = settings.unit
    reads = unit.read_back or unit.database_query is not None
    counts = unit.database_counter_query is not None
    if not reads and not unit.resend:
        warnings.append(
            "unit.resend and unit.read_back are off: a sale whose answer is lost stops selling until a person "
            "looks at KRA's portal; see what this build allows with pos-gateway unit-test"
        )
    if not reads and not counts:
        warnings.append(
            "unit.read_back, unit.database_query and unit.database_counter_query are off: nothing can contradict "
            "a person who decides by mistake that a sale was not signed"
        )
    if unit.read_back and not unit.forgets_on_restart:
        notes.append(
            "unit.forgets_on_restart is off: a read-back shows that a sale was signed, never that it was not"
        )


def _mpesa(settings: Settings, notes: list[str], warnings: list[str]) -> None:
    """How M-Pesa is set up, in words, and what a shop will miss; what keeps it from working at all is
    a problem of the settings (`mpesa_settings.check_mpesa`)."""
    part = settings.mpesa
    if not part.on:
        notes.append('mpesa.environment is "disabled": no customer is ever asked for money')
        return
    real = "REAL MONEY" if part.environment == "production" else "no real money"
    account = f"till {part.till_number}, store {part.shortcode}" if part.till_number else (
        f"paybill {part.shortcode}"
    )  # fmt: skip
    notes.append(f"M-Pesa: {part.environment} ({real}), {account}, at {part.base}")
    heard = part.relay_url is not None or part.direct_port is not None
    if not heard:
        warnings.append(
            "mpesa.relay_url: without a relay and without direct_port M-Pesa's messages reach nobody; "
            "payments are known by asking only, later and without receipt numbers"
        )
    if part.c2b and not heard:
        warnings.append("mpesa.c2b: payments to the till are announced by messages only")
    if not part.pull and part.environment == "production":
        warnings.append(
            "mpesa.pull is off: a payment whose message was lost stays unknown until a person looks"
        )
    if part.initiator is None:
        notes.append("mpesa.initiator is not set: refunds are given back by hand")


def _profiles(settings: Settings) -> list[Problem]:
    if not settings.printers:
        return []
    # Loaded here only: a gateway that starts to sell does not wait for it.
    from gateway.devices import escpos

    logo = str(settings.receipt.logo) if settings.receipt.logo else None
    problems = []
    for name, printer in settings.printers.items():
        problem = escpos.problem_of(printer.profile, logo, printer.qr)
        if problem is not None:
            problems.append(Problem(f"printers.{name}.profile", problem))
    return problems


def _ports(
    settings: Settings, notes: list[str], warnings: list[str], roots: ports.Roots
) -> list[Problem]:
    """What the names of ports lead to on this machine now; nothing is opened."""
    problems = []
    here = {port.real: port for port in ports.plugged_in(roots)}
    owners: dict[str, tuple[str, str]] = {}
    excluded = {os.path.realpath(port): port for port in settings.excluded_ports}
    for name, port in settings.devices:
        if not port.startswith("/"):
            continue
        real = os.path.realpath(port)
        if not Path(real).exists():
            notes.append(f"{name}: {port} is not there now")
        elif real in owners:
            other, its = owners[real]
            problems.append(
                Problem(
                    name,
                    f"has the port {port}, which is the same device as {its} of {other}; "
                    "a port has one owner",
                )
            )
        if port not in settings.excluded_ports and real in excluded:
            problems.append(
                Problem(
                    name,
                    f"has the port {port}, which is the device {excluded[real]} of excluded_ports",
                )
            )
        owners.setdefault(real, (name, port))
    named = [*settings.devices, *(("excluded_ports", port) for port in settings.excluded_ports)]
    warnings += [
        f"{name}: {warning}"
        for name, port in named
        if (warning := _may_move(port, here.get(os.path.realpath(port)))) is not None
    ]
    return problems


def _may_move(name: str, port: ports.Port | None) -> str | None:
    """Why this name may be another device tomorrow."""
    if ports.moves(name):
        better = port.stable if port else name
        if better != name:
            return f"{name} becomes another device when a cable is moved; name it {better}"
        folder = "/dev/usb" if Path(name).name.startswith("lp") else "/dev/serial"
        return (
            f"{name} becomes another device when a cable is moved; name it by {folder}/by-id "
            "or by-path (pos-gateway devices --find)"
        )
    if port is not None and port.alike and name == port.by_id:
        return f"two adapters that are plugged in have the name {name}; name this one {port.stable}"
    return None


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
    lines += [f"WARNING {warning}" for warning in report.warnings]
    lines += [f"PROBLEM {item.key}: {item.message}" for item in report.problems]
    count = len(report.problems)
    lines.append("The configuration is good." if not count else f"{count} problem(s).")
    return "\n".join(lines)
