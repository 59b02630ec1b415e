"""Everything a sale passes through, put together: gates, signer, resolver, decisions, and what is part of
its commit (outbox, print queue, the ceiling's stopwatch)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable

from gateway import ids
from gateway.api import problem
from gateway.clock import Clock, micros
from gateway.continuity.monitor import CeilingMonitor
from gateway.counter_line import CounterLine
from gateway.domain.ceiling import CeilingView
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.commit import Committer, Identity
from gateway.fiscal.contradiction import Contradictions
from gateway.fiscal.days import Days
from gateway.fiscal.decision import Decisions
from gateway.fiscal.ports import SignedSale
from gateway.fiscal.repeats import Repeats, repeat_window_us
from gateway.fiscal.resolver import Resolver
from gateway.fiscal.set_up import SetUp
from gateway.fiscal.signer import Signer
from gateway.fiscal.unit_rest import UnitRest, UnitWork
from gateway.payments.tenders import Tenders
from gateway.printing.notes import strip_text
from gateway.settings import Settings
from gateway.store import outbox, print_jobs, receipts
from gateway.store.database import Database
from gateway.store.invoices import InvoiceRow
from gateway.vscu.client import UnitClient
from gateway.vscu.sale import SaleEncoder
from gateway.vscu.wire import encode
from gateway.wiring import make_witnesses, portal, sale_form


class SalesLine:
    """`fire` wakes whoever drains the queues that a commit has filled."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        db: Database,
        client: UnitClient,
        monitor: CeilingMonitor,
        fire: Callable[[], None],
        counter: CounterLine,
        days: Days,
        tenders: Tenders,
        set_up: SetUp,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._monitor = monitor
        self.set_up = set_up
        # Captured slips have a closer rule: number, printed date and day (counter/slip_identity.py).
        reusing = {till.id for till in settings.tills if till.reuses_numbers}
        reusing |= {capture.till for capture in settings.captures.values()}
        self.repeats = Repeats(clock, repeat_window_us(settings.api.keyless_window_s), reusing)
        # Names this run of the control unit. None for an external unit, whose restarts are not seen.
        part = settings.unit
        in_process = part.host == "in-process"
        self._unit_life = f"in-process:{ids.new_id(micros(clock.now()))}" if in_process else None
        rest = UnitRest(
            clock,
            UnitWork(
                part.at_work_s,
                part.work_is_bounded,
                part.forgets_on_restart,
                self._unit_life,
                part.upload_s,
            ),
            monitor,
            lambda: None if in_process else client.refused_ns,
        )
        committer = Committer(
            clock=clock,
            identity=Identity(settings.branch.pin, settings.branch.branch_id, portal(settings)),
            hooks=[
                self._to_cloud,
                self._to_printer,
                counter.show_sale,
                tenders.on_signed,
                lambda c, _: monitor.record_signed(c),
            ],
            extras=lambda: {"ceiling": monitor.as_json()},
        )
        witnesses = make_witnesses(settings, client, db, self._resend_gate, self._at_rest)
        self.ahead = AheadWatch(
            db=db,
            clock=clock,
            rest=rest,
            readers=witnesses.readers,
            counter=witnesses.counter,
            unit_folder=settings.unit.directory,
            noticed=db.noticed,
        )
        committer.mismatch = self.ahead
        resolver = Resolver(
            db=db,
            clock=clock,
            committer=committer,
            evidence=witnesses.evidence,
            mismatch=self.ahead,
            unit_life=self._unit_life,
        )
        self.decisions = Decisions(
            db=db,
            clock=clock,
            committer=committer,
            looking=resolver.looking,
            take_up=resolver.take_up,
            contradicts=Contradictions(
                readers=witnesses.readers,
                counter=witnesses.counter,
                last_stored=lambda: db.read(receipts.last_counter),
            ),
            rest=rest,
            ahead=self.ahead,
        )
        self.signer = Signer(
            db=db,
            clock=clock,
            unit=client,
            encode=SaleEncoder(sale_form(settings), encode, days.report_no),
            gate=self._gate,
            committer=committer,
            resolver=resolver,
            render_problem=problem.render,
            after_commit=[fire],
            heard=monitor.heard_from_unit,
            may_sign=lambda conn, row, invoice: (
                self.ahead.may_sign(conn, row)
                or self.repeats.may_sign(conn, row)
                or tenders.may_sign(conn, row, invoice)
            ),
            mismatch=self.ahead,
            unit_life=self._unit_life,
            queue_max=settings.api.queue_max,
        )

    def _gate(self) -> None:
        self.ahead.gate()
        self.set_up.gate()
        self._monitor.gate()

    def _resend_gate(self) -> None:
        self.ahead.gate()
        self.set_up.gate()
        self._monitor.resend_gate()

    def _at_rest(self, row: InvoiceRow) -> bool:
        """Return whether no sending of this sale can still be signed (rule `life`).

        A unit in our own process ended with it, and is known to forget what it had only accepted (A3). Not
        where store and unit disagree: what such a unit does not hold may have been in a lost copy.
        """
        return (
            self._settings.unit.forgets_on_restart
            and self.ahead.hold is None
            and self._unit_life is not None
            and row.unit_life is not None
            and row.unit_life != self._unit_life
        )

    def _to_cloud(self, conn: sqlite3.Connection, sale: SignedSale) -> None:
        if self._settings.cloud.url is None:
            return
        fields = receipts.chained_fields(
            sale.row.id, sale.receipt, sale.row.total_cents, sale.how, sale.at_us
        )
        payload = {
            "invoice": json.loads(sale.row.document),
            "receipt": fields,
            "till": sale.row.till_id,
            "journalHash": sale.chain_hash,
        }
        body = ids.canonical(payload)
        outbox.put(conn, kind="receipt", subject_id=sale.row.id, payload=body, at=sale.at_us)

    def _to_printer(self, conn: sqlite3.Connection, sale: SignedSale) -> None:
        if sale.row.printer is not None:
            print_jobs.enqueue_original(conn, sale.row.id, sale.row.printer, at=sale.at_us)

    def warning_strip(self, conn: sqlite3.Connection, view: CeilingView) -> None:
        """At each warning step, and at the end, a strip of paper at every printer. Part of the commit:
        the spools are woken after it."""
        strip = strip_text(view, self._clock.now(), self._settings.receipt.language)
        if strip is None:
            return
        for name in self._settings.printers:
            print_jobs.enqueue_note(conn, name, strip, at=micros(self._clock.now()))
