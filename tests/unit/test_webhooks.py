"""A till's webhook over a store and a clock that the test drives: its pauses, its order, and its end."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.clock import micros
from gateway.payments.webhooks import AGAIN_FIRST_S, AGAIN_LAST_S, GIVEN_UP, Webhook
from gateway.store import events, meta
from gateway.store.database import Database, open_database
from tests.support.clock import FakeClock, settle


class Hook:
    """One till's webhook; `status` is what its till says to every try, None: nothing."""

    def __init__(self, db: Database, clock: FakeClock, jitter: float) -> None:
        self.db, self.clock = db, clock
        self.status: int | None = None
        self.tries: list[tuple[int, int]] = []
        self.taken: list[int] = []
        self.webhook = Webhook(
            db=db, clock=clock, till_id="till-1", url="http://till", token="t", post=self.post,
            jitter=lambda: jitter,
        )  # fmt: skip

    async def post(self, url: str, body: bytes, headers: dict[str, str]) -> int | None:
        number = json.loads(body)["id"]
        self.tries.append((self.clock.boottime_ns(), number))
        if self.status == 200:
            self.taken.append(number)
        return self.status

    async def happens(self, kind: str = "payment.changed", till: str = "till-1") -> int:
        at = micros(self.clock.now())
        return await self.db.write(
            lambda conn: events.record(conn, at=at, kind=kind, subject="p", till_id=till)
        )

    async def given_up(self) -> list[events.Event]:
        return await self.db.read(lambda conn: events.of_kind(conn, GIVEN_UP))

    async def next_try(self) -> None:
        """Until it has tried once more, each pause at its own moment of the clock."""
        before = len(self.tries)
        async with asyncio.timeout(20):
            while len(self.tries) == before:
                if self.clock.sleeping:
                    await self.clock.advance(seconds=0.1)
                await settle(1)

    async def quiet(self, taken: list[int]) -> None:
        async with asyncio.timeout(20):
            while self.taken != taken:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(directory: Path, clock: FakeClock, jitter: float = 1.0) -> AsyncIterator[Hook]:
    async with open_database(directory) as db:
        hook = Hook(db, clock, jitter)
        task = asyncio.ensure_future(hook.webhook.run())
        try:
            async with asyncio.timeout(20):
                while await db.read(lambda conn: meta.get(conn, "webhook.till-1")) is None:
                    await asyncio.sleep(0.001)
            yield hook
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 0.5), (1.0, 1.0)])
async def test_pauses_double_up_to_a_minute_and_the_order_stays(
    tmp_path: Path, jitter: float, share: float
) -> None:
    async with running(tmp_path, FakeClock(), jitter) as hook:
        first = await hook.happens()
        await hook.happens(till="till-2")
        second = await hook.happens("checkout.changed")
        while len(hook.tries) < 9:
            await hook.next_try()
        # Nothing of the second before the first is taken.
        assert {number for _, number in hook.tries} == {first}
        gaps = [(b - a) / 1e9 for (a, _), (b, _) in itertools.pairwise(hook.tries)]
        wanted = [min(AGAIN_FIRST_S * 2**n, AGAIN_LAST_S) * share for n in range(len(gaps))]
        assert gaps == pytest.approx(wanted, abs=0.11)
        hook.status = 200
        await hook.next_try()
        await hook.quiet([first, second])
        assert await hook.given_up() == []


async def test_what_is_not_taken_for_a_day_is_skipped_with_an_alarm_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with running(tmp_path, clock) as hook:
        old = [await hook.happens() for _ in range(2)]
        await hook.next_try()
        clock.pass_time(hours=23, minutes=50)
        await hook.next_try()
        assert await hook.given_up() == []
        young = await hook.happens()
        clock.pass_time(minutes=10)
        while len(await hook.given_up()) < 2:
            await hook.next_try()
        alarms = await hook.given_up()
        assert [alarm.data["event"] for alarm in alarms] == old
        assert {(alarm.till_id, alarm.data["kind"]) for alarm in alarms} == {
            ("till-1", "payment.changed")
        }
        hook.status = 200
        await hook.next_try()
        # The alarms themselves are not sent: the till that missed the news would miss them, too.
        await hook.quiet([young])


async def test_news_that_grew_old_while_the_gateway_was_off_is_tried_before_it_is_skipped(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    async with running(tmp_path, clock) as hook:
        missed = await hook.happens()
        await hook.next_try()
    clock.reboot(hours=30)
    async with open_database(tmp_path) as db:
        hook = Hook(db, clock, 1.0)
        hook.status = 200
        task = asyncio.ensure_future(hook.webhook.run())
        await hook.quiet([missed])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await hook.given_up() == []
