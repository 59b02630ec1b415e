"""One worker per printer works off the durable queue; a sale never waits for paper.

A slip that cannot begin waits, or comes out at the next printer with a banner. One that has begun and
was not confirmed is never sent again by itself: a person looks, and a second print is a copy.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.devices.channel import Tap
from gateway.devices.printer import Outcome, Result
from gateway.devices.printer_status import PrinterStatus
from gateway.printing.document import Document
from gateway.store import events, print_jobs
from gateway.store.database import Database
from gateway.store.print_jobs import PrintJob

log = logging.getLogger(__name__)
T = TypeVar("T")

RETRY_FIRST_S = 0.5
# A printer that is well again must start within this many seconds.
RETRY_LAST_S = 5.0
# An idle printer is looked at this often, in seconds: paper, cover, drawer.
WATCH_S = 3.0
# A drawer that opens within this time of a pulse was opened by it. Seconds.
PULSE_S = 10.0

Compose = Callable[[sqlite3.Connection, PrintJob, int], Document]


class Printer(Protocol):
    """What the worker needs of a driver; each call blocks and runs in the worker's thread."""

    status: PrinterStatus
    tap: Tap

    def look(self) -> str | None: ...
    def print_slip(self, document: Document) -> Outcome: ...
    def kick(self) -> str | None: ...
    def close(self) -> None: ...
    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SpoolRules:
    """`stale_s`: slips older than this wait for a tap (0: never). `failover_s`: how long a printer may
    fail before its slips go to another one."""

    stale_s: float = 900.0
    failover_s: float = 10.0


