"""One backup in one file: the store as of one moment, the unit's folder with its keys, a manifest.

Losing the unit's keys means a de-registration at KRA (etims.md 1.5), so they are part of it. How it is put
back: `restore.py`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from gateway.clock import micros
from gateway.errors import StoreCorrupt, StoreError
from gateway.store import folders, verify, witness
from gateway.store.database import FILE_NAME

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNIT = "unit/"
# A log or a JAR in the unit's folder is not what a backup is for. Bytes.
UNIT_FILE_MAX = 64 * 1024 * 1024
# On the store's own disk backups leave this to selling. Bytes.
SELLING_ROOM = 512 * 1024 * 1024
# zlib's: most of the gain at a third of the time.
COMPRESSION = 3


@dataclass(frozen=True, slots=True)
class Made:
    """A finished backup. `receipts` is how many signed receipts it holds."""

    path: Path
    size: int
    receipts: int


def make(store: Path, unit: Path | None, target: Path, at: datetime) -> Made:
    """Copy the open store and the unit's folder into a new file in `target`. StoreError if it cannot.

    Runs beside the daemon: SQLite's own copy of one read snapshot, no writer waits.
    """
    path = target / f"pos-gateway-{at:%Y%m%dT%H%M%SZ}.tar.gz"
    part = target / f"{path.name}.part"
    new = not target.exists()
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            clear_away(target)
            for old in make_room(store, target):
                log.warning("backup.deleted file=%s reason=room", old.name)
            with tempfile.TemporaryDirectory(dir=target, prefix=".making-") as scratch:
                copy = Path(scratch) / FILE_NAME
                receipts = _copy_store(store / FILE_NAME, copy)
                _write(part, copy, unit, at, receipts)
            part.replace(path)
        give(target if new else path, store.stat())
        folders.sync(target)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"The backup could not be made: {error}") from error
    return Made(path, path.stat().st_size, receipts)


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One backup at a time in `target`, by hand or by the daemon: what one makes is leftovers to another.
    The kernel's lock on the folder ends with its process. StoreError while another has it."""
    handle = os.open(target, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"Another backup is being made in {target}. Try again when it is done."
            ) from None
        yield
    finally:
        os.close(handle)


def make_room(store: Path, target: Path, reserve: int | None = None) -> list[Path]:
    """Delete the oldest backups, never the newest, until another fits; what was deleted. StoreError when
    it does not fit even then: a backup must not take the room that selling needs (`reserve`, in bytes;
    by default SELLING_ROOM where both are on one disk)."""
    if reserve is None:
        reserve = SELLING_ROOM if store.stat().st_dev == target.stat().st_dev else 0
    # The copy, and the file that is made of it.
    needed = 2 * sum(file.stat().st_size for file in store.glob(f"{FILE_NAME}*")) + reserve
    gone = []
    for path in found(target)[:-1]:
        if shutil.disk_usage(target).free >= needed:
            break
        path.unlink()
        gone.append(path)
    free = shutil.disk_usage(target).free
    if free < needed:
        raise StoreError(
            f"There is no room for a backup: {free // 2**20} MB are free in {target}, "
            f"{needed // 2**20} MB are needed. Set backup.directory to another disk."
        )
    return gone


def clear_away(target: Path) -> None:
    """What a backup left that was killed while it was made."""
    for path in target.glob(".making-*"):
        shutil.rmtree(path, ignore_errors=True)
    for path in target.glob("pos-gateway-*.part"):
        path.unlink(missing_ok=True)


def rotate(target: Path, keep: int) -> list[Path]:
    """Delete the oldest beyond `keep`; what was deleted."""
    old = found(target)[:-keep] if keep else []
    for path in old:
        path.unlink()
    return old


def found(target: Path) -> list[Path]:
    """The backups in `target`, oldest first (their names sort by time)."""
    return sorted(target.glob("pos-gateway-*.tar.gz"))


def _copy_store(source: Path, copy: Path) -> int:
    conn = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    try:
        conn.execute("VACUUM INTO ?", (str(copy),))
    finally:
        conn.close()
    check = sqlite3.connect(copy)
    try:
        problem = verify.whole(check)
        if problem is not None:
            raise StoreCorrupt(
                f"The backup is damaged, so the store is: {problem} Call the technician."
            )
        return int(check.execute("SELECT COUNT(*) FROM receipt").fetchone()[0])
    finally:
        check.close()


def _write(part: Path, copy: Path, unit: Path | None, at: datetime, receipts: int) -> None:
    files = [(FILE_NAME, copy)]
    if unit is not None and unit.is_dir():
        for file in sorted(unit.rglob("*")):
            # The witness is of the store's own time; beside a copy that is put back it must show what came later.
            ours = file.name.startswith(witness.FILE_NAME)
            if ours or file.suffix == ".jar" or not file.is_file():
                continue
            if file.stat().st_size < UNIT_FILE_MAX:
                files.append((UNIT + file.relative_to(unit).as_posix(), file))
    digests = {}
    # Keys of a fiscal device are in it: nobody but the gateway's user reads it.
    handle = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        with tarfile.open(fileobj=out, mode="w:gz", compresslevel=COMPRESSION) as tar:
            for name, file in files:
                with file.open("rb") as source:
                    hashed = _Hashed(source)
                    _add(tar, name, hashed, os.fstat(source.fileno()).st_size, at)
                    digests[name] = hashed.digest.hexdigest()
            manifest = {
                "version": 1,
                "createdAt": at.isoformat(timespec="seconds"),
                "createdMicros": micros(at),
                "receipts": receipts,
                "sha256": digests,
            }
            text = json.dumps(manifest, indent=1).encode()
            _add(tar, MANIFEST, io.BytesIO(text), len(text), at)
        out.flush()
        os.fsync(out.fileno())


class _Hashed:
    """A file that is hashed as it is read: a store of years does not fit into memory."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._source.read(size)
        self.digest.update(piece)
        return piece


def _add(tar: tarfile.TarFile, name: str, body: Any, size: int, at: datetime) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, int(at.timestamp()), 0o600
    tar.addfile(info, body)


def give(place: Path, owner: os.stat_result) -> None:
    """What root made by hand, to the user that the gateway runs as: it could not use it otherwise.

    A file system without owners (a stick) refuses, and needs none.
    """
    if os.geteuid() != 0:
        return
    for path in [place, *place.rglob("*")]:
        with contextlib.suppress(OSError):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
