"""A shop that is paid by M-Pesa, in virtual time: no shilling without an owner, no second prompt, no PAID
that is left, no sale on another's word; whatever is lost, late, doubled, forged, or dies.

`make sim` runs more; a failing seed replays with `python -m tests.sim.run --payments --seed N --trace`.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.sim.paying import simulate
from tests.sim.wrong_payments import WRONG, Patch

KNOWN, NEW = 40, 10
STEPS = range(3, 300, 9)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


def test_another_amount_that_becomes_known_while_the_sale_is_at_the_unit_stops_no_till() -> None:
    """A day on which the payment's review undid the settlement of its sale, and the till was answered
    PAYMENT_SETTLED without end."""
    assert not (problems := simulate(41044).problems), problems


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1, KNOWN, 10))
def test_known_days(first: int) -> None:
    for seed in range(first, first + 10):
        assert not (problems := simulate(seed).problems), f"seed {seed}: {problems}"


@pytest.mark.timeout(300)
def test_new_days() -> None:
    base = int(os.environ.get("SEED", random.randrange(10**6, 10**9)))
    for seed in range(base, base + NEW):
        assert not (problems := simulate(seed).problems), f"seed {seed}: {problems}"


@pytest.mark.timeout(300)
def test_death_at_many_steps_of_a_life() -> None:
    """`make sim` goes through all of them."""
    for step in STEPS:
        outcome = simulate(21, crashes=[step])
        assert not outcome.problems, f"dies at {step}: {outcome.problems}"


def test_a_seed_replays_exactly() -> None:
    first, again = simulate(14), simulate(14)
    assert first.trace == again.trace
    assert first.receipts == again.receipts


@pytest.mark.timeout(300)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_other_gateways_is_found(
    wrong: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = wrong(monkeypatch)
    for seed in (*range(103, 161), *range(1, 103)):
        if simulate(seed, make).problems:
            return
    raise AssertionError("160 days, and none shows it")
