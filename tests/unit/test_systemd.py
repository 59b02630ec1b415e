"""What systemd and udev are given: taken by their own tools, and open to what is plugged in later."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from gateway.settings_file import SECRETS
from tests.conftest import need_tool

BRLTTY_RULES = Path(__file__).parents[2] / "systemd/95-pos-gateway.rules"
ROOT = Path(__file__).parents[2]


def test_the_service_may_use_what_is_plugged_in_later() -> None:
    text = (ROOT / "systemd/pos-gateway.service").read_text()
    allowed = set(re.findall(r"^DeviceAllow=char-(\S+) rw$", text, re.MULTILINE))
    # As /proc/devices names them; usblp's major 180 is "usb".
    assert allowed == {"ttyS", "ttyUSB", "ttyACM", "usb"}
    groups = re.search(r"^SupplementaryGroups=(.+)$", text, re.MULTILINE)
    assert groups is not None and groups[1].split() == ["dialout", "lp"]
    for module in ("usbserial", "cdc_acm", "usblp"):
        assert len(re.findall(rf"^(?:Wants|After)=.*modprobe@{module}\.service", text, re.M)) == 2


def test_every_secret_has_its_line_and_no_other_way_in() -> None:
    text = (ROOT / "systemd/pos-gateway.service").read_text()
    named = re.findall(r"^(?:# )?LoadCredential=gateway_(\w+):/etc/pos-gateway/(\w+)$", text, re.M)
    assert {name for name, _ in named} == set(SECRETS)
    assert all(name == file for name, file in named)
    assert "SetCredential" not in text and "Environment=" not in text


@pytest.mark.parametrize("name", ["pos-gateway.service", "pos-gateway-relay.service"])
def test_systemd_takes_the_service(name: str, tmp_path: Path) -> None:
    text = (ROOT / "systemd" / name).read_text()
    unit = tmp_path / name
    # The program is not installed on the machine that tests.
    unit.write_text(text.replace("/opt/pos-gateway/.venv/bin/pos-gateway", "/bin/true"))
    done = subprocess.run(
        [need_tool("systemd-analyze"), "verify", str(unit)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "tenths"), [("pos-gateway.service", 17), ("pos-gateway-relay.service", 14)]
)
def test_nobody_loosens_the_walls(name: str, tenths: int) -> None:
    """systemd's own measure of exposure, 0 to 10, as it was when `make boot` ran last."""
    done = subprocess.run(
        [need_tool("systemd-analyze"), "security", "--offline=true", "--no-pager",
         f"--threshold={tenths}", str(ROOT / "systemd" / name)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-400:]


@pytest.mark.parametrize("name", ["pos-gateway.service", "pos-gateway-relay.service"])
def test_a_call_outside_the_filter_is_refused_not_killed_for(name: str) -> None:
    """The JVM called chown at every start; with SIGSYS the service never came up."""
    lines = (ROOT / "systemd" / name).read_text().splitlines()
    assert "SystemCallErrorNumber=EPERM" in lines
    # A hung process is ended by SIGABRT; its memory, tokens and all, is not written down.
    assert "LimitCORE=0" in lines


def test_udev_takes_the_rules(tmp_path: Path) -> None:
    """udev reads them in a mount namespace of its own; a rule with a mistake is named by its line."""
    tool = need_tool("udevadm")
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    rules = (ROOT / "systemd/70-pos-gateway.rules").read_text()
    # lo has no node, so nothing on this machine is changed.
    script = (
        "mount -t tmpfs none /run && mkdir -p /run/udev/rules.d && "
        'cp "$1"/70-pos-gateway.rules "$3" /run/udev/rules.d && exec "$2" test /sys/class/net/lo'
    )

    def complaints(text: str) -> list[str]:
        (tmp_path / "70-pos-gateway.rules").write_text(text)
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), tool, str(BRLTTY_RULES)],
            check=False,
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        assert "70-pos-gateway.rules" in said, said
        return re.findall(r"\d\d-pos-gateway\.rules:\d+.*", said)

    assert complaints(rules) == []
    assert "Invalid key 'KERNL'" in complaints(rules + 'KERNL=="x", GROUP="y"\n')[0]


