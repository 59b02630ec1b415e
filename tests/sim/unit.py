"""The control unit of the simulation: signs one at a time, keeps what it signed, loses answers.

It speaks the unit's own JSON, so that the gateway's client reads it as it reads the real one.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from gateway.clock import compact
from gateway.vscu.client import CallFailed, UnitClient
from gateway.vscu.wire import Answer, decode
from tests.sim import habits
from tests.sim.world import Life, SimClock, World, never

SDC_ID = "KRACU0300000001"
# How the till receipt numbers of something else begin that signs with this unit.
ALIEN = "alien-"
PIN, BRANCH = "A000123456B", "00"


class SimUnit:
    """Outlives the gateway, unless it is hosted in its process."""

    def __init__(self, world: World) -> None:
        chance = world.chance
        self.world = world
        self.habits = habits.of(world.seed)
        # Runs of an external unit; a request of an earlier run is forgotten.
        self.run = 1
        # Numbers that were being worked on when a second request with them arrived.
        self._at_work: list[int] = []
        self.journal: list[dict[str, Any]] = []
        self.hosted = chance.random() < 0.5
        self.read_back = chance.random() < 0.6
        self.duplicate_code = chance.choice(("899", "924", "994"))
        self.trouble = chance.choice((0.0, 0.1, 0.25, 0.5))
        # Some look at what a credit note takes back (930, 934), some of these before they look whether
        # they have it already.
        self.checks_credit = chance.random() < 0.5
        self.credit_first = chance.random() < 0.5
        # The shop's 24 hours; shorter in some shops, so that a storm is long enough to be suspended in.
        self.ceiling_s = chance.choice((86_400, 86_400, 86_400, 400))
        self.kra_heard_s: float | None = None
        # How many receipts KRA's portal shows: those signed before the unit last reached KRA.
        self.uploaded = 0
        self._away_until_s = 0.0
        self.busy = 0
        self._lock = asyncio.Lock()
        self.down_until_s = 0.0

    def entry(self, invc_no: int) -> dict[str, Any] | None:
        return next((e for e in self.journal if e["invcNo"] == invc_no), None)

    def has(self, key: str) -> bool:
        return any(e["trdInvcNo"] == key for e in self.ours)

    @property
    def ours(self) -> list[dict[str, Any]]:
        """What the shop's own sales and credit notes brought into the unit."""
        return [entry for entry in self.journal if "alien" not in entry]

    def _hears_kra(self) -> bool:
        now = self.world.loop.time()
        if self.ceiling_s < 3600 and now >= self._away_until_s and self.world.happens(0.5):
            self._away_until_s = now + self.world.chance.choice((600, 1500))
            self.world.trace("KRA is away")
        away = now < self._away_until_s and not self.world.quiet
        if away or self.world.happens(self.trouble / 2):
            return False
        self.kra_heard_s = now
        self.uploaded = len(self.journal)
        return True

    @property
    def portal(self) -> list[dict[str, Any]]:
        """What KRA's portal shows, oldest first."""
        return self.journal[: self.uploaded]

    def _over(self) -> None:
        """A sale that arrives when the ceiling is reached is a problem, while clocks can be trusted."""
        heard, now = self.kra_heard_s, self.world.loop.time()
        same_boot = heard is not None and heard >= self.world.boot_at_s
        if (self.world.clock_right or same_boot) and (
            heard is None or now - heard > self.ceiling_s + 1
        ):
            self.world.problems.append(f"a sale was sent at {now:.0f}, KRA was heard at {heard}")

    async def answer(self, life: Life, name: str, body: dict[str, Any]) -> tuple[int, bytes] | None:
        """(status, body), or None when no answer ever comes."""
        if name == "selectInvoice":
            # A read-back is answered while a sale is being signed, too: with nothing yet.
            return await self._answer(life, name, body, self.run, False)
        if name == "saveSales":
            self._over()
            self._may_restart()
        self.busy += 1
        number = body.get("invcNo") if name == "saveSales" else None
        twice = number in self._at_work
        if number is not None:
            self._at_work.append(number)
        run = self.run
        try:
            async with self._lock:
                if run != self.run:
                    return None
                return await self._answer(life, name, body, run, twice)
        finally:
            self.busy -= 1
            if number is not None:
                self._at_work.remove(number)

    def _may_restart(self) -> None:
        """An external unit dies and is started again, while a sale is under way."""
        if not self.hosted and self.world.happens(self.habits.restarts):
            self.run += 1
            self.world.trace(f"the unit starts again, run {self.run}")

    async def _answer(
        self, life: Life, name: str, body: dict[str, Any], run: int, twice: bool
    ) -> tuple[int, bytes] | None:
        await asyncio.sleep(self.world.delay())
        if self.hosted and not life.alive:
            return None
        if name == "selectCodes":
            return self._say("001")
        if name == "selectNotices":
            return self._say("001" if self._hears_kra() else "894")
        if name == "selectInvoice":
            entry = self.entry(body["invcNo"])
            return self._say("000", entry) if entry else self._say("001")
        assert name == "saveSales"
        return await self._sign(life, body, run, twice)

    async def _sign(
        self, life: Life, body: dict[str, Any], run: int, twice: bool
    ) -> tuple[int, bytes] | None:
        world = self.world
        if str(body["remark"]).startswith("refused"):
            return self._say("910", message="Request parameter error")
        if world.happens(self.trouble):
            fault = world.chance.choice(("full", "html", "keys", "drop", "slow"))
            world.trace(f"unit {fault} {body['invcNo']}")
            if fault == "full":
                return self._say("899", message="An error regarding Client occurred.")
            if fault == "html":
                return 404, b"<html>not found</html>"
            if fault == "keys":
                return self._say("892")
            if fault == "drop":
                return None
            await asyncio.sleep(world.chance.uniform(0, 60))
        if (self.hosted and not life.alive) or run != self.run:
            return None
        link = world.happens(self.habits.link)
        if link and world.chance.random() < 0.5:
            world.trace(f"unit has no link, not signed {body['invcNo']}")
            return self._say("894")
        known = self.entry(body["invcNo"]) is not None
        credit = self._credit(body) if self.checks_credit and body["rcptTyCd"] == "R" else None
        if credit is not None and (self.credit_first or not known):
            return self._say(credit, message="credit note")
        if known and not self._signs_again(twice):
            return self._repeated(body)
        self._signed(life, body)
        entry = self.journal[-1]
        if world.happens(self.trouble):
            return world.chance.choice((None, (200, b'{"resultCd":"000","data":{"rcp')))
        await asyncio.sleep(world.delay())
        if link:
            world.trace(f"unit has no link, signed {body['invcNo']}")
            return self._say("894")
        if len(self.journal) > 1 and world.happens(self.habits.echo):
            world.trace("unit answers with the receipt before it")
            return self._say("000", self.journal[-2])
        return self._say("000", entry)

    def _signs_again(self, twice: bool) -> bool:
        return self.habits.guard == "again" or (self.habits.guard == "racy" and twice)

    def _repeated(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """What a repeated number is answered with."""
        if self.habits.guard == "replay":
            return self._say("000", self.entry(body["invcNo"]))
        if self.habits.guard == "bytes":
            return self._say("910", message="Request parameter error [<custNm>]")
        return self._say(self.duplicate_code)

    def sign_beside(self, number: int, like: dict[str, Any]) -> None:
        """Something else signs its own sale with this unit."""
        name = f"{ALIEN}{len(self.journal)}"
        own = {**like, "invcNo": number, "trdInvcNo": like["trdInvcNo"], "remark": None}
        if not self.habits.alike:
            own |= {"trdInvcNo": name, "totAmt": 1, "cfmDt": compact(self.world.true_time())}
        self._add({**own, "alien": True})
        self.world.trace(f"something else signs {number}")

    async def last_counter(self) -> int | str:
        """What a query of the unit's database gives for its receipt counter."""
        await asyncio.sleep(self.world.delay())
        return len(self.journal)

    def _signed(self, life: Life, body: dict[str, Any]) -> None:
        self._add(body)
        self.world.trace(f"unit signs {body['invcNo']} {body['trdInvcNo']} at step {life.steps}")

    def _add(self, body: dict[str, Any]) -> None:
        number = len(self.journal) + 1
        entry = {
            **body,
            "rcptNo": number,
            "totRcptNo": number,
            "intrlData": f"{number:026d}",
            "rcptSign": f"{number:016d}",
            "vsdcRcptPbctDate": compact(self.world.true_time()),
            "sdcId": SDC_ID,
            "mrcNo": "WIS01",
        }
        self.journal.append(entry)

    def _credit(self, body: dict[str, Any]) -> str | None:
        """What is wrong with a credit note: its sale is not here, or was taken back before."""
        original = self.entry(body["orgInvcNo"])
        if original is None or original["rcptTyCd"] != "S":
            return "930"
        before = any(e["orgInvcNo"] == body["orgInvcNo"] for e in self.journal)
        return "934" if before else None

    def _say(
        self, code: str, data: Any = None, message: str = "It is succeeded"
    ) -> tuple[int, bytes]:
        now = compact(self.world.true_time())
        envelope = {"resultCd": code, "resultMsg": message, "resultDt": now, "data": data}
        return 200, json.dumps(envelope).encode()


class SimClient(UnitClient):
    """The real client, with the wire to the simulated unit in place of aiohttp."""

    def __init__(self, life: Life, unit: SimUnit, clock: SimClock) -> None:
        super().__init__(base_url="", pin=PIN, branch_id=BRANCH, clock=clock, answer_timeout_s=30)
        self._life = life
        self._unit = unit

    async def post(
        self, name: str, body: bytes, *, timeout_s: float | None = None
    ) -> Answer | CallFailed:
        world = self._life.world
        await self._life.point()
        if world.happens(self._unit.trouble / 4):
            return CallFailed("no connection: refused", sent=False, refused=True)
        if world.happens(self._unit.trouble / 4):
            return CallFailed("the connection broke", sent=True)
        asked = asyncio.ensure_future(self._unit.answer(self._life, name, json.loads(body)))
        await asyncio.wait({asked}, timeout=timeout_s or 30)
        if not self._life.alive:
            await never()
        await self._life.point()
        if not asked.done():
            # The unit goes on with it: it may sign long after we have stopped listening.
            return CallFailed("no answer in time", sent=True)
        said = asked.result()
        if said is None:
            return CallFailed("the connection broke", sent=True)
        return decode(*said)
