"""Daraja that fails on purpose: STK push and query, C2B, Pull, Status, Reversal, QR, wallets and a phone."""

from hw_fakes.daraja.bank import PASSKEY
from hw_fakes.daraja.oauth import KEY, SECRET
from hw_fakes.daraja.plans import SCENARIOS, Callback, phone_for
from hw_fakes.daraja.server import FakeDaraja

__all__ = ["KEY", "PASSKEY", "SCENARIOS", "SECRET", "Callback", "FakeDaraja", "phone_for"]
