"""Fake printers in a process of their own, so that their work is not counted as the gateway's.

`python -m tests.bench.printers COUNT BAUD`: prints their ports as one line of JSON; at the end of its
input it prints, for each, its slips (text, bytes, began: monotonic seconds) as another, and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from hw_fakes.printer.control import journal
from hw_fakes.printer.peer import FakePrinter, Wire


async def serve(count: int, baud: int) -> None:
    printers = [FakePrinter(wire=Wire(baud=baud)) for _ in range(count)]
    with contextlib.ExitStack() as stack:
        for printer in printers:
            stack.enter_context(contextlib.closing(printer))
            printer.plug()
        print(json.dumps([printer.device_path for printer in printers]), flush=True)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)
        print(json.dumps([journal(printer)["slips"] for printer in printers]), flush=True)


class Printers:
    """The process as seen from outside."""

    def __init__(self, process: asyncio.subprocess.Process, ports: list[str]) -> None:
        self._process = process
        self.ports = ports

    async def end(self) -> list[list[dict[str, Any]]]:
        """Every printer's slips; the process is gone then."""
        out, _ = await self._process.communicate(b"")
        slips: list[list[dict[str, Any]]] = json.loads(out)
        return slips


@asynccontextmanager
async def printers(count: int, baud: int) -> AsyncIterator[Printers]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.printers", str(count), str(baud),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield Printers(process, json.loads(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
