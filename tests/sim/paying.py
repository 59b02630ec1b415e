"""One simulated day of a shop that is paid by M-Pesa: tills, customers, Daraja, relay, deaths.

python -m tests.sim.run --payments --seeds 1000        # or one seed with its trace: --seed 7 --trace
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from gateway.domain.invoice import Payment
from gateway.domain.payment import OPEN_PUSH, Act
from gateway.errors import GatewayError
from gateway.ids import token_hash
from tests.sim import day
from tests.sim.daraja import SimDaraja
from tests.sim.day import Day, Outcome
from tests.sim.paying_gateway import PayingGateway
from tests.sim.shillings import check_shillings
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, World

# Virtual seconds: a storm of so long, then quiet for reconciliation and M-Pesa's own list.
STORM_S = 1500.0
TILL_S = 2 * 3600.0
# What every basket comes to (tests/support/invoices.py).
TOTAL = 297
QUIET_S = 3 * 3600.0

MakePaying = Callable[[Life, Disk, SimUnit, SimDaraja], PayingGateway]


@dataclass(slots=True)
class Basket:
    """What one customer buys, and how the till means to be paid."""

    till: str
    ref: str
    phone: str
    how: str  # push, checkout, split, cash later
    patience_s: float
    done: bool = False


@dataclass(slots=True, kw_only=True)
class Counter(Day):
    """The state of one run."""

    daraja: SimDaraja
    make: MakePaying
    baskets: list[Basket] = field(default_factory=list)
    phones: list[str] = field(default_factory=list)

    def start(self, life: Life) -> PayingGateway:
        return self.make(life, self.disk, self.unit, self.daraja)

    def counted(self) -> int:
        return len(self.daraja.journal)

    def row_of(self, token: str) -> tuple[str, tuple[str, str], str] | None:
        """What the store holds of a push with this token; durable, or the process may yet forget it."""
        query = "SELECT id, till_id, sale_ref, money FROM payment WHERE token_hash = ?"
        with self.disk.look() as conn:
            row = conn.execute(query, (token_hash(token),)).fetchone()
        return None if row is None else (row[0], (row[1], row[2]), row[3])

    async def till(self, baskets: list[Basket]) -> None:
        for basket in baskets:
            await self.serve(basket)
            basket.done = True

    async def serve(self, basket: Basket) -> None:
        """Ask for the money, wait for it, sell; or lose patience and take cash, or let the customer go."""
        for attempt in range(1, 4):
            if attempt > 1 and self.world.chance.random() < 0.4:
                basket.phone = self.world.chance.choice(self.phones)  # "Take my husband's phone."
            key = f"{basket.ref}/{attempt}"
            if basket.how == "push":
                done = await self.push_then_sell(basket, key)
            else:
                done = await self.sell_asking(basket, key)
            if done:
                return
            await asyncio.sleep(self.world.chance.choice((1, 30, 70, 130)))
        await self.cash(basket)

    async def push_then_sell(self, basket: Basket, key: str) -> bool:
        world, chance = self.world, self.world.chance
        till, ref = basket.till, basket.ref
        row = await self.until(lambda system: system.push(till, key, ref, TOTAL, basket.phone))
        if isinstance(row, GatewayError):
            world.trace(f"{key} refused {row.code}")
            return False
        end = world.loop.time() + basket.patience_s
        while world.loop.time() < end and row.money in OPEN_PUSH:
            await asyncio.sleep(chance.choice((1, 5, 15)))
            row = await self.until(lambda system: system.look(row.id))
        world.trace(f"{key} is {row.money} {row.tender}")
        if row.money != "PAID" or row.tender != "OPEN":
            return False
        paid = [Payment("06", Decimal(TOTAL), payment_id=row.id)]
        return await self.signed(basket, lambda system: system.sell(till, f"{key}/sale", ref, paid))

    async def sell_asking(self, basket: Basket, key: str) -> bool:
        """A sale with tenders under one key, sent again until it has its end or the till's patience has."""
        world, chance = self.world, self.world.chance
        phones, cash = [(basket.phone, TOTAL)], 0
        if basket.how == "split":
            cash = chance.choice((0, 97))
            other = chance.choice([phone for phone in self.phones if phone != basket.phone])
            phones = [(basket.phone, 100), *([(other, 197)] if not cash else [(other, 100)])]
        end = world.loop.time() + basket.patience_s

        def ask(system: PayingGateway) -> Any:
            return system.sell_asking(basket.till, key, basket.ref, cash, phones)

        while True:
            said = await self.until(ask)
            if not isinstance(said, GatewayError):
                world.trace(f"{key} signed")
                return True
            if said.code != "PAYMENT_WAITING":
                world.trace(f"{key} hears {said.code}")
            if said.code in (
                "PAYMENT_FAILED",
                "PAYMENT_OPEN",
                "PAYMENT_TOO_SOON",
                "PAYMENT_INVALID",
            ):
                if said.extra.get("state") != "COLLECTING":
                    if said.code == "PAYMENT_FAILED" or "checkoutId" not in said.extra:
                        return False
            if said.code == "KEY_REUSED":
                world.problems.append(f"{key} is called another sale")
            if world.loop.time() > end and (checkout := said.extra.get("checkoutId")):
                act = chance.choice((Act.SALE_WITHOUT_IT, Act.GIVEN_UP))
                closed = await self.until(lambda system: system.close(checkout, act))
                world.trace(f"{key} closed {act}: {getattr(closed, 'code', 'yes')}")
                if not isinstance(closed, GatewayError):
                    return False
                end = world.loop.time() + basket.patience_s
            await asyncio.sleep(_pause(said, chance))

    async def signed(self, basket: Basket, ask: Callable[[PayingGateway], Any]) -> bool:
        """The same sale again until it is signed, or surely is not and cannot be."""
        while True:
            said = await self.until(ask)
            code = getattr(said, "code", "signed")
            self.world.trace(f"{basket.ref} hears {code}")
            if not isinstance(said, GatewayError):
                return True
            if code in (
                "PAYMENT_INVALID",
                "PAYMENT_OPEN",
                "PAYMENT_SETTLED",
                "PAYMENT_MAY_BE_SAME",
            ):
                return False
            if code in ("KEY_REUSED", "LIKELY_REPEAT"):
                self.world.problems.append(f"{basket.ref} is called another sale")
                return False
            await asyncio.sleep(_pause(said, self.world.chance))

    async def cash(self, basket: Basket) -> None:
        """Enough of phones. What still rings is told to be settled otherwise."""
        paid = [Payment("01", Decimal(TOTAL))]
        key = f"{basket.ref}/cash"
        for _ in range(60):
            done = await self.signed(
                basket, lambda system: system.sell(basket.till, key, basket.ref, paid)
            )
            if done:
                return
            for row in await self.until(lambda system: system.of_sale(basket.till, basket.ref)):
                if row.tender in ("OPEN", "REVIEW"):
                    await self.until(lambda system: system.settle(row.id, Act.SALE_WITHOUT_IT))
            await asyncio.sleep(self.world.chance.choice((1, 10, 60)))
        self.world.problems.append(f"{basket.ref} could not be sold for cash")

    async def strangers(self) -> None:
        """Customers who pay the shop without being asked; some type what they see on the counter."""
        chance = self.world.chance
        while True:
            await asyncio.sleep(chance.uniform(60, 1500))
            if self.world.happens(0.3):
                reference = chance.choice(("", "SHOP", *(b.ref for b in self.baskets)))
                self.daraja.pay_directly(TOTAL, chance.choice(self.phones), reference)

    async def claimers(self) -> None:
        """Cashiers who give money that came by itself to the customer before them: rightly or not."""
        world, chance = self.world, self.world.chance
        for number in range(1, 40):
            await asyncio.sleep(chance.uniform(10, 150))
            found = await self.until(lambda system: system.loose())
            rows = (
                [r for r in found if r.state.came_cents == TOTAL * 100]
                if isinstance(found, list)
                else []
            )
            if not rows:
                continue
            row, till, ref = chance.choice(rows), f"till-{number % 3}", f"claimed-{number}"
            paid = Payment("06", Decimal(TOTAL), reference=row.receipt)
            if chance.random() < 0.7:
                claimed = await self.until(lambda system: system.claim(row.id, till, ref))
                world.trace(f"{ref} claims {row.receipt}: {getattr(claimed, 'code', 'yes')}")
                if isinstance(claimed, GatewayError):
                    continue
                paid = Payment("06", Decimal(TOTAL), payment_id=row.id)
            basket = Basket(till, ref, "", "claim", 0)
            await self.signed(basket, lambda system: system.sell(till, f"{ref}/1", ref, [paid]))

    async def run(self) -> None:
        world, chance = self.world, self.world.chance
        self.daraja.row_of = self.row_of
        phones = self.phones = [f"2547{n:08d}" for n in chance.sample(range(10**8), 4)]
        tills = []
        for number in range(chance.randint(1, 3)):
            name = f"till-{number}"
            mine = [
                Basket(
                    name, f"{name}-{n}", chance.choice(phones),
                    chance.choice(("push", "checkout", "split")), chance.choice((20, 60, 200, 600)),
                )
                for n in range(chance.randint(1, 4))
            ]  # fmt: skip
            self.baskets += mine
            tills.append(asyncio.ensure_future(self.till(mine)))
        if await self.storm(tills, [self.strangers, self.claimers], STORM_S, TILL_S):
            world.problems.append(f"no end for {[b.ref for b in self.baskets if not b.done]}")
        await asyncio.sleep(QUIET_S / 2)
        # The close of the day, at which M-Pesa's own list is read.
        if self.system is not None and self.system.line.reconciler is not None:
            self.system.line.reconciler.soon()
        await asyncio.sleep(QUIET_S / 2)
        self.over()
        if self.disk._writer is not None:
            world.problems += check_shillings(
                self.disk._writer._conn, self.daraja, self.unit.journal
            )


def _pause(said: GatewayError, chance: random.Random) -> float:
    """Seconds until a till asks again: what it was told, or what it likes."""
    told = chance.choice((0.5, 2, 10))
    return (
        told
        if said.retry_after_s is None or chance.random() < 0.2
        else float(said.retry_after_s) + told
    )


def simulate(
    seed: int, make: MakePaying = PayingGateway, crashes: list[int] | None = None
) -> Outcome:
    """One run. `crashes`: after how many steps each life dies; else the seed decides."""

    def prepare(world: World, disk: Disk, unit: SimUnit, deaths: list[int]) -> Counter:
        return Counter(world, disk, unit, deaths, daraja=SimDaraja(world), make=make)

    return day.simulate(seed, prepare, crashes)
