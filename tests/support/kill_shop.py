"""A shop that is hit while it sells: the daemon under a restarting supervisor, tills that retry with
their keys, and an operator with KRA's portal. `books` compares everything at the end of its life."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import aiohttp

from hw_fakes.vscu.unit import ExternalUnit, UnitControl
from tests.support.daemon import READY_MAX_S, Daemon
from tests.support.decisions import codes, portal_time, statement
from tests.support.shop import TECHNICIANS, TOKENS, Reply, Technician, a_sale

# The fake unit's control is asked without aiohttp, and may end in the midst of its answer.
GONE = (aiohttp.ClientError, ConnectionError, TimeoutError, HTTPException)
# A till gives up a request after this long and repeats it.
TILL_PATIENCE_S = 5.0
# The unit ends a request within this time, stops of its process included: no test stops it for longer.
AT_WORK_S = 5.0
ANSWER_TIMEOUT_S = 2.0
# A shop that stands for longer, with an operator who decides, is stuck.
STUCK_S = 120.0
# The service's RestartSec, shortened.
RESTART_S = 0.05


class Systemd:
    """Starts the daemon whenever it has ended, as `Restart=always` does."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.exits: list[int] = []
        # Why starts were refused.
        self.refused: list[str] = []
        self.ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            try:
                await self.daemon.start()
            except RuntimeError as error:
                self.refused.append(str(error))
            else:
                self.ready.set()
                self.exits.append(await self.daemon.exited())
                self.ready.clear()
            await asyncio.sleep(RESTART_S)

    def check(self) -> None:
        """Raise what ended the supervisor: a daemon that did not become ready in time."""
        if self._task is not None and self._task.done():
            self._task.result()

    async def stop(self) -> int:
        """Stop the service; return the daemon's exit code, 0 where it was not running."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.ready.clear()
        return await self.daemon.stop() if self.daemon.is_running else 0


@dataclass(slots=True)
class Books:
    """What a life ended with; `wrong` holds a sentence for each violation."""

    sales: int = 0
    doubles: int = 0
    lost: int = 0
    decided: int = 0
    wrong: list[str] = field(default_factory=list)


class KillShop:
    """One life of a shop. Async context manager; `chance` decides everything that is random."""

    def __init__(
        self, directory: Path, *, external: bool, read_back: bool, chance: random.Random
    ) -> None:
        people = ",".join(f"{name}={code}" for name, code in TECHNICIANS.items())
        self.daemon = Daemon(directory, env={"GATEWAY_TECHNICIAN_TOKENS": people})
        self.unit: UnitControl = self.daemon.unit
        self.machine: ExternalUnit | None = None
        if external:
            knobs = {"readBack": "true"} if read_back else {}
            self.machine = ExternalUnit(directory / "unit", self.daemon.unit_port, **knobs)
            self.unit = self.machine
        self._configure(external, read_back)
        self.systemd = Systemd(self.daemon)
        self.chance = chance
        # The body of each 201, by key.
        self.receipts: dict[str, bytes] = {}
        # Keys that their tills gave up after `signed: "no"`.
        self.abandoned: set[str] = set()
        self.refusals: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self.wrong: list[str] = []
        # Why signing is held. Only a disk that took back a synced write may cause it; then the life ends.
        self.held: str | None = None
        self.may_be_held = False
        self._closing = False
        self._tills: list[asyncio.Task[None]] = []
        self._operator: asyncio.Task[None] | None = None

    def _configure(self, external: bool, read_back: bool) -> None:
        more = [
            f"answer_timeout_s = {ANSWER_TIMEOUT_S}",
            f"at_work_s = {AT_WORK_S}",
            "at_work_bounded = true",
        ]
        text = self.daemon.config.read_text()
        if read_back:
            more.append("read_back = true")
        if external:
            more.append(f'host = "external"\nurl = "{self.unit.url}"')
        elif read_back:
            config = self.daemon.directory / "unit" / "config" / "application.properties"
            config.write_text(config.read_text() + "fake.readBack=true\n")
        # No ballast where a disk is to be full at once; no other work beside the sales.
        after = "[store]\nballast_mb = 0"
        text = text.replace("[store]", "\n".join([*more, after]))
        text += "[backup]\nevery_hours = 0\n[reference]\nevery_hours = 0\n"
        self.daemon.config.write_text(text)

    # --- its life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> KillShop:
        if self.machine is not None:
            await self.machine.start()
        self.systemd.start()
        try:
            await self.ready()
            self._operator = asyncio.ensure_future(self._operate())
            self._tills = [
                asyncio.ensure_future(self._sell(name, random.Random(self.chance.random())))
                for name in TOKENS
            ]
            await self.sells()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._tills, *([self._operator] if self._operator else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.systemd.stop()
        if self.daemon.is_running:
            await self.daemon.kill()
        if self.machine is not None:
            self.machine.kill()

    async def ready(self) -> None:
        async with asyncio.timeout(READY_MAX_S):
            await self.systemd.ready.wait()

    async def sells(self) -> None:
        """Wait for the next receipt. AssertionError where the shop is stuck."""
        before = len(self.receipts)
        try:
            async with asyncio.timeout(STUCK_S):
                while len(self.receipts) == before and not self.wrong and not self.held:
                    self.check()
                    await asyncio.sleep(0.02)
        except TimeoutError:
            problem = await self.problem()
            raise AssertionError(
                f"stuck ({problem or 'and no problem is named'}); {dict(self.refusals)} "
                f"{dict(self.decisions)}\n{self.daemon.log()[-3000:]}"
            ) from None
        assert not self.wrong, self.wrong

    async def problem(self) -> str | None:
        """Return the problem that the status or the emergency page names; None where none is."""
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                reply = await self.daemon.till(session).request("GET", "/v1/status")
            except GONE:
                return None
        status = reply.json or {}
        if reply.status == 503:
            return f"{status['code']}: {status['detail']}" if status.get("detail") else None
        if status["state"] == "ONLINE" or not status["sentence"]:
            return None
        return f"{status['state']}: {status['sentence']}"

    async def stands_or_sells(self) -> str:
        """Wait until a problem is named, the daemon has ended or refuses to start, or a sale is signed."""
        before = (len(self.systemd.exits), len(self.systemd.refused), len(self.receipts))
        async with asyncio.timeout(STUCK_S):
            while True:
                problem = await self.problem()
                if problem is not None:
                    return problem
                now = (len(self.systemd.exits), len(self.systemd.refused), len(self.receipts))
                if now != before:
                    return "ended" if now[2] == before[2] else "sells"
                self.check()
                await asyncio.sleep(0.02)

    def check(self) -> None:
        """Raise what ended the supervisor, the operator or a till: the shop would only look stuck."""
        self.systemd.check()
        for task in (*self._tills, *([self._operator] if self._operator else [])):
            if task.done():
                task.result()

    # --- tills --------------------------------------------------------------------------------------

    async def _sell(self, name: str, chance: random.Random) -> None:
        timeout = aiohttp.ClientTimeout(total=TILL_PATIENCE_S)
        number = 0
        while not self._closing:
            # A fresh connection now and then, and again after each trouble.
            async with aiohttp.ClientSession(timeout=timeout) as session:
                for _ in range(chance.randint(1, 20)):
                    if self._closing:
                        return
                    number += 1
                    await self._sell_one(session, name, f"{name}-{number}", chance)
                    await asyncio.sleep(chance.uniform(0, 0.05))

    async def _sell_one(
        self, session: aiohttp.ClientSession, name: str, key: str, chance: random.Random
    ) -> None:
        till = self.daemon.till(session, name)
        while True:
            try:
                reply = await till.sell(key, a_sale(tillReceiptNo=key))
            except GONE:
                await asyncio.sleep(0.02)
                continue
            if reply.status == 201:
                self.receipts[key] = reply.body
                return
            signed = self._judge(key, reply)
            if signed == "no" and not self._closing and chance.random() < 0.2:
                # The customer leaves; no request follows, so no receipt may follow.
                self.abandoned.add(key)
                return
            await asyncio.sleep(0.02)

    def _judge(self, key: str, reply: Reply) -> str | None:
        said = reply.json if isinstance(reply.json, dict) else {}
        if reply.status == 202:
            return None
        self.refusals[str(said.get("code"))] += 1
        good = (
            reply.status == 503
            and said.get("code")
            and said.get("detail")
            and said.get("signed") in ("yes", "no", "unknown")
        )
        if not good:
            self.wrong.append(f"{key} was answered {reply.status} {reply.body[:500]!r}")
        return said.get("signed")

    # --- the operator -------------------------------------------------------------------------------

    async def _operate(self) -> None:
        timeout = aiohttp.ClientTimeout(total=20)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            person = Technician(session, self.daemon.url)
            seen = ""
            while True:
                await asyncio.sleep(0.1)
                try:
                    status = (await person.request("GET", "/v1/status")).json
                    sale = status.get("signer", {}).get("openInvoice")
                    # Seen twice: what settles itself at once is nobody's decision.
                    if status.get("state") == "IN_DOUBT" and sale == seen:
                        await self._decide(person, sale)
                    seen = sale or ""
                except (*GONE, OSError, ValueError):
                    continue
                hold = status.get("signer", {}).get("hold")
                if hold and self.may_be_held:
                    self.held = hold
                elif hold:
                    self.wrong.append(f"signing is held: {hold}")

    async def _decide(self, person: Technician, sale: str) -> None:
        case = (await person.request("GET", f"/v1/invoices/{sale}/decision")).json
        if not case.get("choices"):
            return
        portal = [entry for entry in await self.unit.journal() if entry["uploaded"]]
        here = [entry for entry in portal if entry["trdInvcNo"] == case["tillReceiptNo"]]
        said = as_receipt(here[0]) if here else statement(portal[-1] if portal else None)
        reply = await person.decide(sale, **said)
        if reply.status == 200:
            self.decisions[said["choice"]] += 1
        else:
            self.decisions["/".join(sorted(codes(reply))) or str(reply.json.get("code"))] += 1

    # --- the end ------------------------------------------------------------------------------------

    async def books(self) -> Books:
        """Close the shop in order, and compare what the unit signed with what the tills received."""
        self._closing = True
        if self.held:
            # Nothing is sold before an operator decides the numbering, so no till can end.
            for task in self._tills:
                task.cancel()
            await asyncio.gather(*self._tills, return_exceptions=True)
            self._tills.clear()
        ended, late = await asyncio.wait(self._tills, timeout=STUCK_S) if self._tills else ((), ())
        for task in ended:
            task.result()
        found = Books(wrong=self.wrong)
        if late:
            found.wrong.append(f"{len(late)} tills without an end: {await self.problem()}")
        journal = await self.unit.journal()
        times = Counter(entry["trdInvcNo"] for entry in journal)
        signed = {entry["trdInvcNo"]: entry for entry in journal}
        found.sales = len(self.receipts)
        found.decided = self.decisions["SIGNED"] + self.decisions["NOT_SIGNED"]
        twice = sorted(key for key, count in times.items() if count > 1)
        found.doubles = len(twice)
        missing = sorted(self.receipts.keys() - signed.keys())
        found.lost = len(missing)
        surplus = sorted(signed.keys() - self.receipts.keys())
        for what, keys in (
            ("signed twice", twice),
            ("answered 201 without a receipt in the unit", missing),
            ('signed after `signed: "no"`', [key for key in surplus if key in self.abandoned]),
            (
                "signed and never answered",
                [key for key in surplus if key not in self.abandoned and not self.held],
            ),
        ):
            if keys:
                found.wrong.append(f"{what}: {keys}")
        if [entry["totRcptNo"] for entry in journal] != list(range(1, len(journal) + 1)):
            found.wrong.append("the unit's receipt numbers have gaps")
        invc = [entry["invcNo"] for entry in journal]
        if invc != sorted(set(invc)):
            found.wrong.append("invoice numbers do not rise")
        if not self.held:
            await self._replay(signed, found)
        await self._close(found)
        return found

    async def _replay(self, signed: dict[str, Any], found: Books) -> None:
        async with aiohttp.ClientSession() as session:
            for key, body in self.receipts.items():
                entry = signed.get(key)
                if entry is not None and entry["rcptSign"].encode() not in body:
                    found.wrong.append(f"{key} was answered another receipt than the unit's")
                till = self.daemon.till(session, key.rpartition("-")[0])
                again = await till.sell(key, a_sale(tillReceiptNo=key))
                if (again.status, again.body) != (201, body):
                    found.wrong.append(f"{key} replays {again.status} {again.body[:200]!r}")

    async def _close(self, found: Books) -> None:
        if (code := await self.systemd.stop()) != 0:
            found.wrong.append(f"the orderly stop ended with {code}")
        store = self.daemon.directory / "store" / "gateway.db"
        conn = sqlite3.connect(store)
        try:
            if (damage := conn.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                found.wrong.append(f"the store is damaged: {damage[:3]}")
        finally:
            conn.close()


def as_receipt(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the decision SIGNED with a receipt of the unit's journal as the portal shows it."""
    return {
        "choice": "SIGNED",
        "rcptNo": entry["rcptNo"],
        "totRcptNo": entry["totRcptNo"],
        "rcptSign": entry["rcptSign"],
        "intrlData": entry["intrlData"],
        "scuTime": portal_time(entry),
        "total": f"{entry['totAmt']:.2f}",
        "sdcId": "KRACU0300000001",
    }


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal to a process of this shop; False where it has just ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
