"""Owns every task of the daemon: start order, readiness, restart policy, reverse drain."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum

from gateway.clock import Clock
from gateway.errors import DiskFull, StoreBusy
from gateway.store.database import waits_out

log = logging.getLogger(__name__)

RESTART_FIRST_S = 1.0
RESTART_LAST_S = 60.0
# A loop gets this long to end by itself when the daemon stops.
DRAIN_EACH_S = 5.0


class Restart(Enum):
    """What to do when a loop dies: take the daemon down (systemd restarts it), or try again."""

    NEVER = "never"
    BACKOFF = "backoff"


@dataclass(frozen=True, slots=True)
class _Loop:
    name: str
    task: asyncio.Task[None]


class Supervisor:
    """Loops started here are the daemon's only tasks besides its HTTP server's own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loops: list[_Loop] = []
        self._failure: str | None = None
        self._failed = asyncio.Event()

    def start(
        self,
        name: str,
        run: Callable[[], Awaitable[None]],
        restart: Restart = Restart.NEVER,
        *,
        waits: bool = True,
    ) -> None:
        """Run a loop under this name until it returns, or the daemon drains.

        `waits`: its transactions wait while another program has locked the store, and where its death would end the
        daemon also while the disk is full. Without, it gets the error.
        """
        patience = (StoreBusy,) if restart is Restart.BACKOFF else (StoreBusy, DiskFull)
        context = contextvars.copy_context()
        context.run(waits_out.set, patience if waits else ())
        task = asyncio.get_running_loop().create_task(
            self._watch(name, run, restart), name=name, context=context
        )
        self._loops.append(_Loop(name, task))

    async def failed(self) -> str:
        """Waits until a loop that must not die has died; its name and reason."""
        await self._failed.wait()
        return self._failure or "unknown"

    async def drain(self) -> None:
        """Cancel the loops in reverse order of start, each waited for."""
        for loop in reversed(self._loops):
            loop.task.cancel()
            await asyncio.wait({loop.task}, timeout=DRAIN_EACH_S)
            if not loop.task.done():
                log.error("loop.hangs name=%s", loop.name)
        self._loops.clear()

    async def finish(self, name: str, timeout_s: float) -> None:
        """Wait for one loop to end by itself; it is cancelled by `drain` if it does not."""
        tasks = {loop.task for loop in self._loops if loop.name == name}
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def _watch(self, name: str, run: Callable[[], Awaitable[None]], restart: Restart) -> None:
        pause = RESTART_FIRST_S
        while True:
            try:
                await run()
                return
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the supervisor is where every loop's death must end
                log.exception("loop.died name=%s", name)
                if restart is Restart.NEVER:
                    self._failure = self._failure or f"{name}: {error}"
                    self._failed.set()
                    return
            await self._clock.sleep(pause)
            pause = min(pause * 2, RESTART_LAST_S)
