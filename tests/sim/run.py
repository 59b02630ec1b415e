"""One simulated day of a shop: tills, retries, crashes, and at its end the invariants.

python -m tests.sim.run --seeds 1000        # or one seed with its trace: --seed 7 --trace
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from gateway.store import invoices, receipts
from tests.sim.gateway import RealGateway
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, VirtualLoop, World

# Virtual seconds: by then every till must have its answer, with faults off for the second half.
DAY_S = 4 * 3600.0
STORM_S = 1800.0


class System(Protocol):
    """What stands between tills and unit: the gateway, or a wrong one made to be found out."""

    ready: bool

    async def run(self) -> None: ...
    async def submit(
        self, till: str, key: str, *, refused: bool, keyless: bool
    ) -> tuple[int, bytes]: ...
    async def person(self) -> None: ...


Make = Callable[[Life, Disk, SimUnit], System]


@dataclass(slots=True)
class Sale:
    till: str
    key: str
    refused: bool
    # Its till sends no key; `key` is its receipt number only.
    keyless: bool
    heard: list[tuple[int, bytes]] = field(default_factory=list)
    final: tuple[int, bytes] | None = None


@dataclass(slots=True)
class Shop:
    """The state of one run."""

    world: World
    disk: Disk
    unit: SimUnit
    make: Make
    crashes: list[int]
    sales: list[Sale] = field(default_factory=list)
    life: Life | None = None
    system: System | None = None
    lives: int = 0

    async def power(self) -> None:
        """The machine: starts the process, and again whenever it has died."""
        world = self.world
        while True:
            self.lives += 1
            world.dies_at = self.crashes.pop(0) if self.crashes and not world.quiet else None
            life = self.life = Life(world, self.lives)
            world.trace(f"life {life.number} starts, dies at {world.dies_at}")
            try:
                self.system = self.make(life, self.disk, self.unit)
                process = asyncio.ensure_future(self.system.run())
                dead = asyncio.ensure_future(life.ended.wait())
                await asyncio.wait({process, dead}, return_when=asyncio.FIRST_COMPLETED)
                if process.done() and not dead.done():
                    world.trace(f"life {life.number} ends by itself: {process.exception()!r}")
                    life.alive = False
            finally:
                self.system = None
            self.disk.crash(power=world.chance.random() < 0.5)
            await asyncio.sleep(world.chance.choice((0.5, 5, 60)))

    async def till(self, name: str, sales: list[Sale]) -> None:
        for sale in sales:
            while sale.final is None:
                said = await self.request(sale)
                if said is not None:
                    sale.heard.append(said)
                    if said[0] in (201, 409, 422):
                        sale.final = said
                        break
                await asyncio.sleep(self.world.chance.choice((0.01, 0.5, 2, 10)))

    async def request(self, sale: Sale) -> tuple[int, bytes] | None:
        """One HTTP exchange over a LAN that loses requests and answers, and doubles some."""
        world, life, system = self.world, self.life, self.system
        await asyncio.sleep(world.delay())
        if system is None or life is None or not life.alive or not system.ready:
            return None
        if world.happens(0.05):
            return None
        copies = 2 if world.happens(0.15) else 1
        asked = [
            asyncio.ensure_future(
                system.submit(sale.till, sale.key, refused=sale.refused, keyless=sale.keyless)
            )
            for _ in range(copies)
        ]
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
        code = json.loads(said[1]).get("code", "") if said[0] >= 400 else ""
        world.trace(f"{sale.key} hears {said[0]} {code}")
        return None if world.happens(0.1) else said

    async def clock(self) -> None:
        """Hands and NTP on the machine's clock."""
        while True:
            await asyncio.sleep(self.world.chance.uniform(60, 1200))
            if self.world.happens(0.3):
                step = self.world.chance.choice((-3600, -120, -1, 1, 120, 3600, 86_400))
                self.world.skew += timedelta(seconds=step)
                self.world.trace(f"clock steps {step}")

    async def person(self) -> None:
        """A technician who comes by now and then."""
        while True:
            await asyncio.sleep(self.world.chance.uniform(30, 600))
            system, life = self.system, self.life
            if system is not None and life is not None and life.alive and system.ready:
                await asyncio.wait({asyncio.ensure_future(system.person())}, timeout=60)

    async def run(self) -> None:
        world = self.world
        chance = world.chance
        tills = []
        for number in range(chance.randint(1, 4)):
            name = f"till-{number}"
            mine = [
                Sale(name, f"{name}-{n}", chance.random() < 0.05, chance.random() < 0.2)
                for n in range(chance.randint(1, 6))
            ]
            self.sales += mine
            tills.append(asyncio.ensure_future(self.till(name, mine)))
        others = [asyncio.ensure_future(work()) for work in (self.power, self.clock, self.person)]
        await asyncio.wait(tills, timeout=STORM_S)
        # The weather clears: no new faults, the clock is set right, and one last restart.
        world.quiet = True
        world.skew = timedelta()
        world.trace("quiet")
        if self.life is not None and self.life.alive:
            self.life.die()
        done, pending = await asyncio.wait(tills, timeout=DAY_S)
        for task in done:
            task.result()
        if pending:
            open_ = [sale.key for sale in self.sales if sale.final is None]
            world.problems.append(f"no end for {open_}")
        else:
            await self.replays()
        for task in others:
            if task.done():
                task.result()
        self.check()

    async def replays(self) -> None:
        for sale in self.sales:
            again = None
            while again is None:
                again = await self.request(sale)
                await asyncio.sleep(1)
            if sale.keyless and sale.final and sale.final[0] != 422:
                # Asked again it is a likely repeat of the one receipt.
                ids = {json.loads(body)["invoiceId"] for _, body in (again, sale.final)}
                if again[0] != 409 or len(ids) != 1:
                    self.world.problems.append(f"{sale.key} without a key: {again}")
            elif again != sale.final:
                self.world.problems.append(f"{sale.key} was told {sale.final}, and now {again}")

    def check(self) -> None:
        """The invariants, from the unit's journal, what tills heard, and the store's own rows."""
        problems = self.world.problems
        journal = self.unit.journal
        keys = [entry["trdInvcNo"] for entry in journal]
        problems += [
            f"{key} has {keys.count(key)} receipts" for key in set(keys) if keys.count(key) > 1
        ]
        numbers = [entry["invcNo"] for entry in journal]
        if numbers != sorted(set(numbers)):
            problems.append(f"invcNo does not rise strictly: {numbers}")
        by_key = {entry["trdInvcNo"]: entry for entry in journal}
        for sale in self.sales:
            told = {body for status, body in sale.heard if status == 201}
            if len(told) > 1:
                problems.append(f"{sale.key} was told {len(told)} different answers")
            for body in told:
                entry = by_key.get(sale.key)
                if entry is None or json.loads(body)["rcptSign"] != entry["rcptSign"]:
                    problems.append(f"{sale.key} was told a receipt the unit does not have")
            if sale.final and sale.final[0] == 409 and sale.key not in by_key:
                problems.append(f"{sale.key} was called a repeat, and is not signed")
            if sale.final and sale.final[0] == 422 and sale.key in by_key:
                problems.append(f"{sale.key} was refused, and is signed")
            if any(status >= 500 and status != 503 for status, _ in sale.heard):
                problems.append(f"{sale.key} heard a 5xx")
        problems += self.stored(by_key)

    def stored(self, by_key: dict[str, Any]) -> list[str]:
        """The store against the unit: agreed, or IN_DOUBT with a reason."""
        writer = self.disk._writer
        if writer is None or not isinstance(self.system, RealGateway):
            return []
        conn = writer._conn
        problems = []
        rows = conn.execute("SELECT id FROM invoice ORDER BY seq").fetchall()
        previous = receipts.GENESIS
        for (row_id,) in rows:
            row = invoices.by_id(conn, row_id)
            assert row is not None
            entry = by_key.pop(row.till_receipt_no, None)
            receipt = receipts.by_invoice(conn, row_id)
            if row.state == "SIGNED":
                if entry is None or receipt is None or receipt.rcpt_sign != entry["rcptSign"]:
                    problems.append(f"{row.till_receipt_no} is SIGNED here, not in the unit")
            elif entry is not None and row.state != "IN_DOUBT":
                problems.append(f"{row.till_receipt_no} is signed in the unit, {row.state} here")
            if (
                row.state == "IN_DOUBT"
                and not conn.execute(
                    "SELECT 1 FROM event WHERE subject = ? AND kind = 'invoice.in_doubt'", (row_id,)
                ).fetchone()
            ):
                problems.append(f"{row.till_receipt_no} is IN_DOUBT without a reason")
        problems += [f"{key} is in the unit and not here" for key in by_key]
        for link in reversed(receipts.recent(conn, 10_000)):
            if link.previous != previous:
                problems.append(f"the chain breaks at {link.seq}")
            fields = receipts.chained_fields(
                link.invoice_id, link.receipt, link.total_cents, link.how, link.signed_at
            )
            previous = receipts.chain(link.previous, fields)
            if previous != link.hash:
                problems.append(f"the chain's hash is wrong at {link.seq}")
        return problems


