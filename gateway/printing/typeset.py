"""The typesetter's hand: rules, pairs, wrapping and large lines at a given width, for every slip."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable

from gateway.printing.document import Text


class Typesetter:
    """Sets text in `columns` characters of one width each."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def rule(self, mark: str = "-") -> Text:
        return Text(mark * self.columns)

    def pair(self, left: str, right: str, *, bold: bool = False) -> Text:
        """Two texts at both margins; on two lines or more where they do not fit on one."""
        left = clean(left)
        room = self.columns - len(right) - 1
        if len(left) > room:
            lines = [*self._broken(left, self.columns), f"{right:>{self.columns}}"]
            return Text("\n".join(lines), bold=bold)
        return Text(f"{left:<{room}} {right}", bold=bold)

    def wrap(self, text: str) -> list[str]:
        return self._broken(clean(text), self.columns)

    def wrapped(self, text: str) -> Iterable[Text]:
        return [Text(line) for line in self.wrap(text)]

    def centred(self, text: str, *, bold: bool = False) -> Iterable[Text]:
        return [Text(line, "center", bold=bold) for line in self._even(text, self.columns)]

    def large(self, text: str) -> Iterable[Text]:
        """Centred, bold, at twice the size, so half as many letters on a line."""
        lines = self._even(text, max(1, self.columns // 2))
        return [Text(line, "center", bold=True, size=2) for line in lines]

    @classmethod
    def _even(cls, text: str, width: int) -> list[str]:
        """Lines of about one length: no word alone under a long line."""
        text = clean(text)
        lines = cls._broken(text, width)
        while width > 1 and len(narrower := cls._broken(text, width - 1)) == len(lines):
            lines, width = narrower, width - 1
        return lines

    @staticmethod
    def _broken(text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def clean(text: str) -> str:
    """`text` in characters that each take one column: no control or joining characters, ligatures
    and the like spelled out, and a question mark for what is two columns wide."""
    return "".join(_one_column(char) for char in unicodedata.normalize("NFC", text))


def _one_column(char: str) -> str:
    if char < "\x7f" and char.isprintable():
        return char
    if char.isspace():
        return " "
    if unicodedata.category(char) in ("Cc", "Cf", "Mn", "Me"):
        return ""
    if char > "\xff" and unicodedata.decomposition(char).startswith("<"):
        char = unicodedata.normalize("NFKC", char)
    wide = any(unicodedata.east_asian_width(part) in "WF" for part in char)
    return "?" if wide else char
