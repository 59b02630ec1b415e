"""The access token: one for everybody, renewed early, dropped once, never fetched in turns."""

from __future__ import annotations

import asyncio

import pytest

from gateway.domain.payment import Reason
from gateway.domain.payment_wire import Refused
from gateway.mpesa.token import Fetched, TokenSource, life_of
from tests.support.clock import FakeClock

NO = Refused(Reason.NOT_SENT, "503", "not now", b"")


class Issuer:
    """Gives tokens t1, t2, ...; each waits until it is let go, and may be a refusal."""

    def __init__(self, life_s: float = 3599) -> None:
        self.life_s = life_s
        self.count = 0
        self.refuse = False
        self.free = asyncio.Event()
        self.free.set()

    async def __call__(self) -> Fetched | Refused:
        self.count += 1
        mine = f"t{self.count}"
        await self.free.wait()
        return NO if self.refuse else Fetched(mine, self.life_s)


async def test_twenty_at_once_share_one_fetch_and_its_refusal() -> None:
    issuer = Issuer()
    source = TokenSource(issuer, FakeClock())
    for refuse, expected in ((True, NO), (False, "t2")):
        issuer.refuse = refuse
        issuer.free.clear()
        waiting = [asyncio.ensure_future(source.get()) for _ in range(20)]
        await asyncio.sleep(0)
        issuer.free.set()
        assert await asyncio.gather(*waiting) == [expected] * 20
    assert issuer.count == 2


async def test_a_waiter_that_gives_up_takes_the_token_from_nobody() -> None:
    issuer = Issuer()
    source = TokenSource(issuer, FakeClock())
    issuer.free.clear()
    first, second = (asyncio.ensure_future(source.get()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first})
    issuer.free.set()
    assert await second == "t1"
    assert issuer.count == 1


async def test_it_is_renewed_a_minute_before_its_end_whatever_the_wall_clock_does() -> None:
    clock, issuer = FakeClock(), Issuer()
    source = TokenSource(issuer, clock)
    assert await source.get() == "t1"
    clock.step_wall(days=-1)
    clock.pass_time(seconds=3538)
    clock.step_wall(days=30)
    assert await source.get() == "t1"
    clock.pass_time(seconds=2)
    assert await source.get() == "t2"


async def test_while_the_renewal_fails_the_old_one_serves_until_its_end() -> None:
    clock, issuer = FakeClock(), Issuer()
    source = TokenSource(issuer, clock)
    await source.get()
    issuer.refuse = True
    clock.pass_time(seconds=3550)
    assert await source.get() == "t1"
    clock.pass_time(seconds=50)
    assert await source.get() == NO


async def test_a_short_life_is_used_for_half_of_it() -> None:
    clock, issuer = FakeClock(), Issuer(life_s=20)
    source = TokenSource(issuer, clock)
    assert await source.get() == "t1"
    clock.pass_time(seconds=9)
    assert await source.get() == "t1"
    clock.pass_time(seconds=2)
    assert await source.get() == "t2"


async def test_a_late_refusal_of_the_old_one_does_not_drop_the_new_one() -> None:
    issuer = Issuer()
    source = TokenSource(issuer, FakeClock())
    assert await source.get() == "t1"
    for _ in range(20):
        source.drop("t1")
        assert await source.get() == "t2"
    assert issuer.count == 2


async def test_closing_answers_those_who_wait() -> None:
    issuer = Issuer()
    source = TokenSource(issuer, FakeClock())
    issuer.free.clear()
    waiting = asyncio.ensure_future(source.get())
    await asyncio.sleep(0)
    await source.close()
    found = await waiting
    assert isinstance(found, Refused)
    assert found.reason is Reason.NOT_SENT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("3599", 3599), ("60", 60), (None, 3600), ("", 3600), ("0", 3600), ("-5", 3600), ("1h", 3600),
     ("9" * 30, 3600), ("999999", 86_400), ("٣", 3600)],
)  # fmt: skip
def test_how_long_it_lives(text: str | None, seconds: float) -> None:
    assert life_of(text) == seconds


def test_it_shows_nowhere() -> None:
    assert "secret" not in repr(Fetched("secret", 1))
