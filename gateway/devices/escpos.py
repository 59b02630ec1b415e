"""A Document as ESC/POS bytes, through python-escpos (profiles, code pages); no I/O.

Imported by the print worker's thread only: python-escpos costs about 0.2 s and 17 MB to load, which
a gateway must not pay before it can sell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from escpos.printer import Dummy

from gateway.printing.document import Cut, Document, Drawer, Logo, Qr, Text

_QR_CORRECTION_M = 1
# A mark stands behind the line with which so many bytes have gone since the last one.
MARK_EVERY = 256


def encode(
    document: Document,
    *,
    profile: str = "default",
    cut: bool = True,
    pulse: bytes = b"",
    mark: Callable[[], bytes] | None = None,
) -> bytes:
    """The bytes of one slip; `pulse` is what opens the drawer; `mark`, if given, is called between
    lines for a question that the printer answers when it is there. ValueError for an unknown profile.
    """
    try:
        printer: Any = Dummy(profile=profile)
    except Exception as error:  # python-escpos raises what its YAML gives it
        raise ValueError(f"unknown printer profile {profile!r}") from error
    printer.hw("INIT")
    marked = 0
    for block in document:
        match block:
            case Text(text=text, align=align, bold=bold, size=size):
                printer.set(
                    align=align,
                    bold=bold,
                    normal_textsize=size == 1,
                    double_width=size > 1,
                    double_height=size > 1,
                )
                printer.text(text + "\n")
                size = len(printer.output)
                if mark is not None and size - marked >= MARK_EVERY:
                    printer._raw(mark())  # noqa: SLF001
                    marked = size
            case Qr(content=content, module_dots=dots):
                printer.set(align="center", bold=False, normal_textsize=True)
                native = bool(printer.profile.supports("qrCode"))
                printer.qr(
                    content, ec=_QR_CORRECTION_M, size=dots, native=native, center=not native
                )
            case Logo(path=path):
                printer.set(align="center")
                printer.image(path, impl="bitImageRaster")
            case Drawer():
                printer._raw(pulse)  # noqa: SLF001  python-escpos has no other way for raw bytes
            case Cut():
                if cut:
                    printer.cut(mode="PART", feed=True)
                else:
                    printer.print_and_feed(5)
    return bytes(printer.output)
