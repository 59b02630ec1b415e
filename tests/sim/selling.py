"""One simulated day of a shop: tills that sell, desks that take sales back, retries, crashes, and at its end
the invariants (`books.py`)."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.errors import StoreCorrupt
from gateway.store import invoices, verify
from gateway.store.database import FILE_NAME
from tests.sim import borders, day, rot
from tests.sim.books import check_books
from tests.sim.day import Asked, Day, Outcome
from tests.sim.gateway import RealGateway
from tests.sim.notes import Note, check_notes, new_note, rival_of
from tests.sim.sale import Sale
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, World, never

# Virtual seconds: by then every till must have its answer, with faults off for the second half.
DAY_S = 4 * 3600.0
STORM_S = 1800.0
# Answers after which a till does not send a sale again.
ENDS = (201, 409, 422)


class Seller(day.System, Protocol):
    """What tills and desks ask."""

    async def submit(
        self, till: str, key: str, *, refused: bool, keyless: bool, idem_key: str
    ) -> tuple[int, bytes]: ...
    async def credit(
        self, till: str, key: str, invoice_id: str, body: Any
    ) -> tuple[int, bytes]: ...
    @property
    def held(self) -> bool: ...


Make = Callable[[Life, Disk, SimUnit], Seller]


@dataclass(slots=True)
class Shop(Day):
    """The state of one run."""

    make: Make = RealGateway
    sales: list[Sale] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    # Goods come back all the time.
    returns: bool = False

    def start(self, life: Life) -> Seller:
        return self.make(life, self.disk, self.unit)

    # --- tills ------------------------------------------------------------------------------------------

    async def till(self, sales: list[Sale]) -> None:
        for sale in sales:
            while sale.final is None and not sale.forgotten:
                said = await self.sell(sale)
                if said is not None and said[0] in ENDS:
                    sale.final = said
                    break
                await asyncio.sleep(self.pause(sale.tries))

    async def sell(self, sale: Sale) -> tuple[int, bytes] | None:
        said: tuple[int, bytes] | None = await self.told(
            sale,
            lambda system: system.submit(
                sale.till,
                sale.key,
                refused=sale.refused,
                keyless=sale.keyless,
                idem_key=sale.idem_key,
            ),
        )
        sale.learn(said)
        return said

    # --- desks: customers bring goods back --------------------------------------------------------------

    async def desk(self, name: str, count: int) -> None:
        chance = self.world.chance
        for n in range(count):
            await asyncio.sleep(chance.choice((0.02, 0.1, 1, 20, 120, 700)))
            for _ in range(10):
                if any(sale.invoice_id for sale in self.sales):
                    break
                await asyncio.sleep(chance.choice((0.05, 1, 10)))
            note = new_note(chance, name, f"{name}-{n}", self.sales, self.notes)
            self.notes.append(note)
            works = [self.take_back(note)]
            if note.of is not None and chance.random() < 0.5:
                # Another desk, with a key of its own, takes the same sale back at the same time.
                other = rival_of(note)
                self.notes.append(other)
                works.append(self.take_back(other))
            await asyncio.gather(*works)

    async def take_back(self, note: Note) -> None:
        while note.final is None and not note.forgotten:
            said = await self.ask_back(note)
            if said is not None:
                note.look_at(said)
            if note.final is None:
                await asyncio.sleep(self.pause(note.tries))

    async def ask_back(self, note: Note) -> tuple[int, bytes] | None:
        sale_signed = note.of is not None and self.unit.has(note.of.key)
        invoice_id, body = note.next_request(self.world.chance)
        if note.of is not None and self.world.happens(0.4 if self.returns else 0.1):
            # Right then: few credit notes are under way when a life dies somewhere.
            self.dies_soon()
        said: tuple[int, bytes] | None = await self.told(
            note, lambda system: system.credit(note.till, note.key, invoice_id, body)
        )
        refused = said is not None and b'"CREDIT_NOTE_INVALID"' in said[1]
        if refused and sale_signed:
            self.world.problems.append(f"{note.key} hears that its sale was not signed, and it is")
        return said

    async def stubborn(self) -> None:
        """Tills send again what only the lost store knew: first while the store is held as an old copy, and
        then for as long as they like."""
        # Dice of their own: days without such tills stay the days that they were.
        chance = random.Random(self.world.chance.getstate()[1][0])
        while True:
            await asyncio.sleep(chance.choice((0.5, 5, 30, 90)))
            for sale in [each for each in self.sales if each.forgotten and each.tries]:
                held = self.system is not None and self.system.held
                # What a lying disk lost is known to the witness, whenever it comes.
                known = held or sale.noted or self.disk.lied
                if sale.final or not known or chance.random() < 0.5:
                    continue
                said = await self.sell(sale)
                if said is not None and said[0] in ENDS:
                    sale.final = said
                elif said is not None and b'"UNIT_AHEAD"' in said[1]:
                    sale.noted = True

    async def beside(self) -> None:
        """Something else signs with the shop's unit: under the number of the sale that is open, or the next."""
        chance = random.Random(f"beside {self.world.seed}")
        for _ in range(self.unit.habits.beside):
            while True:
                await asyncio.sleep(chance.choice((0.01, 0.3, 20, 200)))
                if self.unit.ours and not self.world.quiet:
                    break
            try:
                with self.disk.look() as conn:
                    row = invoices.open_row(conn)
            except (sqlite3.DatabaseError, StoreCorrupt):
                # Only where the disk has changed pages.
                assert self.disk.rot is not None
                row = None
            if row is not None and row.unit_request is not None and row.invc_no is not None:
                number, like = row.invc_no, json.loads(row.unit_request)
            else:
                number = max(e["invcNo"] for e in self.unit.journal) + chance.choice((1, 2))
                like = self.unit.ours[-1]
            if self.unit.entry(number) is None:
                self.unit.sign_beside(number, like)
        await never()

    def put_back(self) -> None:
        """What was begun since the copy was taken is repeated only while the store is held (docs: When the
        store is an old copy)."""
        items: list[Asked] = [*self.sales, *self.notes]
        try:
            with self.disk.look() as conn:
                rows = conn.execute(
                    "SELECT till_receipt_no, idem_key, state FROM invoice"
                ).fetchall()
        except sqlite3.DatabaseError:
            assert self.disk.rot is not None
            rows = []
        ended = {number for number, _, state in rows if state in ("SIGNED", "REJECTED")}
        keys = {key for _, key, state in rows if state in ("SIGNED", "REJECTED")}
        for item in items:
            # A till that makes new keys repeats its newest one, which has a row of its own.
            lost_key = isinstance(item, Sale) and item.new_keys and item.idem_key not in keys
            if item.tries and (item.key not in ended or lost_key):
                item.forgotten = True
        for note in self.notes:
            if note.forgotten and note.tries and note.of is not None:
                note.of.closed = True
        for sale in self.sales:
            sale.noted = False
            sale.closed = sale.closed or sale.forgotten
        for note in self.notes:
            if note.of is not None and note.of.closed and note.key not in ended:
                note.forgotten = True
        self.world.trace(f"forgotten: {[item.key for item in items if item.forgotten]}")

    # --- the day ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        world, chance = self.world, self.world.chance
        self.disk.copies = chance.random() < 0.3
        self.disk.always_marked = not self.unit.read_back
        self.disk.lies = not self.disk.copies and chance.getstate()[1][1] % 4 == 0
        if not self.disk.copies:
            self.disk.rot = rot.of(world, lies=self.disk.lies)
        # Dice of their own: the rest of the day stays as it was.
        dice = random.Random(chance.getstate()[1][1])
        works, more = [], borders.more_sales(world.seed)
        for number in range(chance.randint(1, 2 if self.returns else 4)):
            name = f"till-{number}"
            mine = [
                Sale(
                    name, f"{name}-{n}",
                    refused=chance.random() < 0.05, keyless=chance.random() < 0.2,
                )
                for n in range(chance.randint(1, 4 if self.returns else 6) + more)
            ]  # fmt: skip
            for sale in mine:
                sale.new_keys = not sale.keyless and dice.random() < 0.3
            self.sales += mine
            works.append(self.till(mine))
        desks = 3 if self.returns else chance.choice((0, 0, 1, 2))
        works += [self.desk(f"desk-{n}", chance.randint(1, 3)) for n in range(desks)]
        tills = [asyncio.ensure_future(work) for work in works]
        open_tills = await self.storm(tills, [self.stubborn, self.beside], STORM_S, DAY_S)
        if self.refused is None:
            end = asyncio.ensure_future(self.finish(open_tills))
            self.tills = [end]
            await asyncio.wait({end})
            if not end.cancelled():
                end.result()
        self.over()
        conn = None
        if isinstance(self.system, RealGateway) and self.disk._writer is not None:
            conn = self.disk._writer._conn
        if self.disk.rot is not None:
            path = self.disk.directory / FILE_NAME
            damage = self.refused or verify.whole_file(path)
            if damage is not None:
                # Said already, or by the background check before long; what was signed and answered is true all the same.
                world.trace(f"the store is damaged: {damage}")
                conn = None
        world.problems += check_books(conn, self.unit.journal, self.sales, self.notes)
        world.problems += check_notes(self.unit.journal, self.notes)

    async def finish(self, open_tills: list[asyncio.Task[None]]) -> None:
        """Ask once more for every answer, and close the day."""
        if open_tills:
            items: list[Asked] = [*self.sales, *self.notes]
            open_ = [i.key for i in items if i.final is None and not i.forgotten]
            self.world.problems.append(f"no end for {open_}")
        else:
            await self.replays()
        while not self.answers:
            await asyncio.sleep(1)
        if isinstance(self.system, RealGateway):
            await self.system.close_the_day()

    async def replays(self) -> None:
        """What a till was told it is told again, byte for byte."""
        problems = self.world.problems
        for sale in self.sales:
            if sale.forgotten:
                continue
            if sale.new_keys and sale.final and sale.final[0] == 201:
                # The till has its receipt and rings the same one up once more.
                sale.round += 1
            again = await self.again(lambda sale=sale: self.sell(sale))
            nameless = sale.keyless or sale.new_keys
            if nameless and sale.final and sale.final[0] != 422 and not _unclear(sale.final):
                # Asked again it is a likely repeat of the one receipt.
                if again[0] != 409 or _id(again[1]) != _id(sale.final[1]):
                    problems.append(f"{sale.key} without a key: {again}")
            elif sale.new_keys and sale.final and sale.final[0] == 422:
                if again[0] != 422:
                    problems.append(f"{sale.key} was refused, and now {again}")
            elif again != sale.final:
                problems.append(f"{sale.key} was told {sale.final}, and now {again}")
        for note in self.notes:
            if note.forgotten or note.final is None or not note.kept:
                continue
            again = await self.again(lambda note=note: self.ask_back(note))
            while note.final[0] == 409 and again[0] == 503:
                # "One too many" is found out when it would be signed, and now nothing is.
                again = await self.again(lambda note=note: self.ask_back(note))
            if note.final[0] == 409 and _unclear(again):
                # Only the other note's receipt was final; its own key was quarantined since.
                continue
            if again != note.final:
                problems.append(f"{note.key} was told {note.final}, and now {again}")

    async def again(self, ask: Callable[[], Any]) -> tuple[int, bytes]:
        while (said := await ask()) is None or b'"STORE_CORRUPT"' in said[1]:
            await asyncio.sleep(1)
        await asyncio.sleep(1)
        return said  # type: ignore[no-any-return]


def _unclear(said: tuple[int, bytes]) -> bool:
    return json.loads(said[1]).get("code") == "MAYBE_SIGNED"


def _id(body: bytes) -> str:
    return str(json.loads(body)["invoiceId"])


def simulate(
    seed: int,
    make: Make = RealGateway,
    crashes: list[int] | None = None,
    *,
    returns: bool | None = None,
) -> Outcome:
    """One run. `crashes`: after how many steps each life dies; `returns`: whether goods come back all the
    time. What is not given the seed decides."""

    def prepare(world: World, disk: Disk, unit: SimUnit, deaths: list[int]) -> Shop:
        often = world.chance.random() < 0.3
        often = often if returns is None else returns
        return Shop(world, disk, unit, deaths, make=make, returns=often)

    return day.simulate(seed, prepare, crashes)
