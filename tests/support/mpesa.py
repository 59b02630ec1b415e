"""A shop that takes M-Pesa: the gateway's settings and secrets for a fake Daraja on loopback, and the
customer at the phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.settings import Settings
from hw_fakes.daraja import KEY, PASSKEY, SECRET, FakeDaraja
from hw_fakes.daraja.world import Push
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
        **(mpesa or {}),
    }
    return make_settings(
        directory, unit_url, mpesa=part, mpesa_consumer_key=KEY, mpesa_consumer_secret=SECRET,
        mpesa_passkey=PASSKEY, **sections,
    )  # fmt: skip


async def prompted(fake: FakeDaraja, phone: str) -> None:
    """Back when a prompt that a person answers stands on this phone."""

    def rings(push: Push) -> bool:
        return push.phone == phone and push.answered is not None and not push.answered.done()

    await fake.wait_for(lambda: any(rings(push) for push in fake.pushes), 30)


async def answered(fake: FakeDaraja, phone: str, do: str = "pin") -> None:
    """The person at the prompt of this phone; back when M-Pesa has taken it."""
    await prompted(fake, phone)
    fake.answer(phone, do, fake.wallet(phone).pin)
