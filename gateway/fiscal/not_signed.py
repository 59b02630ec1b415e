"""Words for the till: refusals of a sale that was certainly not signed, and of one that may have been."""

from __future__ import annotations

from gateway.domain.outcome import NotSent, Refused
from gateway.errors import GatewayError, MaybeSigned, UnitNotReady, UnitUnavailable


def maybe_signed() -> MaybeSigned:
    """Return the answer for a quarantined key: the same words and bytes whenever it is asked for."""
    return MaybeSigned(
        "This sale may have a receipt that the gateway does not know. Look for it on paper or on KRA's "
        "portal. If there is none, ring the sale up as a new one.",
        extra={"signed": "unknown"},
    )


def not_signed(outcome: Refused | NotSent) -> tuple[GatewayError, str]:
    """Return the refusal for the till and the reason for the sale's story."""
    reason = outcome.message if isinstance(outcome, Refused) else outcome.reason
    extra: dict[str, object] = {"signed": "no", "reason": reason}
    if outcome.cause is None:
        sentence = "The control unit does not answer, so this sale is not signed. Try again."
        return UnitUnavailable(sentence, retry_after_s=5, extra=extra), reason
    extra["cause"] = outcome.cause.code
    if isinstance(outcome, Refused):
        extra |= {"unitCode": outcome.code, "unitMessage": outcome.message}
    kind = UnitUnavailable if outcome.cause.code == "PATH" else UnitNotReady
    sentence = (
        f"{outcome.cause.sentence}. This sale is not signed. Call the technician, then send the same sale "
        "again with the same key."
    )
    return kind(sentence, retry_after_s=10, extra=extra), reason
