"""Thousands of days of a shop in virtual time: one sale, one receipt, whatever dies when.

`make sim SEEDS=n SEED=first` runs more; a failing seed replays exactly with
`python -m tests.sim.run --seed N --trace`.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.sim.run import Make, simulate
from tests.sim.wrong import DeletePlaceholder, SelectThenInsert

# About two minutes on two cores, 10 s of them for seeds that nobody has seen before.
KNOWN, NEW = 800, 100
# Steps of a life in which the first sales are made; later ones repeat them.
STEPS = 120


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1, KNOWN, 50))
def test_known_days(first: int) -> None:
    for seed in range(first, first + 50):
        assert not (problems := simulate(seed).problems), f"seed {seed}: {problems}"


@pytest.mark.timeout(600)
def test_new_days() -> None:
    base = int(os.environ.get("SEED", random.randrange(10**6, 10**9)))
    for seed in range(base, base + NEW):
        assert not (problems := simulate(seed).problems), f"seed {seed}: {problems}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [11, 14])
def test_death_at_every_step_of_a_life(seed: int) -> None:
    """Every await and every fsync boundary of one life's first sales, one after the other."""
    for step in range(1, STEPS):
        outcome = simulate(seed, crashes=[step])
        assert not outcome.problems, f"seed {seed} dies at {step}: {outcome.problems}"
        assert any(f"dies at step {step}" in line for line in outcome.trace)


def test_a_seed_replays_exactly() -> None:
    for seed in (3, 14, 159):
        first, again = simulate(seed), simulate(seed)
        assert first.trace == again.trace
        assert first.receipts == again.receipts


@pytest.mark.parametrize("wrong", [SelectThenInsert, DeletePlaceholder])
def test_what_signs_twice_is_found_out(wrong: Make) -> None:
    """The simulation knows what it looks for: both usual mistakes show within a few days."""
    found = [
        problem
        for seed in range(1, 31)
        for problem in simulate(seed, wrong).problems
        if problem.endswith("receipts")
    ]
    assert found
