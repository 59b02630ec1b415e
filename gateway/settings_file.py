"""Reads the settings once at start: one TOML file, the environment, systemd's credentials.

Sources, first wins: environment (`GATEWAY_SECTION__KEY`), credentials (secrets only), the TOML file. A
secret in the TOML file is refused. `load` says every problem at once.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.settings import Problem, Settings, cross_checks

PREFIX = "GATEWAY_"
# Secrets come from the environment or from $CREDENTIALS_DIRECTORY, never from the file.
SECRETS = (
    "till_tokens",
    "technician_tokens",
    "cloud_token",
    "mpesa_consumer_key",
    "mpesa_consumer_secret",
    "mpesa_passkey",
    "mpesa_security_credential",
    "mpesa_relay_secret",
)
# Secrets that are a table: lines `name = secret`.
TABLES = ("till_tokens", "technician_tokens")
# Without these the gateway starts and sells.
OPTIONAL = frozenset(SECRETS) - {"till_tokens"}
MPESA_KEYS = ("mpesa_consumer_key", "mpesa_consumer_secret", "mpesa_passkey")
CREDENTIALS_ENV = "CREDENTIALS_DIRECTORY"


class SettingsError(Exception):
    """The configuration cannot be used; `problems` holds every reason."""

    exit_code = 78  # EX_CONFIG: systemd does not try again

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{item.key}: {item.message}" for item in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each key that was given where it came from."""

    settings: Settings
    sources: dict[str, str]


def load(
    path: Path,
    env: Mapping[str, str] | None = None,
    *,
    by_hand: bool = False,
    lenient: bool = False,
) -> Loaded:
    """Read, merge, validate. SettingsError with all problems at once.

    `lenient`: a part whose optional credential is missing or cannot be read is off, which is in `settings.off`;
    cash sales never wait for a key of M-Pesa's.

    `by_hand`: a command, not the daemon. Nobody gives it credentials, so it reads them where systemd
    takes them from, the files beside the TOML file; that needs root.
    """
    env = os.environ if env is None else env
    problems: list[Problem] = []
    sources: dict[str, str] = {}
    data = _read_file(path, problems)
    for name in SECRETS:
        if name in data:
            del data[name]
            problems.append(
                Problem(
                    name,
                    f"is a secret; put it in the environment or a systemd credential, not in {path.name}",
                )
            )
    _note(data, str(path), sources)
    _absolute(data, path.parent)
    unreadable: list[Problem] = []
    for name, value in _credentials(env, unreadable).items():
        data[name] = value
        sources[name] = "credential"
    if by_hand and not env.get(CREDENTIALS_ENV):
        for name, value in _beside(path.parent, env, unreadable).items():
            data[name] = value
            sources[name] = str(path.parent / name)
    problems += [item for item in unreadable if not lenient or item.key not in OPTIONAL]
    _environment(env, data, sources, problems)
    settings = None
    try:
        settings = Settings(**data)
    except ValidationError as error:
        problems += [_problem(item) for item in error.errors(include_url=False)]
    if settings is not None and lenient:
        says = {item.key: item.message.removeprefix("credential ") for item in unreadable}
        settings = _without_missing(settings, says)
    if settings is not None:
        problems += cross_checks(settings)
    if problems or settings is None:
        raise SettingsError(problems)
    return Loaded(settings, sources)


def _without_missing(settings: Settings, unreadable: Mapping[str, str]) -> Settings:
    """Return the settings with every part off whose credential is missing."""
    off: dict[str, str] = {}

    def lacks(part: str, says: str, *names: str) -> bool:
        missing = [name for name in names if getattr(settings, name) is None]
        if not missing:
            return False
        why = [f"the credential {n} {unreadable.get(n, 'is missing')}" for n in missing]
        off[part] = f"{says}: {'; '.join(why)}"
        return True

    mpesa = settings.mpesa
    if mpesa.on and lacks("mpesa", "M-Pesa is off", *MPESA_KEYS):
        mpesa = mpesa.model_copy(update={"environment": "disabled"})
    relay = mpesa.on and mpesa.relay_url is not None
    if relay and lacks("mpesa_relay", "The relay is not asked for messages", "mpesa_relay_secret"):
        mpesa = mpesa.model_copy(update={"relay_url": None, "relay_gateway": None})
    refunds = mpesa.on and mpesa.initiator is not None
    if refunds and lacks("mpesa_refunds", "No refund by M-Pesa", "mpesa_security_credential"):
        mpesa = mpesa.model_copy(update={"initiator": None})
    if settings.cloud.url is not None:
        lacks("cloud", "Nothing is sent to the cloud; it is kept", "cloud_token")
    if "technician_tokens" in unreadable:
        off["technicians"] = (
            f"No technician's code is known: the credential technician_tokens {unreadable['technician_tokens']}"
        )
    return settings.with_off(mpesa, off)


