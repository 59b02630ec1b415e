"""Probe of a restart between accepting and signing (A3), and the unit's process that it needs."""

from __future__ import annotations

import asyncio
import shlex
import signal
import socket
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from gateway.clock import Clock
from gateway.conformance.findings import Assumption, Findings
from gateway.conformance.reads import Shown
from gateway.conformance.trial import Trial, TrialFailed, describe
from gateway.domain.outcome import Duplicate, Signed
from gateway.settings import UnitSettings
from gateway.vscu.client import StoredAnswer, UnitClient
from gateway.vscu.jvm import find_java

# Restarts that cut a sale off, and how often that is tried. Each is tried earlier after the sale was signed.
WANTED, TRIES = 3, 6
# A shorter time cannot be hit. Seconds.
AIM_MIN_S = 0.02
# The unit stays down long enough for its receipts before and after to differ in their whole seconds. Seconds.
DOWN_S = 3.0
# Of the times in between, the part that belongs to the time before. Seconds.
BEFORE_S = 1.5
READY_EVERY_S = 0.1


class Restart(Protocol):
    async def __call__(self) -> None:
        """Kill the unit, as a power cut would, and start it again. TrialFailed."""
        ...


async def cut_off_by_restart(
    trial: Trial, found: Findings, shown: Shown, restart: Restart, watch_s: float
) -> None:
    """Restart the unit while it works on a sale, wait, and send the sale again: a receipt with the next
    counter shows that the unit forgot it."""
    aim_s = trial.account.usual_s / 2
    cut_off = 0
    for _ in range(TRIES):
        if aim_s < AIM_MIN_S:
            found.not_shown(
                Assumption.A3,
                f"the unit signs within {trial.account.usual_s:.3f} s, too fast to be restarted in between",
            )
            return
        signed = await _one(trial, found, shown, restart, watch_s, aim_s)
        if signed is None:
            return
        if signed:
            aim_s /= 2
        else:
            cut_off += 1
        if cut_off == WANTED:
            found.holds(
                Assumption.A3,
                f"{cut_off} sales were accepted before a restart and not signed within {watch_s:g} s after it",
            )
            return
    found.not_shown(Assumption.A3, "the unit had signed before it was stopped, at every try")


async def _one(
    trial: Trial, found: Findings, shown: Shown, restart: Restart, watch_s: float, aim_s: float
) -> bool | None:
    """Return whether the sale was signed before the restart; None when that ends the probe."""
    number = trial.number()
    body = trial.body(number)
    stopped = trial.clock.now() + timedelta(seconds=aim_s)
    book = trial.account
    sending = await trial.interrupted(number, body, aim_s, restart)
    if isinstance(sending.outcome, Signed):
        book.take(sending, trial.clock.now())
        return True
    await trial.clock.sleep(watch_s)
    stored = await _stored(shown, number)
    again = await trial.send(number, body)
    moved = None if book.last is None else book.take(again, trial.clock.now())
    if moved == 0 and stored is None:
        return False
    if stored is not None:
        signed_at = stored.data.scu_time - timedelta(seconds=max(book.ahead_s, default=0.0))
        if signed_at > stopped + timedelta(seconds=BEFORE_S):
            found.fails(
                Assumption.A3,
                f"sale {number} was signed after the restart that cut it off",
            )
            await trial.marker()
            return None
        await trial.marker()
        return True
    if isinstance(again.outcome, Signed | Duplicate):
        said = "when it was signed is not shown without a read-back"
    else:
        said = "whether it was signed is not shown"
    found.not_shown(Assumption.A3, f"sale {number}: {describe(again.outcome)}; {said}")
    await trial.marker()
    return None


async def _stored(shown: Shown, number: int) -> StoredAnswer | None:
    for _, read in shown.readers:
        stored = await read(number)
        if isinstance(stored, StoredAnswer):
            return stored
    return None


class UnitProcess:
    """KRA's JAR as a process of its own, so that it can be killed. Use as an async context manager."""

    def __init__(self, unit: UnitSettings, client: UnitClient, clock: Clock) -> None:
        self._unit = unit
        self._client = client
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> UnitProcess:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def __call__(self) -> None:
        """Kill the unit, leave it down for a while, start it again."""
        await self.kill()
        await self._clock.sleep(DOWN_S)
        await self.start()

    async def start(self) -> None:
        java = find_java(self._unit.java_home)
        if java is None:
            raise TrialFailed("No Java 16 or newer was found. Install one, or set unit.java_home.")
        if not _is_free(self._unit.port):
            raise TrialFailed(
                f"Another program listens on port {self._unit.port}, so its answers would be taken for this "
                "unit's. Stop it, or set another unit.port."
            )
        directory = self._unit.directory
        assert directory is not None
        assert self._unit.jar is not None
        with (directory / "unit-test.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(java.executable),
                f"-Xmx{self._unit.heap_mb}m",
                "-XX:+UseSerialGC",
                *self._unit.jvm_options,
                "-jar",
                str(self._unit.jar),
                f"--server.port={self._unit.port}",
                "--server.address=127.0.0.1",
                *self._unit.arguments,
                cwd=directory,
                stdout=log,
                stderr=log,
            )
        await self._ready(directory / "unit-test.log")

    async def _ready(self, log: Path) -> None:
        process = self._process
        assert process is not None
        end_ns = self._clock.boottime_ns() + int(self._unit.start_timeout_s * 1e9)
        while await is_silent(self._client):
            if process.returncode is not None:
                break
            if self._clock.boottime_ns() > end_ns:
                raise TrialFailed(
                    f"The unit did not answer within {self._unit.start_timeout_s:g} s; see {log}."
                )
            await self._clock.sleep(READY_EVERY_S)
        if process.returncode is not None:
            raise TrialFailed(f"The unit ended by itself; see {log}.")

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # What a connection of the run before left (TIME_WAIT) is no program.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class RestartCommand:
    """The technician's command: it kills an external unit and starts it again."""

    def __init__(self, command: str, client: UnitClient, clock: Clock, ready_s: float) -> None:
        self._words = shlex.split(command)
        self._client = client
        self._clock = clock
        self._ready_s = ready_s

    async def __call__(self) -> None:
        """Run the command and wait until the unit answers."""
        try:
            process = await asyncio.create_subprocess_exec(*self._words)
        except OSError as error:
            raise TrialFailed(f"{self._words[0]} cannot be run: {error}") from error
        code = await process.wait()
        if code:
            raise TrialFailed(f"The restart command ended with code {code}.")
        end_ns = self._clock.boottime_ns() + int(self._ready_s * 1e9)
        while await is_silent(self._client):
            if self._clock.boottime_ns() > end_ns:
                raise TrialFailed("The unit did not answer after the restart command.")
            await self._clock.sleep(READY_EVERY_S)


async def is_silent(client: UnitClient) -> bool:
    """Return whether nothing that speaks the unit's protocol answers."""
    answer = await client.call("selectCodes", {"lastReqDt": "20180520000000"})
    return getattr(answer, "code", None) is None
