"""The wizard "unplug it, plug it in again": what it says to do, whatever is done at the counter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.device_tools import Counter
from gateway.devices import ports
from gateway.devices.finder import Finder, Owner
from gateway.devices.ports import Port
from tests.support.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class ByHand(SystemClock):
    """Each sleep is a moment in which somebody does the next thing at the counter."""

    def __init__(self, *steps: Callable[[], object] | None) -> None:
        super().__init__()
        self._steps = list(steps)

    async def sleep(self, seconds: float) -> None:
        assert self._steps, "the wizard waits for more than was done"
        step = self._steps.pop(0)
        if step is not None:
            step()


async def wizard(
    machine: Machine, counter: Counter, *steps: Callable[[], object] | None
) -> tuple[list[Port], str]:
    said: list[str] = []
    finder = Finder(
        lambda: ports.plugged_in(machine.roots),
        counter.owner_of,
        counter.excludes,
        ByHand(*steps),
        said.append,
    )
    return await finder.run(), "\n".join(said)


NOTHING = Counter((), (), "http://127.0.0.1:9")


async def test_the_wizard_unplugged_and_plugged_in_again_on_another_number(
    machine: Machine,
) -> None:
    machine.plug("ttyUSB0", "1-1")
    machine.plug("ttyUSB1", "1-2", serial="B2")
    (port,), said = await wizard(
        machine,
        NOTHING,
        None,
        lambda: machine.unplug("ttyUSB1", "1-2"),
        None,
        None,
        lambda: machine.plug("ttyUSB4", "1-2", serial="B2"),
        None,
    )
    assert port.device == str(machine.dev / "ttyUSB4")
    by_id = f"{machine.dev}/serial/by-id/usb-FTDI_FT232R_USB_UART_B2-if00-port0"
    assert f"That was FTDI FT232R USB UART, serial number B2, at {by_id}." in said
    assert f'[printers.counter]\n    port = "{by_id}"' in said


async def test_the_wizard_with_a_device_that_was_not_plugged_in(machine: Machine) -> None:
    found, said = await wizard(machine, NOTHING, machine.plug, None)
    assert len(found) == 1
    assert "That was" not in said and "It is " in said


async def test_the_wizard_waits_for_the_links_that_udev_makes_later(machine: Machine) -> None:
    link = machine.dev / "serial/by-id/usb-late-if00"
    (port,), said = await wizard(
        machine,
        NOTHING,
        lambda: machine.plug(by_id=False, by_path=False),
        None,
        None,
        None,
        lambda: machine.link("ttyUSB0", link),
    )
    assert port.by_id == str(link) and f'port = "{link}"' in said


async def test_the_wizard_where_there_is_no_name_that_lasts(machine: Machine) -> None:
    _, said = await wizard(
        machine, NOTHING, lambda: machine.plug("lp0", by_id=False, by_path=False), *[None] * 21
    )
    assert "70-pos-gateway.rules" in said
    assert f'port = "{machine.dev}/usb/lp0"' in said


async def test_the_wizard_names_the_second_of_two_identical_adapters_by_its_socket(
    machine: Machine,
) -> None:
    machine.plug("ttyUSB0", "1-1", serial="")
    (port,), said = await wizard(
        machine, NOTHING, lambda: machine.plug("ttyUSB1", "1-2", serial=""), None
    )
    assert port.by_path is not None
    assert f'port = "{port.by_path}"' in said
    assert "Another adapter that is plugged in has the same name by id" in said


async def test_the_wizard_warns_of_an_adapter_without_a_serial_number(machine: Machine) -> None:
    (port,), said = await wizard(machine, NOTHING, lambda: machine.plug(serial=""), None)
    assert f'port = "{port.by_id}"' in said
    assert "no serial number" in said and str(port.by_path) in said


async def test_the_wizard_is_not_misled_by_another_device(machine: Machine) -> None:
    machine.plug("ttyUSB0", "1-1")
    (port,), said = await wizard(
        machine,
        NOTHING,
        lambda: machine.unplug("ttyUSB0", "1-1"),
        None,
        lambda: machine.plug("ttyUSB0", "1-2", serial="B2"),
        None,
        lambda: machine.plug("ttyUSB1", "1-1"),
        None,
    )
    assert port.usb is not None and port.usb.serial == "A1"
    assert "serial number B2 is another device than the one before" in said


async def test_the_wizard_knows_what_the_settings_say(machine: Machine) -> None:
    machine.plug("ttyUSB0", "1-1")
    (port,) = ports.plugged_in(machine.roots)
    again = (
        lambda: machine.unplug("ttyUSB0", "1-1"),
        None,
        lambda: machine.plug("ttyUSB0", "1-1"),
        None,
    )
    assert port.by_id and port.by_path
    good = replace(NOTHING, owners=(Owner("scale", "meat", port.by_id),))
    _, said = await wizard(machine, good, *again)
    assert "the settings have it as scale meat." in said
    assert said.endswith("The settings have it as scale meat: nothing is to be changed.")
    moving = replace(NOTHING, owners=(Owner("scale", "meat", port.device),))
    _, said = await wizard(machine, moving, *again)
    assert f'[scales.meat]\n    port = "{port.by_id}"' in said
    left_alone = replace(NOTHING, excluded=(port.by_path,))
    _, said = await wizard(machine, left_alone, *again)
    assert said.endswith("It is one of excluded_ports: the gateway leaves it alone.")


async def test_the_wizard_after_a_move_to_another_socket(machine: Machine) -> None:
    """Named by its socket; it was the printer, and is again when its section has the new name."""
    machine.plug("ttyUSB0", "1-1", by_id=False)
    (port,) = ports.plugged_in(machine.roots)
    counter = replace(NOTHING, owners=(Owner("printer", "bar", port.stable),))
    (moved,), said = await wizard(
        machine,
        counter,
        lambda: machine.unplug("ttyUSB0", "1-1"),
        None,
        lambda: machine.plug("ttyUSB0", "1-3", by_id=False),
        None,
    )
    assert moved.stable != port.stable
    assert f'[printers.bar]\n    port = "{moved.stable}"' in said
