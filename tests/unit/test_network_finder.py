"""Printers on the own network: found by their port, within bounds, and nothing is sent to them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from gateway.device_tools import network_text
from gateway.devices import network_finder
from gateway.devices.network_finder import Found, neighbours, scan
from tests.conftest import need_tool
from tests.support.machine import Machine


@asynccontextmanager
async def printers(*addresses: str) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Listeners on one port of several addresses; the port, and what each connection sent."""
    sent: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(await reader.read())
        writer.close()

    first = await asyncio.start_server(connected, addresses[0], 0)
    port = first.sockets[0].getsockname()[1]
    others = [await asyncio.start_server(connected, each, port) for each in addresses[1:]]
    try:
        yield port, sent
    finally:
        for server in (first, *others):
            server.close()
            await server.wait_closed()


async def test_machines_that_take_the_port_are_found_and_get_no_byte(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (machine.proc / "net").mkdir()
    (machine.proc / "net/arp").write_text(
        "IP address  HW type  Flags  HW address  Mask  Device\n"
        "127.0.0.9  0x1  0x2  00:11:62:aa:bb:cc  *  eth0\n"
        "127.0.0.2  0x1  0x0  00:00:00:00:00:00  *  eth0\n"
    )
    async with printers("127.0.0.9", "127.0.0.2") as (port, sent):
        tried = [f"127.0.0.{last}" for last in range(2, 80)]
        found = await scan(tried, machine.roots, port)
        assert found == [
            Found("127.0.0.2", None, port),
            Found("127.0.0.9", "00:11:62:aa:bb:cc", port),
        ]
        assert found[0].name == f"socket://127.0.0.2:{port}"
        async with asyncio.timeout(20):
            while len(sent) < 2:
                await asyncio.sleep(0.01)
        assert sent == [b"", b""]


@pytest.mark.parametrize(
    ("own", "count", "first", "last"),
    [
        (["192.168.1.7/24"], 253, "192.168.1.1", "192.168.1.254"),
        (["10.0.5.7/8"], 253, "10.0.5.1", "10.0.5.254"),
        (["192.168.1.70/28"], 13, "192.168.1.65", "192.168.1.78"),
        (["192.168.1.7/24", "192.168.1.8/24"], 252, "192.168.1.1", "192.168.1.254"),
        (["192.168.1.7/32"], 0, "", ""),
    ],
)
def test_at_most_the_neighbours_are_tried(
    own: list[str], count: int, first: str, last: str
) -> None:
    tried = neighbours([IPv4Interface(each) for each in own])
    assert len(tried) == count == len(set(tried))
    assert (tried[:1], tried[-1:]) == ([first] * (count > 0), [last] * (count > 0))


def test_the_command_finds_a_printer_in_a_network_of_its_own(tmp_path: Path) -> None:
    """A network namespace with one private address, and one printer in its /22."""
    need_tool("ip")
    if subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    config = tmp_path / "gateway.toml"
    config.write_text('[printers.bar]\nport = "socket://192.168.77.30:9100"\n')
    listen = (
        "import socket, subprocess, sys\n"
        "heard = [socket.create_server((f'192.168.77.{n}', 9100)) for n in (9, 30)]\n"
        "far = socket.create_server(('192.168.76.9', 9100))\n"
        "sys.exit(subprocess.run(sys.argv[1:]).returncode)\n"
    )
    command = [sys.executable, "-m", "gateway", "devices", "--network", "--config", str(config)]
    script = 'ip link set lo up && ip addr add 192.168.77.5/22 dev lo && exec "$@"'
    inside = ["unshare", "-rn", "sh", "-c", script, "sh", sys.executable, "-c", listen]
    shown = subprocess.run([*inside, *command], check=True, capture_output=True, text=True).stdout
    assert 'port = "socket://192.168.77.9:9100"' in shown
    assert "socket://192.168.77.30:9100\n    answers on the printer port; printer bar" in shown
    assert "192.168.76.9" not in shown


def test_no_network_and_no_printer_say_what_to_do() -> None:
    none = {"searched": [], "printers": [], "notes": []}
    assert "is the cable in" in network_text(none)
    empty = {"searched": ["192.168.1.0/24"], "printers": [], "notes": []}
    assert "No printer answers on 192.168.1.0/24" in network_text(empty)
    assert all(own.ip.is_private for own in network_finder.own_addresses())
