"""Which fact about a sending proves what: the table of docs/internals/evidence.md, a row for each rule.

Pure. `verdict` is asked by the signer, the sources of evidence and the resolver, and by the exhaustive
model in tests/model. Few facts prove "not signed", because a slow unit may sign after any look: only
the unit's restart, or a refusal of the very first sending, end that. What a person may decide is in
`decision_rules.py`, what store and unit say about each other in `ahead_rules.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fact(StrEnum):
    """What was observed about a sale that was sent."""

    RECEIPT = "RECEIPT"  # the unit answered success with a receipt
    REFUSAL = "REFUSAL"  # a code that the unit gives before it signs: not as it is
    NOT_READY = "NOT_READY"  # a code that the unit gives before it signs: not now; or no byte left
    DUPLICATE = "DUPLICATE"  # the unit says that it has this number
    NO_PROOF = "NO_PROOF"  # time-out, lost connection, 894, 899, every other answer
    SHOWS_THIS = "SHOWS_THIS"  # the unit shows this very sale under the number
    SHOWS_OTHER = "SHOWS_OTHER"  # the unit shows another sale under the number
    SHOWS_UNCLEAR = "SHOWS_UNCLEAR"  # the unit shows a sale that may be another one
    SHOWS_NOTHING = "SHOWS_NOTHING"  # the unit shows nothing under the number
    COUNTER_EQUAL = "COUNTER_EQUAL"  # the receipt counter stands at our last receipt
    COUNTER_MOVED = "COUNTER_MOVED"  # the receipt counter stands anywhere else


class Verdict(StrEnum):
    """What a fact proves about one sale."""

    SIGNED = "SIGNED"  # signed, with this receipt
    REJECTED = "REJECTED"  # not signed and never will be as it is: final
    NOT_SIGNED = "NOT_SIGNED"  # not signed, and no sending can still be signed: released
    MISMATCH = (
        "MISMATCH"  # the unit has a sale that this store lacks: signing hold, key quarantined
    )
    NUMBER_USED = "NUMBER_USED"  # something was signed: no resend, no "not signed"
    NOTHING = "NOTHING"  # stay in doubt


@dataclass(frozen=True, slots=True)
class Circumstances:
    """When a fact was observed. `first`: about the first sending of a fresh number, no earlier sending of it
    open. `at_rest`: every sending of the sale went to an earlier run of the unit, which forgets what it had
    only accepted (A3), and store and unit are not known to disagree. `fresh`: the receipt is new here, above
    the last counter and of this unit."""

    first: bool = False
    at_rest: bool = False
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: `fact` under the named circumstances (None: whatever they are) proves `proves`."""

    name: str
    fact: Fact
    proves: Verdict
    first: bool | None = None
    at_rest: bool | None = None
    fresh: bool | None = None

    def applies(self, fact: Fact, when: Circumstances) -> bool:
        return (
            self.fact is fact
            and self.first in (None, when.first)
            and self.at_rest in (None, when.at_rest)
            and self.fresh in (None, when.fresh)
        )


# In this order; the first row that applies decides.
RULES = (
    Rule("fresh", Fact.RECEIPT, Verdict.NOTHING, fresh=False),
    Rule("answer", Fact.RECEIPT, Verdict.SIGNED),
    Rule("final", Fact.REFUSAL, Verdict.REJECTED, first=True),
    Rule("bytes", Fact.REFUSAL, Verdict.NOTHING),
    Rule("not ready", Fact.NOT_READY, Verdict.NOT_SIGNED, first=True),
    Rule("not ready", Fact.NOT_READY, Verdict.NOTHING),
    Rule("dupfirst", Fact.DUPLICATE, Verdict.MISMATCH, first=True),
    Rule("contra", Fact.DUPLICATE, Verdict.NUMBER_USED),
    Rule("no proof", Fact.NO_PROOF, Verdict.NOTHING),
    Rule("fresh", Fact.SHOWS_THIS, Verdict.NOTHING, fresh=False),
    Rule("id", Fact.SHOWS_THIS, Verdict.SIGNED),
    Rule("id", Fact.SHOWS_UNCLEAR, Verdict.NUMBER_USED),
    Rule("other", Fact.SHOWS_OTHER, Verdict.MISMATCH),
    Rule("life", Fact.SHOWS_NOTHING, Verdict.NOT_SIGNED, at_rest=True),
    Rule("life", Fact.SHOWS_NOTHING, Verdict.NOTHING),
    Rule("count", Fact.COUNTER_EQUAL, Verdict.NOT_SIGNED, at_rest=True),
    Rule("count", Fact.COUNTER_EQUAL, Verdict.NOTHING),
    Rule("contra", Fact.COUNTER_MOVED, Verdict.NUMBER_USED),
)


def verdict(fact: Fact, when: Circumstances) -> Verdict:
    """Return what the fact proves."""
    for rule in RULES:
        if rule.applies(fact, when):
            return rule.proves
    raise AssertionError(f"no rule for {fact}")
