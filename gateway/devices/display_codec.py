"""Two lines of text as the bytes of a customer display. No I/O.

Commands as in the displays' manuals (CD5220 standard mode; Epson mode of the same displays).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Protocol = Literal["escpos", "cd5220"]
# CR ends a line that was cut off, CLR ends CD5220's string mode, ESC @ undoes whatever else was set.
RESET = b"\r\x0c\x1b@"


def frame(lines: Sequence[str], protocol: Protocol, columns: int) -> bytes:
    """The whole screen, written over what stood there: nothing is cleared, so nothing flickers."""
    upper, lower = (*lines, "", "")[:2]
    first, second = (_line(text, columns) for text in (upper, lower))
    if protocol == "cd5220":
        # ESC Q A and ESC Q B write a line each, ended by CR.
        return b"\x1bQA" + first + b"\r" + b"\x1bQB" + second + b"\r"
    # US MD1 overwrite mode, HOM, the line; US $ 1 2, so that a lost byte costs one line only.
    return b"\x1f\x01\x0b" + first + b"\x1f$\x01\x02" + second


def _line(text: str, columns: int) -> bytes:
    """Exactly so many printable bytes: a control character would be a command."""
    clean = "".join(char if " " <= char <= "~" else "?" for char in text[:columns])
    return clean.ljust(columns).encode("ascii")


def both_ends(left: str, right: str, columns: int) -> str:
    """A name at the left and an amount at the right; the amount is never cut."""
    room = max(0, columns - len(right) - 1)
    return f"{left[:room]:<{room}} {right}"[-columns:]
