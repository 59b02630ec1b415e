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
from typing import Any, Protocol, TypeVar

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.devices.channel import Tap
from gateway.devices.printer import Outcome, Result
from gateway.devices.printer_status import PrinterStatus
from gateway.errors import StoreError
from gateway.printing.document import Document, Drawer
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
# How long a person at the drawer waits for the slip that is coming out. Seconds.
KICK_S = 10.0
# How long another printer may take to say that it would print. Seconds.
OTHER_S = 3.0
BUSY = "the printer is busy with a slip"

Compose = Callable[[sqlite3.Connection, PrintJob, int], Document]


class Printer(Protocol):
    """What the worker needs of a driver; each call blocks and runs in the worker's thread."""

    status: PrinterStatus
    tap: Tap

    def look(self) -> str | None: ...
    def print_slip(self, document: Document) -> Outcome: ...
    def kick(self) -> str | None: ...
    def reopen(self) -> None: ...
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
        self._thread: ThreadPoolExecutor | None = None
        self._failing_since_ns: int | None = None
        # When the drawer was last pulsed, and whether for a sale.
        self._pulsed_ns: int | None = None
        self._pulsed_for_sale = False
        self._drawer_open = False
        self._ending = False
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

    def finish(self) -> None:
        """The gateway stops: no new slip, and only seconds for the one that is coming out."""
        self._ending = True
        self.printer.close()
        self.notify()

    def holds(self, reason: str | None) -> None:
        """From the printer's thread: a slip that has begun does not go on."""
        self._changed(reason)

    async def kick(self) -> str | None:
        """Open the drawer between two slips, now or not at all; None, or why not."""
        problem = await self._soon(self.printer.kick, KICK_S)
        if problem is None:
            self._pulsed(for_sale=False)
        return problem

    def _pulsed(self, *, for_sale: bool) -> None:
        self._pulsed_ns, self._pulsed_for_sale = self._clock.boottime_ns(), for_sale

    async def run(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"printer-{self.name}")
        self.printer.reopen()
        try:
            await self._recover()
            await self._work()
        finally:
            self.printer.close()
            thread, self._thread = self._thread, None
            thread.submit(self.printer.release)
            thread.shutdown(wait=False)

    async def _recover(self) -> None:
        """A run before this one that died in mid-slip has left it open whether that came out."""
        at = micros(self._clock.now())

        def settle(conn: sqlite3.Connection) -> None:
            for job in print_jobs.recover(conn, at=at, printer=self.name):
                data = {"printer": self.name, "job": job.id, "kind": job.kind}
                data |= {"reason": "its worker ended while it was printing"}
                events.record(
                    conn, at=at, kind="print.unconfirmed", subject=job.invoice_id, data=data
                )

        await self._db.write_soft(settle)

    async def _work(self) -> None:
        pause = RETRY_FIRST_S
        while not self._ending:
            self._wake.clear()
            job = await self._db.read(lambda conn: print_jobs.next_for(conn, self.name))
            if job is None:
                await wake_or_sleep(self._clock, self._wake, WATCH_S)
                if not self._wake.is_set():
                    await self.watch()
                continue
            problem = await self.watch()
            if self._ending:
                return
            if problem is not None:
                if not await self._handed_over(job, problem):
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, RETRY_LAST_S)
                continue
            pause = RETRY_FIRST_S
            if not await self._too_old(job):
                await self._print(job)

    def _submit(self, fn: Callable[..., T], *args: object) -> asyncio.Future[T]:
        if self._thread is None:
            raise RuntimeError(f"the worker of {self.name} does not run")
        return asyncio.get_running_loop().run_in_executor(self._thread, fn, *args)

    async def _soon(self, ask: Callable[[], str | None], within_s: float) -> str | None:
        """Ask the printer beside its worker; BUSY if its thread does not get to it in time, and then
        it never does."""
        if self._thread is None:
            return "its worker does not run; look at the log"
        asked = self._thread.submit(ask)
        answer = asyncio.wrap_future(asked)
        late: asyncio.Future[None] = asyncio.ensure_future(self._clock.sleep(within_s))
        both: set[asyncio.Future[Any]] = {answer, late}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            # Cannot be cancelled once it has begun; then its end is near.
            return BUSY if asked.cancel() else await answer
        finally:
            late.cancel()

    # --- how it is -----------------------------------------------------------------------------------

    async def watch(self) -> str | None:
        """Look how the printer is now; None when it would print."""
        return await self._looked(await self._submit(self.printer.look))

    async def _looked(self, problem: str | None) -> str | None:
        if self._ending:
            return problem  # it was not let finish
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
            data |= {"withSale": ours and self._pulsed_for_sale, "asked": ours}
        log.info("%s printer=%s by_us=%s", kind, self.name, ours)
        await self._tell(kind, data)

    def _changed(self, problem: str | None) -> None:
        if problem != self.problem:
            level = logging.INFO if problem is None else logging.WARNING
            log.log(level, "printer.changed name=%s problem=%s", self.name, problem)
        self.problem = problem

    # --- a job ---------------------------------------------------------------------------------------

    async def _handed_over(self, job: PrintJob, problem: str) -> bool:
        """A job that cannot begin here: True if another printer has it now, or it waits."""
        if job.state != "BLOCKED" or job.reason != problem:
            await self._mark(job, "BLOCKED", reason=problem, kind="print.blocked")
        since = self._failing_since_ns or self._clock.boottime_ns()
        if self._clock.boottime_ns() - since < self._rules.failover_s * 1e9:
            return False
        if job.kind == "NOTE":
            return False  # the others have their own strips
        for other in self.others:
            if other.problem is None and await other.would_print():
                await self._hand_over(job, other)
                return True
        return False

    async def would_print(self) -> bool:
        """Whether it would now; for the others. A printer that is busy for long is not waited for."""
        problem = await self._soon(self.printer.look, OTHER_S)
        if problem != BUSY:
            await self._looked(problem)
        return problem is None

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
            await self._hold(job, "older than printing.stale_minutes")
        return True

    async def _print(self, job: PrintJob) -> None:
        now = micros(self._clock.now())
        try:
            document = await self._db.read(lambda conn: self._compose(conn, job, now))
        except StoreError:
            raise
        except Exception as error:  # one slip that cannot be put together must not stop the others
            log.exception("print.unfit job=%d printer=%s", job.id, self.name)
            await self._hold(job, f"it cannot be put together: {error}")
            return
        # Durable before the first byte: after a crash an original on the wire is never sent again.
        await self._mark(job, "SENDING", attempt=True, durable=job.kind == "ORIGINAL")
        pulse = any(isinstance(block, Drawer) for block in document)
        if pulse:
            self._pulsed(for_sale=True)
        outcome = await self._printed(document)
        self.last = outcome
        if pulse:
            self._pulsed(for_sale=True)
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
            case Result.UNFIT:
                await self._hold(job, outcome.reason)

    async def _printed(self, document: Document) -> Outcome:
        """The printer's thread at work. When the gateway stops meanwhile, a slip that is coming out
        gets the driver's few seconds, so that nobody has to be asked about it."""
        working = self._submit(self.printer.print_slip, document)
        try:
            await asyncio.wait({working})
        except asyncio.CancelledError:
            self.finish()
        return await working

    async def _hold(self, job: PrintJob, reason: str) -> None:
        await self._mark(job, "HELD", reason=reason, kind="print.held")

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
