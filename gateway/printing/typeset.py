"""The typesetter's hand: rules, pairs and wrapping at a given width. Receipts and reports share it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from gateway.printing.document import Align, Text


class Typesetter:
    def __init__(self, columns: int) -> None:
        self.columns = columns

    def rule(self) -> Text:
        return Text("-" * self.columns)

    def pair(self, left: str, right: str, *, bold: bool = False) -> Text:
        """Two texts at both margins; on two lines where they do not fit on one."""
        room = self.columns - len(right) - 1
        if len(left) > room:
            return Text(f"{left[: self.columns]}\n{right:>{self.columns}}", bold=bold)
        return Text(f"{left:<{room}} {right}", bold=bold)

    def wrap(self, text: str) -> list[str]:
        return textwrap.wrap(text, self.columns, break_long_words=True) or [""]

    def wrapped(self, text: str) -> Iterable[Text]:
        return [Text(line) for line in self.wrap(text)]

    def centred(self, text: str) -> Iterable[Text]:
        align: Align = "center"
        return [Text(line, align) for line in self.wrap(text)]
