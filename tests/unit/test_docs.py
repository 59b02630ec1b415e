"""Documentation that must not drift: every error code has its heading, every route its line."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

from gateway import errors
from gateway.settings import Settings, cross_checks

ROOT = Path(__file__).parents[2]


def test_every_error_code_is_documented_and_no_other() -> None:
    codes = {
        kind.__dict__["code"]
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.GatewayError) and "code" in kind.__dict__
    }
    text = (ROOT / "docs/reference/problems.md").read_text()
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == codes


def test_every_route_of_the_api_is_documented() -> None:
    text = (ROOT / "docs/reference/api.md").read_text()
    for source in (ROOT / "gateway/api").glob("*.py"):
        for method, path in re.findall(r'router\.add_(\w+)\("(/v1[^"]*)"', source.read_text()):
            assert f"{method.upper()} {path}" in text, path


def test_every_link_of_a_page_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "hw_fakes/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", page.read_text()):
            link = target[0] or target[1]
            if not link.startswith("http"):
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_event_kind_is_documented() -> None:
    text = (ROOT / "docs/reference/api.md").read_text()
    for source in (ROOT / "gateway").rglob("*.py"):
        for kind in re.findall(r'kind="(\w+\.\w+)"', source.read_text()):
            assert f"`{kind}`" in text, kind


def test_the_settings_for_the_test_of_a_unit_are_settings() -> None:
    text = (ROOT / "docs/operating/unit-test.md").read_text(encoding="utf-8")
    block = text[text.index("       [branch]") : text.index("   The store is never made")]
    values = tomllib.loads("\n".join(line.strip() for line in block.splitlines()))
    settings = Settings(**values, till_tokens={"test": "x" * 24})
    assert settings.branch.environment == values["branch"]["environment"] == "sandbox"
    assert {problem.key for problem in cross_checks(settings)} == {"unit.jar"}
