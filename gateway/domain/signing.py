"""The states of an invoice on its way to a receipt, and the only moves between them.

Guarantee: one sale, one receipt. SIGNED is final; from IN_DOUBT there is no way to SIGNING but
through evidence that the unit did not take the sale. The store repeats this table in a trigger, so
that no code path can get round it (see `store/migrations/0001_initial.sql`; a test compares both).
"""

from __future__ import annotations

from enum import StrEnum

from gateway.errors import IllegalTransition


class SigningState(StrEnum):
    # Claimed by its key and valid; no number, no byte has gone to the unit. Signed only while a
    # till asks for it: a till that was told "not signed" is never signed behind its back.
    RECEIVED = "RECEIVED"
    # Number and exact request bytes are durable; the bytes may be on the wire. One at a time.
    SIGNING = "SIGNING"
    # The unit's answer is durable. Final. The till gets the same bytes for ever.
    SIGNED = "SIGNED"
    # The unit certainly did not take it and never will as it is. Final.
    REJECTED = "REJECTED"
    # The unit may have taken it. Nothing else is signed until evidence or a person decides.
    IN_DOUBT = "IN_DOUBT"


class SigningEvent(StrEnum):
    WRITTEN_AHEAD = "WRITTEN_AHEAD"  # number and bytes stored, before the first byte leaves
    ANSWERED = "ANSWERED"  # a complete, valid signed answer for this very sale
    REFUSED = "REFUSED"  # an answer that proves the unit did not and will not take it
    OUTCOME_LOST = "OUTCOME_LOST"  # timeout, lost connection, ambiguous code, crash
    FOUND_SIGNED = "FOUND_SIGNED"  # evidence: the unit holds this sale's receipt
    FOUND_UNSIGNED = "FOUND_UNSIGNED"  # evidence: the unit does not hold it


MOVES: dict[tuple[SigningState, SigningEvent], SigningState] = {
    (SigningState.RECEIVED, SigningEvent.WRITTEN_AHEAD): SigningState.SIGNING,
    (SigningState.SIGNING, SigningEvent.ANSWERED): SigningState.SIGNED,
    (SigningState.SIGNING, SigningEvent.REFUSED): SigningState.REJECTED,
    (SigningState.SIGNING, SigningEvent.OUTCOME_LOST): SigningState.IN_DOUBT,
    (SigningState.IN_DOUBT, SigningEvent.FOUND_SIGNED): SigningState.SIGNED,
    (SigningState.IN_DOUBT, SigningEvent.FOUND_UNSIGNED): SigningState.RECEIVED,
}

OPEN_STATES = frozenset({SigningState.SIGNING, SigningState.IN_DOUBT})
FINAL_STATES = frozenset({SigningState.SIGNED, SigningState.REJECTED})


def transition(state: SigningState, event: SigningEvent) -> SigningState:
    """The next state. IllegalTransition for a pair that is not in the table."""
    try:
        return MOVES[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} cannot happen in {state}") from None
