"""A power cut at every step of putting a backup back: the next start knows, and the next try ends well."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway import tools
from gateway.errors import StoreCorrupt
from gateway.store import lost, meta
from gateway.store.database import FILE_NAME, UNFINISHED, open_database
from gateway.store.restore import restore
from hw_fakes.vscu.unit import UnitControl
from tests.conftest import need_tool
from tests.support.shop import a_sale, make_settings, open_shop

AT = datetime(2026, 7, 7, 9, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
# Its own process, so that it can be killed as a power cut would.
COMMAND = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from gateway.store.restore import restore
backup, store, unit = (Path(name) for name in sys.argv[1:])
restore(backup, store, unit, datetime(2026, 7, 7, 9, tzinfo=UTC))
"""


@pytest.fixture
async def place(unit: UnitControl, shop_dir: Path) -> Path:
    """`store` as a crash left it, its last sale still in the log beside it, and a backup without that."""
    settings = make_settings(shop_dir, unit.url, unit={"directory": shop_dir / "keys"})
    (shop_dir / "keys").mkdir()
    (shop_dir / "keys" / "device.key").write_text("the unit's key")
    async with open_shop(settings) as shop:
        assert (await shop.till().sell("kept", a_sale())).status == 201
        made = tools.backup_now(settings, shop_dir)
        assert (await shop.till().sell("lost", a_sale())).status == 201
        crashed = shop_dir / "crashed"
        crashed.mkdir()
        shutil.copytree(settings.store.directory, crashed / "store")
    made.path.rename(crashed / "backup.tar.gz")
    assert (crashed / "store" / f"{FILE_NAME}-wal").stat().st_size > 0
    return crashed


def kept(store: Path) -> None:
    """The copy is whole, knows that it is one, and whose sales it lacks."""
    with closing(sqlite3.connect(store / FILE_NAME)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert meta.get(conn, meta.RESTORED) is not None
        assert meta.get(conn, meta.UNIT_RESTORED) is not None
        keys = conn.execute("SELECT idem_key FROM invoice ORDER BY seq").fetchall()
        assert keys == [("kept",)]
        assert conn.execute("SELECT idem_key FROM unclear_key").fetchall() == [("lost",)]
        found = lost.signed(conn)
    assert found is not None
    assert (found.receipts >= 1, found.last_invc_no) == (True, 2)


@pytest.mark.parametrize("call", ["rename", "unlink", "fsync"])
async def test_a_cut_at_every_change_on_the_disk(place: Path, tmp_path: Path, call: str) -> None:
    strace = need_tool("strace")
    refused = 0
    for number in range(1, 100):
        here = tmp_path / f"cut-{number}"
        shutil.copytree(place, here)
        store, keys = here / "store", here / "unit"
        arguments = [str(here / "backup.tar.gz"), str(store), str(keys)]
        ended = subprocess.run(
            [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace=/^{call}",
             "-e", f"inject=/^{call}:signal=SIGKILL:when={number}",
             sys.executable, "-B", "-c", COMMAND, *arguments],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=60,
        )  # fmt: skip
        if ended.returncode == 0:
            kept(store)
            assert refused > 0
            return
        assert ended.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        if (store / UNFINISHED).exists():
            refused += 1
            with pytest.raises(StoreCorrupt, match="cut short"):
                async with open_database(store):
                    pass
        elif not (store / FILE_NAME).exists():
            pytest.fail("an empty place that says nothing")
        # The technician runs it once more: the unit's folder was empty, and may be half full by now.
        again = keys if (store / UNFINISHED).exists() or not keys.exists() else None
        restore(here / "backup.tar.gz", store, again, AT)
        kept(store)
        if again is not None:
            assert (keys / "device.key").read_text() == "the unit's key"
        assert not list(store.glob(".restoring-*"))
    pytest.fail("it never ended")


@pytest.mark.parametrize("gone", [FILE_NAME, f"{FILE_NAME}-wal"])
async def test_a_log_without_its_store_is_not_played_into_the_copy(place: Path, gone: str) -> None:
    """Somebody has deleted only one of the files."""
    store = place / "store"
    (store / gone).unlink()
    carried = restore(place / "backup.tar.gz", store, None, AT)["carried"]
    with closing(sqlite3.connect(store / FILE_NAME)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert meta.get(conn, meta.RESTORED) is not None
        assert conn.execute("SELECT idem_key FROM invoice").fetchall() == [("kept",)]
    # That a log is missing cannot be seen.
    assert carried == lost.Carried(whole=gone != FILE_NAME)


async def test_an_empty_file_is_a_damaged_store(place: Path) -> None:
    store = place / "store"
    for file in store.glob(f"{FILE_NAME}*"):
        file.unlink()
    (store / FILE_NAME).touch()
    assert restore(place / "backup.tar.gz", store, None, AT)["carried"] == lost.Carried(whole=False)


async def test_a_sale_that_was_at_the_unit_may_be_signed(place: Path) -> None:
    """The technician puts a backup back to be rid of "a person must decide"."""
    store = place / "store"
    with closing(sqlite3.connect(store / FILE_NAME)) as conn, conn:
        conn.execute("DROP TRIGGER invoice_starts_received")
        conn.execute(
            """INSERT INTO invoice (id, till_id, idem_key, body_digest, label, till_receipt_no, total_cents,
                   request, document, state, invc_no, unit_request, created_at, updated_at)
               SELECT '7' || substr(id, 2), till_id, 'doubt', body_digest, label, 'POS-9', 100, request,
                   document, 'IN_DOUBT', 3, unit_request, created_at, updated_at
                 FROM invoice WHERE idem_key = 'lost'"""
        )
    carried = restore(place / "backup.tar.gz", store, None, AT)["carried"]
    assert (carried.sales, carried.receipts) == (2, 2)
    with closing(sqlite3.connect(store / FILE_NAME)) as conn:
        assert lost.signed(conn) == lost.Signed(2, 3)


async def test_a_second_restore_knows_what_the_first_one_did(place: Path) -> None:
    store, keys = place / "store", place / "unit"
    restore(place / "backup.tar.gz", store, keys, AT)
    # Not allowed a second time, and not needed: what was known of the unit's folder is handed on.
    carried = restore(place / "backup.tar.gz", store, None, AT)["carried"]
    assert carried.receipts == 0
    kept(store)


async def test_a_note_that_says_nothing_is_not_guessed_at(place: Path) -> None:
    store = place / "store"
    (store / UNFINISHED).write_text("{")
    before = {file.name: file.read_bytes() for file in store.glob(f"{FILE_NAME}*")}
    with pytest.raises(StoreCorrupt, match="cannot be read"):
        restore(place / "backup.tar.gz", store, None, AT)
    assert {file.name: file.read_bytes() for file in store.glob(f"{FILE_NAME}*")} == before


async def test_a_new_machine_has_no_folder_yet(place: Path) -> None:
    store = place / "var" / "lib" / "store"
    assert restore(place / "backup.tar.gz", store, None, AT)["replaced"] is None
    assert not (store / UNFINISHED).exists()
