"""Flow control by DTR and DSR, which Linux does not do by itself: pyserial takes the setting and ignores it.

A printer that lowers its DTR (our DSR) still takes what is under way: 128 bytes or more by the makers'
manuals. So little is put on the line at a time, and nothing while DSR is low.
"""

from __future__ import annotations

import errno
import fcntl
import select
import struct
import termios
from collections.abc import Callable

PIECE_BYTES = 32
LOOK_S = 0.01
# What a pseudo terminal answers.
_NO_WIRES = (errno.ENOTTY, errno.EINVAL)

Ioctl = Callable[[int, int, bytes], bytes]


def _ioctl(fd: int, request: int, argument: bytes) -> bytes:
    return fcntl.ioctl(fd, request, argument)


def dsr_lets(fd: int, wait_s: float, ioctl: Ioctl = _ioctl) -> bool:
    """Whether another piece may be written within the time. A line without modem wires always lets;
    OSError when the device is gone."""
    for _ in range(max(1, int(wait_s / LOOK_S))):
        try:
            (wires,) = struct.unpack("i", ioctl(fd, termios.TIOCMGET, bytes(4)))
        except OSError as error:
            if error.errno in _NO_WIRES:
                return True
            raise
        (waiting,) = struct.unpack("i", ioctl(fd, termios.TIOCOUTQ, bytes(4)))
        if wires & termios.TIOCM_DSR and waiting < PIECE_BYTES:
            return True
        select.select([], [], [], LOOK_S)
    return False
