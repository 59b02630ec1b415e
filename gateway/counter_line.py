"""What stands on the counter, put together: printers with their spools, display, scale, scanner, tills
on a wire; and what the printers put on paper."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gateway.clock import Clock, micros
from gateway.counter.capture import Capture, CaptureRules
from gateway.counter.display import CustomerDisplay
from gateway.counter.own_api import OwnApi
from gateway.counter.scale import Scale
from gateway.counter.scanner import Scanner, ScannerRules
from gateway.counter.serial_till import SerialTill
from gateway.counter.template import Patterns, Template
from gateway.counter_settings import (
    CaptureSettings,
    DisplaySettings,
    PrinterSettings,
    ScaleSettings,
    ScannerSettings,
)
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine
from gateway.devices.printer import PrinterSetup, ReceiptPrinter
from gateway.devices.scale_codec import Options
from gateway.errors import StoreError
from gateway.fiscal.ports import SignedSale
from gateway.printing.spooler import PrinterWorker, SpoolRules
from gateway.settings import Settings
from gateway.slips import COLUMNS, composer
from gateway.store import events
from gateway.store.database import Database
from gateway.supervisor import Restart, Supervisor
from gateway.wiring import shop

log = logging.getLogger(__name__)

# Codes on their way into the store; a scanner that sends more than it can take has gone mad.
SCANS_WAITING_MAX = 32


class CounterLine:
    """`start` once; `printed` wakes the spools after a commit."""

    def __init__(self, settings: Settings, clock: Clock, db: Database) -> None:
        self._settings = settings
        self._clock = clock
        self._db = db
        # Where the gateway's own API listens; known when it does.
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        # Where the displays live; known once they run.
        self._loop: asyncio.AbstractEventLoop | None = None
        self.workers = [self._worker(name, part, db) for name, part in settings.printers.items()]
        by_name = {worker.name: worker for worker in self.workers}
        for worker in self.workers:
            others = settings.printers[worker.name].failover
            worker.others = [by_name[name] for name in others]
        self.displays = {n: self._display(n, part) for n, part in settings.displays.items()}
        self.scales = {
            name: Scale(name, scale_line(part), part.protocol, clock, scale_options(part))
            for name, part in settings.scales.items()
        }
        self.scanners = {n: self._scanner(n, part) for n, part in settings.scanners.items()}
        self.serial_tills = {
            name: SerialTill(name, LineSettings(part.port, part.baud), self._api(part.till), clock)
            for name, part in settings.serial_tills.items()
        }
        self.captures = {n: self._capture(n, part) for n, part in settings.captures.items()}
        self.taps = {worker.name: worker.tap for worker in self.workers}
        self.taps |= {line.name: line.tap for _, line in self._lines()}
        for _, line in self._lines():
            line.exclude(settings.excluded_ports)

    def start(self, supervisor: Supervisor) -> None:
        """What needs no API; tills on a wire follow with `start_tills`."""
        self._loop = asyncio.get_running_loop()
        for worker in self.workers:
            supervisor.start(f"printer {worker.name}", worker.run, Restart.BACKOFF)
        for name, display in self.displays.items():
            supervisor.start(f"display {name}", display.run, Restart.BACKOFF)

    def start_tills(self, supervisor: Supervisor, url: str) -> None:
        """The API listens at `url`: whoever speaks through it may begin."""
        self.url = url
        for kind, line in self._lines():
            supervisor.start(f"{kind} line {line.name}", line.run, Restart.BACKOFF)
        for name, till in self.serial_tills.items():
            supervisor.start(f"serial till {name}", till.run, Restart.BACKOFF)
        for name, capture in self.captures.items():
            supervisor.start(f"capture {name}", capture.run, Restart.BACKOFF)

    def _lines(self) -> list[tuple[str, DeviceLine]]:
        return [
            (kind, device.line)
            for kind, group in (
                ("display", self.displays),
                ("scale", self.scales),
                ("scanner", self.scanners),
                ("serial till", self.serial_tills),
                ("capture", self.captures),
            )
            for device in group.values()
        ]

    def show_sale(self, conn: sqlite3.Connection, sale: SignedSale) -> None:
        """Total and change for the customer in front of this till. Called in the commit, on the
        store's thread: it only leaves word, and nothing of a display can undo a receipt."""
        # A sale found signed later is no news to the customer who stands there now.
        if self._loop is None or sale.how != "ANSWER":
            return
        words = (sale.row.till_id, f"{sale.invoice.total:,.2f}", f"{sale.invoice.change:,.2f}")
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody looks any more
            self._loop.call_soon_threadsafe(self._show, *words)

    def _show(self, till: str, total: str, change: str) -> None:
        for name, display in self.displays.items():
            if self._settings.displays[name].till in (None, till):
                display.show_sale(total, change)

    def show_ceiling(self, ceiling: Mapping[str, Any]) -> None:
        for display in self.displays.values():
            display.show_ceiling(ceiling)

    def as_json(self) -> list[dict[str, Any]]:
        """Every device: kind, name, port, and why it does not work."""
        ports = dict(self._settings.devices)
        found = [
            {
                "kind": "printer",
                "name": worker.name,
                "port": ports[worker.name],
                "problem": worker.problem,
                "drawerOpen": worker.printer.status.drawer_open
                if self._settings.printers[worker.name].drawer_pin
                else None,
            }
            for worker in self.workers
        ]
        for kind, line in self._lines():
            found.append(
                {
                    "kind": kind,
                    "name": line.name,
                    "port": ports[line.name],
                    "problem": self._problem(line),
                }
            )
        return found

    def _problem(self, line: DeviceLine) -> str | None:
        """Return why a device does not work: its line, or bytes that its settings do not cover."""
        device = self.scales.get(line.name) or self.scanners.get(line.name)
        return line.problem if device is None else device.problem

    def _api(self, till: str) -> OwnApi:
        token = self._settings.till_tokens.get(till)
        return OwnApi(lambda: self.url, token.get_secret_value() if token else "")

    def _display(self, name: str, part: DisplaySettings) -> CustomerDisplay:
        line = LineSettings(part.port, part.baud)
        return CustomerDisplay(name, line, part.protocol, part.columns, part.idle_text, self._clock)

    def _scanner(self, name: str, part: ScannerSettings) -> Scanner:
        def read(code: str) -> None:
            if len(self._tasks) >= SCANS_WAITING_MAX:
                log.warning("scanner.flood name=%s", name)
                return
            task = asyncio.ensure_future(self._scanned(name, part.till, code))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        rules = ScannerRules(
            silence_s=part.silence_s if part.suffix == "none" else None,
            strip_aim=part.aim_prefix == "strip",
        )
        return Scanner(name, LineSettings(part.port, part.baud), self._clock, read, rules)

    async def _scanned(self, name: str, till: str | None, code: str) -> None:
        at = micros(self._clock.now())
        data = {"device": name, "code": code}
        try:
            await self._db.write_soft(
                lambda conn: events.record(
                    conn, at=at, kind="scanner.read", till_id=till, data=data
                )
            )
        except StoreError as error:
            log.warning("scanner.lost name=%s error=%s", name, error)

    def _capture(self, name: str, part: CaptureSettings) -> Capture:
        till = next((till for till in self._settings.tills if till.id == part.till), None)
        printer = till.printer if till else None
        worker = self.worker(printer) if printer else None
        drawer = printer is not None and self._settings.printers[printer].drawer_pin is not None
        return Capture(
            name,
            LineSettings(part.port, part.baud),
            rules=CaptureRules(
                till_id=part.till,
                printer=printer,
                template=template_of(part),
                silence_s=part.silence_s,
                last_line=part.last_line,
                code_page=part.code_page,
            ),
            api=self._api(part.till),
            db=self._db,
            clock=self._clock,
            wake=self.wake,
            pulse=worker.kick if worker is not None and drawer else None,
        )

    def wake(self) -> None:
        for worker in self.workers:
            worker.notify()

    def worker(self, name: str) -> PrinterWorker | None:
        return next((worker for worker in self.workers if worker.name == name), None)

    def _worker(self, name: str, part: PrinterSettings, db: Database) -> PrinterWorker:
        setup = printer_setup(name, part)
        rules = SpoolRules(
            stale_s=self._settings.printing.stale_minutes * 60,
            failover_s=self._settings.printing.failover_s,
        )
        printer = ReceiptPrinter(setup, self._clock)
        printer.exclude(self._settings.excluded_ports)
        worker = PrinterWorker(
            name=name,
            db=db,
            clock=self._clock,
            compose=composer(shop(self._settings), setup),
            printer=printer,
            rules=rules,
            port=part.port,
            confirm=part.confirm,
        )
        printer.holds = worker.holds
        return worker


def scale_line(part: ScaleSettings) -> LineSettings:
    return LineSettings(part.port, part.baud, parity=part.parity, data_bits=part.data_bits)


def scale_options(part: ScaleSettings) -> Options:
    return Options(part.unit, part.decimals)


def template_of(part: CaptureSettings) -> Template:
    names = {field.name for field in fields(Patterns)}
    return Template(Patterns(**part.model_dump(include=names)))


def printer_setup(name: str, part: PrinterSettings) -> PrinterSetup:
    return PrinterSetup(
        name=name,
        line=LineSettings(part.port, part.baud, part.flow),
        profile=part.profile,
        paper_mm=part.paper_mm,
        columns=part.columns or COLUMNS[part.paper_mm],
        cut=part.cut,
        cut_how=part.cut_command,
        qr=part.qr,
        confirm=part.confirm,
        drawer_pin=part.drawer_pin,
        pulse_ms=part.drawer_pulse_ms,
        buffer_bytes=part.buffer_bytes,
        speed_mm_s=part.speed_mm_s,
    )
