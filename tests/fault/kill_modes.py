"""The seven ways in which a running shop is hit, one function each. Each hits at the moment it is called and
returns when what systemd, the kernel or an operator does about it is done; it need not sell yet."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.conftest import need_tool
from tests.support.disks import LoopDisk, MemoryDisk, mounted
from tests.support.kill_shop import AT_WORK_S, GONE, STUCK_S, Books, KillShop, send

# A stop of the unit's process is part of its work, which AT_WORK_S bounds. Seconds.
STOP_MAX_S = AT_WORK_S / 2
DISK_MB = 64


@dataclass(slots=True)
class Hit:
    """One shop, its disk where the mode needs one, and the random source."""

    shop: KillShop
    disk: MemoryDisk | LoopDisk | None

    @property
    def chance(self) -> Random:
        return self.shop.chance

    async def at_unit(self) -> bool:
        """Return whether an external unit is hit instead of the daemon."""
        return self.shop.machine is not None and self.chance.random() < 0.5


async def set_knobs(hit: Hit, **values: object) -> None:
    """Set knobs of the unit, however often it is restarted until then. An external unit that has ended has
    taken the knob that ends it, and lost the answer."""
    machine = hit.shop.machine
    async with asyncio.timeout(STUCK_S):
        while machine is None or machine.is_running:
            try:
                await hit.shop.unit.knobs(**values)
                return
            except (*GONE, OSError):
                await asyncio.sleep(0.02)


async def restart_unit(hit: Hit) -> None:
    """Start an external unit again: at once, or when the operator sees that it is down."""
    machine = hit.shop.machine
    assert machine is not None
    if hit.chance.random() < 0.5:
        await hit.shop.stands_or_sells()
    await machine.start()


async def sigkill(hit: Hit) -> None:
    """SIGKILL to the daemon, to an external unit, or to both at once."""
    both = hit.shop.machine is not None and hit.chance.random() < 0.2
    at_unit = both or await hit.at_unit()
    if at_unit:
        assert hit.shop.machine is not None
        hit.shop.machine.kill()
    if both or not at_unit:
        send(hit.shop.daemon.pid, signal.SIGKILL)
    if at_unit:
        await restart_unit(hit)


async def stop_and_continue(hit: Hit) -> None:
    """SIGSTOP, and SIGCONT later; or SIGKILL, as the watchdog ends a process that hangs."""
    machine = hit.shop.machine
    at_unit = await hit.at_unit()
    pid = machine.pid if machine is not None and at_unit else hit.shop.daemon.pid
    if not send(pid, signal.SIGSTOP):
        return
    await asyncio.sleep(hit.chance.uniform(0.02, STOP_MAX_S if at_unit else 1.0))
    if hit.chance.random() < 0.2:
        send(pid, signal.SIGKILL)
        if at_unit:
            await restart_unit(hit)
    else:
        send(pid, signal.SIGCONT)
    # Never two stops within one request of the unit.
    await hit.shop.sells()


async def jvm_exit(hit: Hit) -> None:
    """The JVM ends between signing and answering, or right before it signs; in process all ends with it."""
    ends = len(hit.shop.systemd.exits)
    knob = hit.chance.choice(("dieAfterCommit", "dieBeforeCommit"))
    await set_knobs(hit, **{knob: True})
    machine = hit.shop.machine
    async with asyncio.timeout(STUCK_S):
        while machine.is_running if machine else len(hit.shop.systemd.exits) == ends:
            await asyncio.sleep(0.01)
    if machine is not None:
        await restart_unit(hit)


async def disk_full(hit: Hit) -> None:
    """The store's disk is full for a while, with or without a kill in that time; or the unit's."""
    if hit.chance.random() < 0.15:
        await set_knobs(hit, diskFull=True)
        await hit.shop.stands_or_sells()
        await set_knobs(hit, diskFull=False)
        return
    assert isinstance(hit.disk, MemoryDisk)
    hit.disk.fill()
    await asyncio.sleep(hit.chance.uniform(0.02, 0.8))
    if hit.chance.random() < 0.15:
        send(hit.shop.daemon.pid, signal.SIGKILL)
        await hit.shop.stands_or_sells()
    hit.disk.free()


async def io_error(hit: Hit) -> None:
    """EIO from the kernel at the store's files: fsync, write or read, once or for as long as it runs."""
    call = hit.chance.choice(("fsync,fdatasync", "pwrite64", "pread64"))
    when = f"{hit.chance.randint(1, 30)}{hit.chance.choice(('', '+'))}"
    store = hit.shop.daemon.directory / "store"
    files = [arg for name in ("", "-wal") for arg in ("-P", str(store / f"gateway.db{name}"))]
    process = await asyncio.create_subprocess_exec(
        need_tool("strace"), "-f", "-qq", "-o", "/dev/null", "-p", str(hit.shop.daemon.pid), *files,
        "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={when}",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    ended = asyncio.ensure_future(process.wait())
    # It ends with the daemon; else it is detached, and the disk is well again.
    await asyncio.wait({ended}, timeout=hit.chance.uniform(0.2, 1.5))
    if not ended.done():
        process.send_signal(signal.SIGINT)
        await ended


async def read_only(hit: Hit) -> None:
    """The file system finds an error and becomes read-only; an operator checks, repairs and mounts it."""
    assert isinstance(hit.disk, LoopDisk)
    hit.disk.fail()
    await hit.shop.stands_or_sells()
    if hit.chance.random() < 0.3:
        # Started again on the read-only disk, it names the problem or refuses to start.
        await hit.shop.stands_or_sells()
    await hit.shop.systemd.stop()
    hit.disk.unmount()
    hit.disk.repair()
    hit.disk.mount()
    hit.shop.systemd.start()
    await hit.shop.ready()


async def no_descriptors(hit: Hit) -> None:
    """The process may open next to no file and no connection for a while."""
    machine = hit.shop.machine
    at_unit = await hit.at_unit()
    pid = machine.pid if machine is not None and at_unit else hit.shop.daemon.pid
    try:
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        few = min(hard, used + hit.chance.choice((0, 0, 1, 4)))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, hard))
        await asyncio.sleep(hit.chance.uniform(0.05, 1.5))
        if hit.chance.random() < 0.1:
            send(pid, signal.SIGKILL)
            if at_unit:
                await restart_unit(hit)
            return
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    except (ProcessLookupError, FileNotFoundError):
        return  # it ended for another reason, and is started again


