"""Wallets, merchants and the book of what moved between them: the truth that a gateway is held against."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

# Safaricom's published sandbox constants; not secrets.
PASSKEY = "bfb279f9aa9bdbcf158e97dd71a467cd2e0c893059b10f78e6b72ada1ed2c919"
# What a wallet may hold at most, and so what a new one holds here.
WALLET_SHILLINGS = 500_000
NAMES = ("JANE", "JOHN", "AISHA", "PETER", "GRACE", "OTIENO", "WANJIKU", "MUSA", "FAITH", "KAMAU")
PIN_TRIES = 3


@dataclass
class Wallet:
    phone: str
    name: str
    balance: int = WALLET_SHILLINGS
    pin: str = "1234"
    wrong_pins: int = 0

    @property
    def names(self) -> tuple[str, str, str]:
        return (self.name, "", "")

    def try_pin(self, pin: str) -> str:
        """The result code: 0, 2001 wrong, 8006 locked after three."""
        if self.wrong_pins >= PIN_TRIES:
            return "8006"
        if pin != self.pin:
            self.wrong_pins += 1
            return "2001" if self.wrong_pins < PIN_TRIES else "8006"
        self.wrong_pins = 0
        return "0"


@dataclass
class Merchant:
    """`shortcode` is the paybill or, with `tills`, the store number that the passkey belongs to."""

    shortcode: str
    name: str
    tills: tuple[str, ...] = ()
    passkey: str = PASSKEY
    balance: int = 0
    registered: dict[str, str] | None = None
    pull_registered: bool = False
    # The version by which its C2B addresses were registered.
    c2b_version: str = ""
    # Rows of Pull as a test wrote them, each with its time.
    pull_rows: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def numbers(self) -> tuple[str, ...]:
        return (self.shortcode, *self.tills)


@dataclass
class Payment:
    """One movement of whole shillings. `kind`: STK, C2B, REVERSAL (back to the phone), B2C, SETTLEMENT (to the
    shop's bank)."""

    receipt: str
    kind: str
    phone: str
    shortcode: str
    number: str
    amount: int
    at: datetime
    reference: str = ""
    checkout_id: str | None = None
    reversed_by: str | None = None
    of: str | None = None
    names: tuple[str, str, str] = ("", "", "")

    def told(self) -> dict[str, Any]:
        return {**asdict(self), "at": self.at.isoformat(), "names": list(self.names)}


@dataclass
class Bank:
    wallets: dict[str, Wallet] = field(default_factory=dict)
    merchants: list[Merchant] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)

    def wallet(self, phone: str) -> Wallet:
        """Every Kenyan number has one."""
        if phone not in self.wallets:
            self.wallets[phone] = Wallet(phone, NAMES[int(phone[-3:]) % len(NAMES)])
        return self.wallets[phone]

    def merchant(self, number: str) -> Merchant | None:
        """By its short code or one of its tills."""
        return next((m for m in self.merchants if number in m.numbers()), None)

    def owner(self, shortcode: str) -> Merchant | None:
        """By the number that a password is made of."""
        return next((m for m in self.merchants if m.shortcode == shortcode), None)

    def payment(self, receipt: str) -> Payment | None:
        return next((p for p in self.payments if p.receipt == receipt), None)

    def book(self, payment: Payment) -> None:
        """Moves the shillings. The caller has looked that they are there."""
        merchant = self.merchant(payment.shortcode)
        assert merchant is not None
        if payment.kind == "SETTLEMENT":
            merchant.balance -= payment.amount
            self.payments.append(payment)
            return
        wallet = self.wallet(payment.phone)
        back = payment.kind in ("REVERSAL", "B2C")
        wallet.balance += payment.amount if back else -payment.amount
        merchant.balance += -payment.amount if back else payment.amount
        payment.names = wallet.names
        self.payments.append(payment)


def usual() -> Bank:
    """The sandbox's paybill, and a shop with a till number apart from its store number."""
    return Bank(
        merchants=[
            Merchant("174379", "Daraja Sandbox"),
            Merchant("600984", "Mama Mboga Stores", tills=("5566778",)),
        ]
    )
