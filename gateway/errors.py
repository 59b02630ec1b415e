"""Every error the gateway can tell a till, a technician or a log, with its stable code.

No I/O here. `api/problem.py` is the only place where one of these becomes HTTP; a code, once
released, is never renamed, because tills branch on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong in a request: where (JSON pointer) and a sentence about it."""

    pointer: str
    code: str
    message: str

    def as_json(self) -> dict[str, str]:
        return {"pointer": self.pointer, "code": self.code, "message": self.message}


class GatewayError(Exception):
    """Root of all expected failures.

    `detail` is a sentence a cashier can act on. `retryable` means: send the same request again,
    with the same Idempotency-Key, and it may succeed. `retry_after_s` is in seconds.
    """

    code = "INTERNAL"
    title = "Internal error"
    status = 500
    retryable = False

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s
        self.extra = dict(extra or {})

    def members(self, instance: str) -> dict[str, Any]:
        """A problem's members: RFC 9457's own, then `code`, `retryable`, `errors` and the extras."""
        body: dict[str, Any] = {
            "type": f"/problems#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.retry_after_s is not None:
            body["retryAfterSeconds"] = self.retry_after_s
        if self.errors:
            body["errors"] = [item.as_json() for item in self.errors]
        body.update(self.extra)
        return body


# --- what a till sent ---------------------------------------------------------------------------


class RequestError(GatewayError):
    code = "REQUEST_INVALID"
    title = "The request cannot be taken"
    status = 400


class BodyNotJson(RequestError):
    code = "BODY_NOT_JSON"
    title = "The body is not JSON"


class BodyTooLarge(RequestError):
    code = "BODY_TOO_LARGE"
    title = "The body is too large"
    status = 413


class BodyLate(RequestError):
    code = "BODY_LATE"
    title = "The body did not come"
    status = 408
    retryable = True


class TooBusy(RequestError):
    """Bodies of senders that are not known yet have few places."""

    code = "TOO_BUSY"
    title = "Too many requests are being read"
    status = 503
    retryable = True


class TooManyConnections(RequestError):
    code = "TOO_MANY_CONNECTIONS"
    title = "Too many connections"
    status = 503
    retryable = True


class FrameInvalid(RequestError):
    """A serial till's frame came whole, but what it holds is no request."""

    code = "FRAME_INVALID"
    title = "The frame holds no request"


class UnsupportedBody(RequestError):
    code = "UNSUPPORTED_MEDIA_TYPE"
    title = "The body must be application/json"
    status = 415


class NotFound(RequestError):
    code = "NOT_FOUND"
    title = "There is nothing at this address"
    status = 404


class MethodNotAllowed(RequestError):
    code = "METHOD_NOT_ALLOWED"
    title = "This address does not take that method"
    status = 405


class UnknownTill(RequestError):
    code = "UNKNOWN_TILL"
    title = "The till's token is missing or wrong"
    status = 401


class InvoiceUnknown(RequestError):
    code = "INVOICE_UNKNOWN"
    title = "There is no such invoice"
    status = 404


class KeyMissing(RequestError):
    code = "IDEMPOTENCY_KEY_MISSING"
    title = "The Idempotency-Key header is missing"


class KeyInvalid(RequestError):
    code = "IDEMPOTENCY_KEY_INVALID"
    title = "The Idempotency-Key header cannot be used"


class KeyReused(RequestError):
    code = "IDEMPOTENCY_KEY_REUSED"
    title = "This key was used for another sale"
    status = 422


class InvoiceInvalid(RequestError):
    code = "INVOICE_INVALID"
    title = "The invoice has mistakes"
    status = 422


class RegistrationInvalid(RequestError):
    code = "REGISTRATION_INVALID"
    title = "The item or stock move has mistakes"
    status = 422


class QueryInvalid(RequestError):
    code = "QUERY_INVALID"
    title = "The address has a mistake"


class JobSettled(RequestError):
    code = "PRINT_JOB_SETTLED"
    title = "The print job is not in that state"
    status = 409


class CaptureSettled(RequestError):
    code = "CAPTURE_SETTLED"
    title = "The captured slip is settled already"
    status = 409


class DeviceProblem(GatewayError):
    code = "DEVICE_PROBLEM"
    title = "A device on the counter does not work"
    status = 503
    retryable = True


class CreditNoteInvalid(RequestError):
    code = "CREDIT_NOTE_INVALID"
    title = "The credit note cannot be made"
    status = 422


class AlreadyCredited(RequestError):
    code = "ALREADY_CREDITED"
    title = "This sale already has a credit note"
    status = 409


class LikelyRepeat(RequestError):
    """A till that sends no key sent a sale that looks like one already signed."""

    code = "LIKELY_REPEAT"
    title = "This looks like a repeat of an earlier sale"
    status = 409


class UnknownTechnician(RequestError):
    code = "UNKNOWN_TECHNICIAN"
    title = "The technician's code is missing or wrong"
    status = 401


class NotInDoubt(RequestError):
    code = "NOT_IN_DOUBT"
    title = "There is nothing to decide about this sale"
    status = 409


class DecisionInvalid(RequestError):
    code = "DECISION_INVALID"
    title = "The decision cannot be taken"
    status = 422


class TooManyWaiting(RequestError):
    code = "TOO_MANY_WAITING"
    title = "Too many sales are waiting"
    status = 429
    retryable = True


# --- payments by M-Pesa ---------------------------------------------------------------------------


class PaymentInvalid(RequestError):
    code = "PAYMENT_INVALID"
    title = "The payment request has mistakes"
    status = 422


class PaymentUnknown(RequestError):
    code = "PAYMENT_UNKNOWN"
    title = "There is no such payment"
    status = 404


class PaymentSettled(RequestError):
    code = "PAYMENT_SETTLED"
    title = "The payment is not in a state for that"
    status = 409


class PaymentOpen(RequestError):
    """A request is open on that phone or for that sale: a second one could be paid twice."""

    code = "PAYMENT_OPEN"
    title = "An M-Pesa request is open already"
    status = 409


class PaymentMayBeSame(RequestError):
    """Two payments may be the same money; only one is used before a person has distinguished them."""

    code = "PAYMENT_MAY_BE_SAME"
    title = "This may be the same money as another payment"
    status = 409


class PaymentReversed(RequestError):
    """M-Pesa reports that the customer's payment was taken back."""

    code = "PAYMENT_REVERSED"
    title = "M-Pesa reports that this payment was taken back"
    status = 409


class PaymentTooSoon(RequestError):
    code = "PAYMENT_TOO_SOON"
    title = "M-Pesa takes no second request so soon"
    status = 429
    retryable = True


class PaymentsOff(RequestError):
    code = "PAYMENTS_OFF"
    title = "M-Pesa is not set up"
    status = 409


class PaymentWaiting(RequestError):
    """The sale is in hand: its money, or after that its signature, is awaited."""

    code = "PAYMENT_WAITING"
    title = "The sale waits for M-Pesa"
    status = 202
    retryable = True


class PaymentFailed(RequestError):
    """A sale with tenders that was closed without a receipt; what has money is named."""

    code = "PAYMENT_FAILED"
    title = "The sale was not paid, or not signed"
    status = 409


class PaymentUnsigned(RequestError):
    """The money is there and there is no receipt: a person decides."""

    code = "PAYMENT_UNSIGNED"
    title = "The sale is paid and not signed"
    status = 409


class CheckoutUnknown(RequestError):
    code = "CHECKOUT_UNKNOWN"
    title = "There is no such checkout"
    status = 404


# --- the control unit and KRA --------------------------------------------------------------------


class FiscalError(GatewayError):
    status = 503


class Suspended(FiscalError):
    code = "SUSPENDED"
    title = "Selling is suspended: too long without KRA"
    retryable = True


class NotSetUp(FiscalError):
    """KRA was not reached once since this store was made."""

    code = "NOT_SET_UP"
    title = "The gateway is not set up with KRA yet"
    retryable = True


class UnitPortTaken(FiscalError):
    """Another program listens on the control unit's port, so no call is made to it."""

    code = "UNIT_PORT_TAKEN"
    title = "Another program holds the control unit's port"
    retryable = True


class ClockFault(FiscalError):
    code = "CLOCK_FAULT"
    title = "The gateway's clock cannot be trusted"
    retryable = True


class UnitUnavailable(FiscalError):
    """The control unit certainly did not take the sale: nothing was sent or it refused to listen."""

    code = "UNIT_UNAVAILABLE"
    title = "The control unit does not answer"
    retryable = True


class UnitNotReady(FiscalError):
    code = "UNIT_NOT_READY"
    title = "The control unit cannot sign"
    retryable = True


class UnitRefused(FiscalError):
    code = "UNIT_REFUSED"
    title = "The control unit refused the invoice"
    status = 422


class OutcomeUnknown(FiscalError):
    """The sale may or may not be signed; only the same key may be sent again."""

    code = "OUTCOME_UNKNOWN"
    title = "It is not known yet whether the sale was signed"
    retryable = True


class UnitAhead(FiscalError):
    """The unit holds sales that this store does not: it is an old copy, or the unit has two users."""

    code = "UNIT_AHEAD"
    title = "This store and the control unit do not agree"


class EmptyStore(UnitAhead):
    """The control unit was used before, and this store has no sale of it."""

    code = "EMPTY_STORE"
    title = "The next invoice number must be entered before the first sale"


class MaybeSigned(FiscalError):
    """The key is quarantined: sales are missing in this store, and this one may be among them."""

    code = "MAYBE_SIGNED"
    title = "This sale may have a receipt that is not known here"
    status = 409


class StillWaiting(FiscalError):
    """The sale is in the queue or at the unit; the till has waited long enough for one request."""

    code = "STILL_SIGNING"
    title = "The sale is still being signed"
    status = 202
    retryable = True


class DayClosed(FiscalError):
    code = "DAY_CLOSED"
    title = "The day has its Z report already"
    status = 409


class ShuttingDown(FiscalError):
    code = "SHUTTING_DOWN"
    title = "The gateway is restarting"
    retryable = True


# --- store, configuration -------------------------------------------------------------------------


class StoreError(GatewayError):
    status = 503
    code = "STORE_UNAVAILABLE"
    title = "The gateway's store cannot be used"
    retryable = True


class StoreCorrupt(StoreError):
    code = "STORE_CORRUPT"
    title = "The gateway's store is damaged"
    retryable = False


class SchemaNewer(StoreError):
    code = "STORE_NEWER"
    title = "The store was written by a newer version"
    retryable = False


class StoreReadOnly(StoreError):
    code = "STORE_READ_ONLY"
    title = "The disk of the gateway's store is read-only"


class StoreBusy(StoreError):
    code = "STORE_BUSY"
    title = "Another program has locked the gateway's store"


class DiskFull(StoreError):
    code = "DISK_FULL"
    title = "The disk is full"


class StartFailed(GatewayError):
    """Anything else that ends a start: shown with its cause, and tried again."""

    code = "START_FAILED"
    title = "The gateway could not start"
    status = 503
    retryable = True


class ConfigError(GatewayError):
    """Ends the process with exit code 78 (EX_CONFIG), so that systemd does not loop on it."""

    code = "CONFIG_INVALID"
    title = "The configuration has mistakes"
    exit_code = 78


class IllegalTransition(AssertionError):
    """A programmer's error: an event that cannot happen in this state."""
