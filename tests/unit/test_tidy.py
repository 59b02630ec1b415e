"""The house rules that a machine can check: import directions, banned calls, sizes, no stray paths."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEVELS = {
    # What every listener stands on: limits, then the sockets and bodies that they hold for.
    "connection_guard": 0.2, "listen": 0.4, "body_share": 0.4,
    "errors": 0, "http": 0, "clock": 0, "ids": 0, "money": 0, "__init__": 0, "strict_json": 1,
    "door": 1, "signed": 0,
    "domain": 1,
    "store": 2, "settings": 2, "settings_file": 3, "counter_settings": 1, "mpesa_settings": 1, "ops": 2,
    "vscu": 3, "sync": 3, "devices": 3, "mpesa": 3,
    # A server of its own; nothing of the gateway knows it.
    "relay": 3,
    "counter": 4, "fiscal": 4, "continuity": 4, "printing": 4, "payments": 4,
    "api": 5, "status": 5,
    "app": 6, "daemon": 6, "emergency": 6, "tools": 6, "device_tools": 6, "capture_tool": 6, "mpesa_tools": 6, "sales_line": 6, "counter_line": 6, "slips": 6, "reference_line": 6, "payment_line": 6, "checkout_line": 6, "unit_line": 6, "journal": 4, "wiring": 6, "cli": 6, "supervisor": 6, "check": 6, "check_ports": 6, "check_service": 6, "demo": 6, "__main__": 6,
    "conformance": 4, "unit_tool": 6,
}  # fmt: skip
# What crosses a line knowingly, with the reason.
ALLOWED = {
    ("mpesa_settings", "counter_settings"): "the base of every section",
    ("devices", "printing"): "a driver takes a Document, which is pure data",
    ("printing", "devices"): "the spooler knows the driver's outcomes",
    ("continuity", "sync"): "the outbox knows the client's outcomes",
    ("status", "api"): "pages are routes beside the API's, with the same services",
}
SOURCES = sorted((ROOT / "gateway").rglob("*.py"))
FAKES = sorted((ROOT / "hw_fakes").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "gateway":
                found |= {f"gateway.{alias.name}" for alias in node.names}
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def part(module: str) -> str:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    relative = path.relative_to(ROOT / "gateway")
    mine = relative.parts[0].removesuffix(".py")
    for module in imports(path):
        if module.startswith("hw_fakes"):
            assert mine == "demo"
        if not module.startswith("gateway"):
            continue
        other = part(module)
        if other == mine or (mine, other) in ALLOWED or other not in LEVELS:
            continue
        assert LEVELS[other] < LEVELS[mine] or (LEVELS[mine] == 6), f"{mine} imports {other}"


@pytest.mark.parametrize("path", FAKES, ids=name_of)
def test_fakes_share_nothing_with_the_gateway(path: Path) -> None:
    assert not any(module.startswith("gateway") for module in imports(path))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_banned_calls(path: Path) -> None:
    text = path.read_text()
    name = path.name
    if name != "clock.py":
        assert not re.search(r"time\.time\(|datetime\.now\(|monotonic\(|asyncio\.sleep\(", text)
    # It raises while another thread sets the locale, as the JVM does in our process.
    assert not re.search(r"\.strptime\(", text)
    if name not in ("supervisor.py",):
        assert not re.search(r"asyncio\.create_task\(|asyncio\.shield\(", text)
    # The relay is a server of its own, with a store of its own.
    store = "store" in path.parts or path.parts[-2:] == ("relay", "store.py")
    if not store:
        # The watchdog's SELECT 1; the unit's own file, which is no store of ours.
        allowed = {"daemon.py": 1, "tools.py": 1, "unit_database.py": 2}
        executes = re.findall(r"conn\.execute\(", text)
        assert len(executes) <= allowed.get(name, 0), "SQL outside the store"
        assert "aiosqlite" not in text


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_name_is_looked_up_on_the_loops_own_threads(path: Path) -> None:
    """A session is given a connector and a connector `Lookups` (http.py); the demo ends with its user."""
    wanted = {"ClientSession": "connector", "TCPConnector": "resolver"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            needs = wanted.get(node.func.attr)
            given = {keyword.arg for keyword in node.keywords}
            assert needs is None or needs in given or path.name == "demo.py", node.lineno
            assert node.func.attr not in ("getaddrinfo", "gethostbyname") or path.name == "http.py"


@pytest.mark.parametrize("path", [*SOURCES, *FAKES], ids=name_of)
def test_a_module_opens_with_what_it_is_for_and_can_be_read_in_one_sitting(path: Path) -> None:
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc, "no docstring"
    assert doc.strip().splitlines()[0].rstrip()
    assert len(path.read_text().splitlines()) <= 500


def test_tracked_files_speak_of_the_project_only() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    # Put together, so that this file does not find itself.
    stray = re.compile(
        "|".join(["/" + "work/", "/" + "root/", "index" + "-url", "pypi" + r"\.org"])
    )
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".jar", ".png") or not path.is_file():
            continue
        assert not stray.search(path.read_text(errors="replace")), name
