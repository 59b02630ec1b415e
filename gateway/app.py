"""The composition root: settings in, a running gateway out. The only file that imports everything.

Resources open in order and close in reverse; loops belong to the supervisor. `open_gateway` is what
tests use, `daemon.py` adds the process: signals, systemd, the end.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from gateway import ids
from gateway.api import problem
from gateway.api.build import Defaults
from gateway.api.server import Services, make_app
from gateway.clock import Clock, SystemClock, micros
from gateway.cloud.client import CloudClient
from gateway.continuity.backups import Backups
from gateway.continuity.monitor import CeilingMonitor
from gateway.continuity.outbox import OutboxSender
from gateway.devices.printer import SerialPrinter
from gateway.domain.ceiling import HOUR_US, Limits
from gateway.domain.invoice import Cashier
from gateway.errors import ConfigError
from gateway.fiscal import startup
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.commit import Committer, Identity
from gateway.fiscal.decision import Decisions
from gateway.fiscal.intake import Intake
from gateway.fiscal.ports import SignedSale
from gateway.fiscal.resolver import Resolver
from gateway.fiscal.signer import Signer
from gateway.fiscal.unit_watch import UnitWatch
from gateway.printing.document import Document
from gateway.printing.spooler import PrinterWorker
from gateway.settings import Settings
from gateway.status import pages
from gateway.status.views import StatusSource, UnitHealth
from gateway.store import events, meta, outbox, print_jobs, receipts, unit
from gateway.store.database import Database, open_database
from gateway.store.invoices import InvoiceRow
from gateway.store.print_jobs import PrintJob
from gateway.supervisor import Restart, Supervisor
from gateway.vscu.client import UnitClient
from gateway.vscu.host import Unit
from gateway.vscu.sale import SaleEncoder
from gateway.vscu.wire import encode
from gateway.wiring import (
    compose,
    make_client,
    make_unit,
    make_witnesses,
    portal,
    sale_form,
    serial_printer,
    shop,
    technicians,
    tills,
)

log = logging.getLogger(__name__)

# The sale in hand gets this long to end at a stop, in seconds; then recovery takes it up.
STOP_SALE_S = 10.0
# And for KRA's first word, so that the first till of the morning is not told SUSPENDED.
FIRST_CONTACT_S = 3.0
STREAMS_END_S = 1.0
# How often a ballast that was given away is laid again, if there is room. Seconds.
BALLAST_S = 30.0


@dataclass(slots=True)
class Gateway:
    """A running gateway, as tests and the process see it."""

    settings: Settings
    db: Database
    clock: Clock
    monitor: CeilingMonitor
    signer: Signer
    watch: UnitWatch
    supervisor: Supervisor
    unit: Unit
    health: UnitHealth
    status: StatusSource
    port: int
    sender: OutboxSender | None

    @property
    def url(self) -> str:
        return f"http://{self.settings.api.host}:{self.port}"


class _Late:
    """Hooks that are wired before the parts they call exist."""

    def __init__(self) -> None:
        self.after_commit: list[Callable[[], None]] = []

    def fire(self) -> None:
        for hook in self.after_commit:
            hook()


@asynccontextmanager
async def open_gateway(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Gateway]:
    """Everything up and listening; on leaving, everything down in reverse order."""
    clock = clock or SystemClock()
    async with AsyncExitStack() as stack:
        parts = _Parts(settings, clock, stack)
        gateway = await parts.start()
        try:
            yield gateway
        finally:
            await parts.stop(gateway)


class _Parts:
    """The wiring, in start order."""

    def __init__(self, settings: Settings, clock: Clock, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.clock = clock
        self.stack = stack
        self.stopping = False
        self.late = _Late()
        # The sale that a process before this one left open, as often as it was sent by then.
        self.inherited: tuple[str, int] | None = None
        self.last_stop: startup.UncleanStop | None = None

    async def start(self) -> Gateway:
        settings, clock = self.settings, self.clock
        started_us = micros(clock.now())
        hosted = make_unit(settings)
        # The JVM starts beside the store: neither needs the other.
        starting = asyncio.ensure_future(hosted.start())
        db = await self.stack.enter_async_context(
            open_database(
                settings.store.directory,
                readers=settings.store.readers,
                busy_timeout_ms=settings.store.busy_timeout_ms,
                ballast_bytes=settings.store.ballast_mb * 1024 * 1024,
            )
        )
        first = settings.unit.first_invoice_no
        await db.write(lambda conn: unit.ensure(conn, first_invoice_no=first, at=started_us))
        client = await self.stack.enter_async_context(make_client(settings, clock))
        supervisor = Supervisor(clock)
        monitor = self._monitor(db, client)
        await monitor.load()
        health = UnitHealth()
        watch = UnitWatch(
            db=db,
            clock=clock,
            client=client,
            serial=settings.unit.serial,
            tell=lambda ok, reason: _set_health(health, ok, reason),
        )
        await watch.load()
        signer, decisions, ahead = self._signer(db, client, monitor)
        await self._recover(db, signer)
        workers = self._workers(db)
        sender = await self._sender(db)
        backups = self._backups(db)
        source = StatusSource(
            settings,
            db,
            clock,
            monitor,
            signer,
            health,
            workers,
            sender,
            started_us,
            lambda: self.last_stop,
            ahead,
            backups,
        )
        await starting
        await watch.first_look(settings.unit.start_timeout_s)
        supervisor.start("ceiling", monitor.run)
        await monitor.first_answer(FIRST_CONTACT_S)
        await ahead.check()
        supervisor.start("signer", signer.run)
        supervisor.start("unit", watch.run)
        if backups is not None:
            supervisor.start("backup", backups.run, Restart.BACKOFF)
        supervisor.start("ballast", lambda: self._ballast(db), Restart.BACKOFF)
        supervisor.start("figures", lambda: self._figures(hosted, health))
        for worker in workers:
            supervisor.start(f"printer {worker.name}", worker.run, Restart.BACKOFF)
            self.late.after_commit.append(worker.notify)
        if sender is not None:
            supervisor.start("cloud", sender.run, Restart.BACKOFF)
            self.late.after_commit.append(sender.notify)
        intake = Intake(
            db=db,
            clock=clock,
            signer=signer,
            wait_s=settings.api.wait_s,
            keyless_window_s=settings.api.keyless_window_s,
        )
        port = await self._listen(db, intake, decisions, ahead, watch, source, workers)
        return Gateway(
            settings,
            db,
            clock,
            monitor,
            signer,
            watch,
            supervisor,
            hosted,
            health,
            source,
            port,
            sender,
        )

    async def stop(self, gateway: Gateway) -> None:
        """No new sale, the one in hand to its end, then everything else."""
        self.stopping = True
        gateway.signer.stop()
        if not gateway.signer.in_doubt:
            await gateway.supervisor.finish("signer", STOP_SALE_S)
        await gateway.supervisor.drain()
        if gateway.db.broken is None:
            await gateway.db.write(lambda conn: meta.put(conn, startup.RUNNING_KEY, ""))

    # --- parts ----------------------------------------------------------------------------------------

    def _monitor(self, db: Database, client: UnitClient) -> CeilingMonitor:
        ceiling = self.settings.ceiling
        limits = Limits(
            limit_us=int(ceiling.limit_hours * HOUR_US),
            online_us=int(ceiling.contact_interval_s * 2 * 1_000_000),
            last_contact=ceiling.last_contact_reading,
            oldest_unsent=ceiling.oldest_unsent_reading,
            warn_percent=ceiling.warn_percent,
        )
        return CeilingMonitor(
            db=db,
            clock=self.clock,
            link=client,
            limits=limits,
            contact_interval_s=ceiling.contact_interval_s,
            max_clock_ahead_s=ceiling.max_clock_ahead_s,
        )

    def _signer(
        self, db: Database, client: UnitClient, monitor: CeilingMonitor
    ) -> tuple[Signer, Decisions, AheadWatch]:
        settings, clock = self.settings, self.clock
        committer = Committer(
            clock=clock,
            identity=Identity(settings.branch.pin, settings.branch.branch_id, portal(settings)),
            hooks=[self._outbox_hook, self._print_hook, lambda c, _: monitor.record_signed(c)],
            extras=lambda: {"ceiling": monitor.as_json()},
        )
        witnesses = make_witnesses(settings, client, db, monitor.gate, self._at_rest)
        resolver = Resolver(db=db, clock=clock, committer=committer, evidence=witnesses.evidence)
        ahead = AheadWatch(db=db, clock=clock, readers=witnesses.readers, counter=witnesses.counter)
        decisions = Decisions(db=db, clock=clock, committer=committer, take_up=resolver.take_up)

        def gate() -> None:
            ahead.gate()
            monitor.gate()

        signer = Signer(
            db=db,
            clock=clock,
            unit=client,
            encode=SaleEncoder(sale_form(settings), encode, lambda: 1),
            gate=gate,
            committer=committer,
            resolver=resolver,
            render_problem=problem.render,
            after_commit=[self.late.fire],
            queue_max=settings.api.queue_max,
        )
        return signer, decisions, ahead

    def _at_rest(self, row: InvoiceRow) -> bool:
        """A unit in our own process died with it: what an earlier process sent is settled by now."""
        return self.inherited == (row.id, row.attempts)

    def _outbox_hook(self, conn: sqlite3.Connection, sale: SignedSale) -> None:
        if self.settings.cloud.url is None:
            return
        payload = {
            "invoice": json.loads(sale.row.document),
            "receipt": receipts.chained_fields(
                sale.row.id,
                sale.receipt,
                sale.row.total_cents,
                sale.how,
                sale.at_us,
            ),
            "till": sale.row.till_id,
            "journalHash": sale.chain_hash,
        }
        outbox.put(
            conn,
            kind="receipt",
            subject_id=sale.row.id,
            payload=ids.canonical(payload),
            at=sale.at_us,
        )

    def _print_hook(self, conn: sqlite3.Connection, sale: SignedSale) -> None:
        if sale.row.printer is not None:
            print_jobs.enqueue_original(conn, sale.row.id, sale.row.printer, at=sale.at_us)

    async def _recover(self, db: Database, signer: Signer) -> None:
        """What an unclean stop left: the open sale into doubt, prints on the wire unconfirmed."""
        opened = await signer.recover()
        if opened is not None and self.settings.unit.host == "in-process":
            self.inherited = (opened.id, opened.attempts)
        at = micros(self.clock.now())

        wait_us = int(self.settings.api.wait_s * 1_000_000)

        def stock(conn: sqlite3.Connection) -> dict[str, Any] | None:
            lost = print_jobs.recover(conn, at=at)
            boot_id = self.clock.boot_id()
            self.last_stop = startup.take_stock(
                conn, boot_id=boot_id, waiting_us=wait_us, prints=len(lost), at=at
            )
            if self.last_stop is None:
                return None
            report = startup.describe(conn, self.last_stop)
            events.record(conn, at=at, kind="gateway.recovered", data=report)
            return report

        report = await db.write(stock)
        if report is not None:
            log.warning("gateway.recovered %s", report["text"])

    def _workers(self, db: Database) -> list[PrinterWorker]:
        seller = shop(self.settings)
        workers = []
        for name, printer in self.settings.printers.items():
            driver = serial_printer(name, printer)

            def composed(
                conn: sqlite3.Connection, job: PrintJob, driver: SerialPrinter = driver
            ) -> Document:
                return compose(
                    conn, job.invoice_id, job.copy_no, seller, driver.columns, driver.paper_mm
                )

            workers.append(
                PrinterWorker(
                    name=name,
                    db=db,
                    clock=self.clock,
                    compose=composed,
                    send=driver.print_slip,
                )
            )
        return workers

    async def _sender(self, db: Database) -> OutboxSender | None:
        cloud = self.settings.cloud
        if cloud.url is None:
            return None
        token = self.settings.cloud_token
        branch = self.settings.branch
        client = await self.stack.enter_async_context(
            CloudClient(
                url=cloud.url,
                gateway_id=cloud.gateway_id or f"{branch.pin}-{branch.branch_id}",
                token=token.get_secret_value() if token else "",
                timeout_s=cloud.timeout_s,
                ca_file=cloud.ca_file,
            )
        )
        return OutboxSender(
            db=db,
            clock=self.clock,
            cloud=client,
            batch_records=cloud.batch_records,
            batch_bytes=cloud.batch_bytes,
            interval_s=cloud.interval_s,
            backoff_max_s=cloud.backoff_max_s,
        )

    def _backups(self, db: Database) -> Backups | None:
        part = self.settings.backup
        if part.every_hours == 0:
            return None
        return Backups(
            db=db,
            clock=self.clock,
            store=self.settings.store.directory,
            unit=self.settings.unit.directory,
            target=self.settings.backup_directory,
            every_s=part.every_hours * 3600,
            keep=part.keep,
        )

    async def _ballast(self, db: Database) -> None:
        while True:
            await self.clock.sleep(BALLAST_S)
            if db.ballast is not None:
                await asyncio.to_thread(db.ballast.lay)

    async def _figures(self, hosted: Unit, health: UnitHealth) -> None:
        while True:
            figures = await hosted.figures()
            if figures is not None:
                health.jvm = {
                    **asdict(figures),
                    "heapUsedMb": figures.heap_used_bytes // 1_048_576,
                    "heapMaxMb": figures.heap_max_bytes // 1_048_576,
                }
            await self.clock.sleep(10)

    async def _listen(
        self,
        db: Database,
        intake: Intake,
        decisions: Decisions,
        ahead: AheadWatch,
        watch: UnitWatch,
        source: StatusSource,
        workers: list[PrinterWorker],
    ) -> int:
        settings = self.settings

        async def copy(invoice_id: str, printer: str) -> int:
            at = micros(self.clock.now())
            job = await db.write(
                lambda conn: print_jobs.enqueue_copy(conn, invoice_id, printer, at=at)
            )
            for worker in workers:
                worker.notify()
            return job

        services = Services(
            db=db,
            clock=self.clock,
            intake=intake,
            tills=tills(settings),
            technicians=technicians(settings),
            decisions=decisions,
            ahead=ahead,
            printers=frozenset(settings.printers),
            rates=lambda: watch.rates,
            defaults=Defaults(
                cashier=Cashier(settings.unit.cashier_id, settings.unit.cashier_name),
                item_class=settings.unit.item_class,
                package_unit=settings.unit.package_unit,
                quantity_unit=settings.unit.quantity_unit,
                max_lines=settings.api.max_lines,
            ),
            status=source.collect,
            stop_streams=lambda: self.stopping,
            copy=copy,
            event_streams_max=settings.api.event_streams_max,
        )
        app = make_app(services, body_limit_bytes=settings.api.body_limit_bytes)
        pages.register(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=STREAMS_END_S)
        await runner.setup()
        self.stack.push_async_callback(runner.cleanup)
        try:
            site = web.TCPSite(runner, settings.api.host, settings.api.port)
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"api.port {settings.api.port} on {settings.api.host} cannot be used: "
                f"{error.strerror}"
            ) from error
        return int(runner.addresses[0][1])


def _set_health(health: UnitHealth, healthy: bool, reason: str | None) -> None:
    health.healthy, health.reason = healthy, reason
