"""What such tills print: three styles of receipt, their reports, and noise. Amounts in cents."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

INIT, CUT = b"\x1b@", b"\x1dV\x42\x00"
BOLD, PLAIN, BIG, CENTRE, LEFT = (
    b"\x1bE\x01",
    b"\x1bE\x00",
    b"\x1b!\x30",
    b"\x1ba\x01",
    b"\x1ba\x00",
)
NORMAL = b"\x1b!\x00"
PULSE = b"\x1bp\x00\x19\xfa"
SHOP = "MAMA MBOGA STORES"
STYLES = ("plain", "fancy", "no-cut")


@dataclass(frozen=True, slots=True)
class TillItem:
    name: str
    cents: int
    quantity: int = 1
    mark: str = "V"


@dataclass(frozen=True, slots=True)
class TillSale:
    """One sale as the till has it in its memory."""

    number: str = "0001"
    date: str = "25/11/2026 10:15"
    items: tuple[TillItem, ...] = (
        TillItem("SODA 500ML", 12000, 2),
        TillItem("BREAD 400G", 6500, mark="Z"),
    )
    tender: str = "CASH"
    paid: int | None = None
    extra: tuple[str, ...] = field(default=())

    @property
    def total(self) -> int:
        return sum(item.cents for item in self.items)


def money(cents: int) -> str:
    return f"{cents // 100:,}.{cents % 100:02d}"


def pair(left: str, right: str, columns: int = 32) -> str:
    """Left and right in one line, with two blanks between at least."""
    return left + " " * max(2, columns - len(left) - len(right)) + right


def lines_of(sale: TillSale, *, banner: str = "", dated: bool = True) -> list[str]:
    """The receipt in 32 columns."""
    lines = [SHOP, "RECEIPT NO " + sale.number]
    lines += [sale.date] if dated else []
    lines += [banner] if banner else []
    lines.append("-" * 32)
    for item in sale.items:
        lines.append(pair(item.name, f"{money(item.cents)} {item.mark}".rstrip()))
        if item.quantity != 1:
            lines.append(f"  {item.quantity} x {money(item.cents // item.quantity)}")
    paid = sale.total if sale.paid is None else sale.paid
    lines += ["-" * 32, pair("TOTAL", money(sale.total)), pair(sale.tender, money(paid))]
    lines += [pair("CHANGE", money(paid - sale.total))] if paid > sale.total else []
    return [*lines, *sale.extra, "THANK YOU"]


def plain(sale: TillSale, **more: bool | str) -> bytes:
    """An electronic cash register: text, line feeds, a cut."""
    text = "\r\n".join(lines_of(sale, **more))  # type: ignore[arg-type]
    return text.encode("cp437", "replace") + b"\r\n\n\n" + CUT


def fancy(sale: TillSale, **more: bool | str) -> bytes:
    """A PC till: code page, logo, large and bold lines, a barcode, the drawer, feed and cut."""
    out = bytearray(INIT + b"\x1bt\x10" + CENTRE + logo(12, 24))
    for line in lines_of(sale, **more):  # type: ignore[arg-type]
        data = line.encode("cp1252", "replace")
        if line == SHOP:
            out += BIG + data + b"\n" + NORMAL + LEFT
        elif line.startswith("TOTAL"):
            out += BOLD + data + PLAIN + b"\n"
        else:
            out += data + b"\n"
    out += b"\x1dh\x50\x1dw\x02\x1dH\x00\x1dk\x49" + bytes([len(sale.number) + 2])
    out += b"{B" + sale.number.encode()
    return bytes(out + PULSE + b"\x1bd\x04" + b"\x1dV\x00")


def no_cut(sale: TillSale, **more: bool | str) -> bytes:
    """An old till with a tear bar: text and many line feeds."""
    text = "\n".join(lines_of(sale, **more))  # type: ignore[arg-type]
    return text.encode("cp437", "replace") + b"\n" * 6


def printed(style: str, sale: TillSale, **more: bool | str) -> bytes:
    """A receipt in one of STYLES."""
    return {"plain": plain, "fancy": fancy, "no-cut": no_cut}[style](sale, **more)


def logo(wide_bytes: int, rows: int) -> bytes:
    """A raster picture that holds every byte value a parser could trip over."""
    data = bytes((at * 7 + 10) % 256 for at in range(wide_bytes * rows))
    return b"\x1dv0\x00" + bytes([wide_bytes, 0, rows, 0]) + data


def picture(rows: int = 400) -> bytes:
    """A receipt of an app that draws it: strips of raster pictures, not one letter."""
    return INIT + logo(48, 100) * max(1, rows // 100) + PULSE + CUT


def x_report() -> bytes:
    lines = [
        SHOP,
        "X REPORT",
        "25/11/2026 18:00",
        pair("SALES", "12,345.00"),
        pair("TOTAL", "12,345.00"),
    ]
    return "\n".join(lines).encode() + b"\n\n" + CUT


def no_sale() -> bytes:
    """The drawer opens, and the slip says so."""
    return PULSE + b"NO SALE\n25/11/2026 10:20\n\n" + CUT


def garbled(data: bytes, seed: int = 1, share: float = 0.05) -> bytes:
    """A wrong baud rate or a loose plug: so many of its bytes are others."""
    dice = random.Random(seed)
    return bytes(dice.randrange(256) if dice.random() < share else byte for byte in data)
