"""Settings written into a TOML file: the right line, and nothing else."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.conformance.toml_lines import NotWritten, edited, write

ROOT = Path(__file__).parents[2]
VALUES = {"resend": True, "read_back": False}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", "[unit]\nresend = true\nread_back = false\n"),
        ("[unit]\n", "[unit]\nresend = true\nread_back = false\n"),
        ("[unit]\nresend = false\n", "[unit]\nresend = true\nread_back = false\n"),
        (
            "[unit]\n  read_back=true # why\n# resend = false  # default\n",
            "[unit]\nread_back = false   # why\nresend = true   # default\n",
        ),
        # The same name in another section is another setting.
        (
            "[a]\nresend = 1\n[unit]\nx = 1\n\n[b]\nread_back = 2\n",
            "[a]\nresend = 1\n[unit]\nx = 1\nresend = true\nread_back = false\n\n[b]\nread_back = 2\n",
        ),
        (
            "[unit.paths]\nresend = 1\n[unit]   # here\nx = 1\n# [b]\n# y = 2\n",
            "[unit.paths]\nresend = 1\n[unit]   # here\nx = 1\n# [b]\n# y = 2\nresend = true\nread_back = false\n",
        ),
    ],
)
def test_each_value_goes_to_its_line(old: str, new: str) -> None:
    assert edited(old, "unit", VALUES) == new


@pytest.mark.parametrize("comment", ["", "# read_back = true\n", "read_back = true\n"])
def test_a_file_keeps_everything_else(tmp_path: Path, comment: str) -> None:
    path = tmp_path / "gateway.toml"
    old = (
        (ROOT / "config/gateway.toml")
        .read_text(encoding="utf-8")
        .replace("[store]", f"{comment}[store]")
    )
    path.write_text(old, encoding="utf-8")
    path.chmod(0o640)
    write(path, "unit", VALUES | {"refused_codes": ["910", "913"]})
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    before = tomllib.loads(old)
    wanted = before["unit"] | VALUES | {"refused_codes": ["910", "913"]}
    assert found == {**before, "unit": wanted}
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    lines = set(old.splitlines()) - set(path.read_text(encoding="utf-8").splitlines())
    assert len(lines) <= 3
    assert [each.name for each in tmp_path.iterdir()] == ["gateway.toml"]


@pytest.mark.parametrize(
    ("old", "values"),
    [
        ("[unit]\nrefused_codes = [\n  '910',\n]\n", {"refused_codes": ["913"]}),
        ("unit = { x = 1 }\n", VALUES),
        ("unit.x = 1\n", VALUES),
        ("[unit\n", VALUES),
        ("[unit]\nx = '''\nresend = 1\n'''\n", VALUES),
    ],
)
def test_what_cannot_be_changed_safely_is_left_alone(
    tmp_path: Path, old: str, values: dict[str, Any]
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(old, encoding="utf-8")
    with pytest.raises(NotWritten):
        write(path, "unit", values)
    assert path.read_text(encoding="utf-8") == old


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotWritten, match="cannot be written"):
        write(tmp_path / "nowhere" / "gateway.toml", "unit", VALUES)