MODES: dict[str, Callable[[Hit], Awaitable[None]]] = {
    "SIGKILL": sigkill,
    "SIGSTOP": stop_and_continue,
    "JVM exit": jvm_exit,
    "disk full": disk_full,
    "EIO": io_error,
    "read-only": read_only,
    "descriptors": no_descriptors,
}
HOSTS = ("in-process", "external")


@dataclass(slots=True)
class Row:
    """A line of the table."""

    mode: str
    host: str
    hits: int
    seed: int
    books: Books
    seconds: float = 0.0
    held: bool = False

    def __str__(self) -> str:
        b = self.books
        return (
            f"{self.mode:<12} {self.host:<11} {self.hits:>5} {b.sales:>7} {b.doubles:>8} {b.lost:>5} "
            f"{b.decided:>8} {len(b.wrong):>6} {self.seconds:>8.1f}  {self.seed}{' held' if self.held else ''}"
        )


HEAD = (
    f"{'mode':<12} {'host':<11} {'hits':>5} {'sales':>7} {'doubles':>8} {'lost':>5} {'decided':>8} "
    f"{'wrong':>6} {'seconds':>8}  seed"
)


def disk_of(mode: str, directory: Path) -> MemoryDisk | LoopDisk | None:
    if mode == "disk full":
        return MemoryDisk(directory / "store", DISK_MB)
    if mode == "read-only":
        return LoopDisk(directory / "store", directory / "store.img", DISK_MB)
    return None


async def life(directory: Path, mode: str, host: str, hits: int, seed: int) -> Row:
    """Open a shop, hit it `hits` times while it sells, close it, and compare the books."""
    if mode == "EIO":
        need_tool("strace")
    chance = Random(f"{mode}/{host}/{seed}")
    begun = time.monotonic()
    disk = disk_of(mode, directory)
    with ExitStack() as stack:
        if disk is not None:
            stack.enter_context(mounted(disk))
        shop = KillShop(
            directory,
            external=host == "external",
            read_back=chance.random() < 0.5,
            chance=chance,
        )
        # An aborted ext4 has been seen to lose what it had synced; the store's witness shows that.
        shop.may_be_held = mode == "read-only"
        async with shop:
            hit = Hit(shop, disk)
            made = 0
            while made < hits and not shop.held:
                made += 1
                await asyncio.sleep(chance.uniform(0.02, 0.5))  # at a random moment of the load
                await MODES[mode](hit)
                if chance.random() < 0.75:
                    await shop.sells()
                elif not shop.systemd.ready.is_set():
                    await shop.ready()
            books = await shop.books()
    return Row(mode, host, made, seed, books, time.monotonic() - begun, shop.held is not None)
