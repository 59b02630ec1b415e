"""`pos-gateway check` reads the service as systemd does: what it is given, and what its sandbox closes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from gateway.check import Report, check
from gateway.check_service import DROP_INS, read_service
from gateway.settings_file import OPTIONAL, SECRETS, SettingsError, load

ROOT = Path(__file__).parents[2]
UNIT = "etc/systemd/system/pos-gateway.service"
TOKEN = "till-1 = 0123456789abcdef0123"
MPESA = (
    '[mpesa]\nenvironment = "sandbox"\nshortcode = "174379"\ncallback_url = "https://x.example"\n'
)
KEYS = ("mpesa_consumer_key", "mpesa_consumer_secret", "mpesa_passkey")


class Machine:
    """A machine's folders under one root: /etc/pos-gateway and the installed unit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.etc = root / "etc/pos-gateway"
        self.etc.mkdir(parents=True)
        (root / UNIT).parent.mkdir(parents=True)
        shutil.copy(ROOT / "systemd/pos-gateway.service", root / UNIT)
        (root / "store").mkdir()
        self.secret("till_tokens", TOKEN)

    def secret(self, name: str, text: str = "a-secret-of-sixteen") -> None:
        (self.etc / name).write_text(text + "\n")

    def drop_in(self, name: str, text: str) -> None:
        folder = self.root / f"{UNIT}.d"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    def shipped(self, name: str) -> None:
        self.drop_in(name, (ROOT / "systemd/credentials" / name).read_text())

    def settings(self, more: str = "", store: str = "/var/lib/pos-gateway/store") -> Path:
        path = self.etc / "gateway.toml"
        path.write_text(
            '[branch]\npin = "A000123456B"\ntrade_name = "T"\n'
            f'[unit]\nserial = "s"\nhost = "external"\n[store]\ndirectory = "{store}"\n'
            f'[api]\nport = 0\n[[tills]]\nid = "till-1"\n{more}'
        )
        return path

    def check(self, more: str = "", **where: str) -> Report:
        return check(self.settings(more, **where), {}, system=self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def named(report: Report) -> dict[str, str]:
    """The problems of the service; the machine that tests has no /var/lib/pos-gateway of its own."""
    return {item.key: item.message for item in report.problems}


def test_every_optional_credential_has_a_drop_in_that_an_update_keeps() -> None:
    lines: dict[str, str] = {}
    for file in (ROOT / "systemd/credentials").iterdir():
        for name, path in re.findall(
            r"^LoadCredential=gateway_(\w+):/etc/pos-gateway/(\w+)$", file.read_text(), re.M
        ):
            assert name == path
            lines[name] = file.name
    assert lines == DROP_INS
    assert set(lines) == set(OPTIONAL) == set(SECRETS) - {"till_tokens"}


@pytest.mark.parametrize("page", ["install", "mpesa", "relay", "doubt-and-backup", "devices"])
def test_no_page_asks_for_an_edit_of_the_unit_file(page: str) -> None:
    text = (ROOT / f"docs/operating/{page}.md").read_text()
    assert "Take the `#`" not in text
    for line in text.splitlines():
        if "/etc/systemd/system/pos-gateway.service" in line:
            assert ".service.d" in line or line.strip().startswith("cp "), line


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_a_secret_that_the_service_does_not_get_is_a_problem_and_its_drop_in_the_cure(
    name: str, machine: Machine
) -> None:
    more = {
        "cloud_token": '[cloud]\nurl = "https://cloud.example"\n',
        "technician_tokens": "",
        "mpesa_relay_secret": MPESA
        + 'relay_url = "https://relay.example"\nrelay_gateway = "shop-1"\n',
        "mpesa_security_credential": MPESA + 'initiator = "api"\n',
    }.get(name, MPESA)
    needed = {name, *(KEYS if more.startswith(MPESA) else ())}
    for each in needed:
        machine.secret(each, "wanjiru = 0123456789ab" if each == "technician_tokens" else "k" * 20)
    # The edited unit file was replaced by an update: the files are there, root reads them.
    found = named(machine.check(more))
    assert set(found) == needed
    assert all("the service does not get it" in message for message in found.values())
    assert f"systemd/credentials/{DROP_INS[name]}" in found[name]
    for drop_in in {DROP_INS[each] for each in needed}:
        machine.shipped(drop_in)
    assert named(machine.check(more)) == {}
    # The documented update: the unit file again. The drop-ins stay.
    shutil.copy(ROOT / "systemd/pos-gateway.service", machine.root / UNIT)
    assert named(machine.check(more)) == {}


def test_a_line_for_a_file_that_is_not_there_keeps_the_service_down(machine: Machine) -> None:
    machine.shipped("mpesa-relay.conf")
    found = named(machine.check())
    assert "does not start" in found["mpesa_relay_secret"]


def test_other_ways_of_systemd_to_give_a_credential_count(machine: Machine) -> None:
    for name in KEYS:
        machine.secret(name)
    folder = machine.root / "etc/secrets"
    folder.mkdir()
    for name in KEYS[:1]:
        (folder / name).write_text("k")
    machine.drop_in(
        "own.conf",
        "[Service]\n# a comment\nLoadCredential=gateway:/etc/secrets\n"
        "SetCredential=gateway_mpesa_consumer_secret:x\n"
        "Environment=A=b \\\n    GATEWAY_MPESA_PASSKEY=x\n",
    )
    assert named(machine.check(MPESA)) == {}
    # An empty line takes all of them back.
    machine.drop_in("zz.conf", "[Service]\nLoadCredential=\n")
    assert set(named(machine.check(MPESA))) == {"till_tokens", "mpesa_consumer_key"}


def test_drop_ins_of_other_folders_count_and_one_name_counts_once(machine: Machine) -> None:
    machine.secret("technician_tokens", "wanjiru = 0123456789ab")
    lib = machine.root / "usr/lib/systemd/system/pos-gateway.service.d"
    lib.mkdir(parents=True)
    shutil.copy(ROOT / "systemd/credentials/technician.conf", lib)
    assert named(machine.check()) == {}
    machine.drop_in("technician.conf", "[Service]\n")
    assert set(named(machine.check())) == {"technician_tokens"}


def test_a_machine_without_the_service_is_told_so_and_nothing_else(machine: Machine) -> None:
    (machine.root / UNIT).unlink()
    machine.secret("technician_tokens", "wanjiru = 0123456789ab")
    report = machine.check()
    assert named(report) == {}
    assert any("is not installed" in note for note in report.notes)


@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("/mnt/stick/pos-gateway", None),
        ("/media/usb0/pos-gateway", None),
        ("/run/media/owner/stick", None),
        ("/var/lib/pos-gateway/backups", None),
        ("/srv/backups", "ProtectSystem=strict"),
        ("/opt/backups", "ProtectSystem=strict"),
        ("/var/backups", "ProtectSystem=strict"),
        ("/home/shop/backups", "ProtectHome=yes"),
        ("/root-of-all/backups", "ProtectSystem=strict"),
        ("/tmp/backups", "PrivateTmp"),
        ("/mnt/../etc/backups", "ProtectSystem=strict"),
        ("/mntx/stick", "ProtectSystem=strict"),
    ],
)
def test_a_backup_folder_that_the_sandbox_closes_is_a_warning(
    folder: str, why: str | None, machine: Machine
) -> None:
    report = machine.check(f'[backup]\ndirectory = "{folder}"\n')
    found = [text for text in report.warnings if text.startswith("backup.directory")]
    if why is None:
        assert found == []
    else:
        assert len(found) == 1 and why in found[0] and "ReadWritePaths" in found[0]
        resolved = str(Path(folder).resolve())
        machine.drop_in("backup.conf", f"[Service]\nReadWritePaths=-{resolved}\n")
        if why != "PrivateTmp":
            again = machine.check(f'[backup]\ndirectory = "{folder}"\n')
            assert not [text for text in again.warnings if text.startswith("backup.directory")]


