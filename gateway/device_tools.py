"""`pos-gateway devices`: what is plugged in and whose it is, the tap of a line, the wizard.

Works with the gateway running or stopped, and with settings that are not finished, since a technician
looks for a port's name before the settings can be good. Opens no port.
"""

from __future__ import annotations

import asyncio
import json
import os
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.devices import mdns_finder, network_finder, obstacles, ports
from gateway.devices.channel import is_network
from gateway.devices.finder import SECTIONS, Finder, Owner, remarks
from gateway.devices.ports import Port, Roots

# A technician's code for the running gateway; not GATEWAY_..., which would be taken for a setting.
CODE_ENV = "POS_GATEWAY_CODE"
TAP_LOOK_S = 0.3
BYTES_PER_LINE = 16


class AskFailed(Exception):
    """The running gateway could not be asked; the text says why. `absent`: nobody answers at all."""

    def __init__(self, text: str, *, absent: bool = False) -> None:
        super().__init__(text)
        self.absent = absent


@dataclass(frozen=True, slots=True)
class Counter:
    """What the settings file says of the counter, however unfinished the rest of it is."""

    owners: tuple[Owner, ...]
    excluded: tuple[str, ...]
    url: str
    notes: tuple[str, ...] = ()

    def owner_of(self, port: Port) -> Owner | None:
        return next((o for o in self.owners if os.path.realpath(o.port) == port.real), None)

    def excludes(self, port: Port) -> bool:
        return any(os.path.realpath(other) == port.real for other in self.excluded)


def read_counter(path: Path, env: Mapping[str, str]) -> Counter:
    """Devices come from the file only; where the API listens may come from the environment."""
    data: dict[str, Any] = {}
    notes = []
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"There are no settings at {path}: nothing that is plugged in has an owner.")
    except (OSError, ValueError) as error:
        notes.append(f"The settings at {path} cannot be read: {error}")
    owners = [
        Owner(kind, name, part["port"])
        for kind, section in SECTIONS.items()
        for name, part in _table(data.get(section)).items()
        if isinstance(part, dict) and isinstance(part.get("port"), str)
    ]
    api, excluded = _table(data.get("api")), data.get("excluded_ports")
    host = env.get("GATEWAY_API__HOST") or str(api.get("host") or "127.0.0.1")
    port = env.get("GATEWAY_API__PORT") or str(api.get("port") or 8080)
    return Counter(
        tuple(owners),
        tuple(str(each) for each in excluded) if isinstance(excluded, list) else (),
        local_url(host, port),
        tuple(notes),
    )


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def local_url(host: str, port: int | str) -> str:
    """Where the gateway of this machine is reached from this machine."""
    host = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


# --- the list ---------------------------------------------------------------------------------------


def listing(counter: Counter, roots: Roots, code: str | None) -> dict[str, Any]:
    """Everything that is plugged in or configured, as JSON. `gateway`: what the running one was asked."""
    said: dict[str, Any] = {}
    gateway = "not asked"
    notes = list(counter.notes)
    if code:
        try:
            answer = ask(counter.url, "/v1/devices", code)
            said = {device["name"]: device["problem"] for device in answer["devices"]}
            gateway = "running"
        except AskFailed as failed:
            gateway = "not running" if failed.absent else "refused"
            notes.append(str(failed))
    found = ports.plugged_in(roots)
    here = {port.real for port in found}
    access = obstacles.service_access()
    return {
        "ports": [_port_json(port, counter, roots, said, access) for port in found],
        "withoutPort": [
            {
                "title": each.usb.title,
                "usb": _usb_json(each.usb),
                "socket": each.socket,
                "problem": each.problem,
            }
            for each in obstacles.portless(roots)
        ],
        "notPluggedIn": [
            _owner_json(owner, said)
            for owner in counter.owners
            if not is_network(owner.port) and os.path.realpath(owner.port) not in here
        ],
        "network": [_owner_json(owner, said) for owner in counter.owners if is_network(owner.port)],
        "gateway": gateway,
        "notes": notes,
    }


