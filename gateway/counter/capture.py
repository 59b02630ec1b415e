"""A till that only knows how to print: the gateway is its printer, and signs what it prints.

A slip is in the store before anything is made of it. Read with certainty, it is sold through the
gateway's own API under a key of its own; otherwise it is printed as NOT FISCALISED and waits for a
person. The same slip printed again is the same sale.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.counter import slip_identity
from gateway.counter.own_api import OwnApi, Reply
from gateway.counter.slip_identity import Again, New, Unclear
from gateway.counter.slip_reader import CapturedSlip, SlipReader
from gateway.counter.template import SlipReading, Template
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine
from gateway.domain.signing import SigningState
from gateway.money import cents, parse_amount
from gateway.store import captures, events, invoices, print_jobs, unit
from gateway.store.captures import Captured, NewSlip
from gateway.store.database import Database

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_LAST_S = 1.0, 15.0
# Without news the loop looks again this often, in seconds.
IDLE_S = 30.0
BANNER = "NOT FISCALISED"
# A command whose data stop for longer, in seconds, was cut short by an unplugged cable.
COMMAND_MAX_S = 10.0
# Lines of a slip that are printed under the banner; a longer one is looked up in the list.
NOTE_LINES_MAX = 150
# A sale that cannot be signed at once is tried for so long, in seconds; under these codes, not at all.
PATIENCE_S = 60.0
NOT_NOW = (
    "SUSPENDED",
    "CLOCK_FAULT",
    "UNIT_AHEAD",
    "EMPTY_STORE",
    "NOT_SET_UP",
    "UNIT_PORT_TAKEN",
)
# States of an invoice that the unit may hold: no word of an answer undoes them.
MAYBE_SIGNED = (SigningState.SIGNING, SigningState.IN_DOUBT, SigningState.SIGNED)


@dataclass(frozen=True, slots=True)
class CaptureRules:
    """`silence_s` ends a slip without a cut (0: only a cut does); `last_line` does so at once."""

    till_id: str
    printer: str | None
    template: Template
    silence_s: float = 3.0
    last_line: str | None = None
    code_page: str | None = None


class Capture:
    """`line.run` hears the till; `run` works its slips off, in order. `pulse` opens the till's drawer."""

    def __init__(
        self,
        name: str,
        settings: LineSettings,
        *,
        rules: CaptureRules,
        api: OwnApi,
        db: Database,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
        pulse: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.name = name
        self.rules = rules
        self._api = api
        self._db = db
        self._clock = clock
        self._wake = wake
        self._pulse = pulse
        self._reader = SlipReader(rules.last_line, rules.code_page)
        self._slips: list[CapturedSlip] = []
        self._bytes = asyncio.Event()
        self._heard_ns = 0
        self._tasks: set[asyncio.Future[Any]] = set()
        self.line = DeviceLine(name, settings, clock, heard=self._heard)

    def _heard(self, data: bytes) -> None:
        now_ns = self._clock.boottime_ns()
        if now_ns - self._heard_ns > COMMAND_MAX_S * 1e9:
            self._reader.give_up_command()
        pulses = self._reader.pulses
        answers, slips = self._reader.feed(data)
        if answers:
            self._meanwhile(self.line.write(answers))
        if self._pulse is not None and self._reader.pulses > pulses:
            self._meanwhile(self._pulse())
        self._slips += slips
        self._heard_ns = now_ns
        self._bytes.set()

    def _meanwhile(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        pause = RETRY_FIRST_S
        try:
            while True:
                self._bytes.clear()
                while self._slips:
                    await self._keep(self._slips[0])
                    del self._slips[0]
                if await self._sell_waiting():
                    pause, again_s = RETRY_FIRST_S, IDLE_S
                else:
                    again_s, pause = pause, min(pause * 2, RETRY_LAST_S)
                await self._until_news(again_s)
        finally:
            await self._api.close()

    async def _until_news(self, again_s: float) -> None:
        """A slip, or the end of one by silence; else after so many seconds."""
        end_ns = self._clock.boottime_ns() + int(again_s * 1e9)
        while not self._slips:
            now_ns = self._clock.boottime_ns()
            left_s = (end_ns - now_ns) / 1e9
            if self.rules.silence_s and self._reader.in_slip:
                quiet_s = self.rules.silence_s - (now_ns - self._heard_ns) / 1e9
                if quiet_s <= 0:
                    self._slips += self._reader.end()
                    return
                left_s = min(left_s, quiet_s)
            if left_s <= 0:
                return
            self._bytes.clear()
            await wake_or_sleep(self._clock, self._bytes, left_s)

    # --- a slip that comes -----------------------------------------------------------------------------

    async def _keep(self, slip: CapturedSlip) -> None:
        """Into the store first; what it is, is decided with it."""
        template = self.rules.template
        template.rates = await self._db.read(unit.load_rates)
        reading = template.read(slip.lines, slip.doubts)
        at = micros(self._clock.now())
        state = await self._db.write(lambda conn: self._record(conn, slip, reading, at))
        self._wake()
        if state == "UNREAD":
            log.warning(
                "capture.unread device=%s reason=%s", self.name, "; ".join(reading.problems)
            )

    def _record(
        self, conn: sqlite3.Connection, slip: CapturedSlip, reading: SlipReading, at: int
    ) -> str:
        text = "\n".join(slip.lines)
        new: dict[str, Any] = {
            "device": self.name, "till_id": self.rules.till_id, "raw": slip.raw, "text": text, "at": at,
            "reason": "; ".join(reading.problems) or None,
        }  # fmt: skip
        if reading.kind == "not_a_sale":
            captures.add(conn, NewSlip(state="NOT_A_SALE", **new))
            self._paper(conn, text, banner=False, at=at)
            return "NOT_A_SALE"
        if reading.kind == "unread":
            number = captures.add(conn, NewSlip(state="UNREAD", **new))
            self._refuse(conn, number, text, new["reason"], at)
            return "UNREAD"
        return self._record_sale(conn, reading, new)

    def _record_sale(
        self, conn: sqlite3.Connection, reading: SlipReading, new: dict[str, Any]
    ) -> str:
        assert reading.invoice is not None
        assert reading.receipt_no is not None
        at = new["at"]
        total = cents(parse_amount(reading.invoice["total"]))
        new |= {
            "receipt_no": reading.receipt_no, "dated": reading.dated, "total_cents": total,
            "content": slip_identity.content_of(reading),
        }  # fmt: skip
        earlier = captures.of_number(conn, self.rules.till_id, reading.receipt_no)
        match slip_identity.identify(reading, total, at, earlier):
            case New(key):
                captures.add(conn, NewSlip(state="WAITING", **new | {"idem_key": key}))
                return "WAITING"
            case Again(slip, unsigned=True):
                # The till asks for it once more: this slip takes the listed one's place.
                new |= {"idem_key": slip.idem_key, "reason": f"slip {slip.id} again"}
                number = captures.add(conn, NewSlip(state="WAITING", **new))
                reason = f"printed again as slip {number}"
                captures.settle(conn, slip.id, "DISMISSED", reason=reason, at=at)
                data = {"capture": slip.id, "state": "DISMISSED", "reason": reason}
                events.record(conn, at=at, kind="capture.settled", data=data)
                return "WAITING"
            case Again(slip):
                new |= {
                    "idem_key": slip.idem_key,
                    "reprint": True,
                    "reason": f"slip {slip.id} again",
                }
                if slip.state == "WAITING":
                    captures.add(conn, NewSlip(state="WAITING", **new))
                    return "WAITING"
                captures.add(conn, NewSlip(state="SIGNED", invoice_id=slip.invoice_id, **new))
                self._copy(conn, slip.invoice_id, at)
                return "SIGNED"
            case Unclear(reason):
                number = captures.add(conn, NewSlip(state="UNREAD", **new | {"reason": reason}))
                self._refuse(conn, number, new["text"], reason, at)
                return "UNREAD"

    def _refuse(
        self, conn: sqlite3.Connection, number: int, text: str, reason: str | None, at: int
    ) -> None:
        """Not signed: on paper with a banner, in the list, and an event."""
        self._paper(conn, text, banner=True, at=at)
        data = {"capture": number, "device": self.name, "reason": reason}
        till = self.rules.till_id
        events.record(conn, at=at, kind="capture.unread", till_id=till, data=data)

    def _paper(self, conn: sqlite3.Connection, text: str, *, banner: bool, at: int) -> None:
        if self.rules.printer is not None:
            head = f"{BANNER}\n" if banner else "\n"
            lines = text.split("\n")
            if len(lines) > NOTE_LINES_MAX:
                rest = f"... and {len(lines) - NOTE_LINES_MAX} more lines, in the list of slips"
                text = "\n".join([*lines[:NOTE_LINES_MAX], rest])
            print_jobs.enqueue_note(conn, self.rules.printer, head + text, at=at)

    def _copy(self, conn: sqlite3.Connection, invoice_id: str | None, at: int) -> None:
        """The till printed it again, and gets a copy as from any printer (TIS 6.17)."""
        if self.rules.printer is not None and invoice_id is not None:
            print_jobs.enqueue_copy(conn, invoice_id, self.rules.printer, self.rules.till_id, at=at)

    # --- slips that wait for the unit ------------------------------------------------------------------

    async def _sell_waiting(self) -> bool:
        """Sell what is read and waits, oldest first; False when one must wait longer. It holds up no
        other: a customer whose sale cannot be signed now must be told so in time."""
        settled = True
        waiting = await self._db.read(lambda conn: captures.in_state(conn, "WAITING", self.name))
        for captured in waiting:
            if captured.reprint:
                await self._repeat(captured)
                continue
            reading = self.rules.template.read(captured.text.split("\n"))
            if reading.invoice is None:
                # The patterns were changed meanwhile.
                await self._unread(captured, "; ".join(reading.problems) or "no sale any more")
            elif not await self._try(captured, reading):
                settled = False
        return settled

    async def _try(self, captured: Captured, reading: SlipReading) -> bool:
        """Settled in this way or that; False to try again."""
        late_s = (micros(self._clock.now()) - captured.at) / 1e6
        if late_s > PATIENCE_S and await self._state_of(captured) not in MAYBE_SIGNED:
            # The customer has gone with a slip that says so: nothing is signed behind the till's back.
            await self._unread(captured, f"it was not signed within {PATIENCE_S:.0f} seconds")
            return True
        try:
            body = json.dumps(dict(reading.invoice or {})).encode()
            reply = await self._api.request(
                "POST", "/v1/invoices", key=captured.idem_key, body=body
            )
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return False
        if reply.status == 201:
            invoice_id = reply.body["invoiceId"]
            at = micros(self._clock.now())
            await self._db.write(
                lambda conn: captures.settle(
                    conn,
                    captured.id,
                    "SIGNED",
                    reason=captured.reason,
                    invoice_id=invoice_id,
                    at=at,
                )
            )
            return True
        return await self._not_sold(captured, reply)

    async def _not_sold(self, captured: Captured, reply: Reply) -> bool:
        body = reply.body if isinstance(reply.body, dict) else {}
        soon = reply.status >= 500 or reply.status in (202, 429)
        if soon and body.get("code") not in NOT_NOW:
            return False
        if soon and await self._state_of(captured) in MAYBE_SIGNED:
            return False
        await self._unread(captured, f"{body.get('code', reply.status)}: {body.get('detail', '')}")
        return True

    async def _state_of(self, captured: Captured) -> SigningState | None:
        """What the store knows of its sale, whatever an answer said."""
        key = captured.idem_key or ""
        row = await self._db.read(lambda conn: invoices.by_key(conn, captured.till_id, key))
        return row.state if row else None

    async def _repeat(self, captured: Captured) -> None:
        """Printed twice before it was sold once: what became of the first is true of this one."""
        at = micros(self._clock.now())

        def follow(conn: sqlite3.Connection) -> None:
            first = captures.first_of_key(
                conn, captured.till_id, captured.receipt_no or "", captured.idem_key or ""
            )
            if first.state == "WAITING":
                return
            state = "SIGNED" if first.state == "SIGNED" else "DISMISSED"
            if captures.settle(
                conn, captured.id, state, reason=captured.reason, invoice_id=first.invoice_id, at=at
            ):
                if first.state == "SIGNED":
                    self._copy(conn, first.invoice_id, at)
                else:
                    self._paper(conn, captured.text, banner=True, at=at)

        await self._db.write(follow)
        self._wake()

    async def _unread(self, captured: Captured, reason: str) -> None:
        at = micros(self._clock.now())

        def refuse(conn: sqlite3.Connection) -> None:
            if captures.settle(conn, captured.id, "UNREAD", reason=reason, at=at):
                self._refuse(conn, captured.id, captured.text, reason, at)

        await self._db.write(refuse)
        self._wake()
        log.warning("capture.unread device=%s reason=%s", self.name, reason)
