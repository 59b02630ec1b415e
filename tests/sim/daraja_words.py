"""What the simulated Daraja knows of money and prompts, and Daraja's own JSON for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import timedelta, timezone
from random import Random
from typing import Any

from gateway.mpesa.c2b_token import c2b_token

EAT = timezone(timedelta(hours=3))
SHORTCODE = "600984"
# As in the C2B addresses that were registered.
C2B_TOKEN = c2b_token("p", SHORTCODE)
Answer = tuple[int, bytes]


@dataclass(slots=True)
class Moved:
    """Money that came to the shop."""

    receipt: str
    shillings: int
    phone: str
    reference: str
    at_s: float
    token: str | None  # of the push that asked for it; None: paid without being asked
    reversed: bool = False


@dataclass(slots=True)
class Prompt:
    token: str
    sale: tuple[str, str]
    phone: str
    shillings: int
    reference: str
    request: str
    merchant: str
    opened_s: float
    # The truth: open until then, and what the customer did. None: nobody has decided yet.
    ends_s: float
    code: str | None = None
    moved: Moved | None = None
    lies: str | None = None


# How C2B shows the payer: masked, or by its SHA-256 in either case, or not at all.
PAYERS = ("masked", "masked", "hashed", "HASHED", "null", "null", "salted", "salted")
# What Pull answers for a read that failed, or a short code that was never registered.
NO_LIST = (
    b'{"ResponseRefID":"r1","ResponseCode":"1001","ResponseMessage":"No records found or Organization Name '
    b'not available","Response":[[]]}'
)


def payer_of(phone: str, how: str) -> str | None:
    """The MSISDN of a confirmation."""
    digest = hashlib.sha256((f"salt{phone}" if how == "salted" else phone).encode()).hexdigest()
    shown = {"null": None, "hashed": digest, "HASHED": digest.upper(), "salted": digest}
    return shown.get(how, f"{phone[:4]} ***** {phone[-3:]}")


def callback(prompt: Prompt, code: str, chance: Random) -> dict[str, Any]:
    """The end of a push; its items come in any order (daraja.md 5)."""
    told: dict[str, Any] = {
        "MerchantRequestID": prompt.merchant,
        "CheckoutRequestID": prompt.request,
        "ResultCode": int(code),
        "ResultDesc": "as the code says",
    }
    if code == "0":
        assert prompt.moved is not None
        items = [
            {"Name": "Amount", "Value": float(prompt.moved.shillings)},
            {"Name": "MpesaReceiptNumber", "Value": prompt.moved.receipt},
            {"Name": "Balance"},
            {"Name": "TransactionDate", "Value": 20261123101530},
            {"Name": "PhoneNumber", "Value": int(prompt.phone)},
        ]
        chance.shuffle(items)
        told["CallbackMetadata"] = {"Item": items}
    return {"Body": {"stkCallback": told}}


def forged(prompt: Prompt, number: int, chance: Random) -> dict[str, Any]:
    """What somebody would send who knows callbacks and not the address."""
    items = [
        {"Name": "Amount", "Value": float(prompt.shillings)},
        {"Name": "MpesaReceiptNumber", "Value": f"FORGED{number:04d}"},
    ]
    told = {
        "MerchantRequestID": "1-1-1", "CheckoutRequestID": chance.choice((prompt.request, "ws_CO_1")),
        "ResultCode": 0, "ResultDesc": "paid", "CallbackMetadata": {"Item": items},
    }  # fmt: skip
    return {"Body": {"stkCallback": told}}


def told(prompt: Prompt, code: str) -> Answer:
    """The answer to a query; the code is text here (daraja.md 4.3)."""
    said = {
        "ResponseCode": "0", "ResponseDescription": "The service request has been accepted successsfully",
        "MerchantRequestID": prompt.merchant, "CheckoutRequestID": prompt.request,
        "ResultCode": code, "ResultDesc": "still under processing" if code == "4999" else "?",
    }  # fmt: skip
    return 200, json.dumps(said).encode()


def error(status: int, code: str, message: str) -> Answer:
    said = {"requestId": "21604-273291-1", "errorCode": code, "errorMessage": message}
    return status, json.dumps(said).encode()


SPIKE = json.dumps(
    {"fault": {"faultstring": "Spike arrest violation. Allowed rate : MessageRate{messagesPerPeriod=5}",
               "detail": {"errorcode": "policies.ratelimit.SpikeArrestViolation"}}}
).encode()  # fmt: skip
