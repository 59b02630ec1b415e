"""Settings: all problems at once, no silent traps, and a sample file that shows every key."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.check import check, render
from gateway.clock import SystemClock
from gateway.counter_settings import (
    CaptureSettings,
    DisplaySettings,
    PrinterSettings,
    ScaleSettings,
    ScannerSettings,
    SerialTillSettings,
)
from gateway.domain.outcome import NotSent, Refused, Unknown
from gateway.settings import Settings
from gateway.settings_file import SECRETS, SettingsError, load
from gateway.vscu.codes import DUPLICATE_CODES, LINK_CODES, NOT_READY_CODES, REFUSED_CODES
from gateway.vscu.wire import Answer, decode
from gateway.wiring import make_client

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-long-enough"
GOOD = """
[branch]
pin = "A000123456B"
trade_name = "SHOP"
[unit]
host = "external"
serial = "dvc-1"
[store]
directory = "store"
[[tills]]
id = "till-1"
"""

DEVICES: dict[str, type[BaseModel]] = {
    "printers": PrinterSettings,
    "displays": DisplaySettings,
    "scales": ScaleSettings,
    "scanners": ScannerSettings,
    "serial_tills": SerialTillSettings,
    "captures": CaptureSettings,
}


def write(folder: Path, text: str = GOOD) -> Path:
    path = folder / "gateway.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, env: dict[str, str]) -> dict[str, str]:
    with pytest.raises(SettingsError) as caught:
        load(path, env)
    return {problem.key: problem.message for problem in caught.value.problems}


def test_a_good_file_loads_and_says_where_values_come_from(tmp_path: Path) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN}", "GATEWAY_API__PORT": "9000"}
    loaded = load(write(tmp_path), env)
    assert loaded.settings.api.port == 9000
    assert loaded.settings.store.directory == tmp_path / "store"
    assert loaded.sources["api.port"] == "environment GATEWAY_API__PORT"
    report = check(write(tmp_path), env)
    assert report.problems == ()
    text = render(report)
    assert "api.port = 9000    [environment GATEWAY_API__PORT]" in text
    assert "ceiling.limit_hours = 24.0    [default]" in text
    assert TOKEN not in text


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("A000123456B", "nonsense").replace('serial = "dvc-1"', "colour = 1")
    found = problems(write(tmp_path, text + "[api]\nport = 99999\n"), {"GATEWAY_POTR": "1"})
    assert {"branch.pin", "unit.serial", "unit.colour", "api.port", "GATEWAY_POTR"} <= set(found)
    assert "KRA PIN" in found["branch.pin"]
    assert "misspelt" in found["GATEWAY_POTR"]


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert "does not exist" in problems(tmp_path / "nothing.toml", {})["(file)"]


def test_a_secret_in_the_file_is_refused(tmp_path: Path) -> None:
    text = f'till_tokens = {{ till-1 = "{TOKEN}" }}\n' + GOOD
    with pytest.raises(SettingsError, match="till_tokens: is a secret"):
        load(write(tmp_path, text), {})


def test_tokens_come_from_a_systemd_credential(tmp_path: Path) -> None:
    (tmp_path / "gateway_till_tokens").write_text(f"# tills\ntill-1 = {TOKEN}\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = load(write(tmp_path), env).settings
    assert settings.till_tokens["till-1"].get_secret_value() == TOKEN
    assert TOKEN not in repr(settings)


def test_a_command_by_hand_reads_the_secrets_where_systemd_takes_them_from(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "till_tokens").write_text(f"till-1 = {TOKEN}\n")
    # The daemon never does: what it may know, its service gives it.
    assert "till_tokens" in problems(path, {})
    loaded = load(path, {}, by_hand=True)
    assert loaded.settings.till_tokens["till-1"].get_secret_value() == TOKEN
    assert loaded.sources["till_tokens"] == str(tmp_path / "till_tokens")
    shown = render(check(path, {}))
    assert f"till_tokens.till-1 = (set)    [{tmp_path / 'till_tokens'}]" in shown
    # What was given comes first, be it credentials or a variable.
    other = "another-token-of-till-1-entirely"
    env = {"GATEWAY_TILL_TOKENS": f"till-1={other}"}
    assert load(path, env, by_hand=True).settings.till_tokens["till-1"].get_secret_value() == other
    (tmp_path / "given").mkdir()
    (tmp_path / "given/gateway_till_tokens").write_text(f"till-1 = {other}\n")
    env = {"CREDENTIALS_DIRECTORY": str(tmp_path / "given")}
    assert load(path, env, by_hand=True).settings.till_tokens["till-1"].get_secret_value() == other


def test_secrets_that_cannot_be_read_by_hand_are_a_problem_with_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "till_tokens").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="use sudo"):
        load(path, {}, by_hand=True)


def test_tokens_are_long_known_and_different(tmp_path: Path) -> None:
    more = GOOD + '[[tills]]\nid = "till-2"\n[[tills]]\nid = "till-3"\n'
    env = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN},till-2={TOKEN},till-9=short"}
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, more), env)
    text = str(caught.value)
    for part in [
        "same token",
        "shorter than 16",
        "till-9, which is not",
        "no token for till till-3",
    ]:
        assert part in text


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("[ceiling]\nlimit_hours = 25", "ceiling.limit_hours"),
        ("[ceiling]\nlimit_hours = 0", "ceiling.limit_hours"),
        (
            "[ceiling]\nlast_contact_reading = false\noldest_unsent_reading = false",
            "ceiling.last_contact_reading",
        ),
        ("[ceiling]\nwarn_percent = [90, 75]", "ceiling.warn_percent"),
        ('[cloud]\nurl = "http://cloud.example"', "cloud.url"),
        ('[cloud]\nurl = "https://cloud.example"', "cloud_token"),
        ('[unit]\nrefused_codes = ["000"]', "unit.refused_codes"),
        ('[unit]\nrefused_codes = ["910", "E11"]', "unit.not_ready_codes"),
        ('[unit]\nduplicate_codes = ["910"]', "unit.refused_codes"),
        *(
            (f'[unit]\n{name} = ["{code}"]', f"unit.{name}")
            for name in ("refused_codes", "not_ready_codes")
            for code in ("838", "894", "896", "899", "924", "990", "994", "996", "999")
        ),
    ],
)
def test_what_only_shows_together(tmp_path: Path, more: str, key: str) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN}"}
    text = GOOD.replace("[unit]", more) if more.startswith("[unit]") else GOOD + more
    assert key in problems(write(tmp_path, text), env)


def test_each_code_list_is_the_one_of_the_table_and_reaches_the_client(tmp_path: Path) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN}"}
    unit = load(write(tmp_path), env).settings.unit
    assert unit.refused_codes == REFUSED_CODES
    assert unit.not_ready_codes == NOT_READY_CODES
    assert unit.duplicate_codes == DUPLICATE_CODES
    assert not LINK_CODES & {*unit.refused_codes, *unit.not_ready_codes}
    lists = 'refused_codes = ["921"]\nnot_ready_codes = ["777"]'
    settings = load(write(tmp_path, GOOD.replace("[unit]", f"[unit]\n{lists}")), env).settings
    client = make_client(settings, SystemClock())
    judged = {code: client.judge(answered(code), b"{}") for code in ("921", "777", "910", "836")}
    assert {code: type(outcome) for code, outcome in judged.items()} == {
        "921": Refused, "777": NotSent, "910": Unknown, "836": Unknown,
    }  # fmt: skip


def answered(code: str) -> Answer:
    raw = (
        b'{"resultCd":"%s","resultMsg":"","resultDt":"20261201120000","data":null}' % code.encode()
    )
    return decode(200, raw)


@pytest.mark.parametrize(
    ("unit", "warned", "noted"),
    [
        ("", {"unit.resend and unit.read_back", "unit.read_back, unit.database_query"}, ""),
        ("resend = true", {"unit.read_back, unit.database_query"}, ""),
        ("read_back = true", set(), "unit.forgets_on_restart is off"),
        ("read_back = true\nforgets_on_restart = true", set(), ""),
    ],
)
def test_check_says_what_a_lost_answer_costs(
    tmp_path: Path, unit: str, warned: set[str], noted: str
) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN}"}
    report = check(write(tmp_path, GOOD.replace("[unit]", f"[unit]\n{unit}")), env)
    assert report.problems == ()
    found = [warning for warning in report.warnings if warning.startswith("unit.")]
    assert len(found) == len(warned)
    assert all(any(warning.startswith(text) for warning in found) for text in warned)
    notes = [note for note in report.notes if note.startswith("unit.")]
    assert [note.startswith(noted) for note in notes] == ([True] if noted else [])


def test_nothing_is_assumed_of_a_unit_that_was_not_tested(tmp_path: Path) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1={TOKEN}"}
    unit = load(write(tmp_path), env).settings.unit
    assert (unit.resend, unit.forgets_on_restart, unit.read_back) == (False, False, False)


def test_the_sample_file_shows_every_setting_and_its_default() -> None:
    text = (ROOT / "config/gateway.toml").read_text(encoding="utf-8")
    shown = "\n".join(
        line[2:] if line.startswith("# ") and _is_setting(line[2:]) else line
        for line in text.splitlines()
    )
    values = tomllib.loads(shown)
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if name in SECRETS:
            assert f"GATEWAY_{name.upper()}" in text
            continue
        if name in DEVICES:
            (example,) = values[name].values()
            keys, found = _keys(DEVICES[name]), set(example)
        elif name == "excluded_ports":
            keys, found = set(), set(values[name])
        elif name == "tills":
            keys, found = {"id", "name", "printer", "reuses_numbers"}, set(values["tills"][0])
        else:
            assert isinstance(kind, type)
            keys, found = _keys(kind), set(values[name])
        assert keys == found, name


def _is_setting(line: str) -> bool:
    return line.startswith("[") or " = " in line.split("#", maxsplit=1)[0]


def _keys(kind: type[BaseModel]) -> set[str]:
    return set(kind.model_fields)


MPESA = """
[mpesa]
environment = "sandbox"
shortcode = "174379"
callback_url = "https://relay.example.co.ke/shop-1"
"""


def test_check_says_what_of_mpesa_is_missing(tmp_path: Path) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1 = {TOKEN}"}
    more = (
        'relay_url = "https://relay.example.co.ke"\nrelay_gateway = "shop-1"\ninitiator = "api"\n'
    )
    report = check(write(tmp_path, GOOD + MPESA + more), env)
    assert {problem.key for problem in report.problems} == {
        name for name in SECRETS if name.startswith("mpesa_")
    }


def test_check_says_how_mpesa_is_set_up_and_what_a_shop_will_miss(tmp_path: Path) -> None:
    env = {"GATEWAY_TILL_TOKENS": f"till-1 = {TOKEN}"}
    assert "mpesa.environment" in " ".join(check(write(tmp_path), env).notes)
    secrets = ("consumer_key", "consumer_secret", "passkey")
    env |= {f"GATEWAY_MPESA_{name.upper()}": f"the-{name}" for name in secrets}
    report = check(write(tmp_path, GOOD + MPESA), env)
    assert report.problems == ()
    text = render(report)
    assert "M-Pesa: sandbox (no real money), paybill 174379" in text
    assert "refunds are given back by hand" in text
    # Nothing brings M-Pesa's messages here.
    assert "WARNING mpesa.relay_url" in text
    assert not any(f"the-{name}" in text for name in secrets)
    report = check(write(tmp_path, GOOD + MPESA.replace("sandbox", "production")), env)
    assert any("REAL MONEY" in note for note in report.notes)
    assert any(warning.startswith("mpesa.pull is off") for warning in report.warnings)
