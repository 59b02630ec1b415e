"""A slip as a list of blocks, between what it says (layout) and how a printer takes it (escpos)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Align = Literal["left", "center", "right"]
# By the printer's own command, as a picture, or as is right for the printer.
QrHow = Literal["auto", "native", "picture"]


@dataclass(frozen=True, slots=True)
class Text:
    """One or more printed lines; `size` 2 is twice as wide and high."""

    text: str
    align: Align = "left"
    bold: bool = False
    size: int = 1


@dataclass(frozen=True, slots=True)
class Qr:
    """A QR with this content. Module size in dots, error correction M (etims.md 4.3)."""

    content: str
    module_dots: int = 5
    how: QrHow = "auto"


@dataclass(frozen=True, slots=True)
class Logo:
    """A picture file, black on white, printed as dots."""

    path: str


@dataclass(frozen=True, slots=True)
class Drawer:
    """Open the cash drawer, where one hangs on the printer."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of the slip."""


Block = Text | Qr | Logo | Drawer | Cut
Document = tuple[Block, ...]
