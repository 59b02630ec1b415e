"""The relay's own settings: one TOML file, and the gateways' secrets from a systemd credential or the
environment. Nothing of a shop's settings is needed on the machine where it runs."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.connection_guard import LOOPBACK, Limits, Network
from gateway.door import FLOOD_BURST, FLOOD_PER_S, SAFARICOM
from gateway.errors import ConfigError

CREDENTIAL = "relay_secrets"
SECRETS_ENV = "RELAY_SECRETS"
# A guessed secret would let a stranger fetch, and so silence, a shop's payments.
SECRET_MIN = 24
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Paths of the relay itself.
_TAKEN = ("v1", "healthz")


class RelaySettings(BaseModel):
    """Where it listens and how much it keeps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Path
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8099
    # Whose address is the peer's: the connection's, or the last one that the TLS proxy put into
    # X-Forwarded-For. Only behind a proxy that sets it.
    peer: Literal["connection", "forwarded"] = "connection"
    # Messages a second from strangers, for each gateway, and how many at once. Beyond: 429.
    flood_per_s: Annotated[float, Field(gt=0)] = FLOOD_PER_S
    flood_burst: Annotated[int, Field(ge=1)] = FLOOD_BURST
    # Peers that are never limited: Safaricom's addresses (daraja.md 5), as networks.
    unlimited: tuple[Network, ...] = SAFARICOM
    # Connections in all and of one address, far below LimitNOFILE, and how long a request's head may take.
    connections_max: Annotated[int, Field(ge=16, le=4096)] = 512
    connections_per_address: Annotated[int, Field(ge=4, le=4096)] = 64
    head_timeout_s: Annotated[float, Field(gt=0, le=600)] = 10
    keep_alive_s: Annotated[float, Field(gt=0, le=3600)] = 75
    # TLS proxies in front: each stands for many senders, so its connections are limited in all only.
    proxies: tuple[Network, ...] = LOOPBACK
    # For each gateway. Full of messages that nobody has fetched: 503, and what is there stays.
    keep_mb: Annotated[float, Field(gt=0, le=100_000)] = 256
    acked_days: Annotated[float, Field(gt=0)] = 7
    unacked_days: Annotated[float, Field(gt=0)] = 30
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def limits(self) -> Limits:
        return Limits(
            per_address=self.connections_per_address,
            total=self.connections_max,
            head_s=self.head_timeout_s,
            keep_alive_s=self.keep_alive_s,
            proxies=self.proxies,
        )


def load(
    path: Path, env: Mapping[str, str] | None = None
) -> tuple[RelaySettings, dict[str, bytes]]:
    """The settings, and each gateway's secret. ConfigError with every mistake."""
    env = os.environ if env is None else env
    problems: list[str] = []
    settings = None
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        if isinstance(data.get("directory"), str):
            data["directory"] = str((path.parent / data["directory"]).resolve())
        settings = RelaySettings(**data)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{path} cannot be read: {type(error).__name__}")
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{path} is not TOML: {error}")
    except ValidationError as error:
        problems += [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
    secrets = _secrets(env, problems)
    if problems or settings is None:
        raise ConfigError("; ".join(problems))
    return settings, secrets


def _secrets(env: Mapping[str, str], problems: list[str]) -> dict[str, bytes]:
    """Lines `gateway = secret` (comments with #)."""
    text = env.get(SECRETS_ENV)
    folder = env.get("CREDENTIALS_DIRECTORY")
    if text is None and folder:
        try:
            text = (Path(folder) / CREDENTIAL).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"the credential {CREDENTIAL} cannot be read: {type(error).__name__}")
    found: dict[str, bytes] = {}
    for line in (text or "").replace(",", "\n").splitlines():
        name, equals, secret = (part.strip() for part in line.partition("="))
        if not name or name.startswith("#"):
            continue
        if not equals or not _NAME.fullmatch(name) or name in _TAKEN:
            problems.append(f"{name!r} is no name for a gateway: letters, digits, - and _, not v1")
        elif len(secret) < SECRET_MIN:
            problems.append(f"the secret of {name} has fewer than {SECRET_MIN} characters")
        else:
            found[name] = secret.encode()
    if not found and not problems:
        problems.append(f"no gateway: set the credential {CREDENTIAL} or {SECRETS_ENV}")
    return found
