"""The part of `pos-gateway check` about the service: what systemd gives it, and what its sandbox closes.

By hand, root reads every file and writes everywhere. The service gets the credentials that its unit file and the
drop-ins name, and writes where they let it. So both are read as systemd reads them.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.settings import Problem, Settings
from gateway.settings_file import PREFIX, SECRETS

NAME = "pos-gateway.service"
# Where systemd looks for unit files and drop-ins, the first first (systemd.unit(5)).
FOLDERS = (
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
# The drop-in that is shipped for each optional credential (systemd/credentials).
DROP_INS = {
    "technician_tokens": "technician.conf",
    "cloud_token": "cloud.conf",
    "mpesa_consumer_key": "mpesa.conf",
    "mpesa_consumer_secret": "mpesa.conf",
    "mpesa_passkey": "mpesa.conf",
    "mpesa_relay_secret": "mpesa-relay.conf",
    "mpesa_security_credential": "mpesa-refunds.conf",
}
# What ProtectSystem leaves writable even as "strict".
_API_FOLDERS = ("/dev", "/proc", "/sys")
_READ_ONLY = {
    "strict": ("/",),
    "full": ("/usr", "/boot", "/efi", "/etc"),
    "yes": ("/usr", "/boot", "/efi"),
}
_HOMES = ("/home", "/root", "/run/user")
_TRUE = ("yes", "true", "on", "1")


@dataclass(slots=True)
class Service:
    """The lines of [Service] that are in force: a list for each name, emptied by an empty line."""

    file: Path
    lines: dict[str, list[str]] = field(default_factory=dict)

    def words(self, name: str) -> list[str]:
        return [word for line in self.lines.get(name, []) for word in line.split()]

    def last(self, name: str) -> str:
        return self.lines.get(name, [""])[-1]


def read_service(root: Path = Path("/")) -> Service | None:
    """Return the installed unit with its drop-ins; None where it is not installed."""
    file = next((root / at / NAME for at in FOLDERS if (root / at / NAME).is_file()), None)
    if file is None:
        return None
    service = Service(file)
    for text in (file, *_drop_ins(root)):
        for name, value in _assignments(text):
            if value:
                service.lines.setdefault(name, []).append(value)
            else:
                service.lines[name] = []
    return service


def check_service(
    settings: Settings,
    sources: Mapping[str, str],
    notes: list[str],
    warnings: list[str],
    root: Path = Path("/"),
) -> list[Problem]:
    """Return what the settings need and the service does not get; warn of each folder that its sandbox closes."""
    service = read_service(root)
    if service is None:
        notes.append(f"{NAME} is not installed; what it gets is checked once it is")
        return []
    notes.append(f"service: {service.file}")
    return [
        *_credentials(service, settings, sources, root),
        *_folders(service, settings, warnings),
    ]


def _credentials(
    service: Service, settings: Settings, sources: Mapping[str, str], root: Path
) -> Iterator[Problem]:
    given = dict(_given(service, root))
    for name in SECRETS:
        source = sources.get(name, "")
        if not source.startswith("/") or f"{PREFIX.lower()}{name}" in given:
            continue
        if getattr(settings, name) and not _by_environment(service, name):
            drop_in = DROP_INS.get(name)
            cure = (
                f"install -D -m 644 systemd/credentials/{drop_in} /etc/systemd/system/{NAME}.d/{drop_in} && "
                "systemctl daemon-reload"
                if drop_in
                else f"add its LoadCredential line with systemctl edit {NAME}"
            )
            yield Problem(name, f"is in {source}, but the service does not get it: {cure}")
    for name, path in given.items():
        if path is not None and not path.exists():
            yield Problem(
                name.removeprefix(PREFIX.lower()),
                f"the service loads {path}, which is not there, so it does not start: make the file or remove the line",
            )


def _given(service: Service, root: Path) -> Iterator[tuple[str, Path | None]]:
    """Yield each credential that the service gets, with the file it must be read from, where there is one."""
    for kind in ("LoadCredential", "LoadCredentialEncrypted"):
        for line in service.lines.get(kind, []):
            name, _, place = line.partition(":")
            path = root / place.lstrip("/") if place.startswith("/") else None
            if path is not None and path.is_dir():
                yield from ((f"{name}_{file.name}", file) for file in path.iterdir())
            else:
                yield name, path
    for kind in ("SetCredential", "SetCredentialEncrypted"):
        yield from ((line.partition(":")[0], None) for line in service.lines.get(kind, []))
    for pattern in service.words("ImportCredential"):
        yield from (
            (f"{PREFIX.lower()}{name}", None)
            for name in SECRETS
            if Path(f"{PREFIX.lower()}{name}").match(pattern)
        )


def _by_environment(service: Service, name: str) -> bool:
    variable = f"{PREFIX}{name.upper()}="
    given = any(variable in line for line in service.lines.get("Environment", []))
    # What stands in an environment file is not looked into.
    return given or bool(service.lines.get("EnvironmentFile"))


def _folders(service: Service, settings: Settings, warnings: list[str]) -> Iterator[Problem]:
    """A folder that must be written and cannot be keeps the gateway from starting; of the others, warn."""
    unit, store = settings.unit, settings.store.directory
    needed = {"store.directory": store}
    if unit.host == "in-process" and unit.directory is not None:
        needed["unit.directory"] = unit.directory
    for key, path in needed.items():
        why = _closed(service, path, write=True)
        if why is not None:
            yield Problem(key, f"the service cannot write {path} ({why}): {_opened(path)}")
    if settings.backup.directory is not None:
        why = _closed(service, settings.backup.directory, write=True)
        if why is not None:
            path = settings.backup.directory
            warnings.append(
                f"backup.directory: the service cannot write {path} ({why}): {_opened(path)}"
            )
        elif (owner := _others(service, settings.backup.directory)) is not None:
            warnings.append(owner)
    if unit.host == "external" and unit.directory is not None:
        why = _closed(service, unit.directory, write=True)
        if why is not None:
            warnings.append(
                f"unit.directory: the service cannot write its marker into {unit.directory} ({why})"
            )
    read = {
        "unit.jar": unit.jar,
        "unit.java_home": unit.java_home,
        "unit.database": unit.database,
        "cloud.ca_file": settings.cloud.ca_file,
        "receipt.logo": settings.receipt.logo,
    }
    for key, file in read.items():
        why = None if file is None else _closed(service, file, write=False)
        if why is not None:
            warnings.append(f"{key}: the service cannot read {file} ({why}); keep it elsewhere")


def _others(service: Service, path: Path) -> str | None:
    """Return a warning where the rights of an existing folder keep the service's user out."""
    user = service.last("User") or "root"
    try:
        found, account = path.stat(), pwd.getpwnam(user)
    except (OSError, KeyError):
        return None
    if account.pw_uid == 0 or not path.is_dir():
        return None
    if found.st_uid == account.pw_uid:
        may = found.st_mode & 0o300 == 0o300
    elif found.st_gid == account.pw_gid:
        may = found.st_mode & 0o030 == 0o030
    else:
        may = found.st_mode & 0o003 == 0o003
    return (
        None
        if may
        else f"backup.directory: the user {user} cannot write {path}: chown {user} {path}"
    )


