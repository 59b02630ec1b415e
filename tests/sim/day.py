"""What every simulated day is made of: a machine that dies and starts again, a LAN that loses requests and
answers, a clock that is set, a storm and then quiet. The shops are in `selling.py` and `paying.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from unittest import mock

from gateway.daemon import _is_whole
from gateway.errors import StoreCorrupt, StoreError
from gateway.store import migrate
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, VirtualLoop, World


class System(Protocol):
    """What stands between tills and unit: the gateway, or a wrong one made to be found out."""

    ready: bool

    async def run(self) -> None: ...
    async def person(self) -> None: ...


@runtime_checkable
class Durable(System, Protocol):
    """A system whose store has our own tables."""

    db: Any
    signer: Any


@dataclass(slots=True)
class Asked:
    """One key of one till, and what its till was told about it."""

    till: str
    key: str
    heard: list[tuple[int, bytes]] = field(default_factory=list)
    final: tuple[int, bytes] | None = None
    tries: int = 0
    # Requests with this key that have no end yet, and the process that has them.
    under_way: int = 0
    asked: Life | None = None
    # Told "not signed", and not asked for since.
    unsigned: bool = False
    # An older copy of the store does not know it any more; its till was told not to repeat it.
    forgotten: bool = False


@dataclass(slots=True)
class Day:
    """The state of one run."""

    world: World
    disk: Disk
    unit: SimUnit
    crashes: list[int]
    life: Life | None = None
    system: Any = None
    lives: int = 0
    # How many lives may also die when something rare is going on.
    aims: int = 0
    others: list[asyncio.Task[None]] = field(default_factory=list)
    tills: list[asyncio.Task[None]] = field(default_factory=list)
    # Why the shop's store is not used any more, and the day is over.
    refused: str | None = None

    # What a shop does: the tills' work, what else goes on, and what must be true at the end.

    def start(self, life: Life) -> System:
        raise NotImplementedError

    def counted(self) -> int:
        """What the day is counted by."""
        return len(self.unit.journal)

    async def run(self) -> None:
        raise NotImplementedError

    def put_back(self) -> None:
        """The store is an older copy of itself now."""

    # --- the machine ------------------------------------------------------------------------------------

    async def power(self) -> None:
        """Starts the process, and again whenever it has died."""
        world = self.world
        while True:
            self.lives += 1
            world.dies_at = self.crashes.pop(0) if self.crashes and not world.quiet else None
            life = self.life = Life(world, self.lives)
            world.trace(f"life {life.number} starts, dies at {world.dies_at}")
            try:
                try:
                    self.system = self.start(life)
                except StoreError as error:
                    world.trace(f"life {life.number} does not start: {error!r}")
                    life.alive = False
                    self.disk.close()
                    if isinstance(error, StoreCorrupt) and self.refuses(error):
                        return
                    await asyncio.sleep(60)
                    continue
                process = asyncio.ensure_future(self.system.run())
                dead = asyncio.ensure_future(life.ended.wait())
                await asyncio.wait({process, dead}, return_when=asyncio.FIRST_COMPLETED)
                if process.done() and not dead.done():
                    error = process.exception()
                    world.trace(f"life {life.number} ends by itself: {error!r}")
                    if not self.is_the_stores(error):
                        world.problems.append(f"a part died: {error!r}")
                    life.alive = False
            finally:
                self.system = None
            self.disk.crash(power=world.chance.random() < 0.5)
            if self.disk.lost_something() or self.disk.puts_back():
                self.put_back()
            await asyncio.sleep(world.chance.choice((0.5, 5, 60)))

    def is_the_stores(self, error: BaseException | None) -> bool:
        """A store that fails ends the process; that is what it is meant to do."""
        faulty = self.disk.faults is not None and (
            "The store" in str(error) or "The disk" in str(error)
        )
        return isinstance(error, StoreError) or faulty

    def refuses(self, error: StoreCorrupt) -> bool:
        """Whether the day ends because the store is damaged and says so. A store that is whole is started again."""
        if self.disk.rot is None:
            self.world.problems.append(f"a whole store is refused: {error}")
        if _is_whole(self.disk.directory):
            return False
        self.refused = str(error)
        for till in self.tills:
            till.cancel()
        return True

    def dies_soon(self) -> None:
        """In the midst of what is done next, if this life was not to die before."""
        if self.aims and self.life is not None and self.answers:
            self.aims -= 1
            step = self.life.steps + self.world.chance.randint(1, 16)
            self.world.dies_at = min(step, self.world.dies_at or step)

    async def clock(self) -> None:
        """Hands and NTP on the machine's clock."""
        while True:
            await asyncio.sleep(self.world.chance.uniform(60, 1200))
            if self.world.happens(0.3):
                step = self.world.chance.choice((-3600, -120, -1, 1, 120, 3600, 86_400))
                self.world.set_clock(step)

    async def person(self) -> None:
        """A technician who comes by now and then, for what only a person can decide."""
        while True:
            await asyncio.sleep(self.world.chance.uniform(20, 300))
            if self.answers:
                await asyncio.wait({asyncio.ensure_future(self.system.person())}, timeout=60)

    @property
    def answers(self) -> bool:
        """Whether somebody listens."""
        system, life = self.system, self.life
        return system is not None and life is not None and life.alive and bool(system.ready)

    # --- the LAN ----------------------------------------------------------------------------------------

    async def exchange(self, ask: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """One HTTP exchange over a LAN that loses requests and answers, and doubles some; None: no answer."""
        world = self.world
        await asyncio.sleep(world.delay())
        if not self.answers or world.happens(0.05):
            return None
        life = self.life
        assert life is not None
        copies = 2 if world.happens(0.15) else 1
        asked = [asyncio.ensure_future(ask(self.system)) for _ in range(copies)]
        patience = world.chance.choice((0.02, 1.0, 10.0, 40.0)) if not world.quiet else 60.0
        dead = asyncio.ensure_future(life.ended.wait())
        await asyncio.wait({asked[-1], dead}, timeout=patience, return_when="FIRST_COMPLETED")
        dead.cancel()
        if not asked[-1].done() or not life.alive:
            if life.alive and world.chance.random() < 0.5:
                asked[-1].cancel()  # the till hangs up
            return None
        try:
            said = asked[-1].result()
        except Exception as error:
            world.problems.append(f"a request ended in {error!r}")
            return None
        return None if world.happens(0.1) else said

    async def until(self, ask: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """The same request again until there is an answer."""
        tries = 0
        while (said := await self.exchange(ask)) is None:
            tries += 1
            await asyncio.sleep(self.pause(tries))
        return said

    def pause(self, tries: int) -> float:
        """Seconds until a till asks again: soon at first, then less and less often."""
        soon = self.world.chance.choice((0.01, 0.5, 2, 10))
        return soon if tries < 5 else min(60.0, soon + 2.0 * tries)

    async def told(self, item: Asked, ask: Callable[[Any], Coroutine[Any, Any, Any]]) -> Any:
        """One exchange about `item`: (status, body) or None. "Not signed" has to be true, and to stay it."""
        world = self.world
        if item.unsigned and self.unit.has(item.key):
            world.problems.append(f"{item.key} was told that it is not signed, and then was")
        item.unsigned = False
        item.tries += 1

        async def counted(system: Any) -> Any:
            life = self.life
            if item.asked is not life:
                item.asked, item.under_way = life, 0
            item.under_way += 1
            try:
                return await ask(system)
            finally:
                item.under_way -= int(item.asked is life)

        async def answered(system: Any) -> Any:
            said = await counted(system)
            # Checked when the answer leaves, whether or not it arrives.
            self.is_durable(item, said)
            return said

        before = self.unit.has(item.key)
        said = await self.exchange(answered)
        if said is None:
            return None
        status, body = said
        value = json.loads(body)
        world.trace(f"{item.key} hears {status} {value.get('code', '')}")
        item.heard.append(said)
        if status >= 500 and status != 503:
            world.problems.append(f"{item.key} heard {status}")
        if value.get("signed") == "no":
            if before:
                world.problems.append(f"{item.key} is signed, and hears that it is not")
            item.unsigned = item.under_way == 0
        return said

    def is_durable(self, item: Asked, said: Any) -> None:
        """A final answer is on the disk when it is given: a power cut at this moment must not take it back."""
        if said is None or not isinstance(self.system, Durable):
            return
        final = said[0] == 201 or (said[0] == 422 and b'"UNIT_REFUSED"' in said[1])
        if final and item.key not in self.disk.durable:
            self.world.problems.append(f"{item.key} is answered before that is on the disk")

    # --- the day ----------------------------------------------------------------------------------------

    async def storm(
        self, tills: list[asyncio.Task[None]], others: list[Any], storm_s: float, day_s: float
    ) -> list[asyncio.Task[None]]:
        """Everything at once; then no new fault, the clock set right, and one last restart. Those of
        `tills` that have no end by then."""
        works = (self.power, self.clock, self.person, *others)
        self.others = [asyncio.ensure_future(work()) for work in works]
        self.tills = tills
        await asyncio.wait(tills, timeout=storm_s)
        self.world.weather_clears()
        if self.life is not None and self.life.alive:
            self.life.die()
        done, pending = await asyncio.wait(tills, timeout=day_s)
        for task in done:
            if not task.cancelled():
                task.result()
        return list(pending)

    def over(self) -> None:
        """Nothing of what went on all day has broken."""
        for task in self.others:
            if task.done():
                task.result()


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    problems: list[str]
    trace: list[str]
    receipts: int
    lives: int


# The migrations' files are read once, not by each life.
_MIGRATIONS = mock.patch.object(migrate, "migrations", cache(migrate.migrations))
# A day's own parts for this world; the list is after how many steps each life dies.
Prepare = Callable[[World, Disk, SimUnit, list[int]], Day]


def simulate(seed: int, prepare: Prepare, crashes: list[int] | None = None) -> Outcome:
    """One run. `crashes`: after how many steps each life dies; else the seed decides."""
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None, prefix="sim-"))
    random.seed(seed)  # what the gateway itself leaves to chance (jitter)
    made = random.Random(seed)
    # Ids and tokens decide in which order sets and indexes give their rows: they belong to the seed, too.
    entropy = mock.patch.multiple("os", urandom=made.randbytes)
    tokens = mock.patch.object(secrets, "token_urlsafe", lambda n=24: made.randbytes(n).hex())
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)
    # The tasks of a dead process wait for ever and belong to nobody: collected at some moment of Python's
    # choice, their clean-up would run in the middle of another life.
    waiting: set[asyncio.Task[Any]] = set()

    def keep(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **more)
        waiting.add(task)
        task.add_done_callback(waiting.discard)
        return task

    loop.set_task_factory(keep)
    found: list[Day] = []

    async def main() -> None:
        world = World(seed, directory)
        chance = world.chance
        disk, unit = Disk(world), SimUnit(world)
        deaths = crashes
        if deaths is None:
            deaths = [chance.randint(1, 400) for _ in range(chance.randint(0, 6))]
        day = prepare(world, disk, unit, list(deaths))
        day.aims = 2 if crashes is None else 0
        found.append(day)
        await day.run()

    try:
        with entropy, tokens, _MIGRATIONS:
            loop.run_until_complete(main())
    except Exception as error:  # a seed that cannot be finished is a finding, too
        found[0].world.problems.append(f"the run broke: {error!r}")
    finally:
        day = found[0]
        day.disk.close()
        _abandon(loop)
        shutil.rmtree(directory, ignore_errors=True)
    return Outcome(seed, day.world.problems, day.world.lines, day.counted(), day.lives)


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """Dead processes never ran their clean-up; neither do their remains."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        # Once for the work, once for each clean-up that would wait.
        for _ in range(4):
            with contextlib.suppress(RuntimeError, Exception):
                task.get_coro().close()  # type: ignore[union-attr]
    loop.close()
