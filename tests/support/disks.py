"""Small real file systems for tests: in memory, or ext4 on a loop device. Root only; skipped without."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import need_tool

KB = 1024


class MemoryDisk:
    """A tmpfs that can be filled to the last byte."""

    def __init__(self, place: Path, size_mb: int) -> None:
        self.place = place
        self._size_mb = size_mb
        self._filler = place / "filler"

    def mount(self) -> None:
        self.place.mkdir(exist_ok=True)
        options = f"size={self._size_mb}m"
        _mount(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.place)])

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.place)], check=True)

    def fill(self) -> None:
        """Take every byte that is left."""
        handle = os.open(self._filler, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            for size in (256 * KB, 4 * KB):
                try:
                    while os.write(handle, b"x" * size):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        finally:
            os.close(handle)

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


class LoopDisk:
    """An ext4 file system that becomes read-only on an error, as a shop's disk does."""

    def __init__(self, place: Path, image: Path, size_mb: int) -> None:
        self.place = place
        self._image = image
        self._size_mb = size_mb

    def mount(self) -> None:
        if not self._image.exists():
            with self._image.open("wb") as file:
                file.truncate(self._size_mb * KB * KB)
            subprocess.run([need_tool("mkfs.ext4"), "-q", "-F", str(self._image)], check=True)
        self.place.mkdir(exist_ok=True)
        options = "loop,errors=remount-ro"
        _mount(["mount", "-o", options, str(self._image), str(self.place)])

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.place)], check=True)

    def fail(self) -> None:
        """Report an error of the file system, which makes it read-only under its open files."""
        device = self.place.stat().st_dev
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """Check the unmounted file system, and repair it, as an operator does. 1 means repaired."""
        command = [need_tool("fsck.ext4"), "-fy", str(self._image)]
        assert subprocess.run(command, capture_output=True, check=False).returncode in (0, 1)


@contextmanager
def mounted(disk: MemoryDisk | LoopDisk) -> Iterator[None]:
    disk.mount()
    try:
        yield
    finally:
        # Lazily: a test that failed may have left the disk unmounted, or in use.
        subprocess.run(["umount", "-l", str(disk.place)], capture_output=True, check=False)


def _mount(command: list[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk could not be mounted: {done.stderr.decode()[:200]}")