def _read_file(path: Path, problems: list[Problem]) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(Problem("(file)", f"{path} does not exist"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem("(file)", f"{path} cannot be read: {error}"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem("(file)", f"{path} is not TOML: {error}"))
    return {}


def _note(value: Any, source: str, sources: dict[str, str], at: str = "") -> None:
    if isinstance(value, dict) and value:
        for name, member in value.items():
            _note(member, source, sources, f"{at}.{name}" if at else name)
    elif at:
        sources[at] = source


def _absolute(data: dict[str, Any], base: Path) -> None:
    """Paths of the file are relative to the file; the gateway changes its directory later."""
    places = (
        ("unit", "jar"),
        ("unit", "directory"),
        ("unit", "java_home"),
        ("unit", "database"),
        ("store", "directory"),
        ("backup", "directory"),
        ("cloud", "ca_file"),
        ("receipt", "logo"),
    )
    for section, key in places:
        part = data.get(section)
        if isinstance(part, dict) and isinstance(part.get(key), str):
            part[key] = str((base / part[key]).resolve())


def _credentials(env: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    folder = env.get(CREDENTIALS_ENV)
    if not folder:
        return {}
    files = {name: Path(folder) / f"{PREFIX.lower()}{name}" for name in SECRETS}
    return _secrets(files, problems, "credential cannot be read")


def _beside(folder: Path, env: Mapping[str, str], problems: list[Problem]) -> dict[str, Any]:
    given = {name for name in SECRETS if f"{PREFIX}{name.upper()}" in env}
    files = {name: folder / name for name in SECRETS if name not in given}
    return _secrets(files, problems, f"cannot be read in {folder}; use sudo")


def _secrets(files: dict[str, Path], problems: list[Problem], failed: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, file in files.items():
        try:
            text = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(name, f"{failed}: {type(error).__name__}"))
            continue
        if text:
            found[name] = _tokens(text, name, problems) if name in TABLES else text
    return found


def _tokens(text: str, name: str, problems: list[Problem]) -> dict[str, str]:
    """Lines `till-id = token` (comments with #): what a technician can write without quoting."""
    tokens: dict[str, str] = {}
    for number, line in enumerate(text.replace(",", "\n").splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        till, equals, token = line.partition("=")
        if not equals:
            problems.append(Problem(name, f"line {number} is not of the form till = token"))
            continue
        tokens[till.strip()] = token.strip()
    return tokens


def _environment(
    env: Mapping[str, str],
    data: dict[str, Any],
    sources: dict[str, str],
    problems: list[Problem],
) -> None:
    for variable, value in sorted(env.items()):
        if not variable.startswith(PREFIX):
            continue
        path = variable[len(PREFIX) :].lower().split("__")
        if len(path) == 1 and path[0] in TABLES:
            data[path[0]] = _tokens(value, variable, problems)
        elif len(path) == 1 and path[0] in SECRETS:
            data[path[0]] = value
        elif len(path) == 2 and _is_key(path):
            part = data.setdefault(path[0], {})
            if isinstance(part, dict):
                part[path[1]] = value
        else:
            problems.append(Problem(variable, "is not a setting of the gateway; is it misspelt?"))
            continue
        sources[".".join(path)] = f"environment {variable}"


def _is_key(path: list[str]) -> bool:
    section = Settings.model_fields.get(path[0])
    kind = section.annotation if section else None
    return isinstance(kind, type) and issubclass(kind, BaseModel) and path[1] in kind.model_fields


def _problem(item: Any) -> Problem:
    key = ".".join(str(part) for part in item["loc"]) or "(file)"
    kind = item["type"]
    if kind == "missing":
        return Problem(key, "is required and has no default")
    if kind == "extra_forbidden":
        return Problem(key, "is not a setting of the gateway; is it misspelt?")
    if kind == "string_pattern_mismatch" and key == "branch.pin":
        return Problem(key, "is not a KRA PIN: a letter, nine digits, a letter (A123456789Z)")
    return Problem(key, f"{item['msg'][0].lower()}{item['msg'][1:]}")
