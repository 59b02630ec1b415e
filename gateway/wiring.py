"""Settings into the parts the composition root puts together: one small function each."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Protocol

from aiohttp import web

from gateway import ids
from gateway.api.auth import Technicians, Till, Tills
from gateway.api.server import StreamShares
from gateway.clock import Clock, compact, from_micros, micros
from gateway.connection_guard import ConnectionGuard
from gateway.continuity.monitor import CeilingMonitor
from gateway.counter_settings import ReceiptSettings
from gateway.domain.receipt import PORTALS
from gateway.errors import ConfigError
from gateway.fiscal.days import Days
from gateway.fiscal.evidence import (
    AtRest,
    Count,
    Counters,
    Evidence,
    NoResend,
    ReadBack,
    RecordDuplicate,
    Resend,
)
from gateway.fiscal.identity import StoredSale
from gateway.fiscal.set_up import Failure, Registration, SetUp
from gateway.fiscal.unit_watch import UnitWatch
from gateway.listen import listen_at
from gateway.money import cents
from gateway.payments import report as payment_report
from gateway.printing.layout import Shop
from gateway.printing.words import WORDS
from gateway.settings import Settings
from gateway.store import print_jobs, receipts
from gateway.store.database import Database
from gateway.store.reports import ZReport
from gateway.vscu.client import StoredAnswer, UnitClient
from gateway.vscu.host import ExternalUnit, InProcessUnit, Unit
from gateway.vscu.lists import NotRegistered, UnitLists
from gateway.vscu.refusal import Filled
from gateway.vscu.sale import SaleForm
from gateway.vscu.unit_database import UnitDatabase
from gateway.vscu.wire import encode

log = logging.getLogger(__name__)

# What an open request or event stream gets to end at a stop, in seconds.
STREAMS_END_S = 1.0


def make_unit(settings: Settings) -> Unit:
    part = settings.unit
    if part.host == "external":
        return ExternalUnit()
    assert part.jar is not None
    assert part.directory is not None
    return InProcessUnit(
        jar=part.jar.resolve(),
        directory=part.directory.resolve(),
        port=part.port,
        java_home=part.java_home,
        heap_mb=part.heap_mb,
        jvm_options=part.jvm_options,
        arguments=part.arguments,
    )


def make_client(settings: Settings, clock: Clock, hosted: Unit = ExternalUnit()) -> UnitClient:
    part = settings.unit
    return UnitClient(
        base_url=part.base_url,
        pin=settings.branch.pin,
        branch_id=settings.branch.branch_id,
        clock=clock,
        answer_timeout_s=part.answer_timeout_s,
        probe_timeout_s=part.probe_timeout_s,
        success_codes=part.success_codes,
        duplicate_codes=part.duplicate_codes,
        refused_codes=part.refused_codes,
        not_ready_codes=part.not_ready_codes,
        filled=Filled(
            walk_in_pin=part.walk_in_pin,
            walk_in_name=part.walk_in_name,
            item_class=part.item_class,
            package_unit=part.package_unit,
            quantity_unit=part.quantity_unit,
            cashier_id=part.cashier_id,
        ),
        paths=part.paths,
        check_port=hosted.check_port,
    )


def make_set_up(
    settings: Settings, hosted: Unit, watch: UnitWatch, monitor: CeilingMonitor
) -> SetUp:
    """What keeps a new shop from its first sale, out of the parts that notice it."""
    branch, part = settings.branch, settings.unit
    place = str(part.directory) if part.directory is not None else part.base_url

    def failure() -> Failure | None:
        if watch.failure is not None:
            return watch.failure
        failed = monitor.failed
        return None if failed is None else Failure(failed.reason, failed.code, failed.answered)

    return SetUp(
        Registration(branch.pin, branch.branch_id, part.serial, place, part.base_url),
        port=hosted.port_problem,
        state=lambda: monitor.view().state,
        initialised=lambda: watch.initialised,
        failure=failure,
    )


class StoredSaleReader(Protocol):
    async def read_back(self, invc_no: int) -> StoredAnswer | str | None: ...


class StoredSales:
    """The unit's read-back, or its database, in the words of the evidence."""

    def __init__(self, reader: StoredSaleReader) -> None:
        self._reader = reader

    async def stored_sale(self, invc_no: int) -> StoredSale | str | None:
        found = await self._reader.read_back(invc_no)
        if found is None or isinstance(found, str):
            return found
        try:
            total_cents = cents(Decimal(str(found.fields["totAmt"])))
        except (KeyError, ArithmeticError, ValueError):
            return "the unit does not say the total of what it holds"
        return StoredSale(
            found.data,
            total_cents,
            found.fields.get("custTin"),
            found.fields.get("cfmDt"),
            found.raw,
            found.fields,
        )


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who can say what the unit holds: in the order in which they are asked."""

    evidence: Callable[[Count, RecordDuplicate], list[Evidence]]
    readers: list[StoredSales]
    counter: UnitDatabase | None


def make_witnesses(
    settings: Settings,
    client: UnitClient,
    db: Database,
    gate: Callable[[], None],
    at_rest: AtRest,
) -> Witnesses:
    """Return the read-back, the unit's database, its counters, and last the one deliberate resend.

    Only the unit's own read-back, and a counter that was seen to agree, may say "not there" for good; a
    configured query may be wrong.
    """
    part = settings.unit
    evidence: list[Evidence] = []
    readers: list[StoredSales] = []
    counter = None
    if part.read_back:
        readers.append(StoredSales(client))
        evidence.append(ReadBack(readers[-1], at_rest=at_rest))
    if part.database is not None:
        database = UnitDatabase(part.database, part.database_query, part.database_counter_query)
        if part.database_query is not None:
            readers.append(StoredSales(database))
            evidence.append(ReadBack(readers[-1], "unit's database"))
        if part.database_counter_query is not None:
            counter = database
            last = lambda: db.read(receipts.last_counter)  # noqa: E731
            evidence.append(Counters(database, last, at_rest))

    def sources(count: Count, record_duplicate: RecordDuplicate) -> list[Evidence]:
        if part.resend:
            return [*evidence, Resend(client, gate, count, record_duplicate)]
        return [*evidence, NoResend(alone=not evidence)]

    return Witnesses(sources, readers, counter)


def sale_form(settings: Settings) -> SaleForm:
    branch, part = settings.branch, settings.unit
    greeting, thanks = messages(settings.receipt)
    return SaleForm(
        pin=branch.pin,
        branch_id=branch.branch_id,
        trade_name=branch.trade_name,
        address=", ".join(item for item in (branch.address, branch.city) if item),
        top_message=greeting,
        bottom_message=thanks[0] if thanks else "",
        taxable_amount=part.taxable_amount,
        walk_in_pin=part.walk_in_pin,
        walk_in_name=part.walk_in_name,
        credit_note_status=part.credit_note_status,
        mark=part.mark_sales,
    )


def make_days(
    settings: Settings,
    clock: Clock,
    db: Database,
    client: UnitClient,
    clock_fault: Callable[[], bool],
) -> Days:
    """The shop's days; closes go to paper and to the unit as the settings say."""
    branch, part = settings.branch, settings.reports

    async def tell(report: ZReport) -> tuple[bool, str]:
        """`/reports/saveZReports`: the unit sums its own receipts up to `rptDe` (etims.md 6.5)."""
        # A close at midnight is of the day before it.
        until = from_micros(report.ended_at - 1)
        body = encode({"tin": branch.pin, "bhfId": branch.branch_id, "rptDe": compact(until)})
        answer = await UnitLists(client).register("saveZReports", body)
        if isinstance(answer, NotRegistered):
            return answer.final, answer.reason
        return True, "taken"

    def paper(conn: sqlite3.Connection, report: ZReport) -> None:
        if part.printer is not None:
            body = ids.canonical(report.body)
            print_jobs.enqueue_report(conn, part.printer, body, at=micros(clock.now()))
            if settings.mpesa.on:
                mpesa_paper(conn, report.day, part.printer)

    def mpesa_paper(conn: sqlite3.Connection, day: str, printer: str) -> None:
        """The day of M-Pesa behind its Z. The Z is the law's; nothing of this may keep it from being made."""
        try:
            of = payment_report.day_of(date.fromisoformat(day))
            body = payment_report.make(conn, header, of, clock.now())
        except Exception:  # whatever is wrong in it, the Z it stands behind is made
            log.exception("payment.report day=%s is not printed", day)
            return
        print_jobs.enqueue_report(conn, printer, ids.canonical(body), at=micros(clock.now()))

    header = {
        "tradeName": branch.trade_name,
        "pin": branch.pin,
        "branchId": branch.branch_id,
    }

    return Days(
        db=db,
        clock=clock,
        header=header,
        tell_unit=tell if part.to_unit else None,
        paper=paper,
        by_itself=part.by_itself,
        clock_fault=clock_fault,
    )


