"""Daraja's API as the rest of the gateway sees it (`Daraja` in domain/payment_wire.py).

Makes Safaricom's requests out of orders and closed replies out of its answers (daraja.md 2, 4 and 6).
A push goes out once: it is sent again only when the access token was refused, which is surely not sent.
"""

from __future__ import annotations

import base64
import binascii
import logging
import re
from dataclasses import replace
from datetime import datetime
from typing import Any

from gateway.clock import EAT, Clock, compact
from gateway.domain.payment import Reason
from gateway.domain.payment_wire import (
    Accepted,
    Ack,
    AckReply,
    Lost,
    PullReply,
    PushOrder,
    PushReply,
    QueryReply,
    QueryVerdict,
    Refused,
)
from gateway.mpesa import codes, fields, messages
from gateway.mpesa.account import Account
from gateway.mpesa.masking import mask_phone, mask_request_id
from gateway.mpesa.wire import UNREACHABLE, DarajaWire

log = logging.getLogger(__name__)

# daraja.md 2: what is longer, or holds other characters, is refused or fails silently.
REFERENCE_MAX = 12
DESCRIPTION_MAX = 13
REMARK_MAX = 100
_QR_MAX_BYTES = 512 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_OUTSIDE = re.compile(r"[^A-Za-z0-9 -]+")
_PHONE = re.compile(r"254[17][0-9]{8}")
# Registering C2B by v2, by v1, or by v2 and then by v1 where the app's product is v1's (daraja.md 12).
C2B_VERSIONS: dict[str, tuple[str, ...]] = {"auto": ("v2", "v1"), "v2": ("v2",), "v1": ("v1",)}
# What says that the app has the other version: no such product for its token, no such path, no such method.
_OTHER_PRODUCT = re.compile(r"401\.|404(\.|$)|405(\.|$)|oauth\.v2\.|keymanagement\.service\.")


def clean(text: str, limit: int, otherwise: str) -> str:
    """Letters, digits, space and hyphen, at most `limit` of them; `otherwise` when nothing is left."""
    return _OUTSIDE.sub("-", text).strip(" -")[:limit].strip() or otherwise


