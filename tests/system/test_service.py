"""The gateway's service under a running systemd: its walls, its secrets, its end, and every way back up."""

from __future__ import annotations

import json
import re

import pytest

from tests.conftest import need_tool
from tests.system import debian
from tests.system.box import CONFIG, STATE, UNIT, Box
from tests.system.container import GONE, Sellers, until

CRED = "/run/credentials/pos-gateway.service"
PRINTER = "/dev/pos-printer"


def test_it_runs_as_nobody_special_behind_its_walls(box: Box) -> None:
    inside = box.container
    box.receipt("walls")
    uid = inside.run("id -u pos-gateway")
    assert box.process("Uid").split() == [uid] * 4 != ["0"] * 4
    groups = {inside.run(f"getent group {number}").partition(":")[0] for number in box.process("Groups").split()}  # fmt: skip
    assert groups == {"pos-gateway", "dialout", "lp"}
    for held in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert int(box.process(held), 16) == 0, held
    assert (box.process("NoNewPrivs"), box.process("Seccomp")) == ("1", "2")
    # What it sees of the disk: its own folder can be written, nothing else; nobody's home is there.
    sees = f"nsenter --target {box.pid()} --mount -- "
    for place in ("/opt/pos-gateway", "/etc/pos-gateway", "/usr/lib", "/var/lib"):
        assert "Read-only file system" in inside.run(f"{sees} touch {place}/x", check=False), place
    assert inside.code(f"{sees} touch {STATE}/x && {sees} rm {STATE}/x") == 0
    assert inside.run(f"{sees} ls -A /home /{'root'}").split() == ["/home:", f"/{'root'}:"]
    # A core file of it would hold tokens.
    assert inside.show(UNIT, "LimitCORE", "LimitCORESoft") == {
        "LimitCORE": "0",
        "LimitCORESoft": "0",
    }


def test_a_call_outside_the_filter_is_refused_and_ends_nothing(box: Box) -> None:
    """A JVM gives a socket of its own to itself at its start, by chown. Killed for it (SIGSYS), the service
    never came up; KRA's JAR may call who knows what."""
    text = (debian.ROOT / "systemd/pos-gateway.service").read_text()
    filters = [f"-p '{line}'" for line in re.findall(r"^SystemCall.*$", text, re.MULTILINE)]
    assert len(filters) == 4
    call = (
        "import os\nopen('own', 'w')\n"
        "try: os.chown('own', os.getuid(), os.getgid()); print('done')\n"
        "except OSError as e: print(e.strerror)"
    )
    inside = box.container
    inside.run(f"cat > /tmp/call.py <<'END'\n{call}\nEND")
    ask = "systemd-run --quiet --wait --pipe -p User=pos-gateway -p StateDirectory=pos-gateway"
    ask += f" -p WorkingDirectory={STATE}"
    assert inside.run(f"{ask} python3 /tmp/call.py") == "done"
    assert (
        inside.run(f"{ask} {' '.join(filters)} python3 /tmp/call.py") == "Operation not permitted"
    )
    inside.run(f"rm {STATE}/own")


def test_only_the_counters_devices_can_be_opened(box: Box) -> None:
    """By the kernel's own refusal: EPERM is the cgroup's, any other error the driver's."""
    inside = box.container
    inside.run(
        "mkdir -p /dev/try; cd /dev/try; rm -f *\n"
        # The 60th ttyS, a mouse port, the disk's driver, memory: nobody has them in a container.
        "mknod ttyS60 c 4 124; mknod psaux c 10 1; mknod loop9 b 7 9; mknod mem c 1 1; mknod null c 1 3"
    )
    opens = (
        "import errno, os\n"
        "for name in sorted(os.listdir('/dev/try')):\n"
        "    try: os.close(os.open('/dev/try/' + name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)); said = 'OPEN'\n"
        "    except OSError as e: said = errno.errorcode[e.errno]\n"
        "    print(name, said)\n"
    )
    inside.run(f"cat > /tmp/opens.py <<'END'\n{opens}END")
    group = f"/sys/fs/cgroup{inside.show(UNIT, 'ControlGroup')['ControlGroup']}/cgroup.procs"

    def tried(enter: str) -> dict[str, str]:
        said = inside.run(f"{enter}\nexec python3 /tmp/opens.py")
        return dict(line.split() for line in said.splitlines())

    outside, within = tried(":"), tried(f"echo $$ > {group}")
    inside.run("rm -r /dev/try")
    if outside["psaux"] == "EPERM":
        pytest.skip("this machine refuses the container its devices itself")
    assert within["null"] == "OPEN"
    assert within["ttyS60"] == outside["ttyS60"] != "EPERM"
    for name in ("psaux", "loop9", "mem"):
        assert within[name] == "EPERM", (name, outside[name])


