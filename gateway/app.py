"""The composition root: settings in, a running gateway out. The only file that imports everything.

Resources open in order and close in reverse; loops belong to the supervisor. `open_gateway` is what
tests use, `daemon.py` adds the process: signals, systemd, the end.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from gateway.api.build import Defaults
from gateway.api.server import Mpesa, Services, make_app
from gateway.clock import Clock, SystemClock, micros
from gateway.continuity.backups import Backups
from gateway.continuity.monitor import CeilingMonitor
from gateway.continuity.outbox import OutboxSender
from gateway.continuity.store_check import StoreCheck
from gateway.counter_line import CounterLine
from gateway.domain.ceiling import HOUR_US, CeilingState, CeilingView, Limits
from gateway.domain.invoice import Cashier
from gateway.errors import DiskFull
from gateway.fiscal import startup
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.days import Days
from gateway.fiscal.decision import Decisions
from gateway.fiscal.intake import Intake
from gateway.fiscal.signer import Signer
from gateway.fiscal.unit_watch import UnitWatch
from gateway.payment_line import PaymentLine
from gateway.reference_line import ReferenceLine
from gateway.sales_line import SalesLine
from gateway.settings import Settings
from gateway.status import pages
from gateway.status.views import MpesaHealth, StatusSource, UnitHealth
from gateway.store import events, meta, print_jobs, unit
from gateway.store.database import Database, open_database
from gateway.supervisor import Restart, Supervisor
from gateway.sync.client import CloudClient
from gateway.unit_line import money_waits_for, watch_unit
from gateway.vscu.client import UnitClient
from gateway.vscu.host import Unit
from gateway.wiring import (
    local_host,
    make_client,
    make_days,
    make_set_up,
    make_unit,
    serve_api,
    stream_shares,
    technicians,
    tills,
)

log = logging.getLogger(__name__)

# The sale in hand gets this long to end at a stop, in seconds; then recovery takes it up.
STOP_SALE_S = 10.0
# And for KRA's first word, so that the first till of the morning is not told SUSPENDED.
FIRST_CONTACT_S = 3.0
# Where nothing can be sold without that word (a new shop, or one that was shut for a day), there is nothing
# to be quick for.
FIRST_WORD_S = 10.0
# How often a ballast that was given away is laid again, if there is room. Seconds.
BALLAST_S = 30.0
# How old the ceiling on a customer's display may be, in seconds.
COUNTER_S = 2.0


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
    lists: ReferenceLine
    payments: PaymentLine

    @property
    def url(self) -> str:
        return f"http://{self.settings.api.host}:{self.port}"


class _Late:
    """Hooks that are wired before the parts they call exist."""

    def __init__(self) -> None:
        self.after_commit: list[Callable[[], None]] = []
        self.on_contact: list[Callable[[], None]] = []

    def fire(self) -> None:
        for hook in self.after_commit:
            hook()

    def contact(self) -> None:
        for hook in self.on_contact:
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
        self.line: SalesLine
        self.payments: PaymentLine
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
                witness_directory=settings.store.witness_directory or settings.unit.directory,
            )
        )
        first = settings.unit.first_invoice_no
        await db.write(lambda conn: unit.ensure(conn, first_invoice_no=first, at=started_us))
        client = await self.stack.enter_async_context(make_client(settings, clock, hosted))
        supervisor = self._supervisor()
        monitor = self._monitor(db, client)
        await monitor.load()
        health, watch = await watch_unit(
            settings,
            clock,
            db,
            client,
            # The line of sales is made later.
            lambda why: self.line.ahead.unit_was_used(why),  # noqa: PLW0108
        )
        counter = CounterLine(settings, clock, db)
        days = make_days(
            settings, clock, db, client, lambda: monitor.view().state is CeilingState.CLOCK_FAULT
        )
        self.payments = PaymentLine(settings, clock, db, self._gate)
        self.line = SalesLine(
            settings,
            clock,
            db,
            client,
            monitor,
            self.late.fire,
            counter,
            days,
            self.payments.tenders,
            make_set_up(settings, hosted, watch, monitor),
        )
        signer, decisions, ahead = self.line.signer, self.line.decisions, self.line.ahead
        await self._recover(db, signer)
        lists = ReferenceLine(settings, clock, db, client)
        await self.payments.open(self.stack)
        workers = counter.workers
        await days.catch_up()
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
            lists,
            MpesaHealth(self.payments.problems),
            self.line.set_up,
        )
        await starting
        # Behind a port that another program holds there is nothing to wait for.
        await watch.first_look(settings.unit.start_timeout_s if not hosted.port_problem() else 0)
        supervisor.start("ceiling", monitor.run)
        await monitor.first_answer(FIRST_WORD_S if monitor.view().blocks else FIRST_CONTACT_S)
        await ahead.check()
        supervisor.start("signer", signer.run, waits=False)
        supervisor.start("unit", watch.run)
        self._housekeeping(supervisor, db, backups, hosted, health)
        counter.start(supervisor)
        self.late.after_commit += [counter.wake, self.payments.tenders.flush]
        lists.start(supervisor)
        self.late.on_contact += [lists.link_is_back, days.notify, self.payments.link_is_back]
        if sender is not None:
            supervisor.start("cloud", sender.run, Restart.BACKOFF)
            self.late.after_commit.append(sender.notify)
            self.late.on_contact.append(sender.link_is_back)
        intake = Intake(
            db=db,
            clock=clock,
            signer=signer,
            wait_s=settings.api.wait_s,
            keyless_window_s=settings.api.keyless_window_s,
            gate=signer.gate,
            may_begin=ahead.may_begin,
            repeats=self.line.repeats,
        )
        self.payments.connect(intake, lambda: money_waits_for(health, watch))
        self.payments.start(supervisor)
        port = await self._listen(db, intake, decisions, ahead, watch, source, lists, counter, days)
        counter.start_tills(supervisor, f"http://{local_host(settings.api.host)}:{port}")
        supervisor.start(
            "counter", lambda: self._tell_counter(db, monitor, counter), Restart.BACKOFF
        )
        supervisor.start("days", days.run, Restart.BACKOFF)
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
            lists,
            self.payments,
        )

    async def stop(self, gateway: Gateway) -> None:
        """No new sale, the one in hand to its end, then everything else."""
        self.stopping = True
        gateway.signer.stop()
        if not gateway.signer.in_doubt:
            await gateway.supervisor.finish("signer", STOP_SALE_S)
        for worker in gateway.status.workers:
            worker.finish()  # all at once; `drain` waits for one after the other
        await gateway.supervisor.drain()
        if gateway.db.broken is None:
            try:
                await self.line.ahead.mark_unit()
                await gateway.db.write(lambda conn: meta.put(conn, startup.RUNNING_KEY, ""))
            except DiskFull as error:
                # The next start takes it for a crash, which costs a look and nothing else.
                log.error("gateway.end_unmarked reason=%s", error)

    def _gate(self) -> None:
        # The line of sales is made after the payments that ask it.
        self.line.signer.gate()

    # --- parts ----------------------------------------------------------------------------------------

    def _supervisor(self) -> Supervisor:
        supervisor = Supervisor(self.clock)
        # A start that fails half-way leaves no loop on a store that is closed.
        self.stack.push_async_callback(supervisor.drain)
        return supervisor

    def _monitor(self, db: Database, client: UnitClient) -> CeilingMonitor:
        ceiling = self.settings.ceiling
        limits = Limits(
            limit_us=int(ceiling.limit_hours * HOUR_US),
            online_us=int(ceiling.contact_interval_s * 2 * 1_000_000),
            last_contact=ceiling.last_contact_reading,
            oldest_unsent=ceiling.oldest_unsent_reading,
            warn_percent=ceiling.warn_percent,
            clock_apart_us=int(ceiling.max_clock_ahead_s * 1_000_000),
        )
        return CeilingMonitor(
            db=db,
            clock=self.clock,
            link=client,
            limits=limits,
            contact_interval_s=ceiling.contact_interval_s,
            on_contact=self.late.contact,
            on_change=self._ceiling_changed,
            on_changed=self.late.fire,
        )

    def _ceiling_changed(self, conn: sqlite3.Connection, view: CeilingView) -> None:
        # The line of sales is made after the monitor that gates it.
        self.line.warning_strip(conn, view)

    async def _recover(self, db: Database, signer: Signer) -> None:
        """What an unclean stop left: the open sale into doubt, prints on the wire unconfirmed."""
        await signer.recover()
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

    async def _sender(self, db: Database) -> OutboxSender | None:
        cloud = self.settings.cloud
        if cloud.url is None or "cloud" in self.settings.off:
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
            max_kbps=cloud.max_kbps,
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

    def _housekeeping(
        self,
        supervisor: Supervisor,
        db: Database,
        backups: Backups | None,
        hosted: Unit,
        health: UnitHealth,
    ) -> None:
        supervisor.start("unit host", lambda: hosted.keep(self.clock))
        supervisor.start("store", db.failed)
        supervisor.start("store check", StoreCheck(db, self.clock).run, Restart.BACKOFF)
        supervisor.start("marker", self.line.ahead.keep_marked, Restart.BACKOFF)
        if backups is not None:
            supervisor.start("backup", backups.run, Restart.BACKOFF)
        supervisor.start("ballast", lambda: self._ballast(db), Restart.BACKOFF)
        supervisor.start("figures", lambda: self._figures(hosted, health))

    async def _ballast(self, db: Database) -> None:
        while True:
            await self.clock.sleep(BALLAST_S)
            if db.ballast is not None:
                await asyncio.to_thread(db.ballast.lay)

    async def _tell_counter(
        self, db: Database, monitor: CeilingMonitor, counter: CounterLine
    ) -> None:
        """The ceiling on the customers' displays."""
        while True:
            counter.show_ceiling(monitor.as_json())
            await self.clock.sleep(COUNTER_S)

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
        lists: ReferenceLine,
        counter: CounterLine,
        days: Days,
    ) -> int:
        settings = self.settings

        async def copy(invoice_id: str, printer: str, who: str) -> int:
            at = micros(self.clock.now())
            job = await db.write(
                lambda conn: print_jobs.enqueue_copy(conn, invoice_id, printer, who, at=at)
            )
            counter.wake()
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
            rates_seen=watch.tax_rates.seen,
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
            reference=lists.desk,
            wake=self.late.fire,
            days=days,
            counter=counter,
            streams=stream_shares(settings),
            payments=self.payments.desk,
            mpesa=Mpesa(
                on=settings.mpesa.on,
                off=settings.off.get("mpesa"),
                amount_max=settings.mpesa.amount_max,
                checkouts=self.payments.checkouts,
                qr=self.payments.qr,
            ),
        )
        app = make_app(services, body_limit_bytes=settings.api.body_limit_bytes)
        pages.register(app)
        runner = await serve_api(app, settings, self.stack)
        return int(runner.addresses[0][1])
