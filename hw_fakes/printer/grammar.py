"""Cuts the byte stream into ESC/POS commands, one byte at a time.

Knows how long every command is and nothing of what it does. That is enough to tell a real-time
request (DLE EOT) from the same three bytes inside an image or a QR, at the moment it is received and
whatever waits before it.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

ESC, FS, GS, DLE = 0x1B, 0x1C, 0x1D, 0x10
EOT, ENQ, DC4 = 0x04, 0x05, 0x14
PREFIXES = {ESC: "ESC", FS: "FS", GS: "GS"}
CONTROLS = {0x00: "NUL", 0x09: "HT", 0x0A: "LF", 0x0C: "FF", 0x0D: "CR", 0x18: "CAN"}
# Of a longer payload only this much is kept; the rest is swallowed. A broken length field (a lost
# byte) can claim gigabytes.
PAYLOAD_MAX_BYTES = 4 * 1024 * 1024

# Commands with a fixed number of bytes after their name.
FIXED: dict[str, int] = {
    **dict.fromkeys(["ESC 2", "ESC @", "ESC L", "ESC S", "ESC i", "ESC m", "ESC v", "ESC <"], 0),
    **dict.fromkeys([f"ESC {c}" for c in " !-%3=?EGJKMRTUVadertu{"], 1),
    **dict.fromkeys(["ESC $", "ESC \\", "ESC c", "ESC B"], 2),
    **dict.fromkeys(["ESC p"], 3),
    **dict.fromkeys(["ESC W"], 8),
    **dict.fromkeys(["GS :", "GS c"], 0),
    **dict.fromkeys([f"GS {c}" for c in "!/BEHITabfhjrwx"], 1),
    **dict.fromkeys(["GS $", "GS L", "GS P", "GS W", "GS \\"], 2),
    **dict.fromkeys(["GS ^", "GS z"], 3),
    **dict.fromkeys(["FS &", "FS ."], 0),
    **dict.fromkeys(["FS !", "FS -", "FS C", "FS W"], 1),
    **dict.fromkeys(["FS ?", "FS S", "FS p"], 2),
    **dict.fromkeys(["FS 2"], 74),
}
# Real-time requests with one parameter, by DLE's second byte; these two EOTs have a second one.
EOT_WITH_TWO = (7, 8, 18)
# DLE DC4 functions and how many bytes follow each.
DC4_LENGTHS = {1: 2, 2: 2, 3: 5, 7: 1, 8: 7}

Bytes = Generator[None, int, bytes]


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `name` as the manuals write it, `args` behind the name, `raw` all its bytes."""

    name: str
    args: bytes
    raw: bytes
    real_time: bool = False


class Grammar:
    """`feed` a byte; a Command comes back when that byte was its last."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._length = 0
        self._done: Command | None = None
        self._machine = self._commands()
        next(self._machine)

    @property
    def partial_bytes(self) -> int:
        """How many bytes of an unfinished command are in."""
        return self._length

    def feed(self, byte: int) -> Command | None:
        self._length += 1
        if len(self._raw) < PAYLOAD_MAX_BYTES:
            self._raw.append(byte)
        self._done = None
        self._machine.send(byte)
        return self._done

    def _finish(self, name: str, args: bytes = b"", *, real_time: bool = False) -> None:
        self._done = Command(name, args, bytes(self._raw), real_time)
        self._raw.clear()
        self._length = 0

    def _commands(self) -> Generator[None, int, None]:
        while True:
            byte = yield
            if byte >= 0x20:
                self._finish("text", bytes([byte]))
            elif byte in PREFIXES:
                yield from self._named(PREFIXES[byte])
            elif byte == DLE:
                yield from self._dle()
            else:
                self._finish(CONTROLS.get(byte, f"control {byte:#04x}"))

    def _named(self, prefix: str) -> Generator[None, int, None]:
        second = yield
        name = f"{prefix} {chr(second)}" if 0x20 <= second < 0x7F else f"{prefix} {second:#04x}"
        if second == ord("("):
            name += chr((yield))
            self._finish(name, (yield from _counted()))
        elif name in FIXED:
            self._finish(name, (yield from _take(FIXED[name])))
        elif name in VARIABLE:
            self._finish(name, (yield from VARIABLE[name]()))
        else:
            self._finish("unknown", name.encode())

    def _dle(self) -> Generator[None, int, None]:
        second = yield
        if second == EOT:
            which = yield
            more = yield from _take(1 if which in EOT_WITH_TWO else 0)
            self._finish("DLE EOT", bytes([which]) + more, real_time=True)
        elif second == ENQ:
            self._finish("DLE ENQ", bytes([(yield)]), real_time=True)
        elif second == DC4:
            which = yield
            more = yield from _take(DC4_LENGTHS.get(which, 0))
            self._finish("DLE DC4", bytes([which]) + more, real_time=True)
        else:
            self._finish("unknown", f"DLE {second:#04x}".encode())


def _take(count: int) -> Bytes:
    data = bytearray()
    for _ in range(count):
        byte = yield
        if len(data) < PAYLOAD_MAX_BYTES:
            data.append(byte)
    return bytes(data)


def _until_nul() -> Bytes:
    data = bytearray()
    while byte := (yield):
        if len(data) < PAYLOAD_MAX_BYTES:
            data.append(byte)
    return bytes(data)


def word(low: int, high: int) -> int:
    """The manuals' nL + nH x 256."""
    return low | high << 8


