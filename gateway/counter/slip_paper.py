"""The lines that a till's text makes on paper: encodings, columns, line ends. No I/O.

Text whose encoding is not certain, or that stands over other text, is a doubt: a slip with a doubt is
not signed without a person.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.counter.slip_commands import (
    CODE_PAGES,
    COUNTRIES,
    KATAKANA,
    REPLACED,
    katakana,
)

# Dots of a character of font A at 203 dpi, and the fewest dots of any font: a measure for columns only.
CHARACTER_DOTS, CHARACTER_DOTS_MIN = 12, 8
TAB_COLUMNS = 8
DOUBLE_BYTE = "gb18030"
# Stands for a codec that is not known: letters of ASCII are the same in all of them.
UNKNOWN = "ascii"
# Codecs in which a byte alone means nothing, so that wrong text is found.
_MULTI_BYTE = ("utf-8", "gb18030", "gbk", "gb2312", "big5", "big5hkscs", "cp932", "shift_jis", "euc_kr",
    "euc_jp", "cp949", "cp950")  # fmt: skip
DOUBTS_MAX = 10
# A line of one byte again and again is a rule on every code page.
_RULE = re.compile(rb"([\x80-\xff])\1{4,}")
# Box drawing beside a letter: text of another encoding looks like this.
_BOX_IN_WORD = re.compile(r"\w[\u2500-\u259f]|[\u2500-\u259f]\w")
# Shown of a line or of bytes in a doubt.
SHOWN_MAX = 60


@dataclass(slots=True)
class _Piece:
    """Text from one position on, in dots from the left edge; None: it follows what is there."""

    at: int | None
    text: str = ""


class SlipPaper:
    """`code_page`: a codec of Python for text before any command chooses one; None: not known."""

    def __init__(self, code_page: str | None = None) -> None:
        self._default = code_page
        # Double-byte text of a till that says "Chinese" but not which.
        self._own_double = code_page if code_page in _MULTI_BYTE and code_page != "utf-8" else None
        self.lines: list[str] = []
        self.doubts: list[str] = []
        # Pictures and codes that were printed, and those that were only stored in the printer.
        self.pictures: list[str] = []
        self.stored: list[str] = []
        self._pieces = [_Piece(None)]
        self._text = bytearray()
        # A control byte inside a word.
        self._inside: int | None = None
        self._after_cr = False
        self._moved_back = False
        self.own_units = False
        self.page_mode = False
        # User-defined characters: which there are, and whether they are printed.
        self.user_bytes: set[int] = set()
        self.user_set = False
        self.reset()

    def reset(self) -> None:
        """Apply ESC @: everything as after switching the printer on."""
        self.line_end(if_any=True)
        self._page: int | None = None
        # UTF-8 is switched on; the codec of double-byte text, and the one that is switched on.
        self._utf8 = False
        self._double_codec = self._own_double or DOUBLE_BYTE
        self._double: str | None = None
        self._country = 0
        self._stops: list[int] = []
        self.user_set = False
        self.own_units = False
        self.page_mode = False

    @property
    def is_blank(self) -> bool:
        return not (self._pending or any(self.lines) or self.pictures)

    @property
    def _pending(self) -> bool:
        return bool(self._text) or any(piece.text for piece in self._pieces)

    def doubt(self, reason: str) -> None:
        if reason not in self.doubts and len(self.doubts) < DOUBTS_MAX:
            self.doubts.append(reason)

    # --- bytes ---------------------------------------------------------------------------------------

    def char(self, byte: int) -> None:
        if self._inside is not None:
            if chr(byte).isalnum():
                self.doubt(f"byte {self._inside:02X} is no text")
            self._inside = None
        if self.user_set and byte in self.user_bytes:
            self.doubt(f"byte {byte:02X} prints a character that the till has drawn itself")
        self._after_cr = False
        self._text.append(byte)

    def control(self, byte: int) -> None:
        """Skip a byte that prints nothing. Inside a word it is more likely a damaged letter."""
        if self._text and chr(self._text[-1]).isalnum():
            self._inside = byte

    def tab(self) -> None:
        self._flush()
        piece = self._pieces[-1]
        column = len(piece.text)
        stops = self._stops or range(TAB_COLUMNS, column + TAB_COLUMNS + 1, TAB_COLUMNS)
        stop = next((stop for stop in stops if stop > column), column)
        piece.text += " " * max(2 if piece.text.strip() else 0, stop - column)

    def set_tabs(self, stops: list[int]) -> None:
        self._stops = stops

    def carriage_return(self) -> None:
        """End a line of text: a till that ends its lines with CR alone has set its printer to that."""
        if self._pending:
            self.line_end()
            self._after_cr = True

    def line_feed(self) -> bool:
        """Return True if a line ended here, False for the second byte of CR LF."""
        if self._after_cr:
            self._after_cr = False
            return False
        self.line_end()
        return True

    # --- positions -----------------------------------------------------------------------------------

    def move_to(self, dots: int) -> None:
        """Apply ESC $: the text that follows begins at this position."""
        self._flush()
        if self._pieces[-1].text.strip():
            self._pieces.append(_Piece(dots))
        else:
            self._pieces[-1] = _Piece(dots)

    def move_by(self, dots: int) -> None:
        """Apply ESC \\: at least two blanks where a whole character is skipped."""
        self._flush()
        if dots < 0 and self._pieces[-1].text.strip():
            self.doubt("text is moved back over text")
        elif dots >= CHARACTER_DOTS:
            self._pieces[-1].text += " " * max(2, dots // CHARACTER_DOTS)

    def move_down(self) -> None:
        """Apply GS $ or GS \\ of page mode: what follows is another line."""
        self.line_end(if_any=True)

    def move_back(self) -> None:
        """Apply a feed backwards; text that follows may be printed over text."""
        self._moved_back = any(self.lines)

    # --- encodings -----------------------------------------------------------------------------------

    def choose_page(self, page: int) -> None:
        self._flush()
        self._page = page

    def choose_utf8(self, on: bool) -> None:
        self._flush()
        self._utf8 = on

    def choose_double(self, codec: str | None) -> None:
        """Set the codec of double-byte text, without switching to it; None: the command does not tell."""
        self._double_codec = codec or self._own_double or UNKNOWN

    def switch_double(self, on: bool) -> None:
        self._flush()
        self._double = self._double_codec if on else None

    def choose_country(self, number: int) -> None:
        self._flush()
        self._country = number

    def _flush(self) -> None:
        """Decode what is there as it was meant: a line may have several encodings."""
        self._inside = None
        if self._text:
            data = bytes(self._text)
            self._text.clear()
            self._pieces[-1].text += self._decoded(data)

    def _decoded(self, data: bytes) -> str:
        if data.isascii():
            return self._national(data.decode("ascii"))
        if self._utf8 or self._double is not None:
            return self._strict(data, "utf-8" if self._utf8 else self._double or DOUBLE_BYTE)
        if self._page == KATAKANA:
            return self._checked(katakana(data), data)
        codec = CODE_PAGES.get(self._page, "") if self._page is not None else self._default
        if codec in _MULTI_BYTE:
            return self._strict(data, codec)
        if codec:
            return self._checked(self._national(data.decode(codec, "replace")), data)
        if not _RULE.sub(b"", data).isascii():
            cure = "if the till has a fixed one, set code_page"
            self.doubt(
                f"no code page is chosen for {_hex(data)}: {cure}"
                if self._page is None
                else f"code page {self._page} is not known, of {_hex(data)}: choose another at the till"
            )
        return self._national(data.decode("cp437"))

    def _strict(self, data: bytes, codec: str) -> str:
        try:
            return self._national(data.decode(codec))
        except UnicodeDecodeError:
            self.doubt(
                f"{_hex(data)} is double-byte text of an unknown kind: set code_page (gb18030, big5, ...)"
                if codec == UNKNOWN
                else f"{_hex(data)} is no text in {codec}"
            )
            return data.decode(codec, "replace")

    def _checked(self, text: str, data: bytes) -> str:
        """Doubt a text of a code page that is probably of another encoding."""
        try:
            other = data.decode("utf-8")
        except UnicodeDecodeError:
            if _BOX_IN_WORD.search(text):
                self.doubt(f"{_hex(data)} is no text in the chosen code page")
            return text
        if self._default == "utf-8":
            return self._national(other)
        self.doubt(
            f"{_hex(data)} is {other.strip()[:SHOWN_MAX]!r} in UTF-8, which is not switched on"
        )
        return text

    def _national(self, text: str) -> str:
        if self._country == 0 or not any(char in REPLACED for char in text):
            return text
        if self._country not in COUNTRIES:
            self.doubt(f"the characters of country {self._country} (ESC R) are not known")
            return text
        return text.translate(str.maketrans(REPLACED, COUNTRIES[self._country]))

    # --- lines ---------------------------------------------------------------------------------------

    def line_end(self, *, if_any: bool = False) -> None:
        """Put the pending text on paper; `if_any`: not an empty line."""
        self._flush()
        if if_any and not self._pending:
            self._pieces = [_Piece(None)]
            return
        line = self._joined().rstrip()
        self._pieces = [_Piece(None)]
        if line and self._moved_back:
            self.doubt("the paper is fed back, and text is printed on it once more")
        self.lines.append(line)

    def _joined(self) -> str:
        if len(self._pieces) == 1 and self._pieces[0].at is None:
            return self._pieces[0].text
        pieces = sorted(
            (piece for piece in self._pieces if piece.text.strip()), key=lambda piece: piece.at or 0
        )
        line, end = "", 0
        for piece in pieces:
            at = piece.at or 0
            if line:
                if at < end and not self.own_units:
                    self.doubt("text is printed over text")
                line = line.rstrip()
                line += " " * max(2, at // CHARACTER_DOTS - len(line))
            else:
                line = " " * (at // CHARACTER_DOTS)
            line += piece.text
            end = at + len(piece.text.rstrip()) * CHARACTER_DOTS_MIN
        return line

    def cut(self) -> tuple[list[str], list[str]]:
        """Return the lines and doubts of the slip that ends here, and begin another one."""
        self.line_end(if_any=True)
        lines, doubts = self.lines, self.doubts
        self.lines, self.doubts = [], []
        self.pictures, self.stored = [], []
        self._moved_back = False
        return lines, doubts


def _hex(data: bytes) -> str:
    """Return the bytes above 7F with their neighbours, as a technician reads them."""
    high = [at for at, byte in enumerate(data) if byte > 0x7F]
    return "bytes " + data[high[0] : high[0] + 6].hex(" ").upper()