# Vendor and product of devices on a counter, as udev sees them; `0701` stands for the printer class.
ADAPTERS = ["0403:6001", "067b:2303", "1a86:7523", "4348:5523", "10c4:ea60", "9710:7840"]
PRINTERS = [
    "04b8:0e15", "0519:0003", "1d90:2060", "1504:0006", "0dd4:0186", "154f:154f", "20d1:7008",
    "0416:5011", "0483:5743", "0483:a000", "28e9:0289", "0fe6:811e", "1fc9:2016", "6868:0200",
    "0456:0808", "4b43:3538", "abcd:0001:0701",
]  # fmt: skip
OTHERS = ["0c2e:0b6a", "0536:02bc", "05e0:1701", "05f9:4204", "1eab:0c06", "065a:0009", "0eb8:f000"]
MODEMS = ["12d1:1506", "19d2:0031", "abcd:0002:0202"]
BRLTTY = (
    'ENV{PRODUCT}=="1a86/7523/*|10c4/ea60/*|403/6001/*|abcd/3/*", ENV{BRLTTY_BRAILLE_DRIVER}="bm", '
    'ENV{SYSTEMD_WANTS}+="brltty-udev.service"\n'
)


def test_udev_marks_the_devices_of_a_counter_and_no_modem(tmp_path: Path) -> None:
    """A real udevd on devices of a made /sys: ModemManager kept out, no sleep, no brltty."""
    tool = need_tool("udevadm")
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    for file in (ROOT / "systemd").glob("*.rules"):
        (tmp_path / file.name).write_text(file.read_text())
    (tmp_path / "85-brltty.rules").write_text(BRLTTY)
    script = ["set -e", "mount -t tmpfs none /run && mkdir -p /run/udev/rules.d"]
    script += [f"cp {tmp_path}/*.rules /run/udev/rules.d", "mount -t tmpfs none /sys"]
    # udevadm links the node of the device there.
    script += ["mkdir -p /dev/char && mount -t tmpfs none /dev/char"]
    script += ["mkdir -p /sys/bus/usb /sys/class", "export SYSTEMD_DEVICE_VERIFY_SYSFS=0"]
    devices = [*ADAPTERS, *PRINTERS, *OTHERS, *MODEMS, "abcd:0003"]
    for number, device in enumerate(devices, 1):
        script += made_usb_device(number, device)
        script += [f"echo @@@{device}", f"{tool} test /sys/devices/usb1/1-{number} 2>&1"]
        script += [f"cat /sys/devices/usb1/1-{number}/power/control"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", "\n".join(script)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    said = {part.split("\n", 1)[0]: part for part in done.stdout.split("@@@")[1:]}
    if "ID_VENDOR_ID=0403" not in said.get("0403:6001", ""):
        pytest.skip("this udev takes no made /sys: " + done.stderr[-200:])
    for device in [*ADAPTERS, *PRINTERS, *OTHERS]:
        assert "ID_MM_DEVICE_IGNORE=1" in said[device], device
        assert said[device].rstrip().endswith("\non"), device
        assert "brltty" not in said[device].split("DEVPATH=")[1], device
    for device in MODEMS:
        assert "ID_MM_DEVICE_IGNORE" not in said[device], device
        assert said[device].rstrip().endswith("\nxx"), device
    # A braille display stays one.
    assert "SYSTEMD_WANTS=brltty-udev.service" in said["abcd:0003"]


def made_usb_device(number: int, device: str) -> list[str]:
    """The commands that make it in /sys. Its one interface has the class of the third part."""
    vendor, product, kind = (*device.split(":"), "ff00")[:3]
    at = f"/sys/devices/usb1/1-{number}"
    configuration = bytes((9, 2, 25, 0, 1, 1, 0, 0x80, 50))
    interface = bytes((9, 4, 0, 0, 2)) + bytes.fromhex(kind) + bytes((2, 0))
    endpoint = bytes((7, 5, 1, 2, 64, 0, 0))
    descriptors = bytes((18, 1)) + bytes(16) + configuration + interface + endpoint
    octal = "".join(f"\\{byte:03o}" for byte in descriptors)
    product_text = f"{int(vendor, 16):x}/{int(product, 16):x}/100"
    return [
        f"mkdir -p {at}/power && ln -s ../../../bus/usb {at}/subsystem",
        f"printf 'MAJOR=189\\nMINOR={number}\\nDEVNAME=bus/usb/001/{number:03d}\\n' > {at}/uevent",
        f"printf 'DEVTYPE=usb_device\\nPRODUCT={product_text}\\n' >> {at}/uevent",
        f"echo {vendor} > {at}/idVendor; echo {product} > {at}/idProduct",
        f"printf '{octal}' > {at}/descriptors; printf xx > {at}/power/control",
        f"echo 189:{number} > {at}/dev",
    ]
