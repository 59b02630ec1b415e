"""Bodies as Daraja writes them: the three error shapes and none, callbacks, queries, C2B (fixtures of daraja.md 11)."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from aiohttp import web

DESCRIPTIONS = {
    "0": "The service request is processed successfully.",
    "1": "The balance is insufficient for the transaction.",
    "2": "Declined due to limit rule: less than the minimum transaction amount.",
    "3": "Declined due to limit rule: greater than the maximum transaction amount.",
    "4": "Declined due to limit rule: would exceed daily transfer limit.",
    "8": "Declined due to limit rule: would exceed the maximum balance.",
    "17": "Rule limited.",
    "21": "The initiator is not allowed to initiate this request.",
    "26": "System busy. The service request is rejected.",
    "1001": "Unable to lock subscriber, a transaction is already in process for the current subscriber.",
    "1019": "Transaction has expired",
    "1025": "An error occurred while sending a push request",
    "1031": "Request cancelled by user",
    "1032": "Request cancelled by user",
    "1036": "[STK_CB - ]SMSC ACK timeout.",
    "1037": "DS timeout user cannot be reached",
    "2001": "The initiator information is invalid.",
    "2006": "Account rule declined",
    "2028": "The request is not permitted according to product assignment.",
    "4999": "The transaction is still under processing",
    "8006": "The security credential is locked.",
    "9999": "Error sending push request",
    "E3008": "Error, the user has a bad debt contract.",
    "R000001": "The transaction has already been reversed.",
    "R000002": "The OriginalTransactionID is invalid.",
    "SFC_IC0003": "The operator does not exist.",
}
LOCKED = "Unable to lock subscriber, a transaction is already in process for the current subscriber"
SPIKE = {
    "fault": {
        "faultstring": "Spike arrest violation. Allowed rate : MessageRate{messagesPerPeriod=5, "
        "periodInMicroseconds=60000000, maxBurstMessageCount=1.0}",
        "detail": {"errorcode": "policies.ratelimit.SpikeArrestViolation"},
    }
}
SOAP = {
    "Envelope": {"Body": {"Fault": {"faultcode": "env:Server", "faultstring": "Internal Error"}}}
}
QUOTA = {
    "fault": {
        "faultstring": "Rate limit quota violation. Quota limit exceeded. Identifier : _default",
        "detail": {"errorcode": "policies.ratelimit.QuotaViolation"},
    }
}
# Apigee's own faults with each status that a proxy may give them.
LIMITS: dict[str, tuple[int, Any]] = {
    "spike500": (500, SPIKE), "quota429": (429, QUOTA), "quota500": (500, QUOTA),
}  # fmt: skip
NO_PRODUCT = "Error Occurred - Invalid Access Token - Invalid API call as no apiproduct match found"
# The same address registered twice, as version 1 has also said it (bnjunge/MPESA-API-Tutorial#2).
SOAP_409 = {
    "Envelope": {
        "encodingStyle": "http://schemas.xmlsoap.org/soap/encoding/",
        "Body": {
            "Fault": {
                "faultcode": "soap:Server",
                "faultstring": "Execution of ServiceCallout SCO-AddURLVault failed. "
                "Reason: ResponseCode 409 is treated as error",
                "faultactor": {},
                "detail": {"source": {"errorcode": "steps.servicecallout.ExecutionFailed"}},
            }
        },
    }
}
# Incapsula's page, which stands in front of Daraja.
WAF = (
    '<html style="height:100%"><head><META NAME="ROBOTS" CONTENT="NOINDEX, NOFOLLOW"></head><body>'
    '<iframe id="main-iframe" src="/_Incapsula_Resource?SWUDNSAI=31">Request unsuccessful. '
    "Incapsula incident ID: 1234000560000000-78901234567890</iframe></body></html>"
)
HTML = "<html><head><title>503 Service Temporarily Unavailable</title></head></html>"
MALFORMED = {
    "empty": {},
    "no_callback": {"Body": {}},
    "stray": {"stkCallback": {"ResultCode": 0}},
    "list": [],
    "text": "not an object",
}


def typed(code: str) -> int | str:
    """A ResultCode in a callback: a number when it is one."""
    return int(code) if code.isdigit() else code


def error(request_id: str, http: int, code: str, message: str) -> web.Response:
    body = {"requestId": request_id, "errorCode": code, "errorMessage": message}
    return web.json_response(body, status=http)


def html() -> web.Response:
    return web.Response(status=503, text=HTML, content_type="text/html")


def query_answer(merchant_id: str, checkout_id: str, code: str) -> dict[str, Any]:
    """Strings throughout, and no receipt, amount or phone."""
    told = "Request Cancelled by user." if code == "1032" else DESCRIPTIONS.get(code, "?")
    return {
        "ResponseCode": "0",
        "ResponseDescription": "The service request has been accepted successsfully",
        "MerchantRequestID": merchant_id,
        "CheckoutRequestID": checkout_id,
        "ResultCode": code,
        "ResultDesc": told,
    }


def stk_callback(
    *, merchant_id: str, checkout_id: str, code: str, amount: int, receipt: str | None,
    phone: str, at: datetime, variant: str = "plain",
) -> bytes:  # fmt: skip
    """The body. A failure has no CallbackMetadata. `variant`: plain, strings, masked, reordered,
    balance, types (all of these), no_metadata, missing_fields, invalid_json, or a key of MALFORMED."""
    if variant in MALFORMED:
        return json.dumps(MALFORMED[variant]).encode()
    strings = variant in ("strings", "types")
    told: dict[str, Any] = {
        "MerchantRequestID": merchant_id,
        "CheckoutRequestID": checkout_id,
        "ResultCode": code if strings else typed(code),
        "ResultDesc": DESCRIPTIONS.get(code, "?"),
    }
    if variant == "missing_fields":
        told = {"CheckoutRequestID": checkout_id}
    elif code == "0" and variant != "no_metadata":
        stamp = f"{at:%Y%m%d%H%M%S}"
        masked = f"0{phone[3:9]}***"
        items: list[dict[str, Any]] = [
            {"Name": "Amount", "Value": str(amount) if strings else float(amount)},
            {"Name": "MpesaReceiptNumber", "Value": receipt},
            {"Name": "TransactionDate", "Value": stamp if strings else int(stamp)},
            {"Name": "PhoneNumber", "Value": phone if strings else int(phone)},
        ]
        if variant in ("masked", "types"):
            items[3]["Value"] = masked
        if variant in ("balance", "types"):
            items.insert(2, {"Name": "Balance"})
        if variant == "reordered":
            items = [items[1], items[2], items[0]]
        if variant == "types":
            items = items[1:] + items[:1]
        told["CallbackMetadata"] = {"Item": items}
    body = json.dumps({"Body": {"stkCallback": told}})
    return (body[: len(body) // 2] if variant == "invalid_json" else body).encode()


def c2b_notice(
    *, receipt: str, at: datetime, amount: int, shortcode: str, till: bool, reference: str,
    balance: str, phone: str, names: tuple[str, str, str], msisdn: str = "masked",
) -> dict[str, str | None]:  # fmt: skip
    """Return a validation (`balance` empty) or a confirmation: text throughout, the number in one of knobs.MSISDNS."""
    notice: dict[str, str | None] = {
        "TransactionType": "Buy Goods" if till else "Pay Bill",
        "TransID": receipt,
        "TransTime": f"{at:%Y%m%d%H%M%S}",
        "TransAmount": f"{amount}.00",
        "BusinessShortCode": shortcode,
        "BillRefNumber": "" if till else reference,
        "InvoiceNumber": "",
        "OrgAccountBalance": balance,
        "ThirdPartyTransID": "",
        "MSISDN": payer(phone, msisdn),
        "FirstName": names[0],
        "MiddleName": names[1],
        "LastName": names[2],
    }
    if msisdn == "absent":
        del notice["MSISDN"]
    return notice


def payer(phone: str, form: str) -> str | None:
    """Return the payer's number in a C2B message: v2 masks it, v1 hashes it, some organisations get it in full."""
    digest = hashlib.sha256(phone.encode()).hexdigest()
    return {
        "masked": f"{phone[:4]} ***** {phone[-3:]}",
        "hashed": digest,
        "hashed_upper": digest.upper(),
        "full": phone,
        "empty": "",
    }.get(form)
