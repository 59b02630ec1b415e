"""What the page and `/v1/status` show, gathered from the store and the running parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from gateway import __version__
from gateway.clock import EAT, Clock, from_compact, from_micros, iso
from gateway.continuity.backups import Backups
from gateway.continuity.monitor import CeilingMonitor
from gateway.continuity.outbox import OutboxSender
from gateway.continuity.reference import ReferenceReader, RegistrationSender
from gateway.domain.ceiling import CeilingState
from gateway.domain.outcome import Cause
from gateway.fiscal import rates, startup
from gateway.fiscal.ahead import AheadWatch
from gateway.fiscal.set_up import SetUp
from gateway.fiscal.signer import Signer
from gateway.fiscal.startup import UncleanStop
from gateway.money import from_cents
from gateway.printing.printer_words import kind_of
from gateway.printing.spooler import PrinterWorker
from gateway.settings import Settings
from gateway.status import payment_views
from gateway.status.headline import Headline, headline
from gateway.store import (
    continuity,
    invoices,
    outbox,
    print_jobs,
    receipts,
    reference,
    registrations,
    unit,
)
from gateway.store.database import Database

LAST_RECEIPTS = 10


class ReferenceProblems(Protocol):
    """Who reads KRA's lists and who sends what is registered."""

    @property
    def reader(self) -> ReferenceReader: ...
    @property
    def sender(self) -> RegistrationSender: ...


@dataclass(slots=True)
class UnitHealth:
    """Kept by the app's unit watch; read here."""

    healthy: bool = False
    reason: str | None = "not started yet"
    jvm: Mapping[str, Any] | None = None
    # What the answer to a sale named, until a sale is signed.
    cause: Cause | None = None
    # Rows of the unit's list of tax rates that are not used.
    rate_problems: Callable[[], Sequence[str]] = tuple


@dataclass(slots=True)
class MpesaHealth:
    """What keeps M-Pesa from working, in sentences without their stop; set by whoever runs its parts."""

    problems: Callable[[], Iterable[str]] = tuple


