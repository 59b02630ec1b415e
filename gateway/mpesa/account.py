"""What identifies the shop to M-Pesa, taken from the settings. Secrets show in no representation."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import SecretStr

from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Account:
    """One paybill, or one till with its store number (`shortcode`), in one environment."""

    environment: str
    base_url: str
    shortcode: str
    till_number: str | None
    consumer_key: str = field(repr=False)
    consumer_secret: str = field(repr=False)
    passkey: str = field(repr=False)
    initiator: str | None = None
    security_credential: str | None = field(default=None, repr=False)
    merchant_name: str = ""

    @property
    def transaction_type(self) -> str:
        """daraja.md 2: a mismatch comes back as 2028 or SFC_IC0003, after the customer was asked."""
        return "CustomerBuyGoodsOnline" if self.till_number else "CustomerPayBillOnline"

    @property
    def party_b(self) -> str:
        return self.till_number or self.shortcode


def account_of(settings: Settings) -> Account:
    """For settings in which M-Pesa is on and which were checked: nothing is missing then."""
    part = settings.mpesa
    return Account(
        environment=part.environment,
        base_url=part.base.rstrip("/"),
        shortcode=part.shortcode or "",
        till_number=part.till_number,
        consumer_key=_open(settings.mpesa_consumer_key) or "",
        consumer_secret=_open(settings.mpesa_consumer_secret) or "",
        passkey=_open(settings.mpesa_passkey) or "",
        initiator=part.initiator,
        security_credential=_open(settings.mpesa_security_credential),
        merchant_name=settings.branch.trade_name,
    )


def _open(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
