"""The next step for a slip that was not read, in one sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence

# A part of a reason, and what a person does about it; the first that fits counts.
_STEPS = (
    ("it is too long for one slip",
     "Set silence_s or last_line, so that each receipt of this till ends."),
    ("it has no text that can be read",
     "Set the till to print text instead of a picture (its printer driver: generic, text only), and sell this"
     " slip by hand."),
    ("set code_page", "Set code_page of this capture to the encoding of the till."),
    ("is no text in", "Choose another code page at the till, or remove the letter from the name."),
    ("code page", "Choose another code page at the till, such as 0 (437) or 16 (1252)."),
    ("the data of a command are missing", "Check the cable, and print the slip again."),
    ("is no text", "Check the baud rate and the cable, and print the slip again."),
    ("ESC =", "Set the till so that it switches the printer on again (ESC = 1) before it prints."),
    ("ESC 1D is not known", "Choose an Epson (ESC/POS) printer at the till: this is the language of Star printers."),
    ("ESC 1E is not known", "Choose an Epson (ESC/POS) printer at the till: this is the language of Star printers."),
    ("is not known", "Switch this function off at the till, or ask for the command to be added."),
    ("name it in goods", "If it is an article, add a pattern of its name to goods."),
    ("is not in tax_letters", "Add this mark with KRA's letter to tax_letters."),
    ("is not in payment_methods", "Add this word with its method to payment_methods."),
    ("no pattern fits", "Write a pattern for this line, or run pos-gateway capture learn."),
    ("there are no items", "Run pos-gateway capture learn: the template does not fit this till."),
)  # fmt: skip
# Slips in a row, none of them read, that show a fault of the template.
NONE_READ = 5


def next_step(reason: str | None) -> str | None:
    """Return what to do about a slip with this reason; None where the reason says it."""
    return next((step for part, step in _STEPS if part in (reason or "")), None)


def reads_nothing(device: str, states: Sequence[str]) -> str | None:
    """Return a sentence if the template has read none of the newest slips, whose states these are."""
    if len(states) < NONE_READ or any(state not in ("UNREAD", "DISMISSED") for state in states):
        return None
    return (
        f"The template of {device} has read none of its last {len(states)} slips: propose another one from"
        " them (pos-gateway capture learn), and sell at another till until it fits."
    )
