"""A power cut on a disk whose pages may be torn and written in any order.

The model holds what is durable at each moment, by the order in which SQLite syncs: a full commit syncs the WAL; a
checkpoint syncs the WAL, writes pages into the main file and syncs that; a WAL that begins again has its new header
synced before any frame (sqlite3 `walFrames`). Of everything else any sectors may be there, and any may be missing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.world import World

DAYS = 0.15
SECTOR = 512
# Bytes of the WAL's header.
HEADER = 32


@dataclass(frozen=True, slots=True)
class Files:
    """The main file and the WAL."""

    main: bytes
    wal: bytes


def of(world: World) -> Pages | None:
    """Return the model of this day's disk; most days have a WAL that is cut at its end, and no checkpoint."""
    dice = random.Random(f"pages {world.seed}")
    return Pages(dice) if dice.random() < DAYS else None


def mixed(dice: random.Random, old: bytes, new: bytes) -> bytes:
    """Return the file with some sectors as they were and some as they were written last."""
    length = (
        len(new)
        if len(new) <= len(old)
        else dice.choice((len(new), dice.randint(len(old), len(new))))
    )
    kept = dice.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    made = bytearray(new[:length])
    for at in range(0, length, SECTOR):
        sector = old[at : at + SECTOR]
        if sector != new[at : at + SECTOR] and dice.random() >= kept:
            # Nothing was there: a hole of the file reads as zeros.
            made[at : at + SECTOR] = sector.ljust(min(SECTOR, length - at), b"\0")
    return bytes(made)


class Pages:
    """What of the files is durable, and what the last transaction changed."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        # Pages of the WAL after which a checkpoint follows a commit.
        self.every = dice.choice((2, 10, 40, 200))
        self._now = self._durable = self._before = Files(b"", b"")
        self.syncs = True
        # What was durable before each of the last checkpoints, for disks that lie.
        self.older: list[Files] = []

    def opened(self, main: bytes, wal: bytes) -> None:
        """Begin with the files of a start, which has synced them."""
        self._now = self._durable = self._before = Files(main, wal)
        self.older.clear()

    def wrote(self, main: bytes, wal: bytes, *, full: bool, syncs: bool = True) -> None:
        """Record what the files are after a transaction. `full`: its commit was synced; `syncs`: the store syncs at all."""
        self.syncs = syncs
        if not syncs:
            self._now = Files(main, wal)
            return
        if main != self._now.main:
            # A checkpoint: the WAL was synced before it, the main file after it.
            self.older = [*self.older[-2:], self._durable]
            full = True
        if full:
            self._durable = Files(main, wal)
        elif wal[:HEADER] != self._durable.wal[:HEADER]:
            self._durable = Files(main, wal[:HEADER] + self._durable.wal[HEADER : len(wal)])
        self._now = Files(main, wal)

    def settle(self) -> None:
        """Go on from the last transaction: from here on it must survive."""
        self._before = self._durable

    def after_power_cut(self) -> tuple[Files, bool]:
        """Return the files that the next process finds, and whether the last transaction's own sync was cut short."""
        dice, now, before = self._dice, self._now, self._before
        cut = before != self._durable and dice.random() < 0.3
        if not cut:
            main = self._durable.main if self.syncs else mixed(dice, self._durable.main, now.main)
            return Files(main, self._with_header(self._durable.wal, now.wal)), False
        if now.main != before.main and dice.random() < 0.5:
            # In the checkpoint: the WAL is whole.
            return Files(mixed(dice, before.main, now.main), now.wal), True
        if now.wal[:HEADER] != before.wal[:HEADER] and dice.random() < 0.3:
            # Before the new header is on the disk no frame follows it.
            return before, True
        return Files(before.main, self._with_header(before.wal, now.wal)), True

    def _with_header(self, old: bytes, new: bytes) -> bytes:
        """Mix the frames; the newest header was synced before them."""
        made = mixed(self._dice, old, new)
        if not self.syncs:
            return made
        return new[:HEADER] + made[HEADER:] if len(made) >= HEADER else made
