"""What M-Pesa's codes mean: result codes of callbacks and queries, and the refusals of a request.

Closed tables (daraja.md 2.4, 3.1 and 4.1). A code that nobody has listed is "failed so far" in a callback,
no information in a query, and no word at all as the answer to a push: the phone may ring or not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gateway.domain.payment import Reason, Verdict
from gateway.domain.payment_wire import (
    Accepted,
    Ack,
    AckReply,
    Lost,
    PushReply,
    QueryReply,
    QueryVerdict,
    Refused,
)
from gateway.mpesa import fields

PAID = "0"
# Daraja's products write the code of a request that was taken as 0, "0", "00", "00000000" or 0.0.
_TAKEN = re.compile(r"0+(\.0+)?")
STILL_PROCESSING = "4999"
ANSWER_MAX_BYTES = 64 * 1024
# The sandbox allows one question in 12 seconds (daraja.md 4.3); what Retry-After says goes before.
LIMITED_S = 12.0
# The portal's advice for a phone that has another request open, and for a busy system.
BUSY_S = 60.0
_RETRY_AFTER_MAX_S = 3600.0

_REASONS = {
    "1": Reason.FAILED_FUNDS,
    "2": Reason.FAILED_LIMIT,
    "3": Reason.FAILED_LIMIT,
    "4": Reason.FAILED_LIMIT,
    "8": Reason.FAILED_CONFIG,
    "15": Reason.FAILED_RETRYABLE,
    "17": Reason.FAILED_RETRYABLE,
    "21": Reason.FAILED_CONFIG,
    "26": Reason.FAILED_RETRYABLE,
    "1001": Reason.FAILED_BUSY,
    "1019": Reason.FAILED_EXPIRED,
    "1025": Reason.FAILED_RETRYABLE,
    "1031": Reason.CANCELLED,
    "1032": Reason.CANCELLED,
    "1036": Reason.FAILED_UNREACHABLE,
    "1037": Reason.FAILED_UNREACHABLE,
    "1101": Reason.FAILED_CONFIG,
    "1102": Reason.FAILED_CONFIG,
    "2001": Reason.FAILED_PIN,
    "2006": Reason.FAILED_CONFIG,
    "2008": Reason.FAILED_PIN,
    "2026": Reason.FAILED_EXPIRED,
    "2028": Reason.FAILED_CONFIG,
    "2029": Reason.FAILED_RETRYABLE,
    "8006": Reason.FAILED_PIN,
    "9999": Reason.FAILED_RETRYABLE,
    "SFC_IC0003": Reason.FAILED_CONFIG,
}
_QUERY_SOFT = frozenset({"1036", "1037", "9999"})
# Final in a query is what daraja.md 4.1 lists, which is less than the table above: what hardly anybody has
# seen, and in callbacks only, says nothing in a query.
_QUERY_FINAL = (
    _REASONS.keys() - _QUERY_SOFT - {"15", "21", "1101", "1102", "2006", "2008", "2026", "2029"}
)
_STILL = re.compile(r"still.*process", re.IGNORECASE)
_BEING = re.compile(r"being processed", re.IGNORECASE)


def reason_of(code: str) -> Reason | None:
    """Why a callback with this result code brought no money. None: paid (0), no end (4999), or a code
    that nobody has listed, which a callback makes FAILED."""
    return _REASONS.get(code)


def callback_word(code: str) -> tuple[Verdict, Reason | None]:
    """What a callback's result code says of the money (daraja.md 3.1)."""
    if code == PAID:
        return Verdict.PAID, None
    if code == STILL_PROCESSING:
        # Never seen in a callback; if it comes, it is no end.
        return Verdict.NO_INFO, None
    return Verdict.NOT_PAID, reason_of(code) or Reason.FAILED


