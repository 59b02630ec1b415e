"""What a till is answered while the store cannot be written or read, in virtual time."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.errors import StoreBusy, StoreError
from gateway.fiscal.ahead_rules import Hold
from gateway.store.database import FILE_NAME
from tests.sim import day, disk_faults
from tests.sim.day import Day
from tests.sim.disk_faults import FaultyConnection
from tests.sim.gateway import RealGateway
from tests.sim.unit import SimUnit
from tests.sim.world import Disk, Life, World

Scene = Callable[["Quiet", RealGateway], Awaitable[None]]


@dataclass(slots=True)
class Quiet(Day):
    """A day without weather on which one thing is done."""

    scene: Scene | None = None

    async def run(self) -> None:
        self.world.quiet = True
        self.life = Life(self.world, 1)
        self.system = RealGateway(self.life, self.disk, self.unit)
        running = asyncio.ensure_future(self.system.run())
        while not self.system.ready:
            await asyncio.sleep(0.1)
        assert self.scene is not None
        await self.scene(self, self.system)
        assert not running.done()


def play(scene: Scene) -> None:
    """Let the scene happen in a shop whose unit makes no trouble."""

    def prepare(world: World, disk: Disk, unit: SimUnit, deaths: list[int]) -> Quiet:
        unit.trouble = 0.0
        return Quiet(world, disk, unit, deaths, scene=scene)

    outcome = day.simulate(2, prepare, crashes=[])
    assert not outcome.problems, outcome.problems


async def _sold(gateway: RealGateway, key: str, **more: Any) -> tuple[int, dict[str, Any]]:
    status, body = await gateway.submit("till-0", key, **more)
    return status, json.loads(body)


def test_a_sale_without_a_key_is_not_called_unsigned_while_the_store_is_locked() -> None:
    async def scene(shop: Quiet, gateway: RealGateway) -> None:
        assert (await _sold(gateway, "one", keyless=True))[0] == 201
        with shop.disk.look() as writer:
            writer.execute("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(shop.disk.directory / FILE_NAME, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        status, said = await _sold(gateway, "one", keyless=True)
        assert (status, said["code"]) == (409, "LIKELY_REPEAT")
        status, said = await _sold(gateway, "two", keyless=True)
        assert (status, said["code"], said["signed"]) == (503, "STORE_BUSY", "no")
        other.close()
        assert (await _sold(gateway, "two", keyless=True))[0] == 201

    play(scene)


@pytest.mark.parametrize("keyless", [True, False])
def test_a_wrong_clock_during_a_hold_makes_no_earlier_sale_old(keyless: bool) -> None:
    async def scene(shop: Quiet, gateway: RealGateway) -> None:
        assert (await _sold(gateway, "one", keyless=keyless, idem_key="first"))[0] == 201
        gateway.ahead._hold = Hold("a test")
        shop.world.set_clock(400 * 86_400)
        # Another sale would have the old marks deleted.
        status, said = await _sold(gateway, "two", keyless=keyless)
        assert (status, said["code"]) == (503, "UNIT_AHEAD")
        status, said = await _sold(gateway, "one", keyless=keyless, idem_key="second")
        assert (status, said["code"]) == (409, "LIKELY_REPEAT")
        gateway.ahead._hold = None
        shop.world.set_clock(-400 * 86_400)
        status, said = await _sold(gateway, "one", keyless=keyless, idem_key="second")
        assert (status, said["code"]) == (409, "LIKELY_REPEAT")
        assert [entry["trdInvcNo"] for entry in shop.unit.journal].count("one") == 1

    play(scene)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (disk_faults.READ, StoreError),
        (disk_faults.CANTOPEN, StoreError),
        (disk_faults.BUSY, StoreBusy),
    ],
)
def test_a_read_that_the_disk_refuses_leaves_open_whether_a_sale_is_signed(
    name: str, kind: type[StoreError]
) -> None:
    def query(conn: sqlite3.Connection) -> None:
        raise disk_faults.error(name)

    async def scene(shop: Quiet, gateway: RealGateway) -> None:
        with pytest.raises(kind) as refused:
            await gateway.db.read(query)
        assert refused.value.extra["signed"] == "unknown"
        assert gateway.db.broken is None

    play(scene)


def test_a_query_that_is_wrong_stays_an_error_of_the_program() -> None:
    async def scene(shop: Quiet, gateway: RealGateway) -> None:
        with pytest.raises(sqlite3.OperationalError):
            await gateway.db.read(lambda conn: conn.execute("SELECT nothing FROM nowhere"))

    play(scene)


def test_sqlite_itself_raises_the_lock_and_the_read_only_file() -> None:
    """Both errors come from SQLite; the others carry the names that it gives them."""

    async def scene(shop: Quiet, gateway: RealGateway) -> None:
        with shop.disk.look() as conn:
            assert not isinstance(conn, FaultyConnection)
            conn.execute("PRAGMA query_only = 1")
            with pytest.raises(sqlite3.OperationalError) as refused:
                conn.execute("BEGIN IMMEDIATE")
            assert refused.value.sqlite_errorname == disk_faults.READONLY
            conn.execute("PRAGMA query_only = 0")

    play(scene)


@pytest.mark.parametrize("keyless", [True, False])
@pytest.mark.parametrize("step_s", [-1_700_000_000, 400 * 86_400])
def test_a_clock_step_in_the_transaction_of_a_write_ahead_moves_no_mark(
    keyless: bool, step_s: float
) -> None:
    async def scene(shop: Quiet, gateway: RealGateway) -> None:
        other = await _sold(gateway, "zero", keyless=True)
        may_sign = gateway.signer._may_sign

        def stepped(*of: Any) -> Any:
            shop.world.set_clock(step_s)
            refusal = may_sign(*of)
            shop.world.set_clock(-step_s)
            return refusal

        gateway.signer._may_sign = stepped
        assert (await _sold(gateway, "one", keyless=keyless, idem_key="first"))[0] == 201
        gateway.signer._may_sign = may_sign
        status, said = await _sold(gateway, "one", keyless=keyless, idem_key="second")
        assert (status, said["code"]) == (409, "LIKELY_REPEAT")
        status, said = await _sold(gateway, "zero", keyless=True)
        assert (status, said["invoiceId"]) == (409, other[1]["invoiceId"])

    play(scene)
