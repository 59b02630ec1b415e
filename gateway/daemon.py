"""The process around the gateway: signals, readiness and the watchdog towards systemd, the exit code."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket

from gateway import emergency
from gateway.app import Gateway, open_gateway
from gateway.clock import SystemClock
from gateway.errors import DiskFull, SchemaNewer, StoreCorrupt, StoreError
from gateway.ops import memory
from gateway.ops.systemd import Notifier
from gateway.settings import Settings
from gateway.store.ballast import has_room

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


async def run(settings: Settings, notifier: Notifier | None = None) -> int:
    """The daemon: until SIGTERM or SIGINT, or until a part that must not die has died. Exit code."""
    notifier = notifier or Notifier()
    try:
        return await _serve(settings, notifier)
    except (StoreCorrupt, SchemaNewer, DiskFull) as error:
        return await _explain(settings, notifier, error)


async def _explain(settings: Settings, notifier: Notifier, error: StoreError) -> int:
    """The store must not be used: say so on the port until somebody stops us (0), or until a full disk has
    room again (1: a JVM may have run in this process already, so another one goes on)."""
    stop, told = asyncio.Event(), asyncio.Event()

    def end() -> None:
        told.set()
        stop.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, end)
    pause_s = min((notifier.watchdog_s or 30.0) / 3, ROOM_S)

    async def alive() -> None:
        while True:
            notifier.alive()
            notifier.status(f"nothing is signed: {error.code}")
            if isinstance(error, DiskFull) and has_room(settings.store.directory, ROOM_BYTES):
                log.info("store.room_again bytes=%d", ROOM_BYTES)
                stop.set()
                return
            await SystemClock().sleep(pause_s)

    heart = asyncio.ensure_future(alive())
    try:
        await emergency.serve(settings, error, stop, notifier.ready)
    finally:
        heart.cancel()
    notifier.stopping()
    return 0 if told.is_set() else 1


async def _serve(settings: Settings, notifier: Notifier) -> int:
    stop = asyncio.Event()
    async with open_gateway(settings) as gateway:
        loop = asyncio.get_running_loop()
        # After the JVM's start, which would take them otherwise.
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, stop.set)
        gateway.supervisor.start("watchdog", lambda: _watchdog(gateway, notifier))
        log.info("memory.settled objects=%d", memory.settle())
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
    if gateway.unit.failure() is not None:
        return f"the control unit ended: {gateway.unit.failure()}"
    since_ns, signer = gateway.signer.busy_since_ns, gateway.signer
    if since_ns is not None and signer.blocked is None and not signer.in_doubt:
        busy_s = (gateway.clock.boottime_ns() - since_ns) / 1e9
        if busy_s > gateway.settings.unit.answer_timeout_s + SALE_MAX_S:
            return f"one sale has been in hand for {busy_s:.0f} s"
    in_process = gateway.settings.unit.host == "in-process"
    if in_process and gateway.watch.silent_s > UNIT_SILENT_MAX_S:
        return f"the control unit has been silent for {gateway.watch.silent_s:.0f} s"
    try:
        await asyncio.wait_for(gateway.db.write_soft(lambda conn: None), STORE_MAX_S)
    except asyncio.TimeoutError:
        return f"the store has not answered for {STORE_MAX_S:.0f} s"
    except StoreError as error:
        return f"the store failed: {error.detail}"
    return None
