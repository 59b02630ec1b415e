"""Brings a store's schema up to this version, one numbered file at a time, each all or nothing."""

from __future__ import annotations

import logging
import re
import sqlite3
from importlib import resources
from pathlib import Path

from gateway.errors import SchemaNewer, StoreCorrupt

log = logging.getLogger(__name__)

# "PoSG": tells a stray database file from ours before anything is written to it.
APPLICATION_ID = 0x506F5347
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")


def migrations() -> list[tuple[int, str, str]]:
    """(number, file name, SQL) of every migration shipped, in order, numbered from 1 without gaps."""
    found = []
    for entry in resources.files("gateway.store").joinpath("migrations").iterdir():
        match = _NAME.fullmatch(entry.name)
        if match:
            found.append((int(match[1]), entry.name, entry.read_text(encoding="utf-8")))
    found.sort()
    if [number for number, _, _ in found] != list(range(1, len(found) + 1)):
        raise StoreCorrupt(
            f"the migrations are not numbered 1..n: {[name for _, name, _ in found]}"
        )
    return found


def migrate(conn: sqlite3.Connection, path: Path) -> int:
    """Apply what is missing; return the version reached. A copy is made before an existing file changes.

    SchemaNewer when a newer gateway wrote the file, StoreCorrupt when it is not a store. Whether it is whole is
    checked elsewhere (verify.py): a check of the whole file takes minutes, and a start must not.
    """
    known = migrations()
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    application: int = conn.execute("PRAGMA application_id").fetchone()[0]
    if version > 0 and application != APPLICATION_ID:
        raise StoreCorrupt(f"{path.name} is not a gateway's store")
    if version > len(known):
        raise SchemaNewer(
            f"The store is at version {version}, this gateway knows {len(known)}. "
            "Install the newer gateway again."
        )
    if 0 < version < len(known):
        copy = path.with_name(f"{path.name}.before-{len(known):04d}")
        copy.unlink(missing_ok=True)
        conn.execute("VACUUM INTO ?", (str(copy),))
    for number, name, sql in known[version:]:
        _apply(conn, number, sql)
        log.info("store.migrated file=%s", name)
    return len(known)


def _apply(conn: sqlite3.Connection, number: int, sql: str) -> None:
    script = (
        f"BEGIN IMMEDIATE;\n{sql}\n"
        f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
    )
    try:
        conn.executescript(script)
    except sqlite3.Error:
        # A script that fails leaves its own BEGIN open.
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