def test_a_receipt_comes_out_of_a_printer_on_a_tty(box: Box) -> None:
    inside = box.container
    inside.run(
        "systemd-run --quiet --unit=printer --working-directory=/opt/pos-gateway "
        f"/opt/pos-gateway/.venv/bin/python -m hw_fakes.printer --link {PRINTER} --control 8101 --baud 115200"
    )
    try:
        until(lambda: inside.code(f"test -e {PRINTER}") == 0, "the printer's tty")
        # As the rules do it for a serial port.
        inside.run(f"chgrp dialout $(readlink -f {PRINTER}); chmod 660 $(readlink -f {PRINTER})")
        inside.run(
            f"printf '[printers.counter]\\nport = \"{PRINTER}\"\\nbaud = 115200\\n' >> {CONFIG}"
        )
        box.setting("\\[tills\\]", 'printer = "counter"')
        inside.run("pos-gateway check; systemctl restart pos-gateway")
        receipt = json.loads(box.receipt("printed"))

        def paper() -> str:
            return inside.ask("GET", "http://127.0.0.1:8101/_fake/paper.txt")[1].decode()

        until(lambda: receipt["cuInvoiceNo"] in paper(), "the receipt is on paper")
        # And the printer has said so: nothing waits any more.
        until(
            lambda: box.status()["printing"]["printers"][0]["queued"] == 0, "the slip is confirmed"
        )
    finally:
        inside.run("systemctl stop printer; rm -f " + PRINTER, check=False)


def test_secrets_come_as_credentials_and_are_nowhere_else(box: Box) -> None:
    inside = box.container
    box.receipt("secrets")
    # They are given to the process by their files alone.
    names = ("till_tokens", "technician_tokens")
    assert inside.run(f"stat -c '%a %U' {CRED} {CRED}/*").splitlines() == [
        "500 pos-gateway",
        *["400 pos-gateway" for _ in names],
    ]
    for name in names:
        file = f"/etc/pos-gateway/{name}"
        assert inside.run(f"stat -c '%a %U' {file}") == "600 root"
        for user, hidden in (
            ("nobody", f"{CRED}/gateway_{name}"),
            ("nobody", file),
            ("pos-gateway", file),
        ):
            assert inside.code(f"runuser -u {user} -- cat {hidden}") != 0, (user, hidden)
        assert (
            inside.code(f"runuser -u pos-gateway -- cat {CRED}/gateway_{name} | cmp - {file}") == 0
        )
        # Never as an argument: the journal notes the command line of whoever logs.
        inside.run(f"umask 077; cut -d= -f2 {file} | tr -d ' ' > /run/token")
        assert inside.code(f"grep -qFf /run/token {file}") == 0
        for place in (f"/proc/{box.pid()}/environ", f"/proc/{box.pid()}/cmdline"):
            assert inside.code(f"grep -qaFf /run/token {place}") == 1, place
        assert inside.code(f"grep -rqaFf /run/token {STATE} /run/systemd/units /tmp /var/tmp") == 1
        assert inside.code("journalctl --sync; journalctl -o export | grep -qaFf /run/token") == 1
        assert inside.code(f"systemctl show {UNIT} | grep -qaFf /run/token") == 1


def test_a_stop_ends_in_order_and_so_does_one_while_it_starts(box: Box) -> None:
    inside = box.container
    box.receipt("stop")
    took_ms = int(
        inside.run(
            f"from=$(date +%s%N); systemctl stop {UNIT}; echo $((($(date +%s%N) - from) / 1000000))"
        )
    )
    box.figures["stop"] = f"{took_ms} ms"
    names = ("Result", "ExecMainCode", "ExecMainStatus", "ActiveState")
    # ExecMainCode 1: it exited; nothing had to kill it.
    assert inside.show(UNIT, *names) == {
        "Result": "success", "ExecMainCode": "1", "ExecMainStatus": "0", "ActiveState": "inactive",
    }  # fmt: skip
    # Before it is ready, at moments of its own: systemd counts none of them as a failure.
    for line in ("jvm.started", "memory.settled"):
        before = inside.journal(UNIT).count(line)
        inside.run(f"systemctl start --no-block {UNIT}")
        until(lambda n=before, line=line: inside.journal(UNIT).count(line) > n, line)
        inside.run(f"systemctl stop {UNIT}")
        assert inside.show(UNIT, "ActiveState")["ActiveState"] == "inactive", line
    inside.run(f"systemctl start {UNIT}")
    box.receipt("after-the-stops")


