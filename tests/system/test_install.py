"""The pages' commands, typed as they stand there, make a gateway that sells, and bring a backup back."""

from __future__ import annotations

import json
import re

from tests.system import debian
from tests.system.box import CONFIG, STATE, UNIT, Box
from tests.system.container import until


def test_the_page_makes_a_gateway_that_sells_and_says_so(box: Box) -> None:
    inside = box.container
    assert inside.run("systemctl is-enabled pos-gateway") == "enabled"
    shown = inside.show(
        UNIT, "ActiveState", "NRestarts", "StatusText", "Type",
        "ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic",
    )  # fmt: skip
    assert (shown["ActiveState"], shown["NRestarts"], shown["Type"]) == ("active", "0", "notify")
    started_us, ready_us = (
        int(shown[f"{name}TimestampMonotonic"]) for name in ("ExecMainStart", "ActiveEnter")
    )
    box.figures["start until ready"] = f"{(ready_us - started_us) / 1e6:.2f} s"
    receipt = json.loads(box.receipt("first"))
    assert receipt["state"] == "SIGNED" and receipt["rcptSign"]
    # In words, for who looks.
    assert 'Status: "ONLINE, 0 waiting"' in inside.run("systemctl status --no-pager pos-gateway")
    assert inside.run("pos-gateway status").startswith("ONLINE: Selling.")
    assert "the chain is whole" in inside.run("pos-gateway journal verify")
    assert "The configuration is good." in inside.run("pos-gateway check")
    # systemd has nothing to say about the unit file, nor about anything else.
    assert inside.run("systemctl is-system-running") == "running"
    assert UNIT not in inside.run("journalctl -b -o cat _PID=1 -p warning")


def test_the_check_tells_root_where_each_secret_comes_from_and_others_nothing(box: Box) -> None:
    inside = box.container
    found = inside.run("pos-gateway check")
    assert "till_tokens.till-1 = (set)    [/etc/pos-gateway/till_tokens]" in found
    assert box.token not in found
    assert inside.code("runuser -u nobody -- pos-gateway check") == 78
    said = inside.run("runuser -u nobody -- pos-gateway status", check=False)
    assert "till_tokens: cannot be read in /etc/pos-gateway; use sudo" in said


def test_a_backup_comes_back_by_the_pages_commands_and_stays_the_gateways_own(box: Box) -> None:
    inside = box.container
    told = box.receipt("before-the-backup")
    page = (debian.ROOT / "docs/operating/doubt-and-backup.md").read_text()
    block = re.search(
        r"^    pos-gateway backup .*?^    systemctl start pos-gateway$", page, re.M | re.S
    )
    assert block is not None
    backup, *rest = [line.partition("#")[0].strip() for line in block[0].splitlines()]
    file = inside.run(backup).partition(":")[0]
    assert file.startswith(f"{STATE}/store/backups/")
    # The fake unit is quick, so that the numbering need not wait for 90 s after the start.
    inside.run(f"sed -i '/^\\[unit\\]/a at_work_s = 1' {CONFIG}")
    said = inside.run("\n".join(rest).replace("FILE", file))
    assert "restored: the store of" in said
    box.up()
    assert box.sell("before-the-backup") == (201, told)
    status, body = box.sell("next")
    assert (status, json.loads(body)["code"]) == (503, "UNIT_AHEAD")
    shown = box.technician("GET", "/v1/unit/numbering")
    while shown["waits"]:
        shown = box.technician("GET", "/v1/unit/numbering")
    said_next = {
        "nextInvcNo": shown["nextInvcNo"],
        "reason": "nothing was sold since the backup",
        "silentTills": shown["silentTills"],
    }
    assert box.technician("POST", "/v1/unit/numbering", said_next)["hold"] is None
    assert box.sell("next")[0] == 201
    numbers = [entry["trdInvcNo"] for entry in box.signed()]
    assert len(set(numbers)) == len(numbers)
    # What root made there is the service's to use: the next backup and the next start.
    strangers = inside.run(f"find {STATE} ! -user pos-gateway")
    assert strangers == ""


def test_a_backup_of_root_does_not_end_the_gateways_own(box: Box) -> None:
    inside = box.container
    inside.run(f"rm -rf {STATE}/store/backups; pos-gateway backup")
    assert inside.run(f"stat -c %U {STATE}/store/backups") == "pos-gateway"
    made = inside.run(f"ls {STATE}/store/backups")
    # Older than it may be, so that a start makes one at once.
    inside.run(f"touch -d '1 day ago' {STATE}/store/backups/{made}")
    box.setting("backup", "every_hours = 0.001")
    inside.run("systemctl restart pos-gateway")
    until(
        lambda: inside.run(f"ls {STATE}/store/backups/*.tar.gz").count("\n") >= 1,
        "the gateway's own backup",
        patience_s=120,
    )
    assert box.status()["backup"]["problem"] is None


def test_a_backup_on_a_stick_that_was_there_before_the_start_is_written(box: Box) -> None:
    inside = box.container
    inside.run("mkdir -p /mnt/stick; mount -t tmpfs stick /mnt/stick; chown pos-gateway /mnt/stick")
    try:
        box.setting("backup", 'directory = "/mnt/stick"')
        assert "backup.directory" not in _warnings(inside.run("pos-gateway check"))
        inside.run("systemctl restart pos-gateway")
        until(
            lambda: inside.run("ls /mnt/stick").count(".tar.gz") >= 1,
            "a backup on the stick",
            patience_s=120,
        )
        assert box.status()["backup"]["problem"] is None
    finally:
        inside.run("systemctl stop pos-gateway; umount /mnt/stick")


def test_the_pages_update_keeps_what_a_shop_has_added(box: Box) -> None:
    """A unit file that was edited by hand loses its lines, and `check` names what the service lacks."""
    inside = box.container
    page = (debian.ROOT / "docs/operating/install.md").read_text()
    copy = re.search(r"^      (cp systemd/pos-gateway\.service .*)$", page, re.M)
    assert copy is not None
    box.technician("GET", "/v1/unit/numbering")
    inside.run(
        f"cd /opt/pos-gateway; {copy[1]}; pos-gateway check && systemctl restart pos-gateway"
    )
    box.up()
    # The technician's code came by a drop-in, which is still there.
    box.technician("GET", "/v1/unit/numbering")
    inside.run("mv /etc/systemd/system/pos-gateway.service.d/technician.conf /run/")
    try:
        assert inside.code("pos-gateway check") == 78
        assert "technician_tokens: is in" in inside.run("pos-gateway check", check=False)
    finally:
        inside.run("mv /run/technician.conf /etc/systemd/system/pos-gateway.service.d/")


def _warnings(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.startswith("WARNING"))
