"""Exits 0 when this machine has a Java 16 or newer of its own; used by the Makefile, stdlib only."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path


def homes() -> list[Path]:
    found = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    if on_path:
        found.append(Path(on_path).resolve().parent.parent)
    return found + sorted(Path("/usr/lib/jvm").glob("*"))


def usable(home: Path) -> bool:
    release = home / "release"
    if not release.is_file() or not (home / "lib/server/libjvm.so").is_file():
        return False
    match = re.search(r'JAVA_VERSION="(\d+)', release.read_text(errors="replace"))
    return match is not None and int(match[1]) >= 16


if __name__ == "__main__":
    sys.exit(0 if any(usable(home) for home in homes()) else 1)
