"""The part of `pos-gateway check` about ports that the gateway listens on, or its unit does.

Nothing is bound while a gateway runs: a test at the wrong moment would be in the way of the unit's own bind.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.listen import is_here
from gateway.settings import Problem, Settings
from gateway.vscu import port as ports

LOCK = "gateway.lock"


@dataclass(frozen=True, slots=True)
class Running:
    """The gateway that uses this store now."""

    pid: int
    uid: int


def wanted(settings: Settings) -> list[tuple[str, str, int]]:
    """Return (key, host, port) of everything that is listened on."""
    found = [("api.port", settings.api.host, settings.api.port)]
    if settings.unit.host == "in-process":
        found.append(("unit.port", ports.LOOPBACK, settings.unit.port))
    mpesa = settings.mpesa
    if mpesa.on and mpesa.direct_port is not None:
        found.append(("mpesa.direct_port", mpesa.direct_host, mpesa.direct_port))
    return [(key, _address(host), port) for key, host, port in found if port]


def check_listeners(settings: Settings, notes: list[str]) -> list[Problem]:
    """Return the ports that cannot be had, each with the program that holds it."""
    running = running_gateway(settings.store.directory)
    problems = []
    for key, host, port in wanted(settings):
        listeners = ports.reached(host, port)
        if not listeners and host in ("0.0.0.0", "::"):  # noqa: S104
            listeners = ports.on_any(port)
        if listeners and running is not None and _belongs(listeners, running):
            notes.append(f"{key} {port} is held by the running gateway (process {running.pid})")
        elif listeners:
            who = ports.holder(listeners)
            problems.append(
                Problem(key, f"{port} is taken by {who}; stop that program or choose another port")
            )
        elif running is None and is_here(host):
            problems += _tried(key, host, port)
    return problems


def running_gateway(store: Path) -> Running | None:
    """Return the process that the store's lock file names, while it lives and is a gateway."""
    with suppress(OSError, ValueError):
        pid = int((store / LOCK).read_text(encoding="ascii"))
        process = Path("/proc") / str(pid)
        if b"run" in (process / "cmdline").read_bytes().split(b"\0"):
            return Running(pid, process.stat().st_uid)
    return None


def _belongs(listeners: list[ports.Listener], running: Running) -> bool:
    """Return whether the running gateway has these sockets; by the user where processes are hidden."""
    for listener in listeners:
        pids = ports.holders(listener)
        if running.pid not in pids and (pids or listener.uid != running.uid):
            return False
    return True


def _tried(key: str, host: str, port: int) -> list[Problem]:
    error = ports.bind_error(host, port)
    if error is None or error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        # An address that comes later is waited for (listen.py).
        if error is None and port < _first_free_port() and os.geteuid() == 0:
            return [Problem(key, f"{port} is for root only, and the service is not root")]
        return []
    return [Problem(key, f"{port} on {host} cannot be used: {error.strerror}")]


def _first_free_port() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def _address(host: str) -> str:
    return {"": "0.0.0.0", "localhost": ports.LOOPBACK}.get(host, host)  # noqa: S104