def retry_after(header: str | None, otherwise: float = LIMITED_S) -> float:
    """Seconds of a Retry-After header; `otherwise` when it has none (or a date: the clock may be wrong)."""
    if header is None or not re.fullmatch(r"[0-9]{1,6}", header.strip()):
        return otherwise
    return min(max(float(header), 1.0), _RETRY_AFTER_MAX_S)


@dataclass(frozen=True, slots=True)
class Fault:
    """An error body: Daraja's own shape or Apigee's (daraja.md 2.3). Both "" when it has neither."""

    code: str
    message: str


def fault_of(raw: bytes) -> Fault:
    answer = fields.document(raw, ANSWER_MAX_BYTES)
    code = fields.text(fields.member(answer, "errorCode"), 64)
    if code:
        return Fault(code, fields.text(fields.member(answer, "errorMessage")))
    fault = fields.member(answer, "fault")
    if not isinstance(fault, dict):
        # C2B's register answers as SOAP turned into JSON.
        fault = fields.member(answer, "Envelope", "Body", "Fault")
        soap = fields.text(fields.member(fault, "detail", "source", "errorcode"), 64)
        code = soap or fields.text(fields.member(fault, "faultcode"), 64)
        return Fault(code, fields.text(fields.member(fault, "faultstring")))
    return Fault(
        fields.text(fields.member(fault, "detail", "errorcode"), 64),
        fields.text(fields.member(fault, "faultstring")),
    )


_TOKEN_CODES = frozenset({"404.001.03", "400.003.01"})
# Apigee's own words for a token, or its app's product, that it does not take.
_TOKEN_FAULTS = ("oauth.v2.", "steps.oauth.v2.", "keymanagement.service.")
_LIMITS = "policies.ratelimit."
BLOCKED = "something in front of M-Pesa blocks this address"


def is_taken(value: Any) -> bool:
    """Return whether a ResponseCode is zero, in any of the ways that Daraja writes it."""
    code = fields.code(value)
    return code is not None and _TAKEN.fullmatch(code) is not None


def token_refused(status: int, raw: bytes) -> bool:
    """The access token was not taken, hence nothing was done: fetch one, send again once (daraja.md 1)."""
    if status == 401:
        return True
    code = fault_of(raw).code
    token = code in _TOKEN_CODES or code.startswith(("401.", *_TOKEN_FAULTS))
    return status >= 400 and token


def token_stays_refused(status: int, raw: bytes) -> Refused:
    """Return the refusal of a fresh token: it does not go away, so it is the set-up's (daraja.md 12)."""
    if is_blocked(status, raw):
        return Refused(Reason.CONFIG, str(status), f"{BLOCKED}: HTTP {status}", raw)
    fault = fault_of(raw)
    code = fault.code or str(status)
    words = fault.message or "no words"
    text = f"M-Pesa does not take its own fresh access token: {code} {words}"
    return Refused(Reason.CONFIG, code, text, raw)


def is_blocked(status: int, raw: bytes) -> bool:
    """Return whether a 401 or 403 is not Daraja's: a firewall or proxy has turned this address away."""
    return status in (401, 403) and not fault_of(raw).code


def is_limit(fault: Fault) -> bool:
    """Return whether a fault is Apigee's limit of requests, whatever HTTP status came with it."""
    return fault.code.lower().startswith(_LIMITS)