def _counted() -> Bytes:
    """pL pH and so many bytes; only these are kept."""
    head = yield from _take(2)
    return (yield from _take(word(*head)))


def _large() -> Bytes:
    """GS 8 L p1..p4 and so many bytes: the graphics command for what is larger than 64 KiB."""
    letter = yield from _take(1)
    head = yield from _take(4)
    return letter + (yield from _take(int.from_bytes(head, "little")))


def _bit_image() -> Bytes:
    """ESC * m nL nH: n columns of one byte, or of three for the 24-dot modes."""
    head = yield from _take(3)
    return head + (yield from _take(word(head[1], head[2]) * (3 if head[0] >= 32 else 1)))


def _raster() -> Bytes:
    """GS v 0 m xL xH yL yH: x bytes by y rows."""
    head = yield from _take(6)
    return head + (yield from _take(word(head[2], head[3]) * word(head[4], head[5])))


def _barcode() -> Bytes:
    """GS k: kinds below 65 end in NUL, the others are counted."""
    kind = yield from _take(1)
    if kind[0] < 65:
        return kind + (yield from _until_nul())
    count = yield from _take(1)
    return kind + (yield from _take(count[0]))


def _cut() -> Bytes:
    """GS V m, and n for the forms that feed first."""
    mode = yield from _take(1)
    return mode + (yield from _take(1 if mode[0] >= 65 else 0))


def _tabs() -> Bytes:
    """ESC D n1..nk NUL, at most 32."""
    return (yield from _until_nul())


def _characters() -> Bytes:
    """ESC & y c1 c2 and per character x and x times y bytes: characters of one's own."""
    head = yield from _take(3)
    data = bytearray(head)
    for _ in range(head[1], head[2] + 1):
        width = yield from _take(1)
        data += width + (yield from _take(width[0] * head[0]))
    return bytes(data)


def _stored_image() -> Bytes:
    """GS * x y: x by y bytes of eight rows."""
    head = yield from _take(2)
    return head + (yield from _take(head[0] * head[1] * 8))


def _nv_images() -> Bytes:
    """FS q n and per image xL xH yL yH and x by y by eight bytes."""
    count = yield from _take(1)
    data = bytearray(count)
    for _ in range(count[0]):
        head = yield from _take(4)
        size = word(head[0], head[1]) * word(head[2], head[3]) * 8
        data += head + (yield from _take(size))
    return bytes(data)


def _counter() -> Bytes:
    """GS g 0 m nL nH and GS g 2 m nL nH: maintenance counters."""
    return (yield from _take(4))


VARIABLE = {
    "ESC *": _bit_image,
    "ESC D": _tabs,
    "ESC &": _characters,
    "GS 8": _large,
    "GS V": _cut,
    "GS k": _barcode,
    "GS v": _raster,
    "GS *": _stored_image,
    "GS g": _counter,
    "FS q": _nv_images,
}
