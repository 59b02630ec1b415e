"""Print one sale with PyESCPOS and escpos-thermal, and keep the bytes in the folder of the first argument.

Run by capture.py with the Python where these two are installed; python-escpos runs in the test.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SHOP, NUMBER, DATE, THANKS = (
    "MAMA MBOGA STORES",
    "RECEIPT NO 0001",
    "25/11/2026 10:15",
    "THANK YOU",
)


def lines(name: str) -> list[str]:
    """The receipt between its head and THANK YOU, in 32 columns."""
    return [
        f"{'SODA 500ML':24}120.00 V", "  2 x 60.00", f"{name:24} 65.00 Z", "-" * 32,
        f"{'TOTAL':26}185.00", f"{'M-PESA':26}185.00",
    ]  # fmt: skip


class Kept:
    """A connection that keeps what is written."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | str) -> None:
        self.data += data if isinstance(data, bytes) else data.encode("latin-1")

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


def pyescpos(name: str) -> bytes:
    from escpos.impl.epson import GenericESCPOS

    kept = Kept()
    printer = GenericESCPOS(kept)
    printer.init()
    printer.set_expanded(True)
    printer.text_center(SHOP)
    printer.set_expanded(False)
    printer.justify_left()
    for line in (NUMBER, DATE, *lines(name)):
        printer.text(line)
    printer.ean13("4007817525074")
    printer.text(THANKS)
    printer.kick_drawer()
    printer.cut()
    return bytes(kept.data)


def escpos_thermal(name: str) -> bytes:
    from escpos_thermal import Printer
    from escpos_thermal.connectors import DummyConnector

    connector = DummyConnector()
    printer = Printer(connector)
    printer.set_emphasis(True)
    printer.text(f"{SHOP}\n")
    printer.set_emphasis(False)
    for line in (NUMBER, DATE, *lines(name), THANKS):
        printer.text(f"{line}\n")
    printer.feed(2)
    printer.pulse()
    printer.cut()
    return bytes(connector.get_data())


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for producer, sale in (("pyescpos", pyescpos), ("escpos-thermal", escpos_thermal)):
        for suffix, item in (("", "BREAD 400G"), ("-accents", "CAFÉ 400G")):
            (folder / f"{producer}{suffix}.bin").write_bytes(sale(item))
