"""Phone numbers and what contains them, made fit for logs and pages."""

from __future__ import annotations

import re

_PHONE = re.compile(r"254([17])(\d{5})(\d{3})")
_TAIL_DIGITS = 9


def mask_phone(phone: str | None) -> str:
    """254712345678 -> 2547*****678. What is no such number is masked whole, but for its last three."""
    if phone is None:
        return "-"
    match = _PHONE.fullmatch(phone)
    if match:
        return f"254{match[1]}*****{match[3]}"
    return f"***{phone[-3:]}" if len(phone) > 6 else "***"


def mask_request_id(request_id: str | None) -> str:
    """A CheckoutRequestID ends in nine digits of the payer's number (daraja.md 2.2)."""
    if request_id is None:
        return "-"
    if len(request_id) <= _TAIL_DIGITS:
        return "*" * len(request_id)
    return request_id[:-_TAIL_DIGITS] + "******" + request_id[-3:]
