"""One backup in one file: the store as of one moment, the unit's folder with its keys, a manifest.

Losing the unit's keys means a de-registration at KRA (etims.md 1.5), so they are part of it; putting
the unit's folder back would put its counters back too, so that happens only when asked for, and
never over a folder that is there. A restored store knows that it is an old copy (`fiscal/ahead.py`).
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
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from gateway.clock import micros
from gateway.errors import StoreCorrupt, StoreError
from gateway.store import folders, meta, migrate
from gateway.store.database import FILE_NAME, only_instance
from gateway.store.lost import Carried, carry

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
UNIT = "unit/"
# A log or a JAR in the unit's folder is not what a backup is for. Bytes.
UNIT_FILE_MAX = 64 * 1024 * 1024
# In the meta of a restored store until the unit agrees with it; the value is the copy's age (micros).
RESTORED_KEY = "store.restored"
# Beside it when the unit's folder was put back as well: then the unit's word for it proves nothing.
UNIT_RESTORED_KEY = "store.restored_unit"
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
        _give(target if new else path, store.stat())
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


def restore(backup: Path, store: Path, unit: Path | None, at: datetime) -> dict[str, Any]:
    """Put the store of `backup` in place of the one in `store`, which is kept beside it.

    `unit`: put the unit's folder back there, too; StoreError when anything is in it already. The
    manifest, with `replaced` saying where the old store went, and `carried` what was taken over from it
    (`lost.Carried`). StoreError, StoreCorrupt, SchemaNewer: nothing is changed.
    """
    owner = (store if store.exists() else store.parent).stat() if store.parent.exists() else None
    store.mkdir(parents=True, exist_ok=True)
    with only_instance(store), tempfile.TemporaryDirectory(dir=store.parent) as scratch:
        folder = Path(scratch)
        manifest = _unpack(backup, folder)
        if unit is not None and unit.is_dir() and any(unit.iterdir()):
            raise StoreError(
                f"{unit} is not empty. Its counters would be put back to {manifest['createdAt']}; "
                "move it away first if that is what you want."
            )
        lost = store / FILE_NAME
        carried = _prepare(
            folder / FILE_NAME,
            manifest,
            unit_too=unit is not None,
            lost=lost if lost.exists() else None,
            at=at,
        )
        replaced = None
        if lost.exists():
            replaced = Path(tempfile.mkdtemp(prefix=f"replaced-{at:%Y%m%dT%H%M%SZ}-", dir=store))
            for file in store.glob(f"{FILE_NAME}*"):
                file.replace(replaced / file.name)
        (folder / FILE_NAME).replace(store / FILE_NAME)
        folders.sync(store)
        if unit is not None and (folder / "unit").is_dir():
            shutil.copytree(folder / "unit", unit, dirs_exist_ok=True)
        if owner is not None:
            for place in (store, unit) if unit is not None and unit.is_dir() else (store,):
                _give(place, owner)
        return {**manifest, "carried": carried, "replaced": str(replaced) if replaced else None}


def _copy_store(source: Path, copy: Path) -> int:
    conn = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    try:
        conn.execute("VACUUM INTO ?", (str(copy),))
    finally:
        conn.close()
    check = sqlite3.connect(copy)
    try:
        if check.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise StoreError("The backup is damaged, so the store is. Call the technician.")
        return int(check.execute("SELECT COUNT(*) FROM receipt").fetchone()[0])
    finally:
        check.close()


def _write(part: Path, copy: Path, unit: Path | None, at: datetime, receipts: int) -> None:
    files = [(FILE_NAME, copy)]
    if unit is not None and unit.is_dir():
        for file in sorted(unit.rglob("*")):
            if file.is_file() and file.suffix != ".jar" and file.stat().st_size < UNIT_FILE_MAX:
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


def _unpack(backup: Path, folder: Path) -> dict[str, Any]:
    """Every file of the backup into `folder`, each checked. StoreCorrupt for any that is not whole."""
    try:
        with tarfile.open(backup) as tar:
            _extract(tar, folder)
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        for name, digest in manifest["sha256"].items():
            with (folder / name).open("rb") as file:
                found_digest = hashlib.file_digest(file, "sha256").hexdigest()
            if found_digest != digest:
                raise StoreCorrupt(f"{backup.name} is damaged: {name} is not what was saved.")
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError, KeyError) as error:
        raise StoreCorrupt(f"{backup.name} is no backup that can be used: {error}") from error
    if FILE_NAME not in manifest["sha256"]:
        raise StoreCorrupt(f"{backup.name} holds no store.")
    return manifest


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Plain files below `folder` and nothing else; tarfile's own filter came with Python 3.11.4 only."""
    for member in tar:
        name = PurePosixPath(member.name)
        source = tar.extractfile(member) if member.isreg() else None
        if source is None or name.is_absolute() or ".." in name.parts:
            raise tarfile.TarError(f"it holds {member.name!r}, which is no file of a backup")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with source, os.fdopen(handle, "wb") as out:
            shutil.copyfileobj(source, out)


def _give(place: Path, owner: os.stat_result) -> None:
    """What root made by hand, to the user that the gateway runs as: it could not use it otherwise.

    A file system without owners (a stick) refuses, and needs none.
    """
    if os.geteuid() != 0:
        return
    for path in [place, *place.rglob("*")]:
        with contextlib.suppress(OSError):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _prepare(
    path: Path, manifest: dict[str, Any], *, unit_too: bool, lost: Path | None, at: datetime
) -> Carried:
    """Makes the copy know what it is, and what the store that it replaces can still tell."""
    conn = sqlite3.connect(path)
    try:
        # A backup of an older version lacks tables that are written here.
        migrate.migrate(conn, path)
        with conn:
            meta.put(conn, RESTORED_KEY, str(manifest["createdMicros"]))
            if unit_too:
                meta.put(conn, UNIT_RESTORED_KEY, "1")
            return Carried() if lost is None else carry(conn, lost, at=micros(at))
    finally:
        conn.close()
