"""The relay's service on a machine of its own kind: set up by its page, walled in, back after a kill."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system import debian
from tests.system.box import Box
from tests.system.container import GONE, until

UNIT = "pos-gateway-relay"
URL = "http://127.0.0.1:8099"


@pytest.fixture
def relay(installed: Box) -> Iterator[Box]:
    """Every command of relay.md up to the proxy in front."""
    inside = installed.container
    inside.run("\n".join(debian.commands("relay.md", steps=4)))
    yield installed
    inside.run(
        f"systemctl disable --now {UNIT}; rm -rf /etc/pos-gateway/relay* /var/lib/private/{UNIT}"
    )


def healthy(box: Box) -> bool:
    try:
        return box.container.ask("GET", f"{URL}/healthz") == (200, b'{"ok": true}')
    except GONE:
        return False


def test_the_pages_commands_make_a_relay_that_keeps_messages_over_a_kill(relay: Box) -> None:
    inside = relay.container
    assert healthy(relay)
    shown = inside.show(UNIT, "ActiveState", "NRestarts", "Type", "MainPID", "MemoryMax")
    assert (shown["ActiveState"], shown["NRestarts"], shown["Type"]) == ("active", "0", "notify")
    assert UNIT not in inside.run("journalctl -b -o cat _PID=1 -p warning")
    message = {"Body": {"stkCallback": {"ResultCode": 0}}}
    assert inside.ask("POST", f"{URL}/shop-1/s/abcdefghijklmnopqrstuvwx", message)[0] == 200
    peak = inside.run(f"grep VmHWM /proc/{shown['MainPID']}/status").split()[1]
    relay.figures["relay, peak resident"] = (
        f"{int(peak) // 1024} MB of {int(shown['MemoryMax']) >> 20}"
    )
    inside.run(f"kill -9 {shown['MainPID']}")
    until(
        lambda: inside.show(UNIT, "NRestarts")["NRestarts"] == "1" and healthy(relay), "a restart"
    )
    # The store is the new process's to use: another user number, the same folder.
    kept = "import sqlite3, glob; f = glob.glob('/var/lib/pos-gateway-relay/*.db')[0]; print(sqlite3.connect(f).execute('SELECT COUNT(*) FROM message').fetchone()[0])"  # fmt: skip
    assert inside.run(f'python3 -c "{kept}"') == "1"


def test_its_walls_and_its_secret(relay: Box) -> None:
    inside = relay.container
    pid = inside.show(UNIT, "MainPID")["MainPID"]
    status = dict(line.split(":", 1) for line in inside.run(f"cat /proc/{pid}/status").splitlines())
    assert status["Uid"].split()[0] != "0"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"].strip(), status["Seccomp"].strip()) == ("1", "2")
    secret = inside.run("cat /etc/pos-gateway/relay_secrets").partition("=")[2].strip()
    assert len(secret) >= 24
    credential = f"/run/credentials/{UNIT}.service/relay_secrets"
    for file in (credential, "/etc/pos-gateway/relay_secrets"):
        assert inside.code(f"runuser -u nobody -- cat {file}") != 0
    assert inside.code(f"grep -qF -e {secret} /proc/{pid}/environ") == 1
    assert inside.code(f"journalctl --sync; journalctl -o export | grep -qaF -e {secret}") == 1


def test_it_stops_in_order_and_a_wrong_setting_is_not_tried_again(relay: Box) -> None:
    inside = relay.container
    inside.run(f"systemctl stop {UNIT}")
    shown = inside.show(UNIT, "ExecMainCode", "ExecMainStatus", "ActiveState")
    assert shown == {"ExecMainCode": "1", "ExecMainStatus": "0", "ActiveState": "inactive"}
    inside.run("echo 'floot = 1' >> /etc/pos-gateway/relay.toml")
    assert inside.code(f"systemctl start {UNIT}") == 1
    shown = inside.show(UNIT, "ExecMainStatus", "ActiveState", "NRestarts")
    assert shown == {"ExecMainStatus": "78", "ActiveState": "failed", "NRestarts": "0"}
    assert "floot" in inside.journal(UNIT)
