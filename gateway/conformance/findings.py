"""Assumptions about a control unit, what a test showed about each, and the settings that follow.

The names A1 to A10 are those of docs/internals/evidence.md. A setting is true only where the test has shown
the assumption to hold; whatever was not tested keeps the safe default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gateway.settings import UnitSettings


class Assumption(StrEnum):
    """One assumption about the unit or the people around it."""

    A1 = "A1"
    A2 = "A2"
    A3 = "A3"
    A4 = "A4"
    A5 = "A5"
    A6 = "A6"
    A7 = "A7"
    A8 = "A8"
    A9 = "A9"
    A10 = "A10"


SENTENCES = {
    Assumption.A1: "the unit never signs one invoice number twice",
    Assumption.A2: "only this gateway signs with the unit",
    Assumption.A3: "a restarted unit does not sign what it had only accepted",
    Assumption.A4: "refusals and not-ready codes come before anything is signed",
    Assumption.A5: "an accepted request ends within unit.at_work_s",
    Assumption.A6: "the operator reads the portal right",
    Assumption.A7: "after a loss, every till sends what it has no answer for",
    Assumption.A8: "read-back and counter show every receipt at once, also after a restart",
    Assumption.A9: "receipts reach KRA's portal in the order of signing",
    Assumption.A10: "an answer belongs to its request",
}
# Assumptions that a test of the unit alone cannot decide, with what protects the shop instead.
OUT_OF_REACH = {
    Assumption.A6: "about people: a read-back or a counter query contradicts a mistaken decision",
    Assumption.A7: "about people: the page lists the tills that have not sent anything yet",
    Assumption.A9: "about KRA's portal: a decision waits for contact with KRA",
}


class Result(StrEnum):
    """Verdict of the test about one assumption."""

    HOLDS = "HOLDS"
    FAILS = "FAILS"
    NOT_SHOWN = "NOT_SHOWN"


@dataclass(slots=True)
class Findings:
    """Everything that the probes recorded. An assumption that failed once has failed."""

    results: dict[Assumption, Result] = field(default_factory=dict)
    evidence: dict[Assumption, list[str]] = field(default_factory=dict)
    # Codes that the unit gave although it had signed the sale.
    late_codes: set[str] = field(default_factory=set)
    receipts: int = 0

    def record(self, about: Assumption, result: Result, text: str) -> None:
        """Add one observation; FAILS outweighs NOT_SHOWN, and NOT_SHOWN outweighs HOLDS."""
        order = (Result.HOLDS, Result.NOT_SHOWN, Result.FAILS)
        known = self.results.get(about, Result.HOLDS)
        self.results[about] = max(known, result, key=order.index)
        texts = self.evidence.setdefault(about, [])
        if text not in texts:
            texts.append(text)

    def holds(self, about: Assumption, text: str) -> None:
        self.record(about, Result.HOLDS, text)

    def fails(self, about: Assumption, text: str) -> None:
        self.record(about, Result.FAILS, text)

    def not_shown(self, about: Assumption, text: str) -> None:
        self.record(about, Result.NOT_SHOWN, text)

    def result(self, about: Assumption) -> Result:
        return self.results.get(about, Result.NOT_SHOWN)

    def texts(self, about: Assumption) -> Sequence[str]:
        return self.evidence.get(about) or (OUT_OF_REACH.get(about, "not tested"),)


def settings_of(found: Findings, unit: UnitSettings) -> dict[str, Any]:
    """Return the settings of `[unit]` that follow, by name."""

    def is_shown(*needed: Assumption) -> bool:
        return all(found.result(each) is Result.HOLDS for each in needed)

    values: dict[str, Any] = {
        # The resend takes the answer for this sale's, so that has to be true as well.
        "resend": is_shown(Assumption.A1, Assumption.A10),
        "forgets_on_restart": is_shown(Assumption.A3),
        "read_back": is_shown(Assumption.A8),
    }
    for name in ("refused_codes", "not_ready_codes"):
        codes: tuple[str, ...] = getattr(unit, name)
        if found.late_codes & set(codes):
            values[name] = [code for code in codes if code not in found.late_codes]
    return values


def toml_value(value: Any) -> str:
    """Return a setting's value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "[" + ", ".join(f'"{each}"' for each in value) + "]"


def as_json(found: Findings, unit: UnitSettings) -> dict[str, Any]:
    """Return the report for scripts."""
    return {
        "assumptions": [
            {
                "id": str(each),
                "assumption": SENTENCES[each],
                "result": str(found.result(each)),
                "evidence": list(found.texts(each)),
            }
            for each in Assumption
        ],
        "settings": {f"unit.{name}": value for name, value in settings_of(found, unit).items()},
        "receiptsSigned": found.receipts,
    }


WORDS = {Result.HOLDS: "holds", Result.FAILS: "FAILS", Result.NOT_SHOWN: "not shown"}


def as_text(found: Findings, unit: UnitSettings) -> str:
    """Return the report for a terminal."""
    lines = []
    for each in Assumption:
        lines.append(f"{each:3} {WORDS[found.result(each)]:9} {SENTENCES[each]}")
        lines += [f"              {text}" for text in found.texts(each)]
    lines += ["", "[unit]"]
    lines += [f"{name} = {toml_value(v)}" for name, v in settings_of(found, unit).items()]
    return "\n".join(lines)
