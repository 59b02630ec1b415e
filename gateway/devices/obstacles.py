"""Find what keeps a device on the counter from working: other programs, sleep, missing drivers, permissions.

Reads /sys, /proc, /run/udev and the lists of programs only. Each sentence ends with the next step.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.devices.ports import (
    Port,
    Roots,
    Usb,
    class_entry,
    entries,
    text_of,
    usb_folder,
    usb_of,
)

SERVICE_USER = "pos-gateway"
SERVICE_GROUPS = ("dialout", "lp")
RULES = "cp systemd/*-pos-gateway.rules /etc/udev/rules.d/, then udevadm control --reload and udevadm trigger"
# The kernel's driver for each maker of adapters.
ADAPTER_DRIVERS = {
    "0403": "ftdi_sio",
    "067b": "pl2303",
    "1a86": "ch341",
    "4348": "ch341",
    "10c4": "cp210x",
    "9710": "mos7840",
}
# Adapters that brltty takes without being asked (the generic ones of its list).
BRLTTY_IDS = frozenset({"1a86:7523", "10c4:ea60", "10c4:ea80", "0403:6001"})
BRLTTY_PROGRAMS = ("usr/bin/brltty", "usr/sbin/brltty", "bin/brltty", "sbin/brltty")
RULES_FOLDERS = ("etc/udev/rules.d", "usr/lib/udev/rules.d", "lib/udev/rules.d")
MODPROBE_FOLDERS = ("etc/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
VENDOR_CLASS, PRINTER_CLASS, MODEM_CLASS = "ff", "07", "02"


@dataclass(frozen=True, slots=True)
class Access:
    """The user and groups under which the gateway opens ports."""

    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Portless:
    """A USB device of a counter that has no port to open. `socket`: where it is plugged in, as 1-2."""

    usb: Usb
    socket: str
    problem: str


def service_access() -> Access | None:
    """Return how the service opens ports; None where this process cannot find out."""
    try:
        user = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        if os.geteuid() == 0:
            return None
        return Access(os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))
    gids = {user.pw_gid}
    for group in grp.getgrall():
        if group.gr_name in SERVICE_GROUPS or SERVICE_USER in group.gr_mem:
            gids.add(group.gr_gid)
    return Access(user.pw_uid, frozenset(gids))


def of_port(port: Port, roots: Roots = Roots(), access: Access | None = None) -> list[str]:
    """Return what keeps this port from working, each with the next step."""
    found = [_modem_manager(port, roots), _brltty(port, roots), _sleep(port, roots)]
    if access is not None:
        found.append(_refused(port, access))
    return [sentence for sentence in found if sentence is not None]


# --- a port that is there -----------------------------------------------------------------------------


def _modem_manager(port: Port, roots: Roots) -> str | None:
    if port.kind != "USB serial":
        return None
    pid = _running("ModemManager", roots)
    if pid is None:
        return None
    entry = class_entry(port, roots)
    folder = usb_folder(entry)
    if _marked(entry, "ID_MM_PORT_IGNORE", roots) or (
        folder is not None and _marked(folder, "ID_MM_DEVICE_IGNORE", roots)
    ):
        return None
    return (
        f"ModemManager (pid {pid}) may send AT to it, which a printer prints and a scale answers: "
        f"{RULES}; or systemctl disable --now ModemManager."
    )


def _marked(entry: Path, name: str, roots: Roots) -> bool:
    """Return whether udev has set this property to 1 for the device."""
    number = text_of(entry / "dev")
    data = text_of(roots.run / "udev/data" / f"c{number}") if number else ""
    return f"E:{name}=1" in data.splitlines()


def _brltty(port: Port, roots: Roots) -> str | None:
    if port.usb is None or not _brltty_takes(port.usb, roots):
        return None
    return (
        "brltty (braille displays) is installed and takes adapters of this kind away a second after "
        "plugging in: apt purge brltty, then plug it in again."
    )


def _brltty_takes(usb: Usb, roots: Roots) -> bool:
    if not any((roots.root / program).exists() for program in BRLTTY_PROGRAMS):
        return False
    if f"{usb.vendor}:{usb.product}" in BRLTTY_IDS:
        return True
    with contextlib.suppress(ValueError):
        # As the kernel writes it: hexadecimal without leading zeros.
        product = f'ENV{{PRODUCT}}=="{int(usb.vendor, 16):x}/{int(usb.product, 16):x}/'
        return any(
            product in line and not line.lstrip().startswith("#")
            for file in _files(roots, RULES_FOLDERS, "*brltty*.rules")
            for line in text_of(file).splitlines()
        )
    return False


def _sleep(port: Port, roots: Roots) -> str | None:
    folder = usb_folder(class_entry(port, roots))
    control = folder and folder / "power/control"
    if control is None or text_of(control) != "auto":
        return None
    return (
        "USB may put it to sleep between two slips (autosuspend), and its next bytes are lost: "
        f"{RULES}; for now: echo on > {control}"
    )


def _refused(port: Port, access: Access) -> str | None:
    try:
        node = Path(port.real).stat()
    except OSError:
        return None
    mode = stat.S_IMODE(node.st_mode)
    if access.uid == node.st_uid:
        allowed = mode >> 6
    elif node.st_gid in access.gids:
        allowed = mode >> 3
    else:
        allowed = mode
    if access.uid == 0 or allowed & 0o6 == 0o6:
        return None
    return (
        f"The gateway may not open it ({_owner(node)}, mode {mode:04o}; it is in the groups dialout "
        f"and lp): {RULES}."
    )


def _owner(node: os.stat_result) -> str:
    try:
        return f"group {grp.getgrgid(node.st_gid).gr_name}"
    except KeyError:
        return f"group {node.st_gid}"


# --- a device without a port --------------------------------------------------------------------------


def portless(roots: Roots = Roots()) -> list[Portless]:
    """Return the USB printers and adapters that the kernel sees, and that have no port to open."""
    found = []
    for interface in entries(roots.sys / "bus/usb/devices"):
        if ":" not in interface.name:
            continue
        folder = Path(os.path.realpath(interface)).parent
        usb = usb_of(folder)
        problem = _without_port(interface, usb, roots)
        if problem is not None:
            found.append(Portless(usb, folder.name, problem))
    return found


def _without_port(interface: Path, usb: Usb, roots: Roots) -> str | None:
    kind = text_of(interface / "bInterfaceClass"), text_of(interface / "bInterfaceSubClass")
    driver = Path(os.path.realpath(interface / "driver")).name
    driver = driver if (interface / "driver").exists() else ""
    if kind == (PRINTER_CLASS, "01"):
        return _printer_without_port(interface, driver, roots)
    if kind[0] == VENDOR_CLASS and usb.vendor in ADAPTER_DRIVERS:
        module = ADAPTER_DRIVERS[usb.vendor]
    elif kind == (MODEM_CLASS, "02"):
        module = "cdc_acm"
    else:
        return None
    if any(interface.glob("ttyUSB*")) or any(interface.glob("tty/tty*")):
        return None
    if driver == "usbfs":
        return _taken(usb, roots)
    if driver:
        return None  # a driver of its own, as of a modem or a programmer
    return (
        f"it has no port, since no driver has it: modprobe {module}; so that it stays: "
        f"echo {module} > /etc/modules-load.d/{module}.conf"
    )


def _taken(usb: Usb, roots: Roots) -> str:
    pid = _running("brltty", roots)
    if pid is not None or _brltty_takes(usb, roots):
        running = f" (pid {pid})" if pid is not None else ""
        return (
            f"brltty{running} has taken it for a braille display, so its port is gone: apt purge "
            "brltty, then plug it in again."
        )
    return (
        "another program has taken it from the kernel, so its port is gone: end that program "
        "(lsof /dev/bus/usb/*/* names it), then plug it in again."
    )


def _printer_without_port(interface: Path, driver: str, roots: Roots) -> str | None:
    names = [path.name for kind in ("usbmisc", "usb") for path in interface.glob(f"{kind}/lp*")]
    if any((roots.dev / "usb" / name).exists() for name in names):
        return None
    if names:
        return (
            f"the kernel has it as {names[0]}, but {roots.dev}/usb/{names[0]} is missing: "
            "udevadm trigger"
        )
    if driver == "usbfs":
        program = "CUPS" if _running("cupsd", roots) is not None else "another program"
        step = "apt purge cups" if program == "CUPS" else "lsof /dev/bus/usb/*/* names it: end it"
        return f"{program} has taken this printer from the kernel: {step}, then plug it in again."
    blocked = _blacklisting("usblp", roots)
    if blocked is not None:
        return f"the driver usblp is switched off in {blocked}: take that line out, then modprobe usblp"
    return (
        "it is a printer without /dev/usb/lp0, since the driver usblp is not loaded: modprobe usblp; "
        "so that it stays: echo usblp > /etc/modules-load.d/usblp.conf"
    )


def _blacklisting(module: str, roots: Roots) -> Path | None:
    pattern = re.compile(rf"^\s*(?:blacklist|install)\s+{module}\b", re.MULTILINE)
    return next(
        (
            file
            for file in _files(roots, MODPROBE_FOLDERS, "*.conf")
            if pattern.search(text_of(file))
        ),
        None,
    )


# --- helpers ------------------------------------------------------------------------------------------


def _files(roots: Roots, folders: tuple[str, ...], pattern: str) -> Iterator[Path]:
    for folder in folders:
        with contextlib.suppress(OSError):
            yield from sorted((roots.root / folder).glob(pattern))


def _running(program: str, roots: Roots) -> int | None:
    """Return the process number of a program; None when it does not run."""
    for folder in entries(roots.proc):
        if folder.name.isdigit() and text_of(folder / "comm") == program:
            return int(folder.name)
    return None
