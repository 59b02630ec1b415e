"""Puts a backup in the place of a store, so that a power cut at any moment leaves one that knows what it is.

Putting the unit's folder back would put its counters back too, so that happens only when asked for, and
never over a folder that is there. A restored store knows that it is an old copy (`fiscal/ahead.py`), and
what the store that it takes the place of can still tell (`lost.py`). While files are being moved a note
lies beside them; a gateway does not start then, and the same command goes on where it was cut short.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from gateway.clock import micros
from gateway.errors import StoreCorrupt, StoreError
from gateway.store import damage, folders, meta, migrate, verify
from gateway.store.backup import MANIFEST, give
from gateway.store.database import FILE_NAME, UNFINISHED, only_instance
from gateway.store.lost import Carried, carry

_SCRATCH = ".restoring-"
# Bytes.
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Begun:
    """The note. `replaced`: the folder where the old store goes; `unit`: the unit's folder is put back, too."""

    replaced: str | None
    unit: bool


def restore(backup: Path, store: Path, unit: Path | None, at: datetime) -> dict[str, Any]:
    """Put the store of `backup` in place of the one in `store`, which is kept beside it.

    `unit`: put the unit's folder back there, too; StoreError when anything is in it already. The
    manifest, with `replaced` saying where the old store went, and `carried` what was taken over from it
    (`lost.Carried`). StoreError, StoreCorrupt, SchemaNewer: nothing is changed, or the gateway does not
    start until it was run again.
    """
    try:
        owner = next(place for place in (store, *store.parents) if place.exists()).stat()
        store.mkdir(parents=True, exist_ok=True)
        with only_instance(store):
            for left in store.glob(f"{_SCRATCH}*"):
                shutil.rmtree(left, ignore_errors=True)
            # On the store's own file system, so that the last step is a change of names.
            with tempfile.TemporaryDirectory(dir=store, prefix=_SCRATCH) as scratch:
                return _restore(backup, store, unit, at, Path(scratch), owner)
    except (OSError, sqlite3.Error, shutil.Error) as error:
        raise StoreError(f"The backup could not be put back: {error}") from error


def _restore(
    backup: Path, store: Path, unit: Path | None, at: datetime, folder: Path, owner: os.stat_result
) -> dict[str, Any]:
    manifest = _unpack(backup, folder)
    begun = _begun(store)
    cut_short = begun is not None and begun.unit
    if unit is not None and not cut_short and unit.is_dir() and any(unit.iterdir()):
        raise StoreError(
            f"{unit} is not empty. Its counters would be put back to {manifest['createdAt']}; "
            "move it away first if that is what you want."
        )
    replaced = None
    if begun is not None and begun.replaced is not None:
        replaced = store / begun.replaced
        _move_on(store, replaced)
    place = store if replaced is None else replaced
    was_there = any(place.glob(f"{FILE_NAME}*"))
    carried = _prepare(
        folder / FILE_NAME,
        manifest,
        unit_too=unit is not None or cut_short,
        lost=place / FILE_NAME if was_there else None,
        at=at,
    )
    if replaced is None and was_there:
        replaced = Path(tempfile.mkdtemp(prefix=f"replaced-{at:%Y%m%dT%H%M%SZ}-", dir=store))
    note = _Begun(None if replaced is None else replaced.name, unit is not None or cut_short)
    _write(store / UNFINISHED, json.dumps(asdict(note)))
    if replaced is not None:
        # The log of a store belongs to it: beside another one it would be played into that.
        for file in store.glob(f"{FILE_NAME}*"):
            file.replace(replaced / file.name)
        folders.sync(replaced)
    (folder / FILE_NAME).replace(store / FILE_NAME)
    folders.sync(store)
    places = [store]
    if unit is not None and (folder / "unit").is_dir():
        shutil.copytree(folder / "unit", unit, dirs_exist_ok=True)
        for path in (unit, *unit.rglob("*")):
            folders.sync(path)
        places.append(unit)
    for place in places:
        give(place, owner)
    # What was noted was damage of the store that is replaced.
    (store / damage.FILE_NAME).unlink(missing_ok=True)
    (store / UNFINISHED).unlink()
    folders.sync(store)
    return {**manifest, "carried": carried, "replaced": str(replaced) if replaced else None}


def _begun(store: Path) -> _Begun | None:
    try:
        return _Begun(**json.loads((store / UNFINISHED).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise StoreCorrupt(
            f"{store / UNFINISHED} cannot be read. Look into {store}: what was there before lies in the newest "
            "replaced-... folder."
        ) from error


def _move_on(store: Path, replaced: Path) -> None:
    """What the cut left here of the old store goes to the rest of it; a copy that lies here already is made
    anew."""
    for file in store.glob(f"{FILE_NAME}*"):
        if (replaced / file.name).exists():
            file.unlink()
        else:
            file.replace(replaced / file.name)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    part.replace(path)
    folders.sync(path.parent)


def _unpack(backup: Path, folder: Path) -> dict[str, Any]:
    """Every file of the backup into `folder`, each checked. StoreCorrupt for any that is not whole."""
    try:
        with gzip.open(backup) as whole:
            with tarfile.open(fileobj=whole, mode="r:") as tar:
                _extract(tar, folder)
            # Only its end holds the checksum of all that was compressed.
            while whole.read(_PIECE):
                pass
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


def _prepare(
    path: Path, manifest: dict[str, Any], *, unit_too: bool, lost: Path | None, at: datetime
) -> Carried:
    """Makes the copy know what it is, and what the store that it replaces can still tell."""
    conn = sqlite3.connect(path)
    try:
        # A backup of an older version lacks tables that are written here.
        migrate.migrate(conn, path)
        problem = verify.whole(conn)
        if problem is not None:
            raise StoreCorrupt(f"The store in this backup is damaged: {problem} Take an older one.")
        with conn:
            meta.put(conn, meta.RESTORED, str(manifest["createdMicros"]))
            # Another store from now on: the one that it was may be put back by hand one day.
            meta.remove(conn, meta.STORE_ID)
            meta.remove(conn, meta.WITNESS_ID)
            meta.remove(conn, meta.NOTICED)
            if unit_too:
                meta.put(conn, meta.UNIT_RESTORED, "1")
            carried = Carried() if lost is None else carry(conn, lost, at=micros(at))
    finally:
        conn.close()
    folders.sync(path)
    return carried
