"""Builds the fake unit's JAR from its source, the same bytes every time: `python -m hw_fakes.vscu.build`."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "src"
RESOURCES = HERE / "resources"
JAR = HERE / "etims-vscu-fake.jar"
RELEASE = "16"
# A fixed moment, or two builds of one source would differ.
STAMP = (2026, 1, 1, 0, 0, 0)
MANIFEST = (
    "Manifest-Version: 1.0\r\n"
    "Main-Class: fake.launcher.JarLauncher\r\n"
    "Start-Class: fake.vscu.Application\r\n"
    "Implementation-Title: etims-vscu-fake\r\n\r\n"
)


def sources_digest() -> str:
    """One digest over every source file: what the JAR says that it was built from."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.rglob("*.java")):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compile_classes(folder: Path) -> dict[str, bytes]:
    """Class files by their path in the package tree. Needs a JDK's javac."""
    files = [str(path) for path in sorted(SOURCES.rglob("*.java"))]
    command = ["javac", "--release", RELEASE, "-g:source,lines", "-Werror", "-d", str(folder)]
    subprocess.run([*command, *files], check=True)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.class"))
    }


def entries(classes: dict[str, bytes]) -> dict[str, bytes]:
    """The JAR's content: the launcher at its root, the application nested as Spring Boot nests it."""
    found = {"META-INF/MANIFEST.MF": MANIFEST.encode()}
    found["META-INF/sources.sha256"] = sources_digest().encode()
    for name, code in classes.items():
        place = name if name.startswith("fake/launcher/") else f"BOOT-INF/classes/{name}"
        found[place] = code
    codes = json.loads((RESOURCES / "codes.json").read_text(encoding="utf-8"))
    compact = json.dumps(codes, separators=(",", ":"), ensure_ascii=False)
    found["BOOT-INF/classes/codes.json"] = compact.encode()
    return found


def build(target: Path = JAR) -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = entries(compile_classes(Path(folder)))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name, STAMP), data, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    if shutil.which("javac") is None:
        sys.exit("javac was not found; a JDK is needed to build the fake unit (not to run it)")
    build()
    sys.stdout.write(f"{JAR.name} {JAR.stat().st_size} bytes\n")
