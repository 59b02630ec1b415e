"""The gateway of the simulation: the real signer, resolver, ceiling, intake and store of one life."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from decimal import Decimal
from typing import Any

from gateway import ids
from gateway.api import invoices as routes
from gateway.api import problem
from gateway.clock import from_compact
from gateway.continuity.monitor import CeilingMonitor
from gateway.domain.ceiling import CeilingState, Limits
from gateway.errors import DiskFull, GatewayError, StoreBusy, StoreError
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.commit import Committer, Identity
from gateway.fiscal.contradiction import Contradictions
from gateway.fiscal.days import Days
from gateway.fiscal.decision import Decisions
from gateway.fiscal.decision_rules import LastOnPortal, PortalReceipt, Stated
from gateway.fiscal.evidence import Counters, Evidence, NoResend, ReadBack, Resend
from gateway.fiscal.intake import Intake, Submission
from gateway.fiscal.ports import AfterCommit, CommitHook, MaySign
from gateway.fiscal.repeats import Repeats
from gateway.fiscal.resolver import Resolver
from gateway.fiscal.signer import Signer
from gateway.fiscal.unit_rest import UnitRest, UnitWork
from gateway.store import invoices, receipts, unit
from gateway.store.database import Database, waits_out
from gateway.store.invoices import InvoiceRow
from gateway.supervisor import Restart, Supervisor
from gateway.vscu.sale import SaleEncoder, SaleForm
from gateway.vscu.wire import encode
from gateway.wiring import StoredSales
from tests.sim.route import Request, app_of, call
from tests.sim.unit import BRANCH, PIN, SimClient, SimUnit
from tests.sim.world import Disk, Life, SimClock
from tests.support.invoices import an_invoice

FORM = SaleForm(
    pin=PIN, branch_id=BRANCH, trade_name="SIM", address="", top_message="", bottom_message="",
    taxable_amount="exclusive", walk_in_pin=None, walk_in_name=None, credit_note_status="02",
)  # fmt: skip
# The simulated unit works on a request for up to 60 s, and up to three of them may wait for it one after the
# other.
AT_WORK_S = 200.0


class RealGateway:
    """What stands between the tills and the unit, as the daemon wires it."""

    # Wrong gateways have another.
    signer_type = Signer

    def __init__(self, life: Life, disk: Disk, sim_unit: SimUnit) -> None:
        self.life = life
        self.clock = SimClock(life)
        self.unit = sim_unit
        self.client = SimClient(life, sim_unit, self.clock)
        self.disk = disk
        self.db: Database = disk.open(life)
        # What else is part of a receipt's commit.
        self.hooks: list[CommitHook] = []
        self.may_sign: MaySign = lambda conn, row, invoice: None
        self.after_commit: list[AfterCommit] = []
        self.wire()
        db, clock = self.db, self.clock
        self.monitor = CeilingMonitor(
            db=db,
            clock=clock,
            link=self.client,
            limits=Limits(sim_unit.ceiling_s * 1_000_000, 600_000_000),
            contact_interval_s=300,
        )
        self.days = Days(
            db=db,
            clock=clock,
            header={},
            tell_unit=None,
            paper=lambda conn, report: None,
            by_itself=True,
            clock_fault=lambda: self.monitor.view().state is CeilingState.CLOCK_FAULT,
        )
        committer = Committer(
            clock=clock,
            identity=Identity(PIN, BRANCH, "https://sim"),
            hooks=[lambda c, _: self.monitor.record_signed(c), *self.hooks],
            extras=lambda: {"ceiling": self.monitor.as_json()},
        )
        readers = [StoredSales(self.client)] if sim_unit.read_back else []
        witnesses: list[Evidence] = [ReadBack(reader, at_rest=self._at_rest) for reader in readers]
        counter = sim_unit if sim_unit.habits.counts else None
        if counter is not None:
            witnesses.append(Counters(counter, self._last_counter, self._at_rest))
        # A hosted unit runs as long as this process. Its next life is another one.
        unit_life = f"in-process:{life.number}" if sim_unit.hosted else None
        self.unit_life = unit_life
        rest = UnitRest(clock, UnitWork(AT_WORK_S, True, True, unit_life), self.monitor)
        self.ahead = AheadWatch(
            db=db, clock=clock, rest=rest, readers=readers, counter=counter, noticed=db.noticed
        )
        committer.mismatch = self.ahead
        self.resolver = Resolver(
            db=db,
            clock=clock,
            committer=committer,
            evidence=lambda count, duplicate: [
                *witnesses,
                Resend(self.client, self._resend_gate, count, duplicate)
                if sim_unit.habits.resend
                else NoResend(alone=not witnesses),
            ],
            mismatch=self.ahead,
            unit_life=unit_life,
        )
        self.decisions = Decisions(
            db=db,
            clock=clock,
            committer=committer,
            looking=self.resolver.looking,
            take_up=self.resolver.take_up,
            contradicts=Contradictions(
                readers=readers, counter=counter, last_stored=self._last_counter
            ),
            rest=rest,
            ahead=self.ahead,
        )
        self.repeats = Repeats(clock, reuses_numbers=self.reuses_numbers)
        self.signer = self.signer_type(
            db=db,
            clock=clock,
            unit=self.client,
            encode=SaleEncoder(FORM, encode, self.days.report_no),
            gate=self._gate,
            committer=committer,
            resolver=self.resolver,
            render_problem=problem.render,
            after_commit=self.after_commit,
            heard=self.monitor.heard_from_unit,
            may_sign=lambda conn, row, invoice: (
                self.ahead.may_sign(conn, row)
                or self.repeats.may_sign(conn, row)
                or self.may_sign(conn, row, invoice)
            ),
            mismatch=self.ahead,
            queue_max=50,
            unit_life=unit_life,
        )
        self.intake = Intake(
            db=db,
            clock=clock,
            signer=self.signer,
            wait_s=25,
            gate=self._gate,
            may_begin=self.ahead.may_begin,
            repeats=self.repeats,
        )
        self.app = app_of(db, self.intake)

    def wire(self) -> None:
        """Parts of a larger gateway that the sales' own parts are built upon."""

    async def take_up(self) -> None:
        """What a larger gateway does before anything runs."""

    def loops(self) -> list[Callable[[], Awaitable[None]]]:
        """What else runs for as long as the process lives."""
        return []

    def _gate(self) -> None:
        self.ahead.gate()
        self.monitor.gate()

    def _resend_gate(self) -> None:
        self.ahead.gate()
        self.monitor.resend_gate()

    async def run(self) -> None:
        """From start to the end of the process; an exception is an exit that systemd restarts."""
        at = int(self.clock.now().timestamp() * 1e6)
        first = self.unit.habits.first_number
        await self.db.write(lambda conn: unit.ensure(conn, first_invoice_no=first, at=at))
        await self.monitor.load()
        await self.signer.recover()
        await self.take_up()
        await self.days.catch_up()
        monitor = self._started(self.monitor.run, StoreBusy, DiskFull)
        await self.monitor.first_answer(3)
        await self.ahead.check()
        self.life.world.trace(f"life {self.life.number} is ready")
        self.ready = True
        signer = self._started(self.signer.run)
        more = [asyncio.ensure_future(loop()) for loop in self.loops()]
        if self.disk.faults is None:
            more.insert(0, asyncio.ensure_future(self.days.run()))
        else:
            # As the daemon starts them (app.py).
            supervisor = Supervisor(self.clock)
            supervisor.start("days", self.days.run, Restart.BACKOFF)
            more.append(asyncio.ensure_future(self.db.failed()))
        parts = [monitor, signer, *more]
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        # In the order in which they were started: a seed replays exactly.
        for task in parts:
            if task in done:
                task.result()

    def _started(
        self, loop: Callable[[], Awaitable[None]], *waits: type[StoreError]
    ) -> asyncio.Task[None]:
        """Start a loop whose transactions wait, on days with disk faults, as `Supervisor` lets them."""
        if self.disk.faults is None:
            return asyncio.ensure_future(loop())  # type: ignore[arg-type, return-value]
        context = contextvars.copy_context()
        context.run(waits_out.set, waits)
        work: Any = loop()
        return asyncio.get_running_loop().create_task(work, context=context)

    async def _last_counter(self) -> int:
        return await self.db.read(receipts.last_counter)

    def _at_rest(self, row: InvoiceRow) -> bool:
        return (
            self.ahead.hold is None
            and self.unit_life is not None
            and row.unit_life is not None
            and row.unit_life != self.unit_life
        )

    # Tills whose receipt numbers start again within a day.
    reuses_numbers: Collection[str] = ()
    ready = False

    async def submit(
        self,
        till: str,
        key: str,
        *,
        refused: bool = False,
        keyless: bool = False,
        idem_key: str | None = None,
    ) -> tuple[int, bytes]:
        """What `POST /v1/invoices` does, without the HTTP around it."""
        invoice = an_invoice(till_receipt_no=key)
        if refused:
            invoice = replace(invoice, remark="refused")
        sale = Submission(till, idem_key or key, ids.digest(key), b"{}", invoice, None)
        try:
            if keyless:
                answer = await self.intake.submit_keyless(sale)
            else:
                answer = await self.intake.submit(sale)
        except GatewayError as error:
            return problem.render(error, "/v1/invoices")
        return answer.status, answer.body

    async def credit(self, till: str, key: str, invoice_id: str, body: Any) -> tuple[int, bytes]:
        """`POST /v1/invoices/{id}/credit-notes`."""
        request = Request(self.app, till, key, invoice_id, body)
        path = f"/v1/invoices/{invoice_id}/credit-notes"
        return await call(routes.post_credit_note, request, path)

    @property
    def held(self) -> bool:
        """Whether the store is known to be an old copy."""
        return self.ahead.hold is not None

    async def person(self) -> None:
        """Let an honest operator look at KRA's portal and decide by what it shows; close the day now and then."""
        try:
            await self._settle()
        except GatewayError as error:
            codes = [each.code for each in error.errors]
            self.life.world.trace(f"person refused: {error.code} {codes}")
        if self.life.world.happens(0.2):
            await self.close_the_day()

    async def close_the_day(self) -> None:
        try:
            made = await self.days.close("sim")
            self.life.world.trace(f"person closes day {made.day} as {made.number}")
        except GatewayError as error:
            self.life.world.trace(f"the day is not closed: {error.code}")

    async def _settle(self) -> None:
        if self.ahead.hold is not None:
            await self._number(self.ahead.hold)
        row = await self.db.read(invoices.open_row)
        if row is None or self.resolver.sentence is None:
            return
        # All receipts of the portal, by what makes the sale: an operator searches by total and time.
        portal = self.unit.portal
        mine = (e for e in portal if e["trdInvcNo"] == row.till_receipt_no and "alien" not in e)
        entry = next(mine, None)
        last = max((e["invcNo"] for e in portal), default=0)
        assert row.invc_no is not None
        self.life.world.trace(
            f"person settles {row.till_receipt_no} signed={entry is not None} last={last}"
        )
        if entry is not None:
            await self.decisions.signed(row.id, "sim", _as_read(entry))
        elif last >= row.invc_no:
            await self.decisions.other_sale_there(row.id, "sim", _stated(portal))
        else:
            await self.decisions.not_signed(row.id, "sim", _stated(portal))

    async def _number(self, why: str) -> None:
        known = [e["invcNo"] for e in self.unit.portal]
        number = max([*known, self.unit.habits.first_number - 1]) + 1
        self.life.world.trace(f"person says that {number} is next: {why}")
        await self.ahead.settle_by_person(number, "sim", why)


def _as_read(entry: dict[str, Any]) -> PortalReceipt:
    return PortalReceipt(
        rcpt_no=entry["rcptNo"],
        tot_rcpt_no=entry["totRcptNo"],
        rcpt_sign=entry["rcptSign"],
        intrl_data=entry["intrlData"],
        scu_time=from_compact(entry["vsdcRcptPbctDate"]),
        total=Decimal(str(entry["totAmt"])),
        sdc_id=entry["sdcId"],
        despite_time="the clock was wrong that day",
    )


def _stated(portal: list[dict[str, Any]]) -> Stated:
    """What an operator states who has searched the whole portal and not found the sale."""
    last = LastOnPortal(0)
    if portal:
        entry = max(portal, key=lambda each: int(each["invcNo"]))
        last = LastOnPortal(
            entry["invcNo"],
            Decimal(str(entry["totAmt"])),
            from_compact(entry["vsdcRcptPbctDate"]),
        )
    return Stated("not on the portal", last, searched=True, confirmed=True)
