"""Log and systemd: nothing secret in a line, and the datagrams systemd wants."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
from pathlib import Path

import pytest

from gateway.ops import logging as logs
from gateway.ops import memory
from gateway.ops.systemd import Notifier

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd/pos-gateway.service"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("Authorization: Bearer abc.DEF-123", "abc.DEF-123"),
        ("buyer A123456789Z", "A123456789Z"),
        ("phone 0712345678", "0712345678"),
        ("phone +254712345678", "712345678"),
        ("Authorization: Basic a2V5OnNlY3JldA==", "a2V5OnNlY3JldA"),
        ("request ws_CO_23112026101530417708374149", "708374149"),
        ('body {"MSISDN":254708374149}', "708374"),
    ],
)
def test_secrets_and_persons_are_masked(text: str, hidden: str) -> None:
    assert hidden not in logs.masked(text)
    assert logs.masked(text).startswith(text.split(maxsplit=1)[0][:3])


def test_styles_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        logs.set_up("INFO", "json", {})
        logging.getLogger("gateway.x").info("receipt.signed invoice=%s", "1")
        assert json.loads(capsys.readouterr().err)["message"] == "receipt.signed invoice=1"
        logs.set_up("INFO", "text", {"JOURNAL_STREAM": "8:1"})
        logging.getLogger("gateway.x").error("unit.failed")
        assert capsys.readouterr().err == "<3>gateway.x unit.failed\n"
    finally:
        root.handlers[:] = before
        root.setLevel(level)


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    address = f"\0pos-gateway-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(5)
        shown = address.replace("\0", "@")
        env = {"NOTIFY_SOCKET": shown, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
        notifier = Notifier(env)
        assert notifier.watchdog_s == 3.0
        for tell, heard in [
            (notifier.ready, b"READY=1"),
            (notifier.alive, b"WATCHDOG=1"),
            (notifier.stopping, b"STOPPING=1"),
            (lambda: notifier.status("ONLINE"), b"STATUS=ONLINE"),
        ]:
            tell()
            assert systemd.recv(200) == heard


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready()
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog_s is None


def test_what_the_start_made_is_in_no_later_collection() -> None:
    kept = [[number] for number in range(5000)]
    gc.collect()  # what earlier tests left in circles is not counted
    objects = len(gc.get_objects())
    try:
        frozen = memory.settle()
        assert frozen >= objects - 1000 >= len(kept)
        # Only what was made since would be walked.
        assert len(gc.get_objects()) < 1000
    finally:
        gc.unfreeze()
