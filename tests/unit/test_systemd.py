"""What systemd and udev are given: taken by their own tools, and open to what is plugged in later."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from gateway.settings_file import SECRETS
from tests.conftest import need_tool

ROOT = Path(__file__).parents[2]


def test_the_service_may_use_what_is_plugged_in_later() -> None:
    text = (ROOT / "systemd/pos-gateway.service").read_text()
    allowed = set(re.findall(r"^DeviceAllow=char-(\S+) rw$", text, re.MULTILINE))
    # As /proc/devices names them; usblp's major 180 is "usb".
    assert allowed == {"ttyS", "ttyUSB", "ttyACM", "usb"}
    groups = re.search(r"^SupplementaryGroups=(.+)$", text, re.MULTILINE)
    assert groups is not None and groups[1].split() == ["dialout", "lp"]
    for module in ("usbserial", "cdc_acm"):
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
        'cp "$1"/70-pos-gateway.rules /run/udev/rules.d && exec "$2" test /sys/class/net/lo'
    )

    def complaints(text: str) -> list[str]:
        (tmp_path / "70-pos-gateway.rules").write_text(text)
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), tool],
            check=False,
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        assert "70-pos-gateway.rules" in said, said
        return re.findall(r"70-pos-gateway\.rules:\d+.*", said)

    assert complaints(rules) == []
    assert "Invalid key 'KERNL'" in complaints(rules + 'KERNL=="x", GROUP="y"\n')[0]
