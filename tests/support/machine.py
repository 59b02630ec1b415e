"""A made tree of /dev and /sys, plugged and unplugged as udev would show it."""

from __future__ import annotations

import shutil
from pathlib import Path

from gateway.devices.ports import Roots


class Machine:
    """`dev` and `sys` under one folder. A port's node is an empty file, or a link to a real pty."""

    def __init__(self, folder: Path) -> None:
        self.dev = folder / "dev"
        self.sys = folder / "sys"
        self.proc, self.run, self.root = (folder / name for name in ("proc", "run", "root"))
        for part in (
            "dev/usb",
            "sys/class/tty",
            "sys/class/usbmisc",
            "sys/devices",
            "sys/bus/usb/devices",
            "proc",
            "run/udev/data",
            "root/etc",
        ):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._links: dict[str, list[Path]] = {}

    @property
    def roots(self) -> Roots:
        return Roots(self.dev, self.sys, self.proc, self.run, self.root)

    def runs(self, program: str, pid: int = 612) -> None:
        """A program that runs."""
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "comm").write_text(f"{program}\n")

    def has(self, file: str, text: str = "") -> None:
        """A file below the root of the machine."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def usb(
        self,
        socket: str = "1-1",
        *,
        vendor: str,
        product: str,
        kind: str = "ff00",
        driver: str = "",
        model: str = "",
    ) -> Path:
        """A device on the bus with one interface of this class, and no port; the interface."""
        device = self.sys / "devices" / socket
        interface = device / f"{socket}:1.0"
        interface.mkdir(parents=True)
        (device / "idVendor").write_text(f"{vendor}\n")
        (device / "idProduct").write_text(f"{product}\n")
        if model:
            (device / "product").write_text(f"{model}\n")
        (interface / "bInterfaceClass").write_text(f"{kind[:2]}\n")
        (interface / "bInterfaceSubClass").write_text(f"{kind[2:]}\n")
        if driver:
            home = self.sys / "bus/usb/drivers" / driver
            home.mkdir(parents=True, exist_ok=True)
            (interface / "driver").symlink_to(home)
        for entry in (device, interface):
            (self.sys / "bus/usb/devices" / entry.name).symlink_to(entry)
        return interface

    def udev_says(self, entry: Path, number: str, *properties: str) -> None:
        """The properties that udev keeps of a device with this number."""
        (entry / "dev").write_text(f"{number}\n")
        text = "".join(f"E:{each}\n" for each in properties)
        (self.run / "udev/data" / f"c{number}").write_text(text)

    def built_in(self, name: str, kind: str = "4") -> Path:
        """A UART of the main board; `kind` 0 has no hardware behind it."""
        entry = self.sys / "class/tty" / name
        entry.mkdir()
        (entry / "type").write_text(f"{kind}\n")
        (self.dev / name).touch()
        return self.dev / name

    def plug(
        self,
        name: str = "ttyUSB0",
        socket: str = "1-1",
        *,
        vendor: str = "0403",
        product: str = "6001",
        serial: str = "A1",
        maker: str = "FTDI",
        model: str = "FT232R USB UART",
        by_id: bool = True,
        by_path: bool = True,
        pty: str | None = None,
    ) -> Path:
        """An adapter (or, with a name like lp0, a USB printer) into a socket; its node."""
        usb_printer = name.startswith("lp")
        device = self.sys / "devices" / socket
        at = device / f"{socket}:1.0" / ("usbmisc" if usb_printer else "") / name
        at.mkdir(parents=True)
        (device / f"{socket}:1.0" / "bInterfaceNumber").write_text("00\n")
        for file, text in (
            ("idVendor", vendor),
            ("idProduct", product),
            ("serial", serial),
            ("manufacturer", maker),
            ("product", model),
        ):
            if text:
                (device / file).write_text(f"{text}\n")
        if usb_printer:
            entry = self.sys / "class/usbmisc" / name
            node, links = self.dev / "usb" / name, self.dev / "usb"
        else:
            (at / "port_number").write_text("0\n")
            entry = self.sys / "class/tty" / name
            node, links = self.dev / name, self.dev / "serial"
        entry.mkdir()
        (entry / "device").symlink_to(at if not usb_printer else device / f"{socket}:1.0")
        if pty is None:
            node.touch()
        else:
            node.symlink_to(pty)
        self._links[name] = []
        words = "_".join(f"{maker} {model} {serial}".split())
        if by_id:
            self.link(name, links / f"by-id/usb-{words}-if00-port0")
        if by_path:
            self.link(name, links / f"by-path/pci-0000:00:14.0-usb-0:{socket[2:]}:1.0-port0")
        return node

    def link(self, name: str, link: Path) -> Path:
        """As udev links it; a second device of the same name takes the link over."""
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(self.dev / ("usb" if name.startswith("lp") else "") / name)
        self._links[name].append(link)
        return link

    def unplug(self, name: str, socket: str = "1-1") -> None:
        for link in self._links.pop(name):
            link.unlink(missing_ok=True)
        for kind, folder in (("usbmisc", self.dev / "usb"), ("tty", self.dev)):
            entry = self.sys / "class" / kind / name
            if entry.exists():
                shutil.rmtree(entry)
                (folder / name).unlink()
        shutil.rmtree(self.sys / "devices" / socket)
