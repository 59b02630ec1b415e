"""A Document as ESC/POS bytes, through python-escpos (profiles, code pages); no I/O.

Imported by the print worker's thread only: python-escpos costs about 0.2 s and 17 MB to load, which
a gateway must not pay before it can sell. Only what changes from line to line is sent: at 9600 baud
each byte is a millisecond.
"""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable
from typing import Any

from escpos.exceptions import Error
from escpos.magicencode import Encoder
from escpos.printer import Dummy

from gateway.printing.document import Cut, Document, Drawer, Logo, Qr, Text

log = logging.getLogger(__name__)

_QR_CORRECTION_M = 1
# The length of KRA's address on the sandbox, the longest (etims.md 4.3).
_QR_CONTENT = 110
# A mark stands behind the line with which so many bytes have gone since the last one.
MARK_EVERY = 256
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

    def qr(self, content: str, dots: int) -> None:
        """With a line of white above and below: its quiet zone is four modules, 20 to 24 dots."""
        profile = self.printer.profile
        self.style(align="center")
        if profile.supports("qrCode"):
            self.printer.print_and_feed(1)
            self.printer.qr(content, ec=_QR_CORRECTION_M, size=dots, native=True)
            self.printer.print_and_feed(1)
            return
        # python-escpos puts white around a drawn one. Centred by the printer, which costs no bytes.
        how = self._how()
        try:
            self.printer.qr(content, ec=_QR_CORRECTION_M, size=dots, image_arguments=how)
        except Error as error:
            raise ValueError(f"this printer cannot draw the receipt's QR: {error}") from error

    def logo(self, path: str) -> None:
        self.style(align="center")
        try:
            self.picture(path)
        except (Error, OSError, ValueError) as error:
            # The receipt has to come out; `pos-gateway check` refuses such a picture beforehand.
            log.error("print.logo_failed path=%s reason=%s", path, error)

    def picture(self, path: str) -> None:
        self.printer.image(path, **self._how())

    def _how(self) -> dict[str, Any]:
        raster = self.printer.profile.supports("bitImageRaster")
        return {"impl": "bitImageRaster" if raster else "bitImageColumn", "center": False}


def problem_of(profile: str, logo: str | None) -> str | None:
    """Why receipts would not come out as they must with this profile; None when they would."""
    try:
        hand = _Hand(profile)
    except ValueError as error:
        return f"{error}: the names are in python-escpos's list"
    try:
        hand.qr("x" * _QR_CONTENT, 5)
    except ValueError as error:
        return str(error)
    if logo is not None:
        try:
            hand.picture(logo)
        except (Error, OSError, ValueError) as error:
            return f"{profile!r} cannot print the logo {logo}: {error}"
    return None


def encode(
    document: Document,
    *,
    profile: str = "default",
    cut: bool = True,
    pulse: bytes = b"",
    mark: Callable[[], bytes] | None = None,
) -> bytes:
    """The bytes of one slip; `pulse` is what opens the drawer; `mark`, if given, is called between
    lines for a question that the printer answers when it is there.

    ValueError for an unknown profile, and for a head too narrow for KRA's QR.
    """
    hand = _Hand(profile)
    printer = hand.printer
    marked = 0
    for block in document:
        match block:
            case Text(text=text, align=align, bold=bold, size=size):
                hand.style(align=align, bold=bold, size=size)
                hand.text(text + "\n")
                sent = len(printer.output)
                if mark is not None and sent - marked >= MARK_EVERY:
                    printer._raw(mark())  # noqa: SLF001
                    marked = sent
            case Qr(content=content, module_dots=dots):
                hand.qr(content, dots)
            case Logo(path=path):
                hand.logo(path)
            case Drawer():
                printer._raw(pulse)  # noqa: SLF001  python-escpos has no other way for raw bytes
            case Cut():
                if cut:
                    printer.cut(mode="PART", feed=True)
                else:
                    printer.print_and_feed(5)
    return bytes(printer.output)
