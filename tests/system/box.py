"""A shop's box, installed by the page and booted: what a technician and a till do to it."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.support.shop import a_sale
from tests.system import debian
from tests.system.container import Container, until

UNIT = "pos-gateway"
DROP_IN = f"/etc/systemd/system/{UNIT}.service.d"
CONFIG = "/etc/pos-gateway/gateway.toml"
STATE = "/var/lib/pos-gateway"
URL = "http://127.0.0.1:8080"
FAKE = "http://127.0.0.1:8088/_fake"


class Box:
    """The installed gateway in its container. `figures` are printed when the run is over."""

    def __init__(self, container: Container, figures: dict[str, str]) -> None:
        self.container = container
        self.figures = figures
        self.token = ""

    def install(self) -> None:
        """Every command of install.md as it stands there."""
        self._unpack_kra()
        lines = []
        for line in debian.commands("install.md"):
            if line.startswith("apt install "):
                continue  # the system was built with them (debian.packages)
            if line.startswith("udevadm "):
                continue  # a container has no devices of its own to name; test_systemd.py tries the rules
            lines.append(line)
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": debian.WHEELS}
        self.container.run("\n".join(lines), env=pip)
        self.container.run(f"cp {CONFIG} {CONFIG}.installed")
        line = self.container.run("cat /etc/pos-gateway/till_tokens")
        self.token = line.partition("=")[2].strip()
        assert len(self.token) >= 24

    def _unpack_kra(self) -> None:
        """KRA's ZIP, unpacked where the page wants it; the fake JAR stands in for theirs. It reads back
        what it signed, so that a doubt needs no person."""
        jar = "/opt/pos-gateway/hw_fakes/vscu/etims-vscu-fake.jar"
        properties = (
            "server.port=8088",
            "api.external.domain=https://etims-api-sbx.kra.go.ke",
            "fake.readBack=true",
        )
        self.container.run(
            "mkdir -p /tmp/etims-vscu/config\n"
            f"cp {jar} /tmp/etims-vscu/etims-vscu-2.0.5.jar\n"
            f"printf '%s\\n' {' '.join(properties)} > /tmp/etims-vscu/config/application.properties"
        )

    def calm(self) -> None:
        """As installed: no drop-in, the settings of the page, running."""
        self.container.run(
            f"rm -f {DROP_IN}/test.conf; cp {CONFIG}.installed {CONFIG}\n"
            f"systemctl daemon-reload; systemctl reset-failed; systemctl restart {UNIT}"
        )

    def drop_in(self, *lines: str) -> None:
        """`systemctl edit`."""
        text = "\\n".join(["[Service]", *lines, ""])
        self.container.run(
            f"mkdir -p {DROP_IN}; printf '{text}' > {DROP_IN}/test.conf; systemctl daemon-reload"
        )

    def setting(self, section: str, line: str) -> None:
        """One more line in a section of the settings."""
        self.container.run(f"sed -i '/^\\[{section}\\]$/a {line}' {CONFIG}")

    def pid(self) -> int:
        return int(self.container.show(UNIT, "MainPID")["MainPID"])

    def restarts(self) -> int:
        return int(self.container.show(UNIT, "NRestarts")["NRestarts"])

    def active(self) -> bool:
        return self.container.show(UNIT, "ActiveState")["ActiveState"] == "active"

    def up(self) -> None:
        until(self.active, "the service is active")

    def process(self, field: str) -> str:
        """A line of the main process's /proc/PID/status, its words joined by one space."""
        text = self.container.run(f"cat /proc/{self.pid()}/status")
        found = re.search(rf"^{field}:\s*(.*)$", text, re.MULTILINE)
        assert found is not None, field
        return " ".join(found[1].split())

    # --- a till ---------------------------------------------------------------------------------------

    def sell(self, key: str, url: str = URL) -> tuple[int, bytes]:
        sale = a_sale(tillReceiptNo=key)
        headers = {"Authorization": f"Bearer {self.token}", "Idempotency-Key": key}
        return self.container.ask("POST", f"{url}/v1/invoices", sale, headers)

    def technician(self, method: str, path: str, said: Any = None) -> Any:
        """With the code of the page."""
        line = self.container.run("cat /etc/pos-gateway/technician_tokens")
        headers = {"Authorization": f"Bearer {line.partition('=')[2].strip()}"}
        status, body = self.container.ask(method, f"{URL}{path}", said, headers)
        assert status == 200, body
        return json.loads(body)

    def receipt(self, key: str) -> bytes:
        """A sale that must be signed now."""
        status, body = self.sell(key)
        assert status == 201, body
        return body

    def status(self) -> Any:
        status, body = self.container.ask("GET", f"{URL}/v1/status")
        assert status == 200, body
        return json.loads(body)

    def signed(self) -> list[Any]:
        """The fake unit's own journal."""
        return list(json.loads(self.container.ask("GET", f"{FAKE}/journal?since=0")[1]))

    def knobs(self, **values: Any) -> None:
        status, body = self.container.ask("POST", f"{FAKE}/knobs", values)
        assert status == 200, body
