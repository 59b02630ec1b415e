"""Disks that lose what was synced, and disks that change what they hold while the machine is off.

A directory entry is lost, the log is cut anywhere, pages of a synced checkpoint are as they were before it, a bit of a
page is another one. The store then comes up whole, or it refuses to start or holds with a named problem.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tests.sim.pages import SECTOR, Files, Pages, mixed

if TYPE_CHECKING:
    from tests.sim.world import World

DAYS = 0.15
FLIPS = ("flip main", "flip main", "flip wal", "flip frame")
LIES = ("no wal", "cut wal", "cut wal", "stale", "stale")


def of(world: World, *, lies: bool) -> Rot | None:
    """Return what this day's disk does; most disks keep what they were given."""
    dice = random.Random(f"rot {world.seed}")
    rots = dice.random() < DAYS
    kinds = (*(FLIPS if rots else ()), *(LIES if lies and dice.random() < 0.5 else ()))
    return Rot(dice, kinds, world) if kinds else None


class Rot:
    """What is wrong with the files of a machine that was off."""

    def __init__(self, dice: random.Random, kinds: tuple[str, ...], world: World) -> None:
        self._dice = dice
        self._kinds = kinds
        self._world = world
        self._left = dice.choice((1, 1, 2))

    def spoiled(self, files: Files, pages: Pages | None) -> Files | None:
        """Return the files as the disk gives them back; None where it has kept them."""
        if self._left == 0 or self._world.quiet or self._dice.random() < 0.2:
            return None
        kind = self._dice.choice(self._kinds)
        made = self._made(kind, files, pages)
        if made is None or made == files:
            return None
        self._left -= 1
        self._world.trace(f"the disk: {kind}, main {len(files.main)} wal {len(files.wal)}")
        return made

    def _made(self, kind: str, files: Files, pages: Pages | None) -> Files | None:
        dice = self._dice
        if kind == "flip main":
            return Files(flipped(dice, files.main), files.wal)
        if kind == "flip wal":
            return Files(files.main, flipped(dice, files.wal))
        if kind == "flip frame":
            # Near its end, where the newest sales are.
            near = max(0, len(files.wal) - 40 * SECTOR)
            return Files(files.main, files.wal[:near] + flipped(dice, files.wal[near:]))
        if kind == "no wal":
            return Files(files.main, b"")
        if kind == "cut wal":
            return Files(files.main, files.wal[: dice.randint(0, len(files.wal))])
        if pages is None or not pages.older:
            return None
        older = dice.choice(pages.older)
        wal = dice.choice((files.wal, mixed(dice, older.wal, files.wal)))
        return Files(mixed(dice, older.main, files.main), wal)


def flipped(dice: random.Random, data: bytes) -> bytes:
    """Return `data` with one bit changed."""
    if not data:
        return data
    made = bytearray(data)
    made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)
    return bytes(made)


@contextlib.contextmanager
def looked_at(files: Files) -> Iterator[sqlite3.Connection]:
    """Open a copy of the files: a look must not change what the next process finds."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        path = Path(name) / "copy.db"
        path.write_bytes(files.main)
        if files.wal:
            Path(f"{path}-wal").write_bytes(files.wal)
        with contextlib.closing(sqlite3.connect(path)) as conn:
            yield conn