def _port_json(
    port: Port,
    counter: Counter,
    roots: Roots,
    said: Mapping[str, str | None],
    access: obstacles.Access | None,
) -> dict[str, Any]:
    owner = counter.owner_of(port)
    usb = port.usb
    return {
        "name": port.stable,
        "title": port.title,
        "kind": port.kind,
        "device": port.device,
        "byId": port.by_id,
        "byPath": port.by_path,
        "usb": usb and _usb_json(usb),
        "owner": owner and _owner_json(owner, said),
        "excluded": counter.excludes(port),
        "openIn": [
            {"pid": holder.pid, "program": holder.name, "locked": holder.locked}
            for holder in ports.holders(port, roots)
        ],
        "remarks": remarks(port),
        "obstacles": obstacles.of_port(port, roots, access),
    }


def _usb_json(usb: ports.Usb) -> dict[str, Any]:
    return {"vendor": usb.vendor, "product": usb.product, "serial": usb.serial or None}


def _owner_json(owner: Owner, said: Mapping[str, str | None]) -> dict[str, Any]:
    return {
        "kind": owner.kind,
        "name": owner.name,
        "port": owner.port,
        "problem": said.get(owner.name),
    }


def listing_text(found: Mapping[str, Any]) -> str:
    """The same in words."""
    lines = []
    for port in found["ports"]:
        lines.append(port["name"])
        today = f", today {port['device']}" if port["device"] != port["name"] else ""
        lines.append(f"    {port['title']}{today}")
        lines.append(f"    {_whose(port)}")
        lines += [f"    {remark}" for remark in (*port["remarks"], *port["obstacles"])]
    for each in found["withoutPort"]:
        lines += [f"USB socket {each['socket']}: {each['title']}", f"    {each['problem']}"]
    if not found["ports"]:
        lines.append("No serial port and no USB printer is plugged in.")
    for owner in found["notPluggedIn"]:
        lines += [owner["port"], f"    {_called(owner)}: not plugged in"]
    for owner in found["network"]:
        lines += [owner["port"], f"    {_called(owner)}, over the network{_problem(owner)}"]
    lines += found["notes"]
    return "\n".join(lines)


def _whose(port: Mapping[str, Any]) -> str:
    owner = port["owner"]
    if port["excluded"]:
        text = "excluded: the gateway leaves it alone"
    elif owner is None:
        text = "nobody's: no device of the settings has it"
    else:
        text = f"{_called(owner)}{_problem(owner)}"
    programs = [f"{each['program']} (pid {each['pid']})" for each in port["openIn"]]
    return text + (f"; open in {', '.join(programs)}" if programs else "; not open")


def _called(owner: Mapping[str, Any]) -> str:
    return f"{owner['kind']} {owner['name']}"


def _problem(owner: Mapping[str, Any]) -> str:
    return f": {owner['problem']}" if owner["problem"] else ""


# --- the network ------------------------------------------------------------------------------------


async def network(counter: Counter, roots: Roots, clock: Clock) -> dict[str, Any]:
    """Return the printers on this machine's own networks, as JSON."""
    own = network_finder.own_addresses()
    found, announced = await asyncio.gather(
        network_finder.scan(network_finder.neighbours(own), roots), _announced(clock)
    )
    models = {each.address: each.model for each in announced or ()}
    answering = {each.address for each in found}
    printers = [(each.name, each.hardware, models.get(each.address)) for each in found]
    for each in announced or ():
        if each.raw_port is not None and each.address not in answering:
            printers.append((f"socket://{each.address}:{each.raw_port}", None, each.model))
    return {
        "searched": [str(each.network) for each in own],
        "printers": [
            {"name": name, "hardware": hardware, "model": model, "owner": _on(name, counter)}
            for name, hardware, model in printers
        ],
        "withoutRawPort": [
            {"address": each.address, "model": each.model}
            for each in announced or ()
            if each.raw_port is None and each.address not in answering
        ],
        "mdns": announced is not None,
        "notes": list(counter.notes),
    }


async def _announced(clock: Clock) -> list[mdns_finder.Announced] | None:
    try:
        return await mdns_finder.browse(clock)
    except OSError:
        return None  # no multicast here; the search by port goes on


def _on(name: str, counter: Counter) -> dict[str, Any] | None:
    return next((_owner_json(owner, {}) for owner in counter.owners if owner.port == name), None)