def test_without_the_lines_of_this_version_the_stick_is_closed(machine: Machine) -> None:
    text = (machine.root / UNIT).read_text()
    (machine.root / UNIT).write_text(re.sub(r"^ReadWritePaths=.*$", "", text, flags=re.M))
    report = machine.check('[backup]\ndirectory = "/mnt/stick/pos-gateway"\n')
    assert any("ProtectSystem=strict" in text for text in report.warnings)


def test_a_store_that_the_sandbox_closes_is_a_problem(machine: Machine) -> None:
    found = named(machine.check(store="/srv/store"))
    assert "ProtectSystem=strict" in found["store.directory"]


def test_every_other_folder_of_the_settings_is_looked_at(machine: Machine) -> None:
    more = '[cloud]\nurl = "https://c.example"\nca_file = "/home/shop/ca.pem"\n'
    machine.secret("cloud_token")
    machine.shipped("cloud.conf")
    report = machine.check(more)
    assert any(text.startswith("cloud.ca_file") for text in report.warnings)


def test_the_shipped_unit_is_read_whole(machine: Machine) -> None:
    service = read_service(machine.root)
    assert service is not None
    assert service.last("ProtectSystem") == "strict"
    assert service.words("ReadWritePaths") == ["-/mnt", "-/media", "-/run/media"]


# --- a missing credential -------------------------------------------------------------------------

