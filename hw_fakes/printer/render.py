"""A slip as a picture, dot by dot: 8 dots to the millimetre, as a 203 dpi head prints them."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import barcode
import segno
from PIL import Image, ImageChops, ImageDraw, ImageFont

from hw_fakes.printer.paper import Feed, Line, Picture, QrMark, Run, Slip

FONT_A = (12, 24)
FONT_B = (9, 17)
LINE_DOTS = 30
MARGIN = 32
# One typeface on every machine, so that one slip is one picture: it comes with python-barcode.
TYPEFACE = Path(barcode.__file__).parent / "fonts" / "DejaVuSansMono.ttf"


def to_png(slip: Slip, *, dots: int = 576) -> bytes:
    """The paper, `dots` wide (576 for 80 mm, 384 for 58 mm), as PNG."""
    pieces = [piece for item in slip.items if (piece := _piece(item, dots)) is not None]
    height = sum(piece.height for piece in pieces) + 2 * MARGIN
    paper = Image.new("1", (dots + 2 * MARGIN, height), 1)
    top = MARGIN
    for piece in pieces:
        paper.paste(piece, (MARGIN, top))
        top += piece.height
    out = io.BytesIO()
    paper.save(out, "PNG", optimize=True)
    return out.getvalue()


def _piece(item: Line | QrMark | Picture | Feed, dots: int) -> Image.Image | None:
    if isinstance(item, Feed):
        return Image.new("1", (dots, max(1, item.dots)), 1)
    if isinstance(item, Line):
        return _line(item, dots)
    art = _qr(item) if isinstance(item, QrMark) else _picture(item)
    strip = Image.new("1", (dots, art.height), 1)
    strip.paste(art, (_left(item.align, art.width, dots), 0))
    return strip


def _left(align: int, width: int, dots: int) -> int:
    return {0: 0, 1: max(0, dots - width) // 2, 2: max(0, dots - width)}[align]


def _line(line: Line, dots: int) -> Image.Image:
    """A line, or as many as its letters need: a head prints none beyond its last dot."""
    rows: list[list[Image.Image]] = [[]]
    used = 0
    for run in line.runs:
        for char in run.text:
            cell = _cell(char, run)
            if used + cell.width > dots:
                rows.append([])
                used = 0
            rows[-1].append(cell)
            used += cell.width
    strips = [_row(row, line.align, dots) for row in rows]
    whole = Image.new("1", (dots, sum(strip.height for strip in strips)), 1)
    top = 0
    for strip in strips:
        whole.paste(strip, (0, top))
        top += strip.height
    return whole


def _row(cells: list[Image.Image], align: int, dots: int) -> Image.Image:
    tall = max((cell.height for cell in cells), default=0)
    strip = Image.new("1", (dots, max(LINE_DOTS, tall)), 1)
    left = _left(align, sum(cell.width for cell in cells), dots)
    for cell in cells:
        strip.paste(cell, (left, tall - cell.height))
        left += cell.width
    return strip


def _cell(char: str, run: Run) -> Image.Image:
    return _glyph(char, run.small, run.bold, run.underline, run.inverse, run.width, run.height)


@cache
def _glyph(
    char: str, small: bool, bold: bool, underline: bool, inverse: bool, width: int, height: int
) -> Image.Image:
    size = FONT_B if small else FONT_A
    art = Image.new("1", size, 1)
    draw = ImageDraw.Draw(art)
    draw.fontmode = "1"
    for shift in (0, 1) if bold else (0,):
        draw.text((shift, 0), char, font=_font(size[1] - 4), fill=0)
    if underline:
        draw.line((0, size[1] - 2, size[0], size[1] - 2), fill=0)
    if inverse:
        art = ImageChops.invert(art)
    return art.resize((size[0] * width, size[1] * height), Image.Resampling.NEAREST)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(TYPEFACE), size, layout_engine=ImageFont.Layout.BASIC)


def _qr(mark: QrMark) -> Image.Image:
    code = segno.make(mark.content, error=mark.level.lower(), micro=False, boost_error=False)
    out = io.BytesIO()
    code.save(out, kind="png", scale=mark.module_dots, border=0)
    return Image.open(out).convert("1")


def _picture(picture: Picture) -> Image.Image:
    data = b"".join(bytes(255 - byte for byte in row) for row in picture.rows)
    return Image.frombytes("1", (picture.width, len(picture.rows)), data)
