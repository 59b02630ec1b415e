"""A public Daraja SDK as a process of its own Python environment (`make sdks`), ordered line by line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hw_fakes.daraja import KEY, PASSKEY, SECRET

HOME = Path(__file__).parents[2] / ".sdks" / "bin" / "python"
DRIVER = Path(__file__).with_name("driver.py")
ANSWER_MAX_S = 60.0


class SdkError(Exception):
    """An error that the SDK raised, in the words of its driver."""

    def __init__(self, kind: str, code: str | None, message: str, status: int | None) -> None:
        super().__init__(f"{kind} {code} {message}")
        self.kind, self.code, self.message, self.status = kind, code, message, status


def find_sdks() -> Path:
    """Return the Python of the SDKs. Missing: skipped at a desk, failed in CI."""
    if HOME.is_file():
        return HOME
    if os.environ.get("CI"):
        pytest.fail("the SDKs are not installed; .ci/run must run `make sdks`")
    pytest.skip("the SDKs are not installed: make sdks")


class Sdk:
    """One driver process. `name`: daraja-v3 or mpesakit."""

    def __init__(self, name: str, authority: Path | None = None) -> None:
        # Of the desk's environment only the path: a proxy is none of the SDK's business here.
        env = {"PATH": os.environ.get("PATH", "")}
        if authority is not None:
            env["SSL_CERT_FILE"] = str(authority)
        self.name = name
        self._process = subprocess.Popen(
            [str(find_sdks()), str(DRIVER), name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=ANSWER_MAX_S)
        assert self._process.stdout is not None
        self._process.stdout.close()

    async def open(
        self, url: str, key: str = KEY, secret: str = SECRET, built_in: bool = False
    ) -> None:
        await self.do("open", url=url, key=key, secret=secret, passkey=PASSKEY, built_in=built_in)

    async def do(self, what: str, **more: Any) -> Any:
        """Return what the SDK returned. SdkError: what it raised."""
        async with asyncio.timeout(ANSWER_MAX_S):
            answer = await asyncio.to_thread(self._exchange, {"do": what, **more})
        if "error" in answer:
            raise SdkError(**answer["error"])
        return answer["ok"]

    def _exchange(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"{self.name} ended with {self._process.poll()}"
        answer: dict[str, Any] = json.loads(line)
        return answer