def network_text(found: Mapping[str, Any]) -> str:
    """Return the same in words."""
    if not found["searched"] and not found["printers"]:
        return "This machine has no address in a private network: is the cable in, or the Wi-Fi on?"
    lines = []
    for printer in found["printers"]:
        owner = printer["owner"]
        model = f"{printer['model']}: " if printer["model"] else ""
        hardware = f", hardware address {printer['hardware']}" if printer["hardware"] else ""
        whose = _called(owner) if owner else "no device of the settings has it"
        lines += [printer["name"], f"    {model}answers on the printer port{hardware}; {whose}"]
        if owner is None:
            lines += [
                "    Give it a fixed address in the router or at the printer, then put this in the "
                "settings and restart the gateway:",
                f'\n    [printers.NAME]\n    port = "{printer["name"]}"\n',
            ]
    for printer in found["withoutRawPort"]:
        lines += [
            f"{printer['address']}: {printer['model']}",
            "    announces itself, but takes no connection on port 9100: switch raw printing (port "
            "9100) on in its settings",
        ]
    if not lines:
        lines.append(
            f"No printer answers on {', '.join(found['searched'])}: is it switched on, and in the same "
            "network as this machine? Its self-test print (feed button held at power-on) has its "
            "address. A printer that another program prints to answers that program only."
        )
    return "\n".join([*lines, *found["notes"]])


# --- the wizard -------------------------------------------------------------------------------------


async def find(counter: Counter, roots: Roots, clock: Clock, say: Callable[[str], None]) -> None:
    for note in counter.notes:
        say(note)
    for each in obstacles.portless(roots):
        say(f"USB socket {each.socket}: {each.usb.title}: {each.problem}")
    look = lambda: ports.plugged_in(roots)  # noqa: E731
    await Finder(look, counter.owner_of, counter.excludes, clock, say).run()


# --- the tap ----------------------------------------------------------------------------------------


async def tap(
    counter: Counter, name: str, code: str, clock: Clock, say: Callable[[str], None], *, once: bool
) -> None:
    """Show a device's traffic until Ctrl-C, or with `once` what the gateway still has of it. AskFailed."""
    path = f"/v1/devices/{urllib.parse.quote(name, safe='')}/tap?after="
    last, silent = 0, False
    say(f"{name}: \N{RIGHTWARDS ARROW} to the device, \N{LEFTWARDS ARROW} from the device")
    while True:
        try:
            answer = ask(counter.url, f"{path}{last}", code)
        except AskFailed as failed:
            # Through a restart of the gateway the tap goes on; without one at the start it does not.
            if once or not failed.absent or not (last or silent):
                raise
            if not silent:
                say("The gateway does not answer; waiting for it.")
            silent = True
            await clock.sleep(TAP_LOOK_S)
            continue
        if silent or answer["last"] < last:
            say("The gateway has started anew.")
            last, silent = 0, False
            continue
        for piece in answer["traffic"]:
            for line in hex_lines(piece["at"], piece["direction"], bytes.fromhex(piece["hex"])):
                say(line)
        last = answer["last"]
        if once:
            return
        await clock.sleep(TAP_LOOK_S)


def hex_lines(at: str | None, direction: str, data: bytes) -> list[str]:
    """16 bytes a line: time of day, direction, hex, and what is printable of it."""
    arrow = "\N{LEFTWARDS ARROW}" if direction == "in" else "\N{RIGHTWARDS ARROW}"
    time = at[11:23] if at else ""
    lines = []
    for start in range(0, len(data), BYTES_PER_LINE):
        part = data[start : start + BYTES_PER_LINE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        line = f"{time:12} {arrow} {part.hex(' '):{BYTES_PER_LINE * 3 - 1}}  {text}"
        lines.append(line.rstrip())
        time, arrow = "", " "
    return lines


def ask(url: str, path: str, code: str) -> dict[str, Any]:
    """GET from the running gateway of this machine, as a technician. AskFailed."""
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {code}"})  # noqa: S310
    try:
        # A proxy in the environment is not on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=5) as answer:
            found: dict[str, Any] = json.loads(answer.read())
            return found
    except urllib.error.HTTPError as error:
        raise AskFailed(_detail(error)) from error
    except (OSError, ValueError) as error:
        raise AskFailed(f"No gateway answers at {url}.", absent=True) from error


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read())["detail"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"The gateway answers HTTP {error.code}."
