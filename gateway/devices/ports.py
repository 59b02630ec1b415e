"""What is plugged in: serial ports and USB printers with their stable names, and who has them open.

Reads folders, links and /proc only. It never opens a port: an open raises DTR and may restart a device
or open a drawer.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Kind = Literal["USB serial", "built-in serial", "USB printer"]

# A UART without hardware behind it says type 0 (PORT_UNKNOWN); a PC shows 32 of them.
_NO_UART = "0"
_BUILT_IN = re.compile(r"tty(S|AMA)[0-9]+")
# Names that the kernel gives by the order of plugging in.
_MOVES = re.compile(r"tty(USB|ACM)[0-9]+|lp[0-9]+")


@dataclass(frozen=True, slots=True)
class Roots:
    """Where to look; tests give a made tree."""

    dev: Path = Path("/dev")
    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    run: Path = Path("/run")
    # Programs and settings of the machine: /usr, /etc.
    root: Path = Path("/")


@dataclass(frozen=True, slots=True)
class Usb:
    """What a USB device says of itself; `serial` is empty where the maker saved it."""

    vendor: str
    product: str
    serial: str = ""
    name: str = ""
    interface: str = ""

    @property
    def title(self) -> str:
        """Return maker and model, as far as the device has them."""
        name = self.name or f"USB {self.vendor}:{self.product}"
        return f"{name}, serial number {self.serial or 'none'}"


@dataclass(frozen=True, slots=True)
class Port:
    """One port. `device` is the kernel's name of today, `real` what it resolves to. `alike` says that
    another port that is plugged in cannot be told from it by id."""

    device: str
    real: str
    kind: Kind
    by_id: str | None = None
    by_path: str | None = None
    usb: Usb | None = None
    alike: bool = False

    @property
    def stable(self) -> str:
        """The name for the settings: by id; by path where the id is missing or not its own."""
        if self.by_id is not None and not self.alike:
            return self.by_id
        return self.by_path or self.device

    @property
    def title(self) -> str:
        """Return maker and model, as far as the device has them."""
        return self.kind if self.usb is None else self.usb.title


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the port open; `locked`: it also holds the lock that the gateway takes."""

    pid: int
    name: str
    locked: bool


def moves(port: str) -> bool:
    """Whether this name belongs to another device after the next replug or restart."""
    return _MOVES.fullmatch(Path(port).name) is not None


def plugged_in(roots: Roots = Roots()) -> list[Port]:
    """Every serial port and USB printer that is there now, by device name."""
    by_id = _links(roots.dev / "serial/by-id") | _links(roots.dev / "usb/by-id")
    by_path = _links(roots.dev / "serial/by-path") | _links(roots.dev / "usb/by-path")
    found: dict[str, Port] = {}

    def add(device: str, kind: Kind, usb: Usb | None) -> None:
        real = os.path.realpath(device)
        if real not in found and Path(real).exists():
            found[real] = Port(device, real, kind, by_id.get(real), by_path.get(real), usb)

    for entry in entries(roots.sys / "class/tty"):
        usb = _usb(entry)
        if usb is not None:
            add(str(roots.dev / entry.name), "USB serial", usb)
        elif _BUILT_IN.fullmatch(entry.name) and text_of(entry / "type") not in ("", _NO_UART):
            add(str(roots.dev / entry.name), "built-in serial", None)
    for entry in entries(roots.sys / "class/usbmisc"):
        if entry.name.startswith("lp"):
            add(str(roots.dev / "usb" / entry.name), "USB printer", _usb(entry))
    for real in (*by_id, *by_path):
        # Links that /sys does not explain, as in a container.
        add(real, "USB printer" if Path(real).parent.name == "usb" else "USB serial", None)
    ports = sorted(found.values(), key=lambda port: _natural(port.device))
    return [replace(port, alike=_has_double(port, ports)) for port in ports]


