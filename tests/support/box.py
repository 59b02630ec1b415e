"""A gateway's inbox and its relay client as a process of their own, with a clock that may be wrong.

`python -m tests.support.box DIRECTORY URL GATEWAY [SECONDS]`; the secret is in BOX_SECRET. Prints "ready".
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from datetime import datetime, timedelta
from pathlib import Path

from gateway.clock import SystemClock
from gateway.mpesa.relay_client import RelayClient
from gateway.payments.inbox import Inbox
from gateway.payments.ledger import Ledger
from gateway.store.database import FILE_NAME, open_database
from tests.support.inbox import C2B, SHORTCODE

START_MAX_S = 30.0


class WrongClock(SystemClock):
    """So many seconds ahead of the time."""

    def __init__(self, ahead_s: float) -> None:
        super().__init__()
        self._ahead = timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return super().now() + self._ahead


async def main(directory: Path, url: str, gateway: str, ahead_s: float) -> None:
    clock = WrongClock(ahead_s)
    async with open_database(directory) as db:
        inbox = Inbox(db, clock, Ledger(db, clock), shortcodes=(SHORTCODE,), c2b_token=C2B)
        client = RelayClient(
            url=url, gateway=gateway, secret=os.environ["BOX_SECRET"], clock=clock, mailbox=inbox
        )
        print("ready", flush=True)
        await asyncio.gather(inbox.run(), client.run())


class Box:
    """Start, SIGKILL, start again on one directory."""

    def __init__(
        self, directory: Path, url: str, gateway: str, secret: str, ahead_s: float = 0
    ) -> None:
        self.directory = directory
        self._arguments = [str(directory), url, gateway, str(ahead_s)]
        self._env = {**os.environ, "BOX_SECRET": secret}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Box:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.box", *self._arguments,
            env=self._env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(START_MAX_S):
            assert await self._process.stdout.readline() == b"ready\n"

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        # To its end, so that the pipe is closed with it.
        await self._process.communicate()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def messages(self) -> list[tuple[str, str, bytes]]:
        """(origin id, state, raw) of its inbox as it is on the disk, in order."""
        conn = sqlite3.connect(f"file:{self.directory / FILE_NAME}?mode=ro", uri=True)
        try:
            return list(conn.execute("SELECT origin_id, state, raw FROM mpesa_message ORDER BY id"))
        finally:
            conn.close()

    def count(self) -> int:
        conn = sqlite3.connect(f"file:{self.directory / FILE_NAME}?mode=ro", uri=True)
        try:
            return int(conn.execute("SELECT COUNT(*) FROM mpesa_message").fetchone()[0])
        finally:
            conn.close()


def peak_kb(pid: int) -> int:
    """The most memory that a process has had, in kB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])))
