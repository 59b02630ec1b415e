"""A byte line to a device: serial, USB printer class, or TCP. Blocking with time limits, and tapped.

Whoever opens a port owns it (flock, TIOCEXCL): a second opener is refused, in this process and in
others, so two programs never write into one slip. The lock is on the device, so a second name for it
(a link by id and one by path) is refused too, before its speed or its buffers are touched.
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
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import serial

from gateway.devices import flow

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


class Traffic(NamedTuple):
    """Bytes that went over a line at once. `at` is None where the tap was given no clock."""

    number: int
    direction: Direction
    data: bytes
    at: datetime | None


class Tap:
    """The newest bytes of a line, for `pos-gateway devices --tap`. Any thread."""

    def __init__(self, now: Callable[[], datetime] | None = None) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._pieces: collections.deque[Traffic] = collections.deque()
        self._size = 0
        self.count = 0

    def note(self, direction: Direction, data: bytes) -> None:
        at = self._now() if self._now else None
        with self._lock:
            self.count += 1
            self._pieces.append(Traffic(self.count, direction, data[-TAP_BYTES:], at))
            self._size += len(data[-TAP_BYTES:])
            while self._size > TAP_BYTES and len(self._pieces) > 1:
                self._size -= len(self._pieces.popleft().data)

    def after(self, count: int) -> list[Traffic]:
        """What is newer than the piece of this number."""
        with self._lock:
            return [piece for piece in self._pieces if piece.number > count]


class Channel:
    """One open line. Not for two threads at once."""

    def __init__(self, settings: LineSettings, tap: Tap | None = None) -> None:
        self.settings = settings
        self.tap = tap or Tap()
        # Ports of the settings' excluded_ports: never opened, by whatever name they are reached.
        self.excluded: tuple[str, ...] = ()
        self._fd = -1
        self._keep: object = None

    def open(self) -> None:
        """ChannelLost when it cannot be had."""
        port = self.settings.port
        try:
            if is_network(port):
                self._open_socket()
                return
            if any(os.path.realpath(port) == os.path.realpath(other) for other in self.excluded):
                raise ChannelLost(f"{port} is one of excluded_ports")
            if is_printer_class(port):
                self._fd = os.open(port, os.O_RDWR | os.O_NONBLOCK)
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                self._open_serial()
        except ChannelLost:
            raise
        except (OSError, ValueError) as error:
            self.close()
            raise ChannelLost(_why_not_opened(port, error)) from error

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
            # flock before anything is set: the owner's speed and input stay as they are.
            exclusive=True,
        )
        self._keep, self._fd = port, port.fileno()
        # Programs that know nothing of flock are kept out by the kernel.
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

    def pending(self) -> int:
        """Bytes that the serial driver has taken and not yet put on the wire; 0 where none says."""
        if is_network(self.settings.port):
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
        if isinstance(keep, serial.Serial):
            # It would outlive this opener while anybody else still has the line open.
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
            if self.settings.flow == "dsrdtr" and self._keep is not None:
                if not flow.dsr_lets(self._fd, wait_s):
                    return 0
                data = data[: flow.PIECE_BYTES]
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


def is_network(port: str) -> bool:
    return port.startswith("socket://")


def is_printer_class(port: str) -> bool:
    """/dev/usb/lp0, or a link to one, is no terminal; every other path is opened as one."""
    device = Path(os.path.realpath(port))
    return device.name.startswith("lp") and device.parent.name == "usb"


def _why_not_opened(port: str, error: Exception) -> str:
    """In words for whoever stands at the counter (docs/operating/devices.md explains each)."""
    if is_network(port):
        return _short(error)
    number = error.errno if isinstance(error, OSError) else None
    if number is None and isinstance(error.__context__, termios.error):
        # pyserial gives the reason in its text only.
        number = error.__context__.args[0]
    match number:
        case errno.EAGAIN | errno.EBUSY:
            return f"{port} is in use by another device of the settings or another program"
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return f"{port} is not there: is it plugged in?"
        case errno.EACCES | errno.EPERM:
            return f"{port} may not be opened by this user: see the groups dialout and lp"
        case errno.ENOTTY | errno.EINVAL:
            return f"{port} is no serial port"
    return _short(error)


def _short(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ENODEV, errno.ENXIO):
        return "the device was unplugged"
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text[:200]
