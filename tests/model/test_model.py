"""The model of the protocol, explored exhaustively, and the product's rules held against it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.fiscal import rules
from gateway.fiscal.rules import Circumstances, Fact, Rule, Verdict, verdict
from tests.model.check import ALL, CORE, LIFE
from tests.model.check import RULES as MODELLED
from tests.model.explorer import explore
from tests.model.state import World

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_the_sound_rules_hold_and_each_wrong_one_is_found() -> None:
    """`make model` explores the largest worlds as well."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.check", "short"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "; 0 unexpected" in done.stdout


FIRST, RESEND = Circumstances(first=True), Circumstances(first=False)
REST = Circumstances(at_rest=True)


@pytest.mark.parametrize(
    ("fact", "when", "proves"),
    [
        (Fact.RECEIPT, FIRST, Verdict.SIGNED),
        (Fact.RECEIPT, replace(FIRST, fresh=False), Verdict.NOTHING),
        (Fact.RECEIPT, RESEND, Verdict.SIGNED),
        (Fact.RECEIPT, replace(RESEND, fresh=False), Verdict.NOTHING),
        (Fact.REFUSAL, FIRST, Verdict.REJECTED),
        (Fact.REFUSAL, RESEND, Verdict.NOTHING),
        (Fact.NOT_READY, FIRST, Verdict.NOT_SIGNED),
        (Fact.NOT_READY, RESEND, Verdict.NOTHING),
        (Fact.DUPLICATE, FIRST, Verdict.MISMATCH),
        (Fact.DUPLICATE, RESEND, Verdict.NUMBER_USED),
        (Fact.NO_PROOF, FIRST, Verdict.NOTHING),
        (Fact.NO_PROOF, RESEND, Verdict.NOTHING),
        (Fact.SHOWS_THIS, RESEND, Verdict.SIGNED),
        (Fact.SHOWS_THIS, replace(RESEND, fresh=False), Verdict.NOTHING),
        (Fact.SHOWS_OTHER, RESEND, Verdict.MISMATCH),
        (Fact.SHOWS_OTHER, REST, Verdict.MISMATCH),
        (Fact.SHOWS_UNCLEAR, RESEND, Verdict.NUMBER_USED),
        (Fact.SHOWS_NOTHING, REST, Verdict.NOT_SIGNED),
        (Fact.SHOWS_NOTHING, RESEND, Verdict.NOTHING),
        (Fact.COUNTER_EQUAL, REST, Verdict.NOT_SIGNED),
        (Fact.COUNTER_EQUAL, RESEND, Verdict.NOTHING),
        (Fact.COUNTER_MOVED, RESEND, Verdict.NUMBER_USED),
        (Fact.COUNTER_MOVED, REST, Verdict.NUMBER_USED),
    ],
)
def test_each_row_of_the_table(fact: Fact, when: Circumstances, proves: Verdict) -> None:
    assert verdict(fact, when) is proves


def changed(name: str, fact: Fact, proves: Verdict, **when: Any) -> tuple[Rule, ...]:
    """The product's table with another row in front."""
    return (Rule(name, fact, proves, **when), *rules.RULES)


@pytest.mark.parametrize(
    ("row", "world", "broken"),
    [
        (("life", Fact.SHOWS_NOTHING, Verdict.NOT_SIGNED), {"readback": True}, "P3"),
        (("count", Fact.COUNTER_EQUAL, Verdict.NOT_SIGNED), {"counter": True}, "P3"),
        (("bytes", Fact.REFUSAL, Verdict.NOT_SIGNED), {"dup": "bytes"}, "P3"),
        (("fresh", Fact.RECEIPT, Verdict.SIGNED), {"keys": 2, "stale": True}, "P6"),
        (("no proof", Fact.NO_PROOF, Verdict.NOT_SIGNED), {"link": True}, "P3"),
        (("not ready", Fact.NOT_READY, Verdict.NOT_SIGNED), {"link": True, "dup": "generic"}, "P3"),
        (("contra", Fact.DUPLICATE, Verdict.NOT_SIGNED), {}, "P3"),
        (("id", Fact.SHOWS_OTHER, Verdict.SIGNED), {"readback": True, "writer": 1}, "P6"),
        (("life", Fact.SHOWS_NOTHING, Verdict.NOTHING), {"readback": True}, "P4"),
        (("id", Fact.SHOWS_THIS, Verdict.NOTHING), {"readback": True}, "P4"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_change_of_the_products_table_is_found_by_the_model(
    monkeypatch: pytest.MonkeyPatch, row: Any, world: dict[str, Any], broken: str
) -> None:
    resend = broken != "P4"
    w = World(rules=ALL, resend=resend, **world)
    assert broken not in explore(w, limit=600_000)[2]
    monkeypatch.setattr(rules, "RULES", changed(*row))
    assert broken in explore(w, limit=600_000, only=broken)[2]


def test_every_rule_of_the_product_is_explored() -> None:
    """The names are the same on both sides; those of the product alone are proven by the rows above."""
    ours = {rule.name for rule in rules.RULES}
    assert ours & set(MODELLED) == {
        "life",
        "count",
        "id",
        "other",
        "dupfirst",
        "bytes",
        "fresh",
        "contra",
    }
    assert ours - set(MODELLED) == {"answer", "final", "not ready", "no proof"}
    assert LIFE < CORE < ALL
