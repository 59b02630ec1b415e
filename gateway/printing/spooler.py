"""One worker per printer works off the durable queue; a sale never waits for paper.

A slip that cannot begin waits, or comes out at the next printer with a banner. One that has begun and
was not confirmed is never sent again by itself: a person looks, and a second print is a copy.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.devices.abilities import Abilities, from_json
from gateway.devices.channel import Tap
from gateway.devices.printer import Outcome, Result
from gateway.devices.printer_asked import Corrections
from gateway.devices.printer_status import PrinterStatus
from gateway.errors import StoreError
from gateway.printing.document import Document, Drawer
from gateway.store import events, print_jobs, printer_found
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
WAS_OFF = "the printer answered nothing when it was sent, and answers now: it may have been off"

Compose = Callable[[sqlite3.Connection, PrintJob, int], Document]


class Printer(Protocol):
    """What the worker needs of a driver; each call blocks and runs in the worker's thread."""

    status: PrinterStatus
    tap: Tap
    known: Abilities | None
    corrected: Corrections
    found: Abilities | None
    learned: Callable[[Abilities], None]
    woke: Callable[[], None]

    @property
    def is_fresh(self) -> bool: ...
    def look(self) -> str | None: ...
    def shaken(self) -> str | None: ...
    def forget(self) -> None: ...
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
        port: str = "",
        confirm: str = "auto",
    ) -> None:
        self.name = name
        self.printer = printer
        self.port = port
        # The setting: how slips are confirmed.
        self.confirm = confirm
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
        # The job whose drawer has been opened: a second try of its slip opens none.
        self._pulsed_job: int | None = None
        # Since when the printer has been taken for one that cannot answer, in microseconds.
        self._mute_since: int | None = None
        self._ending = False
        # Where slips go while this printer fails, best first.
        self.others: Sequence[PrinterWorker] = ()
        # Why nothing comes out; None while all is well.
        self.problem: str | None = None
        self.last: Outcome | None = None
        self._tasks: set[asyncio.Task[None]] = set()

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
            await self._remember()
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

    async def _remember(self) -> None:
        """Load what the printer was found to answer before, and keep what it is found to answer from now on."""
        loop = asyncio.get_running_loop()
        value, corrected = await self._db.read(
            lambda conn: printer_found.load(conn, self.name, self.port)
        )
        try:
            self.printer.known = None if value is None else from_json(value)
            self.printer.corrected = Corrections(**corrected)
        except (KeyError, TypeError, ValueError):
            log.warning("printer.found_unreadable name=%s", self.name)

        def learned(found: Abilities) -> None:
            loop.call_soon_threadsafe(self._soon_do, self._keep, found)

        def woke() -> None:
            loop.call_soon_threadsafe(self._soon_do, self._woke)

        self.printer.learned, self.printer.woke = learned, woke

    def _soon_do(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        task = asyncio.ensure_future(work(*args))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, found: Abilities) -> None:
        at = micros(self._clock.now())
        if not found.answers and self._mute_since is None:
            self._mute_since = at
        if found == self.printer.known:
            return
        self.printer.known = found
        data = {"printer": self.name, **found.as_json()}

        def keep(conn: sqlite3.Connection) -> None:
            printer_found.keep(conn, self.name, self.port, found.as_json(), at=at)
            events.record(conn, at=at, kind="printer.found", data=data)

        log.info("printer.found name=%s answers=%s confirms=%s habit=%s model=%s", self.name,
                 found.answers, found.confirms, found.habit, found.model or "-")  # fmt: skip
        await self._write_soft(keep)

    async def _woke(self) -> None:
        """It answers now, so what it was sent while it did not may have gone nowhere."""
        since, self._mute_since = self._mute_since, None
        at = micros(self._clock.now())
        if since is None:
            return
        await self._write_soft(
            lambda conn: print_jobs.doubt_sent(conn, self.name, WAS_OFF, since=since, at=at)
        )

    async def another_printer(self, who: str) -> None:
        """Somebody says that another printer is on this port now: find out again what it answers."""
        at = micros(self._clock.now())

        def forget(conn: sqlite3.Connection) -> None:
            printer_found.forget(conn, self.name)
            events.record(
                conn, at=at, kind="printer.exchanged", data={"printer": self.name, "who": who}
            )

        await self._db.write(forget)
        self._mute_since = None
        if self._thread is not None:
            self._thread.submit(self.printer.forget)
        self.notify()

    async def correct(self, corrected: Corrections, who: str) -> None:
        """Keep what a person has said of this printer; it counts from the next slip on."""
        at = micros(self._clock.now())

        def keep(conn: sqlite3.Connection) -> None:
            printer_found.correct(conn, self.name, self.port, asdict(corrected), at=at)
            data = {"printer": self.name, "who": who, **asdict(corrected)}
            events.record(conn, at=at, kind="printer.corrected", data=data)

        await self._db.write(keep)
        self.printer.corrected = corrected
        self.notify()

    async def _write_soft(self, change: Callable[[sqlite3.Connection], object]) -> None:
        try:
            await self._db.write_soft(change)
        except StoreError as error:
            log.warning("printer.not_recorded name=%s reason=%s", self.name, error.code)

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
            document = await self._composed(job)
            if document is None:
                continue
            if self.printer.is_fresh:
                # The drawer does not wait for a round of questions.
                await self._pulse(job, document)
            problem = await self.watch()
            if self._ending:
                return
            if problem is None:
                if await self._too_old(job):
                    continue
                problem = await self._pulse(job, document)
            if problem is not None:
                if not await self._handed_over(job, problem):
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, RETRY_LAST_S)
                continue
            pause = RETRY_FIRST_S
            await self._print(job, document)

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

    async def _composed(self, job: PrintJob) -> Document | None:
        """The job's document; None where it cannot be put together, and then it waits for a person."""
        now = micros(self._clock.now())
        try:
            return await self._db.read(lambda conn: self._compose(conn, job, now))
        except StoreError:
            raise
        except Exception as error:  # one slip that cannot be put together must not stop the others
            log.exception("print.unfit job=%d printer=%s", job.id, self.name)
            await self._hold(job, f"it cannot be put together: {error}")
            return None

    async def _pulse(self, job: PrintJob, document: Document) -> str | None:
        """Open the drawer of a cash sale, once and before its slip: an adapter that the pulse throws off the bus
        must not tear the receipt. Return why the slip cannot begin after that."""
        wanted = any(isinstance(block, Drawer) for block in document)
        if not wanted or self._pulsed_job == job.id:
            return None
        problem = await self._submit(self.printer.kick)
        if problem is not None:
            return problem
        self._pulsed_job = job.id
        self._pulsed(for_sale=True)
        return await self._submit(self.printer.shaken)

    async def _print(self, job: PrintJob, document: Document) -> None:
        # Durable before the first byte: after a crash an original on the wire is never sent again.
        await self._mark(job, "SENDING", attempt=True, durable=job.kind == "ORIGINAL")
        outcome = await self._printed(document)
        self.last = outcome
        if self._pulsed_job == job.id:
            self._pulsed(for_sale=True)
        match outcome.result:
            case Result.PRINTED | Result.SENT:
                self._changed(None)
                confirmed = outcome.result is Result.PRINTED
                await self._mark(
                    job,
                    "PRINTED",
                    kind="print.printed" if confirmed else "print.sent",
                    outcome=outcome,
                    proof="CONFIRMED" if confirmed else "SENT",
                )
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
        proof: str | None = None,
    ) -> None:
        def change(conn: sqlite3.Connection) -> None:
            at = micros(self._clock.now())
            print_jobs.mark(conn, job.id, state, at=at, reason=reason, attempt=attempt, proof=proof)
            if kind is not None:
                data = {"printer": self.name, "job": job.id, "kind": job.kind, "reason": reason}
                if outcome is not None:
                    data |= {"bytes": outcome.size, "wireMs": round(outcome.wire_s * 1000)}
                events.record(conn, at=at, kind=kind, subject=job.invoice_id, data=data)

        await (self._db.write if durable else self._db.write_soft)(change)

    async def _tell(self, kind: str, data: dict[str, object]) -> None:
        at = micros(self._clock.now())
        await self._db.write_soft(lambda conn: events.record(conn, at=at, kind=kind, data=data))
