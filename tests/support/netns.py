"""A shop's network in the kernel: namespaces with veth between them, for faults that loopback cannot have.

Each namespace is held by a file descriptor and has no name anywhere, so it and its interfaces are gone with
the process that made them, whatever that one died of. A socket belongs to the namespace in which it was made:
the fakes stay where they are, on loopback, and a `Passage` serves them in another namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.conftest import need_tool
from tests.support.rough import Rough

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# The router's side of the shop, and the tills' side.
BOX, BOX_AFTER, BOX_ON_ROUGH = "10.77.0.1", "10.77.0.99", "10.77.0.2"
CLOUD, DARAJA, RELAY, KRA, NAMES = (f"10.77.0.{n}" for n in (10, 11, 12, 13, 53))
BOX_ON_LAN, BOX_ON_LAN_AFTER = "192.168.77.1", "192.168.77.99"
TILLS = tuple(f"192.168.77.{n}" for n in range(11, 19))
_NOBODY = "02:00:00:00:00:99"


def _call(name: str, *values: int) -> None:
    if getattr(_libc, name)(*values) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


class Namespace:
    """`with namespace:` makes sockets and processes in it; nothing may be awaited inside."""

    def __init__(self) -> None:
        self._fd = -1
        error: list[OSError] = []

        def make() -> None:
            try:
                _call("unshare", CLONE_NEWNET)
                self._fd = os.open(
                    f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY
                )
            except OSError as problem:
                error.append(problem)

        # A thread of its own: it ends in there, and nobody has to find the way back.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if error:
            raise error[0]
        self._back: list[int] = []
        self.run("ip", "link", "set", "lo", "up")

    def __enter__(self) -> Namespace:
        back = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        try:
            _call("setns", self._fd, CLONE_NEWNET)
        except OSError:
            os.close(back)
            raise
        self._back.append(back)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        back = self._back.pop()
        _call("setns", back, CLONE_NEWNET)
        os.close(back)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def run(self, *command: str) -> str:
        """A command in it, to its end; what it printed."""
        with self:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        with self:
            made = socket.socket(family, kind)
        made.setblocking(False)
        return made

    def prefix(self, resolv: Path | None = None) -> list[str]:
        """The words before a command that is to live in it; with `resolv` in place of /etc/resolv.conf,
        in a mount namespace of its own, so that there is nothing to undo."""
        words = ["nsenter", f"--net={self.path}", "--"]
        if resolv is None:
            return words
        order = resolv.with_suffix(".nsswitch")
        order.write_text("hosts: files dns\n")
        script = (
            'mount --bind "$0" /etc/resolv.conf && { [ ! -e /etc/nsswitch.conf ] || '
            'mount --bind "$1" /etc/nsswitch.conf; } && shift && exec "$@"'
        )
        return [*words, "unshare", "--mount", "--", "sh", "-c", script, str(resolv), str(order)]

    def close(self) -> None:
        os.close(self._fd)


class Network:
    """`box`, where the gateway runs; `world`, where everybody else is; `floor` with the tills. `quiet` takes
    the packets of one direction away without a word to either side."""

    def __init__(self, stack: ExitStack) -> None:
        self.box, self.world, self.floor = (self._made(stack) for _ in range(3))
        self._deaf: set[str] = set()
        far = (CLOUD, DARAJA, RELAY, KRA, NAMES)
        self._pair("wan", (BOX,), self.world, "net", far)
        self._pair("lan", (BOX_ON_LAN,), self.floor, "till", TILLS)

    @staticmethod
    def _made(stack: ExitStack) -> Namespace:
        made = Namespace()
        stack.callback(made.close)
        return made

    def _pair(
        self, near: str, here: tuple[str, ...], other: Namespace, far: str, there: tuple[str, ...]
    ) -> None:
        self.box.run(
            *("ip", "link", "add", near, "address", _mac(near), "type", "veth"),
            *("peer", "name", far, "address", _mac(far), "netns", other.path),
        )
        for namespace, name, addresses in ((self.box, near, here), (other, far, there)):
            for address in addresses:
                namespace.run("ip", "addr", "add", f"{address}/24", "dev", name)
            namespace.run("ip", "link", "set", name, "up")

    # --- faults ---------------------------------------------------------------------------------------

    def quiet(self, address: str, *, there: bool = True, back: bool = True) -> None:
        """What the box sends to `address` (`there`), and what it is sent from there (`back`), vanishes: the one
        is addressed to a card that nobody has, the other goes nowhere."""
        if there:
            self._neighbour(self.box, address, "wan", _NOBODY)
        if back and address not in self._deaf:
            self._deaf.add(address)
            self.world.run("ip", "rule", "add", "from", address, "blackhole")

    def heard(self, address: str) -> None:
        """The end of `quiet`."""
        self._neighbour(self.box, address, "wan", _mac("net"))
        if address in self._deaf:
            self._deaf.remove(address)
            self.world.run("ip", "rule", "del", "from", address, "blackhole")

    def till_vanishes(self, address: str) -> None:
        """A till's cable is pulled: nothing comes from it and nothing reaches it, and nobody is told."""
        self._neighbour(self.box, address, "lan", _NOBODY)
        self.floor.run("ip", "addr", "del", f"{address}/24", "dev", "till")

    def renewed(self) -> None:
        """The interfaces go away and come back with other addresses, as after a power cut of the router."""
        for name, old, new in (("wan", BOX, BOX_AFTER), ("lan", BOX_ON_LAN, BOX_ON_LAN_AFTER)):
            self.box.run("ip", "link", "set", name, "down")
            self.box.run("ip", "addr", "del", f"{old}/24", "dev", name)
            self.box.run("ip", "addr", "add", f"{new}/24", "dev", name)
            self.box.run("ip", "link", "set", name, "up")

    def rough(self) -> Rough:
        """From now on cloud, Daraja and relay are reached over a cable that can lose packets; KRA is not."""
        cable = Rough("rough", self.box, self.world)
        for where in (self.box, self.world):
            mac = _mac("box" if where is self.box else "far")
            where.run("ip", "link", "set", "rough", "address", mac, "up")
        self.box.run("ip", "addr", "add", f"{BOX_ON_ROUGH}/32", "dev", "rough")
        for address in (CLOUD, DARAJA, RELAY):
            self._neighbour(self.box, address, "rough", _mac("far"))
            self.box.run("ip", "route", "add", address, "dev", "rough", "src", BOX_ON_ROUGH)
        self._neighbour(self.world, BOX_ON_ROUGH, "rough", _mac("box"))
        self.world.run("ip", "route", "add", BOX_ON_ROUGH, "dev", "rough")
        return cable

    @staticmethod
    def _neighbour(where: Namespace, address: str, device: str, mac: str) -> None:
        where.run(
            *("ip", "neigh", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent")
        )

    # --- who is where ---------------------------------------------------------------------------------

    def till_sockets(self, address: str = TILLS[0]) -> Any:
        """For `aiohttp.TCPConnector(socket_factory=...)`: a till on the LAN."""

        def make(info: tuple[Any, ...]) -> socket.socket:
            made = self.floor.socket(info[1], info[0])
            made.bind((address, 0))
            return made

        return make


def _mac(name: str) -> str:
    return "02:00:" + ":".join(f"{byte:02x}" for byte in (name.encode() + b"\0\0\0\0")[:4])


@contextmanager
def network() -> Iterator[Network]:
    """Skips where the machine does not let a test make namespaces."""
    for tool in ("ip", "ss", "nsenter", "unshare"):
        need_tool(tool)
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with ExitStack() as stack:
        try:
            made = Network(stack)
        except OSError as error:
            pytest.skip(f"this machine makes no network namespaces: {error}")
        except AssertionError as error:
            pytest.skip(f"this machine's namespaces have no veth: {error}")
        yield made


class Passage:
    """Serves at (address, port) of one namespace what listens at (address, port) of another; None is the
    test's own. Both ends are the kernel's TCP. Async context manager."""

    def __init__(
        self,
        where: Namespace | None,
        address: str,
        to: Namespace | None,
        target: tuple[str, int],
        *,
        port: int = 0,
    ) -> None:
        self._where, self._address, self._port = where, address, port
        self._to, self.target = to, target
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        # While it is not set, what is answered waits here.
        self.answering = asyncio.Event()
        self.answering.set()
        # Who came, by address.
        self.peers: list[str] = []

    async def __aenter__(self) -> Passage:
        listener = _socket(self._where)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._address, self._port))
        self._port = listener.getsockname()[1]
        self._server = await asyncio.start_server(self._serve, sock=listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._port}"

    async def lead(self, address: str, port: int) -> None:
        """Somebody else answers from now on; the connections that there are end."""
        self.target = (address, port)
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    @property
    def port(self) -> int:
        return self._port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.peers.append(writer.get_extra_info("peername")[0])
        onward = None
        try:
            target = _socket(self._to)
            try:
                await asyncio.get_running_loop().sock_connect(target, self.target)
            except BaseException:
                target.close()
                raise
            back, onward = await asyncio.open_connection(sock=target)
            ways = [
                asyncio.ensure_future(_pass(reader, onward)),
                asyncio.ensure_future(_pass(back, writer, self.answering)),
            ]
            try:
                # Either side's end is the other's: HTTP needs no half-open connections.
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass
        except asyncio.CancelledError:
            # The end of the passage; the streams' own machinery would report it as an error.
            pass
        finally:
            self._serving.discard(task)
            for end in (writer, onward):
                if end is not None:
                    with contextlib.suppress(OSError):
                        end.close()


async def _pass(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, when: asyncio.Event | None = None
) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            if when is not None:
                await when.wait()
            target.write(data)
            await target.drain()


def _socket(where: Namespace | None) -> socket.socket:
    if where is not None:
        return where.socket()
    made = socket.socket()
    made.setblocking(False)
    return made
