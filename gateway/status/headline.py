"""What stands at the top of the status: the most important truth about selling, as a state and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.ceiling import CeilingState
from gateway.domain.outcome import Cause
from gateway.fiscal.ahead_rules import EMPTY_STORE
from gateway.fiscal.set_up import SetUpProblem

# In these a sale would be signed.
SELLING = (CeilingState.ONLINE, CeilingState.OFFLINE, CeilingState.WARNING)

_CEILING = {
    CeilingState.ONLINE: "Selling. KRA is connected.",
    CeilingState.OFFLINE: "Selling without KRA. Everything is kept and sent later.",
    CeilingState.WARNING: "Selling without KRA, and time is running out. Bring the internet back.",
    CeilingState.NOT_SET_UP: "Nothing can be sold yet: KRA was not reached.",
    CeilingState.SUSPENDED: "Nothing can be sold until KRA is heard again. Bring the internet back.",
    CeilingState.CLOCK_FAULT: "The clock is wrong. Set it right; until then nothing is signed.",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """`state`: one of CeilingState where nothing but KRA counts; else what keeps sales from being
    signed: STORE_FAILED, EMPTY_STORE, UNIT_AHEAD, UNIT_PORT_TAKEN, NOT_SET_UP, IN_DOUBT, BLOCKED, UNIT_DOWN or
    UNIT_REFUSES."""

    state: str
    sentence: str


def headline(
    *,
    broken: bool,
    held: bool,
    ceiling: CeilingState,
    kra: str,
    in_doubt: bool,
    blocked: bool,
    healthy: bool,
    reason: str | None = None,
    cause: Cause | None = None,
    set_up: SetUpProblem | None = None,
    hold_state: str = "UNIT_AHEAD",
) -> Headline:
    """In the order in which a till hears it. `broken`: the store failed; `kra`: why KRA is not heard;
    `blocked`: what the unit signed cannot be stored; `healthy`: the unit can sign, else `reason`;
    `cause`: what the answer to the last sale named."""
    if broken:
        return Headline(
            "STORE_FAILED", "Nothing can be sold: the disk failed. Call the technician."
        )
    if held and hold_state == EMPTY_STORE:
        also = "" if set_up is None else f" Before that: {set_up.sentence}"
        return Headline(
            EMPTY_STORE,
            "Nothing can be sold yet: this control unit was used before, and this gateway has no sale of it. "
            f"The technician enters the next invoice number on the page /unit.{also}",
        )
    if held:
        return Headline(
            "UNIT_AHEAD",
            "Nothing can be sold: the control unit and this gateway do not agree on what was signed. "
            "Call the technician.",
        )
    if set_up is not None:
        return Headline(set_up.state, set_up.sentence)
    if ceiling in SELLING:
        if in_doubt:
            sentence = "Nothing can be sold: an earlier sale is still being cleared up."
            return Headline("IN_DOUBT", f"{sentence} {cause.sentence}." if cause else sentence)
        if blocked:
            return Headline("BLOCKED", "Nothing can be sold: the last receipt cannot be stored.")
        if not healthy:
            return _unit(reason, cause)
    sentence = _CEILING[ceiling]
    if ceiling is not CeilingState.ONLINE and kra:
        sentence = f"{sentence} ({kra})"
    return Headline(ceiling, sentence)


def _unit(reason: str | None, cause: Cause | None) -> Headline:
    """Return the headline for a unit that does not sign."""
    if cause is not None and reason == cause.sentence:
        if cause.ours:
            return Headline("UNIT_REFUSES", f"The last sale was not signed. {cause.sentence}.")
        return Headline("UNIT_DOWN", f"Nothing can be sold. {cause.sentence}.")
    why = f" ({reason})" if reason else ""
    return Headline("UNIT_DOWN", f"Nothing can be sold: the control unit does not sign{why}.")
