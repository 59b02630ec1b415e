"""The process around the gateway: signals, readiness and the watchdog towards systemd, the exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from pathlib import Path

from gateway import emergency
from gateway.app import Gateway, open_gateway
from gateway.clock import SystemClock
from gateway.errors import (
    ConfigError,
    DiskFull,
    GatewayError,
    SchemaNewer,
    StartFailed,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreReadOnly,
)
from gateway.ops import memory
from gateway.ops.systemd import Notifier
from gateway.settings import Settings
from gateway.store import causes, damage, verify
from gateway.store.ballast import has_room
from gateway.store.database import FILE_NAME, only_instance

log = logging.getLogger(__name__)

# In process, a unit that gives no answer for this long is only cured by a restart of the process.
UNIT_SILENT_MAX_S = 120.0
# One sale that is neither in doubt nor waiting for room takes no longer than the unit's answer and
# this for the store. Seconds.
SALE_MAX_S = 60.0
# The store's writer takes an empty transaction within this time. Seconds.
STORE_MAX_S = 15.0
# A start on a full disk is tried again when so much is free, looked for so often. Bytes, seconds.
ROOM_BYTES = 16 * 1024 * 1024
ROOM_S = 5.0
# A start that failed for another reason is tried again after this long. Seconds.
RETRY_S = 60.0


async def run(settings: Settings, notifier: Notifier | None = None) -> int:
    """Run the daemon until SIGTERM or SIGINT, or until a part that must not die has died; return the exit code.

    A start that fails is explained on the port. ConfigError is raised: a restart would only find the same.
    """
    notifier = notifier or Notifier()
    ready = asyncio.Event()
    for reason in settings.off.values():
        log.warning("settings.part_off reason=%s", reason)
    try:
        return await _serve(settings, notifier, ready)
    except ConfigError:
        raise
    except Exception as error:
        # The page is for a start that fails; what ends a running gateway is systemd's to restart.
        if ready.is_set():
            raise
        return await _explain(settings, notifier, _cause(error))


def _cause(error: Exception) -> GatewayError:
    if isinstance(error, StoreError):
        return error
    log.error("gateway.start_failed", exc_info=error)
    if isinstance(error, GatewayError):
        return error
    return StartFailed(f"The gateway could not start: {type(error).__name__}: {error}")


async def _explain(settings: Settings, notifier: Notifier, error: GatewayError) -> int:
    """Show on the port why nothing is signed, until the service is stopped (0), or until the cause may be gone (1: a JVM
    may have run in this process already, so another one goes on)."""
    stop, told = asyncio.Event(), asyncio.Event()

    def end() -> None:
        told.set()
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, end)
    heart = asyncio.ensure_future(_wait_for_the_end(settings, notifier, error, stop))
    try:
        await emergency.serve(settings, error, stop, notifier.ready)
    except OSError as refused:
        # Its own port is taken, by another gateway perhaps: that one answers the tills.
        log.critical("gateway.stopped code=%s detail=%s page=%s", error.code, error.detail, refused)
        return 1
    finally:
        heart.cancel()
    notifier.stopping()
    return 0 if told.is_set() else 1


async def _wait_for_the_end(
    settings: Settings, notifier: Notifier, error: GatewayError, stop: asyncio.Event
) -> None:
    pause_s = min((notifier.watchdog_s or 30.0) / 3, ROOM_S)
    directory, clock = settings.store.directory, SystemClock()
    checking: asyncio.Future[bool] | None = None
    if isinstance(error, StoreCorrupt):
        checking = asyncio.ensure_future(asyncio.to_thread(_is_whole, directory))
    begun_ns = clock.boottime_ns()
    while True:
        notifier.alive()
        notifier.status(f"nothing is signed: {error.code}")
        waited_s = (clock.boottime_ns() - begun_ns) / 1e9
        if checking is not None and checking.done() and checking.result():
            log.warning("store.whole_again directory=%s", directory)
            break
        if isinstance(error, DiskFull):
            if has_room(directory, ROOM_BYTES):
                log.info("store.room_again bytes=%d", ROOM_BYTES)
                break
        elif isinstance(error, StoreReadOnly):
            if causes.probe(directory) is None:
                log.info("store.writable_again directory=%s", directory)
                break
        elif not isinstance(error, StoreCorrupt | SchemaNewer) and waited_s >= RETRY_S:
            break
        await clock.sleep(pause_s)
    stop.set()


def _is_whole(directory: Path) -> bool:
    """Check a store that was found damaged once more, all of it; return whether the next start may use it. A flipped bit
    in memory, or in the witness, is no damage of the store."""
    try:
        reason = damage.read(directory)
        if reason is None:
            return False
        with only_instance(directory):
            problem = verify.whole_file(directory / FILE_NAME)
        if problem is not None:
            log.error("store.checked problem=%s", problem)
            return False
        damage.note(directory, f"{damage.CHECKED}\n{reason}")
    except (OSError, StoreError) as error:
        log.error("store.unchecked reason=%s", error)
        return False
    return True


async def _serve(settings: Settings, notifier: Notifier, ready: asyncio.Event) -> int:
    stop = asyncio.Event()
    async with open_gateway(settings) as gateway:
        loop = asyncio.get_running_loop()
        # After the JVM's start, which would take them otherwise.
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        gateway.supervisor.start("watchdog", lambda: _watchdog(gateway, notifier), waits=False)
        log.info("memory.settled objects=%d", memory.settle())
        ready.set()
        notifier.ready()
        log.info("gateway.ready url=%s host=%s", gateway.url, socket.gethostname())
        failed = asyncio.ensure_future(gateway.supervisor.failed())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
        notifier.stopping()
        code = 1 if failed.done() else 0
        log.info("gateway.stopping reason=%s", failed.result() if failed.done() else "signal")
        failed.cancel()
        stopped.cancel()
    return code


async def _watchdog(gateway: Gateway, notifier: Notifier) -> None:
    """A sign of life only after real ones: the store answers and the signer is not stuck."""
    pause_s = (notifier.watchdog_s or 30.0) / 3
    while True:
        problem = await signing_problem(gateway)
        if problem is None:
            notifier.alive()
            top = gateway.status.headline(gateway.monitor.as_json()["state"])
            notifier.status(f"{top.state}, {gateway.signer.waiting} waiting")
        else:
            log.error("watchdog.held reason=%s", problem)
            notifier.status(problem)
        await gateway.clock.sleep(pause_s)


async def signing_problem(gateway: Gateway) -> str | None:
    """Why only a restart can help, or None. A suspended shop or a paperless printer is none."""
    if gateway.db.broken is not None:
        return f"the store failed: {gateway.db.broken}"
    # Where only a person can help, a new process would find the same.
    person = gateway.status.set_up is not None and gateway.status.set_up.waits_for_person
    if gateway.unit.failure() is not None and not person:
        return f"the control unit ended: {gateway.unit.failure()}"
    since_ns, signer = gateway.signer.busy_since_ns, gateway.signer
    if since_ns is not None and signer.blocked is None and not signer.in_doubt:
        busy_s = (gateway.clock.boottime_ns() - since_ns) / 1e9
        if busy_s > gateway.settings.unit.answer_timeout_s + SALE_MAX_S:
            return f"one sale has been in hand for {busy_s:.0f} s"
    in_process = gateway.settings.unit.host == "in-process"
    if in_process and not person and gateway.watch.silent_s > UNIT_SILENT_MAX_S:
        return f"the control unit has been silent for {gateway.watch.silent_s:.0f} s"
    try:
        await asyncio.wait_for(gateway.db.write_soft(lambda conn: None), STORE_MAX_S)
    except StoreBusy:
        # Another program has it locked: a restart would not open that lock, and would lose the sale in hand.
        return None
    except asyncio.TimeoutError:
        if gateway.db.locked is not None:
            return None
        return f"the store has not answered for {STORE_MAX_S:.0f} s"
    except StoreError as error:
        return f"the store failed: {error.detail}"
    return None
