"""Every kept slip again: its bytes, its picture, its QR, its size."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from gateway.printing.document import Qr
from hw_fakes.printer.paper import Picture, QrMark
from tests.conftest import need_tool
from tests.golden.cases import FOLDER, Case, cases
from tests.support.slips import decoded, paper_of, printed

VECTORS = Path(__file__).parents[1] / "data" / "qr-vectors.json"
REGENERATE = "look at it, then: python -m tests.golden.write"
EVERY = pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
DOTS_PER_MM = 8


def opened(case: Case) -> Image.Image:
    return Image.open(io.BytesIO(case.picture_file.read_bytes()))


@EVERY
def test_bytes(case: Case) -> None:
    assert printed(case) == case.bytes_file.read_bytes(), REGENERATE


@EVERY
def test_picture(case: Case) -> None:
    read = paper_of(case.bytes_file.read_bytes())
    assert read.problems == []
    kept = opened(case)
    now = Image.open(io.BytesIO(read.picture(case.dots)))
    assert now.size == kept.size, REGENERATE
    assert ImageChops.logical_xor(now, kept).getbbox() is None, REGENERATE


def test_nothing_is_kept_that_is_not_looked_at() -> None:
    files = {path for case in cases() for path in (case.bytes_file, case.picture_file)}
    assert files == set(FOLDER.iterdir())


@EVERY
def test_the_qr_in_the_picture_is_kras_address(case: Case, tmp_path: Path) -> None:
    zbarimg = need_tool("zbarimg")
    urls = json.loads(VECTORS.read_text())["portalUrl"]
    url = urls["sandbox" if "sandbox" in case.name else "production"]
    signed = any(isinstance(block, Qr) for block in case.document)
    # The vector's address, with these receipts' signature at its end (4.3: nothing between).
    wanted = [url[:-16] + "3FAFG3VM36XTOUJT"] if signed else []
    assert decoded(zbarimg, case.picture_file, tmp_path) == wanted


@EVERY
def test_the_qr_can_be_scanned_by_a_phone(case: Case) -> None:
    """At least 25 mm wide, on the paper, with four modules of white around."""
    slip = paper_of(case.bytes_file.read_bytes()).slip
    picture = opened(case)
    for mark in (item for item in slip.items if isinstance(item, QrMark)):
        box = _code_box(picture)
        assert box[2] - box[0] == box[3] - box[1] >= 25 * DOTS_PER_MM
        assert box[2] - box[0] <= case.dots
        quiet = 4 * mark.module_dots
        around = picture.crop((box[0] - quiet, box[1] - quiet, box[2] + quiet, box[3] + quiet))
        inked = ImageChops.invert(around.convert("L")).getbbox()
        assert inked == (quiet, quiet, quiet + box[2] - box[0], quiet + box[3] - box[1])


def _code_box(picture: Image.Image) -> tuple[int, int, int, int]:
    """Where the code stands: the rows with a finder pattern's unbroken bar of seven modules."""
    width = picture.width
    bar = bytes(5 * 7)
    rows = [n for n in range(picture.height) if bar in picture.crop((0, n, width, n + 1)).convert("L").tobytes()]  # fmt: skip
    # Rules and letters have shorter bars; the code's first and last rows are finder patterns.
    strip = picture.crop((0, rows[0], width, rows[-1] + 1)).convert("L")
    left, _, right, _ = ImageChops.invert(strip).getbbox() or (0, 0, 0, 0)
    return left, rows[0], right, rows[-1] + 1


def test_the_printers_own_qr_command_is_used_where_the_profile_has_it() -> None:
    names = {case.name: case for case in cases()}
    own = paper_of(printed(names["NS-58"])).slip
    drawn = paper_of(printed(names["drawn-qr-58"])).slip
    assert len(own.qrs) == 1
    assert not any(isinstance(item, Picture) for item in own.items)
    assert drawn.qrs == []
    bands = [item for item in drawn.items if isinstance(item, Picture)]
    assert all(band.width >= 25 * DOTS_PER_MM and len(band.rows) < 256 for band in bands)
    assert sum(len(band.rows) for band in bands) >= 25 * DOTS_PER_MM
    # What it costs: at 9600 baud nearly three seconds more.
    assert 2000 < len(drawn.raw) - len(own.raw) < 3000


@pytest.mark.parametrize(("name", "most"), [("NS-80", 2000), ("NS-58", 1600), ("Z-58", 1400)])
def test_a_slip_is_short_on_the_wire(name: str, most: int) -> None:
    (case,) = [case for case in cases() if case.name == name]
    assert len(printed(case)) <= most


def test_the_logo_stands_above_everything() -> None:
    for paper_mm in (80, 58):
        (case,) = [case for case in cases() if case.name == f"logo-PS-{paper_mm}"]
        first = paper_of(printed(case)).slip.items[0]
        assert isinstance(first, Picture)
        assert first.width <= case.dots
        assert first.align == 1
