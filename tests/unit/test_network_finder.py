"""Printers on the own network: found by their port, within bounds, and nothing is sent to them."""

from __future__ import annotations

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.device_tools import network_text
from gateway.devices import mdns_finder, network_finder
from gateway.devices.mdns_finder import Announced
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


NOTHING = {"searched": [], "printers": [], "withoutRawPort": [], "mdns": True, "notes": []}


def test_no_network_and_no_printer_say_what_to_do() -> None:
    assert "is the cable in" in network_text(NOTHING)
    empty = NOTHING | {"searched": ["192.168.1.0/24"]}
    assert "No printer answers on 192.168.1.0/24" in network_text(empty)
    ipp = empty | {"withoutRawPort": [{"address": "192.168.1.9", "model": "EPSON TM-m30"}]}
    assert "192.168.1.9: EPSON TM-m30\n    announces itself, but" in network_text(ipp)
    assert all(own.ip.is_private for own in network_finder.own_addresses())


async def test_a_printer_that_announces_itself_is_found_with_its_model() -> None:
    """Real mDNS on the loopback interface: one printer with port 9100, one with IPP only."""
    zeroconf = need_module("zeroconf")
    asyncio_zeroconf = need_module("zeroconf.asyncio")
    services = [
        ("_pdl-datastream._tcp.local.", "127.0.0.9", 9100, {"ty": "EPSON TM-m30\x1b[2J"}),
        ("_ipp._tcp.local.", "127.0.0.9", 631, {"ty": "other"}),
        ("_ipp._tcp.local.", "127.0.0.7", 631, {}),
    ]
    announcing = asyncio_zeroconf.AsyncZeroconf(
        interfaces=["127.0.0.1"], ip_version=zeroconf.IPVersion.V4Only
    )
    try:
        for number, (kind, address, port, properties) in enumerate(services):
            info = zeroconf.ServiceInfo(
                kind, f"Shop{number}.{kind}", parsed_addresses=[address], port=port,
                properties=properties, server=f"shop{number}.local.",
            )  # fmt: skip
            await (await announcing.async_register_service(info))
        async with asyncio.timeout(60):
            found: list[Announced] = []
            while [each.raw_port for each in found] != [None, 9100]:
                found = await mdns_finder.browse(SystemClock(), 1.5, ["127.0.0.1"]) or []
    finally:
        await announcing.async_close()
    ipp_only, raw = found
    assert (ipp_only.address, ipp_only.model) == ("127.0.0.7", "Shop2")
    assert raw.address == "127.0.0.9"
    # Nothing of the network reaches a terminal as a command.
    assert raw.model in ("EPSON TM-m30[2J", "other")


async def test_without_the_package_the_search_by_port_remains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    assert await mdns_finder.browse(SystemClock()) is None


def need_module(name: str) -> Any:
    """Return an optional package. Missing: skipped at a desk, failed in CI."""
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed; make installs requirements-discovery.lock")
        pytest.skip(f"{name} is not installed")
