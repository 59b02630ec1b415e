"""Which character a byte is: code pages (ESC t) and the national sets (ESC R) of Epson's manuals."""

from __future__ import annotations

# ESC t's numbers. Kanji and the three Thai pages of their own are left out.
CODE_PAGES = {
    0: "cp437", 2: "cp850", 3: "cp860", 4: "cp863", 5: "cp865", 13: "cp857", 14: "cp737",
    15: "iso8859_7", 16: "cp1252", 17: "cp866", 18: "cp852", 19: "cp858", 21: "cp874",
    32: "cp720", 33: "cp775", 34: "cp855", 35: "cp861", 36: "cp862", 37: "cp864", 38: "cp869",
    39: "iso8859_2", 40: "iso8859_15", 44: "cp1125", 45: "cp1250", 46: "cp1251", 47: "cp1253",
    48: "cp1254", 49: "cp1255", 50: "cp1256", 51: "cp1257", 52: "cp1258", 53: "kz1048",
}  # fmt: skip

# The twelve ASCII places that ESC R gives other characters, and what each country has there.
PLACES = "#$@[\\]^`{|}~"
NATIONAL = {
    0: "#$@[\\]^`{|}~",  # USA
    1: "#$à°ç§^`éùè¨",  # France
    2: "#$§ÄÖÜ^`äöüß",  # Germany
    3: "£$@[\\]^`{|}~",  # UK
    4: "#$@ÆØÅ^`æøå~",  # Denmark I
    5: "#¤ÉÄÖÅÜéäöåü",  # Sweden
    6: "#$@°\\é^ùàòèì",  # Italy
    7: "₧$@¡Ñ¿^`¨ñ}~",  # Spain I
    8: "#$@[¥]^`{|}~",  # Japan
    9: "#¤ÉÆØÅÜéæøåü",  # Norway
    10: "#$ÉÆØÅÜéæøåü",  # Denmark II
    11: "#$á¡Ñ¿é`íñóú",  # Spain II
    12: "#$á¡Ñ¿éüíñóú",  # Latin America
    13: "#$@[₩]^`{|}~",  # Korea
    14: "#$ŽŠĐĆČžšđćč",  # Slovenia, Croatia
    15: "#¥@[\\]^`{|}~",  # China
}


def character(byte: int, code_page: int, national: int) -> tuple[str, str | None]:
    """The character of a byte, and what is wrong where the page or set is not known."""
    if byte < 0x80:
        char = chr(byte) if byte != 0x7F else " "
        at = PLACES.find(char)
        if at < 0 or national == 0:
            return char, None
        if national not in NATIONAL:
            return char, f"national set {national} is not known"
        return NATIONAL[national][at], None
    codec = CODE_PAGES.get(code_page)
    if codec is None:
        return bytes([byte]).decode("cp437"), f"code page {code_page} is not known"
    try:
        return bytes([byte]).decode(codec), None
    except UnicodeDecodeError:
        return " ", f"byte {byte:#04x} is no character of code page {code_page}"
