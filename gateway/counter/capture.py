"""A till that only knows how to print: the gateway is its printer, and signs what it prints.

A slip is in the store before anything is made of it. Read with certainty, it is sold through the
gateway's own API under a key of its own; otherwise it is printed as NOT FISCALISED and waits for a
person. The same slip printed again is the same sale.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable

import aiohttp

from gateway.clock import Clock, micros, wake_or_sleep
from gateway.counter.own_api import OwnApi, Reply
from gateway.counter.slip_reader import CapturedSlip, SlipReader
from gateway.counter.template import SlipReading, Template
from gateway.devices.channel import LineSettings
from gateway.devices.line import DeviceLine
from gateway.store import captures, events, print_jobs
from gateway.store.captures import Captured
from gateway.store.database import Database

log = logging.getLogger(__name__)

# A slip without a cut ends when the till has been silent for this long. Seconds.
SILENCE_S = 3.0
RETRY_FIRST_S, RETRY_LAST_S = 1.0, 15.0
BANNER = "NOT FISCALISED"
# A sale that cannot be signed at once is tried for so long, in seconds; under these codes, not at all.
PATIENCE_S = 60.0
NOT_NOW = ("SUSPENDED", "CLOCK_FAULT", "UNIT_AHEAD")


class Capture:
    """`line.run` hears the till; `run` works its slips off, in order."""

    def __init__(
        self,
        name: str,
        settings: LineSettings,
        *,
        till_id: str,
        printer: str | None,
        template: Template,
        api: OwnApi,
        db: Database,
        clock: Clock,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.till_id = till_id
        self.template = template
        self._printer = printer
        self._api = api
        self._db = db
        self._clock = clock
        self._wake = wake
        self._reader = SlipReader()
        self._slips: list[CapturedSlip] = []
        self._bytes = asyncio.Event()
        self._tasks: set[asyncio.Task[bool]] = set()
        self.line = DeviceLine(name, settings, clock, heard=self._heard)

    def _heard(self, data: bytes) -> None:
        answers, slips = self._reader.feed(data)
        if answers:
            task = asyncio.ensure_future(self.line.write(answers))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._slips += slips
        self._bytes.set()

    async def run(self) -> None:
        pause = RETRY_FIRST_S
        try:
            while True:
                self._bytes.clear()
                slips, self._slips = self._slips, []
                for slip in slips:
                    await self._keep(slip)
                if await self._sell_waiting():
                    pause = RETRY_FIRST_S
                    await wake_or_sleep(self._clock, self._bytes, SILENCE_S)
                else:
                    await wake_or_sleep(self._clock, self._bytes, pause)
                    pause = min(pause * 2, RETRY_LAST_S)
                if not self._bytes.is_set() and self._reader.in_slip:
                    self._slips += self._reader.end()
        finally:
            await self._api.close()

    async def _keep(self, slip: CapturedSlip) -> None:
        """Into the store first; what it is, is decided with it."""
        reading = self.template.read(slip.lines)
        text = "\n".join(slip.lines)
        at = micros(self._clock.now())
        state = {"sale": "WAITING", "not_a_sale": "NOT_A_SALE", "unread": "UNREAD"}[reading.kind]
        reason = "; ".join(reading.problems) or None

        def add(conn: sqlite3.Connection) -> None:
            number = captures.add(
                conn, device=self.name, till_id=self.till_id, raw=slip.raw, text=text, state=state,
                reason=reason, at=at,
            )  # fmt: skip
            if reading.kind != "sale":
                self._paper(conn, text, banner=reading.kind == "unread", at=at)
            if reading.kind == "unread":
                data = {"capture": number, "device": self.name, "reason": reason}
                events.record(conn, at=at, kind="capture.unread", till_id=self.till_id, data=data)

        await self._db.write(add)
        self._wake()
        if reading.kind == "unread":
            log.warning("capture.unread device=%s reason=%s", self.name, reason)

    def _paper(self, conn: sqlite3.Connection, text: str, *, banner: bool, at: int) -> None:
        if self._printer is not None:
            head = f"{BANNER}\n" if banner else "\n"
            print_jobs.enqueue_note(conn, self._printer, head + text, at=at)

    async def _sell_waiting(self) -> bool:
        """Sell what is read and waits, oldest first; False when one must wait longer."""
        waiting = await self._db.read(lambda conn: captures.in_state(conn, "WAITING", self.name))
        for captured in waiting:
            reading = self.template.read(captured.text.split("\n"))
            if reading.invoice is None:
                # The patterns were changed meanwhile.
                await self._unread(captured, "; ".join(reading.problems) or "no sale any more")
                continue
            try:
                reply = await self._sell(captured, reading)
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError):
                return False
            if reply.status == 201:
                await self._sold(captured, reply)
            elif self._may_wait(captured, reply):
                return False
            else:
                code = (reply.body or {}).get("code", reply.status)
                detail = (reply.body or {}).get("detail", "")
                await self._unread(captured, f"{code}: {detail}")
        return True

    def _may_wait(self, captured: Captured, reply: Reply) -> bool:
        """Tried again soon. A sale that is not signed for minutes is not signed behind the till's back."""
        body = reply.body if isinstance(reply.body, dict) else {}
        if reply.status < 500 and reply.status not in (202, 429):
            return False
        if body.get("signed") != "no":
            return True
        age_s = (micros(self._clock.now()) - captured.at) / 1e6
        return body.get("code") not in NOT_NOW and age_s < PATIENCE_S

    async def _sell(self, captured: Captured, reading: SlipReading) -> Reply:
        # The same slip printed again is the same sale, whatever the till thinks it did.
        digest = hashlib.sha256(captured.text.encode()).hexdigest()[:24]
        key = f"capture:{reading.receipt_no}:{digest}"[:200]
        body = json.dumps(dict(reading.invoice or {})).encode()
        return await self._api.request("POST", "/v1/invoices", key=key, body=body)

    async def _sold(self, captured: Captured, reply: Reply) -> None:
        at = micros(self._clock.now())
        invoice_id = reply.body["invoiceId"]
        if reply.replayed:
            # The till printed it again, and gets a copy as from any printer (TIS 6.17).
            await self._api.request("POST", f"/v1/invoices/{invoice_id}/copies")
        await self._db.write(
            lambda conn: captures.settle(conn, captured.id, "SIGNED", invoice_id=invoice_id, at=at)
        )

    async def _unread(self, captured: Captured, reason: str) -> None:
        at = micros(self._clock.now())

        def refuse(conn: sqlite3.Connection) -> None:
            captures.settle(conn, captured.id, "UNREAD", reason=reason, at=at)
            self._paper(conn, captured.text, banner=True, at=at)
            data = {"capture": captured.id, "device": self.name, "reason": reason}
            events.record(conn, at=at, kind="capture.unread", till_id=self.till_id, data=data)

        await self._db.write(refuse)
        self._wake()
        log.warning("capture.unread device=%s reason=%s", self.name, reason)
