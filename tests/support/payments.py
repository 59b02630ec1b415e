"""A desk for payments over a real store, with a scripted wire and a clock that the test drives."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import ids
from gateway.domain.payment import Money
from gateway.mpesa_settings import MpesaSettings
from gateway.payments.checks import Checks
from gateway.payments.desk import Ask, PaymentDesk
from gateway.payments.ledger import Ledger
from gateway.payments.push import Pusher
from gateway.payments.questions import Questions
from gateway.payments.refunds import Refunds
from gateway.store import events, payments
from gateway.store.database import Database, open_database
from gateway.store.events import Event
from gateway.store.payments import PaymentRow, Word
from tests.support.clock import FakeClock, settle
from tests.support.daraja import ScriptedDaraja

PHONE = "254712345678"
_keys = itertools.count(1)


def mpesa(**changes: Any) -> MpesaSettings:
    """A paybill in the sandbox."""
    values: dict[str, Any] = {
        "environment": "sandbox",
        "shortcode": "174379",
        "callback_url": "https://relay.test/shop-1",
    }
    return MpesaSettings(**{**values, **changes})


def an_ask(**changes: Any) -> Ask:
    number = next(_keys)
    values: dict[str, Any] = {
        "till_id": "till-1",
        "key": f"pay-{number}",
        "sale_ref": f"POS-{number:06d}",
        "amount_cents": 45_000,
        "phone": PHONE,
    }
    values |= changes
    values.setdefault("body_digest", ids.digest({k: v for k, v in values.items() if k != "key"}))
    return Ask(**values)


@dataclass
class Bench:
    """One run of the payments' parts; `tasks` are their loops."""

    db: Database
    clock: FakeClock
    wire: ScriptedDaraja
    settings: MpesaSettings
    ledger: Ledger
    pusher: Pusher
    checks: Checks
    refunds: Refunds
    questions: Questions
    desk: PaymentDesk
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    told: list[PaymentRow] = field(default_factory=list)

    def start(self, *loops: Callable[[], Awaitable[None]]) -> None:
        for loop in loops or (self.pusher.run,):
            task: asyncio.Task[None] = asyncio.ensure_future(loop())  # type: ignore[arg-type]
            # The pushes' loop is the one that waits for a call, not for the clock.
            task.set_name("pushes" if loop == self.pusher.run else "loop")
            self.tasks.append(task)

    async def kill(self) -> None:
        """The loops end where they are."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()

    async def row(self, payment_id: str) -> PaymentRow:
        found = await self.db.read(lambda conn: payments.by_id(conn, payment_id))
        assert found is not None
        return found

    async def words(self, payment_id: str) -> list[Word]:
        return await self.db.read(lambda conn: payments.words(conn, payment_id))

    async def events(self, kind: str) -> list[Event]:
        return await self.db.read(lambda conn: events.of_kind(conn, kind))

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str = "") -> None:
        """Waits, in real time, for something that happens without the clock's help."""
        async with asyncio.timeout(30):
            while not await condition():
                await asyncio.sleep(0.001)

    async def pass_s(self, seconds: float) -> None:
        """Time goes by from one sleeper's end to the next, and not before the last one is done: what a loop
        does is done at its time, however slow the store is."""
        end = self.clock.boottime_ns() + int(seconds * 1e9)
        while (left := (end - self.clock.boottime_ns()) / 1e9) > 0:
            # A microsecond is the least that the clock can be moved by.
            await self.clock.advance(seconds=min(left, max(self.clock.next_s(), 1e-6), 1.0))
            await self.quiet()

    async def quiet(self) -> None:
        """Until the store has nothing to do and no loop has anything to say. However much there is to do: what
        is given up is a bench where nothing is written and nobody comes to rest."""
        loops = sum(task.get_name() != "pushes" for task in self.tasks)
        still, before = 0, -1
        async with asyncio.timeout(30) as limit:
            while still < 3:
                await self.db.write_soft(lambda conn: None)
                await settle()
                parked = self.clock.sleeping >= loops and self.checks.in_hand == 0
                same = self.db.durable_commits == before
                if not same:
                    limit.reschedule(asyncio.get_running_loop().time() + 30)
                still = still + 1 if parked and same else 0
                before = self.db.durable_commits

    async def until_money(self, payment_id: str, *states: Money) -> PaymentRow:
        async def reached() -> bool:
            return (await self.row(payment_id)).money in states

        await self.until(reached)
        return await self.row(payment_id)

    async def pushed(self, **changes: Any) -> PaymentRow:
        """A push that M-Pesa has taken."""
        row = await self.desk.ask(an_ask(**changes))
        return await self.until_money(row.id, Money.WAITING)


@asynccontextmanager
async def open_bench(
    directory: Path,
    clock: FakeClock | None = None,
    gate: Callable[[], None] = lambda: None,
    **changes: Any,
) -> AsyncIterator[Bench]:
    clock = clock or FakeClock()
    settings = mpesa(**changes)
    wire = ScriptedDaraja(clock.boottime_ns)
    async with open_database(directory) as db:
        ledger = Ledger(db, clock)
        pusher = Pusher(
            db=db, clock=clock, ledger=ledger, daraja=wire, callback_url=settings.callback_url or ""
        )
        checks = Checks(
            db=db, clock=clock, ledger=ledger, daraja=wire, every_s=settings.query_every_s,
            deadline_s=settings.deadline_s, jitter=lambda: 1.0,
        )  # fmt: skip
        pusher.on_sent = checks.sent
        url = settings.callback_url or ""
        refunds = Refunds(db=db, clock=clock, ledger=ledger, daraja=wire, callback_url=url)
        questions = Questions(
            db=db, clock=clock, ledger=ledger, refunds=refunds, daraja=wire, callback_url=url,
            shortcodes=frozenset({"174379"}),
        )  # fmt: skip
        desk = PaymentDesk(
            db=db, clock=clock, ledger=ledger, settings=settings, gate=gate, pusher=pusher,
            checks=checks, refunds=refunds, questions=questions,
        )  # fmt: skip
        bench = Bench(db, clock, wire, settings, ledger, pusher, checks, refunds, questions, desk)
        ledger.after_change.append(bench.told.append)
        try:
            yield bench
        finally:
            await bench.kill()
