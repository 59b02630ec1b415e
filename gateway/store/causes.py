"""Finds out why the store's directory cannot be used: an error of SQLite or of the system names a symptom only.

A full disk, a full quota and a disk without inodes are one thing to a shop; a file system that the kernel has made
read-only, files of another user and a process without descriptors are three others, each with its own cure.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from gateway.errors import DiskFull, StoreError, StoreReadOnly

FULL = "The disk is full. Free some space; selling goes on by itself then."
FULL_ERRNO = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a probe writes. Bytes.
PROBE_BYTES = 64 * 1024


def explain(error: OSError, directory: Path) -> StoreError:
    """Return the error that says what is wrong with `directory`, and what to do."""
    number, text = error.errno, error.strerror or str(error)
    if number in FULL_ERRNO:
        return DiskFull(FULL)
    if number == errno.EROFS:
        return StoreReadOnly(
            f"{directory} is on a file system that is read-only ({text}). The kernel does that when the disk fails: "
            "look at dmesg, check the disk, mount it for writing again."
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return StoreError(
            f"{directory} cannot be opened: the process has no file descriptor left ({text}). Look for what holds "
            "connections open, or raise LimitNOFILE."
        )
    if number in (errno.EACCES, errno.EPERM):
        return StoreError(
            f"{directory} cannot be written ({text}). It must belong to the gateway's user."
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return StoreError(
            f"{directory} cannot be made ({text}). Look whether its disk is mounted and store.directory is right."
        )
    return StoreError(f"{directory} cannot be used: {text}. Look at the disk and at dmesg.")


def probe(directory: Path) -> OSError | None:
    """Return what the system says to a new file in `directory`; None when it takes one. Nothing remains of it."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            os.posix_fallocate(file.fileno(), 0, PROBE_BYTES)
    except OSError as error:
        return error
    return None


def is_full(directory: Path) -> bool:
    """Return whether there is no room in `directory`: blocks, inodes or a quota."""
    error = probe(directory)
    return error is not None and error.errno in FULL_ERRNO
