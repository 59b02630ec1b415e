"""The section of the settings that is about M-Pesa. Without it, or with environment "disabled", no payment
is ever asked for (daraja.md 8, rule 9: fail closed)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr

from gateway.connection_guard import LOOPBACK, Network
from gateway.counter_settings import Seconds, Section

BASES = {
    "sandbox": "https://sandbox.safaricom.co.ke",
    "production": "https://api.safaricom.co.ke",
}
Shortcode = Annotated[str, Field(pattern=r"^[0-9]{5,7}$")]
# Words that Safaricom refuses in registered addresses (daraja.md 5).
FORBIDDEN_WORDS = ("mpesa", "m-pesa", "safaricom", "exe", "exec", "cmd", "sql", "query")


class MpesaSettings(Section):
    """One paybill or till of the shop, and how its messages reach this box."""

    environment: Literal["disabled", "sandbox", "production"] = "disabled"
    # For a fake or a proxy; only with environment = "sandbox".
    base_url: str | None = None
    # The paybill, or for a till the store number that came with the passkey.
    shortcode: Shortcode | None = None
    # Buy Goods: the till number, which is not the store number. Without it: a paybill.
    till_number: Shortcode | None = None
    # Where M-Pesa sends its messages: the relay, or this box where it has a public name. https.
    callback_url: str | None = None
    # The relay that keeps the messages until this box takes them. None: no relay.
    relay_url: str | None = None
    relay_gateway: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    # A port of its own for M-Pesa's messages, where a public name leads to this box.
    direct_host: str = "0.0.0.0"  # noqa: S104  a reverse proxy may be another machine
    direct_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    # TLS proxies in front of it: each stands for many senders, so its connections are limited in all only.
    direct_proxies: tuple[Network, ...] = LOOPBACK
    # Whole shillings (daraja.md 2: 250,000 by 2026; it was less before).
    amount_max: Annotated[int, Field(ge=1, le=1_000_000)] = 250_000
    # One question to M-Pesa in so many seconds, for all sales (sandbox: 5 a minute, daraja.md 4.3).
    query_every_s: Seconds = 12
    # Nobody has said anything by then: "Status unknown".
    deadline_s: Annotated[float, Field(ge=60, le=600)] = 120
    # A prompt may live this long on a phone: until then no second one (daraja.md 4.4).
    prompt_life_s: Annotated[float, Field(ge=60, le=900)] = 180
    # Between two requests to one phone (portal: at least 60 s).
    same_phone_s: Annotated[float, Field(ge=0, le=900)] = 60
    answer_timeout_s: Seconds = 30
    # A sale is paid before it is signed; while selling is suspended nobody is asked for money.
    push_while_suspended: bool = False
    # Money that came is signed for by itself for so long; after that a person is asked.
    sign_within_minutes: Annotated[float, Field(ge=1, le=1440)] = 15
    # Money that customers send without being asked (C2B), and M-Pesa's own list of the last 48 hours.
    c2b: bool = False
    # Which version of C2B the app's product has; auto: v2, then v1 where M-Pesa has no v2 for this app.
    c2b_version: Literal["auto", "v1", "v2"] = "auto"
    pull: bool = False
    # An absence counts when the list was read so long after the payment would have been made.
    pull_margin_minutes: Annotated[float, Field(ge=1, le=1440)] = 30
    # For refunds (reversal) and status questions; the credential is a secret.
    initiator: Annotated[str, Field(min_length=1, max_length=60)] | None = None
    # Where each till is told of changes; signed with the till's own token.
    webhooks: dict[str, str] = Field(default_factory=dict)

    @property
    def on(self) -> bool:
        return self.environment != "disabled"

    @property
    def base(self) -> str:
        return self.base_url or BASES.get(self.environment, "")


def check_mpesa(
    part: MpesaSettings,
    secrets: dict[str, SecretStr | None],
    tills: set[str],
    add: Callable[[str, str], None],
) -> None:
    """What is missing or contradicts itself; nothing while it is off."""
    if not part.on:
        return
    if part.base_url is not None and part.environment != "sandbox":
        add("mpesa.base_url", "is for tests only; with real money it must not be set")
    for name in ("mpesa_consumer_key", "mpesa_consumer_secret", "mpesa_passkey"):
        if secrets.get(name) is None:
            add(name, "is missing; it comes from a systemd credential or the environment")
    if part.shortcode is None:
        add("mpesa.shortcode", "is missing: the paybill, or the store number of the till")
    if part.callback_url is None:
        add("mpesa.callback_url", "is missing: M-Pesa takes no request without one (https)")
    else:
        _check_callback(part.callback_url, add)
    if (part.relay_url is None) != (part.relay_gateway is None):
        add("mpesa.relay_gateway", "goes with relay_url: both or none")
    if part.relay_url is not None and secrets.get("mpesa_relay_secret") is None:
        add("mpesa_relay_secret", "is missing; the relay gives messages to nobody without it")
    if part.initiator is not None and secrets.get("mpesa_security_credential") is None:
        add("mpesa_security_credential", "is missing; it goes with mpesa.initiator")
    for till, url in part.webhooks.items():
        if till not in tills:
            add(f"mpesa.webhooks.{till}", "is not in [[tills]]")
        if urlsplit(url).scheme not in ("http", "https"):
            add(f"mpesa.webhooks.{till}", "must be an http or https address")


def _check_callback(url: str, add: Callable[[str, str], None]) -> None:
    where = urlsplit(url)
    if where.scheme != "https" or not where.hostname:
        add("mpesa.callback_url", "must be an https address with a name; M-Pesa takes no other")
    bad = [word for word in FORBIDDEN_WORDS if word in url.lower()]
    if bad:
        add("mpesa.callback_url", f"has {bad[0]!r} in it, which Safaricom refuses")