def test_killed_while_it_sells_it_comes_back_and_every_key_has_one_receipt(box: Box) -> None:
    inside = box.container
    box.setting("unit", "read_back = true")
    inside.run(f"systemctl restart {UNIT}")
    signed_before = len(box.signed())
    with Sellers(lambda key: box.sell(f"kill-{key}"), 6) as tills:
        for kill in (1, 2, 3):
            box.knobs(latencyMs=100)
            tills.told_more(6)
            inside.run(f"kill -9 {box.pid()}")
            until(lambda kill=kill: box.restarts() == kill and box.active(), f"restart {kill}")
        tills.told_more(6)
    assert not tills.wrong
    numbers = [entry["trdInvcNo"] for entry in box.signed()]
    assert len(set(numbers)) == len(numbers)
    assert len(numbers) - signed_before == len(tills.told)
    for key, body in tills.told.items():
        assert box.sell(f"kill-{key}") == (201, body)
    assert len(box.signed()) == len(numbers)
    assert "the chain is whole" in inside.run("pos-gateway journal verify")
    box.figures["sold around three kills"] = f"{len(tills.told)} sales"


def test_a_process_that_hangs_is_ended_and_started_by_the_watchdog(box: Box) -> None:
    inside = box.container
    box.drop_in("WatchdogSec=8")
    inside.run(f"systemctl restart {UNIT}")
    told, hung = box.receipt("hang"), box.pid()
    inside.run(f"kill -STOP {hung}")
    until(lambda: box.restarts() == 1, "systemd ended it")
    until(box.active, "it is up again")
    assert box.pid() != hung
    log = inside.journal(UNIT, "-b")
    assert "Watchdog timeout (limit 8s)!" in log
    assert "with signal SIGABRT" in log
    assert box.sell("hang") == (201, told)
    # And one that is well is left alone for longer than that.
    began = int(inside.run("date +%s"))
    until(lambda: int(inside.run("date +%s")) > began + 12, "12 s have passed")
    assert box.restarts() == 1


def test_a_wrong_setting_ends_with_78_and_is_not_tried_again(box: Box) -> None:
    inside = box.container
    inside.run(f"systemctl stop {UNIT}")
    box.setting("branch", 'pim = "A000123456B"')
    assert inside.code(f"systemctl start {UNIT}") == 1
    shown = inside.show(
        UNIT, "ActiveState", "SubState", "ExecMainStatus", "NRestarts", "RestartUSec"
    )
    assert shown["RestartUSec"] == "2s"
    assert (shown["ActiveState"], shown["SubState"]) == ("failed", "failed")
    assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("78", "0")
    assert "branch.pim: is not a setting of the gateway; is it misspelt?" in inside.journal(UNIT)
    # A unit that waits for its restart is "activating (auto-restart)"; this one waits for a person.
    assert inside.run("systemctl list-jobs --no-legend") in ("", "No jobs running.")


def test_an_address_of_the_lan_that_comes_late_is_no_wrong_setting(box: Box) -> None:
    """A power cut ends, and the router takes longer than the box."""
    inside = box.container
    box.setting("api", 'host = "10.9.8.7"')
    assert "this machine does not have the address 10.9.8.7 now" in inside.run("pos-gateway check")
    inside.run(f"systemctl restart {UNIT}")
    assert box.active()
    lan = "http://10.9.8.7:8080"
    with pytest.raises(GONE):
        box.sell("late", lan)
    ip = [need_tool("ip"), "address"]
    assert inside.inside([*ip, "add", "10.9.8.7/32", "dev", "lo"]).wait(30) == 0
    try:
        status, _ = box.sell("late", lan)
        assert status == 201
        assert box.restarts() == 0
        assert inside.run("pos-gateway status").startswith("ONLINE")
    finally:
        assert inside.inside([*ip, "del", "10.9.8.7/32", "dev", "lo"]).wait(30) == 0