class DarajaClient:
    """One account. Use as an async context manager. No call raises for the wire's faults; every reply
    has the raw bytes of the answer."""

    def __init__(self, account: Account, clock: Clock, timeout_s: float = 30.0) -> None:
        self._account = account
        self._clock = clock
        self._wire = DarajaWire(account, clock, timeout_s)
        # How Pull's times are to be read, as far as its answers have shown.
        self._pull_utc = False

    async def __aenter__(self) -> DarajaClient:
        await self._wire.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._wire.__aexit__(*error)

    @property
    def skew_s(self) -> float | None:
        """Seconds that M-Pesa's clock is before ours; None until it was heard."""
        return self._wire.skew_s

    @property
    def problem(self) -> str | None:
        """Why M-Pesa does not answer just now, for the status page."""
        return self._wire.problem

    async def ready(self) -> Refused | Lost | None:
        """None: a token is at hand. Refused (CONFIG: the keys; NOT_SENT: no connection): none, so that
        nothing can have been sent."""
        token = await self._wire.tokens.get()
        return token if isinstance(token, Refused) else None

    async def push(self, order: PushOrder) -> PushReply:
        """Asks the customer's phone for the PIN. Accepted means queued, nothing more (daraja.md 2.1)."""
        shillings, cents = divmod(order.amount_cents, 100)
        if cents or shillings < 1:
            return Refused(Reason.INPUT, "AMOUNT", "M-Pesa takes whole shillings, from 1", b"")
        if not _PHONE.fullmatch(order.phone):
            return Refused(Reason.INPUT, "PHONE", "this is no number that M-Pesa serves", b"")
        account = self._account
        body = self._signed() | {
            "TransactionType": account.transaction_type,
            "Amount": str(shillings),
            "PartyA": order.phone,
            "PartyB": account.party_b,
            "PhoneNumber": order.phone,
            "CallBackURL": order.callback_url,
            "AccountReference": clean(order.account_ref, REFERENCE_MAX, "SALE"),
            "TransactionDesc": clean(order.description, DESCRIPTION_MAX, "POS sale"),
        }
        answer = await self._wire.post("/mpesa/stkpush/v1/processrequest", body)
        if isinstance(answer, Refused | Lost):
            reply: PushReply = answer
        else:
            reply = codes.push_reply(answer.status, answer.raw, answer.retry_after)
        _log_push(order.phone, reply)
        return reply

    async def query(self, checkout_request_id: str) -> QueryReply:
        """What became of a push. Never a receipt number, amount or payer (daraja.md 0.3)."""
        body = self._signed() | {"CheckoutRequestID": checkout_request_id}
        answer = await self._wire.post("/mpesa/stkpushquery/v1/query", body)
        if isinstance(answer, Lost):
            return QueryReply(QueryVerdict.NO_INFO, None, None, answer.message, answer.raw)
        if isinstance(answer, Refused):
            wait = answer.retry_after_s
            # A code is M-Pesa's word; without one it is asked again when the link is back.
            code = None if answer.code == UNREACHABLE else answer.code
            return QueryReply(QueryVerdict.NO_INFO, code, None, answer.message, b"", wait)
        reply = codes.query_verdict(
            answer.status, answer.raw, checkout_request_id, answer.retry_after
        )
        log.info(
            "query of %s: %s (%s)", mask_request_id(checkout_request_id), reply.verdict, reply.code
        )
        return reply

    async def pull(self, start: datetime, end: datetime, offset: int) -> PullReply:
        """M-Pesa's own list of the payments between two instants, from row `offset` on (48 hours at most).
        With a `problem` the rows still count as evidence, the absence of others does not."""
        body = {
            "ShortCode": self._account.shortcode,
            "StartDate": _eat(start),
            "EndDate": _eat(end),
            "OffSetValue": str(offset),
        }
        limit = messages.PULL_MAX_BYTES
        answer = await self._wire.post("/pulltransactions/v1/query", body, limit)
        if isinstance(answer, Refused | Lost):
            return PullReply((), answer.message, answer.raw)
        found = messages.read_pull(answer.raw) if answer.status == 200 else None
        if found is None:
            fault = codes.fault_of(answer.raw)
            said = f"{fault.code or answer.status} {fault.message}".strip()
            if codes.is_blocked(answer.status, answer.raw):
                said = f"{codes.BLOCKED} (HTTP {answer.status})"
            return PullReply((), f"M-Pesa gave no list of payments: {said}", answer.raw)
        rows, self._pull_utc = messages.in_window(
            found.rows + found.others, start, end, utc=self._pull_utc
        )
        problem = found.problem
        if found.unread:
            problem = f"{found.unread} rows of M-Pesa's list cannot be read"
        return PullReply(rows, problem, answer.raw, is_empty=found.problem is not None)

    async def reverse(
        self, receipt: str, amount_cents: int, result_url: str, timeout_url: str, remark: str
    ) -> AckReply:
        """Orders the refund of one payment, whole or in part; the result comes to `result_url`."""
        shillings, cents = divmod(amount_cents, 100)
        return await self._order(
            "/mpesa/reversal/v1/request",
            {
                "CommandID": "TransactionReversal",
                "TransactionID": receipt,
                "Amount": f"{shillings}.{cents:02d}" if cents else str(shillings),
                "ReceiverParty": self._account.shortcode,
                # So spelt, and always 11 (daraja.md 6).
                "RecieverIdentifierType": "11",
                "ResultURL": result_url,
                "QueueTimeOutURL": timeout_url,
                "Remarks": clean(remark, REMARK_MAX, "Refund"),
                "Occasion": "Refund",
            },
        )

    async def status(self, receipt: str, result_url: str, timeout_url: str) -> AckReply:
        """Asks what M-Pesa knows of a receipt number; the result comes to `result_url`."""
        return await self._order(
            "/mpesa/transactionstatus/v1/query",
            {
                "CommandID": "TransactionStatusQuery",
                "TransactionID": receipt,
                "PartyA": self._account.shortcode,
                "IdentifierType": "4",
                "ResultURL": result_url,
                "QueueTimeOutURL": timeout_url,
                "Remarks": "Check",
                "Occasion": "Check",
            },
        )

    async def qr(self, amount_cents: int, reference: str, size: int) -> bytes | str:
        """A PNG of `size` pixels that a customer scans to pay, or the sentence why there is none."""
        account = self._account
        if amount_cents % 100 or amount_cents < 100:
            return "M-Pesa takes whole shillings, from 1."
        body = {
            "MerchantName": clean(account.merchant_name, 40, "Shop"),
            "RefNo": clean(reference, REFERENCE_MAX, "SALE"),
            "Amount": amount_cents // 100,
            "TrxCode": "BG" if account.till_number else "PB",
            "CPI": account.party_b,
            "Size": str(size),
        }
        answer = await self._wire.post("/mpesa/qrcode/v1/generate", body, _QR_MAX_BYTES)
        if isinstance(answer, Refused | Lost):
            return f"{answer.message}."
        # ResponseCode is an id here, not 0: a QRCode is the success (daraja.md 6).
        picture = fields.member(fields.document(answer.raw, _QR_MAX_BYTES), "QRCode")
        if answer.status == 200 and isinstance(picture, str):
            try:
                png = base64.b64decode(picture, validate=True)
            except (binascii.Error, ValueError):
                png = b""
            if png.startswith(_PNG):
                return png
        fault = codes.fault_of(answer.raw)
        return f"M-Pesa made no QR code: {fault.code or answer.status} {fault.message}".strip()

    async def register_c2b(
        self, confirmation_url: str, validation_url: str, version: str = "auto"
    ) -> AckReply:
        """Tell M-Pesa where payments without a request are announced; in production once. When the
        validation cannot be reached, payments go through ("Completed"): a shop wants its money.

        `version`: a key of C2B_VERSIONS. The last refusal is returned, with the version in its message."""
        body = {
            "ShortCode": self._account.shortcode,
            "ResponseType": "Completed",
            "ConfirmationURL": confirmation_url,
            "ValidationURL": validation_url,
        }
        said: list[str] = []
        for each in C2B_VERSIONS[version]:
            answer = await self._wire.post(f"/mpesa/c2b/{each}/registerurl", body)
            reply: AckReply
            if isinstance(answer, Refused | Lost):
                reply = answer
            else:
                reply = codes.registration_reply(answer.status, answer.raw, answer.retry_after)
            other = isinstance(reply, Refused) and _OTHER_PRODUCT.match(reply.code)
            if not isinstance(reply, Refused) or not other:
                break
            said.append(f"{each}: {reply.code} {reply.message}")
        if said and isinstance(reply, Refused) and other:
            return replace(reply, message="; ".join(said))
        return reply

    async def register_pull(self, number: str, callback_url: str) -> AckReply:
        """Opens Pull Transactions for the shortcode. `number`: the shop's nominated M-Pesa number."""
        body = {
            "ShortCode": self._account.shortcode,
            "RequestType": "Pull",
            "NominatedNumber": number,
            "CallBackURL": callback_url,
        }
        answer = await self._wire.post("/pulltransactions/v1/register", body)
        if isinstance(answer, Refused | Lost):
            return answer
        told = fields.document(answer.raw) if answer.status == 200 else None
        if told is None:
            return codes.refusal(answer.status, answer.raw, answer.retry_after)
        # Both spellings exist (daraja.md 6).
        code = fields.code(told.get("ResponseStatus") or told.get("Response Status")) or ""
        words = told.get("ResponseDescription") or told.get("Response Description")
        if code in ("0", "1000"):
            return Ack("", fields.ident(told.get("ResponseRefID")) or "", answer.raw)
        return Refused(Reason.CONFIG, code, fields.text(words), answer.raw)

    async def _order(self, path: str, body: dict[str, Any]) -> AckReply:
        account = self._account
        if account.initiator is None or account.security_credential is None:
            text = "mpesa.initiator and its credential are not set"
            return Refused(Reason.CONFIG, "INITIATOR", text, b"")
        who = {"Initiator": account.initiator, "SecurityCredential": account.security_credential}
        answer = await self._wire.post(path, who | body)
        if isinstance(answer, Refused | Lost):
            return answer
        reply = codes.ack_reply(answer.status, answer.raw, answer.retry_after)
        log.info("%s of a receipt: %s", body["CommandID"], type(reply).__name__)
        return reply

    def _signed(self) -> dict[str, Any]:
        """The shortcode with its password. Timestamp in Nairobi time, the same string in both."""
        account = self._account
        timestamp = compact(self._clock.now())
        return {
            "BusinessShortCode": account.shortcode,
            "Password": password(account.shortcode, account.passkey, timestamp),
            "Timestamp": timestamp,
        }


def password(shortcode: str, passkey: str, timestamp: str) -> str:
    """base64 of the three, one after the other (daraja.md 2)."""
    return base64.b64encode(f"{shortcode}{passkey}{timestamp}".encode()).decode()


def _eat(moment: datetime) -> str:
    return moment.astimezone(EAT).strftime("%Y-%m-%d %H:%M:%S")


def _log_push(phone: str, reply: PushReply) -> None:
    who = mask_phone(phone)
    match reply:
        case Accepted():
            log.info("push to %s accepted: %s", who, mask_request_id(reply.checkout_request_id))
        case Refused():
            log.warning("push to %s not sent: %s %s", who, reply.reason, reply.code)
        case Lost():
            log.warning("push to %s without a word: %s", who, reply.message)
