"""`make boot`: one box for the whole run: built, installed by the page, booted; taken down whatever happens."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import debian
from tests.system.box import Box
from tests.system.container import Container


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder is `make boot`, and its first test builds a system."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.boot)
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def installed() -> Iterator[Box]:
    problem = debian.missing()
    if problem is not None:
        pytest.skip(problem)
    figures: dict[str, str] = {}
    began = time.monotonic()
    system = debian.base()
    wheels = debian.wheels(system)
    figures["system and packages"] = f"{time.monotonic() - began:.1f} s"
    _remove_left_overs()
    place = debian.BUILD / f"run-{os.getpid()}"
    place.mkdir()
    container = Container(place / "root", place / "console.log", {debian.WHEELS: wheels})
    try:
        debian.copy(system, container.root)
        figures["boot of the bare system"] = f"{container.boot():.1f} s"
        box = Box(container, figures)
        began = time.monotonic()
        box.install()
        figures["the page's commands"] = f"{time.monotonic() - began:.1f} s"
        yield box
    finally:
        began = time.monotonic()
        container.end()
        shutil.rmtree(place)
        figures["taking it down"] = f"{time.monotonic() - began:.1f} s"
        for name, value in figures.items():
            print(f"\n  {name}: {value}", end="")
        print()


@pytest.fixture
def box(installed: Box) -> Box:
    """As it was installed, and running."""
    installed.calm()
    return installed


def _remove_left_overs() -> None:
    """Of a run that was killed."""
    for place in debian.BUILD.glob("run-*"):
        if not Path(f"/proc/{place.name.removeprefix('run-')}").exists():
            shutil.rmtree(place)