def test_a_full_disk_neither_stops_the_start_nor_makes_it_loop(box: Box) -> None:
    inside = box.container
    told = box.receipt("full")
    inside.run(
        f"systemctl stop {UNIT}; mkdir -p /mnt/small; mount -t tmpfs -o size=48M small /mnt/small\n"
        f"cp -a {STATE}/unit {STATE}/store /mnt/small/; rm -rf /mnt/small/store/ballast /mnt/small/store/backups\n"
        f"chown pos-gateway: /mnt/small; mount --bind /mnt/small {STATE}; systemctl start {UNIT}"
    )
    try:
        assert box.status()["state"] == "ONLINE"
        inside.run("dd if=/dev/zero of=/mnt/small/video bs=4k 2>/dev/null || true")
        # Running: said to the till, and nothing else happens.
        status, body = box.sell("no-room")
        assert (status, json.loads(body)["code"]) == (503, "DISK_FULL")
        assert box.sell("full") == (201, told)
        assert box.restarts() == 0
        # Stopped: in order, too.
        inside.run(f"systemctl stop {UNIT}")
        assert inside.show(UNIT, "ActiveState")["ActiveState"] == "inactive"
        inside.run("cat /dev/zero > /mnt/small/more 2>/dev/null || true")  # what its stop gave back
        # Started: up, says why nothing is signed, and goes on when there is room.
        inside.run(f"systemctl start {UNIT}")
        assert "nothing is signed: DISK_FULL" in inside.run(f"systemctl status --no-pager {UNIT}")
        status, body = box.sell("no-room")
        problem = json.loads(body)
        assert (status, problem["code"], problem["signed"]) == (503, "DISK_FULL", "unknown")
        page = inside.ask("GET", "http://127.0.0.1:8080/", headers={"Accept": "text/html"})[
            1
        ].decode()
        assert "Free 16 MB or more" in page and "restore" not in page
        pid = box.pid()
        began = int(inside.run("date +%s"))
        until(
            lambda: int(inside.run("date +%s")) > began + 12, "12 s, in which it could have looped"
        )
        assert (box.restarts(), box.pid()) == (0, pid)
        inside.run("rm /mnt/small/video /mnt/small/more")
        until(lambda: _sold(box, "no-room"), "selling goes on by itself")
        assert box.restarts() == 1
        assert box.sell("full") == (201, told)
    finally:
        inside.run(f"systemctl stop {UNIT}; umount {STATE}; umount /mnt/small", check=False)


def test_after_a_power_off_and_a_boot_it_is_up_by_itself_with_all_it_had(box: Box) -> None:
    inside = box.container
    told = {key: box.receipt(key) for key in ("boot-1", "boot-2")}
    signed = box.signed()
    box.figures["power off"] = f"{inside.power_off():.1f} s"
    box.figures["boot until the gateway sells"] = f"{inside.boot():.1f} s"
    assert box.active() and box.restarts() == 0
    for key, body in told.items():
        assert box.sell(key) == (201, body)
    assert box.signed() == signed
    assert box.status()["gateway"]["lastStop"] is None
    box.receipt("boot-3")
    assert inside.run("systemctl is-system-running") == "running"


def test_how_much_of_its_limits_it_uses(box: Box) -> None:
    """The limits are there for the day when something leaks; a shop must never feel them."""
    inside = box.container
    with Sellers(lambda key: box.sell(f"use-{key}"), 8) as tills:
        tills.told_more(200)
    assert not tills.wrong
    names = ("MemoryMax", "TasksMax", "LimitNOFILE", "MemoryCurrent", "TasksCurrent")
    shown = inside.show(UNIT, *names)
    peak_mb = int(box.process("VmHWM").split()[0]) / 1024
    threads = int(box.process("Threads"))
    files = int(inside.run(f"ls /proc/{box.pid()}/fd | wc -l"))
    box.figures["gateway, peak resident"] = f"{peak_mb:.0f} MB of {int(shown['MemoryMax']) >> 20}"
    box.figures["gateway, threads"] = f"{threads} of {shown['TasksMax']}"
    box.figures["gateway, files"] = f"{files} of {shown['LimitNOFILE']}"
    # Only where the machine gives containers these controllers.
    for name in ("MemoryCurrent", "TasksCurrent"):
        if shown[name].isdigit():
            box.figures[f"gateway, {name}"] = shown[name]
    assert peak_mb < (int(shown["MemoryMax"]) >> 20) / 2
    assert threads < int(shown["TasksMax"]) / 4
    assert files < int(shown["LimitNOFILE"]) / 4


def _sold(box: Box, key: str) -> bool:
    try:
        return box.sell(key)[0] == 201
    except GONE:
        return False
