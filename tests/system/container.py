"""A booted system in a container: systemd as process 1, a network of its own with nothing but loopback."""

from __future__ import annotations

import ctypes
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

CLONE_NEWNET = 0x40000000
BOOT_MAX_S = 180.0
END_MAX_S = 90.0
PATIENCE_S = 90.0
# What a service manager gives a program, and a shell of root.
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
GONE = (OSError, HTTPException)


def until(what: Callable[[], Any], why: str, patience_s: float = PATIENCE_S) -> Any:
    """Waits for a condition and gives what it found."""
    last = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < last, f"not in {patience_s:.0f} s: {why}"
        time.sleep(0.05)
    return found


class Container:
    """Boot, power off, boot again on one folder. `run` is a root shell inside, `ask` HTTP from inside."""

    def __init__(self, root: Path, log: Path, binds: dict[str, Path]) -> None:
        self.root = root
        self._log = log
        self._binds = binds
        self._name = f"pos-gateway-boot-{os.getpid()}"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._pool: ThreadPoolExecutor | None = None

    def boot(self) -> float:
        """Back when its systemd says that it has started everything; the seconds that took."""
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory() as folder,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
        ):
            notify.bind(f"{folder}/notify")
            notify.settimeout(1.0)
            # Pure cgroup v2, so that the system inside may set its own device policy by BPF.
            env = {
                **os.environ,
                "NOTIFY_SOCKET": f"{folder}/notify",
                "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
            }
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command(), env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            said = ""
            while "READY=1" not in said:
                assert self._process.poll() is None, self.console()
                assert time.monotonic() - began < BOOT_MAX_S, self.console()
                try:
                    said += notify.recv(4096).decode() + "\n"
                except TimeoutError:
                    continue
        leader = re.search(r"^X_NSPAWN_LEADER_PID=(\d+)$", said, re.MULTILINE)
        assert leader is not None, said
        self._leader = int(leader[1])
        self._pool = ThreadPoolExecutor(8, initializer=self._enter)
        return time.monotonic() - began

    def power_off(self) -> float:
        """As by its button; the seconds until it was off."""
        assert self._process is not None
        began = time.monotonic()
        self.run("systemctl poweroff", check=False)
        self._process.wait(END_MAX_S)
        self._close()
        return time.monotonic() - began

    def end(self) -> None:
        """However it is: nothing of it is left."""
        if self._process is not None and self._process.poll() is None:
            try:
                self.power_off()
            except (AssertionError, OSError, subprocess.TimeoutExpired):
                self._process.kill()  # and its system with it: process 1 inside dies with nspawn
                self._process.wait()
        self._close()

    def run(self, script: str, *, check: bool = True, env: dict[str, str] | None = None) -> str:
        """A script of root inside, as a technician types it; what it said."""
        done = subprocess.run(
            ["nsenter", f"--target={self._leader}", "--all", "--", "sh", "-eu", "-c", script],
            env={**ENV, **(env or {})},
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )
        said = done.stdout + done.stderr
        assert not check or done.returncode == 0, f"{script}\n{done.returncode}: {said[-4000:]}"
        return said.strip()

    def code(self, script: str) -> int:
        """Its exit code only."""
        return int(self.run(f"set +e; ({script}) >/dev/null 2>&1; echo $?"))

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Properties of a unit, as systemd has them now."""
        said = self.run(f"systemctl show {unit} -p {','.join(names)}")
        return dict(line.partition("=")[::2] for line in said.splitlines())

    def journal(self, unit: str, *more: str) -> str:
        return self.run(f"journalctl --sync; journalctl -o cat -u {unit} {' '.join(more)}")

    def ask(
        self,
        method: str,
        url: str,
        value: Any = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> tuple[int, bytes]:
        """HTTP from inside, by a thread in the container's network. OSError, HTTPException: no answer."""
        host, slash, path = url.removeprefix("http://").partition("/")
        body = None if value is None else json.dumps(value).encode()

        def now() -> tuple[int, bytes]:
            connection = HTTPConnection(host, timeout=timeout_s)
            try:
                told = {"Content-Type": "application/json", **(headers or {})}
                connection.request(method, slash + path, body, told)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        assert self._pool is not None
        return self._pool.submit(now).result()

    def inside(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """A program of this machine in the container's network only."""
        return subprocess.Popen(
            ["nsenter", f"--target={self._leader}", "--net", *command], **options
        )

    def console(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def _command(self) -> list[str]:
        # Where systemd runs the machine, it gives the container a scope; elsewhere there is none to give.
        booted = Path("/run/systemd/system").is_dir()
        return [
            "systemd-nspawn",
            "--quiet",
            "--register=no",
            *([] if booted else ["--keep-unit"]),
            "--private-network",
            "--boot",
            "--notify-ready=yes",
            "--console=pipe",
            f"--directory={self.root}",
            f"--machine={self._name}",
            "--hostname=shop",
            "--link-journal=no",
            "--capability=CAP_BPF",
            "--system-call-filter=bpf",
            *(f"--bind-ro={path}:{where}" for where, path in self._binds.items()),
        ]

    def _enter(self) -> None:
        """This thread, and no other, into the container's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/proc/{self._leader}/ns/net").open("rb") as handle:
            if libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        # nspawn leaves this behind where /run is on a disk.
        left = Path("/run/systemd/nspawn/propagate") / self._name
        if left.is_dir():
            left.rmdir()


class Sellers:
    """Tills that sell one sale after the other and repeat each with its key until it is told."""

    def __init__(self, sell: Callable[[str], tuple[int, bytes]], count: int) -> None:
        self._sell = sell
        self.told: dict[str, bytes] = {}
        self.wrong: list[str] = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(f"t{n}",), daemon=True) for n in range(count)
        ]

    def __enter__(self) -> Sellers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads), "a sale never ended"

    def told_more(self, more: int) -> None:
        """Until so many more receipts were told."""
        target = len(self.told) + more
        until(lambda: len(self.told) >= target or self.wrong, f"{target} receipts")
        assert not self.wrong, self.wrong

    def _work(self, name: str) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            key = f"{name}-{number}"
            last = time.monotonic() + PATIENCE_S
            while key not in self.told and time.monotonic() < last:
                try:
                    status, body = self._sell(key)
                except GONE:
                    time.sleep(0.05)  # the gateway is down; a till waits, too
                    continue
                if status == 201:
                    self.told[key] = body
                elif status not in (202, 503):
                    self.wrong.append(f"{key}: {status} {body[:300]!r}")
                    return
                else:
                    time.sleep(0.05)
