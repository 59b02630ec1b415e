"""The unit's port in other hands: the one initialisation of its life reaches no other program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from gateway.errors import UnitNotReady
from gateway.vscu import port as ports
from gateway.vscu.client import CallFailed, UnitClient
from gateway.vscu.host import InProcessUnit
from hw_fakes.ports import free_port
from hw_fakes.vscu.unit import BRANCH, JAR, PIN, ExternalUnit
from tests.support.clock import FastClock
from tests.support.daemon import Daemon
from tests.support.shop import TOKENS, a_sale

WAIT_S = 60.0


class Recorder:
    """Listens on one address and keeps what it is sent; answers nothing."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.heard = bytearray()
        self.connections = 0
        self._socket = socket.socket(family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, port))
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                taken, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with taken, contextlib.suppress(OSError):
                taken.settimeout(1)
                self.heard += taken.recv(4096)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@contextlib.contextmanager
def taken(host: str, port: int) -> Iterator[Recorder]:
    recorder = Recorder(host, port)
    try:
        yield recorder
    finally:
        recorder.close()


def hosted(directory: Path, port: int) -> InProcessUnit:
    return InProcessUnit(
        jar=JAR, directory=directory / "unit", port=port, java_home=None, heap_mb=64
    )


async def status(daemon: Daemon, session: aiohttp.ClientSession, state: str) -> dict[str, object]:
    """The status once it shows this state."""
    async with asyncio.timeout(WAIT_S):
        while True:
            found = (await daemon.till(session).request("GET", "/v1/status")).json
            if found["state"] == state:
                return dict(found)
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
async def test_no_jvm_starts_while_the_port_is_taken(host: str, tmp_path: Path) -> None:
    port = free_port()
    unit = hosted(tmp_path, port)
    with taken(host, port) as other:
        await unit.start()
        problem = unit.port_problem()
        assert problem is not None
        # What is named is this test, which has the socket.
        assert f"port {port}" in problem and f"process {os.getpid()}" in problem
        assert await unit.figures() is None
        client = UnitClient(
            base_url=f"http://127.0.0.1:{port}", pin=PIN, branch_id=BRANCH, clock=FastClock(1),
            check_port=unit.check_port,
        )  # fmt: skip
        async with client:
            answer = await client.call("selectInitInfo", {"dvcSrlNo": "x"})
        assert isinstance(answer, CallFailed)
        assert (answer.sent, answer.reason) == (False, problem)
        assert (other.connections, other.heard) == (0, b"")


def test_a_port_of_another_address_is_free(tmp_path: Path) -> None:
    port = free_port()
    with taken("127.0.0.2", port):
        assert ports.bind_error("127.0.0.1", port) is None
        assert ports.foreign("127.0.0.1", port) is None
    # IPv6 alone keeps no IPv4 server out.
    with socket.socket(socket.AF_INET6) as six:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        six.bind(("::", port))
        six.listen()
        assert ports.bind_error("127.0.0.1", port) is None


def test_a_listener_is_its_own_processs_or_foreign(tmp_path: Path) -> None:
    port = free_port()
    with taken("127.0.0.1", port):
        assert len(ports.reached("127.0.0.1", port)) == 1
        assert ports.foreign("127.0.0.1", port) is None
        [own] = ports.reached("127.0.0.1", port)
        assert ports.holders(own) == [os.getpid()]


async def test_a_file_that_is_no_jar_is_refused_before_the_port_is_tried(tmp_path: Path) -> None:
    (tmp_path / "x.jar").write_text("no archive")
    unit = InProcessUnit(
        jar=tmp_path / "x.jar", directory=tmp_path, port=free_port(), java_home=None, heap_mb=64
    )
    with pytest.raises(UnitNotReady, match="not an executable JAR"):
        await unit.start()


async def test_another_vscu_on_the_port_is_not_initialised_and_selling_starts_when_it_ends(
    tmp_path: Path,
) -> None:
    daemon = Daemon(tmp_path)
    async with ExternalUnit(tmp_path / "other", port=daemon.unit_port) as other:
        async with daemon, aiohttp.ClientSession() as session:
            found = await status(daemon, session, "UNIT_PORT_TAKEN")
            sentence = str(found["sentence"])
            assert f"port {daemon.unit_port}" in sentence
            assert f"java (process {other.pid}, etims-vscu-fake.jar)" in sentence
            refused = await daemon.till(session).sell("key", a_sale(tillReceiptNo="P"))
            assert (refused.status, refused.json["code"]) == (503, "UNIT_PORT_TAKEN")
            assert refused.json["signed"] == "no"
            assert f"port {daemon.unit_port}" in refused.json["detail"]
            page = await daemon.till(session).request("GET", "/")
            assert f"port {daemon.unit_port}" in page.body.decode()
            # The other unit is as it was: no device, no keys.
            assert (await other.state())["devices"] == {}
            assert "jvm.started" not in daemon.log()
            other.kill()
            await status(daemon, session, "ONLINE")
            sold = await daemon.till(session).sell("key", a_sale(tillReceiptNo="P"))
            assert sold.status == 201, sold.json
            # The JVM that started late leaves the signals to the daemon.
            assert await daemon.stop() == 0


async def test_a_port_that_is_taken_between_test_and_start_gets_no_call(tmp_path: Path) -> None:
    """The JAR is sent to another port, so that its own is free to be taken while the JVM runs."""
    elsewhere = free_port()
    daemon = Daemon(tmp_path, env={"GATEWAY_UNIT__START_TIMEOUT_S": "1"})
    text = daemon.config.read_text()
    daemon.config.write_text(
        text.replace("[unit]\n", f'[unit]\narguments = ["--server.port={elsewhere}"]\n')
    )
    async with daemon, aiohttp.ClientSession() as session:
        assert "jvm.started" in daemon.log()
        with taken("127.0.0.1", daemon.unit_port) as other:
            found = await status(daemon, session, "UNIT_PORT_TAKEN")
            assert f"process {os.getpid()}" in str(found["sentence"])
            sold = await daemon.till(session).sell("key", a_sale(tillReceiptNo="P"))
            assert (sold.status, sold.json["code"]) == (503, "UNIT_PORT_TAKEN")
            # A connection may be under way when the port changes hands; no byte of a request is sent on it.
            assert bytes(other.heard) == b""


async def test_check_names_who_holds_a_port(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)

    async def check() -> tuple[int, str]:
        tokens = ",".join(f"{till}={token}" for till, token in TOKENS.items())
        env = {**os.environ, "GATEWAY_TILL_TOKENS": tokens}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "check", "--config", str(daemon.config),
            stdout=asyncio.subprocess.PIPE, env=env,
        )  # fmt: skip
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    with taken("0.0.0.0", daemon.unit_port), taken("127.0.0.1", daemon.port):
        code, out = await check()
        assert code == 78
        for key, port in (("unit.port", daemon.unit_port), ("api.port", daemon.port)):
            [line] = [line for line in out.splitlines() if line.startswith(f"PROBLEM {key}:")]
            assert f"{port}" in line and f"process {os.getpid()}" in line
    async with daemon:
        code, out = await check()
        assert code == 0, out
        assert f"unit.port {daemon.unit_port} is held by the running gateway" in out
        assert f"api.port {daemon.port} is held by the running gateway" in out
