"""The real daemon as a process: `pos-gateway run` with the fake unit hosted in it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import aiohttp

from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import BRANCH, JAR, PIN, SERIAL, UnitControl, prepare
from tests.support.shop import TOKENS, TillClient

READY_MAX_S = 60.0


class Daemon:
    """Start, SIGKILL, start again, on one directory. The notify socket says when it is ready."""

    def __init__(self, directory: Path, extra: str = "", env: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.port = free_port()
        self.unit_port = free_port()
        self.unit = UnitControl(f"http://127.0.0.1:{self.unit_port}")
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = env or {}
        # A command that runs the daemon's command (strace).
        self.prefix: list[str] = []
        # What runs as `python -m`: the gateway, or the gateway on a clock of its own.
        self.module = "gateway"
        self._process: asyncio.subprocess.Process | None = None
        prepare(directory / "unit", port=self.unit_port)
        self.config = directory / "gateway.toml"
        self.config.write_text(
            f"""
[branch]
pin = "{PIN}"
branch_id = "{BRANCH}"
trade_name = "TEST TRADERS LTD"
[unit]
jar = "{JAR}"
directory = "{directory / "unit"}"
port = {self.unit_port}
serial = "{SERIAL}"
resend = true
forgets_on_restart = true
# The fake unit sends what an earlier run left a second after it has started.
upload_s = 3
[store]
directory = "{directory / "store"}"
[api]
port = {self.port}
"""
            + "".join(f'[[tills]]\nid = "{till}"\n' for till in TOKENS)
            + extra,
            encoding="utf-8",
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Back when the daemon has told systemd (here: us) that it is ready."""
        path = str(self.directory / "notify")
        Path(path).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(path)
            notify.setblocking(False)
            tokens = ",".join(f"{till}={token}" for till, token in TOKENS.items())
            env = {**os.environ, "NOTIFY_SOCKET": path, "GATEWAY_TILL_TOKENS": tokens, **self._env}
            with (self.directory / "daemon.log").open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.prefix, sys.executable, "-m", self.module, "run", "--config", str(self.config),
                    env=env, stdout=log, stderr=log,
                )  # fmt: skip
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(READY_MAX_S):
                ended = asyncio.ensure_future(self._process.wait())
                while True:
                    heard = asyncio.ensure_future(loop.sock_recv(notify, 4096))
                    done, _ = await asyncio.wait(
                        {heard, ended}, return_when=asyncio.FIRST_COMPLETED
                    )
                    if ended in done:
                        heard.cancel()
                        raise RuntimeError(self.log()[-2000:])
                    if b"READY=1" in heard.result():
                        ended.cancel()
                        return

    async def __aenter__(self) -> Daemon:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """A test that failed must not leave a daemon behind, which would go on using its ports."""
        if self._process is not None and self._process.returncode is None:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL: the process is gone between two instructions."""
        await self._signal(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM, as systemd stops it; the exit code."""
        return await self._signal(signal.SIGTERM)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def exited(self) -> int:
        """Wait for the end of the daemon, however far that is; return the exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def ended(self) -> int:
        """Waits for the daemon's own end; the exit code."""
        assert self._process is not None
        async with asyncio.timeout(READY_MAX_S):
            return await self._process.wait()

    async def _signal(self, number: int) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        async with asyncio.timeout(READY_MAX_S):
            return await self._process.wait()

    def stored(self, state: str, table: str = "invoice") -> int:
        """How many rows are in this state, read beside the daemon."""
        path = self.directory / "store" / "gateway.db"
        conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            asked = f"SELECT COUNT(*) FROM {table} WHERE state = ?"
            found: int = conn.execute(asked, (state,)).fetchone()[0]
        finally:
            conn.close()
        return found

    def log(self) -> str:
        return (self.directory / "daemon.log").read_text(errors="replace")

    def till(self, session: aiohttp.ClientSession, name: str = "till-1") -> TillClient:
        return TillClient(session, self.url, name)