@dataclass(frozen=True, slots=True)
class StatusSource:
    """Everything the status is made of."""

    settings: Settings
    db: Database
    clock: Clock
    monitor: CeilingMonitor
    signer: Signer
    health: UnitHealth
    workers: Sequence[PrinterWorker]
    sender: OutboxSender | None
    started_us: int
    last_stop: Callable[[], UncleanStop | None]
    ahead: AheadWatch
    backups: Backups | None
    lists: ReferenceProblems
    mpesa: MpesaHealth = field(default_factory=MpesaHealth)
    set_up: SetUp | None = None

    def headline(self, ceiling: CeilingState) -> Headline:
        """The most important truth at this moment, under this state of the ceiling."""
        return headline(
            broken=self.db.broken is not None,
            held=self.ahead.hold is not None,
            hold_state=self.ahead.hold_state,
            set_up=self.set_up.problem() if self.set_up else None,
            ceiling=ceiling,
            kra=self.monitor.problem,
            in_doubt=self.signer.in_doubt,
            blocked=self.signer.blocked is not None,
            healthy=self.health.healthy,
            reason=self.health.reason,
            cause=self.health.cause,
        )

    def _witness_problem(self) -> str | None:
        """Return why the second record of the keys is not kept just now."""
        beside = self.db.witness
        return "it cannot be opened; see the log" if beside is None else beside.problem

    async def collect(self) -> dict[str, Any]:
        """The whole status as JSON-ready values; one read transaction."""
        now = self.clock.now()
        stored = await self.db.read(lambda conn: self._stored(conn, now))
        view = self.monitor.view()
        ceiling = self.monitor.as_json()
        left_s = ceiling["secondsLeft"]
        top = self.headline(CeilingState(ceiling["state"]))
        waiting = stored["outbox"].waiting
        cloud = self.settings.cloud.url is not None
        problem = self.sender.problem if self.sender else self.settings.off.get("cloud")
        rate = self.sender.per_minute() if self.sender and waiting else None
        return {
            "state": top.state,
            "sentence": top.sentence,
            "now": iso(now),
            "gateway": {
                "version": __version__,
                "startedAt": iso(from_micros(self.started_us)),
                "lastStop": stored["lastStop"],
                "off": self.settings.off,
            },
            "branch": {
                "tradeName": self.settings.branch.trade_name,
                "branchId": self.settings.branch.branch_id,
                "environment": self.settings.branch.environment,
            },
            "ceiling": {
                **ceiling,
                "percent": view.used_percent,
                "left": None if left_s is None else span(left_s),
                "limit": span(view.limit_us // 1_000_000),
                "lastContact": stored["contact"],
                "forecast": forecast(ceiling),
                "clocks": self.monitor.clocks()
                if ceiling["state"] is CeilingState.CLOCK_FAULT
                else None,
            },
            "signer": {
                "waiting": self.signer.waiting,
                "blocked": self.signer.blocked,
                "hold": self.ahead.hold,
                "openInvoice": stored["open"],
            },
            "unit": {
                "host": self.settings.unit.host,
                "healthy": self.health.healthy,
                "reason": self.health.reason,
                "sdcId": stored["device"]["sdc_id"],
                "mrcNo": stored["device"]["mrc_no"],
                "nextInvcNo": stored["device"]["next_invc_no"],
                "cause": self.health.cause.code if self.health.cause else None,
                "taxRates": stored["rates"],
                "rateChanges": stored["rateChanges"],
                "rateProblems": list(self.health.rate_problems()),
                "jvm": self.health.jvm,
            },
            "receipts": {"today": stored["today"], "last": stored["last"]},
            "store": {
                "durableCommits": self.db.durable_commits,
                "problem": self.db.broken,
                "diskFull": self.db.ballast is not None and self.db.ballast.released,
                "locked": self.db.locked is not None,
                "witness": self._witness_problem(),
            },
            "backup": {
                "configured": self.backups is not None,
                "last": self.backups.last if self.backups else None,
                "problem": self.backups.problem if self.backups else None,
            },
            "printing": self._printing(stored["queues"]),
            "cloud": {
                "configured": cloud,
                "ok": cloud and problem is None,
                "state": "not set up" if not cloud else ("away" if problem else "connected"),
                "waiting": waiting,
                "parked": stored["outbox"].parked,
                "stored": stored["outbox"].stored,
                "oldestWaiting": _when(stored["outbox"].oldest_at),
                "problem": problem,
                "perMinute": rate,
                "secondsLeft": waiting * 60 // rate if rate else None,
                "left": span(waiting * 60 // rate) if rate else None,
            },
            "mpesa": payment_views.status(
                self.settings.mpesa.on,
                self.settings.mpesa.environment,
                stored["mpesa"],
                [*self._mpesa_off(), *self.mpesa.problems()],
            ),
            "reference": {
                "lists": stored["lists"],
                "problems": self.lists.reader.problems,
                "waiting": stored["registrations"][0],
                "refused": stored["registrations"][1],
                "problem": self.lists.sender.problem,
            },
        }

    def _mpesa_off(self) -> list[str]:
        return [says for part, says in self.settings.off.items() if part.startswith("mpesa")]

    def _stored(self, conn: Any, now: datetime) -> dict[str, Any]:
        opened = invoices.open_row(conn)
        stop = self.last_stop()
        at, _ = continuity.last_contact(conn)
        midnight = now.astimezone(EAT).replace(hour=0, minute=0, second=0, microsecond=0)
        return {
            "open": opened.id if opened else None,
            "lastStop": startup.describe(conn, stop) if stop else None,
            "contact": _when(at),
            "device": unit.device(conn),
            "rateChanges": rates.changes_as_json(conn),
            "rates": {r.letter: f"{r.percent:f}" for r in unit.load_rates(conn).values()},
            "today": receipts.count_between(conn, midnight, midnight + timedelta(days=1)),
            "last": [
                {
                    "invoiceId": row.invoice_id,
                    "counter": row.receipt.counter,
                    "time": f"{from_compact(row.scu_time):%H:%M:%S}",
                    "till": till,
                    "total": f"{from_cents(row.total_cents):,.2f}",
                }
                for row, till in receipts.recent_with_till(conn, LAST_RECEIPTS)
            ],
            "queues": print_jobs.queues(conn),
            "outbox": outbox.figures(conn),
            "registrations": registrations.figures(conn),
            "mpesa": payment_views.figures(conn),
            "lists": {name: _when(at) for name, at in reference.refreshed(conn).items()},
        }

    def _printing(self, queues: Mapping[str, print_jobs.PrinterQueue]) -> dict[str, Any]:
        printers = []
        for worker in self.workers:
            queue = queues.get(worker.name)
            reason = worker.problem or (queue.reason if queue else None)
            kind = kind_of(worker.confirm, worker.printer.found or worker.printer.known)
            printers.append(
                {
                    "name": worker.name,
                    "ok": reason is None,
                    "state": "ready" if reason is None else "waits",
                    "queued": queue.waiting if queue else 0,
                    "held": queue.held if queue else 0,
                    "unconfirmed": queue.unconfirmed if queue else 0,
                    "kind": kind.name,
                    "says": kind.sentence,
                    "paperNearEnd": worker.printer.status.paper_near_end,
                    "lastSlip": None
                    if worker.last is None
                    else {
                        "bytes": worker.last.size,
                        "wireMs": round(worker.last.wire_s * 1000),
                    },
                    "reason": reason,
                }
            )
        return {"queued": sum(queue.waiting for queue in queues.values()), "printers": printers}


def forecast(ceiling: Mapping[str, Any]) -> str | None:
    """'Selling stops at 17:40; at this pace that is 214 more receipts.' None while KRA is heard."""
    if ceiling["stopsAt"] is None:
        return None
    at = datetime.fromisoformat(ceiling["stopsAt"])
    text = f"Without KRA selling stops at {at:%H:%M} on {at:%d/%m}"
    if ceiling["receiptsLeft"] is not None:
        text += f"; at this pace that is {ceiling['receiptsLeft']} more receipts"
    return text + "."


def span(seconds: int) -> str:
    """'23 h 59 min', '4 min', '30 s'."""
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"


def _when(at_us: int | None) -> str | None:
    return None if at_us is None else iso(from_micros(at_us))
