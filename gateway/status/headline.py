"""What stands at the top of the status: the most important truth about selling, as a state and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.domain.ceiling import CeilingState

# In these a sale would be signed.
SELLING = (CeilingState.ONLINE, CeilingState.OFFLINE, CeilingState.WARNING)

_CEILING = {
    CeilingState.ONLINE: "Selling. KRA is connected.",
    CeilingState.OFFLINE: "Selling without KRA. Everything is kept and sent later.",
    CeilingState.WARNING: "Selling without KRA, and time is running out. Bring the internet back.",
    CeilingState.SUSPENDED: "Nothing can be sold until KRA is heard again. Bring the internet back.",
    CeilingState.CLOCK_FAULT: "The clock is wrong. Set it right; until then nothing is signed.",
}


@dataclass(frozen=True, slots=True)
class Headline:
    """`state`: one of CeilingState where nothing but KRA counts; else what keeps sales from being
    signed: STORE_FAILED, UNIT_AHEAD, IN_DOUBT, BLOCKED or UNIT_DOWN."""

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
) -> Headline:
    """In the order in which a till hears it. `broken`: the store failed; `kra`: why KRA is not heard;
    `blocked`: what the unit signed cannot be stored; `healthy`: the unit answers."""
    if broken:
        return Headline(
            "STORE_FAILED", "Nothing can be sold: the disk failed. Call the technician."
        )
    if held:
        return Headline(
            "UNIT_AHEAD",
            "Nothing can be sold: the control unit and this gateway do not agree on what was signed. "
            "Call the technician.",
        )
    if ceiling in SELLING:
        if in_doubt:
            return Headline(
                "IN_DOUBT", "Nothing can be sold: an earlier sale is still being cleared up."
            )
        if blocked:
            return Headline("BLOCKED", "Nothing can be sold: the last receipt cannot be stored.")
        if not healthy:
            return Headline("UNIT_DOWN", "Nothing can be sold: the control unit does not sign.")
    sentence = _CEILING[ceiling]
    if ceiling is not CeilingState.ONLINE and kra:
        sentence = f"{sentence} ({kra})"
    return Headline(ceiling, sentence)