RELAY = 'relay_url = "https://relay.example"\nrelay_gateway = "shop-1"\n'


def lenient(machine: Machine, more: str, **secrets: str) -> Any:
    env = {"GATEWAY_TILL_TOKENS": TOKEN} | {
        f"GATEWAY_{name.upper()}": value for name, value in secrets.items()
    }
    return load(machine.settings(more), env, lenient=True).settings


@pytest.mark.parametrize("missing", KEYS)
def test_a_missing_key_of_mpesa_switches_mpesa_off_and_nothing_else(
    missing: str, machine: Machine
) -> None:
    given = {name: "k" for name in KEYS if name != missing}
    settings = lenient(machine, MPESA + RELAY, **given)
    assert not settings.mpesa.on
    assert settings.off == {
        "mpesa": f"M-Pesa is off: the credential {missing} is missing",
    }
    # `check` calls it a problem all the same.
    with pytest.raises(SettingsError, match=missing):
        load(
            machine.etc / "gateway.toml",
            {"GATEWAY_TILL_TOKENS": TOKEN, **{f"GATEWAY_{n.upper()}": v for n, v in given.items()}},
        )


def test_a_missing_secret_of_a_part_switches_that_part_off(machine: Machine) -> None:
    keys = dict.fromkeys(KEYS, "k")
    more = MPESA + RELAY + 'initiator = "api"\n[cloud]\nurl = "https://cloud.example"\n'
    settings = lenient(machine, more, **keys)
    assert settings.mpesa.on
    assert (settings.mpesa.relay_url, settings.mpesa.initiator) == (None, None)
    # The cloud's address stays: receipts are kept for it.
    assert settings.cloud.url == "https://cloud.example"
    assert set(settings.off) == {"mpesa_relay", "mpesa_refunds", "cloud"}
    whole = lenient(
        machine, more, **keys, mpesa_relay_secret="r", mpesa_security_credential="s", cloud_token="c",
    )  # fmt: skip
    assert whole.off == {}
    assert (whole.mpesa.relay_gateway, whole.mpesa.initiator) == ("shop-1", "api")


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_a_credential_that_cannot_be_read_is_like_a_missing_one(
    name: str, machine: Machine, tmp_path: Path
) -> None:
    folder = tmp_path / "credentials"
    (folder / f"gateway_{name}").mkdir(parents=True)
    (folder / "gateway_till_tokens").write_text(TOKEN)
    for other in (*KEYS, "mpesa_relay_secret", "mpesa_security_credential", "cloud_token"):
        if other != name:
            (folder / f"gateway_{other}").write_text("k")
    more = MPESA + RELAY + 'initiator = "api"\n[cloud]\nurl = "https://cloud.example"\n'
    env = {"CREDENTIALS_DIRECTORY": str(folder)}
    settings = load(machine.settings(more), env, lenient=True).settings
    [reason] = settings.off.values()
    assert f"the credential {name} credential cannot be read" not in reason
    assert name in reason and "cannot be read" in reason


@pytest.mark.parametrize("text", ["", "\n", "  \n"])
def test_an_empty_credential_is_a_missing_one(text: str, machine: Machine, tmp_path: Path) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "gateway_till_tokens").write_text(TOKEN)
    for name in KEYS:
        (folder / f"gateway_{name}").write_text(text if name == KEYS[0] else "k")
    env = {"CREDENTIALS_DIRECTORY": str(folder)}
    settings = load(machine.settings(MPESA), env, lenient=True).settings
    assert not settings.mpesa.on and KEYS[0] in settings.off["mpesa"]


def test_a_token_of_a_till_is_never_optional(machine: Machine) -> None:
    with pytest.raises(SettingsError, match="till_tokens"):
        load(machine.settings(), {}, lenient=True)
    with pytest.raises(SettingsError, match="off: is not a setting"):
        load(machine.settings("[off]\nmpesa = 'x'\n"), {"GATEWAY_TILL_TOKENS": TOKEN}, lenient=True)


def test_a_backup_folder_of_another_user_is_a_warning(machine: Machine, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir(mode=0o755)
    # "nobody" stands for the service's user, which the machine that tests does not have.
    machine.drop_in("own.conf", f"[Service]\nUser=nobody\nReadWritePaths={stick}\nPrivateTmp=no\n")
    more = f'[backup]\ndirectory = "{stick}"\n'
    found = [text for text in machine.check(more).warnings if text.startswith("backup.directory")]
    assert found == [
        f"backup.directory: the user nobody cannot write {stick}: chown nobody {stick}"
    ]
    stick.chmod(0o777)
    assert not [text for text in machine.check(more).warnings if text.startswith("backup.")]
