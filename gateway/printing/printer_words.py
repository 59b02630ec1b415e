"""What is known of a printer, and what that makes its slips, in a cashier's words."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.devices.abilities import Abilities


@dataclass(frozen=True, slots=True)
class Kind:
    """`name`: of the status, stable. `sentence`: for the page."""

    name: str
    sentence: str


CONFIRMS = Kind("CONFIRMS", "It confirms each slip. A slip is called printed only then.")
ANSWERS = Kind(
    "ANSWERS",
    "It says how it is (paper, cover) but does not confirm a slip. A slip is called sent when all of it has left and "
    "the printer is well after it.",
)
MUTE = Kind(
    "MUTE",
    "It answers nothing. A slip is called sent when all of it has left; whether it came out, and whether there is "
    "paper, only you can see.",
)
UNKNOWN = Kind("UNKNOWN", "It is not known yet what this printer answers.")


def kind_of(confirm: str, found: Abilities | None) -> Kind:
    """Return what a printer is by its setting `confirm` and what was found out."""
    if confirm == "none":
        return MUTE
    if confirm != "auto":
        return CONFIRMS
    if found is None:
        return UNKNOWN
    if not found.answers:
        return MUTE
    if found.confirms is None:
        return UNKNOWN
    return CONFIRMS if found.confirms else ANSWERS