@dataclass(frozen=True, slots=True)
class Outcome:
    seed: int
    problems: list[str]
    trace: list[str]
    receipts: int
    lives: int


def simulate(seed: int, make: Make = RealGateway, crashes: list[int] | None = None) -> Outcome:
    """One run. `crashes`: after how many steps each life dies; else the seed decides."""
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None, prefix="sim-"))
    random.seed(seed)  # what the gateway itself leaves to chance (jitter)
    loop = VirtualLoop()
    loop.set_exception_handler(lambda *_: None)
    found: list[Any] = []

    async def main() -> None:
        world = World(seed, directory)
        chance = world.chance
        disk, unit = Disk(world), SimUnit(world)
        deaths = crashes
        if deaths is None:
            deaths = [chance.randint(1, 400) for _ in range(chance.randint(0, 6))]
        shop = Shop(world, disk, unit, make, deaths)
        found.append(shop)
        await shop.run()

    try:
        loop.run_until_complete(main())
    except Exception as error:  # a seed that cannot be finished is a finding, too
        found[0].world.problems.append(f"the run broke: {error!r}")
    finally:
        shop = found[0]
        shop.disk.close()
        _abandon(loop)
        shutil.rmtree(directory, ignore_errors=True)
    return Outcome(seed, shop.world.problems, shop.world.lines, len(shop.unit.journal), shop.lives)