def _opened(path: Path) -> str:
    return (
        f"add [Service] ReadWritePaths=-{path} with systemctl edit {NAME}, or choose another place"
    )


def _closed(service: Service, path: Path, *, write: bool) -> str | None:
    """Return which line of the unit closes this place to the service; None where none does."""
    bare = [word.lstrip("-+") for word in service.words("InaccessiblePaths")]
    if _within(path, bare):
        return "InaccessiblePaths"
    opened = [word.lstrip("-+") for word in service.words("ReadWritePaths")]
    opened += [f"/var/lib/{name}" for name in service.words("StateDirectory")]
    opened += [f"/var/cache/{name}" for name in service.words("CacheDirectory")]
    opened += [f"/var/log/{name}" for name in service.words("LogsDirectory")]
    homes = service.last("ProtectHome").lower()
    if _within(path, _HOMES) and not _within(path, opened):
        if homes in (*_TRUE, "tmpfs"):
            return f"ProtectHome={homes}"
        if homes == "read-only" and write:
            return "ProtectHome=read-only"
    if service.last("PrivateTmp").lower() in _TRUE and _within(path, ("/tmp", "/var/tmp")):  # noqa: S108
        return "PrivateTmp: the service has a /tmp of its own"
    if not write or _within(path, opened):
        return None
    if _within(path, [word.lstrip("-+") for word in service.words("ReadOnlyPaths")]):
        return "ReadOnlyPaths"
    system = service.last("ProtectSystem").lower()
    system = "yes" if system in _TRUE else system
    if _within(path, _READ_ONLY.get(system, ())) and not _within(path, _API_FOLDERS):
        return f"ProtectSystem={system}"
    return None


def _within(path: Path, folders: list[str] | tuple[str, ...]) -> bool:
    # A mount or a link may lead elsewhere: what counts is where the path ends.
    at = Path(path).resolve()
    return any(at.is_relative_to(folder) for folder in folders)


def _drop_ins(root: Path) -> list[Path]:
    """Return the drop-ins in systemd's order: by name; of two of one name the one of the first folder."""
    found: dict[str, Path] = {}
    for kind in ("service.d", f"{NAME}.d"):
        for at in reversed(FOLDERS):
            for file in sorted((root / at / kind).glob("*.conf")):
                found[file.name] = file
    return [found[name] for name in sorted(found)]


def _assignments(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of [Service]; a line that ends in a backslash goes on in the next one."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    section = ""
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        bare = line.strip()
        if bare.startswith(("#", ";")) or not bare:
            continue
        if bare.startswith("["):
            section = bare
        elif section == "[Service]" and "=" in bare:
            name, _, value = bare.partition("=")
            yield name.strip(), value.strip()
