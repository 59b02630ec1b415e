"""The relay as it is deployed, as a process beside the fakes: `pos-gateway relay` on a free loopback port."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from hw_fakes.ports import free_port

# How long a start may take on a slow machine before it is called failed, in seconds.
START_MAX_S = 30.0


class RelayProcess:
    """Start, kill, start again, on one directory and one port. Use as an async context manager.

    `secrets`: gateway name -> secret; one gateway `shop-1` with a secret of its own where none is given.
    `more`: lines for relay.toml.
    """

    def __init__(
        self,
        directory: Path,
        *,
        gateways: Mapping[str, str] | None = None,
        port: int = 0,
        more: str = "",
    ) -> None:
        self.secrets = dict(gateways or {"shop-1": secrets.token_urlsafe(32)})
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        # A command that runs the relay's command (strace).
        self.prefix: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.config = directory / "relay.toml"
        self.config.write_text(f'directory = "store"\nport = {self.port}\n{more}', encoding="utf-8")

    async def __aenter__(self) -> RelayProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def start(self) -> None:
        """Back when it answers."""
        lines = "\n".join(f"{name} = {secret}" for name, secret in self.secrets.items())
        with (self.directory / "relay.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.prefix, sys.executable, "-m", "gateway", "relay", "--config", str(self.config),
                env={**os.environ, "RELAY_SECRETS": lines}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        async with asyncio.timeout(START_MAX_S):
            while not await asyncio.to_thread(self._answers):
                if self._process.returncode is not None:
                    raise RuntimeError(self.log()[-2000:])
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL: gone between two instructions, with whatever runs it."""
        assert self._process is not None
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, as systemd stops it; the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        async with asyncio.timeout(START_MAX_S):
            return await self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        return (self.directory / "relay.log").read_text(errors="replace")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
