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
import sys
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
# With DTR flow: how often the wire is looked at, in seconds, and how many bytes go at once.
DSR_LOOK_S = 0.005
DSR_PIECE = 32
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
            else:
                self._open_serial()
            if not self.settings.port.startswith("socket://"):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ChannelLost(f"{self.settings.port} is in use by another program") from None
        except (OSError, ValueError) as error:
            self.close()
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
        )
        self._keep, self._fd = port, port.fileno()
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

    def _room(self, wait_s: float) -> int:
        """How much a device that drops DTR (our DSR) when it is full may be sent. Linux does not heed
        that wire (pyserial's `dsrdtr` only leaves DTR alone), so it is looked at before every piece,
        and only a piece that fits what devices keep in reserve is under way."""
        for _ in range(max(1, int(wait_s / DSR_LOOK_S))):
            if self.pending() == 0 and _dsr(self._fd):
                return DSR_PIECE
            select.select([], [], [], DSR_LOOK_S)
        return 0

    def pending(self) -> int:
        """Bytes that the serial driver has taken and not yet put on the wire; 0 where none says."""
        if self.settings.port.startswith("socket://"):
            return 0
        try:
            return int.from_bytes(fcntl.ioctl(self._fd, termios.TIOCOUTQ, b"\0" * 4), sys.byteorder)
        except (OSError, ValueError):
            return 0

    def discard(self) -> None:
        """Drop what the driver has not put on the wire: closing would wait for it."""
        with contextlib.suppress(OSError, ValueError, termios.error):
            termios.tcflush(self._fd, termios.TCOFLUSH)

    def close(self) -> None:
        fd, keep, self._fd, self._keep = self._fd, self._keep, -1, None
        with contextlib.suppress(OSError):
            if keep is not None:
                keep.close()  # type: ignore[attr-defined]
            elif fd >= 0:
                os.close(fd)

    def write_some(self, data: bytes, wait_s: float) -> int:
        """How many bytes the line took within the time; 0 while the device holds it. ChannelLost."""
        try:
            if self.settings.flow == "dsrdtr":
                data = data[: self._room(wait_s)]
            _, ready, _ = select.select([], [self._fd] if data else [], [], wait_s)
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


def _dsr(fd: int) -> bool:
    """Whether the device holds DSR up; up where there is no such wire (a pty)."""
    try:
        wires = int.from_bytes(fcntl.ioctl(fd, termios.TIOCMGET, b"\0" * 4), sys.byteorder)
    except OSError:
        return True
    return bool(wires & termios.TIOCM_DSR)


def _is_printer_class(port: str) -> bool:
    """/dev/usb/lp0 is no terminal; everything else that is a path is opened as one."""
    return Path(port).name.startswith("lp") and Path(port).parent.name == "usb"


def _short(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return "the device was unplugged"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200]