def local_host(host: str) -> str:
    """Where this machine reaches its own API, wherever else it listens."""
    return "127.0.0.1" if host in ("0.0.0.0", "", "::") else host  # noqa: S104


def api_guard(settings: Settings) -> ConnectionGuard:
    """Return the limits of the tills' port. Tills on a wire connect from this machine, and have presented no
    token after a start."""
    guard = ConnectionGuard("api", settings.api.limits)
    if settings.serial_tills or settings.captures:
        guard.know(local_host(settings.api.host))
    return guard


async def serve_api(
    app: web.Application, settings: Settings, stack: AsyncExitStack
) -> web.AppRunner:
    """Serve the tills' API and the pages until `stack` ends. ConfigError when the port cannot be used."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STREAMS_END_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    host, port = settings.api.host, settings.api.port
    try:
        await listen_at(runner, host, port, api_guard(settings))
    except OSError as error:
        raise ConfigError(f"api.port {port} on {host} cannot be used: {error.strerror}") from error
    return runner


def stream_shares(settings: Settings) -> StreamShares:
    """Return the places for event streams."""
    api = settings.api
    return StreamShares(
        pages=api.event_streams_max,
        per_address=api.event_streams_per_address,
        per_till=api.event_streams_per_till,
    )


def portal(settings: Settings) -> str:
    return settings.branch.qr_base_url or PORTALS[settings.branch.environment]


def messages(receipt: ReceiptSettings) -> tuple[str, tuple[str, ...]]:
    """The greeting above and the thanks below, in the shop's own words or the usual ones."""
    words = WORDS[receipt.language]
    return (
        words.welcome if receipt.commercial_message is None else receipt.commercial_message,
        words.thanks if receipt.footer_lines is None else receipt.footer_lines,
    )


def shop(settings: Settings) -> Shop:
    branch, receipt = settings.branch, settings.receipt
    greeting, thanks = messages(receipt)
    return Shop(
        trade_name=branch.trade_name,
        address=", ".join(item for item in (branch.address, branch.city) if item),
        pin=branch.pin,
        branch_id=branch.branch_id,
        portal=portal(settings),
        commercial_message=greeting,
        footer_lines=thanks,
        language=receipt.language,
        legal_end_line=receipt.legal_end_line,
        logo=str(receipt.logo) if receipt.logo else None,
    )


def technicians(settings: Settings) -> Technicians:
    return Technicians(
        {name: code.get_secret_value() for name, code in settings.technician_tokens.items()}
    )


def tills(settings: Settings) -> Tills:
    known = {till.id: Till(till.id, till.name or till.id, till.printer) for till in settings.tills}
    tokens = {
        till_id: secret.get_secret_value() for till_id, secret in settings.till_tokens.items()
    }
    return Tills(known, tokens)
