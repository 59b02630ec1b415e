"""Find out who listens on the control unit's port: no program, this process, or another program.

A unit is initialised once in its life, and whatever answers on its port would be initialised. So the port is
tried before the JVM starts, and each new connection first checks whose socket it would reach. The kernel's
tables under /proc show that; another user's process may be hidden there, its user is not.
"""

from __future__ import annotations

import ipaddress
import pwd
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LOOPBACK = "127.0.0.1"
# The state LISTEN in /proc/net/tcp.
_LISTEN = "0A"


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket: its address, its inode, the user it belongs to."""

    address: str
    inode: int
    uid: int


def bind_error(host: str, port: int) -> OSError | None:
    """Bind and listen for a moment, as a Java server would; return why that fails, None where it does not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # What a connection of an earlier run left (TIME_WAIT) is no program.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def reached(host: str, port: int, proc: Path = PROC) -> list[Listener]:
    """Return the listeners that a connection to the IP address `host` reaches: those of the most specific address.
    Empty where there is none, and where the tables cannot be read."""
    # "::" last: it takes IPv4 as well, unless it is for IPv6 only, which the tables do not show.
    ranks = [host, "::"] if ":" in host else [host, "0.0.0.0", "::"]  # noqa: S104
    found = list(_listeners(port, proc))
    for address in ranks:
        same = [listener for listener in found if listener.address == address]
        if same:
            return same
    return []


def on_any(port: int, proc: Path = PROC) -> list[Listener]:
    """Return what listens on the port of any address: it keeps a server for all addresses out."""
    return list(_listeners(port, proc))


def foreign(host: str, port: int, proc: Path = PROC) -> Listener | None:
    """Return a listener that a connection would reach and that is not this process's."""
    own = _sockets(proc / "self")
    return next((f for f in reached(host, port, proc) if _name(f) not in own), None)


def holders(listener: Listener) -> list[int]:
    """Return the ids of the processes that hold the socket, as far as this user may see them."""
    return [
        int(process.name) for process in _processes(PROC) if _name(listener) in _sockets(process)
    ]


def holder(listeners: Iterable[Listener]) -> str:
    """Return who listens, in words for a sentence: "java (process 812, etims-vscu.jar)"."""
    for listener in listeners:
        for pid in holders(listener):
            return describe(pid)
        return f"a program of the user {_user(listener.uid)}"
    return "another program"


def describe(pid: int) -> str:
    """Return a process in words: its name, its id and what it runs; no other argument, it may be a secret."""
    try:
        name = (PROC / str(pid) / "comm").read_text(encoding="utf-8", errors="replace").strip()
        raw = (PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return f"process {pid}"
    words = raw.split("\0")
    runs = [Path(word).name for word in words[1:] if word.endswith((".jar", ".py", ".js"))]
    runs += [words[at + 1] for at, word in enumerate(words[:-1]) if word == "-m"]
    return f"{name} (process {pid}, {runs[0]})" if runs else f"{name} (process {pid})"


def _listeners(port: int, proc: Path) -> Iterator[Listener]:
    for name in ("tcp", "tcp6"):
        try:
            rows = (proc / "self/net" / name).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, UnicodeDecodeError):
            continue
        for row in rows:
            fields = row.split()
            if len(fields) < 10 or fields[3] != _LISTEN:
                continue
            address, _, at = fields[1].partition(":")
            if int(at, 16) == port:
                yield Listener(_address(address), int(fields[9]), int(fields[7]))


def _name(listener: Listener) -> str:
    return f"socket:[{listener.inode}]"


def _processes(proc: Path) -> Iterator[Path]:
    return (process for process in proc.iterdir() if process.name.isdigit())


def _sockets(process: Path) -> set[str]:
    """Return what the process's descriptors lead to; empty where this user may not look."""
    found = set()
    try:
        for entry in (process / "fd").iterdir():
            try:
                found.add(str(entry.readlink()))
            except OSError:
                continue
    except OSError:
        return set()
    return found


def _address(text: str) -> str:
    """Return an address out of the kernel's hexadecimal words, each in the machine's byte order; an IPv4 address
    within IPv6 as IPv4."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
