"""`pos-gateway devices` beside the real gateway, on real ptys: list, tap, wizard; unplug and replug."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hw_fakes.ports import free_port
from hw_fakes.printer.peer import FakePrinter
from hw_fakes.vscu.unit import UnitControl
from tests.conftest import need_tool
from tests.support.daemon import Daemon
from tests.support.machine import Machine
from tests.support.shop import TECHNICIANS, TOKENS, a_sale, make_settings, open_shop

CODE = TECHNICIANS["wanjiru"]
WITHIN_S = 60


def environment(code: str | None = None) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "POS_GATEWAY_CODE"}
    return {**env, "POS_GATEWAY_CODE": code} if code else env


@asynccontextmanager
async def command(*args: str, code: str | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        # Whoever starts the tests in the background has Ctrl-C ignored, and a child inherits that.
        "env", "--default-signal=INT",
        sys.executable, "-m", "gateway", "devices", *args, env=environment(code),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(*args: str, code: str | None = None) -> tuple[int, str, str]:
    async with command(*args, code=code) as process, asyncio.timeout(WITHIN_S):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def places(machine: Machine) -> tuple[str, ...]:
    """Of a made machine, without a configuration."""
    none = machine.dev.parent / "none"
    return ("--dev", str(machine.dev), "--sys", str(machine.sys), "--config", str(none))


async def line_with(process: asyncio.subprocess.Process, part: str) -> str:
    """The next line of its output that has this."""
    assert process.stdout is not None
    async with asyncio.timeout(WITHIN_S):
        while line := (await process.stdout.readline()).decode():
            if part in line:
                return line
    raise AssertionError(f"it ended without {part!r}")


async def interrupt(process: asyncio.subprocess.Process) -> None:
    """Ctrl-C: it ends at once, with nothing about its insides."""
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(WITHIN_S):
        _, err = await process.communicate()
    assert (process.returncode, err) == (130, b"")


async def until(ask: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await ask():
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_list_and_tap_beside_the_running_gateway_and_a_replug(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    daemon: Daemon | None = None
    async with FakePrinter() as printer, aiohttp.ClientSession() as session:
        machine.plug("ttyUSB0", "1-1", pty=printer.device_path)
        by_id = machine.dev / "serial/by-id/usb-FTDI_FT232R_USB_UART_A1-if00-port0"
        scale = machine.dev / "serial/by-id/usb-scale-if00"
        daemon = Daemon(
            tmp_path,
            extra=f'[printers.counter]\nport = "{by_id}"\nbaud = 115200\n'
            f'[scales.meat]\nport = "{scale}"\n',
            env={"GATEWAY_TECHNICIAN_TOKENS": f"wanjiru={CODE}"},
        )
        daemon.config.write_text(
            daemon.config.read_text().replace('id = "till-1"', 'id = "till-1"\nprinter = "counter"')
        )
        args = (
            "--config",
            str(daemon.config),
            "--dev",
            str(machine.dev),
            "--sys",
            str(machine.sys),
        )

        async def listed() -> dict[str, Any]:
            code, out, _ = await run(*args, "--json", code=CODE)
            assert code == 0
            found: dict[str, Any] = json.loads(out)
            return found

        # Without the gateway the list is there too; the tap says that nobody answers.
        found = await listed()
        assert found["gateway"] == "not running"
        assert found["ports"][0]["owner"]["name"] == "counter"
        code, _, err = await run(*args, "--tap", "counter", code=CODE)
        assert (code, err) == (3, f"No gateway answers at {daemon.url}.\n")

        await daemon.start()
        try:
            till = daemon.till(session)
            assert (await till.sell("one", a_sale())).status == 201
            await printer.wait_for_slips(1, WITHIN_S)

            found = await listed()
            assert found["gateway"] == "running"
            (port,) = found["ports"]
            assert port["name"] == str(by_id)
            assert port["owner"]["problem"] is None
            assert {"pid": daemon.pid, "program": "pos-gateway", "locked": True} in port["openIn"]
            (missing,) = found["notPluggedIn"]
            assert (missing["name"], missing["port"]) == ("meat", str(scale))
            assert "is not there: is it plugged in?" in missing["problem"]
            _, text, _ = await run(*args)
            assert f"pos-gateway (pid {daemon.pid})" in text
            assert "scale meat: not plugged in" in text

            code, out, _ = await run(*args, "--tap", "counter", "--once", code=CODE)
            assert code == 0
            assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} → 10 04 01 ", out, re.MULTILINE)
            assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} ← 1[26] ", out, re.MULTILINE)
            code, out, err = await run(*args, "--tap", "counter", "--once", code="a-wrong-code")
            assert (code, "technician's code" in err) == (1, True)
            code, _, err = await run(*args, "--tap", "nobody", "--once", code=CODE)
            assert (code, err) == (1, "There is no device of this name.\n")
            code, _, err = await run(*args, "--tap", "counter", "--once")
            assert (code, "POS_GATEWAY_CODE" in err) == (1, True)

            # The live tap sees the next slip go by; Ctrl-C ends it.
            async with command(*args, "--tap", "counter", code=CODE) as tapped:
                await line_with(tapped, "→ to the device")
                assert (await till.sell("two", a_sale())).status == 201
                await line_with(tapped, "TRADERS LTD")
                await interrupt(tapped)

            # Pulled, and put back into another socket: another pty, another ttyUSB, the same name.
            await printer.wait_for_slips(2, WITHIN_S)
            printer.unplug()
            machine.unplug("ttyUSB0", "1-1")

            async def gone() -> bool:
                found = await listed()
                return found["ports"] == [] and any(
                    each["name"] == "counter" and each["problem"] for each in found["notPluggedIn"]
                )

            await until(gone)
            assert (await till.sell("three", a_sale())).status == 201
            printer.plug()
            machine.plug("ttyUSB5", "1-4", pty=printer.device_path)
            await printer.wait_for_slips(3, WITHIN_S)

            async def back() -> bool:
                (port,) = (await listed())["ports"]
                return bool(port["owner"]["problem"] is None and port["openIn"])

            await until(back)
            assert "COPY" not in printer.paper.slips[2].text()
        finally:
            await daemon.stop()


async def test_the_tap_goes_on_through_a_restart_of_the_gateway(
    unit: UnitControl, shop_dir: Path
) -> None:
    async with FakePrinter() as printer:
        settings = make_settings(
            shop_dir,
            unit.url,
            api={"port": free_port()},
            printers={"counter": {"port": printer.device_path, "baud": 115200}},
        )
        config = shop_dir / "tap.toml"
        config.write_text(f"[api]\nport = {settings.api.port}\n")
        again = command("--config", str(config), "--tap", "counter", code=CODE)
        async with open_shop(settings):
            tapped = await again.__aenter__()
            await line_with(tapped, "→ 10 04")
        try:
            await line_with(tapped, "The gateway does not answer; waiting for it.")
            async with open_shop(settings):
                await line_with(tapped, "The gateway has started anew.")
                await line_with(tapped, "→ 10 04")
                await interrupt(tapped)
        finally:
            await again.__aexit__(None, None, None)


async def test_the_wizard_on_real_ptys(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    args = places(machine)
    async with FakePrinter() as printer, command(*args, "--find") as process:
        machine.plug("ttyUSB0", pty=printer.device_path)
        await line_with(process, "Unplug the device now")
        printer.unplug()
        machine.unplug("ttyUSB0")
        await line_with(process, "That was FTDI FT232R USB UART, serial number A1")
        await line_with(process, "Plug it in again")
        printer.plug()
        machine.plug("ttyUSB1", "1-3", pty=printer.device_path)
        await line_with(process, "It is ")
        named = await line_with(process, "port = ")
        async with asyncio.timeout(WITHIN_S):
            assert await process.wait() == 0
    by_id = machine.dev / "serial/by-id/usb-FTDI_FT232R_USB_UART_A1-if00-port0"
    assert named.strip() == f'port = "{by_id}"'
    # What the wizard says is what the gateway opens.
    assert os.path.realpath(by_id) == os.path.realpath(printer.device_path)


async def test_ctrl_c_ends_the_wizard(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    args = places(machine)
    async with command(*args, "--find") as process:
        await line_with(process, "Unplug the device now")
        await interrupt(process)


async def test_list_and_wizard_open_no_port(tmp_path: Path) -> None:
    """As the kernel sees it: the names are read, the nodes are not opened."""
    strace = need_tool("strace")
    machine = Machine(tmp_path)
    async with FakePrinter() as printer:
        machine.plug("ttyUSB0", "1-1", pty=printer.device_path)
        machine.built_in("ttyS0")
        args = places(machine)
        trace = tmp_path / "trace"
        process = await asyncio.create_subprocess_exec(
            strace, "-f", "-o", str(trace), "-e", "trace=open,openat,openat2",
            sys.executable, "-m", "gateway", "devices", *args, "--json", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(WITHIN_S):
            out, _ = await process.communicate()
        assert len(json.loads(out)["ports"]) == 2
        finder = await asyncio.create_subprocess_exec(
            strace, "-f", "-o", f"{trace}2", "-e", "trace=open,openat,openat2",
            sys.executable, "-m", "gateway", "devices", *args, "--find", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await line_with(finder, "Unplug")
        machine.plug("ttyUSB1", "1-2", serial="B2")
        machine.plug("ttyUSB2", "1-3", serial="C3")
        await line_with(finder, "port = ")
        async with asyncio.timeout(WITHIN_S):
            await finder.wait()
        for name in (str(trace), f"{trace}2"):
            opened = re.findall(r'open\w*\([^"]*"([^"]+)"', Path(name).read_text())
            assert any(path.endswith("class/tty") for path in opened), "the trace is empty"
            nodes = [
                path for path in opened if re.search(r"/tty(USB|S)\d+$|/dev/pts/|by-\w+/usb", path)
            ]
            assert [path for path in nodes if "/sys/" not in path] == []


async def test_one_port_under_two_names_has_one_owner(unit: UnitControl, shop_dir: Path) -> None:
    """Slips of its owner come out whole; the other one says why it does not work, and its slips wait."""
    machine = Machine(shop_dir)
    async with FakePrinter() as printer:
        machine.plug("ttyUSB0", pty=printer.device_path)
        names = [next((machine.dev / "serial" / by).iterdir()) for by in ("by-id", "by-path")]
        settings = make_settings(
            shop_dir,
            unit.url,
            tills=[{"id": "till-1", "printer": "one"}, {"id": "till-2", "printer": "two"}],
            till_tokens={till: TOKENS[till] for till in ("till-1", "till-2")},
            printers={
                "one": {"port": str(names[0]), "baud": 115200},
                "two": {"port": str(names[1]), "baud": 9600},
            },
        )
        async with open_shop(settings) as shop:

            async def problems() -> dict[str, str | None]:
                answer = await shop.technician().request("GET", "/v1/devices")
                assert answer.status == 200
                return {each["name"]: each["problem"] for each in answer.json["devices"]}

            async def settled() -> bool:
                first, second = sorted((await problems()).values(), key=str)
                return "is in use by another device" in str(first) and second is None

            await until(settled)
            said = await problems()
            owner, other = sorted(said, key=lambda name: said[name] is not None)
            tills = {"one": shop.till("till-1"), "two": shop.till("till-2")}
            for n in range(3):
                assert (await tills[owner].sell(f"{owner}{n}", a_sale())).status == 201
                assert (await tills[other].sell(f"{other}{n}", a_sale())).status == 201
            await printer.wait_for_slips(3, WITHIN_S)
            jobs = (await shop.till().request("GET", "/v1/print-jobs")).json["jobs"]
            assert len([job for job in jobs if job["printer"] == other]) == 3
            assert len(printer.paper.slips) == 3
            assert printer.problems == []


async def test_an_excluded_port_is_left_alone_whatever_name_leads_to_it(
    unit: UnitControl, shop_dir: Path
) -> None:
    machine = Machine(shop_dir)
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    try:
        machine.plug("ttyUSB0", pty=os.ttyname(slave))
        by_id = next((machine.dev / "serial/by-id").iterdir())
        by_path = next((machine.dev / "serial/by-path").iterdir())
        settings = make_settings(
            shop_dir,
            unit.url,
            excluded_ports=[str(by_path)],
            printers={"counter": {"port": str(by_id)}},
            displays={"pole": {"port": str(by_id.parent / ".." / "by-id" / by_id.name)}},
        )
        async with open_shop(settings) as shop:

            async def refused() -> bool:
                answer = await shop.till().request("GET", "/v1/devices")
                return all("excluded_ports" in str(e["problem"]) for e in answer.json["devices"])

            await until(refused)
        try:
            heard = os.read(master, 100)
        except BlockingIOError:
            heard = b""
        assert heard == b""
    finally:
        os.close(master)
        os.close(slave)


async def test_a_device_that_hears_only_heals_behind_the_same_name(
    unit: UnitControl, shop_dir: Path
) -> None:
    """A customer display: unplugged it is said to be, on a new pty it gets its text again."""
    link = shop_dir / "by-id"

    def plug() -> tuple[int, int]:
        master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(master, False)
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(slave))
        return master, slave

    async def shows(master: int) -> None:
        heard = b""
        async with asyncio.timeout(WITHIN_S):
            while b"KARIBU" not in heard:
                try:
                    heard += os.read(master, 4096)
                except BlockingIOError:
                    await asyncio.sleep(0.02)

    first = plug()
    settings = make_settings(shop_dir, unit.url, displays={"pole": {"port": str(link)}})
    async with open_shop(settings) as shop:
        await shows(first[0])
        link.unlink()
        for fd in first:
            os.close(fd)

        async def said() -> bool:
            answer = await shop.till().request("GET", "/v1/devices")
            return "is not there" in str(answer.json["devices"][0]["problem"])

        await until(said)
        second = plug()
        await shows(second[0])
    for fd in second:
        os.close(fd)


async def test_a_printer_that_cannot_answer_is_opened_anew_after_an_unplug(
    unit: UnitControl, shop_dir: Path
) -> None:
    """The first slip after the replug comes out: it was not sent into the line that is gone."""
    link = shop_dir / "by-id"
    async with FakePrinter() as printer:
        link.symlink_to(printer.device_path)
        settings = make_settings(
            shop_dir,
            unit.url,
            tills=[{"id": till, "printer": "counter"} for till in TOKENS],
            printers={"counter": {"port": str(link), "baud": 115200, "confirm": "none"}},
        )
        async with open_shop(settings) as shop:
            assert (await shop.till().sell("one", a_sale())).status == 201
            await printer.wait_for_slips(1, WITHIN_S)
            printer.unplug()
            link.unlink()
            assert (await shop.till().sell("two", a_sale())).status == 201

            async def waits() -> bool:
                jobs = (await shop.till().request("GET", "/v1/print-jobs")).json["jobs"]
                return [job["state"] for job in jobs][-1] in ("BLOCKED", "QUEUED") and bool(
                    jobs[-1]["reason"]
                )

            await until(waits)
            printer.plug()
            link.symlink_to(printer.device_path)
            await printer.wait_for_slips(2, WITHIN_S)
