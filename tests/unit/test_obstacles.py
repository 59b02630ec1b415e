"""What keeps a device from working, found in a made tree of files; each sentence has the next step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.device_tools import listing, listing_text, read_counter
from gateway.devices import obstacles
from gateway.devices.obstacles import Access, of_port, portless
from gateway.devices.ports import plugged_in
from tests.support.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def said(machine: Machine, access: Access | None = None) -> list[str]:
    (port,) = plugged_in(machine.roots)
    return of_port(port, machine.roots, access)


def test_a_port_in_order_has_no_obstacle(machine: Machine) -> None:
    machine.plug("ttyUSB0")
    (machine.sys / "devices/1-1/power").mkdir()
    (machine.sys / "devices/1-1/power/control").write_text("on\n")
    assert said(machine) == []
    assert portless(machine.roots) == []


def test_a_modem_manager_that_does_not_ignore_the_port(machine: Machine) -> None:
    machine.plug("ttyUSB0")
    machine.runs("ModemManager")
    (sentence,) = said(machine)
    assert "ModemManager (pid 612) may send AT" in sentence
    assert "systemctl disable --now ModemManager" in sentence
    # udev's mark on the port, or on its device.
    machine.udev_says(machine.sys / "class/tty/ttyUSB0", "188:0", "ID_BUS=usb")
    assert len(said(machine)) == 1
    machine.udev_says(machine.sys / "devices/1-1", "189:4", "ID_MM_DEVICE_IGNORE=1")
    assert said(machine) == []
    machine.udev_says(machine.sys / "devices/1-1", "189:4", "ID_MM_DEVICE_IGNORE=0")
    assert len(said(machine)) == 1
    machine.udev_says(machine.sys / "class/tty/ttyUSB0", "188:0", "ID_MM_PORT_IGNORE=1")
    assert said(machine) == []


def test_a_modem_manager_leaves_printers_and_built_in_ports_alone(machine: Machine) -> None:
    machine.runs("ModemManager")
    machine.built_in("ttyS0")
    machine.plug("lp0")
    assert [of_port(port, machine.roots) for port in plugged_in(machine.roots)] == [[], []]


@pytest.mark.parametrize(
    ("vendor", "product", "rules", "taken"),
    [
        ("1a86", "7523", "", True),
        ("10c4", "ea60", "", True),
        ("0403", "6001", "", True),
        ("067b", "2303", "", False),
        ("067b", "2303", 'ENV{PRODUCT}=="67b/2303/*", ENV{BRLTTY_BRAILLE_DRIVER}="xx"', True),
        ("067b", "2303", '# ENV{PRODUCT}=="67b/2303/*", ENV{BRLTTY_BRAILLE_DRIVER}="xx"', False),
    ],
)
def test_a_brltty_that_takes_adapters(
    machine: Machine, vendor: str, product: str, rules: str, taken: bool
) -> None:
    machine.plug("ttyUSB0", vendor=vendor, product=product)
    machine.has("lib/udev/rules.d/85-brltty.rules", rules)
    assert said(machine) == []
    machine.has("usr/bin/brltty")
    assert ["apt purge brltty" in sentence for sentence in said(machine)] == [True] * taken


def test_a_device_that_may_fall_asleep(machine: Machine) -> None:
    machine.plug("lp0")
    control = machine.sys / "devices/1-1/power/control"
    control.parent.mkdir()
    control.write_text("auto\n")
    (sentence,) = said(machine)
    assert f"echo on > {control}" in sentence
    assert "udev" in sentence


@pytest.mark.parametrize(
    ("mode", "uid", "in_group", "allowed"),
    [
        (0o660, 4711, True, True),
        (0o660, 4711, False, False),
        (0o600, 4711, True, False),
        (0o640, 4711, True, False),
        (0o666, 4711, False, True),
        (0o600, None, False, True),
        (0o000, 0, False, True),
    ],
)
def test_a_port_that_the_service_may_not_open(
    machine: Machine, mode: int, uid: int | None, in_group: bool, allowed: bool
) -> None:
    node = machine.plug("ttyUSB0")
    node.chmod(mode)
    owner = node.stat().st_uid
    if uid is None:
        uid = owner
    gids = {node.stat().st_gid} if in_group else {node.stat().st_gid + 1}
    found = said(machine, Access(uid, frozenset(gids)))
    assert len(found) == (0 if allowed else 1)
    assert all("may not open it" in each and "dialout" in each for each in found)


PRINTER = {"vendor": "0416", "product": "5011", "kind": "0701"}
CH340 = {"vendor": "1a86", "product": "7523"}


@pytest.mark.parametrize(
    ("device", "driver", "around", "part"),
    [
        (PRINTER, "", "", "modprobe usblp"),
        (PRINTER, "", "blacklist", "usblp-off.conf: take that line out"),
        (PRINTER, "usbfs", "", "another program has taken this printer"),
        (PRINTER, "usbfs", "cupsd", "apt purge cups"),
        (CH340, "", "", "modprobe ch341"),
        (CH340, "usbfs", "brltty", "brltty (pid 612) has taken it"),
        (CH340, "usbfs", "", "another program has taken it"),
        ({"vendor": "0403", "product": "6001"}, "", "", "modprobe ftdi_sio"),
        ({"vendor": "10c4", "product": "ea60"}, "", "", "modprobe cp210x"),
        ({"vendor": "067b", "product": "23a3"}, "", "", "modprobe pl2303"),
        ({"vendor": "0483", "product": "5740", "kind": "0202"}, "", "", "modprobe cdc_acm"),
    ],
)
def test_a_device_without_a_port(
    machine: Machine, device: dict[str, str], driver: str, around: str, part: str
) -> None:
    machine.usb("1-2", driver=driver, **device)
    if around == "blacklist":
        machine.has("etc/modprobe.d/usblp-off.conf", "# for CUPS\nblacklist usblp\n")
    elif around:
        machine.runs(around)
    (found,) = portless(machine.roots)
    assert (found.socket, part in found.problem) == ("1-2", True), found.problem
    assert plugged_in(machine.roots) == []


def test_a_printer_that_the_kernel_has_without_its_node(machine: Machine) -> None:
    interface = machine.usb("1-2", driver="usblp", **PRINTER)
    (interface / "usbmisc/lp0").mkdir(parents=True)
    (found,) = portless(machine.roots)
    assert "lp0 is missing: udevadm trigger" in found.problem
    (machine.dev / "usb/lp0").touch()
    assert portless(machine.roots) == []


@pytest.mark.parametrize(
    ("device", "driver"),
    [
        ({"vendor": "12d1", "product": "1506"}, ""),  # a modem's own interface
        ({"vendor": "12d1", "product": "1506"}, "option"),
        ({"vendor": "0403", "product": "6010"}, "jtag"),
        ({"vendor": "046d", "product": "c31c", "kind": "0301"}, "usbhid"),
        ({"vendor": "1d6b", "product": "0002", "kind": "0900"}, "hub"),
        ({"vendor": "0483", "product": "5740", "kind": "0a00"}, "cdc_acm"),
    ],
)
def test_other_devices_on_the_bus_are_left_alone(
    machine: Machine, device: dict[str, str], driver: str
) -> None:
    machine.usb("1-2", driver=driver, **device)
    assert portless(machine.roots) == []


def test_ports_of_real_adapters_are_ports(machine: Machine) -> None:
    """As the kernel lays them out: ttyUSB below the interface, ttyACM below its folder tty."""
    (machine.usb("1-2", driver="ch341", **CH340) / "ttyUSB0/tty/ttyUSB0").mkdir(parents=True)
    acm = machine.usb("1-3", vendor="0483", product="5740", kind="0202", driver="cdc_acm")
    (acm / "tty/ttyACM0").mkdir(parents=True)
    assert portless(machine.roots) == []


def test_the_list_shows_obstacles_and_devices_without_a_port(
    machine: Machine, tmp_path: Path
) -> None:
    machine.plug("ttyUSB0", vendor="1a86", product="7523")
    machine.usb("1-2", model="POS58 Printer", **PRINTER)
    machine.runs("ModemManager")
    machine.has("usr/bin/brltty")
    found = listing(read_counter(tmp_path / "none", {}), machine.roots, None)
    assert len(found["ports"][0]["obstacles"]) == 2
    assert found["withoutPort"][0]["usb"] == {"vendor": "0416", "product": "5011", "serial": None}
    text = listing_text(found)
    assert "ModemManager (pid 612)" in text and "apt purge brltty" in text
    assert "USB socket 1-2: POS58 Printer, serial number none\n    it is a printer without" in text


def test_the_access_of_this_process() -> None:
    access = obstacles.service_access()
    assert access is None or access.uid >= 0
    if os.geteuid() != 0:
        assert access is not None and os.getegid() in access.gids
