"""Two lines of text as the bytes of a customer display. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Protocol = Literal["escpos", "cd5220"]
CLEAR = b"\x0c"


def frame(lines: Sequence[str], protocol: Protocol, columns: int) -> bytes:
    """The whole screen, rewritten: what stood there before does not matter."""
    upper, lower = (*lines, "", "")[:2]
    first, second = (
        text[:columns].ljust(columns).encode("ascii", "replace") for text in (upper, lower)
    )
    if protocol == "cd5220":
        # ESC Q A and ESC Q B write a line each, ended by CR.
        return b"\x1bQA" + first + b"\r" + b"\x1bQB" + second + b"\r"
    # Overwrite mode, cleared: the text runs from the upper line into the lower.
    return b"\x1f\x01" + CLEAR + first + second


def both_ends(left: str, right: str, columns: int) -> str:
    """A name at the left and an amount at the right; the amount is never cut."""
    room = max(0, columns - len(right) - 1)
    return f"{left[:room]:<{room}} {right}"[-columns:]
