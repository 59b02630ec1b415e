"""A shop that takes M-Pesa: the gateway's settings and secrets for a fake Daraja on loopback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.settings import Settings
from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja
from tests.support.shop import make_settings


def mpesa_settings(
    directory: Path,
    unit_url: str,
    fake: FakeDaraja,
    mpesa: dict[str, Any] | None = None,
    **sections: Any,
) -> Settings:
    """A paybill in the sandbox whose base is the fake's; `mpesa` replaces single settings."""
    part = {
        "environment": "sandbox",
        "base_url": fake.url,
        "shortcode": "174379",
        "callback_url": "https://relay.test/shop-1",
        "answer_timeout_s": 5,
        **(mpesa or {}),
    }
    return make_settings(
        directory, unit_url, mpesa=part, mpesa_consumer_key=KEY, mpesa_consumer_secret=SECRET,
        mpesa_passkey=PASSKEY, **sections,
    )  # fmt: skip
