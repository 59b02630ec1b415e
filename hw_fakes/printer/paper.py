"""What came out of the printer: slips of lines, QRs and pictures, as text and as measured blocks."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Run:
    """Characters printed in one style."""

    text: str
    bold: bool = False
    width: int = 1
    height: int = 1
    underline: bool = False
    inverse: bool = False
    small: bool = False


@dataclass(slots=True)
class Line:
    runs: list[Run] = field(default_factory=list)
    align: int = 0

    @property
    def text(self) -> str:
        return "".join(run.text for run in self.runs)


@dataclass(slots=True)
class QrMark:
    content: str
    module_dots: int
    level: str
    align: int


@dataclass(slots=True)
class Picture:
    """A raster image: width in dots and rows of packed bits, most significant first."""

    width: int
    rows: list[bytes]
    align: int


@dataclass(slots=True)
class Feed:
    dots: int


Item = Line | QrMark | Picture | Feed


@dataclass(slots=True)
class Slip:
    """One piece of paper, from cut to cut. `raw` are the bytes that made it; `began` is when its ESC @
    was worked off, by the loop's (monotonic) clock."""

    items: list[Item] = field(default_factory=list)
    raw: bytes = b""
    cut: bool = False
    began: float | None = None
    ended: float | None = None

    def text(self, columns: int = 42) -> str:
        """Lines as they stand on the paper; a QR by its content."""
        lines = []
        for item in self.items:
            if isinstance(item, Line):
                width = sum(len(run.text) * run.width for run in item.runs)
                pad = {0: 0, 1: max(0, columns - width) // 2, 2: max(0, columns - width)}[
                    item.align
                ]
                lines.append((" " * pad + item.text).rstrip())
            elif isinstance(item, QrMark):
                lines.append(f"[QR {item.content}]")
            elif isinstance(item, Picture):
                lines.append(f"[PICTURE {item.width}x{len(item.rows)}]")
        return "\n".join(lines)

    @property
    def qrs(self) -> list[str]:
        return [item.content for item in self.items if isinstance(item, QrMark)]


@dataclass(slots=True)
class Paper:
    """The roll: finished slips, and the one that still hangs in the printer. `scraps`: beginnings that
    a power cut left on the paper, in front of what came next."""

    slips: list[Slip] = field(default_factory=list)
    open: Slip = field(default_factory=Slip)
    scraps: list[Slip] = field(default_factory=list)

    def cut(self) -> None:
        self.open.cut = True
        self.slips.append(self.open)
        self.open = Slip()

    def scrap(self) -> None:
        """The printer forgets what it was printing; the paper does not."""
        if self.open.items:
            self.scraps.append(self.open)
        self.open = Slip()
