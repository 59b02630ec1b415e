"""A Debian with the project in it, as a folder: built once and kept in build/boot, copied for every run.

The system comes from the Debian archive that this machine's apt uses, the project's own packages from
where this machine's pip takes them; inside the folder nothing needs a network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "boot"
SUITE = "bookworm"
# What every Debian on a mini-PC has before anybody installs the gateway.
OF_DEBIAN = ("systemd", "systemd-sysv", "dbus", "udev", "kmod")
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "ip")
WHEELS = "/wheels"


def missing() -> str | None:
    """Why this machine cannot do it; None when it can."""
    if os.geteuid() != 0:
        return "make boot boots a system in a container and must be root for that"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"make boot needs {', '.join(lacking)}: apt install systemd-container debootstrap iproute2"
    return None


def commands(page: str, steps: int = 99) -> list[str]:
    """The commands of a page, in order: what stands indented below its first numbered steps."""
    text = (ROOT / "docs" / "operating" / page).read_text(encoding="utf-8")
    found: list[str] = []
    in_step = False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            number = re.match(r"(\d+)\. ", line)
            in_step = number is not None and int(number[1]) <= steps
        elif in_step and line.startswith(" " * 7):
            found.append(line.strip())
    return found


def packages() -> list[str]:
    """What the page tells a technician to `apt install`."""
    line = next(line for line in commands("install.md") if line.startswith("apt install "))
    return line.removeprefix("apt install ").split()


def base() -> Path:
    """The system alone. Made anew when its packages change."""
    wanted = [*OF_DEBIAN, *packages()]
    place = BUILD / f"base-{_key(SUITE, *wanted)}"
    if not place.is_dir():
        part = BUILD / "base.part"
        shutil.rmtree(part, ignore_errors=True)
        for old in BUILD.glob("base-*"):
            shutil.rmtree(old)
        BUILD.mkdir(parents=True, exist_ok=True)
        include = f"--include={','.join(wanted)}"
        _run("debootstrap", "--variant=minbase", include, SUITE, str(part), *_archive())
        for file in (part / "var/cache/apt/archives").glob("*.deb"):
            file.unlink()
        part.rename(place)
    return place


def wheels(system: Path) -> Path:
    """Every package of requirements.lock for that system's Python. Made anew when the lock changes."""
    python = next((system / "usr/lib").glob("python3.*")).name.removeprefix("python")
    lock = ROOT / "requirements.lock"
    place = BUILD / f"wheels-{_key(python, lock.read_text())}"
    if not place.is_dir():
        part = BUILD / "wheels.part"
        shutil.rmtree(part, ignore_errors=True)
        for old in BUILD.glob("wheels-*"):
            shutil.rmtree(old)
        _run(
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
            "--require-hashes", "--only-binary=:all:", "--implementation=cp",
            f"--python-version={python}", "--dest", str(part), "--requirement", str(lock),
        )  # fmt: skip
        part.rename(place)
    return place


def copy(system: Path, place: Path) -> None:
    """A system of its own to `place`, with the project as it is in this tree, ready for the page's steps."""
    _run("cp", "--archive", "--reflink=auto", str(system), str(place))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() and not source.is_symlink():
            target = place / "opt/pos-gateway" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    # Kept over a reboot, as on a machine with a disk.
    (place / "var/log/journal").mkdir(parents=True, exist_ok=True)


def _archive() -> list[str]:
    """Where this machine's apt takes the suite from; debootstrap's own default on another system."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    for line in told.stdout.splitlines():
        suite, _, address = line.partition(" ")
        if suite == SUITE:
            return [address]
    return []


def _key(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
