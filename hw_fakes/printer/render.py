"""A slip as a picture, dot by dot: 8 dots to the millimetre, as a 203 dpi head prints them."""

from __future__ import annotations

import io

import segno
from PIL import Image, ImageDraw, ImageFont

from hw_fakes.printer.paper import Feed, Line, Picture, QrMark, Slip

FONT_A = (12, 24)
FONT_B = (9, 17)
LINE_GAP = 6
QUIET_MODULES = 4


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in ("DejaVuSansMono.ttf", "LiberationMono-Regular.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def to_png(slip: Slip, *, dots: int = 576) -> bytes:
    """The paper, `dots` wide (576 for 80 mm, 384 for 58 mm), as PNG."""
    pieces = [piece for item in slip.items if (piece := _piece(item, dots)) is not None]
    height = sum(piece.height for piece in pieces) + 40
    paper = Image.new("L", (dots + 40, height), 255)
    top = 20
    for piece in pieces:
        paper.paste(piece, (20, top))
        top += piece.height
    out = io.BytesIO()
    paper.save(out, "PNG")
    return out.getvalue()


def _piece(item: Line | QrMark | Picture | Feed, dots: int) -> Image.Image | None:
    if isinstance(item, Feed):
        return Image.new("L", (dots, max(1, item.dots)), 255)
    if isinstance(item, Line):
        return _line(item, dots)
    art = _qr(item) if isinstance(item, QrMark) else _picture(item)
    strip = Image.new("L", (dots, art.height), 255)
    strip.paste(art, (_left(item.align, art.width, dots), 0))
    return strip


def _left(align: int, width: int, dots: int) -> int:
    return {0: 0, 1: max(0, dots - width) // 2, 2: max(0, dots - width)}[align]


def _line(line: Line, dots: int) -> Image.Image:
    tall = max((run.height for run in line.runs), default=1)
    strip = Image.new("L", (dots, FONT_A[1] * tall + LINE_GAP), 255)
    width = sum(len(r.text) * (FONT_B if r.small else FONT_A)[0] * r.width for r in line.runs)
    left = _left(line.align, width, dots)
    for run in line.runs:
        cell = FONT_B if run.small else FONT_A
        size = (len(run.text) * cell[0], cell[1])
        if not run.text:
            continue
        art = Image.new("L", size, 0 if run.inverse else 255)
        draw = ImageDraw.Draw(art)
        ink = 255 if run.inverse else 0
        for at, char in enumerate(run.text):
            for shift in (0, 1) if run.bold else (0,):
                draw.text((at * cell[0] + shift, 0), char, font=_font(cell[1] - 4), fill=ink)
        if run.underline:
            draw.line((0, cell[1] - 2, size[0], cell[1] - 2), fill=ink)
        art = art.resize((size[0] * run.width, size[1] * run.height), Image.Resampling.NEAREST)
        strip.paste(art, (left, (tall - run.height) * FONT_A[1]))
        left += art.width
    return strip


def _qr(mark: QrMark) -> Image.Image:
    code = segno.make(mark.content, error=mark.level.lower(), micro=False, boost_error=False)
    out = io.BytesIO()
    code.save(out, kind="png", scale=mark.module_dots, border=QUIET_MODULES)
    return Image.open(out).convert("L")


def _picture(picture: Picture) -> Image.Image:
    data = b"".join(bytes(255 - byte for byte in row) for row in picture.rows)
    return Image.frombytes("1", (picture.width, len(picture.rows)), data).convert("L")
