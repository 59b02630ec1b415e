"""The status says the most important truth first."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.domain.ceiling import CeilingState
from gateway.domain.outcome import Cause
from gateway.fiscal.set_up import SetUpProblem
from gateway.ops import metrics
from gateway.status.headline import SELLING, headline

WELL: dict[str, Any] = {
    "broken": False,
    "held": False,
    "ceiling": CeilingState.ONLINE,
    "kra": "",
    "in_doubt": False,
    "blocked": False,
    "healthy": True,
}
# What may be wrong at once, the worst first.
WRONG = [
    ("STORE_FAILED", {"broken": True}),
    ("UNIT_AHEAD", {"held": True}),
    ("UNIT_PORT_TAKEN", {"set_up": SetUpProblem("UNIT_PORT_TAKEN", "Nothing can be sold: x.")}),
    ("CLOCK_FAULT", {"ceiling": CeilingState.CLOCK_FAULT}),
    ("IN_DOUBT", {"in_doubt": True}),
    ("BLOCKED", {"blocked": True}),
    ("UNIT_DOWN", {"healthy": False}),
]


@pytest.mark.parametrize("first", range(len(WRONG)))
def test_what_keeps_sales_from_being_signed_comes_before_what_does_not(first: int) -> None:
    everything: dict[str, Any] = dict(WELL)
    for _, wrong in WRONG[first:]:
        everything |= wrong
    alone = headline(**(WELL | WRONG[first][1]))
    assert alone.state == headline(**everything).state == WRONG[first][0]
    assert alone.state not in SELLING
    assert not alone.sentence.startswith("Selling")


@pytest.mark.parametrize(("ours", "state"), [(False, "UNIT_DOWN"), (True, "UNIT_REFUSES")])
def test_a_cause_that_a_sale_named_stands_in_the_sentence(ours: bool, state: str) -> None:
    cause = Cause("MEMORY_FULL", "The unit's memory is full", ours)
    wrong = {"healthy": False, "reason": cause.sentence, "cause": cause}
    top = headline(**(WELL | wrong))
    assert top.state == state
    assert top.state not in SELLING
    assert "The unit's memory is full." in top.sentence
    assert "Selling" not in top.sentence
    # A unit that does not answer at all comes first; a sale in doubt names the cause beside it.
    silent = headline(**(WELL | wrong | {"reason": "no connection"}))
    assert (silent.state, "no connection" in silent.sentence) == ("UNIT_DOWN", True)
    doubt = headline(**(WELL | wrong | {"in_doubt": True}))
    assert (doubt.state, "memory is full" in doubt.sentence) == ("IN_DOUBT", True)


@pytest.mark.parametrize("state", CeilingState)
def test_a_shop_that_is_well_shows_the_ceiling_and_why_kra_is_not_heard(
    state: CeilingState,
) -> None:
    top = headline(**(WELL | {"ceiling": state, "kra": "no connection"}))
    assert top.state == state
    assert ("no connection" in top.sentence) == (state is not CeilingState.ONLINE)
    assert top.sentence.startswith("Selling") == (top.state in SELLING)
    assert state in metrics.STATES


def test_an_empty_store_has_its_own_state_and_names_what_comes_before_the_number() -> None:
    problem = SetUpProblem("NOT_SET_UP", "Nothing can be sold yet. KRA has no serial x.")
    top = headline(**(WELL | {"held": True, "hold_state": "EMPTY_STORE"}))
    both = headline(**(WELL | {"held": True, "hold_state": "EMPTY_STORE", "set_up": problem}))
    assert top.state == both.state == "EMPTY_STORE"
    assert "next invoice number" in top.sentence
    assert "KRA has no serial x" in both.sentence and "no serial" not in top.sentence
