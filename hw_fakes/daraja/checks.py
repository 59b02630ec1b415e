"""What Daraja checks in a request before it takes it: fields, password, addresses (daraja.md 2)."""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from hw_fakes.daraja.world import World

PHONE = re.compile(r"254[17]\d{8}")
SHORTCODE = re.compile(r"\d{5,7}")
HOST = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}", re.I)
AMOUNT_MAX = 250_000
# The portal says 12; 15 were taken on 2026-08-17.
REFERENCE_MAX = 15
TYPES = ("CustomerPayBillOnline", "CustomerBuyGoodsOnline")
# Portal: not in registered C2B addresses.
BANNED = re.compile(r"m-?pesa|safaricom|exe|cmd|sql|query", re.I)


def text(body: dict[str, Any], name: str) -> str:
    """A field as text; a number is taken as well, as Daraja does."""
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)


def amount(value: str) -> int | None:
    """Whole shillings, 1 to 250 000."""
    if not re.fullmatch(r"[0-9]{1,7}", value):
        return None
    return int(value) if 1 <= int(value) <= AMOUNT_MAX else None


def https(url: str) -> bool:
    """Public https with valid syntax; nothing is looked up."""
    if not url.isascii() or re.search(r"\s", url):
        return False
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises for a port that is none
    except ValueError:
        return False
    return parts.scheme == "https" and bool(HOST.fullmatch(parts.hostname or ""))


def timestamp(value: str) -> bool:
    if not re.fullmatch(r"\d{14}", value):
        return False
    try:
        datetime.strptime(value, "%Y%m%d%H%M%S")  # noqa: DTZ007  the field has no zone
    except ValueError:
        return False
    return True


async def read_body(request: web.Request) -> dict[str, Any] | None:
    """The JSON object that came, or None."""
    try:
        value = json.loads(await request.read())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def head_problem(world: World, body: dict[str, Any]) -> web.Response | None:
    """Short code and timestamp: the head of a push and of a query."""
    if not SHORTCODE.fullmatch(text(body, "BusinessShortCode")):
        return world.invalid("BusinessShortCode")
    return None if timestamp(text(body, "Timestamp")) else world.invalid("Timestamp")


def merchant_problem(world: World, body: dict[str, Any]) -> web.Response | None:
    """Who asks, and the password; looked at when the fields are right."""
    shortcode, stamp = text(body, "BusinessShortCode"), text(body, "Timestamp")
    merchant = world.bank.owner(shortcode)
    if merchant is None:
        return world.error(500, "500.001.1001", "Merchant does not exist")
    right = base64.b64encode(f"{shortcode}{merchant.passkey}{stamp}".encode()).decode()
    if text(body, "Password") != right:
        return world.error(500, "500.001.1001", "[MerchantValidate] - Wrong credentials")
    return None


def push_problem(world: World, body: dict[str, Any]) -> web.Response | None:
    """The rest of a push."""
    if text(body, "TransactionType") not in TYPES:
        return world.invalid("TransactionType")
    if amount(text(body, "Amount")) is None:
        return world.invalid("Amount")
    if not PHONE.fullmatch(text(body, "PhoneNumber")):
        return world.invalid("PhoneNumber")
    if not PHONE.fullmatch(text(body, "PartyA")):
        return world.invalid("PartyA")
    if not SHORTCODE.fullmatch(text(body, "PartyB")):
        return world.invalid("PartyB")
    if not https(text(body, "CallBackURL")):
        return world.invalid("CallBackURL")
    if not 1 <= len(text(body, "AccountReference")) <= REFERENCE_MAX:
        return world.invalid("AccountReference")
    if not text(body, "TransactionDesc"):
        return world.invalid("Remarks")
    return None
