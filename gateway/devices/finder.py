"""The wizard "unplug it, plug it in again": which port is this device, and what the settings call it.

Looks at what is plugged in, again and again; opens nothing, so it may run beside the gateway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.devices.ports import Port, moves

# Between two looks, in seconds.
LOOK_S = 0.25
# udev makes a port's links after the port; so many looks are waited for them.
LINK_LOOKS = 20
SECTIONS = {"printer": "printers", "display": "displays", "scale": "scales", "scanner": "scanners",
    "serial till": "serial_tills", "capture": "captures"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Owner:
    """A device of the settings, with the name it gives its port. `kind` is a key of SECTIONS."""

    kind: str
    name: str
    port: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    @property
    def section(self) -> str:
        return f"[{SECTIONS[self.kind]}.{self.name}]"


class Finder:
    """`look` gives the ports of now, `owner_of` the device of the settings that a port is now."""

    def __init__(
        self,
        look: Callable[[], list[Port]],
        owner_of: Callable[[Port], Owner | None],
        excluded: Callable[[Port], bool],
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self._look = look
        self._owner_of = owner_of
        self._excluded = excluded
        self._clock = clock
        self._say = say

    async def run(self) -> list[Port]:
        """Asks, waits and says what was found; the ports. Ends only with a find or by Ctrl-C."""
        before = self._look()
        owners = {port.real: self._owner_of(port) for port in before}
        self._say(
            "Unplug the device now. If it is not plugged in yet, plug it in. Ctrl-C ends this."
        )
        now = await self._changed(before)
        gone, new = _without(before, now), _without(now, before)
        if not new:
            for port in gone:
                owner = owners[port.real]
                named = f"; the settings have it as {owner}" if owner else ""
                self._say(f"That was {port.title}, at {port.stable}{named}.")
            self._say("Plug it in again, into the socket where it is to stay.")
            new = await self._back(gone, now)
        new = await self._linked(new)
        before_owner = next((owner for port in gone if (owner := owners[port.real])), None)
        for port in new:
            self._tell(port, before_owner)
        return new

    async def _changed(self, before: Sequence[Port]) -> list[Port]:
        """What is there when something has come or gone and nothing has moved since the look before."""
        last = list(before)
        while True:
            await self._clock.sleep(LOOK_S)
            now = self._look()
            if _names(now) == _names(last) and _names(now) != _names(before):
                return now
            last = now

    async def _back(self, gone: Sequence[Port], before: Sequence[Port]) -> list[Port]:
        while True:
            now = await self._changed(before)
            new = _without(now, before)
            kinds = {port.usb for port in gone}
            others = [port for port in new if port.usb not in kinds]
            for port in others:
                self._say(f"{port.title} is another device than the one before. Go on.")
            if len(others) < len(new):
                return [port for port in new if port not in others]
            before = now

    async def _linked(self, new: Sequence[Port]) -> list[Port]:
        """The same ports when udev has given them their names, or has had time enough."""
        wanted = _names(new)
        found = [port for port in self._look() if port.real in wanted]
        for _ in range(LINK_LOOKS):
            if all(port.usb is None or port.by_id or port.by_path for port in found):
                break
            await self._clock.sleep(LOOK_S)
            found = [port for port in self._look() if port.real in wanted]
        return found

    def _tell(self, port: Port, before: Owner | None) -> None:
        today = f", today {port.device}" if port.device != port.stable else ""
        self._say(f"It is {port.stable} ({port.title}{today}).")
        for remark in remarks(port):
            self._say(remark)
        if self._excluded(port):
            self._say("It is one of excluded_ports: the gateway leaves it alone.")
            return
        owner = self._owner_of(port)
        if owner is not None and _lasts(owner.port, port):
            self._say(f"The settings have it as {owner}: nothing is to be changed.")
            return
        owner = owner or before
        if owner is not None:
            self._say("Put this in the settings and restart the gateway:")
            section = owner.section
        else:
            self._say(
                "Put this in the settings, in the section of what it is ([displays.NAME], "
                "[scales.NAME], [scanners.NAME], ...; here a printer), and restart the gateway:"
            )
            section = "[printers.counter]"
        self._say(f'\n    {section}\n    port = "{port.stable}"\n')


def remarks(port: Port) -> list[str]:
    """What to know of a port's name; empty when it is one of its own."""
    if port.alike:
        return [
            "Another adapter that is plugged in has the same name by id, so each is named by its "
            "socket: leave both where they are."
            if port.by_path
            else "Another adapter that is plugged in cannot be told from it, and it has no name by "
            "path: use an adapter with a serial number."
        ]
    if port.by_id is None and port.by_path is not None:
        return ["It has no name by id, so it is named by its socket: leave it where it is."]
    if port.by_id is None and moves(port.device):
        return [
            "It has no name that lasts: is systemd/70-pos-gateway.rules in /etc/udev/rules.d? "
            "(docs/operating/devices.md)"
        ]
    if port.usb is not None and not port.usb.serial:
        by_path = f"; then name both by path, this one {port.by_path}" if port.by_path else ""
        return [
            "It has no serial number of its own: a second one of its kind would get the same name"
            f"{by_path}."
        ]
    return []


def _lasts(name: str, port: Port) -> bool:
    """Whether the settings' name leads to this port tomorrow, too; it may be a link of one's own."""
    return name == port.stable or not (moves(name) or (port.alike and name == port.by_id))


def _names(ports: Sequence[Port]) -> set[str]:
    return {port.real for port in ports}


def _without(ports: Sequence[Port], others: Sequence[Port]) -> list[Port]:
    known = _names(others)
    return [port for port in ports if port.real not in known]
