"""Tells systemd how the daemon is: ready, alive, stopping (sd_notify(3)), over its datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Does nothing where there is no systemd. Errors of the socket are not the shop's problem."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        self._address = env.get("NOTIFY_SOCKET")
        self._watchdog_us = self._interval(env)

    @staticmethod
    def _interval(env: Mapping[str, str]) -> int | None:
        pid = env.get("WATCHDOG_PID")
        if pid and pid != str(os.getpid()):
            return None
        value = env.get("WATCHDOG_USEC", "")
        return int(value) if value.isdigit() and int(value) > 0 else None

    @property
    def watchdog_s(self) -> float | None:
        """How long systemd waits between two signs of life, in seconds; None without a watchdog."""
        return None if self._watchdog_us is None else self._watchdog_us / 1_000_000

    def ready(self) -> None:
        self._send("READY=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
                peer.connect(address)
                peer.sendall(message.encode())
        except OSError:
            return