def query_verdict(
    status: int, raw: bytes, checkout_request_id: str, retry_after_header: str | None = None
) -> QueryReply:
    """An STK query's answer, by the closed rule of daraja.md 4.1. `checkout_request_id`: what was asked."""
    fault = fault_of(raw)
    if status == 429 or is_limit(fault):
        wait = retry_after(retry_after_header)
        limit = "429" if status == 429 else fault.code
        return QueryReply(QueryVerdict.LIMITED, limit, None, fault.message, raw, wait)
    if status != 200:
        return _query_fault(status, raw, retry_after_header)
    answer = fields.document(raw, ANSWER_MAX_BYTES)
    code = fields.code(fields.member(answer, "ResultCode"))
    message = fields.text(fields.member(answer, "ResultDesc"))
    ours = fields.ident(fields.member(answer, "CheckoutRequestID")) == checkout_request_id
    taken = is_taken(fields.member(answer, "ResponseCode"))
    if code is None or not ours or not taken:
        return QueryReply(QueryVerdict.NO_INFO, code, None, message, raw)
    if code == STILL_PROCESSING or _STILL.search(message):
        verdict = QueryVerdict.PENDING
    elif code == PAID:
        verdict = QueryVerdict.PAID
    elif code in _QUERY_FINAL:
        verdict = QueryVerdict.NOT_PAID
    elif code in _QUERY_SOFT:
        verdict = QueryVerdict.SOFT
    else:
        verdict = QueryVerdict.NO_INFO
    told = verdict in (QueryVerdict.NOT_PAID, QueryVerdict.SOFT)
    return QueryReply(verdict, code, reason_of(code) if told else None, message, raw)


def _query_fault(status: int, raw: bytes, retry_after_header: str | None) -> QueryReply:
    fault = fault_of(raw)
    code = fault.code or str(status)
    if fault.code == "500.001.1001" and _BEING.search(fault.message):
        return QueryReply(QueryVerdict.PENDING, code, None, fault.message, raw)
    if fault.code in ("500.003.02", "500.003.03"):
        wait = retry_after(retry_after_header)
        return QueryReply(QueryVerdict.LIMITED, code, None, fault.message, raw, wait)
    return QueryReply(QueryVerdict.NO_INFO, code, None, fault.message, raw)


# Surely refused: code, what the message must say, class, seconds to wait. First match (daraja.md 2.4).
_REFUSALS: tuple[tuple[str, str, Reason, float | None], ...] = (
    ("400.002.02", r"invalid (phone ?number|amount|party ?a)\b", Reason.INPUT, None),
    ("400.002.02", r"", Reason.CONFIG, None),
    ("404.001.03", r"", Reason.NOT_SENT, None),
    ("400.003.01", r"", Reason.NOT_SENT, None),
    ("500.001.1001", r"wrong credentials", Reason.CONFIG, None),
    ("500.001.1001", r"merchant does not exist", Reason.CONFIG, None),
    ("500.001.1001", r"unable to lock subscriber", Reason.NOT_SENT, BUSY_S),
    ("500.003.02", r"spike arrest", Reason.NOT_SENT, LIMITED_S),
    ("500.003.02", r"", Reason.NOT_SENT, BUSY_S),
    ("500.003.03", r"", Reason.NOT_SENT, BUSY_S),
)
# Codes whose first part is a HTTP status of refusal: the request was turned away as such.
_TURNED_AWAY = re.compile(r"40[0-9]\.[0-9.]{1,20}")


def refusal(status: int, raw: bytes, retry_after_header: str | None = None) -> Refused | Lost:
    """A non-200 answer to an order. Refused only when it is sure that nothing was done; 503, an empty
    body, HTML and 500.003.1001 are Lost."""
    fault = fault_of(raw)
    if status == 429 or is_limit(fault):
        wait = retry_after(retry_after_header)
        return Refused(Reason.NOT_SENT, fault.code or "429", fault.message, raw, wait)
    if status == 401:
        return Refused(Reason.NOT_SENT, fault.code or "401", fault.message, raw)
    if is_blocked(status, raw):
        # It may have been turned away on the way back as well as on the way there.
        return Lost(f"{BLOCKED}: HTTP {status}", raw)
    if status >= 400:
        for code, words, reason, wait_s in _REFUSALS:
            if fault.code == code and re.search(words, fault.message, re.IGNORECASE):
                after = None if wait_s is None else retry_after(retry_after_header, wait_s)
                return Refused(reason, fault.code, fault.message, raw, after)
        if fault.code.startswith("401."):
            return Refused(Reason.NOT_SENT, fault.code, fault.message, raw)
        if status < 500 and _TURNED_AWAY.fullmatch(fault.code):
            return Refused(Reason.CONFIG, fault.code, fault.message, raw)
    said = f": {fault.code} {fault.message}".rstrip() if fault.code else ""
    return Lost(f"M-Pesa answered HTTP {status}{said}", raw)