def _has_double(port: Port, ports: list[Port]) -> bool:
    """udev makes one link by id of vendor, product, serial number and interface; of two devices that
    agree in them only one gets it, and not always the same one."""
    return port.usb is not None and any(
        other is not port and other.usb == port.usb and other.kind == port.kind for other in ports
    )


def holders(port: Port, roots: Roots = Roots()) -> list[Holder]:
    """Who has it open. Another user's processes are seen by their lock only, unless asked by root."""
    locked = _lockers(port, roots)
    opened = set(locked)
    for folder in entries(roots.proc):
        if not folder.name.isdigit():
            continue
        try:
            if any(os.path.realpath(fd) == port.real for fd in (folder / "fd").iterdir()):
                opened.add(int(folder.name))
        except OSError:
            continue  # another user's, or it has just ended
    return [Holder(pid, _process(pid, roots), pid in locked) for pid in sorted(opened)]


def _lockers(port: Port, roots: Roots) -> set[int]:
    """Processes with a flock on the device, out of /proc/locks, which every user may read."""
    try:
        stat = Path(port.real).stat()
    except OSError:
        return set()
    where = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    found = set()
    for line in text_of(roots.proc / "locks").splitlines():
        words = line.split()
        if len(words) >= 6 and words[1] == "FLOCK" and words[5] == where and words[4].isdigit():
            found.add(int(words[4]))
    return found


def _process(pid: int, roots: Roots) -> str:
    """`pos-gateway` for the script of that name, whatever interpreter runs it."""
    words = text_of(roots.proc / str(pid) / "cmdline").split("\0")
    names = [Path(word).name for word in words[:3]]
    if "pos-gateway" in names or words[1:3] == ["-m", "gateway"]:
        return "pos-gateway"
    return text_of(roots.proc / str(pid) / "comm") or (names[0] if names else "") or "a program"


def _links(folder: Path) -> dict[str, str]:
    """Real device -> the best of the links to it: newer systemd has two by path, the plain one first."""
    found: dict[str, str] = {}
    for link in sorted(entries(folder), key=lambda link: ("usbv" in link.name, link.name)):
        real = os.path.realpath(link)
        if Path(real).exists():
            found.setdefault(real, str(link))
    return found


def class_entry(port: Port, roots: Roots) -> Path:
    """Return its entry in a class of /sys, by the name that the kernel gave it."""
    kind = "usbmisc" if port.kind == "USB printer" else "tty"
    return roots.sys / "class" / kind / Path(port.real).name


def usb_folder(entry: Path) -> Path | None:
    """Return the folder of the USB device above a class entry of /sys; None where there is none."""
    at = Path(os.path.realpath(entry / "device"))
    return next((folder for folder in (at, *at.parents) if (folder / "idVendor").is_file()), None)


def usb_of(folder: Path, interface: str = "") -> Usb:
    """Return what the USB device of this folder of /sys says of itself."""
    name = f"{text_of(folder / 'manufacturer')} {text_of(folder / 'product')}".strip()
    return Usb(
        vendor=text_of(folder / "idVendor"),
        product=text_of(folder / "idProduct"),
        serial=text_of(folder / "serial"),
        name=name,
        interface=interface,
    )


def _usb(entry: Path) -> Usb | None:
    """Return the USB device above a class entry of /sys; None where there is none."""
    folder = usb_folder(entry)
    if folder is None:
        return None
    at = Path(os.path.realpath(entry / "device"))
    between = (at, *at.parents[: len(at.parts) - len(folder.parts)])
    number = next((text for f in between if (text := text_of(f / "bInterfaceNumber"))), "")
    # Which of an adapter's ports: the interface, and the number beneath it.
    return usb_of(folder, f"{number}.{text_of(at / 'port_number')}")


def entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _natural(name: str) -> list[tuple[int, str]]:
    """ttyUSB2 before ttyUSB10."""
    return [
        (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)
    ]
