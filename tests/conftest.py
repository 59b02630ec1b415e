"""Fixtures: one JVM with the fake unit for the whole run, wiped before every test that uses it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.async_api import Browser

from hw_fakes.vscu.unit import ExternalUnit, UnitControl
from tests.support.browser import chromium

# On a busy machine a moment in which nothing runs is longer than Hypothesis lets an example take. The rest is
# as its own profile has it (in CI: the same examples each time).
settings.register_profile(
    "busy", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


def need_tool(name: str) -> str:
    """The path of a program a test needs. Missing: skipped at a desk, failed in CI."""
    path = shutil.which(name)
    if path is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed; .ci/run must install it")
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture(scope="session")
def unit_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExternalUnit]:
    unit = ExternalUnit(tmp_path_factory.mktemp("unit"))
    asyncio.run(unit.__aenter__())
    yield unit
    unit.kill()


@pytest.fixture
async def unit(unit_process: ExternalUnit) -> AsyncIterator[UnitControl]:
    """The fake unit, as new: no device, no receipts, every knob at its default."""
    await unit_process.reset()
    yield unit_process
    await unit_process.reset()


@pytest.fixture
def shop_dir(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 24 MB, in memory."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium(need_tool("chromium")) as opened:
        yield opened