def _abandon(loop: asyncio.AbstractEventLoop) -> None:
    """Dead processes never ran their clean-up; neither do their remains."""
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        # Once for the work, once for each clean-up that would wait.
        for _ in range(4):
            with contextlib.suppress(RuntimeError, Exception):
                task.get_coro().close()  # type: ignore[union-attr]
    loop.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.run")
    parser.add_argument("--seeds", type=int, default=1000, help="how many, from --seed on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--payments", action="store_true", help="the shop that is paid by M-Pesa")
    parser.add_argument("--trace", action="store_true", help="one seed, with what happened")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    play: Callable[[int], Outcome] = simulate
    if options.payments:
        if "PYTHONHASHSEED" not in os.environ:
            # The order of sets is a part of what a seed replays.
            os.environ["PYTHONHASHSEED"] = "0"
            os.execv(sys.executable, [sys.executable, "-m", "tests.sim.run", *sys.argv[1:]])
        # Imports this module for what both shops have in common.
        from tests.sim import paying

        play = paying.simulate
    if options.trace:
        outcome = play(options.seed)
        print("\n".join([*outcome.trace, *(f"PROBLEM {p}" for p in outcome.problems)]))
        return 1 if outcome.problems else 0
    begun = time.perf_counter()
    failed = signed = lives = 0
    for seed in range(options.seed, options.seed + options.seeds):
        outcome = play(seed)
        signed += outcome.receipts
        lives += outcome.lives
        if outcome.problems:
            failed += 1
            print(f"seed {seed}: {outcome.problems[:3]}")
    seconds = time.perf_counter() - begun
    print(
        f"{options.seeds} seeds, {signed} {'payments' if options.payments else 'receipts'}, {lives} lives, {failed} failed, {seconds:.0f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
