"""Lengths of the printer commands that put no text on paper. Tables only.

From the ESC/POS command references of common receipt printers, and for the commands that only clones
have, from their manuals. A command whose length depends on its data is read by `slip_reader`.
"""

from __future__ import annotations

# Parameter bytes after ESC and the command.
ESC_LENGTHS = {
    "\x0c": 0, " ": 1, "!": 1, "%": 1, "-": 1, "0": 0, "1": 0, "2": 0, "3": 1, "4": 0, "5": 0, "7": 3,
    "8": 2, "<": 0, "?": 1, "A": 1, "B": 2, "E": 1, "G": 1, "M": 1, "T": 1, "U": 1,
    "V": 1, "W": 8, "a": 1, "c": 2, "f": 2, "o": 0, "q": 0, "r": 1, "z": 1, "{": 1,
}  # fmt: skip
# After GS.
GS_LENGTHS = {
    "!": 1, "#": 1, "/": 1, ":": 0, "<": 0, "A": 2, "B": 1, "E": 1, "H": 1, "L": 2, "P": 2, "T": 1, "W": 2,
    "Z": 1, "^": 3, "b": 1, "c": 0, "f": 1, "h": 1, "j": 1, "w": 1, "y": 1, "z": 3, "|": 1,
}  # fmt: skip
# After FS. FS 2 defines one character of 24 x 24 dots.
FS_LENGTHS = {"!": 1, "-": 1, "2": 74, "?": 2, "S": 2, "W": 1, "p": 2}
# After DLE DC4, by its function: a pulse, power off, buzzer, status on request, buffers cleared.
DC4_LENGTHS = {1: 2, 2: 2, 3: 5, 7: 1, 8: 7}
# Commands of variable length, which `slip_reader` handles one by one.
ESC_HANDLED = frozenset("@tRdJeKimpuv*D&(=Z9C$\\LS")
GS_HANDLED = frozenset("Vra(I8v*kCDQg$\\")
FS_HANDLED = frozenset("(&.Cqg")
# Bytes of data for each column of a picture by ESC *, by its mode.
COLUMN_BYTES = {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 32: 3, 33: 3, 38: 3, 39: 3, 40: 3,
    71: 6, 72: 6, 73: 6}  # fmt: skip

# Code pages by the number after ESC t that the makers agree on, as far as Python has them.
CODE_PAGES = {
    0: "cp437", 2: "cp850", 3: "cp860", 4: "cp863", 5: "cp865", 13: "cp857", 14: "cp737", 15: "iso8859_7",
    16: "cp1252", 17: "cp866", 18: "cp852", 19: "cp858", 21: "cp874", 32: "cp720", 33: "cp775", 34: "cp855",
    35: "cp861", 36: "cp862", 37: "cp864", 38: "cp869", 39: "iso8859_2", 40: "iso8859_15", 44: "cp1125",
    45: "cp1250", 46: "cp1251", 47: "cp1253", 48: "cp1254", 49: "cp1255", 50: "cp1256", 51: "cp1257",
    52: "cp1258", 53: "kz1048",
}  # fmt: skip
KATAKANA = 1
# Page 1: rules and graphics, half-width katakana (FF61 to FF9F), graphics and kanji for dates.
_KATAKANA_80 = "▁▂▃▄▅▆▇█▏▎▍▌▋▊▉┼┴┬┤├▔─│▕┌┐└┘╭╮╰╯"
_KATAKANA_E0 = "═╞╪╡◢◣◥◤♠♥♦♣●○╱╲╳円年月日時分秒〒市区町村人▒ "
# The twelve ASCII characters that ESC R replaces, and by what, for each of its countries.
REPLACED = "#$@[\\]^`{|}~"
COUNTRIES = {
    0: REPLACED, 1: "#$à°ç§^`éùè¨", 2: "#$§ÄÖÜ^`äöüß", 3: "£$@[\\]^`{|}~", 4: "#$@ÆØÅ^`æøå~",
    5: "#¤ÉÄÖÅÜéäöåü", 6: "#$@°\\é^ùàòèì", 7: "₧$@¡Ñ¿^`¨ñ}~", 8: "#$@[¥]^`{|}~", 9: "#¤ÉÆØÅÜéæøåü",
    10: "#$ÉÆØÅÜéæøåü", 11: "#$á¡Ñ¿é`íñóú", 12: "#$á¡Ñ¿éüíñóú", 13: "#$@[₩]^`{|}~",
    15: "#¥@[\\]^`{|}~",
}  # fmt: skip


def katakana(data: bytes) -> str:
    """Return the text of bytes in code page 1."""
    return "".join(_katakana(byte) for byte in data)


def _katakana(byte: int) -> str:
    if byte < 0x80:
        return chr(byte)
    if byte < 0xA0:
        return _KATAKANA_80[byte - 0x80]
    if byte < 0xE0:
        return " " if byte == 0xA0 else chr(0xFF61 + byte - 0xA1)
    return _KATAKANA_E0[byte - 0xE0]


def begins(lead: int, byte: int) -> bool:
    """Return whether these two bytes begin a command."""
    command = chr(byte)
    match lead:
        case 0x1B:
            return command in ESC_LENGTHS or command in ESC_HANDLED
        case 0x1D:
            return command in GS_LENGTHS or command in GS_HANDLED
        case 0x1C:
            return command in FS_LENGTHS or command in FS_HANDLED
        case _:
            return byte in (0x04, 0x05, 0x14)