def push_reply(status: int, raw: bytes, retry_after_header: str | None = None) -> PushReply:
    """The answer to a push. Accepted only with ResponseCode 0 and a CheckoutRequestID (daraja.md 2.1)."""
    if status != 200 or is_limit(fault_of(raw)):
        return refusal(status, raw, retry_after_header)
    answer = fields.document(raw, ANSWER_MAX_BYTES)
    code = fields.code(fields.member(answer, "ResponseCode"))
    if answer is None or code is None:
        return Lost("M-Pesa's answer to the request cannot be read", raw)
    if not is_taken(code):
        return Refused(Reason.NOT_SENT, code, fields.text(answer.get("ResponseDescription")), raw)
    checkout = fields.ident(answer.get("CheckoutRequestID"))
    if checkout is None:
        return Lost("M-Pesa accepted the request without an id for it", raw)
    return Accepted(fields.ident(answer.get("MerchantRequestID")) or "", checkout, raw)


def ack_reply(status: int, raw: bytes, retry_after_header: str | None = None) -> AckReply:
    """The answer to a reversal or status order: taken with ResponseCode 0, its result comes later."""
    if status != 200 or is_limit(fault_of(raw)):
        return refusal(status, raw, retry_after_header)
    answer = fields.document(raw, ANSWER_MAX_BYTES)
    code = fields.code(fields.member(answer, "ResponseCode"))
    if answer is None or code is None:
        return Lost("M-Pesa's answer cannot be read", raw)
    if not is_taken(code):
        return Refused(Reason.NOT_SENT, code, fields.text(answer.get("ResponseDescription")), raw)
    return Ack(
        fields.ident(answer.get("ConversationID")) or "",
        fields.ident(answer.get("OriginatorConversationID"))
        # So spelt by the C2B register (daraja.md 6).
        or fields.ident(answer.get("OriginatorCoversationID"))
        or "",
        raw,
    )


_SUCCESS = re.compile(r"success|accept", re.IGNORECASE)
# "Urls are already registered.", "Validation and Confirmation URLs are already registered", "Duplicate ...".
_ALREADY = re.compile(r"already\s+(been\s+)?(registered|exists?)|duplicate", re.IGNORECASE)
REGISTERED_BEFORE = "REGISTERED_BEFORE"


def registration_reply(status: int, raw: bytes, retry_after_header: str | None = None) -> AckReply:
    """Return what came of registering C2B addresses, by v1 or v2, in each form that was seen (daraja.md 12).

    v1's success has no ResponseCode. Addresses that were registered before are Refused with the code
    REGISTERED_BEFORE, whatever status and body say so."""
    answer = fields.document(raw, ANSWER_MAX_BYTES)
    said = fields.text(fields.member(answer, "ResponseDescription"))
    fault = fault_of(raw)
    for words in (said, fault.message):
        if _ALREADY.search(words):
            return Refused(Reason.CONFIG, REGISTERED_BEFORE, words, raw)
    unsaid = (
        status == 200 and not fault.code and fields.member(answer, "ResponseCode") in (None, "")
    )
    if unsaid and _SUCCESS.match(said):
        originator = fields.ident(fields.member(answer, "OriginatorCoversationID"))
        return Ack("", originator or "", raw)
    reply = ack_reply(status, raw, retry_after_header)
    if isinstance(reply, Lost) and (fault.message or said):
        return Lost(f"HTTP {status}: {fault.code} {fault.message or said}".strip(), raw)
    return reply
