"""The start's work does not grow with the store: a shop of years starts like a new one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from gateway.store import meta
from gateway.store.database import FILE_NAME, open_database
from tests.support import full_store


def read_so_far() -> int:
    """Bytes that this process has read by system calls; SQLite reads page by page."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


async def read_by_a_start(directory: Path) -> int:
    async with open_database(directory):
        pass
    before = read_so_far()
    async with open_database(directory) as db:
        read = read_so_far() - before
        assert db.noticed is None
    return read


@pytest.mark.parametrize("clean", [True, False])
async def test_a_start_reads_no_more_of_a_store_ten_times_as_large(
    tmp_path: Path, *, clean: bool
) -> None:
    """After a stop in order and after a crash alike: the whole check is for the background."""
    read, size = [], []
    for count in (1_000, 10_000):
        directory = tmp_path / str(count)
        file = full_store.make(directory, count)
        if not clean:
            with contextlib.closing(sqlite3.connect(file)) as conn, conn:
                meta.put(conn, meta.RUNNING, "1")
        read.append(await read_by_a_start(directory))
        size.append((directory / FILE_NAME).stat().st_size)
    assert size[1] > 8 * size[0]
    # Deeper trees cost a page more here and there.
    assert read[1] < 2 * read[0]
    assert read[1] < size[1] / 8
