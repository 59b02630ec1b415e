"""Ports: what is plugged in and how it is named for good, one owner for each, and what check says."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import termios
import textwrap
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.check import check, render
from gateway.clock import SystemClock
from gateway.device_tools import hex_lines, listing, listing_text, read_counter
from gateway.devices import channel, escpos, flow, ports
from gateway.devices.channel import Channel, ChannelLost, LineSettings, Tap
from gateway.devices.ports import Port
from gateway.devices.printer import PrinterSetup, ReceiptPrinter
from gateway.settings_file import load
from tests.support.machine import Machine
from tests.unit.test_settings import GOOD, TOKEN, problems, write

ENV = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN}"}
TIOCGEXCL = 0x80045440


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def pty() -> Iterator[tuple[int, str]]:
    """(master, the slave's path); the slave stays open, as of a device that is plugged in."""
    master, slave = os.openpty()
    tty.setraw(slave)
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


# --- what is plugged in -----------------------------------------------------------------------------


def test_ports_are_listed_with_the_names_that_last(machine: Machine) -> None:
    machine.built_in("ttyS0")
    machine.built_in("ttyS1", kind="0")
    machine.plug("ttyUSB10", "1-4", serial="B2")
    machine.plug("ttyUSB2", "1-1")
    machine.plug("lp0", "1-2", maker="EPSON", model="TM-T20", serial="X", vendor="04b8")
    found = ports.plugged_in(machine.roots)
    assert [Path(port.device).name for port in found] == ["ttyS0", "ttyUSB2", "ttyUSB10", "lp0"]
    assert [port.kind for port in found] == ["built-in serial", *["USB serial"] * 2, "USB printer"]
    built_in, adapter, _, printer = found
    # A UART of the main board stays what it is.
    assert built_in.stable == str(machine.dev / "ttyS0")
    by_id = machine.dev / "serial/by-id/usb-FTDI_FT232R_USB_UART_A1-if00-port0"
    assert adapter.stable == str(by_id)
    assert adapter.usb == ports.Usb("0403", "6001", "A1", "FTDI FT232R USB UART", "00.0")
    assert adapter.title == "FTDI FT232R USB UART, serial number A1"
    assert printer.stable == str(machine.dev / "usb/by-id/usb-EPSON_TM-T20_X-if00-port0")


def test_two_adapters_that_cannot_be_told_apart_are_named_by_their_sockets(
    machine: Machine,
) -> None:
    machine.plug("ttyUSB0", "1-1", vendor="1a86", serial="", maker="", model="USB Serial")
    machine.plug("ttyUSB1", "1-2", vendor="1a86", serial="", maker="", model="USB Serial")
    machine.plug("ttyUSB2", "1-3", serial="")
    first, second, other = ports.plugged_in(machine.roots)
    assert first.alike and second.alike and not other.alike
    # Only one of them has the name by id; it is given to neither.
    assert [first.by_id, second.by_id].count(None) == 1
    folder = str(machine.dev / "serial/by-path/pci-0000:00:14.0-usb-0:")
    assert [first.stable, second.stable] == [f"{folder}1:1.0-port0", f"{folder}2:1.0-port0"]
    assert other.stable == other.by_id


def test_the_maker_who_gives_every_adapter_the_same_serial_number(machine: Machine) -> None:
    machine.plug("ttyUSB0", "1-1", serial="0001")
    machine.plug("ttyUSB1", "1-2", serial="0001")
    assert all(port.stable == port.by_path for port in ports.plugged_in(machine.roots))


def test_of_two_links_by_path_the_plain_one_is_used(machine: Machine) -> None:
    machine.plug("ttyUSB0", by_id=False)
    plain = ports.plugged_in(machine.roots)[0].by_path
    machine.link("ttyUSB0", machine.dev / "serial/by-path/pci-0000:00:14.0-usbv2-0:1:1.0-port0")
    assert ports.plugged_in(machine.roots)[0].by_path == plain


def test_links_that_sys_does_not_explain_and_links_into_nothing(machine: Machine) -> None:
    folder = machine.dev / "serial/by-id"
    folder.mkdir(parents=True)
    (machine.dev / "ttyX").touch()
    (folder / "here").symlink_to("../../ttyX")
    (folder / "gone").symlink_to("../../ttyY")
    (port,) = ports.plugged_in(machine.roots)
    assert (port.stable, port.device) == (str(folder / "here"), str(machine.dev / "ttyX"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("/dev/ttyUSB0", True),
        ("/dev/ttyACM12", True),
        ("/dev/usb/lp0", True),
        ("/dev/ttyS0", False),
        ("/dev/serial/by-id/usb-A1-if00", False),
        ("socket://10.0.0.9:9100", False),
    ],
)
def test_names_that_move(name: str, expected: bool) -> None:
    assert ports.moves(name) is expected


def test_who_has_a_port_open_and_who_has_locked_it(pty: tuple[int, str]) -> None:
    _, path = pty
    port = Port(path, path, "USB serial")
    (mine,) = ports.holders(port)
    assert (mine.pid, mine.locked) == (os.getpid(), False)
    line = Channel(LineSettings(path))
    line.open()
    try:
        assert [(each.pid, each.locked) for each in ports.holders(port)] == [(os.getpid(), True)]
    finally:
        line.close()


# --- one owner --------------------------------------------------------------------------------------


def test_a_second_name_for_an_open_port_is_refused_and_disturbs_nothing(
    pty: tuple[int, str], tmp_path: Path
) -> None:
    master, path = pty
    by_id, by_path = tmp_path / "by-id", tmp_path / "by-path"
    by_id.symlink_to(path)
    by_path.symlink_to(path)
    first = Channel(LineSettings(str(by_id), baud=9600))
    second = Channel(LineSettings(str(by_path), baud=115200, parity="E"))
    first.open()
    try:
        before = termios.tcgetattr(first.fileno())
        os.write(master, b"\x12")
        with pytest.raises(ChannelLost, match="by-path is in use by another device"):
            second.open()
        assert not second.is_open
        # Neither its speed nor what waits in its buffer.
        assert termios.tcgetattr(first.fileno()) == before
        assert first.read_some(5) == b"\x12"
        first.close()
        second.open()
    finally:
        first.close()
        second.close()


def test_a_program_that_knows_no_locks_is_kept_out_as_long_as_the_port_is_open(
    pty: tuple[int, str],
) -> None:
    _, path = pty
    watcher = os.open(path, os.O_RDWR | os.O_NOCTTY)

    def exclusive() -> bool:
        return any(fcntl.ioctl(watcher, TIOCGEXCL, bytes(4)))

    line = Channel(LineSettings(path))
    try:
        line.open()
        assert exclusive()
        line.close()
        assert not exclusive()
    finally:
        os.close(watcher)


def test_an_excluded_port_is_not_opened_by_any_name(pty: tuple[int, str], tmp_path: Path) -> None:
    _, path = pty
    link = tmp_path / "by-path"
    link.symlink_to(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    line = Channel(LineSettings(path))
    line.excluded = (str(link),)
    with pytest.raises(ChannelLost, match="excluded_ports"):
        line.open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_why_a_port_cannot_be_opened_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ChannelLost, match="none is not there: is it plugged in"):
        Channel(LineSettings(str(tmp_path / "none"))).open()
    (tmp_path / "file").touch()
    with pytest.raises(ChannelLost, match="file is no serial port"):
        Channel(LineSettings(str(tmp_path / "file"))).open()
    text = channel._why_not_opened("/dev/x", OSError(errno.EACCES, "Permission denied"))
    assert text == "/dev/x may not be opened by this user: see the groups dialout and lp"


def test_a_usb_printer_is_known_through_its_link(machine: Machine) -> None:
    machine.plug("lp0")
    (port,) = ports.plugged_in(machine.roots)
    assert port.by_id is not None
    printer = ReceiptPrinter(PrinterSetup("counter", LineSettings(port.by_id, baud=9600)))
    assert printer.wire_s(960) == 0.0
    line = Channel(LineSettings(port.by_id))
    line.open()
    second = Channel(LineSettings(port.device))
    try:
        with pytest.raises(ChannelLost, match="in use"):
            second.open()
    finally:
        line.close()


def test_the_tap_knows_when(pty: tuple[int, str]) -> None:
    master, path = pty
    line = Channel(LineSettings(path), Tap(SystemClock().now))
    line.open()
    try:
        os.write(master, b"hello")
        line.read_some(5)
        (piece,) = line.tap.after(0)
        assert (piece.number, piece.direction, piece.data) == (1, "in", b"hello")
        assert piece.at is not None and piece.at.tzinfo is not None
    finally:
        line.close()


def test_dsr_flow_control_holds_back_what_the_printer_cannot_take() -> None:
    """On wires as the kernel shows them: DSR low, or much still waiting, lets nothing go."""
    line = {"wires": termios.TIOCM_DSR | termios.TIOCM_CTS, "waiting": 0}
    asked: list[int] = []

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        asked.append(request)
        return struct.pack("i", line["wires" if request == termios.TIOCMGET else "waiting"])

    assert flow.dsr_lets(3, 0.1, ioctl)
    line["waiting"] = flow.PIECE_BYTES
    assert not flow.dsr_lets(3, 0.02, ioctl)
    line |= {"waiting": 0, "wires": termios.TIOCM_CTS}
    asked.clear()
    assert not flow.dsr_lets(3, 0.02, ioctl)
    assert asked.count(termios.TIOCMGET) == 2

    def gone(fd: int, request: int, argument: bytes) -> bytes:
        raise OSError(errno.EIO, "gone")

    with pytest.raises(OSError, match="gone"):
        flow.dsr_lets(3, 0.1, gone)


def test_dsr_flow_control_on_a_line_without_wires(pty: tuple[int, str]) -> None:
    master, path = pty
    line = Channel(LineSettings(path, flow="dsrdtr"))
    line.open()
    try:
        sent, heard = 0, b""
        while sent < 100:
            sent += line.write_some(bytes(100 - sent), 1)
        while len(heard) < 100:
            heard += os.read(master, 200)
        assert heard == bytes(100)
    finally:
        line.close()


# --- settings and check -----------------------------------------------------------------------------


def devices(*parts: str) -> str:
    names = ("counter", "kitchen", "bar")
    return "".join(
        f'[printers.{name}]\nport = "{port}"\n' for name, port in zip(names, parts, strict=False)
    )


def of_ports(warnings: tuple[str, ...]) -> list[str]:
    return [warning for warning in warnings if not warning.startswith("unit.")]


def test_an_excluded_port_in_use_is_a_problem(tmp_path: Path) -> None:
    text = f'excluded_ports = ["/dev/ttyS1"]\n{GOOD}{devices("/dev/ttyS1")}'
    found = problems(write(tmp_path, text), ENV)
    assert found["counter"] == "has the port /dev/ttyS1, which is one of excluded_ports"


def test_check_says_what_the_names_of_ports_lead_to(machine: Machine, tmp_path: Path) -> None:
    machine.plug("ttyUSB0", "1-1")
    machine.plug("ttyUSB1", "1-2", serial="B2")
    one, other = ports.plugged_in(machine.roots)
    assert one.by_id and one.by_path and other.by_path
    text = f'excluded_ports = ["{other.by_path}"]\n{GOOD}'
    text += devices(one.by_id, one.by_path, other.device)
    report = check(write(tmp_path, text), ENV, machine.roots)
    said = {problem.key: problem.message for problem in report.problems}
    assert "the same device as" in said["kitchen"] and one.by_id in said["kitchen"]
    assert "excluded_ports" in said["bar"] and str(other.by_path) in said["bar"]
    assert of_ports(report.warnings) == [
        f"bar: {other.device} becomes another device when a cable is moved; name it {other.by_id}",
    ]
    shown = render(report)
    assert "WARNING bar: " in shown and "2 problem(s)." in shown


def test_check_only_warns_of_a_name_that_moves(machine: Machine, tmp_path: Path) -> None:
    machine.plug("ttyUSB0", "1-1", serial="")
    machine.plug("ttyUSB1", "1-2", serial="")
    by_id = next(port.by_id for port in ports.plugged_in(machine.roots) if port.by_id)
    gone = machine.dev / "ttyUSB7"
    path = write(tmp_path, GOOD + devices(by_id, str(gone)))
    report = check(path, ENV, machine.roots)
    assert report.problems == ()
    first, second = of_ports(report.warnings)
    assert "kitchen" in first + second and f"{gone} becomes another device" in first + second
    assert f"two adapters that are plugged in have the name {by_id}" in first
    assert any(note == f"kitchen: {gone} is not there now" for note in report.notes)


# --- the list ---------------------------------------------------------------------------------------


def test_the_list_says_whose_each_port_is(machine: Machine, tmp_path: Path) -> None:
    machine.built_in("ttyS0")
    machine.plug("ttyUSB0", "1-1")
    machine.plug("ttyUSB1", "1-2", serial="B2")
    one, other = ports.plugged_in(machine.roots)[1:]
    # Not valid as settings: a technician who looks for a port's name has no others yet.
    config = tmp_path / "unfinished.toml"
    config.write_text(
        f'excluded_ports = ["{other.by_path}"]\n[printers.counter]\nport = "{one.by_id}"\n'
        '[printers.kitchen]\nport = "socket://10.0.0.9:9100"\n[scales.meat]\nport = "/dev/none"\n'
        "[displays]\nbroken = 7\n"
    )
    counter = read_counter(config, {"GATEWAY_API__PORT": "9"})
    assert counter.url == "http://127.0.0.1:9"
    found = listing(counter, machine.roots, None)
    assert [each["excluded"] for each in found["ports"]] == [False, False, True]
    assert found["ports"][1]["owner"]["name"] == "counter"
    text = listing_text(found)
    assert f"{machine.dev}/ttyS0\n    built-in serial\n    nobody's" in text
    assert "    printer counter; not open" in text
    assert "excluded: the gateway leaves it alone" in text
    assert "/dev/none\n    scale meat: not plugged in" in text
    assert "socket://10.0.0.9:9100\n    printer kitchen, over the network" in text


def test_without_settings_and_without_ports_it_says_so(machine: Machine, tmp_path: Path) -> None:
    text = listing_text(listing(read_counter(tmp_path / "none", {}), machine.roots, None))
    assert text.splitlines()[0] == "No serial port and no USB printer is plugged in."
    assert "There are no settings at" in text
    (tmp_path / "bad").write_text("[[[")
    assert "cannot be read" in "".join(read_counter(tmp_path / "bad", {}).notes)


def test_hex_lines() -> None:
    at = "2026-11-25T13:02:11.123+03:00"
    assert hex_lines(at, "out", b"\x1b@Hi") == [
        "13:02:11.123 → 1b 40 48 69                                      .@Hi"
    ]
    long = hex_lines(None, "in", bytes(range(0x41, 0x53)))
    assert [line[13] for line in long] == ["←", " "]
    assert long[1].endswith("51 52                                            QR")


def test_a_holder_that_is_the_gateway_is_called_so(tmp_path: Path) -> None:
    for pid, words in (("7", "/x/python3\0/x/bin/pos-gateway\0run"), ("8", "python\0-m\0gateway")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_text(words)
        assert ports._process(int(pid), ports.Roots(proc=tmp_path)) == "pos-gateway"
    (tmp_path / "9").mkdir()
    (tmp_path / "9/comm").write_text("ModemManager\n")
    assert ports._process(9, ports.Roots(proc=tmp_path)) == "ModemManager"


def test_the_settings_of_the_guide_are_settings(tmp_path: Path) -> None:
    """Each block of docs/operating/devices.md, but the capture's, whose patterns stand elsewhere."""
    guide = (Path(__file__).parents[2] / "docs/operating/devices.md").read_text()
    blocks = re.findall(r"(?:^    (?:\[|[a-z_]+ = ).*\n|^\n(?=    \[\[))+", guide, re.MULTILINE)
    blocks = [textwrap.dedent(block) for block in blocks]
    sections = [block for block in blocks if block.startswith("[") and "captures" not in block]
    # The wizard's answer shows the counter's printer, too.
    wizard = [block for block in sections if block.startswith("[printers") and "baud" not in block]
    text = "".join(block for block in sections if block not in wizard).replace(
        '[[tills]]\nid = "till-1"\n', ""
    )
    assert [part in text for part in ("displays", "scales", "scanners", "serial_tills")] == [
        True
    ] * 4
    text = text.replace('printer = "counter"\n', "").replace('failover = ["kitchen"]\n', "")
    settings = load(write(tmp_path, GOOD + text), ENV).settings
    assert settings.scales["meat"].data_bits == 7
    assert escpos.encode((), escpos.Manner(settings.printers["counter"].profile))
