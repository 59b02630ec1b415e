"""Amounts as Decimal shillings with two places, and the one rounding rule of a fiscal receipt.

Integer cents are the store's form. Nothing here or above it ever holds a float.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

CENT = Decimal("0.01")
ZERO = Decimal("0.00")
MILLI = Decimal("0.001")
# 18,2 on the wire (VSCU spec 3.3.6): sixteen digits before the point.
AMOUNT_MAX = Decimal("9999999999999999.99")


def round_amount(value: Decimal) -> Decimal:
    """Half up to the cent, away from zero at the half, as KRA's samples do."""
    return value.quantize(CENT, ROUND_HALF_UP)


def parse_amount(text: str) -> Decimal:
    """'116.00' -> Decimal. At most two decimals, never negative. ValueError otherwise."""
    return _parse(text, places=2, maximum=AMOUNT_MAX)


def parse_quantity(text: str) -> Decimal:
    """'1.5' -> Decimal('1.50'), '0.625' -> Decimal('0.625'): three decimals at most, as scales weigh; more than zero.
    The wire has two (13,2, VSCU spec 3.3.6); `vscu/sale.py` makes them."""
    value = _parse(text, places=3, maximum=Decimal("99999999999.99"))
    if value == 0:
        raise ValueError("must be more than 0")
    return value


def _parse(text: str, *, places: int, maximum: Decimal) -> Decimal:
    if not text or not set(text) <= set("0123456789.") or len(text) > 24:
        raise ValueError("must be a plain decimal number such as 116.00")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError("must be a plain decimal number such as 116.00") from None
    # The value counts, not its digits: "1.230" has two decimals.
    if value != value.quantize(Decimal(1).scaleb(-places)):
        raise ValueError(f"has more than {places} decimals")
    if value > maximum:
        raise ValueError("is too large")
    return value.quantize(CENT if value == value.quantize(CENT) else MILLI)


def cents(value: Decimal) -> int:
    """Exact integer cents of an amount with two places; ValueError if anything would be lost."""
    scaled = value * 100
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{value} is not whole cents")
    return int(scaled)


def from_cents(value: int) -> Decimal:
    return (Decimal(value) / 100).quantize(CENT)


def text(value: Decimal) -> str:
    """'116.00', the API's form of an amount."""
    return f"{value.quantize(CENT):f}"
