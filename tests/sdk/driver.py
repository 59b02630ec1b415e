"""Run one public Daraja SDK on orders from standard input: a JSON object a line, an answer a line.

`.sdks/bin/python tests/sdk/driver.py daraja-v3|mpesakit`. It runs in the SDKs' own environment and imports nothing of
this project. An answer is {"ok": ...} or {"error": {"kind", "code", "message"}}.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

PAYBILL = "CustomerPayBillOnline"


class DarajaV3:
    """daraja-v3: `base_url` is a parameter; the hosts that are built in can be replaced instead."""

    def open(self, url: str, key: str, secret: str, passkey: str, built_in: bool = False) -> None:
        from mpesa import MpesaClient
        from mpesa.auth import Auth

        if built_in:
            MpesaClient._SANDBOX_BASE = url
            Auth.SANDBOX_URL = f"{url}/oauth/v1/generate?grant_type=client_credentials"
        self.client = MpesaClient(
            key, secret, "174379", passkey, timeout=20, base_url=None if built_in else url
        )

    def push(self, phone: str, amount: Any, callback: str) -> dict[str, Any]:
        made = self.client.stk_push(phone, amount, "T07-000123", "POS sale", callback)
        return {"merchant": made.merchant_request_id, "checkout": made.checkout_request_id}

    def query(self, checkout: str) -> dict[str, Any]:
        found = self.client.stk_query(checkout)
        return {
            "code": found.result_code,
            "paid": found.is_paid,
            "checkout": found.checkout_request_id,
        }

    def callback(self, body: Any) -> dict[str, Any]:
        told = self.client.parse_stk_callback(body)
        return {
            "code": told["result_code"],
            "paid": told["paid"],
            "receipt": told["mpesa_receipt"],
            "amount": None if told["amount"] is None else float(told["amount"]),
            "phone": told["phone"],
            "checkout": told["checkout_request_id"],
        }

    def register(self, confirmation: str, validation: str) -> dict[str, Any]:
        return self.client.c2b_register_urls(validation, confirmation)

    def simulate(self, phone: str, amount: int, reference: str) -> dict[str, Any]:
        return self.client._post("/mpesa/c2b/v1/simulate", simulation(phone, amount, reference))

    def balance(self, result: str) -> dict[str, Any]:
        return self.client.account_balance(result, result, "testapi", "c2VjcmV0")

    def b2c(self, phone: str, amount: int, result: str) -> dict[str, Any]:
        made = self.client.b2c(phone, amount, "Refund", "", result, result, "testapi", "c2VjcmV0")
        return {"conversation": made.conversation_id}


class Mpesakit:
    """mpesakit: its hosts are built in, so the host of its HTTP client is replaced."""

    def open(self, url: str, key: str, secret: str, passkey: str, built_in: bool = False) -> None:
        from mpesakit import MpesaClient

        self.client = MpesaClient(consumer_key=key, consumer_secret=secret, environment="sandbox")
        self.client.http_client.base_url = url
        self.passkey = passkey

    def push(self, phone: str, amount: Any, callback: str) -> dict[str, Any]:
        made = self.client.express.push(
            business_short_code=174379, transaction_type=PAYBILL, amount=amount, party_a=phone,
            party_b="174379", phone_number=phone, callback_url=callback,
            account_reference="T07-000123", transaction_desc="POS sale", passkey=self.passkey,
        )  # fmt: skip
        return {
            "merchant": made.MerchantRequestID,
            "checkout": made.CheckoutRequestID,
            "accepted": made.is_successful(),
        }

    def query(self, checkout: str) -> dict[str, Any]:
        found = self.client.express.query(174379, checkout, passkey=self.passkey)
        code = str(found.ResultCode)
        return {"code": code, "paid": code == "0", "checkout": found.CheckoutRequestID}

    def callback(self, body: Any) -> dict[str, Any]:
        told = self.client.process_stk_callback(body)
        inner = told.Body.stkCallback
        return {
            "code": str(inner.ResultCode),
            "paid": told.is_successful,
            "receipt": told.mpesa_receipt_number,
            "amount": told.amount,
            "phone": told.phone_number or "",
            "checkout": inner.CheckoutRequestID,
        }

    def register(self, confirmation: str, validation: str) -> dict[str, Any]:
        made = self.client.c2b.register_url(174379, "Completed", confirmation, validation)
        return {**made.model_dump(), "taken": made.is_successful()}

    def simulate(self, phone: str, amount: int, reference: str) -> dict[str, Any]:
        head = {"Authorization": f"Bearer {self.client.token_manager.get_token()}"}
        return self.client.http_client.post(
            "/mpesa/c2b/v1/simulate", json=simulation(phone, amount, reference), headers=head
        )

    def confirmation(self, body: Any) -> dict[str, Any]:
        from mpesakit.c2b import C2BValidationRequest

        told = C2BValidationRequest.model_validate(body)
        return {
            "receipt": told.TransID,
            "amount": told.TransAmount,
            "payer": told.MSISDN,
            "reference": told.BillRefNumber,
            "number": str(told.BusinessShortCode),
        }

    def balance(self, result: str) -> dict[str, Any]:
        made = self.client.balance.query(
            initiator="testapi", security_credential="c2VjcmV0", command_id="AccountBalance",
            party_a=174379, identifier_type=4, remarks="Balance", result_url=result,
            queue_timeout_url=result,
        )  # fmt: skip
        return made.model_dump()


def simulation(phone: str, amount: int, reference: str) -> dict[str, Any]:
    return {
        "ShortCode": "174379", "CommandID": PAYBILL, "Amount": str(amount), "Msisdn": phone,
        "BillRefNumber": reference,
    }  # fmt: skip


def described(error: Exception) -> dict[str, Any]:
    """The SDK's own fields of its error. mpesakit keeps Daraja's body beside a code of its own."""
    inner = getattr(error, "error", None)
    raw = getattr(inner, "raw_response", None)
    code = getattr(inner, "error_code", None) or getattr(error, "code", None)
    if isinstance(raw, dict) and raw.get("errorCode"):
        code = raw["errorCode"]
    return {
        "kind": type(error).__name__,
        "code": None if code is None else str(code),
        "message": getattr(inner, "error_message", None) or str(error),
        "status": getattr(inner, "status_code", None),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    sdk: Any = {"daraja-v3": DarajaV3, "mpesakit": Mpesakit}[sys.argv[1]]()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = {"ok": getattr(sdk, order.pop("do"))(**order)}
        except Exception as error:  # whatever a stranger's code raises is the answer
            answer = {"error": described(error)}
        print(json.dumps(answer), flush=True)


main()
