"""Everything that can be turned on the fake, by one table: in Python by name, over HTTP in camelCase."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

FAMILIES = (
    "oauth", "push", "query", "c2b", "pull", "status", "reversal", "b2c", "balance", "qr",
)  # fmt: skip
FAULTS = (
    "503", "html", "empty", "500", "busy", "spike", "quota", "soap", "429", "reset", "lost",
    "waf200", "waf403", "waf503", "spike500", "quota429", "quota500", "no_product",
)  # fmt: skip
# The APIs that an app's products may lack: the families, and C2B by its version.
APIS = (*(each for each in FAMILIES if each != "oauth"), "c2b/v1", "c2b/v2")
MSISDNS = ("auto", "masked", "hashed", "hashed_upper", "full", "null", "empty", "absent")
BODY_FORMS = ("plain", "latin1", "bom", "utf16", "gzip", "form", "raw_tab", "in_text", "lower_keys")
KINDS = ("stk", "c2b", "validation", "result", "timeout")

VARIANTS = (
    "plain", "strings", "masked", "reordered", "balance", "types", "no_metadata", "missing_fields",
    "invalid_json", "empty", "no_callback", "stray", "list", "text",
)  # fmt: skip

CHOICES = {
    "pending": ("4999", "500", "mixed"),
    "oauth_refusal": ("code", "empty"),
    "stale_answer": ("family", "401", "400"),
    "callback_variant": VARIANTS,
    "c2b_answer": ("auto", "code", "number", "zeros", "no_code"),
    "c2b_again": ("500", "200", "soap"),
    "pull_zone": ("eat", "utc"),
    "pull_empty": ("nested", "flat", "null", "absent"),
    "pull_reversals": ("row", "negative", "none"),
    "reversal_notice": ("none", "positive", "negative"),
}


@dataclass
class Knobs:
    """Seconds are of the fake's world (times the scale) but where `real` is said."""

    # What a push without a scenario of its own gets: a scenario, or `phone` (a person at the page answers).
    default: str = "ok"
    # How long a customer takes where the row does not say, from and to.
    answer_s: tuple[float, float] = (13.0, 31.0)
    prompt_after_s: float = 4.0
    prompt_life_s: float = 60.0
    ignored_code: str = "1037"
    hold_s: float = 35.0
    lock: bool = True
    rule17_s: float = 120.0
    # 4999, 500, or mixed: how "still processing" is said.
    pending: str = "4999"
    too_early_s: float = 0.0
    query_messages: float = 5
    query_period_s: float = 60.0
    query_burst: float = 1
    query_limited: bool = True
    push_spacing_s: float = 0.0
    retry_after: bool = False
    # Tokens: life in real seconds.
    token_life_s: float = 3599.0
    token_replaces: bool = False
    oauth_refusal: str = "code"
    oauth_refusals: int = 0
    stale_answer: str = "family"
    # Callbacks. The variant is of those that a row leaves plain (VARIANTS).
    callback_variant: str = "plain"
    callback_delay_s: float = 0.0
    jitter_s: float = 0.0
    drop_callbacks: int = 0
    drop_kinds: tuple[str, ...] = ()
    copies: int = 1
    retries: int = 0
    retry_spacing_s: float = 10.0
    ack_timeout_s: float = 5.0  # real
    hosts: dict[str, str] = field(default_factory=dict)
    # C2B.
    twin: bool = True
    twin_after_s: float = 2.0
    validation: bool = False
    validation_timeout_s: float = 8.0  # real
    one_shot: bool = True
    # auto: with ResponseCode on v2, without on v1. How "already registered" is said.
    c2b_answer: str = "auto"
    c2b_again: str = "500"
    # By short code or `*`: how the payer's number is written (MSISDNS).
    msisdn: dict[str, str] = field(default_factory=dict)
    # By kind of message: how its bytes are written (BODY_FORMS).
    body_forms: dict[str, str] = field(default_factory=dict)
    # Pull, status, reversal. Short codes that were registered for Pull before the fake began.
    pull_must_register: bool = True
    pull_registered: tuple[str, ...] = ()
    pull_fails: tuple[str, ...] = ()
    pull_empty: str = "nested"
    pull_empty_code: str = "1001"
    pull_reversals: str = "row"
    reversed_status: str = "Completed"
    reversal_notice: str = "none"
    same_conversation: bool = False
    pull_page: int = 100
    pull_lag_s: float = 0.0
    pull_zone: str = "eat"
    pull_window_h: float = 48.0
    result_after_s: float = 2.0
    initiator_code: str = "0"
    queue_timeouts: int = 0
    # APIs that this app's products do not have: 401.003.01 for as long as they stand here.
    no_product: tuple[str, ...] = ()
    # What a whole family answers instead: {"query": "html"}.
    faults: dict[str, str] = field(default_factory=dict)
    time_scale: float = 1.0
    clock_offset_s: float = 0.0

    def turn(self, **values: Any) -> None:
        """All or none. ValueError for an unknown name or a value that cannot be."""
        checked = {name: self._checked(name, value) for name, value in values.items()}
        for name, value in checked.items():
            setattr(self, name, value)

    def told(self) -> dict[str, Any]:
        return {camel(each.name): getattr(self, each.name) for each in fields(self)}

    def _checked(self, name: str, value: Any) -> Any:
        if name not in {each.name for each in fields(self)}:
            there = ", ".join(sorted(camel(each.name) for each in fields(self)))
            raise ValueError(f"unknown knob {camel(name)}; there are {there}")
        before = getattr(self, name)
        wrong = ValueError(f"{camel(name)} cannot be {value!r}")
        if name == "answer_s":
            if isinstance(value, int | float):
                value = (value, value)
            if not isinstance(value, list | tuple) or len(value) != 2 or isinstance(value[0], str):
                raise wrong
            if not 0 <= value[0] <= value[1]:
                raise wrong
            return tuple(float(each) for each in value)
        if isinstance(before, dict):
            if not isinstance(value, dict):
                raise wrong
            return _checked_map(name, value)
        if isinstance(before, tuple):
            if not isinstance(value, list | tuple):
                raise wrong
            if name == "no_product" and not set(value) <= set(APIS):
                raise ValueError(f"noProduct is of {APIS}")
            return tuple(str(each) for each in value)
        if isinstance(before, bool) != isinstance(value, bool):
            raise wrong
        number = isinstance(before, int | float)
        if (number and not isinstance(value, int | float)) or (
            not number and type(value) is not str
        ):
            raise wrong
        if number and name != "clock_offset_s" and value < 0:
            raise wrong
        if name == "time_scale" and value == 0:
            raise wrong
        if name in CHOICES and value not in CHOICES[name]:
            raise wrong
        return value


def _checked_map(name: str, value: dict[str, Any]) -> dict[str, Any]:
    """Check a knob whose value is a table. ValueError for a key or a value that cannot be."""
    if name == "hosts":
        return dict(checked_host(str(host), str(url)) for host, url in value.items())
    keys, values, what = {
        "faults": (FAMILIES, FAULTS, "faults are of {}, each one of {}"),
        "body_forms": (KINDS, BODY_FORMS, "bodyForms are of {}, each one of {}"),
        "msisdn": (None, MSISDNS, "msisdn is by short code or * ({}: any), one of {}"),
    }[name]
    if (keys is not None and not set(value) <= set(keys)) or not set(value.values()) <= set(values):
        raise ValueError(what.format(keys, values))
    return dict(value)


def checked_host(host: str, url: str) -> tuple[str, str]:
    """Where an https host really is. Loopback only: the fake speaks to nobody else."""
    if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
        raise ValueError(f"{url} is not on this machine")
    return host.lower(), url.rstrip("/")


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)


def camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)