class PrinterWorker:
    """The worker of one printer. `run` belongs to the supervisor."""

    def __init__(
        self,
        *,
        name: str,
        db: Database,
        clock: Clock,
        compose: Compose,
        printer: Printer,
        rules: SpoolRules,
    ) -> None:
        self.name = name
        self.printer = printer
        self._db = db
        self._clock = clock
        self._compose = compose
        self._rules = rules
        self._wake = asyncio.Event()
        # The port blocks, so it gets a thread of its own; one job at a time is the thread's width.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"printer-{name}")
        self._failing_since_ns: int | None = None
        self._pulsed_ns: int | None = None
        self._drawer_open = False
        # Where slips go while this printer fails, best first.
        self.others: Sequence[PrinterWorker] = ()
        # Why nothing comes out; None while all is well.
        self.problem: str | None = None
        self.last: Outcome | None = None

    @property
    def tap(self) -> Tap:
        return self.printer.tap

    def notify(self) -> None:
        self._wake.set()

    def holds(self, reason: str | None) -> None:
        """From the printer's thread: a slip that has begun does not go on."""
        self._changed(reason)

    async def kick(self) -> str | None:
        """Open the drawer between two slips; None, or why not."""
        self._pulsed_ns = self._clock.boottime_ns()
        return await self._in_thread(self.printer.kick)

    async def run(self) -> None:
        pause = RETRY_FIRST_S
        try:
            while True:
                self._wake.clear()
                job = await self._db.read(lambda conn: print_jobs.next_for(conn, self.name))
                if job is None:
                    await wake_or_sleep(self._clock, self._wake, WATCH_S)
                    if not self._wake.is_set():
                        await self.watch()
                    continue
                problem = await self.watch()
                if problem is not None:
                    await self._wait_or_hand_over(job, problem)
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, RETRY_LAST_S)
                    continue
                pause = RETRY_FIRST_S
                if not await self._too_old(job):
                    await self._print(job)
        finally:
            self.printer.close()
            self._thread.submit(self.printer.release)
            self._thread.shutdown(wait=False)

    async def _in_thread(self, fn: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, fn, *args)

    # --- how it is -----------------------------------------------------------------------------------

    async def watch(self) -> str | None:
        """Look how the printer is now; None when it would print."""
        problem = await self._in_thread(self.printer.look)
        if problem is None:
            self._failing_since_ns = None
        elif self._failing_since_ns is None:
            self._failing_since_ns = self._clock.boottime_ns()
        self._changed(problem)
        await self._drawer_moved(self.printer.status.drawer_open)
        return problem

    async def _drawer_moved(self, is_open: bool) -> None:
        if is_open == self._drawer_open:
            return
        self._drawer_open = is_open
        now_ns = self._clock.boottime_ns()
        ours = self._pulsed_ns is not None and now_ns - self._pulsed_ns < PULSE_S * 1e9
        kind = "drawer.opened" if is_open else "drawer.closed"
        data: dict[str, object] = {"printer": self.name}
        if is_open:
            data["withSale"] = ours
        log.info("%s printer=%s by_us=%s", kind, self.name, ours)
        await self._tell(kind, data)

    def _changed(self, problem: str | None) -> None:
        if problem != self.problem:
            level = logging.INFO if problem is None else logging.WARNING
            log.log(level, "printer.changed name=%s problem=%s", self.name, problem)
        self.problem = problem

    # --- a job ---------------------------------------------------------------------------------------

    async def _wait_or_hand_over(self, job: PrintJob, problem: str) -> None:
        if job.state != "BLOCKED" or job.reason != problem:
            await self._mark(job, "BLOCKED", reason=problem, kind="print.blocked")
        since = self._failing_since_ns or self._clock.boottime_ns()
        if self._clock.boottime_ns() - since < self._rules.failover_s * 1e9:
            return
        if job.kind == "NOTE":
            return  # the others have their own strips
        for other in self.others:
            if other.problem is None and await other.watch() is None:
                await self._hand_over(job, other)
                return

    async def _hand_over(self, job: PrintJob, other: PrinterWorker) -> None:
        at = micros(self._clock.now())

        def move(conn: sqlite3.Connection) -> None:
            if print_jobs.hand_over(conn, job, other.name, at=at):
                data = {"from": self.name, "to": other.name, "job": job.id}
                events.record(conn, at=at, kind="print.moved", subject=job.invoice_id, data=data)

        await self._db.write(move)
        log.warning("print.moved job=%d from=%s to=%s", job.id, self.name, other.name)
        other.notify()

    async def _too_old(self, job: PrintJob) -> bool:
        """A flood of old slips after an outage helps nobody: they wait for a tap."""
        age_s = (micros(self._clock.now()) - job.created_at) / 1e6
        if not self._rules.stale_s or age_s < self._rules.stale_s or job.released:
            return False
        if job.kind == "REPORT":
            return False
        if job.kind == "NOTE":
            await self._mark(job, "DROPPED", reason="no longer true", kind="print.dropped")
        else:
            await self._mark(
                job, "HELD", reason="older than printing.stale_minutes", kind="print.held"
            )
        return True

    async def _print(self, job: PrintJob) -> Outcome:
        now = micros(self._clock.now())
        document = await self._db.read(lambda conn: self._compose(conn, job, now))
        # Durable before the first byte: after a crash an original on the wire is never sent again.
        await self._mark(job, "SENDING", attempt=True, durable=job.kind == "ORIGINAL")
        self._pulsed_ns = self._clock.boottime_ns()
        outcome = await self._in_thread(self.printer.print_slip, document)
        self.last = outcome
        match outcome.result:
            case Result.PRINTED:
                self._changed(None)
                await self._mark(job, "PRINTED", kind="print.printed", outcome=outcome)
            case Result.UNCONFIRMED:
                self._changed(outcome.reason)
                await self._mark(
                    job, "UNCONFIRMED", reason=outcome.reason, kind="print.unconfirmed"
                )
            case Result.NOT_SENT:
                self._changed(outcome.reason)
                await self._mark(job, "BLOCKED", reason=outcome.reason, kind="print.blocked")
        return outcome

    async def _mark(
        self,
        job: PrintJob,
        state: str,
        *,
        reason: str | None = None,
        attempt: bool = False,
        durable: bool = False,
        kind: str | None = None,
        outcome: Outcome | None = None,
    ) -> None:
        def change(conn: sqlite3.Connection) -> None:
            at = micros(self._clock.now())
            print_jobs.mark(conn, job.id, state, at=at, reason=reason, attempt=attempt)
            if kind is not None:
                data = {"printer": self.name, "job": job.id, "kind": job.kind, "reason": reason}
                if outcome is not None:
                    data |= {"bytes": outcome.size, "wireMs": round(outcome.wire_s * 1000)}
                events.record(conn, at=at, kind=kind, subject=job.invoice_id, data=data)

        await (self._db.write if durable else self._db.write_soft)(change)

    async def _tell(self, kind: str, data: dict[str, object]) -> None:
        at = micros(self._clock.now())
        await self._db.write_soft(lambda conn: events.record(conn, at=at, kind=kind, data=data))
