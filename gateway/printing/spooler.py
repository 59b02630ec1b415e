"""One worker per printer works off the durable queue; a sale never waits for paper."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.clock import Clock, micros
from gateway.devices.printer import Outcome, Result
from gateway.printing.document import Document
from gateway.store import events, print_jobs
from gateway.store.database import Database
from gateway.store.print_jobs import PrintJob

log = logging.getLogger(__name__)

RETRY_FIRST_S = 1.0
# A printer that was switched on again must start within this many seconds.
RETRY_LAST_S = 10.0

Compose = Callable[[sqlite3.Connection, PrintJob], Document]


class PrinterWorker:
    """The worker of one printer. `run` belongs to the supervisor."""

    def __init__(
        self,
        *,
        name: str,
        db: Database,
        clock: Clock,
        compose: Compose,
        send: Callable[[Document], Outcome],
    ) -> None:
        self.name = name
        self._db = db
        self._clock = clock
        self._compose = compose
        self._send = send
        self._wake = asyncio.Event()
        # The port blocks, so it gets a thread of its own; one job at a time is the thread's width.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"printer-{name}")
        self.problem: str | None = None

    def notify(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        pause = RETRY_FIRST_S
        try:
            while True:
                self._wake.clear()
                job = await self._db.read(lambda conn: print_jobs.next_for(conn, self.name))
                if job is None:
                    await self._wake.wait()
                    continue
                outcome = await self._print(job)
                if outcome.result is Result.NOT_SENT:
                    await self._clock.sleep(pause)
                    pause = min(pause * 2, RETRY_LAST_S)
                else:
                    pause = RETRY_FIRST_S
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _print(self, job: PrintJob) -> Outcome:
        document = await self._db.read(lambda conn: self._compose(conn, job))
        # Durable before the first byte: after a crash an original on the wire is never sent again.
        await self._mark(job, "SENDING", attempt=True, durable=job.kind == "ORIGINAL")
        loop = asyncio.get_running_loop()
        outcome = await loop.run_in_executor(self._thread, self._send, document)
        match outcome.result:
            case Result.PRINTED:
                self._changed(None)
                await self._mark(job, "PRINTED", kind="print.printed")
            case Result.UNCONFIRMED:
                self._changed(outcome.reason)
                await self._mark(
                    job, "UNCONFIRMED", reason=outcome.reason, kind="print.unconfirmed"
                )
            case Result.NOT_SENT:
                new = self.problem != outcome.reason
                self._changed(outcome.reason)
                await self._mark(
                    job, "BLOCKED", reason=outcome.reason, kind="print.blocked" if new else None
                )
        return outcome

    def _changed(self, problem: str | None) -> None:
        if problem != self.problem:
            level = logging.INFO if problem is None else logging.WARNING
            log.log(level, "printer.changed name=%s problem=%s", self.name, problem)
        self.problem = problem

    async def _mark(
        self,
        job: PrintJob,
        state: str,
        *,
        reason: str | None = None,
        attempt: bool = False,
        durable: bool = False,
        kind: str | None = None,
    ) -> None:
        def change(conn: sqlite3.Connection) -> None:
            at = micros(self._clock.now())
            print_jobs.mark(conn, job.id, state, at=at, reason=reason, attempt=attempt)
            if kind is not None:
                data = {"printer": self.name, "job": job.id, "kind": job.kind, "reason": reason}
                events.record(conn, at=at, kind=kind, subject=job.invoice_id, data=data)

        await (self._db.write if durable else self._db.write_soft)(change)
