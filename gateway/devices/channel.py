"""A byte line to a device: serial, USB printer class, or TCP. Blocking with time limits, and tapped.

Whoever opens a port owns it (flock, TIOCEXCL): a second opener is refused, in this process and in
others, so two programs never write into one slip.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import fcntl
import os
import select
import socket
import termios
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import serial

Flow = Literal["none", "xonxoff", "rtscts", "dsrdtr"]
Direction = Literal["in", "out"]

CONNECT_S = 3.0
READ_BYTES = 4096
# The tap keeps so many bytes of the newest traffic in each direction.
TAP_BYTES = 4096


class ChannelLost(OSError):
    """The line is gone: unplugged, switched off, or never there. The text says which."""


@dataclass(frozen=True, slots=True)
class LineSettings:
    """How a port is opened. `port`: a device path, or socket://host:9100."""

    port: str
    baud: int = 9600
    flow: Flow = "none"
    parity: Literal["N", "E", "O"] = "N"
    data_bits: Literal[7, 8] = 8


class Tap:
    """The newest bytes of a line, for `pos-gateway devices --tap`. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: collections.deque[tuple[int, Direction, bytes]] = collections.deque()
        self._size = 0
        self.count = 0

    def note(self, direction: Direction, data: bytes) -> None:
        with self._lock:
            self.count += 1
            self._pieces.append((self.count, direction, data[-TAP_BYTES:]))
            self._size += len(data[-TAP_BYTES:])
            while self._size > TAP_BYTES and len(self._pieces) > 1:
                _, _, old = self._pieces.popleft()
                self._size -= len(old)

    def after(self, count: int) -> list[tuple[int, Direction, bytes]]:
        """(serial number, direction, bytes) newer than `count`."""
        with self._lock:
            return [piece for piece in self._pieces if piece[0] > count]


class Channel:
    """One open line. Not for two threads at once."""

    def __init__(self, settings: LineSettings, tap: Tap | None = None) -> None:
        self.settings = settings
        self.tap = tap or Tap()
        self._fd = -1
        self._keep: object = None

    def open(self) -> None:
        """ChannelLost when it cannot be had."""
        try:
            if self.settings.port.startswith("socket://"):
                self._open_socket()
            elif _is_printer_class(self.settings.port):
                self._fd = os.open(self.settings.port, os.O_RDWR | os.O_NONBLOCK)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                self._open_serial()
        except (OSError, ValueError) as error:
            self.close()
            if getattr(error, "errno", None) in (errno.EAGAIN, errno.EBUSY):
                raise ChannelLost(f"{self.settings.port} is in use by another program") from None
            raise ChannelLost(_short(error)) from error

    def _open_serial(self) -> None:
        part = self.settings
        port = serial.Serial(
            part.port,
            baudrate=part.baud,
            bytesize=part.data_bits,
            parity=part.parity,
            xonxoff=part.flow == "xonxoff",
            rtscts=part.flow == "rtscts",
            dsrdtr=part.flow == "dsrdtr",
            timeout=0,
            # flock before anything is set or flushed: a port with an owner is not touched.
            exclusive=True,
        )
        self._keep, self._fd = port, port.fileno()
        # And for programs that ask no lock.
        fcntl.ioctl(self._fd, termios.TIOCEXCL)
        if part.parity != "N":
            # Without it a byte with the wrong parity is read as if it were right.
            flags = termios.tcgetattr(self._fd)
            flags[0] |= termios.INPCK
            termios.tcsetattr(self._fd, termios.TCSANOW, flags)
        port.reset_input_buffer()

    def _open_socket(self) -> None:
        where = urlsplit(self.settings.port)
        link = socket.create_connection((where.hostname or "", where.port or 9100), CONNECT_S)
        link.setblocking(False)
        self._keep, self._fd = link, link.fileno()

    @property
    def is_open(self) -> bool:
        return self._fd >= 0

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        fd, keep, self._fd, self._keep = self._fd, self._keep, -1, None
        if isinstance(keep, serial.Serial):
            # A terminal that somebody else has open would stay exclusive.
            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, termios.TIOCNXCL)
        with contextlib.suppress(OSError):
            if keep is not None:
                keep.close()  # type: ignore[attr-defined]
            elif fd >= 0:
                os.close(fd)

    def write_some(self, data: bytes, wait_s: float) -> int:
        """How many bytes the line took within the time; 0 while the device holds it. ChannelLost."""
        try:
            _, ready, _ = select.select([], [self._fd], [], wait_s)
            if not ready:
                return 0
            count = os.write(self._fd, data)
        except BlockingIOError:
            return 0
        except (OSError, ValueError) as error:
            raise ChannelLost(_short(error)) from error
        self.tap.note("out", data[:count])
        return count

    def read_some(self, wait_s: float) -> bytes:
        """What has arrived, or nothing within the time. ChannelLost."""
        try:
            ready, _, _ = select.select([self._fd], [], [], wait_s)
            if not ready:
                return b""
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:
            raise ChannelLost(_short(error)) from error
        if not data:
            raise ChannelLost("the device hung up")
        self.tap.note("in", data)
        return data


def _is_printer_class(port: str) -> bool:
    """/dev/usb/lp0 is no terminal; everything else that is a path is opened as one."""
    return Path(port).name.startswith("lp") and Path(port).parent.name == "usb"


def _short(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return "the device was unplugged"
    if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
        return "it is not plugged in: there is no such port"
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return "the gateway's user may not open the port: it must be in the port's group"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200]
