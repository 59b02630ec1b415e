"""What came out of the printer: slips of printed things, measured in dots, as text and as picture.

8 dots to the millimetre (203 dpi). Every item says how far the paper moved for it; that is all the
geometry down the paper. Across it, an item's place is its `x`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

DOTS_PER_MM = 8
# Dots of a character cell: font A and font B.
CELLS = {0: (12, 24), 1: (9, 17)}
# What an empty line is in text(): the paper's feed at the default line spacing.
LINE_DOTS = 30


@dataclass(frozen=True, slots=True)
class Style:
    """How a character is printed. `underline` in dots, `width` and `height` as factors."""

    font: int = 0
    width: int = 1
    height: int = 1
    bold: bool = False
    underline: int = 0
    inverse: bool = False
    upside_down: bool = False
    spacing: int = 0

    @property
    def advance(self) -> int:
        """Dots from one character to the next; the right-side space grows with the width."""
        return (CELLS[self.font][0] + self.spacing) * self.width

    @property
    def rise(self) -> int:
        return CELLS[self.font][1] * self.height


@dataclass(slots=True)
class Glyphs:
    """Characters of one style that stand side by side from `x`."""

    x: int
    text: str
    style: Style

    @property
    def width(self) -> int:
        return len(self.text) * self.style.advance


@dataclass(slots=True)
class Strip:
    """A piece of ESC * image inside a line: `columns` of `rise` dots each, top dot first."""

    x: int
    columns: list[int]
    rise: int

    @property
    def width(self) -> int:
        return len(self.columns)


@dataclass(slots=True)
class Line:
    """One printed line. `height` is how far the paper moved for it."""

    pieces: list[Glyphs | Strip] = field(default_factory=list)
    height: int = LINE_DOTS

    @property
    def text(self) -> str:
        """Column-true: every piece starts in the column (of 12 dots, or 9 where all is font B)
        where it starts on the paper. Large characters are not spread."""
        glyphs = [piece for piece in self.pieces if isinstance(piece, Glyphs)]
        cell = CELLS[1 if glyphs and all(g.style.font == 1 for g in glyphs) else 0][0]
        line = ""
        for piece in glyphs:
            line = line.ljust(piece.x // cell) + piece.text
        return line.rstrip()

    @property
    def styles(self) -> list[Style]:
        return [piece.style for piece in self.pieces if isinstance(piece, Glyphs)]


@dataclass(slots=True)
class QrMark:
    """A QR symbol drawn by the printer. `side` in modules, without a quiet zone."""

    x: int
    content: str
    data: bytes
    module_dots: int
    level: str
    side: int

    @property
    def height(self) -> int:
        return self.side * self.module_dots


@dataclass(slots=True)
class BarcodeMark:
    """A barcode drawn by the printer; `modules` is its pattern of 1 (bar) and 0."""

    x: int
    kind: str
    content: str
    modules: str
    module_dots: int
    bar_dots: int
    hri: int
    font: int

    @property
    def height(self) -> int:
        sides = (self.hri & 1) + (self.hri >> 1 & 1)
        return self.bar_dots + sides * CELLS[self.font][1]


@dataclass(slots=True)
class Picture:
    """A raster image: `width` dots, rows of packed bits, most significant first; printed dots are
    `scale_x` by `scale_y`."""

    x: int
    width: int
    rows: list[bytes]
    scale_x: int = 1
    scale_y: int = 1

    @property
    def height(self) -> int:
        return len(self.rows) * self.scale_y


@dataclass(slots=True)
class Blank:
    """Paper that only moved."""

    height: int


Item = Line | QrMark | BarcodeMark | Picture | Blank


class Ending(StrEnum):
    OPEN = "OPEN"  # still hangs in the printer
    FULL_CUT = "FULL_CUT"
    PARTIAL_CUT = "PARTIAL_CUT"
    TORN = "TORN"  # by hand, or with the roll that was taken out


@dataclass(slots=True)
class Slip:
    """One piece of paper. `raw` are the bytes that were worked off since the piece before it."""

    paper_mm: int = 80
    dots: int = 576
    number: int = 1
    items: list[Item] = field(default_factory=list)
    raw: bytes | bytearray = field(default_factory=bytearray)
    ending: Ending = Ending.OPEN

    @property
    def cut(self) -> bool:
        return self.ending in (Ending.FULL_CUT, Ending.PARTIAL_CUT)

    @property
    def length_mm(self) -> float:
        return sum(item.height for item in self.items) / DOTS_PER_MM

    @property
    def has_print(self) -> bool:
        return any(not isinstance(item, Blank) for item in self.items)

    @property
    def qrs(self) -> list[str]:
        return [item.content for item in self.items if isinstance(item, QrMark)]

    @property
    def lines(self) -> list[Line]:
        return [item for item in self.items if isinstance(item, Line)]

    def text(self) -> str:
        """Lines where they stand across the paper; symbols and images by what they are."""
        out: list[str] = []
        images = 0
        for item in self.items:
            match item:
                case Line(pieces=[Strip(), *_]):
                    images += 1
                    if images == 1:  # a column image is many lines of strips: named once
                        out.append("[IMAGE]")
                    continue
                case Line():
                    out.append(item.text)
                case QrMark():
                    out.append(f"[QR: {item.content}]")
                case BarcodeMark():
                    out.append(f"[BARCODE {item.kind}: {item.content}]")
                case Picture():
                    out.append(f"[IMAGE {item.width}x{len(item.rows)}]")
                case Blank():
                    out += [""] * round(item.height / LINE_DOTS)
            images = 0
        return "\n".join(out).strip("\n")

    def png(self) -> bytes:
        """The piece of paper as it looks, one pixel to a dot, as PNG."""
        from hw_fakes.printer.render import to_png  # Pillow only where a picture is asked for

        return to_png(self)


class Paper:
    """What left the printer: finished `slips`, and `open`, the piece that still hangs in it."""

    def __init__(self, paper_mm: int = 80) -> None:
        self.paper_mm = paper_mm
        self.dots = 576 if paper_mm >= 80 else 384
        self.slips: list[Slip] = []
        self.open = self._blank_slip()

    def _blank_slip(self) -> Slip:
        return Slip(self.paper_mm, self.dots, len(self.slips) + 1)

    def text(self) -> str:
        """All pieces, one after the other."""
        pieces = [*self.slips, *([self.open] if self.open.has_print else [])]
        return "\n- - - 8< - - -\n".join(slip.text() for slip in pieces)

    def separate(self, ending: Ending, *, below_dots: int = 0) -> bool:
        """Parts the open piece. The last `below_dots` stay with the printer: the cutter sits above
        the head. True if that went through something printed."""
        done = self.open
        keep, through = _split(done.items, below_dots)
        done.ending = ending
        done.raw = bytes(done.raw)
        self.slips.append(done)
        self.open = self._blank_slip()
        self.open.items = keep
        return through


def _split(items: list[Item], below_dots: int) -> tuple[list[Item], bool]:
    """Takes the last `below_dots` off `items`; what was taken, and whether print was on the line.
    A printed thing on the line goes to the side with the larger part."""
    below: list[Item] = []
    left = below_dots
    while items and left > 0:
        item = items[-1]
        if item.height <= left:
            below.insert(0, items.pop())
            left -= item.height
        elif isinstance(item, Blank):
            item.height -= left
            below.insert(0, Blank(left))
            left = 0
        else:
            if left * 2 > item.height:
                below.insert(0, items.pop())
            return below, True
    return below, False
