"""A Document as ESC/POS bytes, through python-escpos (profiles, code pages); no I/O.

A slip is made in pieces, each small enough for the smallest buffer. FS . follows ESC @ always: many printers start
in a mode in which two bytes above 7F are one Chinese character, and then swallow letters.

Imported by the print worker's thread only: python-escpos costs about 0.2 s and 17 MB to load, which
a gateway must not pay before it can sell. Only what changes from line to line is sent: at 9600 baud
each byte is a millisecond.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import segno
from escpos.exceptions import Error
from escpos.magicencode import Encoder
from escpos.printer import Dummy
from PIL import Image, ImageOps

from gateway.devices.pace import CUT_MM, DOTS_PER_MM, LINE_MM, Piece
from gateway.printing.document import Cut, Document, Drawer, Logo, Qr, QrHow, Text

log = logging.getLogger(__name__)

_QR_CORRECTION_M = 1
# The length of KRA's address on the sandbox, the longest (etims.md 4.3).
_QR_CONTENT = 110
# A mark stands behind the line with which so many bytes have gone since the last one.
MARK_EVERY = 256
# A picture goes in bands of about so many bytes, and never of more than 255 rows: some printers read only the low
# byte of the row count.
BAND_BYTES, BAND_ROWS = 512, 255
# The widest head, in dots.
COLUMNS_MAX = 576
# White around a QR, in modules.
QR_BORDER = 4
RASTER_PLAIN, RASTER_DOUBLED = 0, 3
CANCEL_CHINESE = b"\x1c."
RASTER = b"\x1dv0"
# KRA's address at correction M on the sandbox, the longest.
_QR_MODULES = 45
CutHow = Literal["profile", "full", "partial", "feed", "esc-i", "esc-m"]
_CUTS: dict[str, bytes] = {
    "full": b"\x1dV\x00", "partial": b"\x1dV\x01", "feed": b"\x1dVB\x00", "esc-i": b"\x1bi", "esc-m": b"\x1bm",
}  # fmt: skip
# The tables that nearly every printer has, the usual ones first. A profile lists more, and rarer ones
# look just as good to python-escpos: the apostrophe ’ in Greek, ĩ in Vietnamese, é in both.
_TABLES = ("CP437", "CP850", "CP858", "CP1252", "CP852", "CP866")
# One letter for one, so that columns stay in line, for what decomposing does not make readable.
_PLAIN = {
    ord(char): plain
    for chars, plain in (
        ("‘’‹›", "'"), ("“”„«»", '"'), ("–—−", "-"), ("‚", ","), ("•", "*"), ("·", "."), ("€", "E"),
        ("£", "L"), ("¥", "Y"), ("×", "x"), ("ß", "s"), ("øœ", "o"), ("ØŒ", "O"), ("ł", "l"), ("Ł", "L"),
        ("đð", "d"), ("ĐÐ", "D"), ("ı", "i"), ("ŋ", "n"), ("Ŋ", "N"), ("æ", "a"), ("Æ", "A"),
    )
    for char in chars
}  # fmt: skip


class _Tables(Encoder):  # type: ignore[misc]  # python-escpos has no types
    """Picks the code page of a character."""

    def find_suitable_encoding(self, char: str) -> str | None:
        mine = [name for name in _TABLES if name in self.codepages]
        for name in mine or self.codepages:
            if self.can_encode(name, char):
                return name
        return None


class _Hand:
    """One slip in the making; remembers what the printer was last told."""

    def __init__(self, profile: str) -> None:
        try:
            self.printer: Any = Dummy(profile=profile)
        except Exception as error:  # python-escpos raises what its YAML gives it
            raise ValueError(f"unknown printer profile {profile!r}") from error
        pages: dict[str, int] = {}
        for slot, name in self.printer.profile.profile_data["codePages"].items():
            # Some profiles list a table twice; its usual number is the first.
            pages.setdefault(name, int(slot))
        self.tables = _Tables(pages)
        self.printer.magic.encoder = self.tables
        media = {**self.printer.profile.profile_data.get("media", {})}
        if media.get("width", {}).get("pixels") == "Unknown":
            # It would say so on our standard output, at every picture.
            self.printer.profile.profile_data = {
                **self.printer.profile.profile_data,
                "media": {},
            }
        self.printer.hw("INIT")
        self.raw(CANCEL_CHINESE)
        self.align, self.bold, self.size = "left", False, 1

    def style(self, *, align: str, bold: bool = False, size: int = 1) -> None:
        if align != self.align:
            self.printer.set(align=align)
        if size != self.size:
            # Setting the size sets all of a letter's style, so bold is said again after it.
            if size > 1:
                self.printer.set(double_width=True, double_height=True, bold=bold)
            else:
                self.printer.set(normal_textsize=True, bold=bold)
        elif bold != self.bold:
            self.printer.set(bold=bold)
        self.align, self.bold, self.size = align, bold, size

    def text(self, text: str) -> None:
        self.printer.text("".join(self._printable(char) for char in text))

    def _printable(self, char: str) -> str:
        """The character, or one that can stand for it on this printer; never two, never none."""
        if ord(char) < 128 or self.tables.find_suitable_encoding(char):
            return char
        base = unicodedata.normalize("NFD", char)[0].translate(_PLAIN)
        return base if ord(base) < 128 else "?"

    def raw(self, data: bytes) -> None:
        self.printer._raw(data)  # noqa: SLF001  python-escpos has no other way for raw bytes

    def qr(self, content: str, dots: int) -> None:
        """The printer's own QR, with a line of white above and below: its quiet zone is four modules."""
        self.style(align="center")
        self.printer.print_and_feed(1)
        self.printer.qr(content, ec=_QR_CORRECTION_M, size=dots, native=True)
        self.printer.print_and_feed(1)

    def draws_qr(self, how: QrHow) -> bool:
        return how == "picture" or (how == "auto" and not self.printer.profile.supports("qrCode"))

    def drawn_qr(self, content: str, dots: int) -> Iterator[tuple[bytes, int]]:
        """Yield bands of a drawn QR and their heights in dots. In doubled dots: a fourth of the bytes."""
        doubled = self.rasters()
        scale = -(-dots // 2) if doubled else dots
        code = segno.make(content, error="m", micro=False)
        # As much white around as the head leaves.
        for border in range(QR_BORDER, 0, -1):
            side = code.symbol_size(1, border)[0] * scale
            width = side * (2 if doubled else 1)
            if width <= self._head_dots():
                break
        else:
            raise ValueError(
                f"this printer cannot draw the receipt's QR: {width} > {self._head_dots()}"
            )
        rows = [
            [cell for cell in row for _ in range(scale)]
            for row in code.matrix_iter(border=border)
            for _ in range(scale)
        ]
        picture = Image.new("1", (len(rows[0]), len(rows)), 0)
        picture.putdata([1 if cell else 0 for row in rows for cell in row])
        self.style(align="center")
        yield from self._bands(picture, RASTER_DOUBLED if doubled else RASTER_PLAIN)

    def logo(self, path: str) -> Iterator[tuple[bytes, int]]:
        self.style(align="center")
        try:
            yield from self.picture(path)
        except (Error, OSError, ValueError) as error:
            # The receipt has to come out; `pos-gateway check` refuses such a picture beforehand.
            log.error("print.logo_failed path=%s reason=%s", path, error)

    def picture(self, path: str) -> Iterator[tuple[bytes, int]]:
        """Yield bands of a picture file on white ground. OSError, ValueError."""
        with Image.open(path) as file:
            if file.width > self._head_dots():
                raise ValueError(f"{file.width} > {self._head_dots()}")
            flat = Image.new("RGB", file.size, (255, 255, 255))
            coloured = file.convert("RGBA")
            flat.paste(coloured, mask=coloured.getchannel("A"))
        yield from self._bands(ImageOps.invert(flat.convert("L")).convert("1"), RASTER_PLAIN)

    def _bands(self, ink: Image.Image, mode: int) -> Iterator[tuple[bytes, int]]:
        """Yield raster bands, or columns of 24 dots where the profile knows no raster. `ink`: 1 is black."""
        row_bytes = -(-ink.width // 8)
        # The settings before, such as the alignment, stand before the picture.
        before = self.take()
        if not self.rasters():
            self.printer.image(
                ImageOps.invert(ink.convert("L")), impl="bitImageColumn", fragment_height=24
            )
            yield before + self.take(), ink.height
            return
        per_band = max(1, min(BAND_ROWS, BAND_BYTES // row_bytes))
        for top in range(0, ink.height, per_band):
            rows = min(per_band, ink.height - top)
            band = ink.crop((0, top, ink.width, top + rows))
            size = row_bytes.to_bytes(2, "little") + rows.to_bytes(2, "little")
            yield (
                before + RASTER + bytes([mode]) + size + band.tobytes(),
                rows * (2 if mode else 1),
            )
            before = b""

    def take(self) -> bytes:
        """Return what was written since the last time."""
        data = bytes(self.printer.output)
        self.printer.clear()
        return data

    def rasters(self) -> bool:
        return bool(self.printer.profile.supports("bitImageRaster"))

    def _head_dots(self) -> int:
        """The width of the head; without a limit where the profile does not know it."""
        media = self.printer.profile.profile_data.get("media", {})
        pixels = media.get("width", {}).get("pixels")
        return int(pixels) if str(pixels).isdigit() else 10_000


def problem_of(profile: str, logo: str | None, qr: QrHow = "auto") -> str | None:
    """Return why receipts would not come out as they must with this profile; None when they would."""
    try:
        hand = _Hand(profile)
    except ValueError as error:
        return f"{error}: the names are in python-escpos's list"
    try:
        if hand.draws_qr(qr):
            list(hand.drawn_qr("x" * _QR_CONTENT, 4))
    except ValueError as error:
        return str(error)
    if logo is not None:
        try:
            list(hand.picture(logo))
        except (Error, OSError, ValueError) as error:
            return f"{profile!r} cannot print the logo {logo}: {error}"
    return None


def longest_command(profile: str) -> int:
    """Return the bytes of the longest command of a slip: a band of a picture, or 24 rows of dots in columns."""
    try:
        rasters = _Hand(profile).rasters()
    except ValueError:
        rasters = False
    return (BAND_BYTES if rasters else 3 * COLUMNS_MAX) + 48


@dataclass(frozen=True, slots=True)
class Manner:
    """How a printer takes a slip. `cut`: whether it has a cutter, `cut_how` by which command."""

    profile: str = "default"
    cut: bool = True
    cut_how: CutHow = "profile"
    qr: QrHow = "auto"


def encode(
    document: Document, manner: Manner = Manner(), mark: Callable[[], bytes] | None = None
) -> bytes:
    """Return the bytes of one slip; the rest as in `pieces`."""
    return b"".join(piece.data for piece in pieces(document, manner, mark))


def pieces(
    document: Document, manner: Manner = Manner(), mark: Callable[[], bytes] | None = None
) -> list[Piece]:
    """Return one slip in pieces of some hundred bytes; `mark`, if given, is called between lines for a question
    that the printer answers when it is there. A drawer's pulse is no part of a slip.

    ValueError for an unknown profile, and for a head too narrow for KRA's QR.
    """
    slip = _Slip(_Hand(manner.profile), mark)
    hand = slip.hand
    for block in document:
        match block:
            case Text(text=text, align=align, bold=bold, size=size):
                hand.style(align=align, bold=bold, size=size)
                for line in text.split("\n"):
                    hand.text(line + "\n")
                    slip.add(hand.take(), LINE_MM * size)
            case Qr(content=content, module_dots=dots, how=how):
                if hand.draws_qr(manner.qr if how == "auto" else how):
                    for data, height in hand.drawn_qr(content, dots):
                        slip.add(data, height / DOTS_PER_MM)
                else:
                    hand.qr(content, dots)
                    slip.add(hand.take(), (_QR_MODULES * dots) / DOTS_PER_MM + 2 * LINE_MM)
            case Logo(path=path):
                for data, height in hand.logo(path):
                    slip.add(data, height / DOTS_PER_MM)
            case Cut():
                _cut(hand, manner)
                slip.add(hand.take(), CUT_MM)
            case Drawer():
                pass
    return slip.done()


def _cut(hand: _Hand, manner: Manner) -> None:
    if not manner.cut:
        hand.printer.print_and_feed(5)
    elif manner.cut_how == "profile":
        hand.printer.cut(mode="PART", feed=True)
    else:
        # Only this one feeds by itself.
        if manner.cut_how != "feed":
            hand.printer.print_and_feed(6)
        hand.raw(_CUTS[manner.cut_how])


class _Slip:
    """Gathers what is written into pieces."""

    def __init__(self, hand: _Hand, mark: Callable[[], bytes] | None) -> None:
        self.hand = hand
        self._mark = mark
        self._pieces: list[Piece] = []
        self._data, self._mm = b"", 0.0

    def add(self, data: bytes, mm: float) -> None:
        self._data += data
        self._mm += mm
        if len(self._data) >= MARK_EVERY:
            self._end(self._mark)

    def _end(self, mark: Callable[[], bytes] | None) -> None:
        data = self._data + (mark() if mark is not None else b"")
        self._pieces.append(Piece(data, self._mm, asks=mark is not None))
        self._data, self._mm = b"", 0.0

    def done(self) -> list[Piece]:
        """Return all pieces; the last one asks nothing."""
        self._data += self.hand.take()
        if self._data:
            self._end(None)
        return self._pieces
